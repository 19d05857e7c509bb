"""Structure layouts from DWARF 4 and 5: the few that are wanted, out of debug information of a hundred megabytes.

Reading all of it would take many minutes. Instead the wanted names are looked up in ``.debug_str``, and their offsets
there in the bytes of each compilation unit; a hit is a definition where an abbreviation code of a structure with its
name first stands right before it. Only such entries, and what they contain by value, are parsed, by pyelftools. They
are then put into BTF, as ``pahole`` does for the kernel, so that one class answers for both.

Names are found where compilers put them by default (``DW_FORM_strp``, or ``DW_FORM_string`` for short ones).
"""

from __future__ import annotations

import inspect
import io
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from elftools.common.exceptions import DWARFError, ELFError
from elftools.dwarf.dwarfinfo import DebugSectionDescriptor, DwarfConfig, DWARFInfo
from elftools.elf.elffile import ELFFile

from yamori.errors import ProfileError
from yamori.kernel.btf import BtfTypes
from yamori.kernel.dwarf_encoder import COMPOUNDS, LOCATION, QUALIFIERS, Encoder, attribute, children

# DWARF 5, section 7.5: tags, attributes and forms by number, as an abbreviation table holds them.
_LAYOUTS = frozenset((0x04, 0x13, 0x16, 0x17))  # enumeration, structure, typedef, union
_TYPES = _LAYOUTS | {0x24}  # base type
_VARIABLES = frozenset((0x2E, 0x34))  # function, variable
_AT_NAME, _AT_DECLARATION = 0x03, 0x3C
_FORM_IMPLICIT_CONST = 0x21
_FORMS_WITHOUT_BYTES = frozenset((0x19, _FORM_IMPLICIT_CONST))  # and DW_FORM_flag_present
_NAMES = frozenset(((_AT_NAME, 0x08), (_AT_NAME, 0x0E)))  # in the form of a string, or of an offset in .debug_str
_OP_ADDR = 0x03  # of a location: it has an address for good
_MAX_CODE = 3  # bytes of an abbreviation code
_TYPE_TAGS = frozenset(
    (
        *QUALIFIERS,
        *COMPOUNDS,
        "DW_TAG_base_type",
        "DW_TAG_pointer_type",
        "DW_TAG_array_type",
        "DW_TAG_enumeration_type",
        "DW_TAG_subroutine_type",
    )
)
_CHILD_TAGS = _TYPE_TAGS | {"DW_TAG_member", "DW_TAG_enumerator"}

DAMAGE = (ELFError, DWARFError, ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError,
          NotImplementedError, RecursionError, TypeError, ValueError, struct.error, zlib.error)  # fmt: skip
"""What pyelftools raises on a file that is damaged."""


