"""Random programs, as source text: the interpreter against a model that runs the same text by Python itself.

The model gives every variable a ``Number`` of its own that wraps, and knows nothing of the front end: the rules of
``docs/llview.md`` (arithmetic in a type that holds both operands, 32 bits at least) are written anew in a few lines.
"""

from __future__ import annotations

import ast
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.llview.sources import PRELUDE, execute, guest, probe, program

from yamori.llview.ir import BOOL, S8, S16, S32, S64, U8, U16, U32, U64, IntType

TYPES = {"u8": U8, "u16": U16, "u32": U32, "u64": U64, "s8": S8, "s16": S16, "s32": S32, "s64": S64}
TICKS = 300


class Fault(Exception):
    """A load that faults, or ``stop``."""


class Spent(Exception):
    """The model's budget is spent."""


class Number:
    """A C integer."""

    def __init__(self, value: int, kind: IntType) -> None:
        self.kind = kind
        self.value = kind.wrap(int(value))

    def to(self, kind: IntType) -> Number:
        return Number(self.value != 0 if kind == BOOL else self.value, kind)

    def __bool__(self) -> bool:
        return self.value != 0


def common(left: IntType, right: IntType) -> IntType:
    """The smallest type of 32 bits or more that holds all of both."""
    low = min(-(1 << kind.bits - 1) if kind.signed else 0 for kind in (left, right))
    high = max((1 << kind.bits - kind.signed) - 1 for kind in (left, right))
    for kind in (U32, S32, S64) if low < 0 else (U32, U64):
        if kind.wrap(low) == low and kind.wrap(high) == high:
            return kind
    raise AssertionError((left, right))


def binary(symbol: str, left: Number, right: Number) -> Number:
    if symbol in {"<<", ">>"}:
        kind = common(left.kind, left.kind)
        if symbol == "<<":
            return Number(left.value << right.value if right.value < kind.bits else 0, kind)
        return Number(left.value >> right.value, kind)
    kind = common(left.kind, right.kind)
    if left.kind == right.kind == BOOL and symbol in {"&", "|", "^"}:
        kind = BOOL
    one, other = left.to(kind).value, right.to(kind).value
    result = {
        "+": one + other, "-": one - other, "*": one * other, "&": one & other, "|": one | other, "^": one ^ other,
    }.get(symbol)  # fmt: skip
    if result is None:
        result = one // other if symbol == "//" else one % other
    return Number(result, kind)


def compare(symbol: str, left: Number, right: Number) -> Number:
    one, other = left.value, right.value
    found = {
        "==": one == other, "!=": one != other, "<": one < other, "<=": one <= other, ">": one > other,
        ">=": one >= other,
    }  # fmt: skip
    return Number(found[symbol], BOOL)


