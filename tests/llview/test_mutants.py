"""Nothing in the pass, the verifier and the two runtimes can be left out or swapped without a test that fails.

The walkers have the same in ``tests/translation/test_walkers.py``.
"""

from __future__ import annotations

import ast
import inspect
import pickle
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import pytest
from tests.llview import test_verify
from tests.llview.mutation import calls, compiled, mutants
from tests.llview.native_programs import PAGE, PAGES
from tests.llview.sources import execute, guest, module
from tests.llview.sources import probe as source

from yamori.llview import ir, translate, verify
from yamori.llview.frontend import compile_probe
from yamori.llview.ir import BOOL, END, U32, U64, Const, IntType, Local, Place, Program, RowField
from yamori.llview.machine import Outcome
from yamori.llview.printer import show
from yamori.llview.verify import VerifyError

MOST_PROGRAMS = 12
"""Refused for one and the same reason, that are kept to try a verifier without it."""

# --- the verifier


def reason(error: VerifyError) -> int:
    """Return the line of the verifier that refused."""
    trace = error.__traceback__
    lines = []
    while trace:
        lines.append(trace.tb_lineno)
        trace = trace.tb_next
    return lines[-2]  # the last one is in refuse() itself


P = Place("x.py", 1)
ODD = IntType(7)
SLOTS = [ir.SlotSpec("member", "item", "it"), ir.SlotSpec("symbol", "here")]
LOCALS = {"word": U64, "small": U32, "failed": BOOL}


class Unknown(NamedTuple):
    """An expression that nobody knows."""

    type: IntType


def probe(*body: ir.Statement) -> Program:
    return Program(
        name="x", kind="probe", word_size=8, file="x.py", parameters=[], slots=list(SLOTS), locals=dict(LOCALS),
        row=[RowField("word", U64)], arrays={"seen": (U64, 4)}, body=list(body),
    )  # fmt: skip


def walker(parameters: tuple[IntType, IntType], result: IntType) -> Program:
    given = [Local(name, kind) for name, kind in zip(("root", "gva"), parameters, strict=True)]
    end = ir.Return(place=P, values=[Const(0, result)])
    return Program(
        name="x", kind="walker", word_size=0, file="x.py", parameters=given, results=[result], body=[end]
    )  # fmt: skip


def load(size: int, slot: int | None) -> list[ir.Statement]:
    both: dict[str, Any] = {"place": P, "fault": END, "address": Const(0, U64), "size": size, "slot": slot}
    return [ir.Page(target="page", **both), ir.LoadHost(target=Local("word", U64), page="page", **both)]


def assign(value: Any) -> ir.Statement:
    return ir.Assign(place=P, target=Local("word", U64), value=value)


def nested(label: str) -> ir.Statement:
    return ir.Block(place=P, label=label, body=[ir.Block(place=P, label=label, body=[])])


WRONG: list[tuple[Program, str]] = [
    (walker((U32, U64), U64), "first parameters are root and gva"),
    (walker((U64, U64), U32), "first result is a GPA"),
    (probe(load(8, None)[0]), "a translation without its load"),
    (probe(load(8, None)[0], assign(Const(0, U64))), "a translation without its load"),
    (probe(nested("twice")), "does not name one thing"),
    (probe(*load(8, 0)), "either a size or a slot"),
    (probe(*load(0, 1)), "only members are loaded"),
    (probe(ir.Emit(place=P, values=[Const(0, U64), Const(0, U64)])), "not as many values"),
    (probe(assign(ir.Cast(Const(0, ODD), U64))), "none of C's"),
    (
        probe(ir.LoadArray(place=P, fault=END, target=Local("small", U32), array="seen", at=Const(0, U64))),
        "another type",
    ),
    (probe(assign(Unknown(U64))), "is no expression"),
    (replace(probe(), row=[RowField(f"f{n}", U64) for n in range(65)]), "at most 64 fields"),
    (probe(ir.Attempt(place=P, label="try", failed=Local("small", U32), body=[])), "no truth value"),
]
"""Programs that are wrong in one thing, which nothing else in the verifier would stumble over."""


checked = verify.verify


@pytest.mark.parametrize(("program", "message"), WRONG, ids=[message for _, message in WRONG])
def test_one_wrong_thing_is_refused(program: Program, message: str) -> None:
    with pytest.raises(VerifyError, match=message):
        checked(program)


@cache
def refused() -> dict[int, list[bytes]]:
    """Return the programs that the verifier's own tests make it refuse, by the line that does."""
    found = defaultdict[int, list[bytes]](list)

    def watched(program: Program) -> Program:
        data = pickle.dumps(program)
        try:
            return verify.verify(program)
        except VerifyError as error:
            known = found[reason(error)]
            known[MOST_PROGRAMS - 1 :] = [data]  # the last one stays, too
            raise

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(test_verify, "verify", watched)
        patch.setattr(sys.modules[__name__], "checked", watched)
        tests = [test for name, test in vars(test_verify).items() if name.startswith("test_")]
        for test in calls(*tests, test_one_wrong_thing_is_refused):
            test()
    return found


def lets_through(data: bytes) -> bool:
    try:
        verify.verify(pickle.loads(data))  # noqa: S301  made above
    except VerifyError:
        return False
    except Exception:  # noqa: BLE001  it went on where it should have refused
        return True
    return True


