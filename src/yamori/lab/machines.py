"""Lab VMs: start one, find it again from any process, run commands in it, end it.

A VM outlives the process that started it. What is known of it lies in its state directory, which
``yamori.hypervisors.lab`` reads too.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import re
import shutil
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from yamori.errors import LabError, TargetError
from yamori.hypervisors import lab as registry
from yamori.hypervisors.lab import Record
from yamori.lab import initramfs, packages, qemu
from yamori.lab.boot import wait_for_shell
from yamori.lab.console import Console, Result
from yamori.lab.devices import Device, device
from yamori.lab.packages import Progress
from yamori.lab.qemu import Ram, Settings
from yamori.lab.truth import Task, parse

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Machine:
    """A lab VM that was running when it was looked up.

    Attributes:
        record: What the lab noted of it.
    """

    record: Record

    @property
    def name(self) -> str:
        """Its name."""
        return self.record.name

    @property
    def target(self) -> str:
        """What names it to every command that takes a target."""
        return f"{registry.SCHEME}:{self.name}"

    @property
    def pid(self) -> int:
        """Process id of its QEMU."""
        return self.record.pid

    @property
    def directory(self) -> Path:
        """Its state directory: console log, console and QMP sockets."""
        return registry.directory(self.name)

    @property
    def alive(self) -> bool:
        """Whether its QEMU still runs."""
        return registry.alive(self.record)

    def console(self, wait: float = 60) -> Console:
        """Take its console; see ``Console``."""
        return Console(self.directory, self.name, wait)

    def run(self, command: str | Sequence[str], timeout: float = 60) -> Result:
        """Run a command in it and return its output and exit status; see ``Console.run``."""
        with self.console(wait=timeout) as console:
            return console.run(command, timeout)

    def truth(self, timeout: float = 120) -> list[Task]:
        """Return what its own ``/proc`` says of every thread (only with the lab's initrd)."""
        output, status = self.run(["truth"], timeout)
        if status:
            raise LabError(f"`truth` failed: {output.strip()[-200:]}", where=self.name)
        return parse(output)

    def down(self) -> None:
        """End it and forget its state."""
        qemu.end(self.record.pid, self.record.started)
        with _registry_lock():
            if registry.load(self.directory) == self.record:  # not a successor of the same name
                shutil.rmtree(self.directory, ignore_errors=True)


def up(
    kind: str,
    name: str | None = None,
    *,
    memory: int | str | None = None,
    smp: int = 1,
    kernel: Path | str | None = None,
    initrd: Path | str | None = None,
    append: str = "",
    ram: Ram = "memfd",
    cpu: str = "",
    suite: str | None = None,
    more: Sequence[str] = (),
    wait: bool = True,
    timeout: float = 180,
    progress: Progress = lambda _stage: None,
) -> Machine:
    """Start a VM.

    Args:
        kind: Which device, a key of ``DEVICES``.
        name: What to call it; the device's name unless given.
        memory: RAM in MiB, or a string with a unit such as ``"1G"``; the device's own unless given.
        smp: Number of vCPUs.
        kernel: A kernel to boot instead of Debian's.
        initrd: An initrd to boot instead of the lab's; it must put a root shell on the serial console.
        append: Words to add to the kernel's command line.
        ram: Where QEMU keeps the guest's RAM.
        cpu: QEMU's ``-cpu``; the device's own unless given.
        suite: The Debian suite to take the kernel from; the device's own unless given.
        more: Further options of QEMU.
        wait: Return only when the guest's shell answers.
        timeout: Seconds that booting may take.
        progress: Told what is being done.

    Raises:
        LabError: It cannot be started or does not boot. Nothing is then left behind.
    """
    chosen = device(kind)
    name = name or kind
    _refuse_running(name)  # before anything is fetched for it
    userland = _existing(initrd) if initrd else _lab_userland(chosen, progress)
    image, tree = _boot_files(chosen, kernel, suite, progress)
    settings = Settings(
        chosen,
        name,
        memory_size(chosen.memory if memory is None else memory),
        smp,
        image,
        append,
        ram,
        cpu=cpu,
        dtb=tree,
        more=tuple(more),
    )
    vm: Machine | None = None
    try:
        with _registry_lock(), _interrupts_later():
            vm = _launch(settings, userland)
        if wait:
            wait_for_shell(vm.directory, name, lambda: registry.alive(vm.record), timeout, progress)
    except BaseException:
        if vm is not None:
            with _interrupts_later():
                vm.down()
        raise
    return vm


def running() -> list[Machine]:
    """Return the living VMs in the order of their names, and forget what dead ones left behind."""
    root = registry.state_root()
    if root.is_dir():
        with _registry_lock():
            for state in root.iterdir():
                record = registry.load(state)
                if state.is_dir() and (record is None or not registry.alive(record)):
                    _forget(state)
    return [Machine(record) for record in registry.records()]


def find(name: str) -> Machine:
    """Return the living VM with this name.

    Raises:
        LabError: There is none.
    """
    living = running()
    for found in living:
        if found.name == name:
            return found
    names = ", ".join(other.name for other in living)
    hint = f"running: {names}" if living else "start one with `yamori lab up DEVICE`"
    raise LabError("no such VM is running", where=name, hint=hint)


@contextmanager
def machine(kind: str, name: str | None = None, **settings: Any) -> Iterator[Machine]:
    """Start a VM for the length of a ``with`` block.

    Args:
        kind: Which device, a key of ``DEVICES``.
        name: What to call it; a name of its own unless given, so that several can run at once.
        settings: See ``up``.

    Raises:
        LabError: See ``up``.
    """
    started = up(kind, name or f"{kind}-{os.getpid()}-{next(_numbers)}", **settings)
    try:
        yield started
    finally:
        started.down()


def memory_size(text: int | str) -> int:
    """Return a size in MiB from a number of MiB or a string such as ``"96M"`` or ``"1G"``.

    Raises:
        LabError: It is no size, or none that a Linux kernel could boot in.
    """
    match = re.fullmatch(r"([0-9]{1,6})(?:(M|G)i?B?)?", str(text), re.IGNORECASE)
    size = int(match[1]) * (1024 if (match[2] or "").upper() == "G" else 1) if match else 0
    if not 16 <= size <= 1 << 20:
        raise LabError("not a size of memory for a device", where=repr(text), hint="give MiB, or a unit: 96M, 1G")
    return size


def _lab_userland(kind: Device, progress: Progress) -> bytes:
    busybox = packages.busybox(packages.unpacked(kind.architecture, "busybox-static", progress, kind.suite))
    return initramfs.build(busybox, kind.elf)


def _boot_files(
    kind: Device, kernel: Path | str | None, suite: str | None, progress: Progress
) -> tuple[Path, Path | None]:
    """Return the kernel, and the device tree that comes with Debian's where the board needs one."""
    own = _existing(kernel) if kernel else None
    if own and not kind.dtb:
        return own, None
    if not kind.kernel:
        raise LabError("Debian has no kernel for this board", where=kind.name, hint="give one with --kernel")
    files = packages.unpacked(kind.architecture, kind.kernel, progress, kind.suite if suite is None else suite)
    return own or packages.kernel_image(files), packages.device_tree(files, kind.dtb) if kind.dtb else None


def _existing(path: Path | str) -> Path:
    absolute = Path(path).absolute()
    if not absolute.is_file():
        raise LabError("no such file", where=str(path))
    return absolute


def _launch(settings: Settings, userland: Path | bytes) -> Machine:
    """Start QEMU and note it. The registry is locked and interrupts wait, so nothing can fall between the two."""
    state = _directory(settings.name)
    _refuse_running(settings.name)
    try:
        _forget(state)
        state.mkdir(parents=True, mode=0o700)
        initrd = userland if isinstance(userland, Path) else state / "initrd"
        if isinstance(userland, bytes):
            initrd.write_bytes(userland)
        pid, started = qemu.start(settings, initrd, state)
        record = Record(
            name=settings.name,
            device=settings.device.name,
            pid=pid,
            started=started,
            kernel=str(settings.kernel),
            memory=settings.memory,
            smp=settings.smp,
        )
        _note(state, record)
    except OSError as error:
        _forget(state)
        raise LabError(f"cannot keep its state: {error.strerror}", where=str(state)) from error
    except BaseException:
        _forget(state)
        raise
    return Machine(record)


def _note(state: Path, record: Record) -> None:
    draft = state / "draft"
    draft.write_bytes(msgspec.json.encode(record))
    draft.rename(state / registry.RECORD_FILE)  # a reader sees all of it or nothing


def _forget(state: Path) -> None:
    shutil.rmtree(state, ignore_errors=True)


def _directory(name: str) -> Path:
    try:
        return registry.directory(name)
    except TargetError as error:
        raise LabError(error.message, where=error.where, hint=error.hint) from None


def _refuse_running(name: str) -> None:
    record = registry.load(_directory(name))
    if record is not None and registry.alive(record):
        hint = f"give the new one another --name, or end it with `yamori lab down {name}`"
        raise LabError("a VM of this name is running already", where=name, hint=hint)


@contextmanager
def _registry_lock() -> Iterator[None]:
    """Hold the right to make and remove state directories."""
    root = registry.state_root()
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = (root / ".lock").open("ab")
    except OSError as error:
        raise LabError(f"cannot keep the lab's state: {error.strerror}", where=str(root)) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _interrupts_later() -> Iterator[None]:
    """Let Ctrl-C take effect only at the end of the block."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
