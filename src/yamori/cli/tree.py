"""The process tree, drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from yamori.records import Process

DEEPEST = 40
"""Levels that are drawn as such; what lies deeper is drawn at the same place, since width times depth must not grow
with the square of a guest's processes."""


def draw(rows: Sequence[Process]) -> Iterator[tuple[str, Process]]:
    """Yield each process once with the branches to draw before its name: parents before children.

    Threads hang below their leader. A parent that is not among the rows, or a circle of parents (a hostile guest can
    make one), makes its children roots; of several rows with one pid, each is drawn. No recursion, so depth is
    harmless.
    """
    known = {row.pid for row in rows}
    children: dict[int, list[Process]] = {}
    roots: list[Process] = []
    for row in rows:
        parent = row.tgid if row.pid != row.tgid else row.ppid
        if parent in known and parent != row.pid:
            children.setdefault(parent, []).append(row)
        else:
            roots.append(row)
    drawn: set[int] = set()
    yield from _below(roots, children, drawn)
    for row in rows:
        if id(row) not in drawn:
            yield from _below([row], children, drawn)


def _below(roots: list[Process], children: dict[int, list[Process]], drawn: set[int]) -> Iterator[tuple[str, Process]]:
    stack = [("", "", row) for row in reversed(roots)]
    while stack:
        branch, indent, row = stack.pop()
        if id(row) in drawn:
            continue
        drawn.add(id(row))
        yield branch, row
        below = children.pop(row.pid, [])
        indent = indent[: 3 * DEEPEST]
        for number, child in enumerate(reversed(below)):
            is_last = number == 0
            stack.append((indent + ("└─ " if is_last else "├─ "), indent + ("   " if is_last else "│  "), child))
