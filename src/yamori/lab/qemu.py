"""QEMU's side of the lab: the command line of a VM, and starting and ending its process."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from yamori.errors import LabError
from yamori.hypervisors.lab import start_ticks
from yamori.lab.console import LOG, SOCKET
from yamori.lab.devices import Device

Ram = Literal["memfd", "file", "private"]
"""Where QEMU keeps the guest's RAM: a memfd, a file in the state directory, or its own private memory."""

QMP = "qmp.sock"
MESSAGES = "qemu.log"

_SOCKET_PATH_LIMIT = 107  # sun_path without its final zero byte, unix(7)

_children: dict[int, subprocess.Popen[bytes]] = {}  # QEMUs that this process started, to be reaped when they end


@dataclass(frozen=True, slots=True)
class Settings:
    """What a VM is started with.

    Attributes:
        device: Which device it is.
        name: The VM's name.
        memory: RAM in MiB.
        smp: Number of vCPUs.
        kernel: The kernel's path.
        append: Words added to the device's kernel command line.
        ram: Where the RAM is kept.
        cpu: QEMU's ``-cpu``, the device's own unless given.
        dtb: A device tree for boards that QEMU makes none for.
        more: Further options of QEMU.
    """

    device: Device
    name: str
    memory: int
    smp: int
    kernel: Path
    append: str
    ram: Ram
    cpu: str = ""
    dtb: Path | None = None
    more: tuple[str, ...] = ()


def ram_kind(text: str) -> Ram:
    """Return a kind of RAM from what a user typed.

    Raises:
        LabError: There is no such kind.
    """
    for kind in get_args(Ram):
        if kind == text:
            return cast("Ram", kind)
    raise LabError("no such kind of RAM", where=repr(text), hint=f"choose from {', '.join(get_args(Ram))}")


def command(settings: Settings, initrd: Path, state: str) -> list[str]:
    """Return QEMU's command line.

    Args:
        settings: What to start.
        initrd: The initrd's path.
        state: Path of the state directory as QEMU shall use it.
    """
    device, size = settings.device, f"{settings.memory}M"
    backend = {
        "memfd": f"memory-backend-memfd,id=ram,size={size},share=on",
        "file": f"memory-backend-file,id=ram,size={size},share=on,mem-path={_escaped(state)}/ram",
        "private": "",
    }[settings.ram]
    return [
        device.qemu,
        *("-name", settings.name),
        *("-M", device.machine + (",memory-backend=ram" if backend else "")),
        *("-cpu", settings.cpu or device.cpu),
        *("-smp", str(settings.smp)),
        *("-m", size),
        *(("-object", backend) if backend else ()),
        *("-kernel", str(settings.kernel)),
        *("-initrd", str(initrd)),
        *(("-dtb", str(settings.dtb)) if settings.dtb else ()),
        *("-append", f"{device.append} {settings.append}".rstrip()),
        *("-nodefaults", "-no-reboot", "-display", "none"),
        *("-chardev", f"socket,id=console,server=on,wait=off,path={_escaped(state)}/{SOCKET},logfile={LOG}"),
        *("-serial", "chardev:console"),
        *("-qmp", f"unix:{_escaped(state)}/{QMP},server=on,wait=off"),
        *settings.more,
    ]


def start(settings: Settings, initrd: Path, state: Path) -> tuple[int, int]:
    """Start a VM as a process of its own session, which our end or Ctrl-C does not touch.

    Args:
        settings: What to start.
        initrd: The initrd's path.
        state: Its state directory, in which it runs.

    Returns:
        Its process id, and when it started (see ``Record.started``).

    Raises:
        LabError: QEMU is not installed.
    """
    handle = os.open(state, os.O_PATH | os.O_DIRECTORY)
    try:
        # UNIX sockets have short paths; a long one is reached through a descriptor that QEMU keeps open.
        fits = len(os.fsencode(state / SOCKET)) <= _SOCKET_PATH_LIMIT
        arguments = command(settings, initrd, str(state) if fits else f"/proc/self/fd/{handle}")
        with (state / MESSAGES).open("wb") as messages:
            process = subprocess.Popen(
                arguments,
                cwd=state,
                pass_fds=() if fits else (handle,),
                stdin=subprocess.DEVNULL,
                stdout=messages,
                stderr=messages,
                start_new_session=True,
            )
    except FileNotFoundError:
        raise LabError(
            "not installed", where=settings.device.qemu, hint=f"install {settings.device.qemu_package}"
        ) from None
    finally:
        os.close(handle)
    _children[process.pid] = process
    started = start_ticks(process.pid)
    return process.pid, -1 if started is None else started


def end(pid: int, started: int, patience: float = 5) -> None:
    """End a VM's process, kindly first, and return when it is gone.

    Args:
        pid: Its process id.
        started: When it started: a process that merely has the same id is left alone.
        patience: Seconds to wait before it is killed.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        if start_ticks(pid) != started:
            break
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + patience
        while start_ticks(pid) == started and time.monotonic() < deadline:
            time.sleep(0.02)
    child = _children.pop(pid, None)
    if child is not None:
        child.wait()


def last_words(state: Path) -> str:
    """Return the last line of what QEMU itself said, or nothing."""
    with suppress(OSError):
        lines = (state / MESSAGES).read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""
    return ""


def _escaped(path: str) -> str:
    return path.replace(",", ",,")  # a comma ends a QEMU option, two are one comma of its value
