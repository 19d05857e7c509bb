"""Layouts that are inferred only when something asks for them: most runs need none of these, and each takes a while."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

from yamori.kernel.types import Member, Provenance

AGAIN = 5.0
"""Seconds after which something is looked for again: a first module may be loaded, a first program started."""

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
    """Layouts and addresses inferred on demand; what was not found may be there later, and is then looked for again.

    Args:
        finders: In the order in which they are asked.
    """

    provenance: Provenance = "inferred"

    def __init__(self, finders: Sequence[Finder] = ()) -> None:
        self._finders = finders
        self._found: dict[int, tuple[Found, float]] = {}

    def member(self, struct: str, path: str) -> Member | None:
        """Return where ``path`` lies in ``struct``, or ``None``."""
        wanted = struct, path
        found = (self._of(at).members.get(wanted) for at, one in enumerate(self._finders) if wanted in one.members)
        return next((member for member in found if member), None)

    def size(self, struct: str) -> int | None:  # noqa: ARG002  # the protocol's parameter
        """Sizes are not inferred."""
        return None

    def address(self, name: str, *, fresh: bool = False) -> int | None:
        """Return the GVA of a variable that no symbol names, or ``None``; looked for anew if it must be ``fresh``."""
        finders = [at for at, one in enumerate(self._finders) if name in one.variables]
        found = (self._of(at, fresh=fresh).addresses.get(name) for at in finders)
        return next((address for address in found if address), None)

    def everything(self) -> Iterator[Found]:
        """Let every finder learn what it can."""
        return map(self._of, range(len(self._finders)))

    def _of(self, at: int, *, fresh: bool = False) -> Found:
        found, looked = self._found.get(at, (None, 0.0))
        if fresh or found is None or (found.unknown and time.monotonic() - looked > AGAIN):
            found = self._finders[at].find()
            self._found[at] = found, time.monotonic()
        return found
