"""Live objects by the kernel's own types: a synthetic guest, and BTF of the test's own that describes it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernel.synthetic import ARM, X86, Guest, Machine, build
from tests.kernel.test_btf import ARRAY, CONST, DATASEC, FUNC, FWD, PROTO, PTR, UNION, VAR, Blob, Field

from yamori.errors import Fault, YamoriError
from yamori.kernel.discovery import discover
from yamori.kernel.given import Given
from yamori.kernel.kernel import Kernel
from yamori.llview.machine import Outcome
from yamori.llview.structures.lists import for_each_entry, list_head
from yamori.probes.live import LiveKernel, LiveStruct, Look, Session, UnknownError
from yamori.probes.live_calls import call
from yamori.probes.live_typed import PerCpu, RangeError, TypedArray, TypedStruct, TypedText
from yamori.probes.plist import task_struct

MACHINES = pytest.mark.parametrize("machine", [X86, ARM], ids=lambda machine: machine.name)


def described(guest: Guest) -> Blob:
    """Return BTF of the guest's ``task_struct``."""
    at = {name: 8 * offset for name, offset in guest.task.items()}
    word = guest.machine.word
    blob = Blob()
    ulong = blob.integer("long unsigned int", word)
    integer, char, u8 = blob.integer("int", 4, signed=True), blob.integer("char", 1, signed=True), blob.integer("u8", 1)
    node = blob.add(PTR, size=blob.count + 2)
    blob.struct("list_head", 2 * word, Field("next", node, 0), Field("prev", node, 8 * word))
    head = blob.count
    task = blob.add(PTR, size=blob.add(FWD, "task_struct"))
    state = blob.enum("state", IDLE=0, SOME=1)
    text = blob.add(PTR, size=blob.add(CONST, size=char))
    function = blob.add(PTR, size=blob.add(PROTO, size=integer))
    anonymous = blob.struct("", word, Field("as_word", ulong, 0), Field("as_text", text, 0), kind=UNION)
    blob.add(FUNC, "helper0", function - 1)
    blob.struct(
        "task_struct",
        4096,
        Field("__state", state, at["__state"]),
        Field("stack", blob.add(PTR), at["stack"]),
        Field("tasks", head, at["tasks"]),
        Field("pid", integer, at["pid"]),
        Field("low", integer, at["pid"] + 1, 2),
        Field("negative", integer, at["pid"], 2),
        Field("real_parent", task, at["real_parent"]),
        Field("comm", blob.array(char, 16), at["comm"]),
        Field("bytes", blob.array(u8, 16), at["comm"]),
        Field("open", blob.array(u8, 0), at["comm"]),
        Field("", anonymous, at["stack"]),
        Field("class", integer, at["flags"]),
        Field("call", function, at["stack"]),
        Field("to", blob.add(PTR, size=ulong), at["real_parent"]),
        Field("where", blob.add(PTR, size=blob.add(FWD, "nowhere")), at["stack"]),
        Field("odd", blob.struct("odd", 3), at["pid"]),
        Field("huge", blob.add(ARRAY, words=[ulong, 0, 0xFFFFFFFF]), at["stack"]),
        flag=True,
    )
    table = blob.add(VAR, "init_nsproxy", ulong, [1])
    blob.add(VAR, "linux_banner", blob.array(char, 200), [1])
    blob.add(DATASEC, ".data..percpu", 64, [table, 0, word], vlen=1)
    return blob


@cache
def known(machine: Machine) -> Kernel:
    return discover(build(machine).memory(), Given(), base_known=True)


def live(machine: Machine = X86) -> tuple[Guest, Session, LiveKernel]:
    """Return a guest to be bent, and its live kernel."""
    guest = build(machine)
    profile = known(machine).profile
    types = [described(guest).parse(machine.word), *profile.types]
    session = Session(Kernel(guest.memory(), replace(profile, types=types)))
    return guest, session, LiveKernel(session)


