"""What Python has and the language has not: one clear message each, at its place, with what to write instead."""

# ruff: noqa: E501  tables of programs: one a line
from __future__ import annotations

import ast
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.llview.sources import PRELUDE, module, probe

from yamori.llview.diagnostics import CompileError
from yamori.llview.frontend import compile_probe, compile_walker
from yamori.llview.ir import Program
from yamori.llview.translate import translate
from yamori.llview.verify import verify

LINES = PRELUDE.count("\n")


def compiled(text: str, word_size: int = 8, name: str = "run") -> Program:
    return verify(translate(compile_probe(getattr(module(text), name), word_size)))


def refusal(text: str, word_size: int = 8) -> CompileError:
    with pytest.raises(CompileError) as caught:
        compiled(text, word_size)
    return caught.value


# Statements of a probe; the character that is marked; a part of the message; a part of what to write instead.
BODIES = [
    # what Python has
    ("¦try:\n    x = 1\nexcept KeyError:\n    pass", "exceptions are not part", "attempt"),
    ("¦raise KeyError", "exceptions are not part", "stop("),
    ("¦import os", "an import in a function", "top of the file"),
    ("¦from os import path", "an import in a function", "top of the file"),
    ("¦class x: pass", "a class in a function", "top of the file"),
    ("¦def x() -> None: pass", "a function in a function", "@helper"),
    ("¦global LIMIT", "a global variable", "argument"),
    ("x = 1\n¦del x", "del is not part", "alone"),
    ("match 1:\n    case _: pass", "match is not part", "elif"),
    ("¦assert LIMIT", "assert is not part", "stop("),
    ("x = ¦lambda: 1", "a lambda", "helper"),
    ("x = ¦[1 for _ in range(3)]", "a list comprehension", "for loop"),
    ("x = ¦{1 for _ in range(3)}", "a set comprehension", "for loop"),
    ("x = ¦{1: 1 for _ in range(3)}", "a dict comprehension", "for loop"),
    ("x = ¦(1 for _ in range(3))", "a generator expression", "helper"),
    ("x = ¦[1, 2]", "a list", "local_array"),
    ("x = ¦{1: 2}", "a dict", "local_array"),
    ("x = ¦{1, 2}", "a set", "local_array"),
    ("trouble(¦f'{LIMIT}')", "an f-string", "second argument"),
    ("x = (¦y := 1)", "':='", "statement of its own"),
    ("x = (*¦NAMES, 1)", "'*'", "each one"),
    ("a, *¦b = 1, 2", "", ""),
    ("x = ¦kernel.first.table[1:2]", "a slice", "text("),
    ("x = ¦1.5", "only integers", "nanoseconds"),
    ("x = ¦1j", "only integers", ""),
    ("x = ¦4 / 2", "'/' is not part", "//"),
    ("x = ¦4 ** 2", "'**' is not part", "1 << n"),
    ("x = ¦4 @ 2", "'@' is not part", ""),
    ("x = ¦kernel.first is NULL", "'is' is not part", "== NULL"),
    ("x = ¦kernel.first is not NULL", "'is not' is not part", "!= NULL"),
    ("x = ¦1 in NAMES", "'in' is not part", "a == x"),
    ("x = ¦1 not in NAMES", "'not in' is not part", "a != x"),
    ("for x in range(3): pass\n¦else: pass", "a loop's else", "behind the loop"),
    ("while LIMIT: pass\nelse: pass", "a loop's else", "behind the loop"),
    ("for x in ¦NAMES: pass", "a for loop goes through", "for_each_entry"),
    ("for x in ¦range(1, 2, 3): pass", "one or two arguments", "while loop"),
    ("x = ¦range(3)", "range() belongs in a for loop", ""),
    ("with ¦open('x'): pass", "'open' of Python", ""),
    ("with ¦helper: pass", "with is for attempt()", "attempt() as failed"),
    ("with attempt(), attempt(): pass", "with is for attempt()", ""),
    ("with attempt(1): pass", "takes no arguments", ""),
    ("with attempt() as (a, b): pass", "one result", "as failed"),
    ("x = ¦attempt()", "belongs in a with statement", "with attempt()"),
    ("x = ¦len(NAMES)", "'len' of Python", "count"),
    ("¦print(1)", "'print' of Python", "emit()"),
    ("x = ¦min(1, 2)", "'min' of Python", "if a < b"),
    ("x = ¦int(1)", "int() says no width", "u64("),
    ("x = ¦plain(1)", "no function of the language", "@helper"),
    ("x = ¦item(1)", "cannot be made", "at(item"),
    ("x = ¦unknown", "'unknown' is not known", "assigned before"),
    ("x = double(*¦NAMES)", "one by one", ""),
    ("x = double(**¦NAMES)", "one by one", ""),
    ("return ¦1", "gives its rows by emit()", ""),
    ("x: u32", "needs its value at once", "u32 = 0"),
    ("kernel.x: u32 = 0", "needs its value at once", ""),
    ("x: ¦helper = 0", "no type of the language", "u32"),
    ("¦LIMIT += 1", "used before anything is assigned", "LIMIT = 0"),
    ("x = ¦LIMIT\nLIMIT = 3", "used before anything is assigned", ""),
    ("x = ¦y\ny = 3", "used before anything is assigned", "y = 0"),
    ("yield 1", "", ""),
    # guest memory and structures
    ("¦kernel.first.number = 1", "guest memory is only read", "variable"),
    ("kernel.first.number += 1", "only read", "a variable"),
    ("x = local_array(u8, 4)\nx[0] += 1", "only a variable can be changed", "a[i]"),
    ("kernel.first.table[1] = 1", "guest memory is only read", "local_array"),
    ("x = ¦kernel.first.absent", "declares no member 'absent'", "add `absent"),
    ("x = ¦kernel.absent", "declares no member 'absent'", "class Globals"),
    ("x = ¦kernel.first.c_name", "declares no member 'c_name'", ""),
    ("x = ¦kernel.first[0]", "cannot be indexed", "Array"),
    ("x = ¦kernel.first.number.pid", "has no member 'pid'", ""),
    ("x = ¦kernel.first + 1", "is no number", "address_of"),
    ("x = -¦kernel.first", "is no number", "address_of"),
    ("for x in range(¦kernel.first): pass", "is no number", "address_of"),
    ("if ¦kernel.first: pass", "a pointer is no condition", "NULL"),
    ("if ¦kernel.first.name: pass", "is no condition", ""),
    ("if kernel.first == ¦1: pass", "cannot be compared", "address_of"),
    ("if kernel.first == ¦None: pass", "cannot be compared", "NULL"),
    ("if kernel.first < ¦kernel.pointer: pass", "equal or not", "address_of(a)"),
    ("if kernel.first == ¦kernel.first.inside: pass", "cannot be compared", ""),
    ("if kernel.first.name == ¦kernel.first.name: pass", "compared with one in the source", ""),
    ("if kernel.first.name < ¦'a': pass", "compared with one in the source", ""),
    ("if kernel.first.name == ¦'\\ud800': pass", "compared with one in the source", ""),
    ("x = kernel.first\nx = ¦kernel.first.inside", "cannot be assigned to a variable of struct item", ""),
    ("x = kernel.first\nx = ¦5", "cannot be assigned to a variable of struct item", ""),
    ("x = kernel.first.numbers\nx = ¦5", "cannot be assigned to a pointer", ""),
    ("x = kernel.first.table\nx = ¦kernel.first.insides", "cannot be assigned to an array", ""),
    ("x = 5\nx = ¦kernel.first", "cannot be assigned to a number", "address_of"),
    ("x = kernel.first.name\nx = ¦kernel.first.name", "keeps its name", "another name"),
    ("x = kernel.first.name\ny = ¦x", "has one name", "second would change"),
    ("x = local_array(u32, 4)\ny = ¦x", "has one name", ""),
    ("x = y = ¦local_array(u32, 4)", "has one name", ""),
    ("x: item = ¦kernel.first.inside", "struct item is needed", ""),
    ("x: item = ¦5", "struct item is needed", ""),
    ("x: Ptr[u32] = ¦kernel.first.twice", "pointer of another type", ""),
    ("x: u8 = ¦kernel.first.number", "may not fit into a u8", "say u8(...)"),
    ("x: u8 = ¦256", "256 does not fit into a u8", ""),
    ("x: u8 = 1\nx: ¦u16 = 1", "is a u8 already", "another name"),
    ("x = u8(1)\nx = ¦256", "256 does not fit into a u8", ""),
    ("x = kernel.first.word + ¦kernel.first.number", "no common type", "s64("),
    ("x = ¦kernel.first.word // kernel.first.word", "positive constant", ""),
    ("x = ¦kernel.first.word // 0", "positive constant", ""),
    ("x = ¦kernel.first.number // 2", "only unsigned numbers", "u64("),
    ("x = ¦1 // 0", "division by 0", ""),
    ("x = ¦1 << 65", "a shift by", ""),
    ("x = ¦kernel.first.word << -1", "negative number", ""),
    ("x = ¦(1 << 64) << 1", "does not fit into 64 bits", ""),
    ("x = ¦1 << 64", "does not fit into 64 bits", ""),
    ("x = ~¦kernel.first.flag", "truth value", "not"),
    ("x = ¦kernel.first.number or 5", "a truth value", "if x != 0"),
    ("x = kernel.first.flag and ¦kernel.first.number", "a truth value", ""),
    ("x = ¦'a' + 'b'", "only numbers", ""),
    ("x = NAMES[¦2]", "has 2 entries", ""),
    ("x = NAMES[¦kernel.first.number]", "constant index", ""),
    ("x, y = ¦1", "taken apart", ""),
    ("x, y = ¦1, 2, 3", "taken apart", ""),
    ("x = ¦1 if kernel.first.flag else None", "None is no value", "emit()"),
    ("x = Pair(¦1)", "has the fields one, two", ""),
    ("x = Pair(1, True).three", "no field 'three'", "one, two"),
    # words
    ("x = exists(¦LIMIT)", "asked of a member", "exists(task"),
    ("x = exists(¦LIMIT.real)", "", ""),
    ("x = at(¦1, 2)", "a structure's class", ""),
    ("x = at(¦Struct, 2)", "a structure's class", ""),
    ("x = sizeof(¦Struct)", "a structure's class", ""),
    ("x = ¦at(item)", "2 arguments, not 1", ""),
    ("x = ¦at(item, 1, address=2)", "no argument 'address'", ""),
    ("x = container_of(kernel.first, item, ¦'a..b')", "is no member", "container_of(node"),
    ("x = container_of(kernel.first, item, ¦LIMIT)", "a text in the source", ""),
    ("x = sizeof(¦5)", "a structure's class", ""),
    ("x = text(1, ¦0)", "a number from 1 to 4096", ""),
    ("x = text(1, ¦kernel.first.small)", "a number from 1 to 4096", ""),
    ("x = local_array(¦item, 4)", "holds integers", "address_of"),
    ("x = local_array(u32, ¦99999)", "a number from 1 to 4096", ""),
    ("x = local_array(u64, 4096)\ny = ¦local_array(u8, 1)", "need 32769 bytes; it may have 32768", "arrays smaller"),
    ("x = local_array(u64, 4095)\nemit(a=1, c=kernel.first.¦name)", "need 32824 bytes", "arrays smaller"),
    ("x = local_array(u32, 4)\nx[¦kernel] = 1", "a number is needed here", ""),
    ("x = ¦phys_u64(0)", "physical loads are for walkers", "virtual"),
    ("¦emit(1)", "emit() takes no arguments, not 1", ""),
    ("¦emit()", "by name", "pid=task.pid"),
    ("¦emit(b=1)", "the row lacks a", ""),
    ("emit(a=1, x=¦1)", "rows have no field 'x'", "a, b, c, d"),
    ("emit(a=¦None)", "", ""),
    ("emit(a=¦1 if LIMIT else None)", "cannot be None", ""),
    ("emit(a=¦kernel.first.name)", "is a number", ""),
    ("emit(a=1, c=¦'long')", "one character", ""),
    ("emit(a=1, c=¦kernel.first.number)", "is a text, and an s32 is none", "say u8(...)"),
    ("emit(a=¦None)", "is never None", "int | None"),
    ("emit(a=kernel.first.word)\nemit(a=¦kernel.first.number)", "is a u64", "say u64(...)"),
    ("emit(a=1, c=kernel.first.name)\nemit(a=1, c=¦82)", "is a text elsewhere", ""),
    ("trouble(¦LIMIT)", "a text in the source", ""),
    ("trouble('x', faulted=¦LIMIT)", "True or False", ""),
    ("trouble('x', ¦kernel.first.number)", "may not fit into a u64", "say u64(...)"),
    ("stop('x', ¦kernel.first.name)", "a number is needed here", ""),
    ("each(¦kernel.first)", "is a generator", "for x in each"),
    ("for x in double(¦1): pass", "no generator", ""),
    ("x = double(¦kernel.first.word)", "may not fit into a u32", "u32("),
    ("x = ¦double()", "needs the argument 'x'", ""),
    ("x = ¦double(1, 2)", "takes 1 argument, not 2", ""),
    ("x = double(1, x=¦2)", "no further argument 'x'", ""),
    ("for x in each(¦kernel.first.inside): pass", "struct item is needed", ""),
]  # fmt: skip


