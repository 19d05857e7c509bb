"""``yamori check``: what is wrong with a guest, in words; and ``yamori detectors``: what is looked for."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from yamori.cli import output
from yamori.cli.output import AsJson, NoCache, RamBase, SystemMap, Target, Vmlinux, safe
from yamori.records import SCHEMA

if TYPE_CHECKING:
    from yamori.detectors.check import Report
    from yamori.records import Finding

Only = Annotated[
    list[str] | None, typer.Option("--only", metavar="NAME", help="Run this detector alone; may be repeated.")
]
Skip = Annotated[
    list[str] | None, typer.Option("--skip", metavar="NAME", help="Leave this detector out; may be repeated.")
]
BaselineFile = Annotated[
    Path | None,
    typer.Option("--baseline", metavar="FILE", help="What the device is meant to run; see `baseline learn`."),
]


def check(
    target: Target = None,
    *,
    only: Only = None,
    skip: Skip = None,
    baseline: BaselineFile = None,
    vmlinux: Vmlinux = None,
    symbols: SystemMap = None,
    ram_base: RamBase = None,
    no_cache: NoCache = False,
    as_json: AsJson = False,
) -> None:
    """Look for intruders: exit code 0 if all is well, 1 if something was found, 3 if not everything was checked."""
    with output.opened(target, vmlinux, symbols, ram_base, cache=not no_cache) as guest:
        report = guest.check(only or (), skip or (), baseline)
        if as_json:
            output.print_json(output.heading("check", guest) | _plain(report))
        else:
            _print(report)
    if report.findings:
        raise typer.Exit(output.FINDINGS)
    raise typer.Exit(output.OK if report.complete else output.NOT_EVERYTHING)


def _plain(report: Report) -> dict[str, Any]:
    return {
        "complete": report.complete,
        "findings": report.findings,
        "not_checked": [{"detector": name, "reason": reason} for name, reason in report.not_checked],
        "detectors": [{"name": name, "elapsed_s": round(seconds, 6)} for name, seconds in report.seconds.items()],
    }


def _print(report: Report) -> None:
    for finding in report.findings:
        _print_finding(finding)
    for reason in dict.fromkeys(reason for _, reason in report.not_checked):
        names = dict.fromkeys(name for name, other in report.not_checked if other == reason)
        sys.stdout.write(f"NOT CHECKED {', '.join(names)}: {safe(reason)}\n")
    count, ran = len(report.findings), len(report.seconds)
    found = f"{count} finding{'s' if count != 1 else ''}" if count else "nothing found"
    partly = len({name for name, _ in report.not_checked})
    rest = f", {partly} of them not in full" if partly else ""
    sys.stdout.write(f"{found}; {ran} detectors ran in {sum(report.seconds.values()) * 1000:.0f} ms{rest}\n")


def _print_finding(finding: Finding) -> None:
    sys.stdout.write(f"{finding.severity.upper():<9}{safe(finding.title)}\n")
    for line in finding.why:
        sys.stdout.write(f"         {safe(line)}\n")
    sys.stdout.write(f"         Do: {safe(finding.remedy)}\n")
    about = f"{finding.detector}, {finding.confidence}, {', '.join(finding.attack)}"
    sys.stdout.write(f"         ({safe(about)})\n\n")


def detectors(*, as_json: AsJson = False) -> None:
    """List what `yamori check` looks for, what each detector needs, and what it can miss."""
    from yamori.detectors.check import detectors as every  # noqa: PLC0415  `yamori --help` need not wait for it

    found = every()
    if as_json:
        rows = [
            {"name": one.name, "title": one.title, "needs": one.needs, "misses": one.misses, "attack": list(one.attack)}
            for one in found
        ]
        output.print_json({"schema": SCHEMA, "command": "detectors", "rows": rows})
        return
    for one in found:
        sys.stdout.write(f"{one.name}: {one.title} ({', '.join(one.attack)})\n")
        sys.stdout.write(f"    needs   {one.needs}\n    misses  {one.misses}\n")
