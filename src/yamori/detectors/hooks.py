"""Functions that the kernel was told to call: whose they are, and what that means."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from yamori.detectors.detector import UNNAMED, NotChecked
from yamori.detectors.view import View
from yamori.errors import YamoriError
from yamori.records import Finding, Module, Severity

MOST_OPS = 256
SEVERITIES: tuple[Severity, ...] = ("low", "medium", "high", "critical")
OUT_OF_TREE, UNSIGNED = 1 << 12, 1 << 13
"""``TAINT_OOT_MODULE`` and ``TAINT_UNSIGNED_MODULE`` of ``include/linux/panic.h``."""

BEHIND = 16 << 20
"""Bytes behind the text that are the image's, where nothing tells: functions that are used once branch to the init
sections."""


def image_of(view: View) -> range:
    """Return where the kernel's text may lead: its image, from its text on.

    Raises:
        NotChecked: It is not known where its text is.
    """
    text = view.profile.text
    if text is None:
        raise NotChecked("the bounds of the kernel's text are not known")
    return range(text.start, view.kernel.image[-1].stop if view.kernel.image else text.stop + BEHIND)


class Hooks:
    """Judges what is called.

    Args:
        view: The look at the guest.

    Raises:
        NotChecked: It is not known what the kernel's text is, or, once that matters, which modules there are.
    """

    def __init__(self, view: View) -> None:
        if view.profile.text is None:
            raise NotChecked("the bounds of the kernel's text are not known")
        self.view = view

    def is_own(self, function: int) -> bool:
        """Say whether a function is the kernel's."""
        return bool(self.view.profile.in_text(function))

    def is_stock(self, function: int) -> bool:
        """Say whether a function is the kernel's, or that of a module that came with it."""
        if self.is_own(function):
            return True
        module = self.module_of(function)
        return module is not None and not _is_foreign(module)

    def module_of(self, function: int) -> Module | None:
        """Return the module that a function belongs to, ``None`` if it is of none that is listed."""
        self.view.modules()
        if self.view.lacks:  # then nobody can say which code is a module's
            raise NotChecked("; ".join(self.view.lacks))
        return self.view.module_of(function)

    def severity(self, function: int) -> Severity:
        """Say how bad it is that a function is called which is none of the kernel's own."""
        if self.is_own(function):
            return "low"
        module = self.module_of(function)
        if module is None:
            return "critical"
        return "high" if _is_foreign(module) else "low"

    def worst(self, functions: Iterable[int]) -> int:
        """Return the function that it is the worst to have called; the first of these."""
        return max(functions, key=lambda function: SEVERITIES.index(self.severity(function)))

    def finding(self, subject: str, function: int, title: str, expected: str, what: str) -> Finding:
        """Return the finding that something calls a function."""
        severity = self.severity(function)
        whose = self.view.owner(function)
        return Finding(
            subject=subject,
            severity=severity,
            confidence="certain" if severity == "low" else "likely",
            title=f"{title} ({whose})",
            why=[f"Expected: {expected}", f"Found: {what} calls {function:#x}, {whose}."],
            remedy=(
                "Make sure that the owner of the device traces it; a device in the field seldom is."
                if severity == "low"
                else "Preserve the memory, isolate the device and reinstall it from a trusted image."
            ),
        )


def _is_foreign(module: Module) -> bool:
    if module.taints is None:
        raise NotChecked(f"whether module {module.name} came with the kernel is not known", hint="give --vmlinux")
    return bool(module.taints & (OUT_OF_TREE | UNSIGNED))


def ftrace_ops(view: View) -> Iterator[int]:
    """Yield each ``struct ftrace_ops`` that is registered: ``ftrace_ops_list`` of ``kernel/trace/ftrace.c``.

    ``ftrace_list_end`` is last, and calls nothing.

    Raises:
        NotChecked: The kernel does not name the list, or it does not end.
    """
    head, last = (view.profile.address(name) for name in ("ftrace_ops_list", "ftrace_list_end"))
    if head is None:
        raise NotChecked("the kernel does not name ftrace_ops_list", hint=UNNAMED)
    first = view.reader().pointer(head)
    if not first:
        raise NotChecked("ftrace_ops_list cannot be read")
    nothing = view.named("ftrace_stub")  # what ftrace_list_end calls, which not every kernel names
    for ops in chain(view, first, "ftrace_ops", "next", MOST_OPS):
        if ops != last and view.pointer("ftrace_ops", "func", ops) not in nothing:
            yield ops


def trampolines(view: View) -> list[range]:
    """Return where functions that are traced lead: code that ftrace made for what is registered, and direct calls."""
    direct = ["direct_call"] if view.profile.member("ftrace_ops", "direct_call") else []  # since 6.0
    try:
        every = list(ftrace_ops(view))
        found = [
            (view.pointer("ftrace_ops", "trampoline", ops), view.number("ftrace_ops", "trampoline_size", ops))
            for ops in every
        ] + [(view.pointer("ftrace_ops", name, ops), 1) for ops in every for name in direct]
    except YamoriError:  # ftrace-hooks says why
        return []
    return [range(start, start + size) for start, size in found if start and size]


def chain(view: View, first: int, struct: str, member: str, most: int) -> Iterator[int]:
    """Yield what is linked by plain pointers, up to NULL.

    Args:
        view: The look at the guest.
        first: Address of the first.
        struct: The type of each.
        member: Its member that leads to the next.
        most: How many are followed.

    Raises:
        NotChecked: It does not end.
    """
    seen: set[int] = set()
    at: int | None = first
    while at:
        if at in seen or len(seen) >= most:
            raise NotChecked(f"the list of struct {struct} does not end")
        seen.add(at)
        yield at
        at = view.pointer(struct, member, at)
    if at is None:
        raise NotChecked(f"a struct {struct} cannot be read")
