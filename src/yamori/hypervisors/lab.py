"""The lab's own VMs: where their state lies, which of them live, and how one is attached to.

The lab room (``yamori.lab``) writes this state; here it is only read, so that attaching to a lab VM needs no lab.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import msgspec

from yamori.errors import TargetError
from yamori.hypervisors import qemu
from yamori.hypervisors.vm import VirtualMachine

SCHEME = "lab"

RECORD_FILE = "machine.json"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class Record(msgspec.Struct, frozen=True):
    """What the lab notes of a VM that it started, as ``machine.json`` in the VM's state directory.

    Attributes:
        name: The VM's name.
        device: Which device it is, such as ``armv7``.
        pid: Process id of its QEMU.
        started: When that process started, in clock ticks after the host's boot: a recycled pid differs here.
        kernel: Path of the kernel that was booted.
        memory: RAM in MiB.
        smp: Number of vCPUs.
    """

    name: str
    device: str
    pid: int
    started: int
    kernel: str
    memory: int
    smp: int


def state_root() -> Path:
    """Return the directory that holds one state directory for each lab VM (XDG base directory specification)."""
    home = os.environ.get("XDG_STATE_HOME", "")
    base = Path(home) if home.startswith("/") else Path.home() / ".local" / "state"
    return base / "yamori" / "lab"


def directory(name: str) -> Path:
    """Return the state directory of the VM with this name, whether it exists or not.

    Raises:
        TargetError: The name is not one that the lab gives.
    """
    if not _NAME.fullmatch(name):
        raise TargetError(
            "not a name of a lab VM",
            where=f"lab:{name!r}",
            hint="use up to 63 letters, digits, dots, dashes and underscores",
        )
    return state_root() / name


def load(state: Path) -> Record | None:
    """Return what a state directory says of its VM, or ``None`` where there is nothing to be read."""
    try:
        return msgspec.json.decode((state / RECORD_FILE).read_bytes(), type=Record)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def start_ticks(pid: int) -> int | None:
    """Return when a process started, in clock ticks after boot, or ``None`` if it has ended (zombies have ended)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = stat[stat.rfind(b")") + 2 :].split()  # proc(5): field 3 (state) comes after the name's last parenthesis
    return None if fields[0] in {b"Z", b"X"} else int(fields[19])


def alive(record: Record) -> bool:
    """Say whether the QEMU process of a record still runs, and is not another process with its recycled pid."""
    return start_ticks(record.pid) == record.started


def records() -> list[Record]:
    """Return the living lab VMs in the order of their names."""
    try:
        states = sorted(path for path in state_root().iterdir() if path.is_dir())
    except OSError:
        return []
    found = (load(state) for state in states)
    return [record for record in found if record is not None and alive(record)]


def attach(name: str, *, ram_base: int | None = None) -> VirtualMachine:
    """Return what is known of a lab VM's RAM.

    Args:
        name: The VM's name, without the scheme.
        ram_base: GPA at which its RAM starts, where the user knows better.

    Raises:
        TargetError: There is no such VM, it has ended, or its RAM cannot be reached.
    """
    record = load(directory(name))
    if record is None or not alive(record):
        others = ", ".join(other.name for other in records())
        hint = f"running: {others}" if others else "start one with `yamori lab up DEVICE`"
        raise TargetError("no such lab VM is running", where=f"{SCHEME}:{name}", hint=hint)
    try:
        return replace(qemu.attach(str(record.pid), ram_base=ram_base), target=f"{SCHEME}:{name}", name=name)
    except TargetError as error:
        raise TargetError(error.message, where=f"{SCHEME}:{name}", hint=error.hint) from None


def find() -> list[VirtualMachine]:
    """Return every living lab VM; one that cannot be attached to says why in ``lacks``."""
    machines = []
    for record in records():
        try:
            machines.append(attach(record.name))
        except TargetError as error:
            target = f"{SCHEME}:{record.name}"
            machines.append(
                VirtualMachine(target, record.name, record.pid, f"lab {record.device}", (), lacks=(str(error),))
            )
    return machines
