"""``yamori targets``: the VMs on this machine."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from yamori.cli import output
from yamori.cli.output import AsJson
from yamori.records import SCHEMA

if TYPE_CHECKING:
    from yamori.hypervisors.vm import VirtualMachine


def targets(*, as_json: AsJson = False) -> None:
    """List the VMs on this machine, and what attaching to each lacks."""
    from yamori import targets as known  # noqa: PLC0415  `yamori --help` need not wait for it

    found = known.find()
    if as_json:
        output.print_json({"schema": SCHEMA, "command": "targets", "rows": [_plain(vm) for vm in found]})
        return
    if not found:
        sys.stdout.write("no VM runs on this machine; try `yamori lab up armv7`, or read an image with file:PATH\n")
        return
    headings = {"target": "left", "pid": "right", "RAM": "right", "machine": "left", "lacks": "left"}
    output.print_table(headings, map(_cells, found))


def _plain(vm: VirtualMachine) -> dict[str, Any]:
    """Return what ``--json`` shows of a VM, of its layouts the most likely."""
    layout = vm.layouts[0] if vm.layouts else ()
    return {
        "target": vm.target,
        "name": vm.name,
        "pid": vm.pid,
        "machine": vm.machine,
        "regions": [{"gpa": f"{segment.gpa:#x}", "size": segment.size} for segment in layout],
        "base_known": vm.base_known,
        "lacks": vm.lacks,
        "notes": vm.notes,
    }


def _cells(vm: VirtualMachine) -> tuple[str, ...]:
    size = sum(segment.size for segment in vm.layouts[0]) >> 20 if vm.layouts else 0
    lacks = "; ".join(vm.lacks) or "nothing"
    return vm.target, str(vm.pid or ""), f"{size} MiB" if size else "?", vm.machine, lacks