@pytest.mark.parametrize(("body", "message", "instead"), BODIES, ids=[body.replace("¦", "") for body, _, _ in BODIES])
def test_statement_is_refused(body: str, message: str, instead: str) -> None:
    error = refusal(probe(body.replace("¦", "")))
    assert message in str(error)
    assert instead in error.hint
    line, _, _ = body.partition("¦")
    assert error.file.endswith(".py")
    if "¦" in body:
        assert error.line == LINES + 3 + line.count("\n"), error
    assert "^" in error.picture()


# Functions beside a probe; the statements of the probe; a part of the message.
HELPERS = [
    ("def f(x: u32) -> u32:\n    return f(x)", "x = f(1)", "f() calls itself"),
    ("def f(x: u32) -> u32:\n    return g(x)\n@helper\ndef g(x: u32) -> u32:\n    return f(x)", "x = f(1)", "calls itself"),
    ("def f(*x: u32) -> u32:\n    return 1", "x = f(1)", "parameters of a kind"),
    ("def f(x: u32, /) -> u32:\n    return 1", "x = f(1)", "parameters of a kind"),
    ("def f(x: u32) -> u32:\n    if x > 3:\n        return 1", "x = f(kernel.first.small)", "may end without a value"),
    ("def f(x: u32) -> u32:\n    with attempt():\n        return at(item, x).small", "x = f(1)", "may end without a value"),
    ("def f(x: u32) -> u32:\n    for _ in range(x):\n        return 1", "x = f(1)", "may end without a value"),
    ("def f(x: u32) -> u32:\n    if x > 3:\n        return\n    return 1", "x = f(kernel.first.small)", "others none"),
    ("def f(x: u32) -> u32:\n    if x > 3:\n        return 1\n    return", "x = f(kernel.first.small)", "others none"),
    ("def f(x: u32) -> None:\n    pass", "x = f(1)", "gives no value"),
    ("def f(x: u32) -> bool:\n    return x", "x = f(kernel.first.small)", "may not fit into a bool"),
    ("def f(x: u32) -> Iterator[u32]:\n    yield 1\n    yield 2", "for x in f(1): pass", "one yield"),
    ("def f(x: u32) -> Iterator[u32]:\n    yield", "for x in f(1): pass", "yield needs a value"),
    ("def f(x: u32) -> Iterator[u32]:\n    y = yield 1", "for x in f(1): pass", "yield as a value"),
    ("def f(x: u32) -> Iterator[u32]:\n    yield x\n    return 1", "for x in f(1): pass", "a generator returns no value"),
    ("def f(x: item) -> Iterator[item]:\n    yield from each(x)\n    yield x", "for x in f(kernel.first): pass", "yield from"),
    ("def f(x: item) -> CharArray:\n    if x.flag:\n        return x.name\n    return x.name", "x = f(kernel.first)", "cannot both be"),
    ("def f(x: u32, y: u32 = unknown) -> u32:\n    return y", "x = f(1)", "is not known"),
    ("def f(x: u32) -> u32:\n    return f1(f1(f1(f1(x))))\n" + "".join(
        f"@helper\ndef f{n}(x: u32) -> u32:\n    return f{n + 1}(x) + f{n + 1}(x) + f{n + 1}(x)\n" for n in range(1, 20)
    ) + "@helper\ndef f20(x: u32) -> u32:\n    return x", "x = f(1)", "too large"),
    ("def f(k: Other) -> ulong:\n    return k.other\nclass Other(Kernel):\n    other: ulong", "x = f(kernel)", "Other is needed"),
]  # fmt: skip