@MACHINES
def test_members(machine: Machine) -> None:
    guest, session, kernel = live(machine)
    init = kernel.init_task
    assert isinstance(init, TypedStruct)
    assert (init.comm, init.pid) == ("swapper/0", 0)
    assert init.real_parent == init
    assert repr(init.real_parent) == f"(struct task_struct *){guest.init:#x}"
    assert repr(init.tasks.next) == f"(struct list_head *){guest.word(guest.member(guest.init, 'tasks')):#x}"
    assert int(init.tasks) == guest.member(guest.init, "tasks")
    truth = guest.by_pid(3)
    third = session.at("struct task_struct", truth.gva)
    assert (third.comm, third.pid, third.low, third.negative) == (truth.comm, 3, 1, -1)
    assert bytes(third.bytes[:2]) == truth.comm[:2].encode()
    assert third.bytes[1] == ord(truth.comm[1])
    assert third.to[0] == guest.word(guest.word(guest.member(truth.gva, "real_parent")))
    assert third.class_ == getattr(third, "class")
    assert third.as_word == guest.word(guest.member(truth.gva, "stack"))


def test_members_are_those_of_this_kernel() -> None:
    _, _, kernel = live()
    names = dir(kernel.init_task)
    assert {"pid", "as_text", "class_"} <= set(names)
    assert not {"real_start_sec", "state", ""} & set(names)
    assert not dir(kernel.init_task.pid)
    with pytest.raises(UnknownError, match=r"has no member 'commm' in this kernel; it has comm"):
        _ = kernel.init_task.commm
    with pytest.raises(AttributeError):
        _ = kernel.init_task.__wrapped__


def test_how_they_show() -> None:
    guest, session, kernel = live()
    init = kernel.init_task
    assert repr(init).startswith(f"(struct task_struct){guest.init:#x} {{__state = IDLE (0), stack = (void *)0x")
    assert "tasks = {...}, pid = 0, low = 0" in repr(init)
    assert repr(init).endswith("more}")
    assert (
        repr(init.tasks)
        == f"(struct list_head){int(init.tasks):#x} {{next = {init.tasks.next!r}, prev = {init.tasks.prev!r}}}"
    )
    guest.words(guest.member(guest.init, "stack"), guest.symbols["helper0"])
    assert repr(init.call) == f"(int (*)(void)){guest.symbols['helper0']:#x} <helper0>"
    guest.words(guest.member(guest.init, "stack"), guest.symbols["helper0"] + 4)
    assert repr(init.call).endswith(" <helper0+0x4>")
    assert repr(init.where) == f"(struct nowhere *){int(init.where):#x}"
    assert repr(init.bytes).endswith("more}")
    assert repr(init.to) == f"(long unsigned int *){guest.init:#x}"
    guest.words(guest.member(guest.init, "stack"), guest.member(guest.init, "comm"))
    assert isinstance(init.as_text, TypedText)
    assert repr(init.as_text) == f"(const char *){int(init.as_text):#x} 'swapper/0'"
    assert str(init.as_text) == "swapper/0"
    guest.words(guest.member(guest.init, "stack"), 8)
    assert repr(init.as_text) == "(const char *)0x8"
    gone = session.at("task_struct", 16)
    assert repr(gone).startswith("(struct task_struct)0x10 {__state = ?, stack = ?")
    with pytest.raises(Fault, match="is not mapped"):
        _ = gone.pid


@pytest.mark.parametrize(
    ("member", "part"),
    [
        ("pid", "task_struct.pid is of type int: it has no member 'x'"),
        ("stack", 'task_struct.stack is of type void \\*: .* say at\\("struct NAME", address\\)'),
        ("where", "struct nowhere"),
        ("to", "say \\[0\\]"),
        ("odd", "struct odd has no member 'x'"),
    ],
)
def test_what_leads_nowhere_says_so(member: str, part: str) -> None:
    _, _, kernel = live()
    with pytest.raises(UnknownError, match=part):
        _ = getattr(kernel.init_task, member).x
    assert not hasattr(getattr(kernel.init_task, member), "_repr_html_")


def test_arrays() -> None:
    guest, session, kernel = live()
    init = kernel.init_task
    assert isinstance(init.bytes, TypedArray)
    assert (len(init.bytes), len(list(init.bytes)), bool(init.bytes)) == (16, 16, True)
    assert init.open[0] == ord("s")
    for index in (16, -1):
        with pytest.raises(RangeError, match="has 16 elements"):
            _ = init.bytes[index]
    for endless in (init.open, init.huge, init.to):
        with pytest.raises(RangeError, match=r"as in \[0\]"):
            list(endless)
    assert len(init.huge[:3]) == 3
    assert init.huge[0] == guest.word(guest.member(guest.init, "stack"))
    with pytest.raises(RangeError, match="not an array"):
        _ = init[0]
    assert session.cast("struct task_struct *", guest.init - 4096)[1] == init