class Writer:
    """Draws a program twice: in the language, and as Python on ``Number``."""

    def __init__(self, seed: int) -> None:
        self.numbers = random.Random(seed)
        self.lines: list[str] = []
        self.model: list[str] = []
        self.depth = 0
        self.left = 25
        self.kinds: dict[str, str] = {}
        self.loops = 0
        self.attempts = 0

    def pick(self, options: Any) -> Any:
        return self.numbers.choice(list(options))

    def line(self, text: str, model: str = "") -> None:
        self.lines.append("    " * self.depth + text)
        self.model.append("    " * self.depth + (model or text))

    # --- expressions: (text, model, type)

    def number(self, kind: str, depth: int = 2) -> tuple[str, str]:
        """An expression that is converted to a type."""
        text, model, own = self.expression(depth)
        return (text, model) if own == kind else (f"{kind}({text})", f"{model}.to({kind})")

    def expression(self, depth: int) -> tuple[str, str, str]:
        way = self.pick(["name", "const", "binary", "binary", "shift", "divide", "if", "call", "load", "unary", "flag"])
        if depth == 0:
            way = self.pick(["name", "const"])
        return getattr(self, f"_{way}")(depth - 1)  # type: ignore[no-any-return]

    def _name(self, depth: int) -> tuple[str, str, str]:
        name = self.pick(self.kinds)
        return name, name, self.kinds[name]

    def _const(self, depth: int) -> tuple[str, str, str]:
        kind = self.pick(TYPES)
        value = TYPES[kind].wrap(self.pick([0, 1, 2, 3, 7, 31, 32, 63, 64, 127, 128, 255, 1 << 31, (1 << 63) - 1, -1]))
        return f"{kind}({value})", f"Number({value}, {kind})", kind

    def _binary(self, depth: int) -> tuple[str, str, str]:
        kind = self.pick(TYPES)
        symbol = self.pick("+-*&|^")
        (one, first), (other, second) = self.number(kind, depth), self.number(kind, depth)
        return f"({one} {symbol} {other})", f"binary({symbol!r}, {first}, {second})", promoted(kind)

    def _shift(self, depth: int) -> tuple[str, str, str]:
        kind = self.pick(TYPES)
        symbol = self.pick(["<<", ">>"])
        (one, first), (other, second) = self.number(kind, depth), self.number("u8", depth)
        return f"({one} {symbol} {other})", f"binary({symbol!r}, {first}, {second})", promoted(kind)

    def _divide(self, depth: int) -> tuple[str, str, str]:
        kind, symbol, by = self.pick(["u8", "u32", "u64"]), self.pick(["//", "%"]), self.pick([1, 3, 10, 200])
        one, first = self.number(kind, depth)
        return f"({one} {symbol} {by})", f"binary({symbol!r}, {first}, Number({by}, {kind}))", promoted(kind)

    def _if(self, depth: int) -> tuple[str, str, str]:
        kind = self.pick(TYPES)
        test, tested = self.condition(depth)
        (one, first), (other, second) = self.number(kind, depth), self.number(kind, depth)
        return f"({one} if {test} else {other})", f"({first} if {tested} else {second})", kind

    def _call(self, depth: int) -> tuple[str, str, str]:
        (one, first), (other, second) = self.number("u32", depth), self.number("s64", depth)
        if self.pick([True, False]):
            return f"mixed({one}, y={other})", f"mixed({first}, {second})", "s64"
        return f"mixed({one})", f"mixed({first}, Number(-7, s64))", "s64"

    def _load(self, depth: int) -> tuple[str, str, str]:
        member, kind = self.pick([("small", "u8"), ("number", "s32"), ("__state", "u32"), ("inside.right", "s16")])
        return f"node.{member}", f"load(node, {member!r})", kind

    def _unary(self, depth: int) -> tuple[str, str, str]:
        kind = self.pick(TYPES)
        one, first = self.number(kind, depth)
        wide = promoted(kind)
        if self.pick([True, False]):
            return f"(-{one})", f"binary('-', Number(0, {wide}), {first})", wide
        return f"(~{one})", f"binary('^', {first}, Number(-1, {wide}))", wide

    def _flag(self, depth: int) -> tuple[str, str, str]:
        test, tested = self.condition(depth)
        return f"u8({test})", f"{tested}.to(u8)", "u8"

    def condition(self, depth: int) -> tuple[str, str]:
        if depth > 0 and self.numbers.random() < 0.4:
            (one, first), (other, second) = self.condition(depth - 1), self.condition(depth - 1)
            word = self.pick(["and", "or"])
            return f"({one} {word} {other})", f"({first} {word} {second})"
        if self.numbers.random() < 0.2:
            one, first = self.condition(depth - 1) if depth > 0 else ("True", "Number(1, BOOL)")
            return f"(not {one})", f"Number(not {first}, BOOL)"
        kind, symbol = self.pick(TYPES), self.pick(["==", "!=", "<", "<=", ">", ">="])
        parts = [self.number(kind, max(depth, 0)) for _ in range(self.pick([2, 2, 3]))]
        text = f" {symbol} ".join(part for part, _ in parts)
        # Python itself looks at what is right of a comparison only where the left one holds.
        names = [f"(t{n} := {part})" for n, (_, part) in enumerate(parts)]
        model = f"compare({symbol!r}, {names[0]}, {names[1]})"
        if len(parts) == 3:
            model = f"({model} and compare({symbol!r}, t1, {names[2]}))"
        return f"({text})", model

    # --- statements

    def body(self, count: int) -> None:
        self.depth += 1
        known = dict(self.kinds)
        for _ in range(count):
            self.left -= 1
            simple = ["assign", "assign", "augment", "emit", "swap", "jump"]
            nested = ["branch", "count", "items", "attempt", "squares"]
            getattr(self, f"_{self.pick(simple + nested if self.left > 0 and self.depth < 4 else simple)}_")()
        self.kinds = known
        self.depth -= 1

    def _assign_(self) -> None:
        name = self.pick(self.kinds)
        text, model = self.number(self.kinds[name])
        self.line(f"{name} = {text}", f"{name} = {model}")

    def _augment_(self) -> None:
        name = self.pick(self.kinds)
        kind, symbol = self.kinds[name], self.pick("+-*&|^")
        text, model = self.number(kind)
        self.line(f"{name} {symbol}= {text}", f"{name} = binary({symbol!r}, {name}, {model}).to({kind})")

    def _swap_(self) -> None:
        one, other = self.pick("ab"), self.pick("cd")
        self.line(
            f"{one}, {other} = u8({other}), {self.kinds[other]}({one})",
            f"{one}, {other} = {other}.to(u8), {one}.to({self.kinds[other]})",
        )

    def _emit_(self) -> None:
        (text, model), (test, tested) = self.number("u64"), self.condition(1)
        other, second = self.number("s64")
        self.line(
            f"emit(a={text}, b={other} if {test} else None)", f"emit({model}, lambda: {second}, lambda: {tested})"
        )

    def _jump_(self) -> None:
        test, tested = self.condition(1)
        word = self.pick(["break", "continue", "return"]) if self.loops else self.pick(["return", "stop('x')"])
        self.line(f"if {test}:", f"if {tested}:")
        self.line(f"    {word}")

    def _branch_(self) -> None:
        test, tested = self.condition(2)
        self.line(f"if {test}:", f"if {tested}:")
        self.body(self.pick([1, 2]))
        if self.pick([True, False]):
            self.line("else:")
            self.body(1)

    def loop(self, text: str, model: str) -> None:
        self.line(text, model)
        self.loops += 1
        self.body(self.pick([1, 2, 3]))
        self.loops -= 1

    def _count_(self) -> None:
        last, wanted = self.number("u8", 1)
        self.line(f"last = {last} & 3", f"last = binary('&', {wanted}, Number(3, u8))")
        self.loop("for e in range(last):", "for e in counted(last):")

    def _items_(self) -> None:
        self.loop("for node in each(node):", "for node in each(node):")
        self.line("node = kernel.first", "node = 0")

    def _squares_(self) -> None:
        last, wanted = self.number("u32", 1)
        self.loop(f"for d in squares({last}):", f"for d in squares({wanted}):")

    def _attempt_(self) -> None:
        self.attempts += 1
        failed = f"failed_{self.attempts}"
        self.line(f"with attempt() as {failed}:")
        outside, self.loops = self.loops, 0  # a `with` of the model cannot be left by a jump
        self.body(self.pick([1, 2]))
        self.depth += 1
        self.line(self.pick(["stop('x')", "pass"]))
        self.depth -= 1
        self.loops = outside
        self.line(f"e = u32(1) if {failed} else u32(0)", f"e = Number({failed}.it, u32)")