def read_types(elf: ELFFile, section: Callable[[str], bytes], wanted: Iterable[str], *, deep: bool = False) -> BtfTypes:
    """Return the layouts of the wanted types; those that are not defined are not known to the result.

    Args:
        elf: The file.
        section: Gives the bytes of a section of the file by its name.
        wanted: Names of structures, unions, typedefs and enumerations.
        deep: See ``Encoder``.

    Raises:
        ProfileError: There is no debug information, or it has a form that is not supported.
    """
    encoder = Encoder(elf.elfclass // 8, deep=deep)
    for die in Search(elf, section).definitions(wanted):
        encoder.add(die)
    if encoder.is_empty and section(".debug_str_offsets"):
        raise ProfileError(
            "its DWARF has indexed names, which are not supported", hint="build with CONFIG_DEBUG_INFO_BTF or DWARF 4"
        )
    return encoder.types()


class Search:
    """Finds definitions by their names.

    Args:
        elf: The file, which is not needed any more afterwards.
        section: Gives the bytes of a section of the file by its name.

    Raises:
        ProfileError: There is no debug information.
    """

    def __init__(self, elf: ELFFile, section: Callable[[str], bytes]) -> None:
        data = {name: section(f".{name}") for name in ("debug_info", "debug_abbrev", "debug_str", "debug_line_str")}
        if not data["debug_info"] or not data["debug_abbrev"]:
            raise ProfileError(
                "no debug information", hint="build the kernel with CONFIG_DEBUG_INFO_BTF or CONFIG_DEBUG_INFO"
            )
        self._data = data
        self._dwarf = _dwarf(elf, data)

    def definitions(self, wanted: Iterable[str], tags: frozenset[int] = _LAYOUTS) -> Iterator[Any]:
        """Yield the first definition of each name that has one of the tags."""
        sound = _variable if tags is _VARIABLES else _definition
        names = _Names(wanted, self._data["debug_str"], tags)
        for unit in self._dwarf.iter_CUs():
            if not names.missing:
                break
            for name, offset in names.hits(unit, self._data["debug_info"], self._data["debug_abbrev"]):
                if name in names.missing and (die := sound(unit, offset, name)):
                    yield die
                    names.missing.remove(name)


class Later:
    """Types that are read when somebody asks for them. Implements ``yamori.kernel.btf_graph.More``.

    Args:
        opened: Opens the file for a search; called when the first name is asked for, for it is large.
        word_size: Bytes of a pointer.

    Attributes:
        table: What was found so far.
    """

    def __init__(self, opened: Callable[[], Search], word_size: int) -> None:
        self._opened = opened
        self._search: Search | None = None
        self._encoder = Encoder(word_size, deep=True)
        self.table = self._encoder.table()

    def find(self, name: str, *, variable: bool) -> bool:
        """Look for a type, or a global variable or function, and say whether the table now has it."""
        try:
            self._search = self._search or self._opened()
            found = list(self._search.definitions((name,), _VARIABLES if variable else _TYPES))
            self._encoder.add_all(found)
            self.table = self._encoder.table()
        except (ProfileError, *DAMAGE):
            return False
        return bool(found)


def _dwarf(elf: ELFFile, data: dict[str, bytes]) -> DWARFInfo:
    """Set pyelftools up with the sections that are needed.

    It would read all of them and apply relocations; a linked ``vmlinux`` may still carry 256 MB of applied ones.
    """
    sections: dict[str, Any] = {name: None for name in inspect.signature(DWARFInfo).parameters if name.endswith("_sec")}
    for name, content in data.items():
        sections[f"{name}_sec"] = DebugSectionDescriptor(io.BytesIO(content), name, None, len(content), 0)
    config = DwarfConfig(
        little_endian=True, machine_arch=elf.get_machine_arch(), default_address_size=elf.elfclass // 8
    )
    return DWARFInfo(config, **sections)


class _Names:
    """The wanted names, and the bytes by which an entry of ``.debug_info`` gives them.

    Linkers merge a string into the tail of a longer one, so a name has as many candidate offsets in ``.debug_str`` as
    there are strings that end in it. One regular expression for all of them keeps the search at one pass.

    Attributes:
        missing: The names that are still to be found.
    """

    def __init__(self, wanted: Iterable[str], strings: bytes, tags: frozenset[int]) -> None:
        self._tags = tags
        self._offsets: dict[int, str] = {}
        short = []
        for name in wanted:
            text = name.encode() + b"\0"
            if len(text) <= 4:  # not longer than an offset: compilers write it in place
                short.append(name)
            at = strings.find(text)
            while at >= 0:
                self._offsets[at] = name
                at = strings.find(text, at + 1)
        self.missing = {*self._offsets.values(), *short}
        in_place = b"|".join(re.escape(name.encode()) for name in short) or b"(?!)"
        upper = struct.pack(">I", len(strings))[0:2]
        third = b"." if upper[0] else b"[\\x00-\\x%02x]" % upper[1]
        self._name = rb"](?=(%s)\x00|(..%s[\x00-\x%02x]))" % (in_place, third, upper[0])

    def hits(self, unit: Any, info: bytes, abbreviations: bytes) -> Iterator[tuple[str, int]]:
        """Yield wanted names and the offsets in ``.debug_info`` at which the unit may define them."""
        codes = _definition_codes(abbreviations, unit["debug_abbrev_offset"], self._tags)
        last_bytes = b"".join(b"\\x%02x" % code[-1] for code in codes)
        if not codes:
            return
        search = re.compile(b"[" + last_bytes + self._name, re.DOTALL)
        for match in search.finditer(info, unit.cu_die_offset, unit.cu_offset + unit.size):
            in_place, offset = match.groups()
            name = in_place.decode() if in_place else self._offsets.get(int.from_bytes(offset, "little"))
            if name in self.missing:
                for size in range(1, _MAX_CODE + 1):
                    if info[match.end() - size : match.end()] in codes:
                        yield name, match.end() - size


def _definition_codes(abbreviations: bytes, offset: int, tags: frozenset[int]) -> set[bytes]:
    """Return the codes in one table, as they are written, that stand for definitions, name first."""
    numbers = _numbers(abbreviations, offset)
    codes = set()
    while code := next(numbers):
        tag, _children = next(numbers), next(numbers)
        attributes = []
        while (pair := (next(numbers), next(numbers))) != (0, 0):
            if pair[1] == _FORM_IMPLICIT_CONST:
                next(numbers)
            attributes.append(pair)
        sized = [pair for pair in attributes if pair[1] not in _FORMS_WITHOUT_BYTES]
        declares = any(name == _AT_DECLARATION for name, _form in attributes)
        if tag in tags and sized and sized[0] in _NAMES and not declares:
            codes.add(_leb128(code))
    return codes


def _leb128(number: int) -> bytes:
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _numbers(data: bytes, at: int) -> Iterator[int]:
    """Yield LEB128 numbers, and zeros for ever behind the end of the data."""
    value = shift = 0
    for byte in memoryview(data)[at:]:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80 or shift > 63:
            yield value
            value = shift = 0
    while True:
        yield 0


def _definition(unit: Any, offset: int, name: str) -> Any:
    """Return the entry at a hit; ``None`` where it is none, for bytes can look like a name by chance."""
    try:
        die = unit.get_DIE_from_refaddr(offset)
        if attribute(die, "DW_AT_name") != name.encode():
            return None
        if die.tag == "DW_TAG_typedef":
            return die if die.get_DIE_from_attribute("DW_AT_type").tag in _TYPE_TAGS else None
        size = die.attributes["DW_AT_byte_size"].value
        if "DW_AT_sibling" in die.attributes:
            unit.get_DIE_from_refaddr(_end(die))
        inside = list(children(die))
        sound = all(child.tag in _CHILD_TAGS and attribute(child, LOCATION) <= size for child in inside)
        if inside and "DW_AT_sibling" in die.attributes:
            sound &= _end(inside[-1]) + 1 == _end(die)  # the zero that ends the children, then the sibling
    except DAMAGE:
        return None
    return die if sound else None


def _variable(unit: Any, offset: int, name: str) -> Any:
    """Return the entry at a hit where it is a global variable or a function; ``None`` where it is not."""
    try:
        die = unit.get_DIE_from_refaddr(offset)
        if attribute(die, "DW_AT_name") != name.encode():
            return None
        if die.tag == "DW_TAG_subprogram":
            return die
        location = attribute(die, "DW_AT_location", b"")
        is_global = "DW_AT_external" in die.attributes or (isinstance(location, list) and location[:1] == [_OP_ADDR])
        typed = is_global and die.get_DIE_from_attribute("DW_AT_type").tag in _TYPE_TAGS
    except DAMAGE:
        return None
    return die if typed else None


def _end(die: Any) -> int:
    """Return where an entry that has no children, or names its sibling, ends."""
    if not die.has_children:
        return int(die.offset + die.size)
    return int(die.cu.cu_offset + die.attributes["DW_AT_sibling"].value)
