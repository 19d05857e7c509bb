"""``yamori targets``: the VMs on this machine."""

from __future__ import annotations

import sys
from dataclasses import asdict

from yamori import targets as known
from yamori.cli import output
from yamori.cli.output import AsJson
from yamori.hypervisors.vm import VirtualMachine
from yamori.records import SCHEMA


def targets(*, as_json: AsJson = False) -> None:
    """List the VMs on this machine, and what attaching to each lacks."""
    found = known.find()
    if as_json:
        output.print_json({"schema": SCHEMA, "command": "targets", "rows": [asdict(vm) for vm in found]})
        return
    if not found:
        sys.stdout.write("no VM runs on this machine; try `yamori lab up armv7`, or read an image with file:PATH\n")
        return
    headings = {"target": "left", "pid": "right", "RAM": "right", "machine": "left", "lacks": "left"}
    output.print_table(headings, map(_cells, found))


def _cells(vm: VirtualMachine) -> tuple[str, ...]:
    size = sum(segment.size for segment in vm.layouts[0]) >> 20 if vm.layouts else 0
    lacks = "; ".join(vm.lacks) or "nothing"
    return vm.target, str(vm.pid or ""), f"{size} MiB" if size else "?", vm.machine, lacks
