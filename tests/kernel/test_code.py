"""What functions use of their arguments, told from machine code that compilers made of C."""

from __future__ import annotations

import io
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple, cast

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection
from hypothesis import given, settings
from hypothesis import strategies as st

from yamori.address import GVA
from yamori.kernel import code as room
from yamori.kernel import witnesses
from yamori.kernel.code import Code
from yamori.kernel.symbols import Symbol, Symbols
from yamori.kernel.types import Member
from yamori.translation.space import AddressSpace

COMPILERS = {
    "arm": ("arm-linux-gnueabi-gcc", "-march=armv7-a", "-marm"),
    "thumb": ("arm-linux-gnueabi-gcc", "-march=armv7-a", "-mthumb", "-falign-functions=2"),
    "aarch64": ("aarch64-linux-gnu-gcc",),
    "riscv64": ("riscv64-linux-gnu-gcc", "-march=rv64gc", "-mno-relax"),
    "x86_64": ("x86_64-linux-gnu-gcc",),
}
AT = 0x1000_0000

SOURCE = """
struct mm_struct { char a[24]; void *pgd; char b[300]; unsigned long arg_start, arg_end, env_start, env_end; };
struct cred { int usage; unsigned uid, gid; };
struct task_struct {
    char a[0x2c]; unsigned flags; char b[100]; struct mm_struct *mm; struct cred *cred; char comm[16];
    unsigned long last;
};
const unsigned offsets[] = {
    __builtin_offsetof(struct task_struct, flags), __builtin_offsetof(struct task_struct, mm),
    __builtin_offsetof(struct task_struct, cred), __builtin_offsetof(struct task_struct, comm),
    __builtin_offsetof(struct task_struct, last), __builtin_offsetof(struct cred, uid),
    __builtin_offsetof(struct mm_struct, arg_start), __builtin_offsetof(struct mm_struct, env_end),
};
void *sink(const void *);
struct mm_struct *get_task_mm(struct task_struct *task);
long many(long, long, long, long, long, long);

void *loads(struct task_struct *task) { return task->mm; }
void stores(struct task_struct *task, void *mm) { task->mm = mm; }
unsigned chained(struct task_struct *task) { return task->cred->uid; }
unsigned behind_a_call(struct task_struct *task) { sink(0); return task->flags; }
void hands_on(struct task_struct *task) { sink(0); sink(task->comm); }
unsigned long behind_a_loop(struct task_struct *task) { while (task->flags & 1) sink(task); return task->last; }
long of_a_result(struct task_struct *task) {
    struct mm_struct *mm = get_task_mm(task);
    if (!mm) return 0;
    sink(mm);
    return mm->env_end - mm->arg_start;
}
long spilt(struct task_struct *task, long a, long b, long c) {
    long d = many(a, b, c, a, b, c), e = many(d, b, c, a, b, c), f = many(d, e, c, a, b, c), g = many(d, e, f, a, b, c);
    long h = many(d, e, f, g, b, c), i = many(d, e, f, g, h, c), j = many(d, e, f, g, h, i), k = many(j, i, h, g, f, e);
    many(a, b, c, d, e, f); many(g, h, i, j, k, a); many(b, c, d, e, f, g); many(h, i, j, k, a, b);
    return task->last + a + b + c + d + e + f + g + h + i + j + k;
}
int number = 1;
char text[64] = "/sbin/modprobe";
unsigned long *table[64];
int of_a_variable(void) { return number; }
void hands_on_a_variable(void) { sink(0); sink(text); }
unsigned long *of_a_table(unsigned long index) { return table[index % 64]; }
int is_a_variable(const void *it) { return it == text; }
unsigned long by_number(unsigned long *table, long number) { return table[number]; }
unsigned long of_nothing(long number) { return *(unsigned long *)(number * 3); }
"""


class Built(NamedTuple):
    """A compiled file: its text, where its functions and variables lie, and the offsets of members."""

    text: bytes
    functions: Mapping[str, range]
    variables: Mapping[str, int]
    offsets: tuple[int, ...]


class Text:
    """An address space that has a text only."""

    def __init__(self, text: bytes) -> None:
        self.text = text

    def read(self, gva: GVA, size: int) -> bytes:
        return self.text[gva - AT : gva - AT + size]

    def u32(self, gva: GVA) -> int:
        return int.from_bytes(self.read(gva, 4), "little")


@cache
def built(machine: str) -> Built:
    compiler, *flags = COMPILERS[machine]
    if machine == "x86_64" and platform.machine() == "x86_64":
        compiler = "gcc"
    if not shutil.which(compiler):
        pytest.skip(f"{compiler} is not installed")
    flags += ["-O2", "-fno-pie", "-fno-stack-protector", "-fno-asynchronous-unwind-tables", "-x", "c", "-"]
    flags += ["-no-pie", "-nostdlib", "-static", "-Wl,-e,0", f"-Wl,-Ttext={AT:#x}"]
    flags += [f"-Wl,--defsym={name}={AT + 0x8000:#x}" for name in ("sink", "get_task_mm", "many")]
    with tempfile.NamedTemporaryFile(suffix=".o") as file:
        subprocess.run([compiler, *flags, "-o", file.name], input=SOURCE.encode(), check=True)
        elf = ELFFile(io.BytesIO(Path(file.name).read_bytes()))
    table, text = elf.get_section_by_name(".symtab"), elf.get_section_by_name(".text")
    assert isinstance(table, SymbolTableSection)
    assert text is not None
    symbols = {symbol.name: symbol for symbol in table.iter_symbols()}
    constants = symbols["offsets"]
    section = elf.get_section(constants["st_shndx"])
    data = section.data()[constants["st_value"] - section["sh_addr"] :][: constants["st_size"]]
    functions = {
        name: range(symbol["st_value"] & ~1, (symbol["st_value"] & ~1) + symbol["st_size"])
        for name, symbol in symbols.items()
        if symbol["st_info"]["type"] == "STT_FUNC"
    }
    variables = {
        name: symbol["st_value"] for name, symbol in symbols.items() if symbol["st_info"]["type"] == "STT_OBJECT"
    }
    values = tuple(int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4))
    return Built(text.data(), functions, variables, values)


