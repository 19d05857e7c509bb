"""VMCOREINFO of a kernel, for tools that start from it: drgn, crash, makedumpfile.

A kernel without CONFIG_KEXEC writes none, and most images of its memory have none beside them. What these tools need of
it is known once the kernel's page tables are: see ``Documentation/admin-guide/kdump/vmcoreinfo.rst``.
"""

from __future__ import annotations

from collections.abc import Iterator

from yamori.errors import ProfileError
from yamori.kernel.profile import Profile

_TABLES = {"aarch64": "swapper_pg_dir", "riscv64": "swapper_pg_dir", "arm": "swapper_pg_dir", "x86_64": "init_top_pgt"}
_SYMBOLS = ("_stext", "_text", "init_task", "init_uts_ns", "init_mm", "node_online_map", "vmcore_info_data")
_HEX = frozenset(
    (
        *("MODULES_VADDR", "MODULES_END", "VMALLOC_START", "VMALLOC_END", "VMEMMAP_START", "VMEMMAP_END"),
        *("kimage_voffset", "PHYS_OFFSET", "TCR_EL1_T1SZ", "KERNELPACMASK", "KERNEL_LINK_ADDR", "va_kernel_pa_offset"),
    )
)
"""What arm64 and RISC-V write in hexadecimal (their ``crash_core.c``, since 6.9 ``vmcore_info.c``)."""


def text(profile: Profile) -> str:
    """Return VMCOREINFO as the kernel would write it, from what is known.

    Raises:
        ProfileError: The kernel's release is not known.
    """
    if profile.uts is None:
        raise ProfileError("the kernel's release is not known", hint="`yamori doctor` says what is")
    return "".join(f"{key}={value}\n" for key, value in _lines(profile, profile.uts.release))


def _lines(profile: Profile, release: str) -> Iterator[tuple[str, object]]:
    info, root, init = profile.vmcoreinfo, profile.root, profile.init
    yield "OSRELEASE", release
    if info and info.build_id:
        yield "BUILD-ID", info.build_id
    yield "PAGESIZE", root.geometry.page_size
    table = profile.address(_TABLES[profile.architecture], "swapper_pg_dir", "init_level4_pgt")
    yield "SYMBOL(swapper_pg_dir)", f"{table or root.gpa + init.image_offset:x}"
    symbols = {name: address for name in _SYMBOLS if (address := profile.address(name))} | {"init_task": init.gva}
    symbols |= dict(info.symbols) if info else {}
    symbols.pop("swapper_pg_dir", None)
    yield from ((f"SYMBOL({name})", f"{address:x}") for name, address in symbols.items())
    for name, value in _numbers(profile).items():
        yield f"NUMBER({name})", f"{value % (1 << 64):#x}" if name in _HEX else value
    if profile.slide is not None:
        yield "KERNELOFFSET", f"{profile.slide:x}"


def _numbers(profile: Profile) -> dict[str, int]:
    """Return the constants that page-table walks of such tools need, by architecture."""
    numbers = dict(profile.vmcoreinfo.numbers) if profile.vmcoreinfo else {}
    geometry, init = profile.root.geometry, profile.init
    if profile.architecture == "x86_64":
        # phys_base: the image's GPA less that of its link-time address above __START_KERNEL_map.
        numbers.setdefault("phys_base", (0xFFFFFFFF80000000 - init.image_offset + (1 << 63)) % (1 << 64) - (1 << 63))
        numbers.setdefault("pgtable_l5_enabled", int("5 levels" in geometry.describe()))
    elif profile.architecture in {"aarch64", "riscv64"}:
        bits = ((1 << 64) - geometry.kernel[0]).bit_length() - 1
        numbers.setdefault("VA_BITS", bits if profile.architecture == "aarch64" else bits + 1)
        if profile.architecture == "aarch64":
            numbers.setdefault("TCR_EL1_T1SZ", 64 - bits)
            numbers.setdefault("kimage_voffset", init.image_offset % (1 << 64))
    return numbers
