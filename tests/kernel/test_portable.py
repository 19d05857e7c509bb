"""Profiles in files: ours, and those of other tools."""

from __future__ import annotations

import gzip
import json
import lzma
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernel.synthetic import MACHINES, X86, Machine, build

from yamori.errors import ProfileError
from yamori.kernel import btf, isf, portable, vmcoreinfo, vmcoreinfo_writer
from yamori.kernel.btf_writer import Placed, Writer, blob_of
from yamori.kernel.discovery import discover
from yamori.kernel.given import Given
from yamori.kernel.portable import Portable
from yamori.kernel.symbols import Symbol, Symbols
from yamori.kernel.types import Member

machines = pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)


def blob() -> bytes:
    """Types of every kind that layouts need; two structures point to each other."""
    writer = Writer()
    u32, char = writer.integer("unsigned int", 4), writer.integer("char", 1, signed=True, char=True)
    writer.integer("long unsigned int", 8)
    task, mm = writer.reserve(), writer.reserve()
    state = writer.enumeration("task_state", 4, [("RUNNING", 0), ("DEAD", -1)])
    wide = writer.enumeration("wide", 8, [("HUGE", 1 << 40)])
    inner = writer.reserve()
    writer.compound(inner, "", 8, [Placed("a", u32, 0), Placed("b", u32, 0)], union=True)
    writer.compound(
        task,
        "task_struct",
        56,
        [
            Placed("mm", writer.pointer(mm), 0),
            Placed("comm", writer.array(char, 16), 64),
            Placed("", inner, 192),
            Placed("low", u32, 256, 3),
            Placed("high", u32, 259, 5),
            Placed("state", state, 288),
            Placed("wide", wide, 320),
            Placed("files", writer.pointer(writer.forward("files_struct")), 384),
        ],
    )
    writer.compound(mm, "mm_struct", 16, [Placed("owner", writer.pointer(task), 0), Placed("users", u32, 64)])
    return writer.blob()


SYMBOLS = Symbols(
    [Symbol(0xFFFFFFFF81000000, "T", "_stext"), Symbol(0xFFFFFFFF82000000, "D", "init_task")], "system.map"
)
BANNER = "Linux version 6.1.0-x (a@b) (gcc) #1 SMP"


def whole() -> Portable:
    made = Portable(banner=BANNER, build_id="ab" * 20, architecture="x86_64", btf=blob())
    made.put_symbols(SYMBOLS)
    return made


def same_layouts(types: btf.BtfTypes | None) -> None:
    assert types
    wanted = btf.parse(blob(), 8)
    for owner in ("task_struct", "mm_struct"):
        assert types.size(owner) == wanted.size(owner)
        kind = wanted.graph.find(owner)
        assert kind
        for name in wanted.graph.members(kind):
            ours, theirs = types.member(owner, name), wanted.member(owner, name)
            assert ours
            assert theirs
            assert ours._replace(provenance="btf") == theirs, name
    kind = types.graph.find("task_struct")
    assert kind
    field = types.graph.field(kind, "mm")
    assert field
    assert types.graph.target(field.type).tag == "mm_struct"


def test_what_the_writer_writes_is_read() -> None:
    types = btf.parse(blob())
    same_layouts(types)
    assert types.member("task_struct", "high") == Member(32, 4, shift=3, bits=5, provenance="btf")
    assert types.member("task_struct", "b") == Member(24, 4, provenance="btf")
    assert types.enumerator("DEAD") == -1
    assert types.enumerator("HUGE") == 1 << 40
    assert blob_of(types.table) == blob()


