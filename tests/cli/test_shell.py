"""`yamori shell`: what is typed at its prompt, live objects, completion."""

from __future__ import annotations

import io
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernel.synthetic import ARM, ARM64, X86, Guest, Machine, build

from yamori.cli import app as entry
from yamori.cli import output
from yamori.cli.prompt import Completer, _one_line_errors
from yamori.cli.shell import namespace
from yamori.errors import Fault, YamoriError
from yamori.guest import open_guest
from yamori.kernel.discovery import discover
from yamori.kernel.given import Given
from yamori.kernel.kernel import Kernel
from yamori.kernel.types import Member, Provenance
from yamori.llview.diagnostics import CompileError
from yamori.llview.language import NULL, Array, Helper, Ptr, Struct, helper, s32, u8, ulong
from yamori.llview.language import Kernel as Symbols
from yamori.llview.structures.lists import for_each_entry, is_linked, list_head
from yamori.probes.live import LiveArray, LiveKernel, LiveStruct, Session, UnknownError, structure
from yamori.probes.live_calls import call
from yamori.probes.plist import Tasks, state_of, task_struct

MACHINES = pytest.mark.parametrize("machine", [X86, ARM64, ARM], ids=lambda machine: machine.name)


@cache
def known(machine: Machine) -> Kernel:
    return discover(build(machine).memory(), Given(), base_known=True)


def live(machine: Machine = X86) -> tuple[Guest, Session, LiveKernel]:
    """Return a guest to be bent, and its live kernel."""
    guest = build(machine)
    session = Session(Kernel(guest.memory(), known(machine).profile))
    return guest, session, LiveKernel(session)


# --- live objects


@MACHINES
def test_members(machine: Machine) -> None:
    guest, _, kernel = live(machine)
    init = kernel.init_task
    assert repr(init) == f"(struct task_struct *){guest.init:#x}"
    assert (init.comm, init.pid) == ("swapper/0", 0)
    assert init.real_parent == init
    assert hash(init.real_parent) == hash(init)
    assert int(init.tasks) == guest.member(guest.init, "tasks")
    assert repr(init.tasks.next).startswith("(struct list_head *)0x")
    assert init.real_cred.uid == 0
    assert init.flags == int.from_bytes(guest.read(guest.member(guest.init, "flags"), 4), "little")


def test_every_look_is_a_new_one() -> None:
    guest, _, kernel = live()
    init = kernel.init_task
    assert init.comm == "swapper/0"
    guest.write(guest.member(guest.init, "comm"), b"a\x1b\\\0")
    assert init.comm == "a\\x1b\\x5c"


def test_pointers_are_true_unless_null() -> None:
    guest, _, kernel = live()
    assert kernel.init_task.real_parent
    guest.words(guest.member(guest.init, "real_parent"), 0)
    parent = kernel.init_task.real_parent
    assert not parent
    assert parent == NULL
    assert repr(parent) == "(struct task_struct *)0x0"
    with pytest.raises(Fault, match="is not mapped"):
        _ = parent.pid


class Known:
    """Types that know where some members of the synthetic ``task_struct`` lie, which no probe declares."""

    provenance: Provenance = "btf"

    def __init__(self, guest: Guest) -> None:
        at = guest.task
        self.members = {
            "stack": Member(at["stack"], guest.machine.word),
            "usage": Member(at["usage"], 4, signed=True),
            "usage.counter": Member(at["usage"], 4, signed=True),
            "se": Member(at["pid"], 40),
            "se.inner": Member(at["pid"], 24),
            "se.inner.id": Member(at["pid"], 4, signed=True),
            "name": Member(at["comm"], 16, stride=1),
            "table": Member(at["tasks"], 16, stride=8),
            "low": Member(at["pid"], 4, shift=1, bits=2),
        }

    def member(self, struct: str, path: str) -> Member | None:
        return self.members.get(path) if struct == "task_struct" else None

    def size(self, struct: str) -> int | None:
        return 4096 if struct == "task_struct" else None


@MACHINES
def test_members_that_nobody_declared(machine: Machine) -> None:
    guest = build(machine)
    profile = known(machine).profile
    session = Session(Kernel(guest.memory(), replace(profile, types=[Known(guest), *profile.types])))
    truth = guest.by_pid(3)
    task = LiveStruct(session, structure("task_struct"), truth.gva)
    assert task.stack == guest.word(guest.member(truth.gva, "stack"))
    assert repr(task.stack) == f"{guest.word(guest.member(truth.gva, 'stack')):#x}"
    assert task.usage == task.usage.counter == 1
    assert repr(task.usage) == "1"
    assert repr(task.se) == f"(struct task_struct *){truth.gva:#x}->se"
    assert int(task.se.inner) == guest.member(truth.gva, "pid")
    assert task.se.inner.id == 3
    assert task.name == truth.comm
    assert int(task.table) == guest.member(truth.gva, "tasks")
    assert task.low == 3 >> 1
    assert dir(task.se) == []
    with pytest.raises(UnknownError, match=r"task_struct\.se\.nope"):
        _ = task.se.nope
    with pytest.raises(AttributeError):
        _ = task.usage.nope


