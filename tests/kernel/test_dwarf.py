"""A maker's vmlinux, stood in for by a C program: what DWARF tells is compared with what the program itself prints."""

from __future__ import annotations

import random
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from yamori.errors import ProfileError
from yamori.kernel import dwarf
from yamori.kernel.btf import MAGIC

GCC, OBJCOPY = shutil.which("gcc"), shutil.which("objcopy")
needs_gcc = pytest.mark.skipif(GCC is None or OBJCOPY is None, reason="needs gcc and objcopy on this machine")

WANTED = ["task_struct", "pid", "mm_struct", "pid_type", "task_t", "not_there", "file"]

DECLARATIONS = r"""
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <stdint.h>
const char linux_banner[] = "Linux version 6.1.0-test (me@here) #1 SMP\n";
struct list_head { struct list_head *next, *prev; };
struct nowhere;
struct mm_struct { uint64_t pgd; struct nowhere *owner; volatile const int users; double load; };
struct pid { int level; };
struct profile { int pad; };
struct not_a_file { int x; };
enum pid_type { PIDTYPE_PID, PIDTYPE_TGID, PIDTYPE_NONE = -1 };
enum big { BIG = 0x100000005 };
typedef int pid_t_;
struct task_struct {
    pid_t_ pid;
    char comm[16];
    struct { struct list_head tasks; union { int a; long b; }; };
    struct mm_struct *mm, inner;
    unsigned first : 1, second : 5;
    int signed_bits : 7;
    uint64_t wide : 33;
    _Bool flag : 1;
    enum pid_type kind;
    enum big big;
    int grid[2][3];
    struct pid pids[4];
    void (*call)(void);
    int rest[];
};
typedef struct task_struct task_t;
struct file { struct list_head f_list; };
static struct task_struct task; static struct file file; static struct profile prof; static struct not_a_file naf;
static task_t *hold;
"""

# Path in the kernel's sense, and the C expression of the member.
PLAIN = ["pid", "comm", "tasks", "tasks.prev", "a", "b", "mm", "inner", "inner.pgd", "inner.owner", "inner.users",
         "inner.load", "kind", "big", "grid", "pids", "call"]  # fmt: skip
ARRAYS = {"comm": "comm[0]", "grid": "grid[0][0]", "pids": "pids[0]"}
BITS = ["first", "second", "signed_bits", "wide", "flag"]


def _program() -> str:
    lines = [
        f'printf("{path} %zu %zu\\n", offsetof(struct task_struct, {path}), sizeof task.{path});' for path in PLAIN
    ]
    lines += [f'printf("stride-{path} %zu 0\\n", sizeof task.{element});' for path, element in ARRAYS.items()]
    lines += [f'memset(&task, 0, sizeof task); task.{path} = -1; dump("{path}");' for path in BITS]
    lines += [f'printf("sizeof-{name} %zu 0\\n", sizeof(struct {name}));' for name in ("task_struct", "pid", "file")]
    return f"""{DECLARATIONS}
static void dump(const char *name) {{
    const unsigned char *bytes = (void *)&task; int low = -1, count = 0;
    for (unsigned bit = 0; bit < 8 * sizeof task; bit++)
        if (bytes[bit / 8] >> bit % 8 & 1) {{ if (low < 0) low = bit; count++; }}
    printf("%s %d %d\\n", name, low, count);
}}
int main(void) {{ hold = &task; (void)file; (void)prof; (void)naf; {" ".join(lines)} return hold == 0; }}
"""


def _compile(folder: Path, *options: str) -> Path:
    source, out = folder / "kernel.c", folder / "vmlinux"
    source.write_text(_program())
    assert GCC
    subprocess.run([GCC, "-w", "-O0", "-Wl,--build-id=0x00c0ffee", *options, "-o", out, source], check=True)
    return out


@pytest.fixture(scope="module")
def vmlinux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _compile(tmp_path_factory.mktemp("dwarf"), "-gdwarf-5")


