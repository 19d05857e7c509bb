"""DWARF entries, and what they contain, put into BTF, as ``pahole`` does for the kernel."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from typing import Any

from elftools.common.exceptions import DWARFError

from yamori.errors import ProfileError
from yamori.kernel.btf import BtfTypes
from yamori.kernel.btf_format import MAGIC, Kind, Table, read_table

_SIGNED_ENCODINGS = frozenset((0x05, 0x06))  # DW_ATE_signed, DW_ATE_signed_char
_BOOLEAN = 0x02  # DW_ATE_boolean
_FLOAT_ENCODINGS = frozenset((0x03, 0x04))  # DW_ATE_complex_float, DW_ATE_float
_MAX_CHAIN = 32  # typedefs of const of ...
QUALIFIERS = {
    "DW_TAG_typedef": Kind.TYPEDEF,
    "DW_TAG_const_type": Kind.CONST,
    "DW_TAG_volatile_type": Kind.VOLATILE,
    "DW_TAG_restrict_type": Kind.RESTRICT,
    "DW_TAG_atomic_type": Kind.VOLATILE,
}
COMPOUNDS = {"DW_TAG_structure_type": Kind.STRUCT, "DW_TAG_union_type": Kind.UNION}
LOCATION = "DW_AT_data_member_location"


def attribute(die: Any, name: str, default: Any = 0) -> Any:
    """Return an attribute's value."""
    found = die.attributes.get(name)
    return default if found is None else found.value


def children(die: Any) -> Iterator[Any]:
    """Yield an entry's children; damage that leads back to an earlier one would go round for ever."""
    last = die.offset
    for child in die.iter_children():
        if child.offset <= last:
            raise DWARFError("entries out of order")
        last = child.offset
        yield child


