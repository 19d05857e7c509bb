"""What both back ends need to write a program down: names, comments, parentheses."""

from __future__ import annotations

import re
from collections.abc import Iterable


def names(prefix: str, wanted: Iterable[str]) -> dict[str, str]:
    """Give every name of a program an identifier; the prefix keeps it apart from keywords and other names."""
    given: dict[str, str] = {}
    used: set[str] = set()
    for name in wanted:
        plain = prefix + re.sub(r"\W", "_", name, flags=re.ASCII)
        unique, count = plain, 1
        while unique in used:
            count += 1
            unique = f"{plain}_{count}"
        used.add(unique)
        given[name] = unique
    return given


def quoted(text: str) -> str:
    """Return text of anywhere as it may stand in a comment."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    return printable.replace("*/", "* /").replace("/*", "/ *")


def bare(text: str) -> str:
    """Return an expression's text without the parentheses around all of it."""
    depth = 0
    for at, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0 and at < len(text) - 1:
            return text
    return text[1:-1] if text.startswith("(") else text
