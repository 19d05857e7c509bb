"""What `explain` and the printer say of programs: each load at its line, and what the pass put in its place."""

from __future__ import annotations

import copy
import inspect
import types
from collections.abc import Iterator
from typing import Any, cast

import pytest
from msgspec import structs

from yamori.llview import flow, ir
from yamori.llview.explain import Function, Load, explain, walks
from yamori.llview.frontend import compile_probe
from yamori.llview.ir import Place, Program, Statement
from yamori.llview.language import (
    CharArray,
    Kernel,
    Ptr,
    Struct,
    attempt,
    emit,
    exists,
    helper,
    local_array,
    probe,
    s32,
    stop,
    text,
    torn,
    trouble,
    u32,
    u64,
    ulong,
    user_text,
    user_word,
)
from yamori.llview.machine import Outcome
from yamori.llview.printer import expression, line, show
from yamori.llview.translate import translate
from yamori.llview.verify import verify
from yamori.records import Row


class task_struct(Struct):  # noqa: N801  a name of the kernel
    pid: s32
    flags: u32
    comm: CharArray
    real_parent: Ptr[task_struct]
    mm: ulong


class Globals(Kernel):
    init_task: task_struct
    jiffies: ulong


class One(Row, frozen=True):
    pid: int
    comm: str
    word: int | None


@helper
def parent_pid(task: task_struct) -> s32:
    return task.real_parent.pid


@probe(row=One)
def example(kernel: Globals, most: u32) -> None:
    task = kernel.init_task
    stack = local_array(u64, 4)
    stack[1] = kernel.jiffies
    for number in range(most):
        with attempt() as failed:
            stack[0] = user_word(task.mm, ulong(stack[number]))
        if failed:
            trouble("no word", task, faulted=True)
            continue
        if task.pid == 7:
            torn("seven", task)
            break
    name = user_text(0x1000, 8, 16)
    if name == "A" and not exists(task.flags):
        stop("an A", task)
    pids = parent_pid(task) + parent_pid(task.real_parent)
    emit(pid=pids, comm=text(task.mm, 8), word=stack[0] if exists(task.flags) else None)
    emit(pid=task.pid, comm=task.comm)


def programs(word_size: int = 8) -> tuple[Program, Program]:
    program = compile_probe(example, word_size)
    return program, verify(translate(copy.deepcopy(program)))


def loads(functions: list[Function]) -> Iterator[tuple[str, Load]]:
    for function in functions:
        for one in function.lines:
            yield from ((one.text.strip(), load) for load in one.loads)


@pytest.fixture(scope="module", params=[4, 8])
def functions(request: pytest.FixtureRequest) -> list[Function]:
    return explain(*programs(request.param))


def test_functions_are_shown_whole(functions: list[Function]) -> None:
    assert [function.name for function in functions] == ["example", "parent_pid"]
    for function, python in zip(functions, (example.function, parent_pid.function), strict=True):
        source = inspect.getsource(cast("types.FunctionType", python)).split("\n", 1)[1]  # without the decorator
        assert "\n".join(one.text for one in function.lines) + "\n" == source
        assert function.file == __file__
        assert function.lines[0].number == python.__code__.co_firstlineno + 1


def test_every_load_stands_at_its_line(functions: list[Function]) -> None:
    found = [(source.partition(" ")[0], load.what, load.root, load.is_text) for source, load in loads(functions)]
    word = "task_struct.mm"
    assert sorted(found) == sorted(
        [
            ("stack[1]", "jiffies", "kernel", False),
            ("stack[0]", word, "kernel", False),
            ("stack[0]", f"u{8 * _word(functions)}", "user", False),
            ("if", "task_struct.pid", "kernel", False),
            ("name", "text", "user", True),
            ("pids", "task_struct.real_parent", "kernel", False),
            ("return", "task_struct.real_parent", "kernel", False),
            ("return", "task_struct.pid", "kernel", False),
            ("emit(pid=pids,", word, "kernel", False),
            ("emit(pid=pids,", "text", "kernel", True),
            ("emit(pid=task.pid,", "task_struct.pid", "kernel", False),
            ("emit(pid=task.pid,", "task_struct.comm", "kernel", True),
        ]
    )
    assert {load.times for source, load in loads(functions) if source.startswith("return")} == {2}


