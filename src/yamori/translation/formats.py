"""Every page-table format there is: each module of this package that has the names of ``Format``."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib import import_module
from itertools import zip_longest
from pkgutil import iter_modules
from typing import cast

from yamori import translation
from yamori.translation.format import Format, Geometry


@cache
def formats() -> tuple[Format, ...]:
    """Return all formats, in the order of their modules' names."""
    modules = [import_module(f"{translation.__name__}.{info.name}") for info in iter_modules(translation.__path__)]
    return tuple(cast("Format", module) for module in modules if hasattr(module, "NAME"))


def geometries(word_size: int) -> Iterator[Geometry]:
    """Yield every geometry that a Linux kernel of this word size may have set up.

    The first of each format come first, then the second ones: nobody waits for the rare geometries of another
    architecture.

    Args:
        word_size: Bytes of a pointer: 4 or 8.
    """
    for row in zip_longest(*(format_.geometries() for format_ in formats())):
        yield from (geometry for geometry in row if geometry is not None and geometry.word_size == word_size)
