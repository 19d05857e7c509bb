"""TARGET: from what a user types to a virtual machine or an image."""

from __future__ import annotations

import os
from importlib import import_module
from pkgutil import iter_modules
from typing import Protocol, cast

from yamori import hypervisors
from yamori.errors import TargetError
from yamori.hypervisors.vm import VirtualMachine
from yamori.memory import image

EXAMPLES = "such as lab:armv7, qemu:NAME, qemu:PID, qemu:/path/to/qmp.sock or file:PATH"


class Scheme(Protocol):
    """A module that knows one kind of target."""

    SCHEME: str

    def attach(self, spec: str, *, ram_base: int | None = None) -> VirtualMachine:
        """Return what is behind ``SCHEME:spec``."""


class Finder(Scheme, Protocol):
    """A scheme that can list what there is."""

    def find(self) -> list[VirtualMachine]:
        """Return every VM of this kind on this machine."""


def _finders() -> list[Finder]:
    """Return the hypervisors: each module of their room that has a SCHEME, ``lab`` first since its VMs run in QEMU."""
    names = [f"{hypervisors.__name__}.{info.name}" for info in iter_modules(hypervisors.__path__)]
    modules = [module for module in map(import_module, names) if hasattr(module, "SCHEME")]
    return cast("list[Finder]", sorted(modules, key=lambda module: (module.SCHEME != "lab", module.SCHEME)))


def find() -> list[VirtualMachine]:
    """Return every VM on this machine once, under the most telling of its names."""
    found: dict[int | None, VirtualMachine] = {}
    for hypervisor in _finders():
        for vm in hypervisor.find():
            found.setdefault(vm.pid, vm)
    return list(found.values())


def attach(target: str | None = None, *, ram_base: int | None = None) -> VirtualMachine:
    """Return the VM or image that ``target`` names.

    Args:
        target: ``SCHEME:SPEC``. Without one, ``$YAMORI_TARGET``, or else the only VM on this machine.
        ram_base: GPA of the first byte of RAM, where nothing on the host tells.

    Raises:
        TargetError: There is no such target, or it cannot be reached.
    """
    target = target or os.environ.get("YAMORI_TARGET") or _only_one()
    scheme, colon, spec = target.partition(":")
    known: dict[str, Scheme] = {hypervisor.SCHEME: hypervisor for hypervisor in _finders()}
    known[image.SCHEME] = cast("Scheme", image)
    if not colon or not spec or scheme not in known:
        raise TargetError("this is no target", where=target, hint=f"name one {EXAMPLES}; `yamori targets` lists them")
    return known[scheme].attach(spec, ram_base=ram_base)


def _only_one() -> str:
    running = find()
    if len(running) == 1:
        return running[0].target
    if not running:
        raise TargetError("no VM runs on this machine", hint=f"name a target {EXAMPLES}, or try `yamori lab up armv7`")
    names = ", ".join(vm.target for vm in running)
    raise TargetError(
        f"which of the {len(running)} VMs on this machine? ({names})", hint="name one as TARGET or in $YAMORI_TARGET"
    )
