"""QEMU, with KVM or without, whoever started it: find its processes, and where their guests' RAM lies.

Everything comes from ``/proc``: the command line, the mappings and the open files. QMP is asked only where these leave
several answers or the user names its socket, and is not needed. The VM is never stopped and nothing of it is changed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from yamori.errors import TargetError
from yamori.hypervisors import process, qemu_boards, qemu_ram
from yamori.hypervisors.process import Mapping
from yamori.hypervisors.qemu_boards import Placements
from yamori.hypervisors.qemu_commandline import CommandLine, architecture, parse
from yamori.hypervisors.qemu_ram import Block, Sources
from yamori.hypervisors.qmp import Answer, Monitor
from yamori.hypervisors.vm import Layout, VirtualMachine

SCHEME = "qemu"
_MIB = 1 << 20


class _Qemu(NamedTuple):
    """A running QEMU."""

    pid: int
    program: str
    command: CommandLine

    @property
    def name(self) -> str:
        """What its manager calls it, or what stands in for that."""
        return self.command.name or f"qemu-{self.pid}"

    @property
    def machine(self) -> str:
        """What runs, in words."""
        return f"{self.program} {self.command.machine}".strip()


class _Ram(NamedTuple):
    """What is known of a guest's RAM."""

    layouts: tuple[Layout, ...]
    base_known: bool
    notes: tuple[str, ...]
    mappings: frozenset[Mapping] = frozenset()  # whatever may be RAM


def find() -> list[VirtualMachine]:
    """Return every QEMU system process that can be seen, with what attaching to it lacks."""
    running = _running()
    found = []
    for qemu in running:
        spec = _spec(qemu, running)
        try:
            found.append(_attach(qemu, f"{SCHEME}:{spec}", None, None, quiet=True))
        except TargetError as error:
            lacks = f"{error.message}; {error.hint}" if error.hint else error.message
            found.append(VirtualMachine(f"{SCHEME}:{spec}", qemu.name, qemu.pid, qemu.machine, (), lacks=(lacks,)))
    return found


def attach(spec: str, *, ram_base: int | None = None) -> VirtualMachine:
    """Find one QEMU VM and how its RAM lies.

    Args:
        spec: Its name (``-name``), its process id, or the path of its QMP socket, with a slash in it.
        ram_base: GPA of the first byte of RAM, where the user knows better.

    Raises:
        TargetError: There is no such VM, there are several, or its memory cannot be opened.
    """
    target = f"{SCHEME}:{spec}"
    running = _running()
    by_pid = [qemu for qemu in running if str(qemu.pid) == spec]
    by_name = [qemu for qemu in running if qemu.command.name == spec]
    if not by_pid and not by_name and "/" in spec:
        return _attach_by_socket(spec, target, running, ram_base)
    matching = by_pid or by_name
    if len(matching) == 1:
        return _attach(matching[0], target, ram_base, None)
    if matching:
        pids = " or ".join(f"{SCHEME}:{qemu.pid}" for qemu in matching)
        raise TargetError(
            f"{len(matching)} VMs have this name", where=target, hint=f"name one by its process id: {pids}"
        )
    raise TargetError(_why_not(spec), where=target, hint=_others(running))


def _spec(qemu: _Qemu, running: list[_Qemu]) -> str:
    """Return what names this VM and no other."""
    name = qemu.command.name
    alone = [other.command.name for other in running].count(name) == 1
    return name if alone and _plain(name) else str(qemu.pid)


def _plain(name: str) -> bool:
    """Say whether a name can be typed as a target without being taken for something else."""
    return bool(name) and "/" not in name and not name.isdecimal()


def _running() -> list[_Qemu]:
    found = []
    lines: dict[int, list[str]] = {}
    for pid in sorted(process.process_ids()):
        try:
            words = process.arguments(pid)
            # A wrapper may have given the program another name, and another user's program cannot be seen.
            program = next((name for name in (process.executable(pid), *words[:1]) if architecture(name)), "")
            # QEMU's own children (-run-with async-teardown=on) look like itself.
            if not words or not program or lines.get(process.parent(pid)) == words:
                continue
        except OSError:
            continue  # ended meanwhile, or hidden from us (hidepid)
        lines[pid] = words
        found.append(_Qemu(pid, program.rpartition("/")[2], parse(program, words[1:])))
    return found


