"""Programs as C: one freestanding file a unit, in which each statement names its line of the source.

A unit is a list of probes for one word size and the walkers they may need; its text begins with the shared structures
and ``runtime.h``. Slots and geometry come from the context, so one object serves every kernel of a word size. Every
probe is a function ``uint64_t ll_run_NAME(struct ll_context *)``, which returns 0, or 1 where a fault ended the run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import PurePath

from yamori.llview.c_function import Constants, Function
from yamori.llview.ir import Program
from yamori.llview.layout import C_TEXT, GEOMETRY_WORDS, inside_text
from yamori.llview.unit import Unit
from yamori.llview.verify import VerifyError, verify

_RULER = "/* " + "-" * 110 + " */"


def c_source(unit: Unit, sources: Mapping[str, Sequence[str]] | None = None) -> str:
    """Write a unit as C.

    Args:
        unit: The programs; they are verified here.
        sources: File → its lines, to be quoted beside the statements.

    Raises:
        VerifyError: A program must not run, or has what no native code can have.
    """
    head = f"/* {unit.name}: written by Yamori's LLView from the probes and walkers named below. */"
    return "\n".join([head, C_TEXT, *_programs(unit, sources, None)])


def folded_source(unit: Unit, constants: Constants, tlb_entries: int) -> str:
    """Write a unit as C for one kernel, to stand inside of a larger text; see ``LL_INSIDE`` of ``runtime.h``.

    That text has the types of ``stdint.h`` and ``NULL`` already. Behind a probe's arguments the context has one more,
    the bytes by which the kernel lies behind where it was when its slots were filled.

    Args:
        unit: The programs; they are verified here. There is one walker.
        constants: What is folded.
        tlb_entries: Entries of the cache of translations; a power of two.

    Raises:
        VerifyError: A program must not run, or has what no native code can have.
    """
    return "\n".join(["#define LL_INSIDE", inside_text(tlb_entries), *_programs(unit, None, constants)])


def _programs(unit: Unit, sources: Mapping[str, Sequence[str]] | None, constants: Constants | None) -> Iterator[str]:
    for program in (*unit.probes, *unit.walkers):
        _check(program)
    yield runtime_text("runtime.h")
    for walker in unit.walkers:
        yield _RULER + "\n" + Function(walker, sources or {}, constants).text()
    yield _dispatch(unit.walkers)
    for probe in unit.probes:
        yield _RULER + "\n" + Function(probe, sources or {}, constants).text()


def runtime_text(name: str) -> str:
    """Return ``runtime.h`` or ``host.c``."""
    return files("yamori.llview").joinpath(name).read_text(encoding="utf-8")


def host_source() -> str:
    """Return the host's side of the runtime contract, the second file of an object."""
    return C_TEXT + "\n" + _PROTOTYPES + runtime_text("host.c")


def essence(text: str) -> str:
    """Return C text without comments: what decides over the object that a compiler makes of it."""
    return re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)


_PROTOTYPES = """\
uint64_t ll_window(const struct ll_context *c, uint64_t gpa, uint64_t *first, uint64_t *size);
uint64_t ll_read(const struct ll_context *c, uint64_t gpa, uint64_t size, uint64_t *value);

"""


def _check(program: Program) -> None:
    verify(program)
    what = ""
    if program.kind == "walker" and len(program.parameters) > 2 + GEOMETRY_WORDS:
        what = f"a walker has at most {GEOMETRY_WORDS} parameters behind root and gva"
    elif program.kind == "walker" and program.slots:
        what = "a walker has no slots"
    elif not re.fullmatch(r"[A-Za-z_]\w*", program.name, flags=re.ASCII):
        what = "its name is no C identifier"
    if what:
        raise VerifyError(f"{program.name}: {what}", where=PurePath(program.file).name)


def _dispatch(walkers: Sequence[Program]) -> str:
    """The function by which ``runtime.h`` reaches the walker of the guest at hand."""
    lines = [
        _RULER,
        "static int ll_walk(struct ll_context *c, uint64_t root, uint64_t gva, uint64_t *gpa)",
        "{",
        "    switch (c->walker) {",
    ]
    for number, walker in enumerate(walkers):
        lines += [f"    case {number}:", f"        return ll_walk_{walker.name}(c, root, gva, gpa);"]
    lines += ["    default:", "        (void)root;", "        *gpa = 0;"]
    return "\n".join([*lines, "        return ll_fault(c, LL_UNMAPPED, gva, 0, 0);", "    }", "}", ""])