@pytest.mark.parametrize(("helper", "body", "message"), HELPERS, ids=[message for _, _, message in HELPERS])
def test_helper_is_refused(helper: str, body: str, message: str) -> None:
    if "unknown" in helper:  # Python itself evaluates a default
        helper = "unknown = object\n\n@helper\n" + helper + "\ndel unknown\n"
    else:
        helper = "@helper\n" + helper + "\n"
    assert message in str(refusal(helper + probe(body)))


PROGRAMS = [
    ("@probe(row=Row)\ndef run() -> None:\n    emit(a=1)", "first parameter is the kernel"),
    ("@probe(row=Row)\ndef run(kernel: int) -> None:\n    emit(a=1)", "first parameter is the kernel"),
    ("@probe(row=Row)\ndef run(kernel: Globals, x) -> None:\n    emit(a=1)", "further parameters are numbers"),
    ("@probe(row=Row)\ndef run(kernel: Globals, x: item) -> None:\n    emit(a=1)", "further parameters are numbers"),
    ("@probe(row=Row)\ndef run(kernel: Globals, x: u32 = LIMIT) -> None:\n    emit(a=1)", "default is a number"),
    ("@probe(row=Row)\ndef run(kernel: Globals = 1, x: u32 = 1) -> None:\n    emit(a=1)", "has no default"),
    ("@probe(row=Row)\ndef run(kernel: Globals, *x: u32) -> None:\n    emit(a=1)", "plain parameters"),
    ("@probe(row=Row)\ndef run(kernel: Globals, größe: u32) -> None:\n    emit(a=1)", "ASCII"),
    ("@probe(row=Row)\ndef größe(kernel: Globals) -> None:\n    emit(a=1)\nrun = größe", "ASCII"),
    ("@probe(row=5)\ndef run(kernel: Globals) -> None:\n    emit(a=1)", "fields of the rows"),
    ("class R:\n    a: unknown\n@probe(row=R)\ndef run(kernel: Globals) -> None:\n    emit(a=1)", "fields of the rows"),
    ("run = probe(row=Row)(lambda kernel: None)", "a lambda"),
    ("run = probe(row=Row)(len)", "no function of Python's"),
    ("@probe(row=Row)\nasync def run(kernel: Globals) -> None:\n    emit(a=1)", "async"),
    (("class bad(Struct):\n    x: 'a b'\nclass G(Kernel):\n    it: bad\n@probe(row=Row)\ndef run(kernel: G) -> None:\n"
     "    emit(a=kernel.it.x)"), "is no expression"),
    (("class bad(Struct):\n    x: unknown\nclass G(Kernel):\n    it: bad\n@probe(row=Row)\ndef run(kernel: G) -> None:\n"
     "    emit(a=kernel.it.x)"), "'unknown' is not known"),
    (("class bad(Struct):\n    x: float\nclass G(Kernel):\n    it: bad\n@probe(row=Row)\ndef run(kernel: G) -> None:\n"
     "    emit(a=kernel.it.x)"), "not known"),
    (("class bad(Struct):\n    x: Ptr[float]\nclass G(Kernel):\n    it: bad\n@probe(row=Row)\n"
     "def run(kernel: G) -> None:\n    emit(a=kernel.it.x[0])"), "not known"),
    (("class bad(Struct):\n    x: Array[Array[u32]]\nclass G(Kernel):\n    it: bad\n@probe(row=Row)\n"
     "def run(kernel: G) -> None:\n    emit(a=kernel.it.x[0][1])"), "array of arrays"),
    ("class R(msgspec.Struct):\n" + "".join(f"    f{n}: int | None\n" for n in range(20))
     + "@probe(row=R)\ndef run(kernel: Globals, x: u32) -> None:\n    emit("
     + ", ".join(f"f{n}={n} if x == {n} else None" for n in range(20)) + ")", "more than 8 conditions"),
    ("@probe(row=Row)\ndef run(kernel: Globals, x: u32) -> None:\n    emit(a=" + " + ".join(["x"] * 900) + ")",
     "nested too deeply"),
    ("@probe(row=Row)\ndef run(kernel: Globals, x: u32) -> None:\n" + "".join(
        f"{' ' * (n + 4)}if x > {n}:\n" for n in range(70)) + " " * 80 + "emit(a=1)", "nested too deeply"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), PROGRAMS, ids=[message for _, message in PROGRAMS])
