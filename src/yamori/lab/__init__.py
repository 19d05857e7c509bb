"""Boots stock test devices (real kernels in QEMU) for the demo, the tests and people who try things.

::

    from yamori import lab

    with lab.machine("armv7", smp=1) as vm:      # a VM for the length of the block
        output, status = vm.run("ps")            # as root, over its serial console
        guest = yamori.open(vm.target)           # "lab:NAME", what every command takes

    vm = lab.up("arm64", name="gateway")         # a VM that outlives this process
    lab.find("gateway").run(["spawn", "40"])
    lab.find("gateway").down()
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from yamori.lab.devices import DEVICES, Device

if TYPE_CHECKING:
    from yamori.lab.console import Console, Result
    from yamori.lab.machines import Machine, find, machine, running, up
    from yamori.lab.qemu import Ram
    from yamori.lab.truth import Task

__all__ = ["DEVICES", "Console", "Device", "Machine", "Ram", "Result", "Task", "find", "machine", "running", "up"]

_HOMES = {
    **dict.fromkeys(("Console", "Result"), "console"),
    **dict.fromkeys(("Machine", "find", "machine", "running", "up"), "machines"),
    "Ram": "qemu",
    "Task": "truth",
}


def __getattr__(name: str) -> Any:
    """Import the rest on first use: the commands' help needs only the devices' names."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
