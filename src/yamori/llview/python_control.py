"""Control flow of the IR in Python's words: labelled jumps, fault paths, and nesting without end.

Python has no labelled ``break``. A jump out of more than one ``while`` sets ``leave`` to where it goes, and leaves the
innermost one; behind each that such jumps cross stands a test that passes them on. And Python allows 20 blocks in each
other and 100 indents: what lies deeper moves into a function ``part_…`` beside the rest, which shares all variables.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count

from yamori.llview import flow, ir
from yamori.llview.ir import END, Statement
from yamori.llview.writing import quoted

_MOST_BLOCKS = 14
_MOST_DEPTH = 40
_RETURN = 1
"""``leave`` of a return out of a part."""

SHARED = ("leave", "path", "result")
"""The variables that are used here: where a jump goes, where a fault goes, and what a return out of a part gives."""


@dataclass
class _Scope:
    """A ``while``, or a part, around the present statement.

    Attributes:
        label: Of the IR; a part has none.
        number: Its own; ``leave`` is twice that for a jump out of it, and one more for its next round.
        loop: Whether it has a next round.
        exit: The word that leaves it.
        crossed: Values of ``leave`` that go through it, to something farther out.
    """

    label: str
    number: int
    loop: bool = False
    exit: str = "break"
    crossed: set[int] = field(default_factory=set)


@dataclass
class _Attempt:
    """An ``Attempt`` around the present statement.

    Attributes:
        label: Of the IR.
        number: Its own; ``path`` for a fault that goes to it although it is not the innermost one.
        passed: Whether a fault inside of it may go elsewhere, or come by ``path``.
    """

    label: str
    number: int
    passed: bool = False


class Control:
    """The text of a function in the making, and what stands around the present statement.

    Args:
        body: All statements of the program.

    Attributes:
        lines: The text so far.
        parts: What has moved out of it.
        depth: Indents.
        falls: Identities of the breaks that need no word, since they stand at the end of what they leave.
    """

    def __init__(self, body: list[Statement]) -> None:
        self._breaks = Counter(s.label for s in flow.walk(body) if isinstance(s, ir.Break))
        self.lines: list[str] = []
        self.parts: list[str] = []
        self.depth = 1
        self._blocks = 0
        self._attempts: list[_Attempt] = []
        self.falls: set[int] = set()
        self._numbers = count(1)
        self._scopes: list[_Scope] = []

    def add(self, line: str) -> None:
        """Write a line."""
        self.lines.append("    " * self.depth + line)

    @contextmanager
    def under(self, line: str, *, block: bool = False) -> Iterator[None]:
        """Write a line that ends in a colon; what is written meanwhile stands below it."""
        self.add(line)
        self.depth += 1
        self._blocks += block
        yield
        self._blocks -= block
        self.depth -= 1

    @contextmanager
    def nested(self, assigned: Iterable[str]) -> Iterator[None]:
        """Write the body of something; as a function of its own where Python would refuse it.

        Args:
            assigned: The variables that are assigned to in it; only looked at if they are needed.
        """
        if self._blocks <= _MOST_BLOCKS and self.depth <= _MOST_DEPTH:
            yield
            return
        scope = _Scope("", next(self._numbers), exit="return")
        kept = self.lines, self.depth, self._blocks
        self.lines, self.depth, self._blocks = [], 1, 0
        with self.under(f"def part_{scope.number}():"):
            self.add(f"nonlocal {', '.join(dict.fromkeys([*assigned, *SHARED]))}")
            self._scopes.append(scope)
            yield
            self._scopes.pop()
        self.parts += self.lines
        self.lines, self.depth, self._blocks = kept
        self.add(f"part_{scope.number}()")
        if _RETURN in scope.crossed:
            scope.crossed.remove(_RETURN)
            outermost = all(outer.exit == "break" for outer in self._scopes)
            with self.under(f"if leave == {_RETURN}:"):
                self.add("return result" if outermost else "return")
        self._pass_on(scope)

    # --- jumps

    @contextmanager
    def repeated(self, label: str, *, loop: bool = False) -> Iterator[None]:
        """Write a ``while`` that ``break`` leaves."""
        scope = _Scope(label, next(self._numbers), loop=loop)
        self._scopes.append(scope)
        with self.under(f"while True:  # {quoted(label)}", block=True):
            yield
        self._scopes.pop()
        self._pass_on(scope)

    def _pass_on(self, scope: _Scope) -> None:
        """Behind something that jumps cross."""
        for leave in sorted(scope.crossed):
            outer = self._scopes[-1]
            if leave >> 1 == outer.number:
                with self.under(f"if leave == {leave}:"):
                    self.add("leave = 0")
                    self.add("continue" if leave & 1 else "break")
        if any(leave >> 1 != self._scopes[-1].number for leave in scope.crossed):
            with self.under("if leave:"):
                self.add(self._scopes[-1].exit)

    def jump(self, label: str, *, again: bool = False) -> None:
        """Leave the innermost statement of a label, or begin the next round of the innermost loop of it."""
        target = next(s for s in reversed(self._scopes) if s.label == label and (s.loop or not again))
        innermost = self._scopes[-1]
        if target is innermost:
            self.add("continue" if again else "break")
            return
        leave = target.number * 2 + again
        for scope in self._scopes[self._scopes.index(target) + 1 :]:
            scope.crossed.add(leave)
        self.add(f"leave = {leave}")
        self.add(innermost.exit)

    @contextmanager
    def left(self, statement: ir.Block | ir.Attempt) -> Iterator[None]:
        """Write a ``while`` around something, if a ``Break`` leaves it from elsewhere than its very end."""
        label = statement.label
        falls = set(_at_end(statement.body, label))
        self.falls |= falls
        if len(falls) == self._breaks[label]:
            yield
            return
        with self.repeated(label):
            yield
            self.add("break")

    def give(self, result: str) -> None:
        """Return from the function."""
        parts = [scope for scope in self._scopes if scope.exit == "return"]
        if not parts:
            self.add(f"return {result}")
            return
        for scope in parts:
            scope.crossed.add(_RETURN)
        self.add(f"result = {result}")
        self.add(f"leave = {_RETURN}")
        self.add("return")

    # --- faults

    @contextmanager
    def path(self, label: str | None) -> Iterator[None]:
        """Write what may fault; say where the fault goes if that is not the innermost attempt."""
        innermost = self._attempts[-1].label if self._attempts else END
        if label == innermost:
            yield
            return
        number = -1
        for attempt in reversed(self._attempts):
            attempt.passed = True
            if attempt.label == label:
                number = attempt.number
                break
        self.add(f"path = {number}")
        yield
        self.add("path = 0")

    @contextmanager
    def attempt(self, label: str, failed: str) -> Iterator[None]:
        """Write a ``try``, and set ``failed`` where it takes a fault."""
        attempt = _Attempt(label, next(self._numbers))
        self.add(f"{failed} = False")
        with self.under("try:", block=True):
            self._attempts.append(attempt)
            yield
            self._attempts.pop()
        with self.under("except Fault:"):
            if attempt.passed:
                with self.under(f"if path not in (0, {attempt.number}):"):
                    self.add("raise")
                self.add("path = 0")
            self.add(f"{failed} = True")


def _at_end(body: list[Statement], label: str) -> Iterator[int]:
    """Yield the identities of the breaks out of ``label`` that stand where its body ends anyway."""
    if not body:
        return
    last = body[-1]
    if isinstance(last, ir.Break) and last.label == label:
        yield id(last)
    elif not isinstance(last, ir.Loop):
        for inner in flow.children(last):
            yield from _at_end(inner, label)
