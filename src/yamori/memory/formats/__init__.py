"""Formats of memory images. One file each: what it starts with, and how to read it."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import NamedTuple, Protocol, cast

from yamori.hypervisors.vm import Source
from yamori.memory.source import Contents


class Unpacked(NamedTuple):
    """What a packing holds: another image.

    Attributes:
        source: Its bytes.
        note: How it was packed, a short sentence.
    """

    source: Source
    note: str


class Format(Protocol):
    """A module of this package that knows one format."""

    MAGICS: tuple[bytes, ...]
    """What a file of the format begins with."""

    def parse(self, source: Source, where: str) -> Contents | Unpacked | None:
        """Return what is in an image that begins as ``MAGICS`` say; ``None`` where it is not of this format after all.

        Args:
            source: The image.
            where: Its file's name, for errors.

        Raises:
            TargetError: It is of this format, but cannot be read.
        """


def known() -> Iterator[Format]:
    """Yield every format."""
    for info in iter_modules(__path__):
        yield cast("Format", import_module(f"{__name__}.{info.name}"))