def _why_not(spec: str) -> str:
    if not spec.isdecimal():
        return "no QEMU VM has this name"
    try:
        name = Path(f"/proc/{int(spec)}/comm").read_text(errors="replace").strip()
        if process.ended(int(spec)):
            return "the VM has ended" if architecture(name) else f"process {spec} ({name}) has ended"
    except (OSError, ValueError):
        return "there is no such process"
    return f"process {spec} ({name}) is not a QEMU system emulator"


def _others(running: list[_Qemu]) -> str:
    names = [f"{SCHEME}:{_spec(qemu, running)}" for qemu in running]
    return (
        f"there is {', '.join(names[:8])}"
        if names
        else "no QEMU VM runs on this machine, or none that this user can see"
    )


def _attach_by_socket(path: str, target: str, running: list[_Qemu], ram_base: int | None) -> VirtualMachine:
    with Monitor(path) as monitor:
        owners = [qemu for qemu in running if qemu.pid == monitor.pid] or _listening(path, running)
        if len(owners) != 1:
            said = (
                f"is process {monitor.pid}, not a QEMU VM on this machine"
                if monitor.pid
                else "cannot be seen from here"
            )
            raise TargetError(f"who listens on this socket {said}", where=target, hint=_others(running))
        command = owners[0].command
        if not monitor.greets and _is(path, command.sockets) and not _is(path, command.qmp):
            hint = f"name the VM instead: {SCHEME}:{_spec(owners[0], running)}"
            raise TargetError("this socket of the VM is not its QMP socket", where=target, hint=hint)
        return _attach(owners[0], target, ram_base, monitor)


def _is(path: str, sockets: Iterable[str]) -> bool:
    """Say whether a path is one of a command line's, which are relative to a directory that is no longer known."""
    return any(path == known or path.endswith("/" + known) or known.endswith("/" + path) for known in sockets)


def _listening(path: str, running: list[_Qemu]) -> list[_Qemu]:
    """Find whose socket it is without its peer's word: by the kernel's table of sockets, or by the command lines."""
    links = {f"socket:[{entry.inode}]" for entry in process.listeners() if _is(path, [entry.path])}
    return [qemu for qemu in running if links & _links(qemu.pid)] or [
        q for q in running if _is(path, q.command.sockets)
    ]


def _links(pid: int) -> set[str]:
    try:
        return set(process.descriptors(pid).values())
    except OSError:
        return set()


def _attach(
    qemu: _Qemu, target: str, ram_base: int | None, monitor: Monitor | None, *, quiet: bool = False
) -> VirtualMachine:
    """Describe a VM; where ``quiet``, without a word to it, at the price of more layouts."""
    try:
        ram = _ram(qemu, ram_base, monitor, quiet=quiet)
        for path in sorted({segment.path for segment in ram.layouts[0]} if ram.layouts else ()):
            os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except PermissionError:
        raise TargetError(
            f"no permission to read its memory (process {qemu.pid})", where=target, hint=_permit(qemu.pid)
        ) from None
    except (FileNotFoundError, ProcessLookupError):
        raise TargetError("the VM has ended", where=target) from None
    except OSError as error:
        raise TargetError(f"its memory cannot be opened: {error.strerror}", where=target) from None
    if not ram.layouts:
        hint = "if it is just starting, try again; else name its QMP socket"
        raise TargetError(f"no mapping of process {qemu.pid} has the size of its RAM", where=target, hint=hint)
    return VirtualMachine(
        target=target,
        name=qemu.name,
        pid=qemu.pid,
        machine=qemu.machine,
        layouts=ram.layouts,
        base_known=ram.base_known,
        notes=ram.notes,
    )


def _permit(pid: int) -> str:
    try:
        uid = process.owner(pid)
    except OSError:
        return "run as root"
    if uid != os.geteuid():
        return f"run as root, or as its user (uid {uid})"
    scope = Path("/proc/sys/kernel/yama/ptrace_scope")
    if scope.exists() and scope.read_text().strip() != "0":
        return f"run as root: kernel.yama.ptrace_scope is {scope.read_text().strip()}"
    return "run as root with CAP_SYS_PTRACE, which containers often lack"


