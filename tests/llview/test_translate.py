"""The pass: behind it no load of guest memory is without its translation, and a load it forgot is refused."""

from __future__ import annotations

import copy

import pytest
from tests.llview.sources import execute, guest, module, probe

from yamori.llview import flow, ir
from yamori.llview.frontend import compile_probe
from yamori.llview.translate import translate
from yamori.llview.verify import VerifyError, verify

SOURCE = probe(
    """
for n in each(kernel.first):
    with attempt():
        if n.flag and n.word == 1001:
            emit(a=user_word(0x40000000, address_of(n)), c=n.name)
        else:
            emit(a=n.small, c=user_text(0x40000000, address_of(n.name), 5))
"""
)
LOADS = (ir.LoadVirt, ir.CopyVirt)


@pytest.mark.parametrize("word_size", [4, 8])
def test_every_load_is_translated(word_size: int) -> None:
    program = compile_probe(module(SOURCE).run, word_size)
    before = sum(isinstance(statement, LOADS) for statement in flow.walk(program.body))
    translate(program)
    statements = list(flow.walk(program.body))
    assert before
    assert not any(isinstance(statement, LOADS) for statement in statements)
    pages = [statement for statement in statements if isinstance(statement, ir.Page)]
    assert len(pages) == sum(isinstance(statement, ir.LoadHost) for statement in statements) >= before
    verify(program)


def test_a_load_that_the_pass_forgot_is_refused() -> None:
    source = compile_probe(module(SOURCE).run, 8)
    places = [n for n, statement in enumerate(flow.walk(source.body)) if isinstance(statement, LOADS)]
    for place in places:
        program = copy.deepcopy(source)
        forgotten = list(flow.walk(program.body))[place]
        body = next(
            body
            for body in [program.body, *(inner for s in flow.walk(program.body) for inner in flow.children(s))]
            if any(statement is forgotten for statement in body)
        )
        at = next(n for n, statement in enumerate(body) if statement is forgotten)
        body[at] = ir.ClearBuffer(place=forgotten.place, buffer=next(iter(program.buffers)))
        translate(program)
        for other in [program.body, *(inner for s in flow.walk(program.body) for inner in flow.children(s))]:
            other[:] = [forgotten if isinstance(s, ir.ClearBuffer) and s.place is forgotten.place else s for s in other]
        with pytest.raises(VerifyError, match="not translated"):
            verify(program)


@pytest.mark.parametrize("word_size", [4, 8])
@pytest.mark.parametrize("shift", range(9))
@pytest.mark.parametrize("length", [0, 1, 3, 7, 8, 9, 15, 16, 17, 40])
def test_texts(word_size: int, shift: int, length: int) -> None:
    """A text is read by words where that is possible, and never behind its end."""
    place = guest(word_size)
    start = place.kernel + 0x2000 + shift
    for at in range(length):
        place.put(start + at, 65 + at % 26, 1)
    place.put(start + length, 0, 1)
    program = verify(translate(compile_probe(module(probe(f"emit(a=1, c=text({start}, 16))")).run, word_size)))
    outcome = execute(program, place)
    expected = bytes(65 + at % 26 for at in range(min(length, 16)))
    assert outcome.rows == [(1, None, expected, None)]
    last = max(address + size for kind, address, size in outcome.events if kind == "V")
    assert last <= (start + min(length + 1, 16) + word_size - 1) & -word_size
    assert last <= start + 16
