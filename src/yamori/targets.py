"""TARGET: from what a user types to a virtual machine or an image."""

from __future__ import annotations

import os
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import Protocol, cast

from yamori import hypervisors
from yamori.errors import TargetError
from yamori.hypervisors.vm import VirtualMachine
from yamori.memory import image

EXAMPLES = "such as lab:armv7, qemu:NAME, qemu:PID, qemu:/path/to/qmp.sock or file:PATH"


class Scheme(Protocol):
    """A module that knows one kind of target; a hypervisor's has the name of its SCHEME."""

    SCHEME: str

    def attach(self, spec: str, *, ram_base: int | None = None) -> VirtualMachine:
        """Return what is behind ``SCHEME:spec``."""


class Finder(Scheme, Protocol):
    """A scheme that can list what there is."""

    def find(self) -> list[VirtualMachine]:
        """Return every VM of this kind on this machine."""


def _finders() -> list[Finder]:
    """Return the hypervisors: each module of their room that has a SCHEME, ``lab`` first since its VMs run in QEMU."""
    modules = [module for module in map(_hypervisor, _hypervisors()) if hasattr(module, "SCHEME")]
    return cast("list[Finder]", sorted(modules, key=lambda module: (module.SCHEME != "lab", module.SCHEME)))


def _hypervisors() -> list[str]:
    return [info.name for info in iter_modules(hypervisors.__path__)]


def _hypervisor(name: str) -> ModuleType:
    return import_module(f"{hypervisors.__name__}.{name}")


def _scheme(name: str) -> Scheme | None:
    """Return the module that knows ``name:``; no other is imported."""
    if name == image.SCHEME:
        return cast("Scheme", image)
    module = _hypervisor(name) if name in _hypervisors() else None
    return cast("Scheme", module) if hasattr(module, "SCHEME") else None


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
    name, _, spec = target.partition(":")
    scheme = _scheme(name) if spec else None
    if scheme is None:
        raise TargetError("this is no target", where=target, hint=f"name one {EXAMPLES}; `yamori targets` lists them")
    return scheme.attach(spec, ram_base=ram_base)


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