def _word(functions: list[Function]) -> int:
    return next(load.size for _, load in loads(functions) if load.what == "jiffies")


def test_what_was_inserted_is_a_page_and_a_load_through_it(functions: list[Function]) -> None:
    for _, load in loads(functions):
        page, host, *rest = load.inserted
        handle = page.partition(" = page(")[0]
        assert f"load.host({handle}, " in host
        assert ("page(kernel, " in page) == (load.root == "kernel")
        assert bool(rest) == load.is_text


def test_as_many_loads_as_the_front_end_wrote() -> None:
    program, translated = programs()
    written = [one for one in flow.walk(program.body) if isinstance(one, ir.LoadVirt | ir.CopyVirt)]
    assert sum(load.times for _, load in loads(explain(program, translated))) == len(written)


def test_source_that_is_gone_is_no_error() -> None:
    program, translated = programs()
    for both in (program, translated):
        for statement in flow.walk(both.body):
            statement.place = Place("/nowhere/gone.py", 3)
    assert explain(program, translated) == []


def test_walks() -> None:
    events = [("P", 1, 8), ("P", 2, 8), ("V", 3, 8), ("V", 4, 8), ("P", 5, 8), ("V", 6, 1)]
    outcome = Outcome(columns=[[1]], count=1, loads=3, faults=2, events=events)  # type: ignore[arg-type]  # mypy widens the list
    assert walks(outcome) == (1, 3, 2, 2, 3)
    assert walks(Outcome(columns=[], count=0)) == (0, 0, 0, 0, 0)


# --- the printer


def test_every_statement_has_a_line() -> None:
    program, translated = programs()
    shown = show(program)
    for one in flow.walk(program.body):
        assert line(program, one) in shown
    assert "load.virt(kernel, " in shown
    assert "copy.virt(root_" in shown
    shown = show(translated)
    assert "load.virt" not in shown
    assert "copy.virt" not in shown
    assert shown.startswith("probe example(most: u32), 64-bit guests\n    slot 0: symbol init_task\n")
    assert "    row word: u64 or none\n" in shown
    assert "member task_struct.flags, optional" in shown
    assert "trouble 'no word', " in shown
    assert ", faulted\n" in shown
    assert shown.count("\n") == shown.rstrip().count("\n") + 1


def test_every_kind_of_statement_can_be_printed() -> None:
    kinds = {kind for kind in vars(ir).values() if isinstance(kind, type) and issubclass(kind, Statement)}
    kinds -= {ir.Statement, ir.Faulting}
    program = Program(name="one", kind="walker", word_size=0, file="x", parameters=[], messages=["why"])
    made: dict[str, Any] = {"message": 0, "values": [], "body": [], "then": [], "slot": None}
    made["failed"] = ir.Local("f", ir.BOOL)
    for kind in kinds:
        values = {
            field.name: made.get(field.name, ir.Local("x", ir.U64))
            for field in structs.fields(kind)
            if field.required or field.name == "slot"
        }
        values["place"] = Place("x", 1)
        printed = line(program, kind(**values))
        assert printed
        assert "\n" not in printed


def test_expressions() -> None:
    program = Program(
        name="one", kind="walker", word_size=0, file="x", parameters=[], slots=[ir.SlotSpec("symbol", "s")]
    )
    local = ir.Local("x", ir.U32)
    value = ir.Binary("+", ir.Cast(local, ir.U64), ir.Const(4097, ir.U64), ir.U64)
    assert (
        expression(program, ir.Not(ir.Compare("<", value, ir.SlotValue(0, "size"))))
        == "not ((u64(x) + 0x1001) < [s].size)"
    )
    assert expression(program, None) == "none"
