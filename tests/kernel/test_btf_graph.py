"""What BTF says types are made of, against the encoder of ``test_btf``."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernel.test_btf import (
    ARRAY,
    CONST,
    DATASEC,
    FUNC,
    FWD,
    PROTO,
    PTR,
    STRUCT,
    TYPEDEF,
    UNION,
    VAR,
    VOLATILE,
    Blob,
    Field,
)

from yamori.errors import ProfileError
from yamori.kernel import btf
from yamori.kernel.types import MOST_MEMBERS, CType, Described, Member, TypeGraph


def kernel() -> Blob:
    """Return a little kernel whose types lead to each other."""
    blob = Blob()
    ulong = blob.integer("long unsigned int", 8)
    integer = blob.integer("int", 4, signed=True)
    char = blob.integer("char", 1, signed=True)
    blob.add(TYPEDEF, "u8", char)
    boolean = blob.add(1, "_Bool", 1, [4 << 24 | 8])
    task = blob.count + 2  # of the structure behind the pointer
    pointer = blob.add(PTR, size=task)
    inner = blob.count + 3
    blob.struct(
        "task_struct",
        128,
        Field("pid", integer, 0),
        Field("", inner, 64),
        Field("comm", blob_array := blob.count + 4, 128),
        Field("class", ulong, 256),
        Field("state", blob.count + 5, 320),
        Field("not a name", ulong, 384),
        Field("low", integer, 448, 3),
        Field("on", boolean, 480),
        flag=True,
    )
    assert blob.count == task
    union = blob.struct("", 8, Field("parent", pointer, 0), Field("word", ulong, 0), kind=UNION)
    assert blob.struct("", 16, Field("", union, 0), Field("last", integer, 64)) == inner
    assert blob.array(char, 16) == blob_array
    enum = blob.enum("state", signed=True, RUNNING=0, DEAD=-1)
    const = blob.add(CONST, size=char)
    proto = blob.add(PROTO, size=integer, words=[0, pointer, 0, blob.add(PTR, size=const)], vlen=2)
    blob.add(PTR, size=blob.add(CONST, size=blob.add(PTR, size=proto)))
    blob.add(FUNC, "schedule", proto)
    blob.struct("ops", 8, Field("call", blob.add(PTR, size=proto), 0), Field("any", blob.add(PTR), 64))
    blob.struct("holder", 8, Field("to", blob.add(PTR, size=blob.add(FWD, "nowhere")), 0), Field("u", union, 64))
    blob.add(TYPEDEF, "atomic_t", blob.struct("", 4, Field("counter", integer, 0)))
    blob.add(PTR, size=blob.add(FWD, "task_struct"))
    blob.struct("late", 8, Field("task", blob.count, 0), Field("volatile", blob.add(VOLATILE, size=enum), 64))
    variable = blob.add(VAR, "runqueues", task, [1])
    blob.add(DATASEC, ".data..percpu", 64, [variable, 32, 64], vlen=1)
    blob.add(VAR, "init_task", task, [1])
    return blob


@pytest.fixture
def graph() -> TypeGraph:
    types = kernel().parse()
    assert isinstance(types, Described)
    return types.graph


def found(graph: TypeGraph, name: str) -> CType:
    kind = graph.find(name)
    assert kind is not None, name
    return kind


def of(graph: TypeGraph, struct: str, name: str) -> CType:
    field = graph.field(found(graph, struct), name)
    assert field is not None, name
    return field.type


@pytest.mark.parametrize(
    ("name", "kind", "size", "spelled"),
    [
        ("struct task_struct", "struct", 128, "struct task_struct"),
        ("task_struct", "struct", 128, "struct task_struct"),
        ("unsigned  long", "integer", 8, "long unsigned int"),
        ("int", "integer", 4, "int"),
        ("char", "char", 1, "char"),
        ("u8", "integer", 1, "u8"),
        ("bool", "bool", 1, "_Bool"),
        ("enum state", "enum", 4, "enum state"),
        ("state", "enum", 4, "enum state"),
        ("atomic_t", "struct", 4, "atomic_t"),
        ("struct task_struct **", "pointer", 8, "struct task_struct **"),
        ("void *", "pointer", 8, "void *"),
        ("void", "void", 0, "void"),
    ],
)
def test_types_by_name(graph: TypeGraph, name: str, kind: str, size: int, spelled: str) -> None:
    assert found(graph, name)[:3] == (kind, spelled, size)


@pytest.mark.parametrize(
    "name", ["", "*", "struct", "struct ", "union task_struct", "nope", "enum task_struct", "int" + "*" * 50]
)
def test_types_that_there_are_not(graph: TypeGraph, name: str) -> None:
    assert graph.find(name) is None


def test_members(graph: TypeGraph) -> None:
    task = found(graph, "task_struct")
    assert graph.members(task) == ["pid", "parent", "word", "last", "comm", "class", "state", "low", "on"]
    places = {name: field.member for name in graph.members(task) if (field := graph.field(task, name))}
    assert places["parent"] == places["word"] == Member(8, 8, provenance="btf")
    assert places["last"] == Member(16, 4, signed=True, provenance="btf")
    assert places["low"] == Member(56, 4, signed=True, bits=3, provenance="btf")
    assert places["comm"].stride == 1
    assert graph.field(task, "nope") is None
    assert graph.members(found(graph, "int")) == graph.members(found(graph, "task_struct *")) == []
    assert graph.field(found(graph, "int"), "x") is None


def test_what_pointers_and_arrays_lead_to(graph: TypeGraph) -> None:
    task = found(graph, "task_struct")
    assert graph.target(of(graph, "task_struct", "parent")) == task
    assert graph.target(found(graph, "task_struct *")) == task
    assert graph.target(graph.target(found(graph, "task_struct **"))) == task
    comm = of(graph, "task_struct", "comm")
    assert (comm.kind, comm.name, comm.length, graph.target(comm).name) == ("array", "char [16]", 16, "char")
    assert graph.target(of(graph, "ops", "any")).kind == graph.target(found(graph, "void *")).kind == "void"
    assert graph.target(task).kind == "void"
    nowhere = graph.target(of(graph, "holder", "to"))
    assert (nowhere.kind, nowhere.name) == ("incomplete", "struct nowhere")
    assert graph.target(of(graph, "late", "task")) == task  # a declaration elsewhere is the same structure


def test_how_c_writes_them(graph: TypeGraph) -> None:
    assert of(graph, "ops", "call").name == "int (*)(struct task_struct *, const char *)"
    assert graph.target(of(graph, "ops", "call")).kind == "function"
    schedule = graph.variable("schedule")
    assert schedule is not None
    assert schedule.name == "int (struct task_struct *, const char *)"
    assert of(graph, "late", "volatile").name == "volatile enum state"
    assert of(graph, "holder", "u")[:2] == ("union", "union")


def test_names_of_values(graph: TypeGraph) -> None:
    state = found(graph, "enum state")
    assert [graph.enumerator_name(state, value) for value in (0, -1, 7)] == ["RUNNING", "DEAD", None]
    assert graph.enumerator_name(found(graph, "int"), 0) is None


def test_values_below_zero_where_nothing_marks_them() -> None:
    blob = Blob()
    blob.enum("old", MINUS=-1)
    graph = blob.parse(8).graph
    assert graph.enumerator_name(found(graph, "old"), 0xFFFFFFFF) == "MINUS"


def test_variables(graph: TypeGraph) -> None:
    assert graph.variable("init_task") == graph.variable("runqueues") == found(graph, "task_struct")
    assert graph.variable("nope") is None
    assert graph.is_percpu("runqueues")
    assert not graph.is_percpu("init_task")


# --- the guest's word


def test_chains_without_end() -> None:
    blob = Blob()
    blob.add(TYPEDEF, "round", 2)
    blob.add(CONST, size=1)
    blob.add(PTR, size=3)
    blob.add(ARRAY, words=[4, 0, 0xFFFFFFFF])
    blob.add(PROTO, size=5, words=[0, 5] * 40, vlen=40)
    blob.struct("s", 8, *(Field(f"m{n}", n, 0) for n in range(1, 6)))
    graph = blob.parse(8).graph
    assert found(graph, "round").kind == "incomplete"
    for name in graph.members(found(graph, "s")):
        kind = of(graph, "s", name)
        assert len(kind.name) < 1000
        graph.target(graph.target(kind))


def test_structures_within_themselves() -> None:
    blob = Blob()
    blob.struct("", 8, Field("", 1, 0), Field("", 2, 0), Field("a", 2, 0))
    blob.struct("s", 8, *(Field("", which, 0) for which in (1, 2, 1, 2)), Field("b", 2, 0))
    graph = blob.parse(8).graph
    assert graph.members(found(graph, "s")) == ["a", "b"]


def test_names_and_members_without_measure() -> None:
    blob = Blob()
    integer = blob.integer("int", 4)
    fields = [Field(f"m{number}", integer, 0) for number in range(MOST_MEMBERS + 100)]
    blob.struct("many", 4, Field("x" * 5000, integer, 0), Field("\x1b[2J", integer, 0), Field("é", integer, 0), *fields)
    blob.struct("y" * 5000, 4, kind=STRUCT)
    graph = blob.parse(8).graph
    members = graph.members(found(graph, "many"))
    assert len(members) == MOST_MEMBERS
    assert all(len(name) < 20 for name in members)


def test_anonymous_structures_by_the_hundred_thousand() -> None:
    blob = Blob()
    integer = blob.integer("int", 4)
    empty = [blob.struct("", 0) for _ in range(100)]
    words = [word for number in range(100_000) for word in (0, empty[number % 100], 0)]
    blob.add(STRUCT, "s", 4, [*words, blob.name("last"), integer, 0], vlen=100_001)
    graph = blob.parse(8).graph
    begin = time.process_time()
    assert graph.members(found(graph, "s")) == []  # beyond what is looked at
    assert time.process_time() - begin < 1


def ask_everything(graph: TypeGraph) -> None:
    kinds = [
        kind
        for name in ("task_struct", "ops", "late", "u8", "state", "atomic_t", "void **")
        if (kind := graph.find(name))
    ]
    kinds += [kind for name in ("runqueues", "schedule") if (kind := graph.variable(name))]
    graph.is_percpu("runqueues")
    for _ in range(4):
        for kind in kinds:
            assert kind.size >= 0
            assert kind.name.isprintable()
            graph.enumerator_name(kind, 0)
        fields = [field for kind in kinds for name in graph.members(kind) if (field := graph.field(kind, name))]
        kinds = [*map(graph.target, kinds), *(field.type for field in fields)][:60]


KERNEL = kernel().build()


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(24, len(KERNEL) - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_flipped_bytes(changes: list[tuple[int, int]]) -> None:
    blob = bytearray(KERNEL)
    for at, value in changes:
        blob[at] = value
    try:
        types = btf.parse(bytes(blob))
    except ProfileError:
        return
    ask_everything(types.graph)
