"""Versions of the upstream kernel: reading, comparing, and the stable series they belong to."""

from __future__ import annotations

import re
from typing import NamedTuple

RELEASED = 1_000_000
"""Stands in for the number of the candidate in a release: every candidate comes before it."""

_PATTERN = re.compile(r"v?(\d{1,9})(?:\.(\d{1,9}))?(?:\.(\d{1,9}))?(?:\.(\d{1,9}))?(?:[-~]rc(\d{1,5}))?", re.ASCII)


class KernelVersion(NamedTuple):
    """An upstream version; as a tuple it compares the way the kernel counts: 6.1-rc3 < 6.1 = 6.1.0 < 6.1.176.

    Attributes:
        major: 6 of 6.1.176.
        minor: 1 of 6.1.176.
        patch: 176 of 6.1.176; the release within 2.6 in the old counting.
        stable: 64 of 2.6.32.64; otherwise 0.
        candidate: 3 of 6.1-rc3; ``RELEASED`` for a release.
    """

    major: int
    minor: int = 0
    patch: int = 0
    stable: int = 0
    candidate: int = RELEASED

    @property
    def series(self) -> str:
        """The stable series: ``6.1``, or ``2.6.32`` in the counting before 3.0."""
        return f"{self.major}.{self.minor}.{self.patch}" if self.major < 3 else f"{self.major}.{self.minor}"

    def __str__(self) -> str:
        """Return the version as the kernel writes it."""
        numbers = [self.major, self.minor, self.patch, self.stable]
        while len(numbers) > 2 and numbers[-1] == 0:
            numbers.pop()
        text = ".".join(map(str, numbers))
        return text if self.candidate == RELEASED else f"{text}-rc{self.candidate}"


def parse(text: str) -> KernelVersion | None:
    """Read an upstream version such as ``6.1.176``, ``v6.1-rc3``, ``6.1.0`` or ``2.6.32.64``; ``None`` if it is none.

    A vendor's suffix is not part of an upstream version: take it off first (``banner_text.parse`` does).
    """
    match = _PATTERN.fullmatch(text)
    if not match:
        return None
    major, minor, patch, stable = (int(number or 0) for number in match.groups()[:4])
    return KernelVersion(major, minor, patch, stable, int(match[5]) if match[5] else RELEASED)