def paths(machine: str, function: str) -> frozenset[room.Path]:
    code = Code(cast("AddressSpace", Text(built(machine).text)), machine)
    return code.paths(built(machine).functions[function])


@pytest.mark.parametrize("machine", COMPILERS)
def test_what_functions_use_of_what_they_are_given(machine: str) -> None:
    flags, mm, cred, comm, last, uid, arg_start, env_end = built(machine).offsets
    assert paths(machine, "loads") == {(mm,)}
    assert paths(machine, "stores") == {(mm,)}
    assert paths(machine, "chained") == {(cred,), (cred, uid)}
    assert paths(machine, "behind_a_call") == {(flags,)}
    assert paths(machine, "hands_on") == {(comm,)}
    assert {(flags,), (last,)} <= paths(machine, "behind_a_loop")
    assert {(arg_start,), (env_end,)} <= paths(machine, "of_a_result")
    assert (last,) in paths(machine, "spilt")


@pytest.mark.parametrize("machine", COMPILERS)
def test_which_variables_functions_use(machine: str) -> None:
    functions, variables = built(machine).functions, built(machine).variables
    code = Code(cast("AddressSpace", Text(built(machine).text)), machine)
    for function, variable in {
        "of_a_variable": "number",
        "hands_on_a_variable": "text",
        "of_a_table": "table",
        "is_a_variable": "text",
    }.items():
        used = code.addresses(functions[function]) & set(variables.values())
        assert variables[variable] in used, function
        assert len(used) <= 2, function  # compilers reckon from one variable to its neighbour
        assert paths(machine, function) == frozenset(), function
    assert code.addresses(functions["loads"]) == frozenset()


@pytest.mark.parametrize("machine", COMPILERS)
def test_what_is_not_known_is_not_said(machine: str) -> None:
    assert paths(machine, "by_number") == frozenset()
    assert paths(machine, "of_nothing") == frozenset()


@pytest.mark.parametrize("machine", COMPILERS)
@settings(max_examples=40, deadline=None)
@given(data=st.binary(max_size=400))
def test_any_bytes_are_read_without_an_error(machine: str, data: bytes) -> None:
    code = Code(cast("AddressSpace", Text(data)), machine)
    for path in code.paths(range(AT, AT + len(data)), range(AT + 8, AT + 40)):
        assert path
        assert all(isinstance(offset, int) for offset in path)


def _testimony(machine: str, names: Mapping[str, str], members: Mapping[str, int]) -> dict[tuple[str, str], str]:
    """Ask the functions of SOURCE under the names that the kernel has for such."""
    functions = built(machine).functions
    symbols = Symbols([Symbol(text.start, "T", names.get(ours, ours)) for ours, text in functions.items()], "kallsyms")
    space = cast("AddressSpace", Text(built(machine).text))
    architecture = "arm" if machine == "thumb" else machine

    def known(struct: str, path: str) -> Member | None:
        return _member(members.get(f"{struct}.{path}"))

    return witnesses.testimony(space, architecture, [symbols], known)


def _member(offset: int | None) -> Member | None:
    return None if offset is None else Member(offset, 4)


@pytest.mark.parametrize("machine", COMPILERS)
def test_code_confirms_what_is_right_and_nothing_else(machine: str) -> None:
    flags, mm, cred, _, _, uid, *_ = built(machine).offsets
    names = {"loads": "get_task_mm", "chained": "sys_getuid"}
    right = {"task_struct.mm": mm, "task_struct.cred": cred, "cred.uid": uid, "task_struct.flags": flags}
    assert _testimony(machine, names, right) == {
        ("task_struct", "mm"): "get_task_mm",
        ("task_struct", "cred"): "sys_getuid",
        ("cred", "uid"): "sys_getuid",
    }
    for wrong in (-16, -8, -4, 4, 8, 16):
        shifted = {**right, "task_struct.mm": mm + wrong, "cred.uid": uid + wrong}
        assert _testimony(machine, names, shifted) == {("task_struct", "cred"): "sys_getuid"}


def test_a_function_that_uses_everything_confirms_nothing() -> None:
    text = (
        b"".join(b"\x48\x8b\x87" + (8 * number).to_bytes(4, "little") for number in range(witnesses.MOST_PATHS + 1))
        + b"\xc3"
    )
    symbols = Symbols([Symbol(AT, "T", "get_task_mm")], "kallsyms")
    space = cast("AddressSpace", Text(text))
    assert witnesses.testimony(space, "x86_64", [symbols], lambda *_: Member(16, 8)) == {}
    few = cast("AddressSpace", Text(text[: 7 * 4] + b"\xc3"))
    said = witnesses.testimony(few, "x86_64", [symbols], lambda *_: Member(16, 8))
    assert said["task_struct", "mm"] == "get_task_mm"