def test_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "x.profile"
    path.write_bytes(portable.dumps(whole()))
    assert portable.is_profile(path)
    found = portable.load(path)
    assert found == whole()
    same_layouts(found.types())
    given = found.given("x")
    assert (given.build_id, given.banner, given.source) == ("ab" * 20, BANNER, "x")
    assert given.symbols
    assert list(given.symbols) == list(SYMBOLS)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no profile of Yamori"),
        (b"\x7fELF", "no profile of Yamori"),
        (b"yamori-profile 2\nxyz", "version that is not known"),
        (portable.HEAD + b"garbage", "damaged profile"),
        (portable.dumps(whole())[:-20], "cut short"),
        (portable.dumps(Portable(btf=b"no BTF at all")), "not a BTF header"),
        (portable.dumps(Portable(kinds="TT")), "symbols are damaged"),
    ],
)
def test_damaged_files_are_refused_with_their_name(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "x.profile"
    path.write_bytes(data)
    with pytest.raises(ProfileError, match=words) as caught:
        portable.load(path)
    assert str(path) in str(caught.value)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_damage_is_an_error_or_a_profile(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    good = bytearray(portable.dumps(whole()))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.profile"
    path.write_bytes(good)
    try:
        found = portable.load(path)
    except ProfileError:
        return
    found.given("x")


# --- ISF ----------------------------------------------------------------------------------------------------------


def document() -> dict[str, Any]:
    text = isf.dumps(btf.parse(blob(), 8), SYMBOLS, BANNER, 8)
    found: dict[str, Any] = json.loads(text)
    return found


def test_isf_says_what_volatility_asks_for() -> None:
    made = document()
    assert made["metadata"]["format"] == "6.2.0"
    task = made["user_types"]["task_struct"]
    assert (task["size"], task["kind"]) == (56, "struct")
    assert task["fields"]["mm"] == {
        "offset": 0,
        "type": {"kind": "pointer", "subtype": {"kind": "struct", "name": "mm_struct"}},
    }
    assert task["fields"]["high"]["type"]["bit_position"] == 3
    assert task["fields"]["comm"]["type"]["count"] == 16
    assert made["base_types"]["pointer"]["size"] == 8
    names = {kind["name"] for kind in _named(made["user_types"])}
    assert names <= {*made["user_types"], *made["base_types"]}
    assert made["symbols"]["init_task"]["type"] == {"kind": "struct", "name": "task_struct"}


def _named(value: object) -> list[dict[str, str]]:
    """Return every reference to a type by name, wherever it stands."""
    if not isinstance(value, dict):
        return []
    own = [value] if value.get("kind") in {"struct", "union", "base"} and "name" in value else []
    return own + [one for inner in value.values() for one in _named(inner)]


@pytest.mark.parametrize("pack", [bytes, lzma.compress, gzip.compress])
def test_isf_comes_back_as_it_was(tmp_path: Path, pack: Any) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(pack(json.dumps(document()).encode()))
    found = portable.of_file(path)
    assert (found.banner, found.word_size, found.provenance) == (BANNER, 8, "isf")
    same_layouts(found.types())
    symbols = found.symbols()
    assert symbols
    assert symbols.address("init_task") == 0xFFFFFFFF82000000


def test_isf_of_dwarf2json_with_enumerations_and_anonymous_members(tmp_path: Path) -> None:
    made = document()
    made["enums"] = {"pid_type": {"size": 4, "base": "unsigned int", "constants": {"PIDTYPE_PID": 0}}}
    made["user_types"]["task_struct"]["fields"] |= {
        "kind": {"offset": 52, "type": {"kind": "enum", "name": "pid_type"}},
        "unnamed_field_0": {"offset": 40, "anonymous": True, "type": {"kind": "union", "name": "unnamed_1f"}},
    }
    made["user_types"]["unnamed_1f"] = {
        "size": 4,
        "kind": "union",
        "fields": {"inside": {"offset": 0, "type": {"kind": "base", "name": "unsigned int"}}},
    }
    path = tmp_path / "x.json"
    path.write_text(json.dumps(made))
    types = portable.of_file(path).types()
    assert types
    assert types.member("task_struct", "inside") == Member(40, 4, provenance="isf")
    assert types.enumerator("PIDTYPE_PID") == 0


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"base_types": 1}', "\xff", "[" * 100_000])
def test_what_is_no_isf_is_said_so(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ProfileError) as caught:
        portable.of_file(path)
    assert str(path) in str(caught.value)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_change_of_an_isf_is_an_error_or_a_profile(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    made = document()
    place: Any = made
    for _ in range(data.draw(st.integers(1, 7))):
        if not isinstance(place, dict) or not place:
            break
        key = data.draw(st.sampled_from(sorted(place)))
        if not isinstance(place[key], dict) or data.draw(st.booleans()):
            place[key] = data.draw(_JSON)
            break
        place = place[key]
    path = tmp_path_factory.getbasetemp() / "changed.json"
    path.write_text(json.dumps(made))
    with suppress(ProfileError):
        portable.of_file(path).types()


def test_raw_btf(tmp_path: Path) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(blob())
    found = portable.of_file(path)
    assert (found.provenance, found.word_size) == ("btf", 8)
    same_layouts(found.types())


# --- of a running kernel ------------------------------------------------------------------------------------------


@machines
def test_profile_of_a_running_kernel_serves_another_boot(machine: Machine, tmp_path: Path) -> None:
    profile = discover(build(machine).memory()).profile
    path = tmp_path / "x.profile"
    path.write_bytes(portable.dumps(portable.of_profile(profile)))
    given = portable.load(path).given("x.profile")
    again = discover(build(machine).memory(), given).profile
    assert again.doubts == []
    assert given.types
    for (owner, name), member in profile.types[-1].members.items():  # type: ignore[attr-defined]  # inference
        if "." not in name and given.types.provenance == "inferred":
            kept = given.types.member(owner, name)
            assert kept
            assert (kept.offset, kept.size, kept.signed) == (member.offset, member.size, member.signed)


def test_profile_of_another_kernel_is_refused() -> None:
    guest = build(X86)
    given = portable.of_profile(discover(guest.memory()).profile).given("other.profile")
    with pytest.raises(ProfileError, match=r"other\.profile: this is not of the kernel that runs"):
        discover(guest.memory(), Given(banner=f"{given.banner}!", source="other.profile"))
    assert given.symbols
    moved = Symbols(
        [row._replace(address=row.address + (0x40 if row.kind == "T" else 0)) for row in given.symbols], "isf"
    )
    with pytest.raises(ProfileError, match="this is not of the kernel that runs"):
        discover(guest.memory(), replace(given, symbols=moved, banner=""))


@machines
def test_vmcoreinfo_is_read_as_it_was_written(machine: Machine) -> None:
    profile = discover(build(machine).memory()).profile
    found = vmcoreinfo.parse(vmcoreinfo_writer.text(profile).encode())
    assert found
    assert profile.uts
    assert found.release == profile.uts.release
    assert found.page_size == profile.root.geometry.page_size
    assert found.kernel_offset == profile.slide
    assert found.symbols["init_task"] == profile.init.gva
    assert found.symbols["swapper_pg_dir"] == profile.root.gpa + profile.init.image_offset
    if machine is X86:
        assert found.numbers["phys_base"] == 0xFFFFFFFF80000000 - profile.init.image_offset
