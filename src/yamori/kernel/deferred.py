"""Layouts that are inferred only when something asks for them: most runs need none of these, and each takes a while."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

from yamori.kernel.types import Member, Provenance

Place = tuple[str, str]
"""(structure, member)."""


class Found(NamedTuple):
    """What a finder learnt.

    Attributes:
        members: Where members lie.
        addresses: GVAs of the kernel's variables.
        unknown: What was looked for and not found, with the reason.
    """

    members: dict[Place, Member]
    addresses: dict[str, int]
    unknown: dict[str, str]


class Finder(NamedTuple):
    """A way to learn some layouts.

    Attributes:
        members: What it may learn.
        variables: The variables that it may learn the addresses of.
        find: Learns.
    """

    members: Collection[Place]
    variables: Collection[str]
    find: Callable[[], Found]


class Deferred:
    """Layouts and addresses inferred on demand, each finder at most once.

    Args:
        finders: In the order in which they are asked.
    """

    provenance: Provenance = "inferred"

    def __init__(self, finders: Sequence[Finder] = ()) -> None:
        self._finders = finders
        self._found: dict[int, Found] = {}

    def member(self, struct: str, path: str) -> Member | None:
        """Return where ``path`` lies in ``struct``, or ``None``."""
        wanted = struct, path
        found = (self._of(at).members.get(wanted) for at, one in enumerate(self._finders) if wanted in one.members)
        return next((member for member in found if member), None)

    def size(self, struct: str) -> int | None:  # noqa: ARG002  # the protocol's parameter
        """Sizes are not inferred."""
        return None

    def address(self, name: str) -> int | None:
        """Return the GVA of a variable that no symbol names, or ``None``."""
        found = (self._of(at).addresses.get(name) for at, one in enumerate(self._finders) if name in one.variables)
        return next((address for address in found if address), None)

    def everything(self) -> Iterator[Found]:
        """Let every finder learn what it can."""
        return map(self._of, range(len(self._finders)))

    def _of(self, at: int) -> Found:
        if at not in self._found:
            self._found[at] = self._finders[at].find()
        return self._found[at]
