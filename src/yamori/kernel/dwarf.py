"""What a maker's ``vmlinux`` tells: layouts from its BTF or DWARF, symbols, build id, banner.

Needs pyelftools, an extra of the package (``yamori[dwarf]``). Addresses are link-time addresses; the KASLR slide is for
the caller to find.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from yamori.errors import ProfileError
from yamori.kernel import btf
from yamori.kernel.btf import BtfTypes
from yamori.kernel.symbols import Symbol, Symbols

if TYPE_CHECKING:
    from yamori.kernel.dwarf_types import Search

_SHF_WRITE, _SHF_ALLOC, _SHF_EXECINSTR = 1, 2, 4
_SHN_UNDEF, _SHN_ABS = 0, 0xFFF1
_STT_FUNC, _STT_SECTION, _STT_FILE = 2, 3, 4
_STB_LOCAL, _STB_WEAK = 0, 2
_MAX_BANNER = 1024


class BuildInfo(NamedTuple):
    """Which kernel a ``vmlinux`` is.

    Attributes:
        build_id: GNU build id in hexadecimal, or ``None``.
        banner: ``linux_banner`` without its line feed, or ``None`` where the file holds only debug information.
        machine: The ELF machine, as in ``EM_AARCH64``.
        word_size: Bytes of a pointer.
    """

    build_id: str | None
    banner: str | None
    machine: str
    word_size: int


class Vmlinux(NamedTuple):
    """All that is taken from a ``vmlinux``."""

    types: BtfTypes
    symbols: Symbols
    build: BuildInfo


def load_vmlinux(path: str | Path, wanted: Iterable[str], *, deep: bool = False) -> Vmlinux:
    """Read a ``vmlinux`` with BTF or DWARF.

    BTF is preferred where the file has both: it is read in a tenth of a second and knows every type. From DWARF only
    the wanted types are read.

    Args:
        path: The file.
        wanted: Names of the structures, unions, typedefs and enumerations that will be asked for.
        deep: Take from DWARF what pointers point to, too; see ``dwarf_encoder.Encoder``.

    Raises:
        ProfileError: pyelftools is not installed, or the file cannot be read, is no ``vmlinux``, was stripped, or has
            no debug information.
    """
    try:
        from elftools.elf.elffile import ELFFile  # noqa: PLC0415 - pyelftools is an extra, and slow to import

        from yamori.kernel.dwarf_types import DAMAGE, Later, read_types  # noqa: PLC0415 - needs pyelftools
    except ImportError as error:
        raise ProfileError(
            "reading it needs pyelftools", where=str(path), hint="install yamori[dwarf], or leave the file out"
        ) from error
    try:
        with Path(path).open("rb") as file:
            _check_magic(file)
            elf = ELFFile(file)
            symbols, build = _read(elf)
            types = _from_btf(elf, build.word_size)
            if types is None:
                types = read_types(elf, partial(_section, elf), wanted, deep=deep)
                types.more = Later(partial(_search, Path(path)), build.word_size)
            return Vmlinux(types, symbols, build)
    except OSError as error:
        raise ProfileError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except ProfileError as error:
        raise ProfileError(error.message, where=str(path), hint=error.hint) from error
    except DAMAGE as error:
        raise ProfileError("a damaged ELF file", where=str(path), hint="copy it again from the build") from error


def _search(path: Path) -> Search:
    """Open a file of DWARF once more, for what nobody has wanted before.

    Raises:
        ProfileError: It cannot be read any more.
    """
    from elftools.elf.elffile import ELFFile  # noqa: PLC0415 - pyelftools is an extra, and slow to import

    from yamori.kernel.dwarf_types import Search  # noqa: PLC0415 - needs pyelftools

    try:
        with path.open("rb") as file:
            elf = ELFFile(file)
            return Search(elf, partial(_section, elf))
    except OSError as error:
        raise ProfileError(f"cannot be read: {error.strerror}", where=str(path)) from error


def _check_magic(file: BinaryIO) -> None:
    if file.read(4) != b"\x7fELF":
        raise ProfileError("not an ELF file", hint="give the uncompressed vmlinux, not vmlinuz or Image")


def _read(elf: Any) -> tuple[Symbols, BuildInfo]:
    if elf["e_type"] not in {"ET_EXEC", "ET_DYN"} or not elf.little_endian:
        raise ProfileError("not a little-endian vmlinux", hint="a kernel module or object file does not do")
    symbols = Symbols(_symbols(elf), "dwarf")
    if not len(symbols):
        raise ProfileError("stripped: it has no symbols", hint="give the vmlinux that the kernel's build left")
    return symbols, BuildInfo(_build_id(elf), _banner(elf, symbols), elf["e_machine"], elf.elfclass // 8)


def _section(elf: Any, name: str) -> bytes:
    """Return a section's bytes, decompressed; nothing where the file has none of that name, or only its header."""
    section = elf.get_section_by_name(name)
    return b"" if section is None or section["sh_type"] == "SHT_NOBITS" else bytes(section.data())