def test_types_by_name() -> None:
    guest, session, kernel = live()
    assert session.at("struct task_struct", kernel.init_task).comm == "swapper/0"
    assert session.at(task_struct, guest.init).comm == "swapper/0"
    assert session.at("int", guest.member(guest.init, "pid")) == 0
    assert session.at("struct task_struct *", guest.member(guest.init, "real_parent")) == kernel.init_task
    assert session.cast("struct task_struct *", guest.init).comm == "swapper/0"
    assert session.cast("int", 0xFFFFFFFF) == -1
    assert repr(session.cast("enum state", 1)) == "SOME (1)"
    assert [session.sizeof(name) for name in ("task_struct", "struct list_head", "int", "char *")] == [4096, 16, 4, 8]
    assert session.sizeof(kernel.init_task) == session.sizeof(task_struct) == 4096
    for wrong in ("struct nope", "", "struct"):
        with pytest.raises(UnknownError, match="no type"):
            session.at(wrong, guest.init)
    with pytest.raises(UnknownError, match="cannot be cast"):
        session.cast("struct task_struct", 1)


def test_symbols() -> None:
    guest, _, kernel = live()
    assert "helper0" in repr(kernel.helper0)
    assert int(kernel.helper0) == guest.symbols["helper0"]
    assert kernel.linux_banner.startswith("Linux version")
    table = kernel.init_nsproxy
    assert isinstance(table, PerCpu)
    assert int(table[0]) == guest.word(guest.symbols["init_nsproxy"])
    assert repr(table).startswith("<kernel.init_nsproxy: long unsigned int of each CPU")
    with pytest.raises(UnknownError, match=r"as in kernel\.init_nsproxy\[0\]\.x"):
        _ = table.x
    with pytest.raises(RangeError):
        list(table)
    assert int(kernel._stext) == int(kernel["_stext"]) == guest.symbols["_stext"]
    with pytest.raises(UnknownError, match="the address of a symbol of no known type"):
        _ = kernel._stext.x
    assert "helper0" in kernel.names_("help")


@MACHINES
def test_helpers_take_them(machine: Machine) -> None:
    guest, session, kernel = live(machine)
    tasks = call(session, for_each_entry, (kernel.init_task.tasks, task_struct, "tasks"), {}).value
    assert [(task.pid, task.comm) for task in tasks] == [(task.pid, task.comm) for task in guest.tasks]
    assert repr(tasks[0]) == f"(struct task_struct *){guest.tasks[0].gva:#x}"
    assert session.at(list_head, kernel.init_task.tasks).next == kernel.init_task.tasks.next


def test_every_read_is_the_interpreters(monkeypatch: pytest.MonkeyPatch) -> None:
    _, session, kernel = live()
    init = kernel.init_task
    looked: list[Look] = []
    run = Session.run

    def noted(session: Session, look: Look, arguments: list[int]) -> tuple[list[Any], Outcome]:
        looked.append(look)
        return run(session, look, arguments)

    monkeypatch.setattr(Session, "run", noted)
    assert init.pid == init.low == 0
    assert init.comm == "swapper/0"
    assert len(looked) == 3
    _ = init.tasks, init.bytes, dir(init), session.sizeof(init)  # addresses alone
    assert len(looked) == 3


@settings(max_examples=25, deadline=None)
@given(words=st.lists(st.integers(0, (1 << 64) - 1), min_size=4, max_size=4), at=st.integers(0, 60))
def test_hostile_memory(words: list[int], at: int) -> None:
    guest, _, kernel = live()
    guest.words(guest.init + 8 * at, *words)
    for name in dir(kernel.init_task):
        with suppress(YamoriError):  # and nothing else
            assert repr(getattr(kernel.init_task, name)).isprintable()
    with suppress(YamoriError):
        assert isinstance(kernel.init_task.real_parent.real_parent, LiveStruct)
    assert repr(kernel.init_task)