def test_program_is_refused(text: str, message: str) -> None:
    assert message in str(refusal(text + "\n"))


WALKERS = [
    ("root: u64, gva: u64", "return kernel.x", "is not known"),
    ("root: u64", "return root", "root and gva"),
    ("root: u32, gva: u64", "return root", "all u64"),
    ("root: u64, gva: u64, x: u64 = 1", "return root", "has no default"),
    ("root: u64, gva: u64", "return at(item, root).word", "knows nothing of the kernel's structures"),
    ("root: u64, gva: u64", "return word_at(root)", "loads physical memory"),
    ("root: u64, gva: u64", "return user_word(root, gva)", "loads physical memory"),
    ("root: u64, gva: u64", "x = text(root, 8)\n    return root", "loads physical memory"),
    ("root: u64, gva: u64", "emit(a=1)\n    return root", "no field"),
    ("root: u64, gva: u64", "trouble('x')\n    return root", "for probes"),
    ("root: u64, gva: u64", "x = local_array(u32, 2)\n    return root", "for probes"),
    ("root: u64, gva: u64", "with attempt():\n        phys_u64(root)\n    return root", "for probes"),
    ("root: u64, gva: u64", "pass", "returns a NamedTuple"),
    ("root: u64, gva: u64", "if gva == 1:\n        return root", "may end without"),
    ("root: u64, gva: u64", "if gva == 1:\n        return root\n    return root, gva", "of one kind"),
    ("root: u64, gva: u64", "return s32(root)", "may not fit"),
    ("root: u64, gva: u64", "return sizeof(item)", "knows nothing"),
]