def refusals() -> Iterator[int]:
    """Yield the lines of the verifier that refuse something."""
    for node in ast.walk(ast.parse(inspect.getsource(verify))):
        if isinstance(node, ast.Expr) and is_refusal(node):
            yield node.lineno


def is_refusal(node: ast.Expr) -> bool:
    match node:
        case ast.Expr(value=ast.Call(func=ast.Attribute(attr="refuse"))):
            return True
    return False


class Without(ast.NodeTransformer):
    """Drops the refusal in a line."""

    def __init__(self, line: int) -> None:
        self.line = line

    def visit_Expr(self, node: ast.Expr) -> ast.stmt:
        return ast.copy_location(ast.Pass(), node) if is_refusal(node) and node.lineno == self.line else node


def test_no_refusal_can_be_left_out() -> None:
    lines, programs = list(refusals()), refused()
    source = inspect.getsource(verify)
    left = []
    for line in lines:
        with compiled(verify, Without(line).visit(ast.parse(source))):
            if not any(lets_through(data) for data in programs[line]):
                left.append(source.splitlines()[line - 1].strip())
    assert not left, "\n".join(left)
    assert len(lines) > 40


# --- the pass

LOADS = source(
    """
for n in each(kernel.first):
    with attempt() as bad:
        if n.flag and n.word == 1001:
            emit(a=user_word(0x40000000, address_of(n)), c=n.name)
        else:
            emit(a=n.small, c=user_text(0x40000000, address_of(n.name), 5))
        emit(a=word_at(address_of(n) + n.small))
    if bad:
        trouble("bad", n, faulted=True)
for i in range(56):
    with attempt() as ended:
        found = text(base + ulong(i) * 67, 13)
        every: u64 = 0
        for at_ in range(13):
            every = every * 251 + found[at_]
        emit(a=every, b=1 if found == "ABC" else 0 if found == "ABCDEFGHIJ" else -1, c=found)
    if ended:
        trouble("ended", u64(i), faulted=True)
emit(a=word_at(base - 8 * gva_1x))
""",
    ", base: ulong, gva_1x: ulong",  # a parameter may have the name that the pass would give
)
BASES = (0x2000, (PAGES - 1) * PAGE + 0x801)
"""Of 56 texts, 67 bytes from one to the next: well inside of what is mapped, and up to its end. They begin at any byte
of a word, are of 0 to 13 bytes, and behind their NULs lies something else."""


def outcomes() -> list[tuple[str, Outcome]]:
    """Return what a program of many loads becomes, but for the names, and what it does."""
    found = []
    for word_size in (4, 8):
        program = verify.verify(translate.translate(compile_probe(module(LOADS).run, word_size)))
        text = re.sub(r"_\d+x\b", "_x", show(program))
        for base in BASES:
            where = guest(word_size)
            for i in range(56):
                length = i % 14
                for at, byte in enumerate(bytes(range(65, 65 + length)) + b"\0\1\0" + bytes(range(97, 107))):
                    where.put(where.kernel + base + i * 67 + at, byte, 1)
            found.append((text, execute(program, where, (where.kernel + base, 1))))
    return found


EQUIVALENT = {
    "self.word = program.word_size or 8": "walkers, which have no word, load nothing by GVA",
    "return value if value.type == kind": "a cast that is not needed does nothing",
    'ir.Compare("==", value, ir.Const(0, kind)) if kind == U8': "the other way finds a byte's NUL, too",
    'inverted = ir.Binary("^", value, ir.Const((1 << kind.bits) - 1': "only the bytes' top bits are looked at",
    'negated = ir.Binary("-", ir.Const(0, kind), nuls, kind): value 0': "the lowest bit is none of those looked at",
    'first = ir.Binary(">>", ir.Binary("&", nuls, negated, kind), ir.Const(7, kind), kind): value 7 becomes 6': (
        "the bit more is one of the NUL's"
    ),
    "last = [_leave(place, label)] if size == 1 else": "the byte that is stored once more is the NUL itself",
    "if not isinstance(address, ir.Local):": "an address may be worked out twice, or kept although it has a name",
    "return [: without ir.If(place=place, condition=ir.Compare('>', left, most)": "the front end asks for no more",
    'condition=ir.Compare(">", left, most)': "the front end asks for no more than the buffer holds",
}
"""Mutants that do the same, by how their line begins, and why they do."""


def test_the_pass_can_omit_nothing() -> None:
    sound = outcomes()
    assert all(outcome.troubles and outcome.events for _, outcome in sound)
    assert [len(outcome.rows) for _, outcome in sound] == [62, 36, 62, 36]
    texts = [bytes(range(65, 65 + i % 14)) for i in range(56)]
    assert [row[2] for row in sound[0][1].rows[5:61]] == texts == [row[2] for row in sound[2][1].rows[5:61]]
    survivors = []
    count = 0
    for what, tree in mutants(translate):
        with compiled(translate, tree):
            try:
                made = outcomes()
            except Exception:  # noqa: BLE001  the verifier's, or any other, fails a test
                made = []
        same = [(one[0] == other[0], one[1] == other[1]) for one, other in zip(sound, made, strict=False)]
        count += not all(text for text, _ in same) or not same
        if same and all(did for _, did in same) and not all(text for text, _ in same):
            survivors.append(what)
    survivors = [what for what in survivors if not what.startswith(tuple(EQUIVALENT))]
    assert not survivors, "\n".join([str(count), *survivors])
    assert count > 80
