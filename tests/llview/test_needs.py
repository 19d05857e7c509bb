"""Which slots a probe needs on one kernel: every one that a run could use there, none behind a test that is false."""

from __future__ import annotations

import pytest
from tests.llview.sources import guest, probe, program

from yamori.llview.machine import SlotFill
from yamori.llview.needs import needed

LACKS = "item.__state"

CASES = [
    # behind exists() of what the kernel lacks there is nothing
    ("if exists(n.__state):\n    emit(a=n.__state)\nelse:\n    emit(a=1)", False),
    ("known = exists(n.__state)\nif known:\n    emit(a=n.__state)", False),
    ("if has(n):\n    emit(a=n.__state)", False),
    ("if exists(n.__state) == True:\n    emit(a=n.__state)", False),
    ("if exists(n.__state) and n.__state != 0:\n    emit(a=1)", False),
    ("while exists(n.__state) and n.__state != 0:\n    emit(a=1)", False),
    ("if picked(n):\n    emit(a=n.__state)", False),
    ("if exists(n.__state) != True:\n    emit(a=n.__state)", True),
    ("if not has(n) or n.small == 1:\n    emit(a=1)\nelse:\n    emit(a=n.__state)", False),
    ("for i in range(3):\n    if not exists(n.__state):\n        continue\n    emit(a=n.__state)", False),
    ("if n.small == 1:\n    known = exists(n.__state)\n    if known:\n        emit(a=n.__state)", False),
    # but whatever a run may come to is needed
    ("emit(a=n.__state)", True),
    ("if not exists(n.__state):\n    emit(a=n.__state)", True),
    ("if exists(n.__state) or n.small == 1:\n    emit(a=n.__state)", True),
    ("with attempt() as failed:\n    emit(a=n.small)\nif failed:\n    emit(a=n.__state)", True),
    ("has = True\nif n.small == 77:\n    has = exists(n.__state)\nif has:\n    emit(a=n.__state)", True),
    # a variable that only one way has set is 0 on the other
    ("if n.small == 77:\n    known = exists(n.__state)\nif not known:\n    emit(a=n.__state)", True),
    ("known = exists(n.__state)\nknown = n.small == 1\nif known:\n    emit(a=n.__state)", True),
    ("if n.flag:\n    lacks = not exists(n.__state)\nif lacks:\n    emit(a=1)\nelse:\n    emit(a=n.number)", False),
    (("for i in range(2):\n    if n.small == 1:\n        break\n    lacks = not exists(n.__state)\n"
     "if lacks:\n    emit(a=1)\nelse:\n    emit(a=n.__state)"), True),
    (("with attempt():\n    emit(a=n.word)\n    lacks = not exists(n.__state)\nif lacks:\n    emit(a=1)\n"
     "else:\n    emit(a=n.__state)"), True),
    (("for i in range(2):\n    if lacks:\n        emit(a=1)\n    else:\n        emit(a=n.__state)\n"
     "    lacks = not exists(n.__state)"), True),
]  # fmt: skip

HELPER = "@helper\ndef has(n: item) -> bool:\n    return exists(n.__state)\n\n\n"
PICKED = "@helper\ndef picked(n: item) -> bool:\n    if exists(n.__state):\n        return True\n    return False\n\n\n"


@pytest.mark.parametrize(("body", "expected"), CASES)
def test_what_a_kernel_without_a_member_must_still_have(body: str, expected: bool) -> None:
    found = program(HELPER + PICKED + probe(f"n = kernel.first\nknown, lacks = False, False\n{body}"))
    fills = [guest().fills.get(str(spec), SlotFill(exists=False)) for spec in found.slots]
    fills = [
        SlotFill(exists=False) if str(spec) == LACKS else fill for spec, fill in zip(found.slots, fills, strict=True)
    ]
    assert (LACKS in {str(found.slots[slot]) for slot in needed(found.body, fills)}) == expected