@pytest.mark.parametrize(("parameters", "body", "message"), WALKERS, ids=[message for _, _, message in WALKERS])
def test_walker_is_refused(parameters: str, body: str, message: str) -> None:
    found = module(f"@walker\ndef walk({parameters}) -> int:\n    {body}\n")
    with pytest.raises(CompileError) as caught:
        verify(compile_walker(found.walk))
    assert message in str(caught.value)


SOUND = """
@helper
def score(node: item, weight: u8 = 3, *, extra: u64 = 1) -> u64:
    if node.flag and node.small > weight:
        return node.word + extra
    total: u64 = 0
    for i in range(4):
        if node.table[i] == 2:
            continue
        total += node.table[i]
        if total > 50:
            break
    return total if total != 7 else u64(node.small)


@helper
def pairs(start: item) -> Iterator[tuple[int, int]]:
    count = 0
    for node in each(start):
        with attempt() as bad:
            if exists(node.__state) and node.__state == 9:
                return
        count += 1
        yield count, node.number


@probe(row=Row)
def run(kernel: Globals, most: u32) -> None:
    kept = local_array(u32, 8)
    previous = kernel.first
    for at_, number in pairs(kernel.first):
        kept[at_] = most
        with attempt() as failed:
            previous = container_of(previous.inside, item, "inside").next
            emit(a=score(previous, extra=2) + kept[at_], c=previous.name, b=at_ if not failed else None)
        if failed or NULL == previous:
            trouble("broken", previous, faulted=True)
            break
        if 0 <= number < LIMIT <= 7 or kernel.handler == address_of(kernel.first):
            continue
        if previous.name == "item 2":
            stop("enough", previous)
        x, y = at_, s64(number)
        x, y = y, x
        emit(a=u64(x & MASK) | Colour.RED, d=not previous.flag, c=text(previous.numbers, 6) if y else None)
        word = word_at(address_of(previous.links[1]) + sizeof(item)) >> (y & 63)
        torn("odd", u64(previous.twice[0].insides[~0].right & 7 if word != 0 else previous.renamed))
"""