def test_symbols_that_nobody_declared() -> None:
    guest, _, kernel = live()
    assert kernel.linux_banner == guest.symbols["linux_banner"]
    assert repr(kernel.linux_banner) == f"{guest.symbols['linux_banner']:#x}"


def test_what_is_not_known() -> None:
    _, _, kernel = live()
    with pytest.raises(UnknownError, match=r"where task_struct\.nope lies in this kernel is not known"):
        _ = kernel.init_task.nope
    with pytest.raises(UnknownError, match="no symbol 'nope'"):
        _ = kernel.nope
    assert not hasattr(kernel.init_task, "nope")
    assert not hasattr(kernel.init_task, "_repr_html_")
    with pytest.raises(UnknownError, match=r"where task_struct\.real_start_sec lies in this kernel is not known"):
        _ = kernel.init_task.real_start_sec  # declared, and not in this kernel


class pair(Struct, c_name="list_head"):  # noqa: N801  another view of the same words
    """Two words, seen as an array and as pointers."""

    next: Ptr[ulong]


class Words(Symbols):
    """Symbols of the synthetic guest that no probe declares."""

    sys_call_table: Array[ulong]
    init_cred: Array[u8]


@MACHINES
def test_arrays_and_pointers(machine: Machine) -> None:
    guest, session, kernel = live(machine)
    table = kernel.sys_call_table
    assert isinstance(table, LiveArray)
    assert repr(table) == f"(u{8 * machine.word} []){guest.symbols['sys_call_table']:#x}"
    assert [table[number] for number in (0, 7)] == [guest.symbols[guest.calls[number]] for number in (0, 7)]
    assert kernel.init_cred[0] == 3
    with pytest.raises(TypeError, match="how many elements"):
        list(table)
    first = LiveStruct(session, pair, int(kernel.init_task.tasks)).next
    assert repr(first).startswith(f"(u{8 * machine.word} *)0x")
    assert first[0] == int(kernel.init_task.tasks.next.next)
    assert first


def test_completion_of_members() -> None:
    _, _, kernel = live()
    assert {"pid", "comm", "__state", "tasks"} <= set(dir(kernel.init_task))
    assert "init_task" in dir(kernel)


@MACHINES
def test_members_are_those_that_this_kernel_has(machine: Machine) -> None:
    _, session, kernel = live(machine)
    init = kernel.init_task
    assert not {"state", "real_start_sec", "real_start_time"} & set(dir(init))
    assert "stack" in dir(init)  # inferred, and declared nowhere
    for name in dir(init):
        assert repr(getattr(init, name))
    assert dir(init.tasks) == ["next", "prev"]
    assert dir(init.real_cred) == dir(structure_at(session, "cred", init.real_cred))


def structure_at(session: Session, name: str, thing: LiveStruct) -> LiveStruct:
    return LiveStruct(session, structure(name), int(thing))


@MACHINES
def test_an_address_of_no_known_type_says_what_to_do(machine: Machine) -> None:
    guest, session, kernel = live(machine)
    with pytest.raises(UnknownError, match=r'stack is known by its place .* say at\("struct NAME", address\)'):
        _ = kernel.init_task.stack.x
    with pytest.raises(UnknownError, match=r"task_struct\.pid is known by its place .* no member 'x'$"):
        _ = kernel.init_task.pid.x
    with pytest.raises(UnknownError, match="the address of a symbol of no known type"):
        _ = kernel.linux_banner.x
    assert not hasattr(kernel.init_task.pid, "_repr_html_")
    assert (f"{kernel.init_task.pid:>3}", str(kernel.init_task.pid)) == ("  0", "0")
    assert session.at("struct task_struct", guest.init).comm == "swapper/0"
    assert session.cast("struct task_struct *", guest.init).comm == "swapper/0"
    assert session.sizeof(list_head) == session.sizeof("list_head") == session.sizeof(kernel.init_task.tasks)
    for look in (
        lambda: session.at("unsigned long", guest.init),
        lambda: session.cast("int", 3),
        lambda: session.sizeof("task_struct"),
        lambda: session.sizeof(kernel.init_task.pid),
    ):
        with pytest.raises(UnknownError):
            look()


