"""What every command shares: tables for people, JSON for programs, one line for an error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from yamori.records import SCHEMA, Result, Row, escape, plain

if TYPE_CHECKING:
    from rich.console import Console

    from yamori.guest import Guest

R = TypeVar("R", bound=Row)

OK, FINDINGS, ERROR, NOT_EVERYTHING = 0, 1, 2, 3
"""Exit codes: fine, something was found, an error, nothing was found but not everything could be checked."""

Target = Annotated[
    str | None,
    typer.Argument(
        metavar="[TARGET]",
        help="lab:NAME, qemu:NAME|PID|/path/to/qmp.sock, xvisor:CONSOLE or file:PATH. "
        "Default: $YAMORI_TARGET, or the only VM.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Vmlinux = Annotated[
    str | None, typer.Option(metavar="FILE", help="The maker's vmlinux, a profile of it, or a folder of profiles.")
]
SystemMap = Annotated[str | None, typer.Option("--symbols", metavar="FILE", help="The maker's System.map.")]


def _base(text: str) -> int:
    try:
        base = int(text, 0)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no address; write it as in 0x40000000") from error
    if not 0 <= base < 1 << 52 or base % 0x1000:  # no architecture has wider physical addresses; RAM starts at a page
        raise typer.BadParameter(f"{text} is no place where RAM starts; write it as in 0x40000000")
    return base


RamBase = Annotated[
    int | None,
    typer.Option(metavar="GPA", parser=_base, help="First guest physical address of RAM, where nothing tells."),
]


NoCache = Annotated[
    bool, typer.Option("--no-cache", help="Read all of RAM; use and keep nothing learnt in other runs.")
]


@contextmanager
def opened(
    target: str | None, vmlinux: str | None, symbols: str | None, ram_base: int | None, *, cache: bool = True
) -> Iterator[Guest]:
    """Open the target, with a progress bar if somebody watches and it takes long."""
    from yamori.guest import open_guest  # noqa: PLC0415  `yamori --help` need not wait for it

    with _reading() as progress:  # ends here: a prompt could not be typed at below it
        guest = open_guest(target, vmlinux=vmlinux, symbols=symbols, ram_base=ram_base, cache=cache, progress=progress)
    with guest:
        yield guest


@contextmanager
def _reading() -> Iterator[Callable[[int, int], None] | None]:
    """Yield a progress callback for the scan: a bar on a terminal once a guest is large, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import Progress  # noqa: PLC0415  slow to import

    with Progress(transient=True, console=stderr()) as bar:
        task = bar.add_task("reading memory", total=None, visible=False)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, visible=total > LARGE and done < total)

        yield progress


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Say on a terminal what takes a while and cannot tell how long."""
    if not sys.stderr.isatty():
        yield
        return
    with stderr().status(what):
        yield


LARGE = 256 << 20  # smaller guests are read in less than half a second


def stderr() -> Console:
    """Return the console for what is not output."""
    from rich.console import Console  # noqa: PLC0415  slow to import

    return Console(stderr=True, highlight=False)


def stdout() -> Console:
    """Return the console for output; a file or pipe gets lines as long as they are."""
    from rich.console import Console  # noqa: PLC0415  slow to import

    width = None if sys.stdout.isatty() else 1000
    return Console(highlight=False, width=width, soft_wrap=not sys.stdout.isatty())


def safe(text: str) -> str:
    """Return text that somebody else chose as one printable line: what a terminal would act on is escaped."""
    return "".join(char if char.isprintable() else escape(_bytes(char)) for char in text)


def _bytes(char: str) -> bytes:
    """Return the bytes of a character, or the byte that it stands for in a file's name that is not UTF-8."""
    return char.encode("utf-8", "surrogateescape" if "\udc80" <= char <= "\udcff" else "replace")


def heading(command: str, guest: Guest) -> dict[str, Any]:
    """Return what everything that ``--json`` prints of a guest begins with."""
    return {
        "schema": SCHEMA,
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "target": guest.vm.target,
        "kernel": guest.release,
        "command": command,
    }


def envelope(command: str, guest: Guest, result: Result[R], **more: Any) -> dict[str, Any]:
    """Return what ``--json`` prints of rows."""
    return {
        **heading(command, guest),
        "complete": result.complete,
        "reasons": result.reasons,
        "notes": result.notes,
        "faults": result.faults,
        "loads": result.loads,
        "elapsed_s": round(result.elapsed_s, 6),
        "rows": [plain(row) for row in result.rows],
        **more,
    }


def print_json(value: Any) -> None:
    """Print one JSON object, in UTF-8 as the format demands; text in it is made safe."""
    import msgspec  # noqa: PLC0415  `yamori --help` need not wait for it

    encoded = msgspec.json.encode(_safe_throughout(msgspec.to_builtins(value)))
    sys.stdout.flush()
    sys.stdout.buffer.write(msgspec.json.format(encoded, indent=2) + b"\n")


def _safe_throughout(value: Any) -> Any:
    """Return built-in values with every text safe: names of files need not be UTF-8, which JSON has to be."""
    if isinstance(value, str):
        return safe(value)
    if isinstance(value, dict):
        return {safe(key): _safe_throughout(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_safe_throughout(item) for item in value]
    return value


def print_table(headings: dict[str, str], rows: Iterator[tuple[str, ...]]) -> None:
    """Print rows under headings.

    Args:
        headings: Heading → ``left`` or ``right``.
        rows: As many cells as there are headings; markup in them is shown as it is.
    """
    from rich.table import Table  # noqa: PLC0415  slow to import
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    *_, last = headings
    for heading, side in headings.items():
        justify: Literal["left", "right"] = "right" if side == "right" else "left"
        table.add_column(heading, justify=justify, no_wrap=heading != last, overflow="fold")
    for row in rows:
        table.add_row(*(Text(safe(cell)) for cell in row))
    stdout().print(table)


def conclude(result: Result[R]) -> int:
    """Say on stderr what a reader must know, and return the exit code."""
    for note in result.notes:
        sys.stderr.write(f"note: {safe(note)}\n")
    for reason in result.reasons:
        sys.stderr.write(f"incomplete: {safe(reason)}\n")
    return OK if result.complete else NOT_EVERYTHING