class Encoder:
    """Puts DWARF entries, and what they contain by value, into BTF.

    Args:
        word_size: Bytes of a pointer.
        deep: Say what pointers point to: structures by name alone, all else in full. Otherwise they become pointers
            to ``void``, for what they point to is another structure's matter.
    """

    def __init__(self, word_size: int, *, deep: bool = False) -> None:
        self._word_size = word_size
        self._deep = deep
        self._records: list[list[int]] = []
        self._strings = bytearray(1)
        self._ids: dict[tuple[int, bool], int] = {}

    @property
    def is_empty(self) -> bool:
        """Whether nothing was added."""
        return not self._records

    def types(self) -> BtfTypes:
        """Return what was added, as a source of types."""
        if self.is_empty:
            raise ProfileError("none of the wanted types is defined in its debug information")
        return BtfTypes(self.table(), self._word_size, "dwarf")

    def table(self) -> Table:
        """Return what was added, as a table: one that grows at its end as more is added."""
        words = array("I")
        for record in self._records or [[0, Kind.FWD << 24, 0]]:
            words.extend(record)
        body = struct.pack(f"<{len(words)}I", *words)
        header = MAGIC + struct.pack("<5I", 24, 0, len(body), len(body), len(self._strings))
        return read_table(header + body + self._strings)

    def add(self, die: Any, *, pointed: bool = False) -> int:
        """Encode an entry, once, and return its type id.

        Args:
            die: The entry.
            pointed: A pointer leads to it: its name is enough where it has one.
        """
        key = die.offset, pointed
        if key not in self._ids:
            self._records.append([])
            self._ids[key] = len(self._records)
            self._records[self._ids[key] - 1] = self._record(die, pointed=pointed)
        return self._ids[key]

    def add_all(self, dies: list[Any]) -> None:
        """Encode entries, or, where one of them is damaged, none.

        Raises:
            Exception: One of ``DAMAGE``.
        """
        count, ids = len(self._records), dict(self._ids)
        try:
            for die in dies:
                self.add(die)
        except BaseException:
            del self._records[count:]
            self._ids = ids
            raise

    def _type(self, die: Any, *, pointed: bool = False) -> int:
        """Return the type id of an entry's ``DW_AT_type``; 0, which is ``void``, where there is none."""
        if "DW_AT_type" not in die.attributes:
            return 0
        return self.add(die.get_DIE_from_attribute("DW_AT_type"), pointed=pointed)

    def _name(self, die: Any) -> int:
        name = attribute(die, "DW_AT_name", b"")
        if not name:
            return 0
        self._strings += name + b"\0"
        return len(self._strings) - len(name) - 1

    def _record(self, die: Any, *, pointed: bool) -> list[int]:
        tag, size = die.tag, attribute(die, "DW_AT_byte_size")
        if tag in COMPOUNDS:
            return self._forward(die) if pointed and self._name(die) else self._compound(die, size)
        if tag in QUALIFIERS:
            return [self._name(die), QUALIFIERS[tag] << 24, self._type(die, pointed=pointed)]
        if tag == "DW_TAG_base_type":
            return self._base(die, size)
        if tag == "DW_TAG_array_type":
            return [0, Kind.ARRAY << 24, 0, self._type(die, pointed=pointed), 0, _elements(die)]
        if tag == "DW_TAG_enumeration_type":
            return self._enumeration(die, size)
        if tag in {"DW_TAG_pointer_type", "DW_TAG_reference_type"}:
            return [0, Kind.PTR << 24, self._type(die, pointed=True) if self._deep else 0]
        return self._code(die) if self._deep else self._forward(die)

    def _base(self, die: Any, size: int) -> list[int]:
        encoding = attribute(die, "DW_AT_encoding")
        if encoding in _FLOAT_ENCODINGS:
            return [self._name(die), Kind.FLOAT << 24, size]
        bits = (encoding in _SIGNED_ENCODINGS) | (encoding == _BOOLEAN) << 2
        return [self._name(die), Kind.INT << 24, size, bits << 24 | size * 8]

    def _code(self, die: Any) -> list[int]:
        """Encode a function, a variable, or the type of functions."""
        name = self._name(die)
        if die.tag == "DW_TAG_variable":
            return [name, Kind.VAR << 24, self._type(die), 1]
        if die.tag == "DW_TAG_subprogram":
            self._records.append(self._prototype(die))
            return [name, Kind.FUNC << 24, len(self._records)]
        return self._prototype(die) if die.tag == "DW_TAG_subroutine_type" else self._forward(die)

    def _prototype(self, die: Any) -> list[int]:
        result = self._type(die, pointed=True)
        given = [self._type(child, pointed=True) for child in children(die) if child.tag == "DW_TAG_formal_parameter"]
        return [0, Kind.FUNC_PROTO << 24 | len(given), result, *(word for type_id in given for word in (0, type_id))]

    def _forward(self, die: Any) -> list[int]:
        """Encode the name of what is not looked into, or has no size."""
        return [self._name(die), (die.tag == "DW_TAG_union_type") << 31 | Kind.FWD << 24, 0]

    def _compound(self, die: Any, size: int) -> list[int]:
        if "DW_AT_declaration" in die.attributes:
            return self._forward(die)
        name = self._name(die)
        members = [child for child in children(die) if child.tag == "DW_TAG_member"]
        has_widths = any("DW_AT_bit_size" in member.attributes for member in members)
        record = [name, has_widths << 31 | COMPOUNDS[die.tag] << 24 | len(members), size]
        for member in members:
            offset = _bit_offset(member) | (attribute(member, "DW_AT_bit_size") << 24 if has_widths else 0)
            record += (self._name(member), self._type(member), offset)
        return record

    def _enumeration(self, die: Any, size: int) -> list[int]:
        values = [child for child in children(die) if child.tag == "DW_TAG_enumerator"]
        signed = any(attribute(value, "DW_AT_const_value") < 0 for value in values)
        kind = Kind.ENUM if size <= 4 else Kind.ENUM64
        record = [self._name(die), signed << 31 | kind << 24 | len(values), size]
        for value in values:
            number = attribute(value, "DW_AT_const_value") & 0xFFFFFFFFFFFFFFFF
            record += (self._name(value), number & 0xFFFFFFFF)
            if kind == Kind.ENUM64:
                record.append(number >> 32)
        return record


def _elements(array_die: Any) -> int:
    """Return the number of elements of all dimensions together, as in BTF; 0 for a flexible array."""
    count = 1
    for child in children(array_die):
        if child.tag == "DW_TAG_subrange_type":
            size = attribute(child, "DW_AT_count", attribute(child, "DW_AT_upper_bound", -1) + 1)
            count *= size if isinstance(size, int) else 0
    return count


def _bit_offset(member: Any) -> int:
    """Return where a member starts, in bits.

    Bit-fields have ``DW_AT_data_bit_offset``; in DWARF 4 some compilers still count ``DW_AT_bit_offset`` down from the
    upper end of the storage unit, as DWARF 2 did.
    """
    if "DW_AT_data_bit_offset" in member.attributes:
        return int(attribute(member, "DW_AT_data_bit_offset"))
    location = attribute(member, LOCATION)
    if not isinstance(location, int):
        raise ProfileError("its debug information gives member offsets as expressions, which is not supported")
    if "DW_AT_bit_offset" not in member.attributes:
        return location * 8
    end = (location + _storage_size(member)) * 8
    return end - int(attribute(member, "DW_AT_bit_offset")) - int(attribute(member, "DW_AT_bit_size"))


def _storage_size(die: Any) -> int:
    """Return the bytes of a bit-field's storage unit: its own where it says so, otherwise those of its type."""
    for _ in range(_MAX_CHAIN):
        if size := attribute(die, "DW_AT_byte_size"):
            return int(size)
        die = die.get_DIE_from_attribute("DW_AT_type")
    raise DWARFError("a chain of types without end")
