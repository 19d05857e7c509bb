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
from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from elftools.common.exceptions import DWARFError, ELFError
from elftools.dwarf.dwarfinfo import DebugSectionDescriptor, DwarfConfig, DWARFInfo
from elftools.elf.elffile import ELFFile

from yamori.errors import ProfileError
from yamori.kernel.btf import BtfTypes, parse
from yamori.kernel.btf_format import MAGIC, Kind

# DWARF 5, section 7.5: tags, attributes and forms by number, as an abbreviation table holds them.
_DEFINITION_TAGS = frozenset((0x04, 0x13, 0x16, 0x17))  # enumeration, structure, typedef, union
_AT_NAME, _AT_DECLARATION = 0x03, 0x3C
_FORM_IMPLICIT_CONST = 0x21
_NAMES = frozenset(((_AT_NAME, 0x08), (_AT_NAME, 0x0E)))  # in the form of a string, or of an offset in .debug_str
_SIGNED_ENCODINGS = frozenset((0x05, 0x06))  # DW_ATE_signed, DW_ATE_signed_char
_FLOAT_ENCODINGS = frozenset((0x03, 0x04))  # DW_ATE_complex_float, DW_ATE_float
_MAX_CODE = 3  # bytes of an abbreviation code
_MAX_CHAIN = 32  # typedefs of const of ...
_QUALIFIERS = {
    "DW_TAG_typedef": Kind.TYPEDEF,
    "DW_TAG_const_type": Kind.CONST,
    "DW_TAG_volatile_type": Kind.VOLATILE,
    "DW_TAG_restrict_type": Kind.RESTRICT,
    "DW_TAG_atomic_type": Kind.VOLATILE,
}
_COMPOUNDS = {"DW_TAG_structure_type": Kind.STRUCT, "DW_TAG_union_type": Kind.UNION}
_TYPE_TAGS = frozenset(
    (
        *_QUALIFIERS,
        *_COMPOUNDS,
        "DW_TAG_base_type",
        "DW_TAG_pointer_type",
        "DW_TAG_array_type",
        "DW_TAG_enumeration_type",
        "DW_TAG_subroutine_type",
    )
)
_LOCATION = "DW_AT_data_member_location"
_CHILD_TAGS = _TYPE_TAGS | {"DW_TAG_member", "DW_TAG_enumerator"}

DAMAGE = (ELFError, DWARFError, ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError,
          NotImplementedError, RecursionError, TypeError, ValueError, struct.error, zlib.error)  # fmt: skip
"""What pyelftools raises on a file that is damaged."""


