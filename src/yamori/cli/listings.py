"""The commands of ``yamori ids`` that list what a guest has, one for each of ``yamori.probes.listings``."""

from __future__ import annotations

from collections.abc import Callable

import typer

from yamori.cli import output
from yamori.cli.output import AsJson, NoCache, RamBase, SystemMap, Target, Vmlinux
from yamori.cli.tables import rows_table
from yamori.probes.listings import LISTINGS


def add(app: typer.Typer) -> None:
    """Add the commands."""
    for name, what in LISTINGS.items():
        app.command(name, help=what, epilog=f"Examples: yamori {name} lab:arm64, yamori {name} qemu:gateway --json")(
            _command(name)
        )


def _command(name: str) -> Callable[..., None]:
    def command(
        target: Target = None,
        *,
        vmlinux: Vmlinux = None,
        symbols: SystemMap = None,
        ram_base: RamBase = None,
        no_cache: NoCache = False,
        as_json: AsJson = False,
    ) -> None:
        with output.opened(target, vmlinux, symbols, ram_base, cache=not no_cache) as guest:
            result = guest.listing(name)
            if as_json:
                output.print_json(output.envelope(name, guest, result))
            elif result.rows:
                output.print_table(*rows_table(type(result.rows[0]), result.rows))
        raise typer.Exit(output.conclude(result))

    command.__name__ = name
    return command
