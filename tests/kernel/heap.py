"""A piece of a kernel's memory to make objects in, and no more: what inference on demand is tested with."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

from yamori.address import GVA
from yamori.errors import TranslationFault
from yamori.kernel.init_task import InitTask
from yamori.translation.space import AddressSpace

SIZE = 1 << 16


@dataclass
class Heap:
    """A kernel's memory from ``base`` on; everything else is not mapped."""

    word: int
    base: int = 0
    data: bytearray = field(default_factory=lambda: bytearray(SIZE))
    free: int = 0x100

    def __post_init__(self) -> None:
        self.base = 0xC0000000 if self.word == 4 else 0xFFFF_8880_0000_0000

    def new(self, size: int) -> int:
        at = self.free
        self.free += -(-size // 64) * 64
        return self.base + at

    def put(self, gva: int, value: int, size: int = 0) -> None:
        at = gva - self.base
        self.data[at : at + (size or self.word)] = value.to_bytes(size or self.word, "little")

    def text(self, gva: int, value: bytes) -> None:
        at = gva - self.base
        self.data[at : at + len(value) + 1] = value + b"\0"

    # what Reader asks of an AddressSpace

    @property
    def geometry(self) -> Any:
        kernel = self.base, self.base + SIZE - 1
        return SimpleNamespace(canonical=lambda gva: gva >= self.base, root_alignment=4096, kernel=kernel)

    @property
    def memory(self) -> Any:
        return SimpleNamespace(regions=[SimpleNamespace(gpa=64, end=128)])  # the linear map is behind it

    def read(self, gva: int, size: int) -> bytes:
        at = gva - self.base
        if not 0 <= at <= SIZE - size:
            raise TranslationFault(GVA(gva), "nothing is there")
        return bytes(self.data[at : at + size])

    def pointer(self, gva: int) -> int:
        return int.from_bytes(self.read(gva, self.word), "little")

    def translate(self, gva: int) -> Any:
        raise TranslationFault(GVA(gva), "there are no tables here")

    @property
    def space(self) -> AddressSpace:
        return cast("AddressSpace", self)

    @property
    def init(self) -> InitTask:
        gva = self.base + SIZE - 64
        return InitTask(gva=gva, gpa=0, image_offset=gva, comm=0x300, word_size=self.word, votes=3)