def _ram(qemu: _Qemu, ram_base: int | None, monitor: Monitor | None, *, quiet: bool) -> _Ram:
    maps = process.mappings(qemu.pid)
    sources = Sources(qemu.pid)
    ram = _from_proc(qemu.command, maps, sources, qemu_boards.default_ram_size(qemu.command), ram_base)
    certain = len(ram.layouts) == 1 and ram.base_known and not qemu.command.hotplug
    if quiet or ram_base is not None or (certain and monitor is None):
        return ram
    answer, note = _ask(qemu, monitor)
    if answer and not ram.layouts and answer.ram_size:
        ram = _from_proc(qemu.command, maps, sources, answer.ram_size, ram_base)
    confirmed = _from_answer(answer, ram.mappings, maps, sources) if answer else ()
    if confirmed:
        changed = "" if confirmed in ram.layouts else ", which differs from the command line"
        return ram._replace(layouts=(confirmed,), base_known=True, notes=(*ram.notes, f"QMP gave the RAM map{changed}"))
    if qemu.command.hotplug:
        note = f"{note}; memory that was added as a device is left out"
    return ram._replace(notes=(*ram.notes, note))


def _from_proc(command: CommandLine, maps: list[Mapping], sources: Sources, default: int, ram_base: int | None) -> _Ram:
    """Put the mappings that fit into the places that the board has for them."""
    wanted = qemu_ram.wanted(command, default)
    total = sum(block.size for block in wanted)
    if ram_base is None:
        places = qemu_boards.placements(command, total)
    else:
        places = Placements(
            (((ram_base, total),),), base_known=True, note=f"RAM base {ram_base:#x} as the user gave it"
        )
    blocks = qemu_ram.choices(wanted, command.backends, maps)
    layouts = tuple(qemu_ram.join(placement, chosen, sources) for chosen in blocks for placement in places.choices)
    notes = [places.note, *(_describe(block, sources) for block in (blocks[0] if blocks else ()))]
    if len(blocks) > 1:
        notes.append(f"{len(blocks)} mappings or orders of them fit")
    mappings = frozenset(block.mapping for chosen in blocks for block in chosen)
    return _Ram(layouts, base_known=places.base_known, notes=tuple(notes), mappings=mappings)


def _describe(block: Block, sources: Sources) -> str:
    segment = sources.segment(0, block.size, block.mapping, 0)
    what = f"shared, {block.mapping.path}" if segment.kind == "shared" else "private to the process"
    return f"{block.size // _MIB} MiB of RAM at HVA {block.mapping.start:#x}: {what}"


def _ask(qemu: _Qemu, monitor: Monitor | None) -> tuple[Answer | None, str]:
    """Ask through the monitor at hand, or else the one the command line names; say what came of it."""
    if monitor is not None:
        return _said(monitor)
    path = next((path for path in qemu.command.qmp if path.startswith("/")), "")
    if not path:
        return None, "QMP was not asked: the command line names no socket with a full path"
    try:
        with Monitor(path) as opened:
            return (
                _said(opened) if opened.pid == qemu.pid else (None, f"QMP was not asked: {path} is another process's")
            )
    except TargetError as error:
        return None, f"QMP was not asked: {error}"


def _said(monitor: Monitor) -> tuple[Answer | None, str]:
    if not monitor.greets:
        return None, "QMP was not asked: no greeting within a second, its one place is taken"
    answer = monitor.ask()
    return answer, "QMP was asked" if answer else "QMP gave no answer (or the extra `qmp` is not installed)"


def _from_answer(answer: Answer, ram: frozenset[Mapping], maps: list[Mapping], sources: Sources) -> Layout:
    """Return the layout that QMP gave, empty where it does not add up to the RAM that the VM has."""
    segments = []
    for piece in answer.pieces:
        plugged = any(gpa <= piece.gpa < gpa + size for gpa, size in answer.plugged)
        holding = next((m for m in maps if m.start <= piece.hva and piece.hva + piece.size <= m.end), None)
        if holding and (plugged or holding in ram):
            segments.append(sources.segment(piece.gpa, piece.size, holding, piece.hva - holding.start))
    total = answer.ram_size + sum(size for _, size in answer.plugged)
    return tuple(segments) if sum(segment.size for segment in segments) == total else ()