def promoted(kind: str) -> str:
    return {"u8": "u32", "u16": "u32", "s8": "s32", "s16": "s32"}.get(kind, kind)


HELPERS = """
@helper
def mixed(x: u32, y: s64 = -7) -> s64:
    if x & 1 == 1:
        x >>= 1
        return y - x
    for i in range(3):
        y += i
        if y > 5:
            return y
    return s64(x)


@helper
def squares(n: u32) -> Iterator[u64]:
    i: u64 = 0
    while i < n & 3:
        i += 1
        if i == 2:
            continue
        yield i * i


"""


class Model:
    """What the words of the language do, for the model."""

    def __init__(self, count: int) -> None:
        self.rows: list[tuple[int, int | None]] = []
        self.count = count

    def emit(self, a: Number, b: Any, test: Any) -> None:
        self.rows.append((a.value, b().value if test() else None))

    def load(self, node: int, member: str) -> Number:
        value = {"small": 200 + node, "number": -node, "__state": node, "inside.right": -7 - node}[member]
        return Number(value, {"small": U8, "number": S32, "__state": U32, "inside.right": S16}[member])

    def each(self, node: int) -> Iterator[int]:
        yield from range(node, self.count)

    @staticmethod
    def counted(last: Number) -> Iterator[Number]:
        for number in range(last.value):
            yield Number(number, U32)

    @staticmethod
    def squares(n: Number) -> Iterator[Number]:
        for i in range(1, (n.value & 3) + 1):
            if i != 2:
                yield Number(i * i, U64)

    @staticmethod
    def mixed(x: Number, y: Number) -> Number:
        if x.value & 1:
            return Number(y.value - (x.value >> 1), S64)
        for i in range(3):
            y = Number(y.value + i, S64)
            if y.value > 5:
                return y
        return Number(x.value, S64)

    @staticmethod
    def stop(why: str) -> None:
        raise Fault(why)

    @contextmanager
    def attempt(self) -> Iterator[Any]:
        class Failed:
            it = 0

        failed = Failed()
        try:
            yield failed
        except Fault:
            failed.it = 1


