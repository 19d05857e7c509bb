"""`yamori llview` and `yamori ids run`: on files of probes, with and without a synthetic guest."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.cli.conftest import Run
from tests.kernel.synthetic import ARM, ARM64, X86, Machine, build

from yamori.cli import llview, output
from yamori.llview import objects
from yamori.llview.c_backend import c_source
from yamori.llview.unit import Unit
from yamori.translation.machine import walkers

PROBE = '''\
"""Programs of root, and who started them."""

from __future__ import annotations

from yamori.llview.language import CharArray, Kernel, Ptr, Struct, emit, exists, probe, s32, u32, address_of
from yamori.llview.structures.lists import for_each_entry, list_head
from yamori.records import Address, Row


class cred(Struct):
    uid: u32


class task_struct(Struct):
    tasks: list_head
    tgid: s32
    comm: CharArray
    flags: u32
    real_parent: Ptr["task_struct"]
    real_cred: Ptr[cred]


class Symbols(Kernel):
    init_task: task_struct


class Owned(Row, frozen=True):
    pid: int
    comm: str
    parent: str
    kthread: bool | None
    task: Address


@probe(row=Owned)
def owned(kernel: Symbols, uid: u32 = 0) -> None:
    """Programs of a user."""
    for task in for_each_entry(kernel.init_task.tasks, task_struct, "tasks"):
        if task.real_cred.uid == uid:
            kthread: u32 = 0
            if exists(task.flags):
                kthread = task.flags & 0x200000
            emit(
                pid=task.tgid,
                comm=task.comm,
                parent=task.real_parent.comm,
                kthread=kthread if exists(task.flags) else None,
                task=address_of(task),
            )
'''
LINE = 1 + PROBE[: PROBE.index("        if task.real_cred")].count("\n")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my.py"
    path.write_text(PROBE, encoding="utf-8")
    return path


def image(tmp_path: Path, machine: Machine) -> tuple[str, ...]:
    path = tmp_path / "ram"
    path.write_bytes(build(machine).ram)
    return f"file:{path}", "--ram-base", f"{machine.base:#x}"


# --- check


def test_check(run: Run, file: Path) -> None:
    ran = run("llview", "check", file)
    assert (ran.code, ran.err) == (0, "")
    (line,) = ran.out.splitlines()
    assert line.startswith("owned: fine; needs symbol init_task, task_struct.tasks, list_head.next, ")
    assert "task_struct.flags?" in line
    assert "task_struct.comm," in line
    value = run("llview", "check", file, "--json").json()
    assert (value["schema"], value["command"], value["errors"]) == ("yamori/1", "llview check", [])
    (row,) = value["rows"]
    assert (row["probe"], row["fields"]) == ("owned", ["pid", "comm", "parent", "kthread", "task"])
    assert {"kind": "member", "name": "task_struct.flags", "optional": True} in row["needs"]
    assert {"kind": "symbol", "name": "init_task", "optional": False} in row["needs"]


def test_check_shows_the_mistake(run: Run, file: Path) -> None:
    file.write_text(PROBE.replace("real_cred.uid == uid", "real_cred.uidd == uid"), encoding="utf-8")
    ran = run("llview", "check", file)
    assert (ran.code, ran.out) == (output.ERROR, "")
    message, source, caret = ran.err.splitlines()
    assert message == f"{file}:{LINE}:12: cred declares no member 'uidd'; add `uidd: ...` to class cred"
    assert source == f"{LINE:>5} |         if task.real_cred.uidd == uid:"
    assert caret.index("^") == source.index("task.real_cred")
    ran = run("llview", "check", file, "--json")
    assert (ran.code, ran.err) == (output.ERROR, "")
    (error,) = ran.json()["errors"]
    assert (error["line"], error["column"], error["hint"]) == (LINE, 12, "add `uidd: ...` to class cred")


def test_check_for_both_word_sizes(run: Run, file: Path) -> None:
    text = PROBE.replace("uid: u32 = 0) ->", "uid: u64 = 0) ->").replace("s32, u32,", "s32, u32, u64, ulong,")
    file.write_text(
        text.replace("kthread: u32 = 0", "narrow: ulong = uid\n            kthread: u32 = 0"), encoding="utf-8"
    )
    ran = run("llview", "check", file)
    assert ran.code == output.ERROR
    assert "a u64 may not fit into a u32" in ran.err


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("def f(:", "my.py:1:7: this is no Python"),
        ("", "it has no probe"),
        ("import nothing_at_all", "cannot be imported"),
    ],
)
def test_files_that_are_none(run: Run, file: Path, text: str, part: str) -> None:
    file.write_text(text, encoding="utf-8")
    ran = run("llview", "check", file)
    assert (ran.code, ran.out, ran.err.count("\n")) == (output.ERROR, "", 1)
    assert ran.err.startswith("yamori: ")
    assert part in ran.err
    ran = run("llview", "check", file, "--json")
    assert ran.code == output.ERROR
    assert part.rpartition(": ")[2] in ran.json()["errors"][0]["message"]


def test_what_the_file_says_reaches_no_terminal_raw(run: Run, file: Path) -> None:
    file.write_text(PROBE.replace("== uid:", "== 'x\x1b[2J':\t#"), encoding="utf-8")
    ran = run("llview", "check", file)
    assert ran.code == output.ERROR
    assert all(character.isprintable() or character == "\n" for character in ran.err)
    assert "\\x1b[2J" in ran.err


# --- explain


def test_explain(run: Run, file: Path) -> None:
    ran = run("llview", "explain", file)
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith(f"{LINE:>5}  "))
    assert lines[at].endswith("if task.real_cred.uid == uid:")
    assert (
        "▸ task_struct.real_cred: page(kernel root, gva) → GPA by the guest's page tables; load 8 bytes"
        in lines[at + 1]
    )
    assert "▸ cred.uid: page(kernel root, gva)" in lines[at + 2]
    assert "member task_struct.flags, optional" in lines
    assert "for_each_entry  " in ran.out  # the helper's source is shown, too
    assert "load 4 bytes" in run("llview", "explain", file, "--bits", "32").out


@pytest.mark.parametrize("machine", [X86, ARM64, ARM], ids=lambda machine: machine.name)
def test_explain_on_a_guest(run: Run, tmp_path: Path, file: Path, machine: Machine) -> None:
    target = image(tmp_path, machine)
    guest = build(machine)
    ran = run("llview", "explain", file, *target)
    assert (ran.code, ran.err) == (0, "")
    place = f"+{guest.task['tgid']:#x} (4 bytes, inferred)"
    assert f"▸ task_struct.tgid at {place}: page(kernel root, gva) → GPA by " in ran.out
    assert "the guest's page tables" not in ran.out
    assert f"member task_struct.tgid: {place}" in ran.out.splitlines()
    assert f"symbol init_task: {guest.init:#x}" in ran.out.splitlines()
    assert "one run: " in ran.out
    value = run("llview", "explain", file, *target, "--json").json()
    assert (value["command"], value["target"], value["word_size"]) == ("llview explain", target[0], machine.word)
    root = [task for task in guest.tasks if task.uid == 0]
    assert value["run"]["rows"] == len(root)
    assert value["run"]["loads"] > len(root) * 5
    assert value["run"]["faults"] == 0
    assert 0 < value["run"]["walks"] <= value["run"]["entries"]
    slot = next(slot for slot in value["slots"] if slot["name"] == "task_struct.tgid")
    assert (slot["offset"], slot["size"], slot["provenance"]) == (guest.task["tgid"], 4, "inferred")
    assert next(slot for slot in value["slots"] if slot["kind"] == "symbol")["address"] == f"{guest.init:#x}"


def test_explain_what_cannot_run(run: Run, tmp_path: Path, file: Path) -> None:
    file.write_text(PROBE.replace("tgid", "nowhere_at_all"), encoding="utf-8")
    ran = run("llview", "explain", file, *image(tmp_path, X86))
    assert ran.code == 0
    assert "member task_struct.nowhere_at_all: not known" in ran.out.splitlines()
    assert "not run: where task_struct.nowhere_at_all lies in this kernel is not known" in ran.out
    assert "one run" not in ran.out


def test_explain_as_ir_and_c(run: Run, tmp_path: Path, file: Path) -> None:
    ran = run("llview", "explain", file, "--ir")
    assert ran.out.startswith("probe owned(uid: u32), 64-bit guests\n")
    assert " = load.host(page_" in ran.out
    assert "load.virt" not in ran.out
    text = run("llview", "explain", file, "--c").out
    assert "ll_run_owned(" in text
    assert "if task.real_cred.uid == uid:" in text
    value = run("llview", "explain", file, *image(tmp_path, X86), "--json", "--ir", "--c").json()
    assert value["ir"] == ran.out.split("\n")
    assert any("ll_walk_" in line for line in value["c"])


def test_explain_a_built_in_probe(run: Run) -> None:
    assert "task_struct.thread_node, optional" in run("llview", "explain", "plist").out
    ran = run("llview", "explain", "nothing")
    assert ran.code == output.ERROR
    assert "there is no probe 'nothing'; there are " in ran.err
    assert "plist" in ran.err
    assert run("llview", "explain", "plist", "--bits", "16").code == output.ERROR


def test_completion(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    assert llview.complete_probe("pl") == ["plist"]
    assert llview.complete_probe("my") == ["my.py"]
    assert llview.complete_probe("m") == ["maps", "modules", "mounted", "my.py"]
    assert llview.complete_probe(f"{file.parent}/") == [str(file)]


# --- build


@pytest.mark.skipif(not shutil.which("cc"), reason="there is no C compiler")
def test_build(run: Run, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = objects.this_machine()
    ran = run("llview", "build", "--arch", machine, file, "-o", tmp_path / "out")
    assert (ran.code, ran.err) == (0, "")
    assert len(list((tmp_path / "out" / machine).glob("*.so"))) == len(ran.out.splitlines()) == 2
    assert f"owned, guests of 32 bits, for {machine}" in ran.out
    # Where there is no compiler, a run finds them in the cache.
    cache = tmp_path / "cache" / "yamori" / "llview"
    cache.parent.mkdir(parents=True)
    (tmp_path / "out").rename(cache)
    (cache / machine).chmod(0o700)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(objects, "build", lambda *_: pytest.fail("it is compiled again"))
    for word_size in (4, 8):
        program = llview.compiled(llview.find_probe(str(file)), word_size)[1]
        with objects.find(c_source(Unit(program.name, (program,), walkers(word_size)))) as found:
            assert (found.why, found.path and found.path.parent) == ("cache", cache / machine)
    ran = run("llview", "build", "--arch", "vax", file)
    assert ran.code == output.ERROR
    assert "'vax' is no machine; there are x86_64, aarch64" in ran.err


# --- ids run


@pytest.mark.parametrize("machine", [X86, ARM64, ARM], ids=lambda machine: machine.name)
@pytest.mark.parametrize("command", [("run",), ("ids", "run")], ids=" ".join)
def test_run(run: Run, tmp_path: Path, file: Path, machine: Machine, command: tuple[str, ...]) -> None:
    target = image(tmp_path, machine)
    guest = build(machine)
    ran = run(*command, f"{file}:owned", *target)
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0].split() == ["pid", "comm", "parent", "kthread", "task"]
    assert lines[2].split() == ["2", "kthreadd", "swapper/0", "yes", f"{guest.by_pid(2).gva:#x}"]
    value = run(*command, file, *target, "--json", "-a", "uid=1001").json()
    assert (value["schema"], value["command"], value["complete"]) == ("yamori/1", "run owned", True)
    truth = [task for task in guest.tasks if task.uid == 1001]
    assert [row["pid"] for row in value["rows"]] == [task.pid for task in truth]
    assert value["rows"][0]["task"] == f"{truth[0].gva:#x}"
    assert value["rows"][0]["kthread"] is False


def test_run_that_is_cut_short(run: Run, tmp_path: Path, file: Path) -> None:
    guest = build(X86)
    guest.words(guest.member(guest.tasks[3].gva, "real_cred"), 0x1000)
    path = tmp_path / "ram"
    path.write_bytes(guest.ram)
    ran = run("run", file, f"file:{path}", "--ram-base", "0")
    assert ran.code == output.NOT_EVERYTHING
    assert len(ran.out.splitlines()) == 1 + 3
    assert ran.err.startswith("incomplete: GVA 0x1")


def test_run_with_wrong_arguments(run: Run, tmp_path: Path, file: Path) -> None:
    wrong = (
        ("nope=1", "owned has no parameter 'nope'; it has uid"),
        ("uid", "'uid' is no argument"),
        ("uid=-1", "uid=-1 does not fit into a u32"),
        (f"uid={1 << 32}", "uid=4294967296 does not fit into a u32"),
    )
    for argument, part in wrong:
        ran = run("run", file, "file:none", "-a", argument)
        assert ran.code == output.ERROR
        assert part in ran.err
    assert "an argument is given twice" in run("run", file, "file:none", "-a", "uid=1", "-a", "uid=2").err
    needs = tmp_path / "needs.py"
    needs.write_text(PROBE.replace("uid: u32 = 0", "uid: u32"), encoding="utf-8")
    ran = run("run", needs, "file:none")
    assert (ran.code, ran.out) == (output.ERROR, "")
    assert "owned needs uid, a u32: -a uid=NUMBER" in ran.err
    file.write_text(PROBE.replace("task.real_cred.uid", "task.nope"), encoding="utf-8")
    ran = run("run", file, *image(tmp_path, X86))
    assert (ran.code, ran.out) == (output.ERROR, "")
    assert "task_struct declares no member 'nope'" in ran.err
    assert "^" in ran.err


def test_run_what_the_kernel_lacks(run: Run, tmp_path: Path, file: Path) -> None:
    file.write_text(PROBE.replace("tgid", "nowhere_at_all"), encoding="utf-8")
    ran = run("run", file, *image(tmp_path, X86))
    assert (ran.code, ran.out) == (output.ERROR, "")
    assert "where task_struct.nowhere_at_all lies in this kernel is not known" in ran.err


def test_run_by_the_interpreter_says_so(run: Run, tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YAMORI_NATIVE", "0")
    target = image(tmp_path, X86)
    ran = run("run", file, *target)
    assert ran.code == 0
    assert ran.err == "note: the interpreter ran it, which is slower: YAMORI_NATIVE=0 says so\n"
    assert run("run", file, *target, "--json").json()["notes"] == [ran.err.removeprefix("note: ").strip()]