class Mutation(ast.NodeTransformer):
    """Puts something else in the place of one node."""

    def __init__(self, numbers: random.Random) -> None:
        self.numbers = numbers
        self.rate = numbers.choice([0.002, 0.005, 0.015])
        self.pool = list(ast.walk(ast.parse(PRELUDE + SOUND)))

    def visit(self, node: ast.AST) -> ast.AST:
        node = self.generic_visit(node)
        if self.numbers.random() > self.rate:
            return node
        if isinstance(node, ast.stmt):
            return self.pick(ast.stmt) if not isinstance(node, ast.FunctionDef) else node
        if isinstance(node, ast.expr) and isinstance(getattr(node, "ctx", ast.Load()), ast.Load):
            odd = ast.parse(self.numbers.choice(ODD), mode="eval").body
            return odd if self.numbers.random() < 0.5 else self.pick(ast.expr)
        if isinstance(node, ast.operator):
            return self.numbers.choice(ast.operator.__subclasses__())()
        if isinstance(node, ast.cmpop):
            return self.numbers.choice(ast.cmpop.__subclasses__())()
        return node

    def pick(self, kind: type[ast.AST]) -> ast.AST:
        fitting = [one for one in self.pool if isinstance(one, kind) and not isinstance(one, ast.FunctionDef)]
        if kind is ast.expr:
            fitting = [one for one in fitting if isinstance(getattr(one, "ctx", ast.Load()), ast.Load)]
        return self.numbers.choice(fitting)


