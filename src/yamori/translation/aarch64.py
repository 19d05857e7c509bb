"""AArch64 stage 1 page tables (VMSAv8-64): ARM DDI 0487, D8.2 to D8.4.

Granules of 4, 16 and 64 KiB; input addresses of 25 to 52 bits; two to five levels, of which the first may be
smaller than a page. Output addresses have 48 bits, or 52: with FEAT_LPA (64 KiB granule) bits 51:48 of an address
lie in bits 15:12 of the descriptor, with FEAT_LPA2 (4 and 16 KiB, ``TCR.DS`` = 1) bits 51:50 lie in bits 9:8, and
the 4 KiB granule has a level -1.

A Linux kernel built for 52-bit addresses that runs on a CPU without them needs no geometry of its own:

* 64 KiB: ``init_mm.pgd`` keeps its 1024 entries and TTBR1 is set to the last 64 of them (``TTBR1_BADDR_4852_OFFSET``,
  ``offset_ttbr1`` in ``arch/arm64/include/asm/assembler.h``). From ``init_mm.pgd`` a kernel address is walked with
  52 bits, since its bits 51:48 are ones; from the value of TTBR1 with 48.
* 4 and 16 KiB: the kernel leaves out its first level (``root_level++`` in ``arch/arm64/kernel/pi/map_kernel.c``,
  ``pgd_to_folded_p4d`` and ``p4d_to_folded_pud`` in ``asm/pgtable.h``): ``init_mm.pgd`` is an ordinary root of
  48 bits (4 KiB) or 47 (16 KiB).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from yamori.address import GPA
from yamori.llview.language import Walker, helper, phys_u64, stop, u64, walker
from yamori.translation.format import Loads, Mapping, TableGeometry

NAME = "aarch64"

# Descriptor fields, D8.3.
USER = 1 << 6
READ_ONLY = 1 << 7
DIRTY_BIT_MODIFIER = 1 << 51
PRIVILEGED_EXECUTE_NEVER = 1 << 53
TABLE_PRIVILEGED_EXECUTE_NEVER = 1 << 59
TABLE_NO_USER = 1 << 61
TABLE_READ_ONLY = 1 << 62

LARGEST_BLOCK = {(12, 48): 30, (14, 48): 25, (16, 48): 29, (12, 52): 39, (14, 52): 36, (16, 52): 42}
"""(granule's shift, bits of an output address) → shift of the largest block (D8.3)."""


@dataclass(frozen=True, slots=True)
class AArch64(TableGeometry):
    """A guest that uses AArch64 stage 1 translation.

    Attributes:
        page_shift: log2 of the granule: 12, 14 or 16.
        t1sz: ``TCR_EL1.T1SZ``: kernel addresses have ``64 - t1sz`` bits and are walked from a root as TTBR1 holds it.
        t0sz: ``TCR_EL1.T0SZ``: the same for user addresses and TTBR0. Linux has it equal to ``t1sz``.
        pa_bits: Bits of an output address: 48, or 52 with FEAT_LPA or FEAT_LPA2 in use.
    """

    page_shift: int
    t1sz: int
    t0sz: int
    pa_bits: int = 48
    format: ClassVar[str] = NAME
    word_size: ClassVar[int] = 8

    def __post_init__(self) -> None:
        if (self.page_shift, self.pa_bits) not in LARGEST_BLOCK:
            raise ValueError(f"no granule of 2^{self.page_shift} bytes with {self.pa_bits}-bit addresses")
        lowest = 12 if self.page_shift == 16 or self.pa_bits == 52 else 16
        for size in (self.t1sz, self.t0sz):
            if not lowest <= size <= 39:
                raise ValueError(f"TxSZ is {lowest} to 39 here, not {size}")

    @property
    def page_size(self) -> int:
        """The granule in bytes."""
        return 1 << self.page_shift

    @property
    def root_alignment(self) -> int:
        """The size of the smaller of the two first-level tables."""
        return min(8 << (bits - start_shift(self.page_shift, bits)) for bits in (64 - self.t1sz, 64 - self.t0sz))

    def describe(self) -> str:
        """Say it in one line."""
        bits = 64 - self.t1sz
        levels = (start_shift(self.page_shift, bits) - self.page_shift) // (self.page_shift - 3) + 1
        granule = self.page_size >> 10
        return f"AArch64, {granule}K granule, {bits}-bit VA, {self.pa_bits}-bit PA, {levels} levels"

    @property
    def walker(self) -> Walker:
        """The walk of this format."""
        return walk

    @property
    def parameters(self) -> tuple[int, ...]:
        """What the walk is told of the geometry."""
        kernel, user = 64 - self.t1sz, 64 - self.t0sz
        return (
            kernel,
            user,
            start_shift(self.page_shift, kernel),
            start_shift(self.page_shift, user),
            self.page_shift,
            self.pa_bits,
            LARGEST_BLOCK[self.page_shift, self.pa_bits],
            address_mask(self.page_shift, self.pa_bits),
        )

    @property
    def kernel(self) -> tuple[int, int]:
        """What TTBR1 translates: addresses whose topmost ``t1sz`` bits are ones (no address tags)."""
        return (1 << 64) - (1 << (64 - self.t1sz)), (1 << 64) - 1

    def user_tables(self, loads: Loads, root: GPA, image: int) -> Iterator[tuple[int, int]]:  # noqa: ARG002  see Geometry
        """Yield nothing: TTBR0 has another root."""
        yield from ()


def geometries() -> Iterator[AArch64]:
    """Yield what ``arch/arm64/Kconfig`` offers (``ARM64_VA_BITS_*``, ``ARM64_PA_BITS_*``).

    FEAT_LPA2 comes only with 52-bit virtual addresses (``CONFIG_ARM64_LPA2``). On the 64 KiB granule 52-bit physical
    addresses are a choice of their own.
    """
    for page_shift, va_bits, pa_bits in (
        (12, 48, 48),
        (12, 39, 48),
        (12, 52, 52),
        (14, 47, 48),
        (16, 48, 48),
        (16, 52, 48),
        (14, 52, 52),
        (14, 48, 48),
        (14, 36, 48),
        (16, 42, 48),
        (16, 52, 52),
        (16, 48, 52),
        (16, 42, 52),
    ):
        yield AArch64(page_shift, 64 - va_bits, 64 - va_bits, pa_bits)


def start_shift(page_shift: int, bits: int) -> int:
    """Return the lowest address bit that indexes the first table of a region of ``bits`` bits (D8.2).

    Each level below it resolves ``page_shift - 3`` bits; the first resolves what is left, one bit at least.
    """
    stride = page_shift - 3
    return page_shift + (bits - page_shift - 1) // stride * stride


def address_mask(page_shift: int, pa_bits: int) -> int:
    """Return the bits of an output address that stand in their own place in a descriptor (D8.3).

    They end at bit 49 with FEAT_LPA2, else at bit 47.
    """
    bits = 50 if pa_bits == 52 and page_shift != 16 else 48
    return (1 << bits) - (1 << page_shift)


@walker
def walk(  # noqa: PLR0917  the numbers of a geometry
    root: u64,
    gva: u64,
    kernel_bits: u64,
    user_bits: u64,
    kernel_shift: u64,
    user_shift: u64,
    page_shift: u64,
    pa_bits: u64,
    largest: u64,
    address: u64,
) -> Mapping:
    """Translate ``gva`` from the table at ``root``, which is that of the address's half (D8.2).

    ``kernel_bits`` and ``user_bits`` are the sizes of the halves, the two shifts those of their first tables,
    ``largest`` that of the largest block, ``address`` the bits of an output address that stand in their own place.

    The access flag is not looked at: Linux clears it to learn which pages are in use, and they stay where they are.
    The contiguous bit is a hint to the TLB and changes nothing here.
    """
    bits = kernel_bits
    shift = kernel_shift
    if gva >> kernel_bits != (u64(1) << (64 - kernel_bits)) - 1:
        if gva >> user_bits != 0:
            stop("it lies between the kernel's half and the user's", gva)
        bits = user_bits
        shift = user_shift
    offset = gva & ((u64(1) << bits) - 1)
    stride = page_shift - 3
    last = (u64(1) << stride) - 1
    entry = phys_u64(root + (offset >> shift) * 8)
    inherited: u64 = 0
    while shift > page_shift and entry & 3 == 3:
        inherited |= entry
        shift -= stride
        entry = phys_u64(output(entry, page_shift, pa_bits, address) + (offset >> shift & last) * 8)
    if entry & 3 != (3 if shift == page_shift else 1):
        stop("an entry is invalid", entry)
    if shift != page_shift and shift > largest:
        stop("an entry is a block, which its level cannot have", entry)
    base = output(entry, page_shift, pa_bits, address) >> shift << shift
    return leaf(gva, base, entry, inherited, u64(1) << shift)


@helper
def output(entry: u64, page_shift: u64, pa_bits: u64, address: u64) -> u64:
    """Return the output address of a descriptor (D8.3). Bits that are RES0 are ignored, as CPUs do."""
    if pa_bits == 48:
        return entry & address
    if page_shift == 16:
        return (entry & address) | (entry >> 12 & 0xF) << 48
    return (entry & address) | (entry >> 8 & 3) << 50


@helper
def leaf(gva: u64, base: u64, entry: u64, inherited: u64, size: u64) -> Mapping:
    """Combine the leaf's permissions with those of the tables on the way (D8.4).

    A read-only page with the dirty bit modifier becomes writable by the first write to it ("Hardware management of
    the dirty state"), so it counts as writable. What user mode may write, the kernel may never execute.
    """
    user = entry & USER != 0 and inherited & TABLE_NO_USER == 0
    may_become = entry & READ_ONLY == 0 or entry & DIRTY_BIT_MODIFIER != 0
    writable = inherited & TABLE_READ_ONLY == 0 and may_become
    never = entry & PRIVILEGED_EXECUTE_NEVER != 0 or inherited & TABLE_PRIVILEGED_EXECUTE_NEVER != 0
    return Mapping(
        gpa=base | (gva & (size - 1)),
        page_size=size,
        writable=writable,
        executable=not never and not (user and writable),
        user=user,
    )