def test_a_structure_of_two_words_that_looks_like_an_integer() -> None:
    guest = build(ARM)
    profile = known(ARM).profile
    types = Known(guest)
    at = guest.task["children"]
    types.members = {"children": Member(at, 8), "odd": Member(at + 4, 8)}
    session = Session(Kernel(guest.memory(), replace(profile, types=[types, *profile.types])))
    init = LiveStruct(session, structure("task_struct"), guest.init)
    shown = {name: repr(getattr(init, name)) for name in ("children", "odd")}
    assert sum("->" in text for text in shown.values()) == 1  # the one that no integer of eight bytes can be
    for name in shown:
        assert call(session, is_linked, (getattr(init, name),), {}).value in {True, False}


# --- calls of helpers


@helper
def both(task: task_struct) -> tuple[s32, bool]:
    """Return two values."""
    return task.pid, is_linked(task.tasks)


@helper
def nothing(kernel: Tasks, task: task_struct) -> None:
    """Return nothing."""
    if kernel.init_task == task:
        return


@helper
def pids(kernel: Tasks, least: s32 = 0) -> Iterator[s32]:
    """Yield numbers."""
    for task in for_each_entry(kernel.init_task.tasks, task_struct, "tasks"):
        if task.pid >= least:
            yield task.pid


@MACHINES
def test_calls(machine: Machine) -> None:
    guest, session, kernel = live(machine)
    init = kernel.init_task
    tasks = call(session, for_each_entry, (init.tasks, task_struct, "tasks"), {})
    assert tasks.reasons == []
    assert [(task.pid, task.comm) for task in tasks.value] == [(task.pid, task.comm) for task in guest.tasks]
    assert call(session, state_of, (tasks.value[0],), {}).value == ord(guest.tasks[0].state)
    assert call(session, both, (tasks.value[1],), {}).value == (2, True)
    assert call(session, nothing, (kernel, init), {}).value is None
    wanted = [task.pid for task in guest.tasks if task.pid >= 100]
    assert call(session, pids, (kernel,), {"least": 100}).value == wanted
    assert call(session, pids, (kernel, 100), {}).value == wanted


def test_an_object_of_another_view_is_taken() -> None:
    _, session, kernel = live()
    other = LiveStruct(session, pair, int(kernel.init_task.tasks))
    assert call(session, is_linked, (other,), {}).value is True


@pytest.mark.parametrize(
    ("arguments", "named", "part"),
    [
        ((), {}, "needs the argument 'node'"),
        ((3,), {}, "struct list_head is needed here"),
        ((0, 1), {}, "takes 1 at most, and was given 2"),
        ((0,), {"nope": 1}, "no further argument 'nope'"),
        ((object(),), {}, "struct list_head is needed"),
    ],
)
def test_wrong_calls(arguments: tuple[Any, ...], named: dict[str, Any], part: str) -> None:
    _, session, _ = live()
    with pytest.raises(CompileError, match=part):
        call(session, is_linked, arguments, named)


def test_calls_that_cannot_end_well() -> None:
    guest, session, kernel = live()
    arguments = (kernel.init_task.tasks, task_struct, "tasks")
    guest.words(guest.member(guest.tasks[3].gva, "tasks"), 0x7000)
    broken = call(session, for_each_entry, arguments, {})
    assert len(broken.value) == 4
    assert "0x7" in broken.reasons[-1]
    guest.words(guest.member(guest.init, "tasks"), 0x1000)
    with pytest.raises(Fault, match="0x1"):
        call(session, for_each_entry, arguments, {})


@settings(max_examples=25, deadline=None)
@given(words=st.lists(st.integers(0, (1 << 64) - 1), min_size=4, max_size=4), at=st.integers(0, 60))
def test_hostile_memory(words: list[int], at: int) -> None:
    guest, session, kernel = live()
    guest.words(guest.init + 8 * at, *words)
    looks = (
        lambda: kernel.init_task.comm,
        lambda: kernel.init_task.real_parent.real_parent.comm,
        lambda: kernel.init_task.tasks.next.prev,
        lambda: call(session, for_each_entry, (kernel.init_task.tasks, task_struct, "tasks"), {}),
    )
    for look in looks:
        with suppress(YamoriError):  # and nothing else
            assert isinstance(repr(look()), str)


# --- the prompt


def typed(monkeypatch: pytest.MonkeyPatch, target: str, *lines: str) -> int:
    monkeypatch.setattr(sys, "argv", ["yamori", "shell", target, "--ram-base", "0"])
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    return entry.run()


