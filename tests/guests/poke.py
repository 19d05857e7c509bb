"""Changes to a running guest's memory from the host: what a module of an intruder would do, without one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from yamori.address import GVA
from yamori.guest import Guest


class Poker:
    """Writes into a guest's kernel.

    Args:
        guest: The guest.
    """

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.space = guest.kernel.space
        self.word = guest.profile.init.word_size

    def pointer(self, gva: int) -> int:
        return self.space.pointer(GVA(gva))

    def offset(self, struct: str, member: str) -> int:
        return self.guest.profile.require(struct, member).offset

    @contextmanager
    def changed(self, *changes: tuple[int, bytes | int]) -> Iterator[None]:
        """Write at GVAs, and afterwards what was there."""
        pairs = [
            (gva, value.to_bytes(self.word, "little") if isinstance(value, int) else value) for gva, value in changes
        ]
        before = [(gva, self.space.read(GVA(gva), len(data))) for gva, data in pairs]
        try:
            for gva, data in pairs:
                self._write(gva, data)
            yield
        finally:
            for gva, data in before:
                self._write(gva, data)

    @contextmanager
    def unlinked(self, node: int) -> Iterator[None]:
        """Take an entry off its list, as ``list_del`` does, but for the entry's own pointers."""
        after, before = self.pointer(node), self.pointer(node + self.word)
        with self.changed((before, after), (after + self.word, before)):
            yield

    def _write(self, gva: int, data: bytes) -> None:
        gpa = self.space.translate(GVA(gva)).gpa
        for segment in self.guest.vm.layouts[0]:
            if segment.gpa <= gpa < segment.gpa + segment.size:
                with Path(segment.path).open("r+b", buffering=0) as memory:
                    memory.seek(segment.offset + gpa - segment.gpa)
                    memory.write(data)
                return
        raise AssertionError(f"GPA {gpa:#x} is not RAM")