def read_types(elf: ELFFile, section: Callable[[str], bytes], wanted: Iterable[str]) -> BtfTypes:
    """Return the layouts of the wanted types; those that are not defined are not known to the result.

    Args:
        elf: The file.
        section: Gives the bytes of a section of the file by its name.
        wanted: Names of structures, unions, typedefs and enumerations.

    Raises:
        ProfileError: There is no debug information, or it has a form that is not supported.
    """
    data = {name: section(f".{name}") for name in ("debug_info", "debug_abbrev", "debug_str", "debug_line_str")}
    if not data["debug_info"] or not data["debug_abbrev"]:
        raise ProfileError(
            "no debug information", hint="build the kernel with CONFIG_DEBUG_INFO_BTF or CONFIG_DEBUG_INFO"
        )
    encoder = _Encoder(elf.elfclass // 8)
    names = _Names(wanted, data["debug_str"])
    for unit in _dwarf(elf, data).iter_CUs():
        if not names.missing:
            break
        for name, offset in names.hits(unit, data["debug_info"], data["debug_abbrev"]):
            if name in names.missing and (die := _definition(unit, offset, name)):
                encoder.add(die)
                names.missing.remove(name)
    if encoder.is_empty and section(".debug_str_offsets"):
        raise ProfileError(
            "its DWARF has indexed names, which are not supported", hint="build with CONFIG_DEBUG_INFO_BTF or DWARF 4"
        )
    return encoder.types()


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

    def __init__(self, wanted: Iterable[str], strings: bytes) -> None:
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
        codes = _definition_codes(abbreviations, unit["debug_abbrev_offset"])
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


def _definition_codes(abbreviations: bytes, offset: int) -> set[bytes]:
    """Return the codes in one table, as they are written, that stand for definitions of types, name first."""
    numbers = _numbers(abbreviations, offset)
    codes = set()
    while code := next(numbers):
        tag, _children = next(numbers), next(numbers)
        attributes = []
        while (pair := (next(numbers), next(numbers))) != (0, 0):
            if pair[1] == _FORM_IMPLICIT_CONST:
                next(numbers)
            attributes.append(pair)
        declares = any(name == _AT_DECLARATION for name, _form in attributes)
        if tag in _DEFINITION_TAGS and attributes and attributes[0] in _NAMES and not declares:
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


def _attribute(die: Any, name: str, default: Any = 0) -> Any:
    attribute = die.attributes.get(name)
    return default if attribute is None else attribute.value


def _children(die: Any) -> Iterator[Any]:
    """Yield an entry's children; damage that leads back to an earlier one would go round for ever."""
    last = die.offset
    for child in die.iter_children():
        if child.offset <= last:
            raise DWARFError("entries out of order")
        last = child.offset
        yield child


def _definition(unit: Any, offset: int, name: str) -> Any:
    """Return the entry at a hit; ``None`` where it is none, for bytes can look like a name by chance."""
    try:
        die = unit.get_DIE_from_refaddr(offset)
        if _attribute(die, "DW_AT_name") != name.encode():
            return None
        if die.tag == "DW_TAG_typedef":
            return die if die.get_DIE_from_attribute("DW_AT_type").tag in _TYPE_TAGS else None
        size = die.attributes["DW_AT_byte_size"].value
        if "DW_AT_sibling" in die.attributes:
            unit.get_DIE_from_refaddr(_end(die))
        children = list(_children(die))
        sound = all(child.tag in _CHILD_TAGS and _attribute(child, _LOCATION) <= size for child in children)
        if children and "DW_AT_sibling" in die.attributes:
            sound &= _end(children[-1]) + 1 == _end(die)  # the zero that ends the children, then the sibling
    except DAMAGE:
        return None
    return die if sound else None


def _end(die: Any) -> int:
    """Return where an entry that has no children, or names its sibling, ends."""
    if not die.has_children:
        return int(die.offset + die.size)
    return int(die.cu.cu_offset + die.attributes["DW_AT_sibling"].value)


class _Encoder:
    """Puts DWARF entries, and what they contain by value, into BTF.

    Pointers become pointers to ``void``: what they point to is another structure's matter.
    """

    def __init__(self, word_size: int) -> None:
        self._word_size = word_size
        self._records: list[list[int]] = []
        self._strings = bytearray(1)
        self._ids: dict[int, int] = {}

    @property
    def is_empty(self) -> bool:
        """Whether nothing was added."""
        return not self._records

    def types(self) -> BtfTypes:
        """Return what was added, as a source of types."""
        if self.is_empty:
            raise ProfileError("none of the wanted types is defined in its debug information")
        words = array("I")
        for record in self._records:
            words.extend(record)
        body = struct.pack(f"<{len(words)}I", *words)
        header = MAGIC + struct.pack("<5I", 24, 0, len(body), len(body), len(self._strings))
        return parse(header + body + self._strings, self._word_size, "dwarf")

    def add(self, die: Any) -> int:
        """Encode an entry, once, and return its type id."""
        if die.offset not in self._ids:
            self._records.append([])
            self._ids[die.offset] = len(self._records)
            self._records[self._ids[die.offset] - 1] = self._record(die)
        return self._ids[die.offset]

    def _type(self, die: Any) -> int:
        """Return the type id of an entry's ``DW_AT_type``; 0, which is ``void``, where there is none."""
        return self.add(die.get_DIE_from_attribute("DW_AT_type")) if "DW_AT_type" in die.attributes else 0

    def _name(self, die: Any) -> int:
        name = _attribute(die, "DW_AT_name", b"")
        if not name:
            return 0
        self._strings += name + b"\0"
        return len(self._strings) - len(name) - 1

    def _record(self, die: Any) -> list[int]:
        tag, size = die.tag, _attribute(die, "DW_AT_byte_size")
        if tag in _COMPOUNDS:
            return self._compound(die, size)
        if tag in _QUALIFIERS:
            return [self._name(die), _QUALIFIERS[tag] << 24, self._type(die)]
        if tag == "DW_TAG_base_type":
            encoding = _attribute(die, "DW_AT_encoding")
            if encoding in _FLOAT_ENCODINGS:
                return [self._name(die), Kind.FLOAT << 24, size]
            return [self._name(die), Kind.INT << 24, size, (encoding in _SIGNED_ENCODINGS) << 24 | size * 8]
        if tag == "DW_TAG_array_type":
            return [0, Kind.ARRAY << 24, 0, self._type(die), 0, _elements(die)]
        if tag == "DW_TAG_enumeration_type":
            return self._enumeration(die, size)
        if tag in {"DW_TAG_pointer_type", "DW_TAG_reference_type"}:
            return [0, Kind.PTR << 24, 0]
        return [self._name(die), Kind.FWD << 24, 0]  # functions and what has no size

    def _compound(self, die: Any, size: int) -> list[int]:
        name = self._name(die)
        if "DW_AT_declaration" in die.attributes:
            return [name, Kind.FWD << 24, 0]
        members = [child for child in _children(die) if child.tag == "DW_TAG_member"]
        has_widths = any("DW_AT_bit_size" in member.attributes for member in members)
        record = [name, has_widths << 31 | _COMPOUNDS[die.tag] << 24 | len(members), size]
        for member in members:
            offset = _bit_offset(member) | (_attribute(member, "DW_AT_bit_size") << 24 if has_widths else 0)
            record += (self._name(member), self._type(member), offset)
        return record

    def _enumeration(self, die: Any, size: int) -> list[int]:
        values = [child for child in _children(die) if child.tag == "DW_TAG_enumerator"]
        signed = any(_attribute(value, "DW_AT_const_value") < 0 for value in values)
        kind = Kind.ENUM if size <= 4 else Kind.ENUM64
        record = [self._name(die), signed << 31 | kind << 24 | len(values), size]
        for value in values:
            number = _attribute(value, "DW_AT_const_value") & 0xFFFFFFFFFFFFFFFF
            record += (self._name(value), number & 0xFFFFFFFF)
            if kind == Kind.ENUM64:
                record.append(number >> 32)
        return record


def _elements(array_die: Any) -> int:
    """Return the number of elements of all dimensions together, as in BTF; 0 for a flexible array."""
    count = 1
    for child in _children(array_die):
        if child.tag == "DW_TAG_subrange_type":
            size = _attribute(child, "DW_AT_count", _attribute(child, "DW_AT_upper_bound", -1) + 1)
            count *= size if isinstance(size, int) else 0
    return count


def _bit_offset(member: Any) -> int:
    """Return where a member starts, in bits.

    Bit-fields have ``DW_AT_data_bit_offset``; in DWARF 4 some compilers still count ``DW_AT_bit_offset`` down from the
    upper end of the storage unit, as DWARF 2 did.
    """
    if "DW_AT_data_bit_offset" in member.attributes:
        return int(_attribute(member, "DW_AT_data_bit_offset"))
    location = _attribute(member, _LOCATION)
    if not isinstance(location, int):
        raise ProfileError("its debug information gives member offsets as expressions, which is not supported")
    if "DW_AT_bit_offset" not in member.attributes:
        return location * 8
    end = (location + _storage_size(member)) * 8
    return end - int(_attribute(member, "DW_AT_bit_offset")) - int(_attribute(member, "DW_AT_bit_size"))


def _storage_size(die: Any) -> int:
    """Return the bytes of a bit-field's storage unit: its own where it says so, otherwise those of its type."""
    for _ in range(_MAX_CHAIN):
        if size := _attribute(die, "DW_AT_byte_size"):
            return int(size)
        die = die.get_DIE_from_attribute("DW_AT_type")
    raise DWARFError("a chain of types without end")
