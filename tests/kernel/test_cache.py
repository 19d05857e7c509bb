"""What is kept between runs: the same facts as without it, and never believed where memory says something else."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernel import synthetic
from tests.kernel.synthetic import ARM, ARM64, MACHINES, MIB, X86, Guest, Machine, Shape, build, shown, usual

import yamori
from yamori.errors import NoKernelError
from yamori.kernel import store
from yamori.kernel.discovery import discover
from yamori.kernel.given import Given
from yamori.kernel.kernel import Kernel
from yamori.kernel.profile import Profile
from yamori.kernel.recall import learn
from yamori.kernel.store import Store
from yamori.kernel.symbols import Symbol, Symbols
from yamori.memory.physical import BytesMemory, PhysicalMemory
from yamori.probes.plist import plist

machines = pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)


@pytest.fixture
def kept(tmp_path: Path) -> Store:
    return Store(tmp_path / "profiles")


def known(memory: PhysicalMemory, kept: Store, *, base_known: bool = True, given: Given | None = None) -> Kernel:
    return learn(memory, given, base_known=base_known, store=kept, subject="the VM")


def facts(profile: Profile) -> dict[str, Any]:
    """Return all that a profile says, but for how it was learnt."""
    return {
        **{name: getattr(profile, name) for name in ("init", "root", "uts", "banner", "vmcoreinfo", "slide", "text")},
        "symbols": [symbols.columns for symbols in profile.symbols],
        "inferred": vars(profile.types[-1]),
        "types": [types.provenance for types in profile.types],
        "doubts": profile.doubts,
    }


def was_recalled(kernel: Kernel) -> bool:
    return kernel.profile.steps[0].name == "cache" and not any(s.name == "scan of RAM" for s in kernel.profile.steps)


def check(memory: PhysicalMemory, kept: Store, *, recalled: bool | None = None, base_known: bool = True) -> Kernel:
    """Attach with what is kept: the facts must be those of a discovery without it."""
    kernel = known(memory, kept, base_known=base_known)
    assert recalled is None or was_recalled(kernel) == recalled
    assert facts(kernel.profile) == facts(discover(memory, base_known=base_known).profile)
    return kernel


SHAPES = {
    "usual": Shape(),
    "functions only": Shape(all_symbols=False, vmcoreinfo=False),
    "VMCOREINFO only": Shape(kallsyms=False),
    "nothing": Shape(kallsyms=False, vmcoreinfo=False),
    "noise": Shape(noise=5),
}


@machines
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_second_attach_says_the_same_and_does_not_search(machine: Machine, shape: Shape, kept: Store) -> None:
    guest = build(machine, shape)
    check(guest.memory(), kept, recalled=False)
    # Among noise a look at all offsets may leave open what a look at one seems to settle: then all are looked at.
    kernel = check(guest.memory(), kept, recalled=None if shape.noise else True)
    if not shape.noise:
        assert shown(plist(kernel, threads=True)) == guest.rows(threads=True)


@machines
def test_base_of_ram_is_proved_anew(machine: Machine, kept: Store) -> None:
    guest = build(replace(machine, base=0x4000_0000))
    check(guest.memory(base=0), kept, recalled=False, base_known=False)
    kernel = check(guest.memory(base=0), kept, recalled=True, base_known=False)
    assert kernel.memory.regions[0].gpa == 0x4000_0000


def test_life_goes_on(kept: Store) -> None:
    check(build(ARM64).memory(), kept, recalled=False)
    later = build(ARM64, plans=usual(40))
    later.write(later.symbols["init_uts_ns"] + 65, b"lizard\0")
    kernel = check(later.memory(), kept, recalled=True)
    assert shown(plist(kernel)) == later.tasks


@pytest.mark.parametrize("machine", [X86, ARM64], ids=["x86-64", "aarch64"])
def test_reboot_with_another_kaslr(machine: Machine, kept: Store) -> None:
    check(build(machine).memory(), kept, recalled=False)
    for slide in (0x60_0000, 0x20_0000, 0):
        moved = build(replace(machine, image=machine.image + slide))
        # Without a change in physical memory, the places of last time serve; with it, the decoded symbols do.
        kernel = check(moved.memory(), kept, recalled=True)
        assert kernel.profile.address("helper7") == moved.symbols["helper7"]


def test_reboot_elsewhere_in_ram_uses_the_symbols(kept: Store) -> None:
    check(build(ARM64).memory(), kept, recalled=False)
    moved = build(replace(ARM64, base=0x4100_0000))
    kernel = check(moved.memory(), kept, recalled=False)
    assert any("decoded before" in step.found for step in kernel.profile.steps)


def test_boot_that_lies_dead_in_ram_is_not_taken_for_the_one_that_runs(kept: Store) -> None:
    dead = build(ARM64)
    check(dead.memory(), kept, recalled=False)
    alive = build(replace(ARM64, base=0x4000_0000 + 32 * MIB))
    blocks = {0x4000_0000: bytes(dead.ram), 0x4000_0000 + 32 * MIB: bytes(alive.ram)}
    kernel = known(BytesMemory(dict(blocks)), kept)
    assert not was_recalled(kernel)
    assert any("more than one kernel" in doubt for doubt in kernel.profile.doubts)
    # and what is doubtful is not kept
    assert not was_recalled(known(BytesMemory(dict(blocks)), kept))


def moved_init_task(guest: Guest) -> None:
    guest.write(guest.member(guest.init, "comm"), bytes(16))


def other_name(guest: Guest) -> None:
    at = guest.ram.find(b"Linux version ")
    guest.ram[at + 14 : at + 15] = b"7"


def no_tables(guest: Guest) -> None:
    at = guest.machine.root_at
    guest.ram[at : at + 0x4000] = bytes(0x4000)


@pytest.mark.parametrize("change", [moved_init_task, no_tables])
@machines
def test_kernel_that_is_gone_is_gone(machine: Machine, change: Callable[[Guest], None], kept: Store) -> None:
    guest = build(machine)
    check(guest.memory(), kept, recalled=False)
    change(guest)
    with pytest.raises(NoKernelError):
        known(guest.memory(), kept)


@machines
def test_banner_that_changed_is_seen(machine: Machine, kept: Store) -> None:
    guest = build(machine)
    check(guest.memory(), kept, recalled=False)
    other_name(guest)
    kernel = check(guest.memory(), kept, recalled=False)
    assert kernel.profile.doubts


@pytest.mark.parametrize("array", ["names", "addresses", "markers", "token_table", "relative_base"])
def test_symbols_that_were_changed_are_not_the_kept_ones(array: str, kept: Store) -> None:
    guest = build(ARM64)
    check(guest.memory(), kept, recalled=False)
    at = guest.labels[array] + synthetic.RODATA_AT + 0x4000
    for offset in (0, 9):
        changed = replace(guest, ram=bytearray(guest.ram))
        changed.ram[at + offset] ^= 2
        check(changed.memory(), kept)
    check(guest.memory(), kept)


@machines
def test_other_layout_under_the_same_banner_and_symbols(machine: Machine, kept: Store) -> None:
    check(build(machine).memory(), kept, recalled=False)
    for gaps in ((3, 1, 7, 2, 12, 6), (3, 1, 7, 2, 11, 6), (0, 4), (9,)):
        other = build(machine, Shape(gaps=gaps))
        kernel = check(other.memory(), kept, recalled=False)
        assert shown(plist(kernel)) == other.tasks
        check(other.memory(), kept, recalled=True)


@machines
def test_guest_with_broken_list_is_looked_at_again(machine: Machine, kept: Store) -> None:
    guest = build(machine)
    check(guest.memory(), kept, recalled=False)
    guest.words(guest.member(guest.tasks[6].gva, "tasks") + machine.word, 0)
    check(guest.memory(), kept, recalled=False)


def test_hints_serve_for_a_day(kept: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = build(ARM64).memory()
    check(memory, kept, recalled=False)
    now = time.time()
    for later, recalled in ((3600, True), (-5, False), (24 * 3600 + 1, False), (24 * 3600 + 2, True)):
        monkeypatch.setattr(time, "time", lambda later=later: now + later)
        assert was_recalled(known(memory, kept)) == recalled


def test_maker_s_files_are_part_of_the_key(kept: Store) -> None:
    guest = build(ARM64)
    known(guest.memory(), kept)
    rows = [Symbol(address, "T", name) for name, address in sorted(guest.symbols.items(), key=lambda item: item[1])]
    given = Given(Symbols(rows, "system.map"), source="System.map")
    first = known(guest.memory(), kept, given=given)
    second = known(guest.memory(), kept, given=given)
    assert (was_recalled(first), was_recalled(second)) == (False, True)
    assert facts(second.profile) == facts(discover(guest.memory(), given).profile)
    assert was_recalled(known(guest.memory(), kept))


# --- Entries ------------------------------------------------------------------------------------------------------


def content(kept: Store, name: str) -> bytes | None:
    payload = kept.load(name)
    return None if payload is None else bytes(payload)


def entries(kept: Store) -> list[Path]:
    assert kept.directory
    return sorted(kept.directory.iterdir())


def make_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def make_link(path: Path) -> None:
    path.rename(path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved"))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "short": lambda path: os.truncate(path, path.stat().st_size - 1),
    "flipped": lambda path: path.write_bytes(path.read_bytes()[:-9] + b"?" + path.read_bytes()[-8:]),
    "foreign": lambda path: path.write_bytes(os.urandom(5000)),
    "directory": make_directory,
    "FIFO": make_fifo,
    "link": make_link,
    "unreadable": lambda path: path.chmod(0),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_entries_are_none(damage: Callable[[Path], object], kept: Store) -> None:
    guest = build(X86)
    known(guest.memory(), kept)
    for path in entries(kept):
        damage(path)
    kernel = known(guest.memory(), kept)
    assert facts(kernel.profile) == facts(discover(guest.memory()).profile)


def test_entry_of_another_version_is_none(kept: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.save("some", b"thing")
    assert content(kept, "some") == b"thing"
    monkeypatch.setattr(store, "VERSION", b"yamori 0.0.9 profiles 1 little")
    assert content(kept, "some") is None
    assert entries(kept) == []  # it would never be read again


def test_entry_under_another_name_is_none(kept: Store) -> None:
    kept.save("one", b"thing")
    entries(kept)[0].rename(entries(kept)[0].with_name("two.profile"))
    assert content(kept, "two") is None


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_damaged_bytes_never_matter(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    kept = Store(tmp_path_factory.mktemp("profiles"))
    guest = build(ARM)
    known(guest.memory(), kept)
    path = data.draw(st.sampled_from(entries(kept)))
    entry = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        entry[data.draw(st.integers(0, len(entry) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(entry[: data.draw(st.integers(0, len(entry)))])
    assert facts(known(guest.memory(), kept).profile) == facts(discover(guest.memory()).profile)


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_sound_entries_with_wrong_content_are_not_believed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """As though somebody who can write there had made the digest fit; the symbols are looked at by samples only."""
    kept = Store(tmp_path_factory.mktemp("profiles"))
    guest = build(ARM64)
    known(guest.memory(), kept)
    name = next(path.stem for path in entries(kept) if path.stem.startswith("vm-"))
    entry = bytearray(content(kept, name) or b"")
    for _ in range(data.draw(st.integers(1, 3))):
        entry[data.draw(st.integers(0, len(entry) - 1))] = data.draw(st.integers(0, 255))
    kept.save(name, bytes(entry))
    said = facts(known(guest.memory(), kept).profile)
    true = facts(discover(guest.memory()).profile)
    said["inferred"].pop("unknown"), true["inferred"].pop("unknown")  # why something is not known is only words
    assert said == true


def test_symbols_of_another_kernel_in_a_sound_entry_are_noticed(kept: Store) -> None:
    """A poisoned entry: its digest fits, its symbols do not."""
    guest = build(X86)
    known(guest.memory(), kept)
    name = next(path.stem for path in entries(kept) if path.stem.startswith("kallsyms-"))
    payload = content(kept, name)
    assert payload
    kept.save(name, payload.replace(b"helper", b"kelper").replace(b"sys_", b"SYS_"))
    check(guest.memory(), kept, recalled=True)
    assert content(kept, name) == payload


def test_room_is_made(kept: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MOST_BYTES", 1000)
    for number in range(6):
        kept.save(f"number{number}", bytes(300))
        os.utime(next(path for path in entries(kept) if path.stem == f"number{number}"), (number, number))
        if number == 2:
            assert content(kept, "number0") == bytes(300)  # and is used now
    assert [path.stem for path in entries(kept)] == ["number0", "number4", "number5"]
    monkeypatch.setattr(store, "MOST_ENTRIES", 1)
    kept.save("last", b"")
    assert [path.stem for path in entries(kept)] == ["last"]
    monkeypatch.setattr(store, "LARGEST", 100)
    kept.save("large", bytes(100))
    assert content(kept, "large") is None


def test_what_was_cut_off_is_cleared_away(kept: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.save("one", b"1")
    assert kept.directory
    (kept.directory / "two.profile.77-aa.part").write_bytes(bytes(100))
    monkeypatch.setattr(store, "MOST_ENTRIES", 1)
    kept.save("one", b"2")
    assert [path.name for path in entries(kept)] == ["one.profile"]


def test_two_processes_at_once(kept: Store) -> None:
    text = "import sys; from pathlib import Path; from yamori.kernel.store import Store\n"
    text += "s = Store(Path(sys.argv[1]))\nfor _ in range(60): s.save('both', sys.argv[2].encode() * 50000)"
    writers = [subprocess.Popen([sys.executable, "-c", text, str(kept.directory), letter]) for letter in "ab"]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        seen.add(content(kept, "both"))
    assert [writer.wait() for writer in writers] == [0, 0]
    assert content(kept, "both") in (b"a" * 50000, b"b" * 50000)
    assert seen <= {None, b"a" * 50000, b"b" * 50000}
    assert [path.name for path in entries(kept)] == ["both.profile"]


# --- Where it lies ------------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("YAMORI_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_directory_is_the_user_s_own(home: Path) -> None:
    usual_one = Store.usual()
    assert usual_one.directory == home / "yamori" / "profiles"
    assert not (home / "yamori").exists()  # nothing is made before something is kept
    usual_one.save("some", b"thing")
    assert content(Store.usual(), "some") == b"thing"
    assert (home / "yamori" / "profiles").stat().st_mode & 0o777 == 0o700
    assert entries(usual_one)[0].stat().st_mode & 0o777 == 0o600


def test_it_can_be_switched_off(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Store.usual(wanted=False).directory is None
    monkeypatch.setenv("YAMORI_CACHE", "0")
    assert Store.usual().directory is None
    Store.usual().save("some", b"thing")
    assert content(Store.usual(), "some") is None
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o722])
def test_directory_that_others_can_write_is_not_used(home: Path, mode: int) -> None:
    Store.usual().save("some", b"thing")
    (home / "yamori" / "profiles").chmod(mode)
    assert Store.usual().directory is None
    (home / "yamori" / "profiles").chmod(0o700)
    (home / "yamori").chmod(mode)
    assert Store.usual().directory is None


def test_no_home_is_no_error(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Path:
        raise RuntimeError("no home")

    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setattr(Path, "home", none)
    assert Store.usual().directory is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "file"))
    (home / "file").write_bytes(b"")
    Store.usual().save("some", b"thing")
    assert content(Store.usual(), "some") is None


def test_api_keeps_what_it_learnt_unless_told_not_to(home: Path) -> None:
    image = home / "ram"
    image.write_bytes(build(ARM64).ram)
    for cache, recalled in ((False, False), (True, False), (True, True), (False, False)):
        with yamori.open(f"file:{image}", cache=cache) as guest:
            assert was_recalled(guest.kernel) == recalled


def test_full_disk_is_no_error(kept: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    kernel = known(build(X86).memory(), kept)
    assert entries(kept) == []
    assert facts(kernel.profile) == facts(discover(build(X86).memory()).profile)
