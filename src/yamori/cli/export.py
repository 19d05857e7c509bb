"""``yamori export``: the commands packed for a hypervisor, for the one kernel that a device runs."""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from yamori.cli import output
from yamori.cli.output import AsJson, NoCache, RamBase, SystemMap, Target, safe
from yamori.errors import YamoriError

app = typer.Typer(
    name="export",
    help="Pack the commands for a hypervisor, for the one kernel that a device runs.",
    epilog="Example: yamori export xvisor lab:arm64 --out ids-arm64",
    no_args_is_help=True,
)


@app.callback()
def export() -> None:
    """Pack the commands for a hypervisor, for the one kernel that a device runs."""


@app.command(epilog="Example: yamori export xvisor file:gateway.raw --profile gateway.profile --out ids-gateway")
def xvisor(
    target: Target = None,
    *,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="A new or empty directory.")],
    profile: Annotated[
        str | None, typer.Option("--profile", "--vmlinux", metavar="FILE", help="A profile, or the maker's vmlinux.")
    ] = None,
    symbols: SystemMap = None,
    baseline: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What the device is meant to run, for `ids check`.")
    ] = None,
    ram_base: RamBase = None,
    no_cache: NoCache = False,
    force: Annotated[bool, typer.Option("--force", help="Replace what an earlier export wrote there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write the command `ids` for Xvisor, made for the kernel that the target runs."""
    from yamori.detectors.baseline import read  # noqa: PLC0415  as below
    from yamori.exports.xvisor import xvisor_files  # noqa: PLC0415  `yamori --help` need not wait for it

    meant = read(baseline) if baseline else None
    if meant and any(one.executable for one in meant.process or []):
        sys.stderr.write("note: `ids check` compares names and users, not the executables that the baseline names\n")
    with output.opened(target, profile, symbols, ram_base, cache=not no_cache) as guest:
        found = xvisor_files(guest.kernel, meant)
        heading = output.heading("export xvisor", guest)
        banner = guest.profile.banner
    _write(out, found, force=force)
    if as_json:
        rows = [{"name": name, "size": len(data), "sha256": _digest(data)} for name, data in found.items()]
        output.print_json({**heading, "banner": banner, "directory": str(out), "rows": rows})
        return
    sys.stderr.write(f"written: {safe(str(out))} ({len(found)} files), for {safe(banner[:60])}; see its README.md\n")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _write(out: Path, found: Mapping[str, bytes], *, force: bool) -> None:
    """Write a directory whole or not at all.

    Raises:
        YamoriError: There are files in it already, or it cannot be written.
    """
    try:
        there = {path.name for path in out.iterdir()} if out.exists() else set()
        if there and not (force and there <= set(found)):
            hint = "choose another directory" if there - set(found) else "--force replaces what is there"
            raise YamoriError("there are files in it already", where=str(out), hint=hint)
        with tempfile.TemporaryDirectory(dir=out.absolute().parent, prefix=f".{out.name}-") as partial:
            made = Path(partial) / "new"
            made.mkdir()
            for name, data in found.items():
                (made / name).write_bytes(data)
            old = Path(partial) / "old"
            if there:
                out.rename(old)
            try:
                made.rename(out)
            except BaseException:
                if there:
                    old.rename(out)
                raise
    except OSError as error:
        raise YamoriError(f"cannot be written: {error.strerror}", where=str(out)) from error
