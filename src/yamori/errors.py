"""Every error that Yamori raises on purpose: one line that says what, where, and what to do next."""

from __future__ import annotations


class YamoriError(Exception):
    """Something the user can act on.

    Args:
        message: What went wrong, without a full stop.
        where: The target, file or address it went wrong at.
        hint: What to do next.
    """

    def __init__(self, message: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        """Return the one line that a user reads."""
        line = f"{self.where}: {self.message}" if self.where else self.message
        return f"{line}; {self.hint}" if self.hint else line


class TargetError(YamoriError):
    """The target cannot be found, opened or read."""


class NoKernelError(YamoriError):
    """The memory could be read, but no running Linux kernel was found in it."""


class ProfileError(YamoriError):
    """Something that a command needs is not known of this kernel."""


class LabError(YamoriError):
    """A lab device cannot be fetched, started, found or talked to."""


class Fault(YamoriError):
    """A load of guest memory that cannot be carried out. The guest chooses what is read, so this is normal."""


class MemoryFault(Fault):
    """A guest physical address outside the guest's RAM, or bytes that the host no longer gives."""

    def __init__(self, gpa: int, size: int, reason: str = "outside the guest's RAM") -> None:
        super().__init__(f"{size} bytes at GPA {gpa:#x} are {reason}")
        self.gpa = gpa
        self.size = size


class TranslationFault(Fault):
    """A guest virtual address that the page tables do not map.

    Args:
        gva: The address that was to be translated.
        reason: Which entry ended the walk, and why.
    """

    def __init__(self, gva: int, reason: str) -> None:
        super().__init__(f"GVA {gva:#x} is not mapped: {reason}")
        self.gva = gva