ODD = ["0", "-1", "1 << 63", "None", "'x'", "b'\\xff'", "...", "True", "u8", "item", "kernel", "kernel.first", "NULL", "()",
       "(1, 'x')", "language", "emit", "double", "each", "range", "NAMES", "Colour", "Colour.RED", "Pair(1, True)",
       "Row", "kernel.first.name", "kernel.first.table", "local_array(u8, 2)", "exists(kernel.first.flag)",
       "most", "text", "at(item, 0)", "'\\ud800'", "10 ** 30", "1.0", "Ptr[item]", "attempt", "msgspec",
       "double(1)", "kernel.first.numbers", "kernel.first.twice", "user_text(most, most, 3)"]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 1 << 64), st.sampled_from([4, 8]))
def test_mutated_program_compiles_or_is_refused(seed: int, word_size: int) -> None:
    tree = Mutation(random.Random(seed)).visit(ast.parse(SOUND))
    try:
        found = module(ast.unparse(ast.fix_missing_locations(tree)))
    except (SyntaxError, NameError, TypeError, AttributeError, ValueError):
        return  # it is none of Python's either
    run = found.run
    if not isinstance(run, found.language.Probe):
        return
    try:
        verify(translate(compile_probe(run, word_size)))
    except CompileError as error:
        refused = error
    else:
        return
    assert refused.line >= 1
    assert "^" in refused.picture()


def test_sound_program_is_compiled() -> None:
    for word_size in (4, 8):
        assert compiled(SOUND, word_size).body
