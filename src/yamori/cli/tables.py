"""The rows of any probe as a table: columns and cells by the row's class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, get_args, get_type_hints

from yamori.records import Row, addresses


def rows_table(kind: type[Row], rows: Sequence[Row]) -> tuple[dict[str, str], Iterator[tuple[str, ...]]]:
    """Return headings and cells for ``output.print_table``."""
    hints = get_type_hints(kind)
    names = kind.__struct_fields__
    headings = {name: "right" if {int, float} & {hints[name], *get_args(hints[name])} else "left" for name in names}
    return headings, (
        tuple(_cell(getattr(row, name), is_address=name in addresses(kind)) for name in names) for row in rows
    )


def _cell(value: Any, *, is_address: bool) -> str:
    if value is None:
        return "?"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.2f}"
    return f"{value:#x}" if is_address else str(value)
