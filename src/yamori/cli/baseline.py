"""``yamori baseline``: what a device is meant to run, learned from it, for ``yamori check --baseline``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from yamori.cli import output
from yamori.cli.files import Force, write
from yamori.cli.output import NoCache, RamBase, SystemMap, Target, Vmlinux, safe

app = typer.Typer(
    name="baseline",
    help="What a device is meant to run: learn it once, edit it, and find what is not in it.",
    epilog="Examples: yamori baseline learn lab:gw -o gw.toml, yamori check lab:gw --baseline gw.toml",
    no_args_is_help=True,
)


@app.callback()
def group() -> None:
    """Keep `learn` a word of its own."""


@app.command(epilog="Example: yamori baseline learn lab:gateway -o gateway.toml")
def learn(
    target: Target = None,
    *,
    out: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where to; - is standard output.")] = Path(
        "-"
    ),
    add: Annotated[bool, typer.Option("--add", help="Add what runs now to the file, and keep what is in it.")] = False,
    force: Force = False,
    vmlinux: Vmlinux = None,
    symbols: SystemMap = None,
    ram_base: RamBase = None,
    no_cache: NoCache = False,
) -> None:
    """Write what runs now as a baseline: on a device that is known to be clean. Run it again with --add later."""
    if add and str(out) == "-":
        raise typer.BadParameter("--add needs a file: give --output FILE")
    with output.opened(target, vmlinux, symbols, ram_base, cache=not no_cache) as guest:
        baseline, lacks = guest.baseline()
    from yamori.detectors import learning  # noqa: PLC0415  `yamori --help` need not wait for it

    text = learning.text_with(out, baseline) if add else learning.text(baseline)
    write(text.encode(), out, force=force or add)
    for lack in lacks:
        sys.stderr.write(f"not learned in full: {safe(lack)}\n")
    raise typer.Exit(output.NOT_EVERYTHING if lacks else output.OK)
