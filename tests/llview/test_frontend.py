"""What programs mean: scopes, evaluation order, integers, helpers, generators, attempts, and members of all kinds."""

# ruff: noqa: E501  tables of programs: one a line
from __future__ import annotations

import pytest
from tests.llview.native_programs import KERNEL, PAGE
from tests.llview.sources import ITEM, execute, guest, module, numbers, probe, program

from yamori.llview import flow, ir
from yamori.llview.diagnostics import CompileError
from yamori.llview.faults import Code
from yamori.llview.frontend import compile_probe

both = pytest.mark.parametrize("word", [4, 8])
PARAMETERS = ", a: u8, b: u32, c: s32, d: u64, e: s64"
GIVEN = (200, 4_000_000_000, -5 & 0xFFFF_FFFF, 1 << 40, -3 & (1 << 64) - 1)


def worth(expression: str, word: int = 8, **options: str) -> int:
    """The value of one expression of the parameters."""
    return numbers(f"emit(a=u64({expression}))", *GIVEN, parameters=PARAMETERS, word_size=word, **options)[0]


def wide(value: int) -> int:
    return value & (1 << 64) - 1


INTEGERS = [
    ("a + a", 400),
    ("u8(a + a)", 144),
    ("a - 201", 0xFFFF_FFFF),
    ("b + b", 8_000_000_000 & 0xFFFF_FFFF),
    ("u64(b) + b", 8_000_000_000),
    ("b + c", 3_999_999_995),
    ("c - b", wide(-5 - 4_000_000_000)),
    ("c * 2", wide(-10)),
    ("-c", 5),
    ("~c", 4),
    ("~a", 0xFFFF_FF37),
    ("-a", 0xFFFF_FF38),
    ("c >> 1", wide(-3)),
    ("c >> 40", wide(-1)),
    ("b >> 40", 0),
    ("b << 1", 8_000_000_000 & 0xFFFF_FFFF),
    ("1 << (a - 160)", 1 << 40),
    ("u32(1) << (a - 160)", 0),
    ("-1 << (a - 199)", wide(-2)),
    ("d // 3", (1 << 40) // 3),
    ("d % 1000", (1 << 40) % 1000),
    ("u32(c) // 2", 0x7FFF_FFFD),
    ("-7 // 2", wide(-4)),
    ("-7 % 3", 2),
    ("c < b", 1),
    ("c == -5", 1),
    ("b == -1", 0),
    ("a == 456", 0),
    ("0 <= c < 5", 0),
    ("-9 < c < 5 < d", 1),
    ("e + 1", wide(-2)),
    ("s8(a)", wide(-56)),
    ("bool(d)", 1),
    ("u8(256)", 0),
    ("bool(256)", 1),
    ("(a == 200) + (b == 1)", 1),
    ("True if c < 0 else False", 1),
    ("c if c > 0 else b", 4_000_000_000),
    ("1 if a else -1", 1),
    ("s64(7) if a else s64(9)", 7),
    ("s64(s64(7) if a else s64(9)) - 8", wide(-1)),
    ("(c < 0) & (a == 200)", 1),
    ("not a", 0),
    ("Colour.RED + a", 203),
    ("MASK | 3", 0xF3),
    ("u32(0x1234) & ~0xFF", 0x1200),
    ("~3 & ulong(15)", 12),
    ("u32(1) ^ -1", 0xFFFF_FFFE),
    ("c & ~1", wide(-6)),
    ("double(7)", 14),
    ("language.sizeof(item)", ITEM),
    ("sizeof(u16)", 2),
]


@both
@pytest.mark.parametrize(("expression", "expected"), INTEGERS)
def test_integers(expression: str, expected: int, word: int) -> None:
    assert worth(expression, word) == expected


SCOPES = [
    # a variable keeps what it was given, whatever becomes of the variables it came from
    ("x = 1\ny = x\nx = 2\nemit(a=y)\nemit(a=x)", "", [1, 2]),
    ("x, y = 1, 2\nx, y = y, x\nemit(a=x * 10 + y)", "", [21]),
    ("x: u32 = 5\ny: u32 = 0\nx = y = x + 1\nemit(a=x * 10 + y)", "", [66]),
    ("n = kernel.first\nm = n\nn = m = n.next\nemit(a=n.small)\nemit(a=m.small)", "", [201, 201]),
    ("p = Pair(1, True)\nq = p\np = Pair(2, False)\nemit(a=q.one * 10 + q.two)", "", [11]),
    ("n = kernel.first\nt = n.table\nn = n.next\nemit(a=t[1])\nemit(a=n.table[1])", "", [1, 11]),
    ("n = kernel.first\ni = n.inside\nn = n.next\nemit(a=i.left)", "", [7]),
    ("n = kernel.first\np = n.numbers\nn = n.next\nemit(a=p[2])", "", [2]),
    ("x: u64 = 1\nfor y in once(x):\n    x = 5\n    emit(a=y)", "", [1]),
    (
        "n = kernel.first\nfor y in later(n.table):\n    n = n.next\n    emit(a=y)",
        "@helper\ndef later(t: Array[u32]) -> Iterator[u32]:\n    for i in range(2):\n        yield t[i]\n",
        [0, 1],
    ),
    # a helper that is called twice has its own variables each time, and they are 0 until assigned
    (
        "for i in range(3):\n    emit(a=some(u32(i)))",
        "@helper\ndef some(x: u32) -> u32:\n    if x == 1:\n        y: u32 = 9\n    return y\n",
        [0, 9, 0],
    ),
    ("x: u64 = 1\nemit(a=down(3) + x)\nemit(a=down(2))", "@helper\ndef down(x: u64) -> u64:\n    x -= 1\n    return x\n", [3, 1]),
    ("emit(a=kw(1))\nemit(a=kw(1, 2))\nemit(a=kw(y=3, x=1))\nemit(a=kw(1, z=7))", "", [154, 124, 134, 157]),
    # constants keep the type of the parameter
    ("emit(a=flip(1))", "@helper\ndef flip(x: u32) -> u32:\n    return ~x\n", [0xFFFF_FFFE]),
    ("emit(a=first(8))", "@helper\ndef first(n: u32) -> u64:\n    kept = local_array(u64, n)\n    return kept[n - 1]\n", [0]),
    # jumps
    ("for i in range(2, 9):\n    if i == 4:\n        continue\n    if i == 6:\n        break\n    emit(a=u64(i))", "", [2, 3, 5]),
    ("i = 0\nwhile True:\n    i += 1\n    if i > 3:\n        break\n    emit(a=u64(i))\nemit(a=99)", "", [1, 2, 3, 99]),
    (("for n in each(kernel.first):\n    if n.small == 201:\n        continue\n    if n.small == 203:\n        break\n"
     "    emit(a=n.small)\nemit(a=1)"), "", [200, 202, 1]),
    (("for n in each(kernel.first):\n    for m in each(n):\n        if m.small == 202:\n            break\n"
     "        emit(a=n.small * 1000 + m.small)"), "", [200200, 200201, 201201, 203203]),
    ("emit(a=find(kernel.first, 202))\nemit(a=find(kernel.first, 7))", ("@helper\ndef find(n: item, x: u32) -> u64:\n"
     "    for m in each(n):\n        with attempt():\n            if m.small == x:\n                return m.word\n"
     "    return 1\n"), [1002, 1]),
    (("for n in each(kernel.first):\n    with attempt() as bad:\n        if n.small == 201:\n            continue\n"
     "        if n.small == 203:\n            break\n        stop('x')\n    emit(a=n.small if bad else 0)"), "", [200, 202]),
    ("for x, y in nested(kernel.first):\n    emit(a=x * 10 + y)", ("@helper\ndef nested(n: item) -> Iterator[tuple[int, int]]:\n"
     "    i: u64 = 0\n    for m in each(n):\n        i += 1\n        if i == 2:\n            continue\n        if i == 4:\n"
     "            return\n        yield i, u64(m.__state)\n"), [10, 32]),
    ("return\nemit(a=1)", "", []),
    ("for n in each(kernel.first):\n    emit(a=1)\n    return\nemit(a=2)", "", [1]),
    # the fault of a loop's body is not for the generator's attempt
    ("with attempt() as bad:\n    for n in careful(kernel.first):\n        stop('x')\nemit(a=bad)",
     ("@helper\ndef careful(n: item) -> Iterator[item]:\n    with attempt() as bad:\n        yield n\n    if bad:\n"
     "        emit(a=77)\n"), [1]),
    ("bad = True\nif kernel.first.flag:\n    with attempt() as bad:\n        stop('x')\nemit(a=bad)", "", [1]),
    ("bad = True\nwith attempt() as bad:\n    bad = False\nemit(a=bad)", "", [0]),
    # augmented assignment keeps the type, as in C
    ("x: u8 = 250\nx += 10\nemit(a=x)", "", [4]),
    ("x: s32 = 5\nx -= 8\nemit(a=u64(x))", "", [(1 << 64) - 3]),
    ("x = False\nx |= kernel.first.small == 200\nemit(a=x)", "", [1]),
    # local arrays
    ("a = local_array(u16, 3)\na[1] = 7\na[2] = u16(a[1] + 1)\nfill(a)\nemit(a=a[0] * 100 + a[1] * 10 + a[2])",
     "@helper\ndef fill(x: list[int]) -> None:\n    x[0] = 5\n", [578]),
]  # fmt: skip
ALWAYS = """
@helper
def once(x: u64) -> Iterator[u64]:
    yield x


@helper
def kw(x: u64, y: u64 = LIMIT, *, z: u64 = 4) -> u64:
    return x * 100 + y * 10 + z


"""


@both
@pytest.mark.parametrize(("body", "before", "expected"), SCOPES, ids=[body for body, _, _ in SCOPES])
def test_scopes_and_jumps(body: str, before: str, expected: list[int], word: int) -> None:
    assert numbers(body, before=ALWAYS + before, word_size=word) == expected


MEMBERS = [
    ("n.number", (1 << 64) - 1),
    ("n.small", 201),
    ("n.flag", 1),
    ("n.word", 1001),
    ("n.inside.left", 8),
    ("n.inside.right", (1 << 64) - 8),
    ("n.renamed", 8),
    ("n.table[3]", 13),
    ("n.table[~0]", 0xFFF8),
    ("n.insides[2].left", 102),
    ("n.links[1].small", 201),
    ("n.numbers[2]", 12),
    ("n.twice[1].small", 201),
    ("n.next.next.__state", 3),
    ("n.next.name[5]", ord("2")),
    ("kernel.pointer.small", 201),
    ("kernel.pointer == n", 1),
    ("n != NULL", 1),
    ("n.next.next.next == NULL", 1),
    ("kernel.handler == address_of(kernel.first) + 0x1234", 1),
    ("address_of(n.inside) - address_of(n)", 40),
    ("address_of(n.next) - address_of(n)", ITEM),
    ("address_of(n.table) - address_of(n)", 48),
    ("container_of(n.inside, item, 'inside').small", 201),
    ("container_of(n.inside, item, 'inside.left').small", 201),
    ("at(item, address_of(n)).small", 201),
    ("word_at(address_of(n.word))", 1001),
    ("user_word(0x40000000, address_of(n.word))", 1001),
    ("physical(kernel.first)", 0x40000000 + PAGE),
    ("physical(address_of(n) + 5) - physical(kernel.first)", ITEM + 5),
    ("user_word(physical(kernel.first) - 4096, address_of(n.word))", 1001),
    ("n.name == 'item 1'", 1),
    ("n.name == 'item'", 0),
    ("n.name != 'item 12'", 1),
    ("text(address_of(n.name), 4) == 'item'", 1),
    ("user_text(0x40000000, address_of(n.name), 16) == 'item 1'", 1),
    ("exists(n.small)", 1),
    ("exists(n.inside.left) and exists(kernel.first)", 1),
    ("sizeof(inner)", 8),
    ("sizeof(Ptr[u8]) == sizeof(ulong)", 1),
]


@both
@pytest.mark.parametrize(("expression", "expected"), MEMBERS)
def test_members(expression: str, expected: int, word: int) -> None:
    assert numbers(f"n = kernel.first.next\nemit(a=u64({expression}))", word_size=word) == [expected]


LOADS = [
    # what is right of and/or, of a comparison, or of a condition is loaded only where it matters
    ("x = n.flag and n.small == 1", 1),
    ("x = not n.flag and n.small == 1", 2),
    ("x = not n.flag or n.small == 1", 1),
    ("x = n.flag or n.small == 1 or n.word == 1", 3),
    ("x = n.word < n.small < n.number", 2),
    ("x = n.word if n.flag else 5", 1),
    ("emit(a=1, b=n.word if n.flag else None)", 1),
    ("emit(a=1, b=None if n.flag else n.word)", 2),
    ("emit(a=1, b=n.word if LIMIT else None)", 1),
    ("emit(a=1, b=n.word if not LIMIT else None)", 0),
    ("if LIMIT == 6 and n.small == 1:\n    n.word", 0),
    ("if LIMIT == 5 or n.small == 1:\n    n.word", 1),
    ("x = exists(n.next.next.small)", 0),
    ("x = address_of(n.table)", 0),
    ("x = address_of(n.next)", 1),
    ("x = n.inside", 0),
    ("while n.flag and n.small == 1:\n    n.word", 1),
]


@pytest.mark.parametrize(("body", "expected"), LOADS)
def test_loads_are_done_where_python_does_them(body: str, expected: int) -> None:
    assert execute(program(probe("n = kernel.first\n" + body))).loads == expected


def test_fields_are_evaluated_in_the_order_they_are_written_in() -> None:
    outcome = execute(program(probe("n = kernel.first\nemit(b=n.word, a=n.small)")))
    assert outcome.rows == [(200, 1000, None, None)]
    assert [size for kind, _, size in outcome.events if kind == "V"] == [8, 1]


def test_rows() -> None:
    outcome = execute(
        program(
            probe(
                "for n in each(kernel.first):\n"
                "    known = n.small > 201\n"
                "    emit(a=n.word, b=n.small if known else None, c=n.name if n.flag else None, d=n.small & 1)\n"
                "emit(a=1)"
            )
        )
    )
    assert outcome.rows == [
        (1000, None, None, False),
        (1001, None, b"item 1", True),
        (1002, 202, None, False),
        (1003, 203, b"item 3", True),
        (1, None, None, None),
    ]


def test_a_character_for_a_text() -> None:
    outcome = execute(program(probe("emit(a=1, c='R')\nemit(a=1, c=u8(83))")))
    assert [row[2] for row in outcome.rows] == [82, 83]


def test_text_given_back_by_a_helper() -> None:
    before = "@helper\ndef named_(n: item) -> CharArray:\n    return n.name\n"
    text = before + probe("x = named_(kernel.first)\ny = named_(kernel.pointer)\nemit(a=1, c=x)\nemit(a=2, c=y)")
    assert [row[2] for row in execute(program(text)).rows] == [b"item 0", b"item 1"]


def test_annotations_that_are_objects() -> None:
    """Without ``from __future__ import annotations`` Python evaluates them."""
    text = (
        "class pair(Struct):\n    left: u32\n"
        "pair.__annotations__ = {'left': u32, 'me': Ptr['pair'], 'all': Array[u16], 'name': CharArray, 'in_': inner}\n"
        "class G(Kernel):\n    it: pair\n"
        "@probe(row=Row)\ndef run(kernel: G) -> None:\n"
        "    p = kernel.it\n    emit(a=p.left + p.all[1] + p.in_.left + p.me.left, c=p.name)"
    )
    found = compile_probe(module(text).run, 8)
    assert {str(slot) for slot in found.slots} >= {"pair.left", "pair.me", "pair.all", "pair.name", "pair.in_"}


def test_named_parameters_do_not_meet_variables_of_the_compiler() -> None:
    text = probe("x = t_1 + t_2\nemit(a=kernel.first.word + x)", ", t_1: ulong, t_2: ulong, word_3: ulong")
    found = program(text)
    assert not {parameter.name for parameter in found.parameters} & set(found.locals)
    assert execute(found, arguments=(1, 2, 3)).rows[0][0] == 1003


def test_named_parameters_do_not_meet_variables_of_the_translation() -> None:
    found = program(probe("emit(a=kernel.first.word + gva_1x)", ", gva_1x: ulong"))
    assert execute(found, arguments=(5,)).rows[0][0] == 1005


@both
def test_behind_its_nul_a_text_is_empty(word: int) -> None:
    """Whatever the guest has there, and however the text lies: it is loaded by words."""
    where = guest(word)
    for shift in range(word):
        at = where.kernel + 24 + shift
        for offset, byte in enumerate(b"ab\0junk junk junk"):
            where.put(at + offset, byte, 1)
        loop = "for i in range(24):\n    emit(a=t[i])"
        found = program(probe(f"t = text(address_of(kernel.first) + {24 + shift}, 24)\n{loop}"), word)
        assert [row[0] for row in execute(found, where).rows] == [*b"ab", *bytes(22)]


def test_a_helpers_text_is_empty_where_it_was_not_copied() -> None:
    helpers = (
        "@helper\ndef first_letter(n: item) -> u64:\n    if n.small != 201:\n        t = n.name\n    return u64(t[5])\n"
        "@helper\ndef some(n: item) -> u64:\n    if n.small != 201:\n        a = local_array(u64, 2)\n        a[1] = 7\n"
        "    return a[1]\n"
    )
    for helper, expected in (("first_letter", [ord("0"), 0, ord("2"), ord("3")]), ("some", [7, 0, 7, 7])):
        assert numbers(f"for n in each(kernel.first):\n    emit(a={helper}(n))", before=helpers) == expected


def test_a_row_has_at_most_64_fields() -> None:
    fields = "".join(f"    f{number}: int\n" for number in range(65))
    text = f"class Wide(msgspec.Struct):\n{fields}\n@probe(row=Wide)\ndef run(kernel: Globals) -> None:\n    pass\n"
    with pytest.raises(CompileError, match="a row has at most 64 fields; Wide has 65"):
        program(text)


def test_no_index_loses_bits_unasked() -> None:
    body = "i: u64 = 1 << 32\nemit(a=kernel.first.table[i])"
    program(probe(body), 8)
    with pytest.raises(CompileError, match="a u64 is no index of a 32-bit guest"):
        program(probe(body), 4)
    assert numbers("i = 0\nwhile i < 2:\n    emit(a=kernel.first.table[i])\n    i += 1", word_size=4) == [0, 1]


def test_faults_say_where_they_come_from() -> None:
    outcome = execute(program(probe("emit(a=at(item, address_of(kernel.first) + 1).word)")))
    assert outcome.ended is not None
    assert outcome.ended.code == Code.MISALIGNED
    assert outcome.ended.address == KERNEL[8] + 17


def test_a_deep_expression_is_kept_in_parts() -> None:
    expression = " + ".join(["x"] * 300)
    assert numbers(f"emit(a={expression})", 3, parameters=", x: u64") == [900]


def test_a_member_that_was_asked_for_need_not_be_there() -> None:
    found = program(probe("n = kernel.first\nif exists(n.__state):\n    emit(a=n.__state)\nelse:\n    emit(a=7)"))
    assert [slot.optional for slot in found.slots if slot.path == "__state"] == [True]
    place = guest()
    del place.fills["item.__state"]
    assert execute(found, place).rows[0][0] == 7


def test_every_statement_names_its_line() -> None:
    found = program(probe("emit(a=kernel.first.word)"))
    lines = {statement.place.line for statement in flow.walk(found.body) if not isinstance(statement, ir.Block)}
    assert len(lines) == 1
