"""A guest's address space: loads by guest virtual address, through the cache of translations that probes have."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NoReturn, cast

from yamori.address import GPA, GVA
from yamori.errors import Fault, TranslationFault
from yamori.llview.faults import Code
from yamori.llview.runtime import WORD, translation
from yamori.memory.physical import PhysicalMemory
from yamori.translation.format import Geometry, Mapping
from yamori.translation.loads import PhysicalLoads

MOST_BYTES = 64 << 20
"""The most that one ``read`` or ``string`` returns: a guest can map one page at as many addresses as it likes."""


class AddressSpace:
    """What the guest's kernel, or one of its programs, sees.

    Loads are *typed* (``u8`` to ``u64``, ``s32``, ``s64``, ``pointer``) or of any length (``read``, ``string``).
    A typed load is a single aligned read of guest memory and thus never crosses a page.

    Not for use from several threads at once.

    Args:
        memory: The guest's RAM.
        geometry: How the guest has its page tables set up.
        root: GPA of the top table: ``init_mm.pgd`` for the kernel, ``mm->pgd`` for a program.
        user: Translate a program's addresses. Otherwise an address that is not the kernel's is a fault:
            on Arm the two halves have roots of their own, and a user address would be looked up in the wrong table.

    Attributes:
        loads: Loads of guest memory done, not counting page-table entries; ``read`` and ``string`` count one a page.
        faults: Faults met.
    """

    def __init__(self, memory: PhysicalMemory, geometry: Geometry, root: GPA, *, user: bool = False) -> None:
        self.memory = memory
        self.geometry = geometry
        self.root = root
        self.user = user
        self.loads = 0
        self.faults = 0
        # A call of GPA() costs as much as the look into the TLB, so the hot path does without.
        self._read = cast("Callable[[int, int], bytes]", memory.read)
        self._physical = PhysicalLoads(memory)
        self._word_size = geometry.word_size
        self._inside = geometry.page_size - 1
        self._range = (0, WORD) if user else geometry.kernel
        self.clear()

    def clear(self) -> None:
        """Forget all translations. The guest may change its tables at any time: call it before each run."""
        shift = self.geometry.page_size.bit_length() - 1
        self._page, _ = translation(shift, self.root, self._range, self._find, self._fault)

    def translate(self, gva: GVA) -> Mapping:
        """Walk the page tables as they are now, past the TLB.

        Raises:
            Fault: The address is not mapped, or a table lies outside the guest's RAM.
        """
        try:
            return self._walk(gva)
        except Fault:
            self.faults += 1
            raise

    def u8(self, gva: GVA) -> int:
        """Load a ``u8``.

        Raises:
            Fault: The address is not mapped to RAM. The same holds for all loads.
        """
        return self._load(gva, 1)[0]

    def u16(self, gva: GVA) -> int:
        """Load an aligned ``u16``."""
        return int.from_bytes(self._load(gva, 2), "little")

    def u32(self, gva: GVA) -> int:
        """Load an aligned ``u32``."""
        return int.from_bytes(self._load(gva, 4), "little")

    def u64(self, gva: GVA) -> int:
        """Load an aligned ``u64``."""
        return int.from_bytes(self._load(gva, 8), "little")

    def s32(self, gva: GVA) -> int:
        """Load an aligned ``s32``."""
        return int.from_bytes(self._load(gva, 4), "little", signed=True)

    def s64(self, gva: GVA) -> int:
        """Load an aligned ``s64``."""
        return int.from_bytes(self._load(gva, 8), "little", signed=True)

    def pointer(self, gva: GVA) -> GVA:
        """Load an aligned pointer (``void *``) of the guest's word size."""
        return GVA(int.from_bytes(self._load(gva, self._word_size), "little"))

    def read(self, gva: GVA, size: int) -> bytes:
        """Return exactly ``size`` bytes at ``gva``, page by page.

        The guest may change them meanwhile.

        Raises:
            Fault: Any page is not mapped to RAM, or ``size`` is negative or above ``MOST_BYTES``.
        """
        return b"".join(self._chunks(gva, size))

    def string(self, gva: GVA, limit: int) -> bytes:
        """Return the bytes at ``gva`` up to a NUL, which is left out, and ``limit`` bytes at most.

        Raises:
            Fault: A page is not mapped to RAM before the string ends, or ``limit`` is negative or above ``MOST_BYTES``.
        """
        texts = []
        for chunk in self._chunks(gva, limit):
            text, nul, _ = chunk.partition(b"\0")
            texts.append(text)
            if nul:
                break
        return b"".join(texts)

    def _load(self, gva: GVA, size: int) -> bytes:
        """Do one aligned load."""
        try:
            data = self._read(self._page(gva, size), size)
        except Fault:
            self.faults += 1
            raise
        self.loads += 1
        return data

    def _chunks(self, gva: GVA, size: int) -> Iterator[bytes]:
        """Yield ``size`` bytes at ``gva``, page by page."""
        if not 0 <= size <= MOST_BYTES:
            self.faults += 1
            raise Fault(f"{size} bytes are no sensible length", where=f"GVA {gva:#x}")
        try:
            while size:
                chunk = self._read(self._page(gva, 1), min(size, self._inside + 1 - (gva & self._inside)))
                self.loads += 1
                yield chunk
                gva = GVA(gva + len(chunk))
                size -= len(chunk)
        except Fault:
            self.faults += 1
            raise

    def _find(self, _: int, gva: int) -> int:
        """Return the GPA of a page that is not remembered."""
        return self._walk(GVA(gva)).gpa

    def _fault(self, code: Code, gva: int, size: int) -> NoReturn:
        if code == Code.MISALIGNED:
            raise Fault(f"a load of {size} bytes is misaligned", where=f"GVA {gva:#x}")
        self._refuse(gva)

    def _refuse(self, gva: int) -> NoReturn:
        raise TranslationFault(GVA(gva), f"it is not an address of the {'guest' if self.user else 'kernel'}")

    def _walk(self, gva: GVA) -> Mapping:
        if not self.user and not self.geometry.canonical(gva):
            self._refuse(gva)
        return self.geometry.walk(self._physical, self.root, gva)
