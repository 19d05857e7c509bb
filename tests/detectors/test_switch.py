"""The switch that x86-64 dispatches system calls by; the bytes are those that GNU as makes of the lines beside them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.detectors.test_hooks import Scene
from tests.kernel.synthetic import ARM64, MODULES, X86

from yamori.detectors.switch import HIGHEST, UndecodedError, Way, ways
from yamori.detectors.view import View
from yamori.errors import YamoriError

AT = 0xFFFF_FFFF_8100_0000


def jump(at: int, target: int, code: int = 0xE9) -> bytes:
    return bytes([code]) + (target - at - 5).to_bytes(4, "little", signed=True)


def made(read: int, write: int, other: int) -> bytes:
    """Return a switch of numbers 0 and 1, with jumps as gcc makes them, and with a call."""
    head = bytes.fromhex("f30f1efa 0f1f440000 81fe01000000")  # endbr64; nopl; cmp $1, %esi
    head += bytes.fromhex("0f8407000000 770b")  # je 1f (behind ja and jmp); ja 2f
    head += jump(AT + len(head), read)
    one = jump(AT + len(head), write, 0xE8) + b"\xc3"  # 1: call; ret
    return head + one + jump(AT + len(head) + len(one), other)  # 2:


def test_each_number_goes_its_way() -> None:
    found = sorted(ways(made(AT + 0x1000, AT + 0x2000, AT - 0x3000), AT))
    assert [(way.first, way.last, way.target) for way in found] == [
        (0, 0, AT + 0x1000),
        (1, 1, AT + 0x2000),
        (2, HIGHEST, AT - 0x3000),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    {
        "83fe0a 730e": [(0, 9, 0), (10, HIGHEST, 19)],  # cmp $10, %esi; jae: out of the function
        "83feff 740e": [(0, HIGHEST - 1, 0), (HIGHEST, HIGHEST, 19)],  # cmp $-1: the highest number
        "85f6 750f": [(0, 0, 0), (1, HIGHEST, 19)],  # test %esi, %esi; jne
        "6690 90 eb10": [(0, HIGHEST, 21)],
    }.items(),
)
def test_comparisons(text: str, expected: list[tuple[int, int, int]]) -> None:
    code = bytes.fromhex(text) + b"\xc3"
    found = [Way(way.first, way.last, 0, way.target and way.target - AT) for way in ways(code, AT)]
    assert sorted(found) == [Way(first, last, 0, target) for first, last, target in expected]


@pytest.mark.parametrize(
    "text",
    {
        "je without a comparison": "7402 c3",
        "signed": "83fe0a 7f02 c3",
        "jo": "83fe0a 7002 c3",
        "jmp *%rax": "ffe0",
        "jmp .": "ebfe",
        "cut off": "0f",
    }.items(),
)
def test_what_is_not_understood_is_not_passed_over(text: tuple[str, str]) -> None:
    with pytest.raises(UndecodedError):
        list(ways(bytes.fromhex(text[1]), AT))


@given(st.binary(max_size=64))
def test_any_bytes(code: bytes) -> None:
    try:
        found = list(ways(code, AT))
    except YamoriError:
        return
    assert all(0 <= way.first <= way.last <= HIGHEST for way in found)


def scene(**elsewhere: int) -> Scene:
    """Return a kernel that dispatches as its table says; the last of its calls may be led elsewhere."""
    one = Scene(X86)
    place = one.name("x64_sys_call", one.guest.symbols["_stext"] + 0x1000)
    table = [row.address for row in View(one.kernel()).calls()]
    table[-1] = elsewhere.get("last", table[-1])
    code = b""
    for nr, target in enumerate(table):
        code += b"\x81\xfe" + nr.to_bytes(4, "little") + b"\x0f"  # cmp $nr, %esi; je
        code += jump(place + len(code), target, 0x84)
    code += jump(place + len(code), table[0])
    one.guest.write(place, code)
    one.name("behind", place + len(code))
    return one


def last() -> str:
    return f"system call {View(Scene(X86).kernel()).calls()[-1].nr}"


def test_a_switch_that_is_whole() -> None:
    report = scene().check("dispatched-calls")
    assert (report.findings, report.complete) == ([], True)


def test_a_switch_that_leads_elsewhere() -> None:
    foreign = MODULES[X86.name] + 0x40
    (found,) = scene(last=foreign).check("dispatched-calls").findings
    assert (found.subject, found.severity, f"{foreign:#x}" in found.why[1]) == (last(), "critical", True)
    (found,) = scene(last=Scene(X86).guest.symbols["helper7"]).check("dispatched-calls").findings
    assert (found.subject, "no system call" in found.title) == (last(), True)
    (found,) = scene(last=Scene(X86).guest.symbols["helper7"] + 2).check("dispatched-calls").findings
    assert (found.subject, "middle" in found.title) == (last(), True)
    (found,) = scene(last=View(Scene(X86).kernel()).calls()[0].address).check("dispatched-calls").findings
    assert (found.subject, "another system call" in found.title) == (last(), True)


def test_a_return_by_way_of_a_thunk() -> None:
    thunk = Scene(X86).guest.symbols["helper7"]
    one = scene(last=thunk)
    one.name("__x86_return_thunk", thunk)
    assert one.check("dispatched-calls").findings == []


def test_a_way_round_the_switch() -> None:
    one = scene()
    place = one.name("do_syscall_64", one.names["behind"] + 0x40)
    one.name("after", place + 0x20)
    one.guest.write(place, b"\x90" + jump(place + 1, one.names["x64_sys_call"], 0xE8))
    assert one.check("dispatched-calls").findings == []
    one.guest.write(place, b"\x90" + jump(place + 1, one.names["x64_sys_call"] - 10, 0xE8))  # where calls are counted
    assert one.check("dispatched-calls").findings == []
    one.guest.write(place, b"\x90" + jump(place + 1, one.guest.symbols["helper7"], 0xE8))
    (found,) = one.check("dispatched-calls").findings
    assert found.subject == "function do_syscall_64"


def test_what_cannot_be_followed_is_not_checked() -> None:
    one = scene()
    one.guest.write(one.names["x64_sys_call"], b"\xff\xe0")
    ((_, reason),) = one.check("dispatched-calls").not_checked
    assert "not understood" in reason
    assert Scene(ARM64).check("dispatched-calls").complete  # has a table