def drawn(seed: int) -> tuple[str, str]:
    """A program in the language, and its model."""
    writer = Writer(seed)
    start = {"a": ("u8", 250), "b": ("u8", 3), "c": ("s32", -9), "d": ("u64", 1 << 40), "e": ("u32", 5)}
    for name, (kind, value) in start.items():
        writer.kinds[name] = kind
        writer.line(f"{name}: {kind} = {value}", f"{name} = Number({value}, {kind})")
    writer.line("node = kernel.first", "node = 0")
    writer.depth = -1
    writer.body(8)
    writer.depth = 0
    writer.line("emit(a=u64(a) + u64(b) + u64(c) + d + e)", "emit(total(a, b, c, d, e), None, lambda: False)")
    model = "def model():\n" + "\n".join("    " + line for line in writer.model)
    return HELPERS + probe("\n".join(writer.lines)), model


def total(*values: Number) -> Number:
    return Number(sum(value.value for value in values), U64)


def expected(text: str, count: int) -> tuple[list[tuple[int, int | None]], bool]:
    """What the model gives: rows, and whether it ended by a fault."""
    model = Model(count)
    names: dict[str, Any] = {**TYPES, "BOOL": BOOL, "Number": Number, "binary": binary, "compare": compare}
    words = ("emit", "load", "each", "counted", "squares", "mixed", "stop", "attempt")
    names |= {word: getattr(model, word) for word in words} | {"total": total}
    exec(text, names)  # noqa: S102  written above
    try:
        names["model"]()
    except Fault:
        return model.rows, True
    return model.rows, False


@settings(max_examples=120, deadline=None)
@given(st.integers(0, 1 << 64), st.sampled_from([4, 8]))
def test_interpreter_does_as_python_does(seed: int, word_size: int) -> None:
    text, model = drawn(seed)
    rows, faulted = expected(model, 4)
    outcome = execute(program(text, word_size), guest(word_size, 4))
    assert [row[:2] for row in outcome.rows] == rows, text
    assert (outcome.ended is not None) == faulted, text


def test_the_programs_are_not_all_alike() -> None:
    texts = [drawn(seed)[0] for seed in range(50)]
    for word in ("for node in each", "for d in squares", "with attempt()", "range(last)", "break", "continue", "and"):
        assert sum(word in text for text in texts) > 5, word
    assert all(ast.parse(PRELUDE + text) for text in texts)