@pytest.fixture
def target(tmp_path: Path) -> str:
    path = tmp_path / "ram"
    path.write_bytes(build(X86).ram)
    return f"file:{path}"


def test_prompt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], target: str) -> None:
    lines = (
        "kernel.init_task.comm",
        "for t in for_each_task(kernel): print(t.pid, t.comm)",
        "",
        "len(guest.plist())",
        "at('task_struct', kernel.init_task)",
        "address_of(kernel.init_task) == kernel.init_task",
        "kernel.init_task.nope",
        "1 // 0",
        "def f(:",
        "structure('mm_struct').c_name",
    )
    paths = list(sys.path)
    assert typed(monkeypatch, target, *lines) == output.OK
    captured = capsys.readouterr()
    guest = build(X86)
    shown = captured.out.splitlines()
    assert shown[0] == "'swapper/0'"
    assert shown[1 : 1 + len(guest.tasks)] == [f"{task.pid} {task.comm}" for task in guest.tasks]
    rest = [str(len(guest.tasks)), f"(struct task_struct *){guest.init:#x}", "True", "'mm_struct'"]
    assert shown[1 + len(guest.tasks) :] == rest
    errors = captured.err.splitlines()
    assert errors[0].startswith("where task_struct.nope lies in this kernel is not known; give the maker's vmlinux")
    assert "ZeroDivisionError: integer division or modulo by zero" in errors
    assert "SyntaxError: invalid syntax" in errors
    assert Helper.call_hook is None
    assert sys.path == paths


def test_prompt_says_what_is_not_complete(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    guest = build(X86)
    guest.words(guest.member(guest.tasks[9].gva, "tasks"), 0x1000)
    (tmp_path / "ram").write_bytes(guest.ram)
    line = "len(for_each_entry(kernel.init_task.tasks, task_struct, 'tasks'))"
    assert typed(monkeypatch, f"file:{tmp_path}/ram", line) == output.OK
    captured = capsys.readouterr()
    assert captured.out == "10\n"
    assert captured.err.startswith("incomplete: ")


def test_prompt_ends_as_it_is_told(monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    assert typed(monkeypatch, target, "raise SystemExit(7)") == 7
    assert typed(monkeypatch, target + "x") == output.ERROR


def test_ipython_shows_our_errors_in_one_line() -> None:
    with _one_line_errors():
        assert YamoriError("a\x1b", hint="b")._render_traceback_() == ["a\\x1b; b"]  # type: ignore[attr-defined]
    assert not hasattr(YamoriError("a"), "_render_traceback_")


def test_completion_loads_nothing_but_the_way(monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    with open_guest(target, ram_base=0) as guest:
        names = namespace(guest)
        completer = Completer(names)
        assert "kernel.init_task.comm" in completer.attr_matches("kernel.init_task.co")
        assert completer.attr_matches("kernel.init_t") == ["kernel.init_task"]
        assert "kernel.helper0" in completer.attr_matches("kernel.help")
        assert completer.attr_matches("kernel.init_task.pid.") == []
        assert completer.attr_matches("kernel.nope.x") == []
        assert completer.attr_matches("nothing.x") == []
        assert "guest.plist(" in "".join(completer.attr_matches("guest.pli"))
        looked: list[str] = []
        monkeypatch.setattr(Session, "run", lambda *_: looked.append("run"))
        completer.attr_matches("kernel.")
        assert looked == []


def test_at_a_terminal(target: str) -> None:
    ours, theirs = pty.openpty()
    program = "import sys; sys.argv[0] = 'yamori'; from yamori.cli.main import main; main()"
    command = [sys.executable, "-c", program, "shell", target, "--ram-base", "0"]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)
    try:
        os.close(theirs)
        assert "helpers      for_each" in read_until(ours, ">>> ")
        os.write(ours, b"kernel.init_t\t.com\t\n")
        assert "'swapper/0'" in read_until(ours, "'\r\n>>> ")
        os.write(ours, b"while True: pass\n\n")
        read_until(ours, "... ")
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)  # what Ctrl-C does to the terminal's own processes
        assert "KeyboardInterrupt" in read_until(ours, "KeyboardInterrupt\r\n>>> ")
        os.write(ours, b"raise SystemExit(5)\n")
        assert process.wait(30) == 5
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def read_until(terminal: int, mark: str, seconds: float = 30) -> str:
    text = ""
    end = time.monotonic() + seconds
    while mark not in text and time.monotonic() < end:
        if select.select([terminal], [], [], 0.1)[0]:
            text += os.read(terminal, 1 << 16).decode(errors="replace")
    return text
