"""The commands on memory images: exit codes, one line for an error, JSON, and nothing that a terminal would act on."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
import typer
from tests.cli.conftest import Ran, Run
from tests.kernel.synthetic import ARM, ARM64, BANNER, CALLS, MIB, RELEASE, X86, Guest, Machine, build

import yamori
from yamori import targets
from yamori.cli import app as entry
from yamori.cli import output
from yamori.hypervisors.vm import RamSegment, VirtualMachine


def save(guest: Guest, path: Path) -> str:
    path.write_bytes(guest.ram)
    return f"file:{path}"


def is_error(ran: Ran, *parts: str) -> bool:
    assert ran.code == output.ERROR, ran
    assert ran.out == ""
    assert ran.err.startswith("yamori: ")
    assert ran.err.count("\n") == 1
    assert ran.err.endswith("\n")
    return all(part in ran.err for part in parts)


@pytest.mark.parametrize("machine", [X86, ARM64, ARM], ids=lambda machine: machine.name)
@pytest.mark.parametrize("known", [True, False], ids=["base given", "base not known"])
def test_plist(run: Run, tmp_path: Path, machine: Machine, known: bool) -> None:
    guest = build(machine)
    base = ("--ram-base", f"{machine.base:#x}") if known else ()
    ran = run("plist", save(guest, tmp_path / "ram"), *base)
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0].split() == ["pid", "ppid", "uid", "gid", "state", "start", "comm"]
    assert lines[2].split() == ["2", "0", "0", "0", "S", "0.52", "[kthreadd]"]
    assert [int(line.split()[0]) for line in lines[1:]] == [task.pid for task in guest.tasks]


def test_threads_and_tree(run: Run, tmp_path: Path) -> None:
    guest = build()
    target = save(guest, tmp_path / "ram")
    lines = run("ids", "plist", target, "--threads").out.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [[str(t.tgid), str(t.pid)] for t in guest.rows(threads=True)]
    drawn = run("plist", target, "--tree", "--threads").out
    assert "├─ user0" in drawn
    assert "   └─ [ksoftirqd/0]" not in drawn
    assert "└─ [ksoftirqd/0]" in drawn
    assert len(drawn.splitlines()) == len(lines)


def test_tree_with_a_circle_of_parents(run: Run, tmp_path: Path) -> None:
    guest = build()
    one, other = guest.tasks[8].gva, guest.tasks[9].gva
    guest.words(guest.member(one, "real_parent"), other)
    guest.words(guest.member(other, "real_parent"), one)
    ran = run("plist", save(guest, tmp_path / "ram"), "--tree")
    assert ran.code == 0
    assert len(ran.out.splitlines()) == len(guest.tasks) + 1


ENVELOPE = {"schema", "time", "target", "kernel", "command", "complete", "faults", "loads", "elapsed_s", "rows"}
ROWS = {
    "banner": {"banner", "release", "compiler", "build", "granule", "slide", "architecture"},
    "syscall": {"nr", "address", "symbol", "offset", "in_kernel_text"},
    "plist": {"pid", "tgid", "ppid", "uid", "gid", "comm", "state", "kthread", "start_time"},
}


@pytest.mark.parametrize("command", ROWS)
def test_json(run: Run, tmp_path: Path, command: str) -> None:
    target = save(build(ARM64), tmp_path / "ram")
    ran = run(command, target, "--ram-base", "0x40000000", "--json")
    assert ran.code == 0
    value = ran.json()
    assert set(value) >= ENVELOPE
    assert (value["schema"], value["command"], value["target"]) == ("yamori/1", command, target)
    assert (value["kernel"], value["complete"], value["faults"]) == (RELEASE, True, 0)
    assert value["elapsed_s"] >= 0
    assert all(set(row) >= ROWS[command] for row in value["rows"])
    text = json.dumps(value["rows"])
    assert not [word for word in text.replace(",", " ").split() if word.isdigit() and int(word) >= 1 << 53]


def test_json_rows(run: Run, tmp_path: Path) -> None:
    guest = build(ARM)
    target = save(guest, tmp_path / "ram")
    calls = run("ids", "syscall", target, "--json").json()["rows"]
    assert len(calls) == CALLS
    first = guest.symbols["sys_call0"]
    wanted = {"nr": 0, "address": f"{first:#x}", "symbol": "sys_call0", "offset": 0, "in_kernel_text": True}
    assert calls[0] == wanted
    (row,) = run("banner", target, "--json").json()["rows"]
    assert (row["banner"], row["slide"], row["granule"]) == (BANNER, "0x0", 4096)
    assert run("plist", target, "--json").json()["rows"][0]["task"] == f"{guest.tasks[0].gva:#x}"


def test_banner_and_syscall_for_people(run: Run, tmp_path: Path) -> None:
    guest = build()
    guest.words(guest.symbols["sys_call_table"] + 8 * 7, 0xFFFF_FFFF_C000_1000)
    target = save(guest, tmp_path / "ram")
    assert BANNER in run("banner", target).out
    lines = run("syscall", target).out.splitlines()
    assert lines[8].split() == ["7", "0xffffffffc0001000", "OUTSIDE"]
    assert lines[9].split()[-1] == "kernel"


def test_doctor(run: Run, tmp_path: Path) -> None:
    target = save(build(ARM64), tmp_path / "ram")
    ran = run("doctor", target)
    assert ran.code == 0
    assert "translation root" in ran.out
    assert "task_struct.tasks" in ran.out
    value = run("doctor", target, "--json").json()
    assert value["regions"] == [{"gpa": "0x40000000", "size": 8 * MIB}]
    assert {row["member"] for row in value["members"]} >= {"task_struct.pid", "cred.uid"}


def test_doctor_says_what_it_doubts(run: Run, tmp_path: Path) -> None:
    guest = build()
    guest.words(guest.member(guest.init, "nsproxy"), 0)
    ran = run("doctor", save(guest, tmp_path / "ram"))
    assert ran.code == output.NOT_EVERYTHING
    assert "doubt: init_uts_ns was found by its shape only" in ran.out


HOSTILE = b"\x1b[2J\x1b]0;x\x07"


@pytest.mark.parametrize("arguments", [("plist",), ("plist", "--tree"), ("plist", "--json"), ("banner",), ("doctor",)])
def test_nothing_that_the_guest_says_reaches_the_terminal_raw(
    run: Run, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    guest = build()
    guest.write(guest.member(guest.tasks[9].gva, "comm"), HOSTILE.ljust(16, b"\0"))
    guest.write(guest.symbols["init_uts_ns"] + 65, HOSTILE.ljust(65, b"\0"))
    ran = run(*arguments, save(guest, tmp_path / "ram"))
    for text in (ran.out, ran.err):
        assert all(char.isprintable() or char == "\n" for char in text)
    assert "\\x1b" in ran.out or arguments == ("doctor",)


def test_name_of_the_file_is_printed_safely(run: Run, tmp_path: Path) -> None:
    name = os.fsdecode(b"ram\x1b[2J\n\xff")
    target = save(build(), tmp_path / name)
    assert run("plist", target, "--json").json()["rows"]
    ran = run("doctor", target)
    assert "\x1b" not in ran.out
    assert "ram\\x1b[2J\\x0a\\xff" in ran.out
    assert is_error(run("plist", target + "x"), "no such file")


@pytest.mark.parametrize("command", ["doctor", "banner", "syscall", "plist"])
def test_names_of_files_that_are_not_utf8_in_json(run: Run, tmp_path: Path, command: str) -> None:
    guest = build()
    target = save(guest, tmp_path / os.fsdecode(b"ram\x1b\n\xff"))
    symbols = tmp_path / os.fsdecode(b"System.map\xfe")
    lines = (f"{address:016x} T {name}\n" for name, address in sorted(guest.symbols.items(), key=lambda pair: pair[1]))
    symbols.write_text("".join(lines), encoding="ascii")
    ran = run(command, target, "--symbols", str(symbols), "--json")
    assert ran.code in {output.OK, output.NOT_EVERYTHING}, ran
    assert ran.json()["target"].endswith("/ram\\x1b\\x0a\\xff")


def test_targets_that_are_not_utf8_in_json(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "find", lambda: [vm("o\x1bne"), vm(os.fsdecode(b"tw\xff"))])
    rows = run("targets", "--json").json()["rows"]
    assert [row["name"] for row in rows] == ["o\\x1bne", "tw\\xff"]
    assert rows[0]["lacks"] == ["a\\x1bthing"]


@pytest.mark.parametrize("name", ["lab:\x1b", "qemu:\udcff\n", "qemu:/\x1b\udcff", "file:\x07\udcff", "\udcff:\x1b"])
@pytest.mark.parametrize("options", [(), ("--json",)])
def test_targets_with_odd_names_that_are_not_there(run: Run, name: str, options: tuple[str, ...]) -> None:
    ran = run("doctor", name, *options)
    assert is_error(ran)
    assert ran.err.removesuffix("\n").isprintable()


def test_broken_list_is_exit_code_3(run: Run, tmp_path: Path) -> None:
    guest = build()
    guest.words(guest.member(guest.tasks[9].gva, "real_cred"), 0)
    target = save(guest, tmp_path / "ram")
    ran = run("plist", target)
    assert ran.code in {output.NOT_EVERYTHING, output.ERROR}
    guest = build()
    guest.words(guest.member(guest.tasks[9].gva, "real_parent"), 0x1003)
    ran = run("plist", save(guest, tmp_path / "ram"), "--json")
    assert ran.code == output.NOT_EVERYTHING
    assert ran.json()["complete"] is False
    assert ran.err.startswith("incomplete: real_parent of a task cannot be read: 0x")


# --- errors


def test_no_such_file(run: Run, tmp_path: Path) -> None:
    assert is_error(run("plist", f"file:{tmp_path}/nothing"), "no such file")


def test_image_of_zeros(run: Run, tmp_path: Path) -> None:
    (tmp_path / "ram").write_bytes(bytes(MIB))
    assert is_error(run("plist", f"file:{tmp_path}/ram"), "no Linux kernel is running", "ram")


def test_sparse_image(run: Run, tmp_path: Path) -> None:
    with (tmp_path / "ram").open("wb") as file:
        file.truncate(64 * MIB)
    assert is_error(run("plist", f"file:{tmp_path}/ram"), "RAM is empty")


def test_random_image(run: Run, tmp_path: Path) -> None:
    (tmp_path / "ram").write_bytes(random.Random(1).randbytes(2 * MIB))
    assert is_error(run("banner", f"file:{tmp_path}/ram"), "no Linux kernel is running")


@pytest.mark.parametrize("size", [3 * MIB, 4 * MIB + 0x1000, 5 * MIB, 5 * MIB + 0x50007])
def test_truncated_image(run: Run, tmp_path: Path, size: int) -> None:
    guest = build(ARM64)
    (tmp_path / "ram").write_bytes(guest.ram[:size])
    ran = run("plist", f"file:{tmp_path}/ram", "--ram-base", "0x40000000")
    if ran.code != output.NOT_EVERYTHING:
        assert is_error(ran)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("plist", "--ram-base", "zz", "file:x"), "'zz' is no address"),
        (("syscall", "--table", "foo", "file:x"), "'foo' is no table"),
        (("plist", "what:x"), "this is no target"),
        (("plist", "file:"), "this is no target"),
        (("plist", "a\nb"), "this is no target"),
        (("plist", "--nope"), "--nope"),
        (("nope",), "nope"),
        (("plist", "file:x", "y"), "y"),
    ],
)
def test_wrong_usage_is_one_line(run: Run, arguments: tuple[str, ...], part: str) -> None:
    assert is_error(run(*arguments), part)


def test_wrong_base_is_one_line(run: Run, tmp_path: Path) -> None:
    target = save(build(ARM64), tmp_path / "ram")
    assert is_error(run("plist", target, "--ram-base", "0x80000000"), "no page tables that lead to it")
    assert is_error(run("plist", target, "--ram-base", "-4096"))


def test_makers_files_that_are_none(run: Run, tmp_path: Path) -> None:
    target = save(build(), tmp_path / "ram")
    assert is_error(run("plist", target, "--symbols", str(tmp_path / "none")), "none")
    assert is_error(run("plist", target, "--symbols", str(tmp_path / "ram")))
    assert is_error(run("plist", target, "--vmlinux", str(tmp_path / "none")), "none")


def test_no_target_and_no_vm(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "find", list)
    assert is_error(run("plist"), "no VM runs on this machine", "yamori lab up")
    listed = run("targets")
    assert listed.code == 0
    assert "no VM runs" in listed.out
    assert run("targets", "--json").json()["rows"] == []


def vm(name: str) -> VirtualMachine:
    layout = (RamSegment(0x4000_0000, MIB, "ram", 0, "shared"),)
    return VirtualMachine(f"qemu:{name}", name, 7, "qemu-system-arm virt", (layout,), lacks=("a\x1bthing",))


def test_targets(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "find", lambda: [vm("one"), vm("tw\x1bo")])
    text = run("targets").out
    assert "\x1b" not in text
    assert "qemu:one" in text
    row = run("targets", "--json").json()["rows"][0]
    assert (row["target"], row["pid"]) == ("qemu:one", 7)
    assert row["regions"] == [{"gpa": "0x40000000", "size": MIB}]
    assert is_error(run("plist"), "which of the 2 VMs")


def test_target_of_the_environment(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("YAMORI_TARGET", save(build(), tmp_path / "ram"))
    assert run("plist").code == 0


def test_version_and_no_command(run: Run) -> None:
    assert run("--version").out == f"yamori {yamori.__version__}\n"
    ran = run()
    assert ran.code == output.ERROR
    assert "Usage" in ran.out + ran.err


def _commands(group: Any, *path: str) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for name, command in group.commands.items():
        below = (*path, name)
        found += [below, *(_commands(command, *below) if hasattr(command, "commands") else ())]
    return found


COMMANDS = _commands(typer.main.get_command(entry.application()))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_of_every_command_has_an_example(run: Run, path: tuple[str, ...]) -> None:
    ran = run(*path, "--help")
    assert ran.code == 0
    assert "Example" in ran.out
    assert f"yamori {path[-1]}" in ran.out or f"yamori {' '.join(path)}" in ran.out


def test_every_command_is_there_with_and_without_ids() -> None:
    assert {("plist",), ("syscall",), ("banner",), ("ids", "plist"), ("doctor",), ("targets",)} <= set(COMMANDS)


def test_only_the_named_command_is_built() -> None:
    def built(word: str) -> list[tuple[str, ...]]:
        return _commands(typer.main.get_command(entry.application(word)))

    assert built("doctor") == [("doctor",)]
    assert {path[0] for path in built("lab")} == {"lab"}
    assert built("--help") == built("nothing") == COMMANDS
