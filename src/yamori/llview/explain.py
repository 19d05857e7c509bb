"""A program as its author wrote it, beside each line its loads of guest memory and what the pass put before them."""

from __future__ import annotations

import ast
import linecache
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from yamori.llview import flow, ir
from yamori.llview.ir import Place, Program, Statement
from yamori.llview.machine import Outcome
from yamori.llview.printer import expression, line


@dataclass(frozen=True)
class Load:
    """A load of guest memory that a line of the source does.

    Attributes:
        what: A member (``task_struct.pid``), a symbol, or the type of what lies at some other address (``u32``).
        slot: Number of the member's or symbol's slot, ``None`` where it is neither.
        size: Bytes of an integer, the most bytes of a text; 0 where the member's slot tells.
        is_text: Whether it is a text.
        root: Whose page tables translate: ``kernel`` or ``user``.
        address: The address, as an expression of the intermediate representation.
        inserted: The statements that the pass put in its place.
        times: How often it stands there: helpers are inlined once for each call.
    """

    what: str
    slot: int | None
    size: int
    is_text: bool
    root: str
    address: str
    inserted: tuple[str, ...]
    times: int = 1


@dataclass(frozen=True)
class Line:
    """A line of the source."""

    number: int
    text: str
    loads: tuple[Load, ...]


@dataclass(frozen=True)
class Function:
    """The program's own function, or a helper that was inlined in it."""

    name: str
    file: str
    lines: tuple[Line, ...]


class Walks(NamedTuple):
    """What a traced run loaded.

    Attributes:
        rows: Rows emitted.
        loads: Loads by virtual address.
        faults: Loads that the guest's memory did not allow.
        walks: Walks of page tables, which the cache of translations did not spare.
        entries: Page-table entries loaded by them.
    """

    rows: int
    loads: int
    faults: int
    walks: int
    entries: int


def explain(program: Program, translated: Program) -> list[Function]:
    """Say what became of a program's loads: its own function first, then helpers as they come.

    Args:
        program: As the front end gave it.
        translated: A copy that has been through the pass.
    """
    inserted = dict(_inserted(translated, translated.body))
    loads: dict[Place, list[Load]] = {}
    places: dict[Place, None] = {}
    for statement in flow.walk(program.body):
        places[statement.place] = None
        if isinstance(statement, ir.LoadVirt):
            loads.setdefault(statement.place, []).append(_load(program, statement, inserted))
        elif isinstance(statement, ir.CopyVirt):
            loads.setdefault(statement.place, []).append(_copy(program, statement, inserted))
    extents = {file: _extents(file) for file in {place.file for place in places}}
    found = (next((one for one in extents[at.file] if one.first <= at.line <= one.last), None) for at in places)
    merged = {place: _merged(found) for place, found in loads.items()}
    return [_function(function, merged) for function in dict.fromkeys(found) if function]


def walks(outcome: Outcome) -> Walks:
    """Count what a traced run loaded; entries that follow each other are of one walk."""
    kinds = [kind for kind, _, _ in outcome.events]
    begun = sum(kind == "P" != before for before, kind in zip(["", *kinds], kinds, strict=False))
    return Walks(len(outcome.rows), outcome.loads, outcome.faults, begun, kinds.count("P"))


def _load(program: Program, load: ir.LoadVirt, inserted: dict[str, tuple[str, ...]]) -> Load:
    slot = _slot_of(load.address) if load.slot is None else load.slot
    what = load.target.type.name if slot is None else str(program.slots[slot])
    address = expression(program, load.address)
    return Load(
        what,
        slot,
        load.size,
        is_text=False,
        root=_root(load.root),
        address=address,
        inserted=inserted[load.target.name],
    )


def _copy(program: Program, copied: ir.CopyVirt, inserted: dict[str, tuple[str, ...]]) -> Load:
    slot = _slot_of(copied.address)
    what = "text" if slot is None else str(program.slots[slot])
    size, address = program.buffers[copied.buffer], expression(program, copied.address)
    return Load(
        what, slot, size, is_text=True, root=_root(copied.root), address=address, inserted=inserted[copied.buffer]
    )


def _slot_of(address: ir.Expression) -> int | None:
    """Return the slot of the member or symbol that lies at an address, where the address says so."""
    last = address.right if isinstance(address, ir.Binary) and address.operator == "+" else address
    last = last.operand if isinstance(last, ir.Cast) else last
    return last.slot if isinstance(last, ir.SlotValue) and last.field == "offset" else None


def _root(root: ir.Expression | None) -> str:
    return "kernel" if root is None else "user"


def _inserted(program: Program, body: list[Statement]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield (variable or buffer that was loaded into, the statements that translate and load).

    A text is copied by loads of a word and of a byte; those of a word are shown.
    """
    pages: dict[str, ir.Page] = {}
    for before, statement in zip([None, *body], body, strict=False):
        if isinstance(statement, ir.Page):
            pages[statement.target] = statement
        elif isinstance(statement, ir.LoadHost) and statement.page in pages:
            yield statement.target.name, (line(program, pages[statement.page]), line(program, statement))
        elif isinstance(statement, ir.StoreBuffer) and isinstance(before, ir.LoadHost) and before.page in pages:
            yield statement.buffer, (line(program, pages[before.page]), line(program, before), line(program, statement))
        inner = [pair for part in flow.children(statement) for pair in _inserted(program, part)]
        yield from reversed(inner)  # of a text's two kinds of loads the first, of whole words, stays


def _merged(loads: list[Load]) -> tuple[Load, ...]:
    """Return loads without those that only stand there again because a helper was inlined again."""
    first: dict[tuple[str, int | None, int, str], list[Load]] = {}
    for load in loads:
        first.setdefault((load.what, load.slot, load.size, load.root), []).append(load)
    return tuple(Load(**{**vars(same[0]), "times": len(same)}) for same in first.values())


def _function(function: _Extent, loads: dict[Place, tuple[Load, ...]]) -> Function:
    lines = (
        Line(number, linecache.getline(function.file, number).rstrip("\n"), loads.get(Place(function.file, number), ()))
        for number in range(function.first, function.last + 1)
    )
    return Function(function.name, function.file, tuple(lines))


@dataclass(frozen=True)
class _Extent:
    name: str
    file: str
    first: int
    last: int


def _extents(file: str) -> list[_Extent]:
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except SyntaxError:  # it has changed since it was imported
        return []
    found = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    return [_Extent(node.name, file, node.lineno, node.end_lineno or node.lineno) for node in found]
