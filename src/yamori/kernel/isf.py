"""Volatility 3's symbol files (ISF, "intermediate symbol format", version 6.2): read and written.

The schema is ``volatility3/schemas/schema-6.2.0.json`` of Volatility 3. A profile's BTF is translated type by type;
typedefs and qualifiers, which ISF does not have, are followed. What identifies a Linux kernel to Volatility is the
text behind the symbol ``linux_banner``.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import json
import lzma
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from yamori.errors import ProfileError
from yamori.kernel.btf import BtfTypes
from yamori.kernel.btf_writer import Placed, Writer
from yamori.kernel.symbols import Symbol, Symbols
from yamori.kernel.types import CType

VERSION = "6.2.0"
MOST = 1 << 30
"""Bytes of an ISF file, unpacked; one of a distribution's kernel has 30 to 60 MB."""

_DEEPEST = 16  # pointers to arrays of pointers ...
_SYMBOLS = {
    "init_task": "task_struct",
    "init_mm": "mm_struct",
    "init_cred": "cred",
    "init_nsproxy": "nsproxy",
    "init_pid_ns": "pid_namespace",
    "init_uts_ns": "uts_namespace",
    "init_net": "net",
    "modules": "list_head",
    "super_blocks": "list_head",
    "module_kset": "kset",
}
"""Variables that Volatility's plugins read, and their types, which BTF does not tell."""


class Isf(NamedTuple):
    """What an ISF file holds.

    Attributes:
        btf: Its types, as a blob of BTF.
        symbols: At link-time addresses.
        banner: The text of ``linux_banner`` without its line feed, or empty.
        word_size: Bytes of a pointer.
    """

    btf: bytes
    symbols: list[Symbol]
    banner: str
    word_size: int


# --- writing ------------------------------------------------------------------------------------------------------


def dumps(types: BtfTypes | None, symbols: Symbols | None, banner: str, word_size: int) -> bytes:
    """Return an ISF file's text."""
    return json.dumps(_Document(types, word_size).made(symbols, banner), separators=(",", ":")).encode()