def _symbols(elf: Any) -> Iterator[Symbol]:
    """Yield what ``nm`` would show, without mapping symbols and local labels (as ``scripts/mksysmap`` does)."""
    table, names = _section(elf, ".symtab"), _section(elf, ".strtab")
    letters = {_SHN_ABS: "A"} | {
        number: _letter(section) for number, section in enumerate(elf.iter_sections()) if number
    }
    is_wide, is_arm = elf.elfclass == 64, elf["e_machine"] == "EM_ARM"
    for entry in struct.iter_unpack("<IBBHQQ" if is_wide else "<IIIBBH", table):
        name_off = entry[0]
        info, index, value = (entry[1], entry[3], entry[4]) if is_wide else (entry[3], entry[5], entry[1])
        name = names[name_off : names.find(b"\0", name_off)].decode(errors="replace")
        if index not in letters or info & 15 in {_STT_SECTION, _STT_FILE} or not name or not name.isprintable():
            continue
        if name.startswith(("$", ".L")):
            continue
        if is_arm and info & 15 == _STT_FUNC:
            value &= ~1  # marks Thumb code; not part of the address
        binding, letter = info >> 4, letters[index]
        yield Symbol(value, "W" if binding == _STB_WEAK else letter.lower() if binding == _STB_LOCAL else letter, name)


def _letter(section: Any) -> str:
    """Return the letter that ``nm`` shows for global symbols of a section."""
    flags = section["sh_flags"]
    if flags & _SHF_EXECINSTR:
        return "T"
    if section["sh_type"] == "SHT_NOBITS":
        return "B"
    return "D" if flags & _SHF_WRITE else "R"


def _build_id(elf: Any) -> str | None:
    for section in elf.iter_sections(type="SHT_NOTE"):
        for note in section.iter_notes():
            if note["n_name"] == "GNU" and note["n_type"] == "NT_GNU_BUILD_ID":  # Xen numbers its notes alike
                return str(note["n_desc"])
    return None


def _banner(elf: Any, symbols: Symbols) -> str | None:
    """Read ``linux_banner`` (``init/version.c``, ``init/version-timestamp.c`` of the kernel tree)."""
    address = symbols.address("linux_banner")
    for section in elf.iter_sections(type="SHT_PROGBITS"):
        offset = -1 if address is None else address - section["sh_addr"]
        if section["sh_flags"] & _SHF_ALLOC and 0 <= offset < section["sh_size"]:
            text = bytes(section.data()[offset : offset + _MAX_BANNER])
            return text.split(b"\0")[0].decode(errors="replace").strip()
    return None


def _from_btf(elf: Any, word_size: int) -> BtfTypes | None:
    """Return the types of the section ``.BTF``; ``None`` where there is none, or none that is understood."""
    try:
        return btf.parse(_section(elf, ".BTF"), word_size, "dwarf")
    except ProfileError:
        return None