@needs_gcc
@pytest.mark.parametrize(
    "options",
    [
        ["-gdwarf-4"],
        ["-gdwarf-5"],
        ["-gdwarf-5", "-gz=zlib"],
        ["-gdwarf-4", "-gstrict-dwarf"],
        ["-gdwarf-5", "-no-pie"],
    ],
)
def test_layout_is_what_the_program_says(tmp_path: Path, options: list[str]) -> None:
    program = _compile(tmp_path, *options)
    output = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    truth = {name: (int(first), int(second)) for name, first, second in map(str.split, output.splitlines())}
    types, symbols, build = dwarf.load_vmlinux(program, WANTED)

    for path in PLAIN:
        member = types.member("task_struct", path)
        assert member is not None, path
        assert (member.offset, member.size, member.bits, member.provenance) == (*truth[path], 0, "dwarf"), path
        assert member.stride == truth.get(f"stride-{path}", (0, 0))[0], path
    for path in BITS:
        member = types.member("task_t", path)
        assert member is not None, path
        assert (member.offset * 8 + member.shift, member.bits) == truth[path], path
        assert member.shift + member.bits <= member.size * 8
    for name in ("task_struct", "pid", "file"):
        assert types.size(name) == truth[f"sizeof-{name}"][0]

    signs = {
        path: getattr(types.member("task_struct", path), "signed", None) for path in ("pid", "signed_bits", "wide")
    }
    assert signs == {"pid": True, "signed_bits": True, "wide": False}
    assert types.enumerator("PIDTYPE_TGID") == 1
    assert types.enumerator("PIDTYPE_NONE") == -1
    assert types.enumerator("BIG") == 0x100000005
    assert types.size("not_there") is None
    assert types.member("task_struct", "mm.pgd") is None
    assert types.member("task_struct", "rest") is not None

    assert build == (
        "00c0ffee", "Linux version 6.1.0-test (me@here) #1 SMP", build.machine, struct.calcsize("P")
    )  # fmt: skip
    main = symbols.find("main")
    assert main is not None
    assert main.kind == "T"
    banner, hold = symbols.find("linux_banner"), symbols.find("hold")
    assert banner is not None
    assert hold is not None
    assert (banner.kind, hold.kind) == ("R", "b")


@needs_gcc
def test_symbols_are_those_of_nm(vmlinux: Path) -> None:
    nm = shutil.which("nm")
    assert nm
    lines = subprocess.run([nm, vmlinux], check=True, capture_output=True, text=True).stdout.splitlines()
    expected = {(int(line[:16], 16), line[17].lower(), line[19:]) for line in lines if line[:16].strip()}
    symbols = dwarf.load_vmlinux(vmlinux, ["task_struct"]).symbols
    assert {(symbol.address, symbol.name) for symbol in symbols} == {(address, name) for address, _, name in expected}
    assert {symbol.name for symbol in symbols if symbol.kind in "tT"} == {
        name for _, kind, name in expected if kind == "t"
    }


@needs_gcc
def test_btf_is_preferred(vmlinux: Path, tmp_path: Path) -> None:
    blob = MAGIC + struct.pack("<5I", 24, 0, 12, 12, 10) + struct.pack("<3I", 1, 4 << 24, 77) + b"\0only_btf\0"
    section, out = tmp_path / "btf", tmp_path / "vmlinux"
    for content, expected in ((blob, 77), (blob[:-1], None)):  # one that is damaged is passed over
        section.write_bytes(content)
        assert OBJCOPY
        subprocess.run([OBJCOPY, f"--add-section=.BTF={section}", vmlinux, out], check=True)
        types = dwarf.load_vmlinux(out, ["task_struct"]).types
        assert types.size("only_btf") == expected
        assert (types.size("task_struct") is None) == (expected is not None)
        assert types.provenance == "dwarf"


@needs_gcc
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-g", "-s"], "stripped"),
        (["-g0"], "no debug information"),
        (["-g", "-c", "-Wl,"], "not a little-endian vmlinux"),
    ],
)
def test_files_that_lack_something(tmp_path: Path, options: list[str], message: str) -> None:
    program = _compile(tmp_path, *options)
    with pytest.raises(ProfileError, match=message) as caught:
        dwarf.load_vmlinux(program, WANTED)
    assert caught.value.where == str(program)
    assert caught.value.hint


@needs_gcc
def test_nothing_of_what_is_wanted(vmlinux: Path) -> None:
    with pytest.raises(ProfileError, match="none of the wanted types"):
        dwarf.load_vmlinux(vmlinux, ["not_there"])


def test_files_that_are_something_else(tmp_path: Path) -> None:
    text = tmp_path / "vmlinuz"
    text.write_bytes(b"MZ" + bytes(5000))
    with pytest.raises(ProfileError, match="not an ELF file"):
        dwarf.load_vmlinux(text, WANTED)
    with pytest.raises(ProfileError, match="cannot be read"):
        dwarf.load_vmlinux(tmp_path / "none", WANTED)
    with pytest.raises(ProfileError, match="cannot be read"):
        dwarf.load_vmlinux(tmp_path, WANTED)


def test_without_pyelftools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "elftools.elf.elffile", None)
    with pytest.raises(ProfileError, match=r"install yamori\[dwarf\]"):
        dwarf.load_vmlinux(tmp_path / "vmlinux", WANTED)