class _Document:
    def __init__(self, types: BtfTypes | None, word_size: int) -> None:
        self._graph = types.graph if types else None
        self._structures = list(types.graph.structures()) if types else []
        self._base: dict[str, Any] = {
            "pointer": {"size": word_size, "signed": False, "kind": "int", "endian": "little"},
            "void": {"size": 0, "signed": False, "kind": "void", "endian": "little"},
        }
        self._user: dict[str, Any] = {}
        self._enums: dict[str, Any] = {}
        self._pending: list[tuple[str, CType]] = []

    def made(self, symbols: Symbols | None, banner: str) -> dict[str, Any]:
        """Return the whole document."""
        for kind in self._structures:
            self._pending.append((kind.tag, kind))
        while self._pending:
            self._structure(*self._pending.pop())
        return {
            "metadata": {"format": VERSION, "producer": {"name": "yamori", "version": "1.0.0"}, "linux": {}},
            "base_types": self._base,
            "user_types": self._user,
            "enums": self._enums,
            "symbols": self._symbols(symbols, banner),
        }

    def _structure(self, name: str, kind: CType) -> None:
        if name in self._user or self._graph is None:
            return
        fields: dict[str, Any] = {}
        self._user[name] = {"size": kind.size, "kind": "union" if kind.kind == "union" else "struct", "fields": fields}
        for member in self._graph.members(kind):
            field = self._graph.field(kind, member)
            if field is None:
                continue
            described = self._described(field.type)
            if field.member.bits:
                described = {
                    "kind": "bitfield",
                    "bit_length": field.member.bits,
                    "bit_position": field.member.shift,
                    "type": described,
                }
            fields[member] = {"type": described, "offset": field.member.offset}

    def _described(self, kind: CType, depth: int = 0) -> dict[str, Any]:
        """Return how ISF names a type."""
        assert self._graph  # noqa: S101  # there are members only where there is a graph
        if depth > _DEEPEST:
            return {"kind": "base", "name": "void"}
        match kind.kind:
            case "pointer":
                return {"kind": "pointer", "subtype": self._described(self._graph.target(kind), depth + 1)}
            case "array":
                subtype = self._described(self._graph.target(kind), depth + 1)
                return {"kind": "array", "count": kind.length, "subtype": subtype}
            case "struct" | "union":
                return {"kind": kind.kind, "name": self._named(kind)}
            case "incomplete":
                return {"kind": "struct", "name": self._named(kind)}
            case "enum":
                return self._enumeration(kind)
            case "function":
                return {"kind": "function"}
            case _:
                return {"kind": "base", "name": self._number(kind)}

    def _named(self, kind: CType) -> str:
        name = kind.tag or f"unnamed_{kind.id:x}"
        if name not in self._user:
            self._pending.append((name, kind))
        return name

    def _number(self, kind: CType) -> str:
        if kind.kind == "void":
            return "void"
        name = kind.name or f"int{kind.size * 8}"
        shown = {"bool": "bool", "char": "char", "float": "float"}.get(kind.kind, "int")
        self._base.setdefault(name, {"size": kind.size, "signed": kind.signed, "kind": shown, "endian": "little"})
        return name

    def _enumeration(self, kind: CType) -> dict[str, Any]:
        """Return an enumeration as the integer that it is: names of values are of no use to a walk."""
        base = f"{'' if kind.signed else 'unsigned '}{ {1: 'char', 2: 'short', 8: 'long long'}.get(kind.size, 'int') }"
        self._base.setdefault(base, {"size": kind.size, "signed": kind.signed, "kind": "int", "endian": "little"})
        return {"kind": "base", "name": base}

    def _symbols(self, symbols: Symbols | None, banner: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for row in symbols or ():
            entry: dict[str, Any] = {"address": row.address}
            if (tag := _SYMBOLS.get(row.name)) and tag in self._user:
                entry["type"] = {"kind": "struct", "name": tag}
            found.setdefault(row.name, entry)
        if banner:
            text = base64.b64encode(banner.encode() + b"\n\0").decode()
            found.setdefault("linux_banner", {"address": 0})["constant_data"] = text
        return found


# --- reading ------------------------------------------------------------------------------------------------------


def load(path: Path) -> Isf:
    """Read an ISF file: ``.json``, ``.json.xz`` or ``.json.gz``.

    Raises:
        ProfileError: It is none, damaged, or too large.
        OSError: It cannot be read.
    """
    try:
        document = json.loads(_unpacked(path))
        return _Reading(document).isf()
    except (lzma.LZMAError, zlib.error, EOFError, gzip.BadGzipFile) as error:
        raise ProfileError("damaged: it cannot be unpacked", hint="copy it again") from error
    except RecursionError as error:
        raise ProfileError("its types are nested too deeply") from error
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise ProfileError(
            "neither a profile of Yamori, nor BTF, nor a symbol file of Volatility 3 (ISF)",
            hint="for a vmlinux there is `yamori profile build --vmlinux`",
        ) from error


def _unpacked(path: Path) -> bytes:
    with path.open("rb") as file:
        start = file.read(6)
    if start.startswith(b"\xfd7zXZ\0"):
        with lzma.open(path) as unxz:
            data = unxz.read(MOST + 1)
    elif start.startswith(b"\x1f\x8b"):
        with gzip.open(path) as unzip:
            data = unzip.read(MOST + 1)
    else:
        with path.open("rb") as file:
            data = file.read(MOST + 1)
    if len(data) > MOST:
        raise ProfileError("too large")
    return data


class _Reading:
    """Turns a document into BTF."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._base = dict(document["base_types"])
        self._user = dict(document["user_types"])
        self._enums = dict(document["enums"])
        self._symbols = dict(document["symbols"])
        self._writer = Writer()
        self._ids: dict[str, int] = {}

    def isf(self) -> Isf:
        """Return what the document holds."""
        word = int(self._base["pointer"]["size"])
        if word not in {4, 8}:
            raise ProfileError(f"its pointers have {word} bytes")
        self._ids = {name: self._writer.reserve() for name in self._user}
        for name, kind in self._user.items():
            members = [
                self._member(str(member), field)
                for member, field in sorted(kind["fields"].items(), key=lambda pair: int(pair[1]["offset"]))
            ]
            shown = "" if name.startswith("unnamed_") else str(name)
            union = kind["kind"] == "union"
            self._writer.compound(self._ids[name], shown, _natural(kind["size"]), members, union=union)
        self._writer.integer("long unsigned int", word)
        return Isf(self._writer.blob(), list(self._rows()), self._banner(), word)

    def _member(self, name: str, field: Mapping[str, Any]) -> Placed:
        kind, offset = field["type"], _natural(field["offset"])
        shown = "" if field.get("anonymous") else name
        if kind["kind"] == "bitfield":
            bit = offset * 8 + _natural(kind["bit_position"])
            return Placed(shown, self._type(kind["type"]), bit, _natural(kind["bit_length"]))
        return Placed(shown, self._type(kind), offset * 8)

    def _type(self, kind: Mapping[str, Any]) -> int:
        match kind["kind"]:
            case "pointer":
                return self._writer.pointer(self._type(kind["subtype"]))
            case "array":
                return self._writer.array(self._type(kind["subtype"]), _natural(kind["count"]))
            case "base":
                return self._number(str(kind["name"]))
            case "enum":
                described = self._enums[kind["name"]]
                pairs = ((str(text), int(value)) for text, value in described["constants"].items())
                return self._writer.enumeration(str(kind["name"]), _natural(described["size"]), pairs)
            case "struct" | "union" | "class":
                name = str(kind["name"])
                return self._ids.get(name) or self._writer.forward(name)
            case _:
                return 0

    def _number(self, name: str) -> int:
        described = self._base.get(name)
        if described is None or name == "void" or not described["size"]:
            return 0
        sort = described["kind"]
        return self._writer.integer(
            name,
            _natural(described["size"]),
            signed=bool(described["signed"]),
            char=sort == "char",
            boolean=sort == "bool",
        )

    def _rows(self) -> Iterable[Symbol]:
        for name, described in self._symbols.items():
            address = int(described["address"])
            if 0 < address < 1 << 64 and str(name).isprintable():
                yield Symbol(address, "?", str(name))

    def _banner(self) -> str:
        text = self._symbols.get("linux_banner", {}).get("constant_data") or ""
        try:
            return base64.b64decode(text, validate=True).rstrip(b"\0\n").decode()
        except (binascii.Error, UnicodeDecodeError):
            return ""


def _natural(value: object) -> int:
    number = int(str(value))
    if not 0 <= number < 1 << 31:
        raise ValueError(number)
    return number
