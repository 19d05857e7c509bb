"""What is read of a function's first instructions; the bytes are those that GNU as makes of the lines beside them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yamori.detectors.branches import READERS, WINDOW, branches

AT = 0xFFFF_FFFF_8100_0000
LOW = 0xC010_0000

CASES = {
    "endbr64; call .+0x0ffc": ("x86-64", AT, "f30f1efa e8f70f0000", AT + 0x1000),
    "jmp .-0x2009": ("x86-64", AT, "e9f2dfffff", AT - 0x2009),
    "jmp *0(%rip); .quad": ("x86-64", AT, "ff2500000000 563412c0ffffffff", 0xFFFF_FFFF_C012_3456),
    "movabs, %rax; jmp *%rax": ("x86-64", AT, "48b8563412c0ffffffff ffe0", 0xFFFF_FFFF_C012_3456),
    "movabs, %r11; jmp *%r11": ("x86-64", AT, "49bb563412c0ffffffff 41ffe3", 0xFFFF_FFFF_C012_3456),
    "movabs, %rax; push; ret": ("x86-64", AT, "48b8563412c0ffffffff 50 c3", 0xFFFF_FFFF_C012_3456),
    "push; ret": ("x86-64", AT, "68563412c0 c3", 0xFFFF_FFFF_C012_3456),
    "push; movl, 4(%rsp); ret": ("x86-64", AT, "6856341240 c7442404ffffffff c3", 0xFFFF_FFFF_4012_3456),
    "movabs, %rax; jmp *%rcx": ("x86-64", AT, "48b8563412c0ffffffff ffe1", None),
    "push %rbp; mov %rsp, %rbp": ("x86-64", AT, "55 4889e5", None),
    "nopl 0(%rax, %rax, 1)": ("x86-64", AT, "0f1f440000", None),
    "bti c; mov x9, x30; bl": ("aarch64", AT, "5f2403d5 e9031eaa feff0394", AT + 0x10_0000),
    "b .-0x4028": ("aarch64", AT, "f6efff17", AT - 0x4028),
    "ldr x16, .+8; br x16": ("aarch64", AT, "50000058 00021fd6 56341208 0080ffff", 0xFFFF_8000_0812_3456),
    "adrp x17, .+0x1000; add; br": ("aarch64", AT, "110000b0 31d20091 20021fd6", AT + 0x1034),
    "ldr x16, .+8; br x17": ("aarch64", AT, "50000058 20021fd6 56341208 0080ffff", None),
    "blr x3": ("aarch64", AT, "60003fd6", None),
    "push {lr}; bl": ("arm-short", LOW, "04e02de5 fdff03eb", LOW + 0x10_0000),
    "ldr pc, [pc, #-4]": ("arm-lpae", LOW, "04f01fe5 442301bf", 0xBF01_2344),
    "movw ip; movt ip; bx ip": ("arm-short", LOW, "44c302e3 01cf4be3 1cff2fe1", 0xBF01_2344),
    "ldr ip, [pc]; bx ip": ("arm-short", LOW, "00c09fe5 1cff2fe1 452301bf", 0xBF01_2345),
    "b .-0x4028, arm": ("arm-short", LOW, "f4efffea", LOW - 0x4028),
    "bx lr": ("arm-short", LOW, "1eff2fe1", None),
    "j .+0x1000": ("riscv64", AT, "6f100000 13000000", AT + 0x1000),
    "auipc t0; jalr t0": ("riscv64", AT, "97220100 e78202ff", AT + 0x1_1FF0),
    "auipc t0; ld t1; jr t1": ("riscv64", AT, "97020000 03b30201 67000300 13000000 68452301 ffffffff",
                               0xFFFF_FFFF_0123_4568),
    "auipc t0; jr t1": ("riscv64", AT, "97020000 67000300", None),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_target(name: str) -> None:
    architecture, at, code, target = CASES[name]
    data = bytes.fromhex(code)
    found = branches(READERS[architecture], b"\x90" * 8 + data.ljust(WINDOW, b"\0"), 8, at)
    assert found[:1] == ([] if target is None else [target])
    assert len(found) <= 1


@given(st.sampled_from([*READERS]), st.binary(max_size=WINDOW + 8), st.integers(0, (1 << 32) - 1))
def test_any_bytes(architecture: str, code: bytes, at: int) -> None:
    for target in READERS[architecture].targets(code[:WINDOW], at):
        assert 0 <= target < 1 << 65
    assert set(branches(READERS[architecture], code, 0, at)) <= {*READERS[architecture].targets(code[:WINDOW], at)}


@given(st.sampled_from(["x86-64", "aarch64", "arm-short"]), st.binary(min_size=WINDOW, max_size=WINDOW))
def test_what_tells_leaves_out_nothing_that_is_a_branch(architecture: str, code: bytes) -> None:
    reader = READERS[architecture]
    assert branches(reader, code, 0, LOW) == [*reader.targets(code, LOW)]