@needs_gcc
def test_damaged_files(vmlinux: Path, tmp_path: Path) -> None:
    whole = vmlinux.read_bytes()
    chance = random.Random(7)
    outcomes = set()
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(chance.randrange(1, 40)):
            damaged[chance.randrange(len(whole))] = chance.randrange(256)
        path = tmp_path / "vmlinux"
        path.write_bytes(damaged[: chance.randrange(len(whole))] if chance.random() < 0.3 else damaged)
        try:
            types = dwarf.load_vmlinux(path, WANTED).types
        except ProfileError as error:
            outcomes.add("refused" if error.where == str(path) else error.where)
        else:
            types.member("task_struct", "inner.pgd")
            outcomes.add("read")
    assert outcomes == {"refused", "read"}


# --- types that are read when somebody asks for them

LATER = r"""
struct later; struct ops { int (*open)(struct later *, const char *); };
typedef struct { int counter; } atomic_t;
typedef struct node { struct node *next; } node_t;
union either { int whole; struct { short low, high; }; };
struct later { int first; union either either; const struct ops *ops; node_t *nodes; atomic_t *anonymous; void *any; };
struct task_struct { struct later *later; _Bool flag; unsigned long class; int (*table[2])(void); };
enum color { RED, GREEN = 5 };
struct task_struct init_task; struct later hold; enum color color; static union either hidden; struct nowhere *lost;
struct ops ops; node_t node; atomic_t atomic;
int main(int count) { int init = count; hidden.whole = init; return hidden.low; }
"""


@pytest.fixture(scope="module", params=["-gdwarf-4", "-gdwarf-5"])
def later(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if GCC is None:
        pytest.skip("needs gcc on this machine")
    source = tmp_path_factory.mktemp("later") / "later.c"
    source.write_text(LATER)
    subprocess.run([GCC, "-w", "-O0", str(request.param), "-o", source.with_suffix(""), source], check=True)
    return source.with_suffix("")


def test_types_are_found_when_they_are_asked_for(later: Path) -> None:
    types = dwarf.load_vmlinux(later, ["task_struct"]).types
    graph = types.graph
    task = graph.find("struct task_struct")
    assert task is not None
    pointer = graph.field(task, "later")
    assert pointer is not None
    found = graph.target(pointer.type)
    assert (found.kind, found.name) == ("struct", "struct later")
    assert types.size("later") is None  # layouts are those that were wanted
    spelled = {name: field.type.name for name in graph.members(found) if (field := graph.field(found, name))}
    assert spelled == {
        "first": "int",
        "either": "union either",
        "ops": "const struct ops *",
        "nodes": "node_t *",
        "anonymous": "atomic_t *",
        "any": "void *",
    }
    ops = graph.field(found, "ops")
    assert ops is not None
    call = graph.field(graph.target(ops.type), "open")
    assert call is not None
    assert call.type.name == "int (*)(struct later *, const char *)"
    nodes = graph.field(found, "nodes")
    assert nodes is not None
    assert graph.members(graph.target(nodes.type)) == ["next"]
    either = graph.find("union either")
    assert either is not None
    assert graph.members(either) == ["whole", "low", "high"]
    assert graph.find("nope") is None
    color = graph.find("enum color")
    assert color is not None
    assert graph.enumerator_name(color, 5) == "GREEN"
    flag = graph.field(task, "flag")
    assert flag is not None
    assert flag.type.kind == "bool"


def test_variables_are_found_when_they_are_asked_for(later: Path) -> None:
    graph = dwarf.load_vmlinux(later, ["task_struct"]).types.graph
    names = ("init_task", "hidden", "main", "lost", "init", "nope")
    found = [kind.name if (kind := graph.variable(name)) else None for name in names]
    assert found == ["struct task_struct", "union either", "int (int)", "struct nowhere *", None, None]


def test_a_file_that_is_gone_or_damaged_later(later: Path, tmp_path: Path) -> None:
    copy = tmp_path / "vmlinux"
    shutil.copy(later, copy)
    gone = dwarf.load_vmlinux(copy, ["task_struct"]).types.graph
    copy.unlink()
    assert gone.find("later") is None
    data = later.read_bytes()
    chaos = random.Random(1)
    for _ in range(12):
        copy.write_bytes(data)
        graph = dwarf.load_vmlinux(copy, ["task_struct"]).types.graph
        copy.write_bytes(bytes(byte ^ (chaos.random() < 0.01) * 255 for byte in data))
        for name in ("later", "union either", "node_t"):
            kind = graph.find(name)
            assert kind is None or len(graph.members(kind)) < 100
        graph.variable("main")
