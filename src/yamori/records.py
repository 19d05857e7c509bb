"""The rows that probes give: typed, immutable, and the same in Python, in tables and in JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, Generic, Literal, TypeAlias, TypeVar, get_args, get_type_hints

import msgspec

SCHEMA = "yamori/1"


_ADDRESS = object()

Address: TypeAlias = Annotated[int, _ADDRESS]
"""A number that is shown in hexadecimal; in JSON it is a string, ``"0xc001b10c"``, for readers lose bits above 2^53."""


class Row(msgspec.Struct, frozen=True):
    """What every row is.

    Fields are ``int``, ``Address``, ``bool``, ``str`` (escaped), ``float`` (seconds), or ``None`` beside one of these.
    """


class Banner(Row, frozen=True, kw_only=True):
    """What runs in the guest, by its own word and by what was proved of it.

    Attributes:
        banner: ``linux_banner`` without the newline: as ``/proc/version`` shows.
        release: As ``uname -r``.
        version: As ``uname -v``.
        upstream: The upstream version that the release or the distribution's build names, as in ``6.1.176``.
        machine: As ``uname -m``.
        nodename: The guest's host name.
        compiler: Name and version of the compiler, as in ``gcc 12.2.0``; empty if the banner does not say.
        build: Who built it, and which build it is.
        architecture: ``arm``, ``aarch64``, ``riscv64`` or ``x86_64``: the page tables that were proved.
        translation: The page tables' geometry, in words.
        granule: Bytes of a page.
        slide: KASLR slide in bytes, ``None`` where it is not known.
        build_id: The kernel's build id in hexadecimal, or empty.
    """

    banner: str
    release: str
    version: str
    upstream: str
    machine: str
    nodename: str
    compiler: str
    build: str
    architecture: str
    translation: str
    granule: int
    slide: Address | None
    build_id: str


class SystemCall(Row, frozen=True):
    """One entry of a system-call table.

    Attributes:
        nr: The number.
        address: Where the entry points.
        symbol: Symbol at or before the address, or empty.
        offset: Bytes behind the symbol; 0 for an entry that has not been tampered with.
        in_kernel_text: Whether the address lies in the kernel's own text; ``None`` where its bounds are not known.
    """

    nr: int
    address: Address
    symbol: str
    offset: int
    in_kernel_text: bool | None


class Process(Row, frozen=True):
    """One process, or one thread.

    Attributes:
        pid: The thread's id (``task_struct.pid``).
        tgid: The process's id, which users call its pid (``task_struct.tgid``).
        ppid: ``tgid`` of the real parent; 0 where there is none (or it cannot be read, which makes a run incomplete).
        uid: Real user id, ``None`` where the credentials could not be read.
        gid: Real group id.
        euid: Effective user id.
        egid: Effective group id.
        comm: Name, at most 15 bytes; bytes that are no printable ASCII are escaped as in C.
        state: The letter that ``ps`` shows: ``R``, ``S``, ``D``, ``T``, ``t``, ``X``, ``Z``, ``P`` or ``I``.
        kthread: Whether it is a kernel thread.
        start_time: Seconds since the guest booted, suspended time included.
        task: Address of its ``task_struct``.
    """

    pid: int
    tgid: int
    ppid: int
    uid: int | None
    gid: int | None
    euid: int | None
    egid: int | None
    comm: str
    state: str | None
    kthread: bool
    start_time: float | None
    task: Address


class Program(Process, frozen=True):
    """One process with what it runs.

    Attributes:
        executable: Path of the file that it was started from, in the guest's root; ``None`` for a kernel thread, and
            where it is not known.
        deleted: Whether that file is no longer in its directory.
        arguments: Its command line, as the process has it now; ``None`` for a kernel thread, and where it is not in
            memory.
    """

    executable: str | None
    deleted: bool | None
    arguments: str | None


class Socket(Row, frozen=True):
    """One socket that a process holds.

    Attributes:
        pid: The process (``task_struct.tgid``).
        fd: Its file descriptor.
        family: ``unix``, ``inet``, ``inet6``, ``netlink``, ``packet`` or another; a number where it has no name here.
        type: ``stream``, ``dgram``, ``raw`` or another.
        protocol: ``tcp``, ``udp`` or another; ``None`` where it is not of the internet, as the next four.
        state: ``listening``, ``established`` or another of TCP's; those of other families are named alike.
        local: Address at this end.
        local_port: Port at this end; the protocol's number for a raw socket.
        remote: Address at the other end; all zeros where there is none.
        remote_port: Port at the other end.
        filtered: Whether a BPF program sees its packets first.
        inode: Its number in ``/proc/net`` and ``/proc/PID/fd``.
        net: Address of its network namespace, ``struct net``; 0 where the kernel has one only.
        sock: Address of its ``struct sock``.
    """

    pid: int
    fd: int
    family: str
    type: str
    protocol: str | None
    state: str
    local: str | None
    local_port: int | None
    remote: str | None
    remote_port: int | None
    filtered: bool
    inode: int
    net: Address
    sock: Address


class File(Row, frozen=True):
    """One file that a process has open.

    Attributes:
        pid: The process (``task_struct.tgid``).
        fd: Its file descriptor.
        kind: ``file``, ``dir``, ``char``, ``block``, ``fifo``, ``socket``, ``link``, or ``anon`` for what is none.
        mode: ``r``, ``w``, ``rw``; empty for one that only names a file (``O_PATH``).
        position: Bytes from its start at which the next is read or written.
        inode: Its number on its filesystem.
        deleted: Whether it is no longer in its directory.
        path: Where it lies in the guest's root, or what ``/proc/PID/fd`` calls it; ``None`` where it cannot be told.
        file: Address of its ``struct file``.
    """

    pid: int
    fd: int
    kind: str
    mode: str
    position: int
    inode: int
    deleted: bool
    path: str | None
    file: Address


class Mount(Row, frozen=True):
    """One mount.

    Attributes:
        pid: The first process of its mount namespace.
        id: Its number (``mnt_id``).
        parent: The number of the mount that it is mounted on; its own where it is on none.
        device: What it is mounted from.
        path: Where it is mounted, in the guest's root; ``None`` where that cannot be told.
        type: Its filesystem.
        options: ``rw`` or ``ro``, ``nosuid`` and others, with commas.
        namespace: Address of its ``struct mnt_namespace``.
        mount: Address of its ``struct mount``.
    """

    pid: int
    id: int
    parent: int
    device: str
    path: str | None
    type: str
    options: str
    namespace: Address
    mount: Address


class Mapping(Row, frozen=True):
    """One mapping of a process's memory.

    Attributes:
        pid: The process (``task_struct.tgid``).
        start: First address.
        end: First address behind it.
        mode: As in ``/proc/PID/maps``: ``rwx``, ``s`` for shared or ``p`` for private.
        offset: Bytes from the start of what is mapped.
        deleted: Whether the file is no longer in its directory.
        path: The file, or ``[heap]``, ``[stack]`` and the like; empty for memory of no file; ``None`` where it cannot
            be told.
    """

    pid: int
    start: Address
    end: Address
    mode: str
    offset: Address
    deleted: bool
    path: str | None


class LogLine(Row, frozen=True):
    """One record of the kernel's log.

    Attributes:
        seq: Its number since the boot; from 0 on in what is left of the log before 5.10.
        time: Seconds since the boot (``local_clock``).
        facility: Who wrote it, as in ``syslog(3)``: 0 is the kernel.
        level: How important it is, from 0 (emergency) to 7 (debug).
        text: What it says, escaped.
    """

    seq: int
    time: float
    facility: int
    level: int
    text: str


class Module(Row, frozen=True):
    """One module of the kernel's.

    Attributes:
        name: Its name.
        state: ``L`` (live), ``C`` (coming), ``G`` (going) or ``U`` (being built up).
        base: Where its code begins; ``None`` where that is not known.
        size: Bytes of all memory that it keeps.
        code: Bytes from ``base`` on among which its code is.
        taints: Bits of ``module.taints``: what the kernel holds against it; ``None`` where they are not known.
        module: Address of its ``struct module``.
    """

    name: str
    state: str
    base: Address | None
    size: int | None
    code: int | None
    taints: Address | None
    module: Address


class BpfProgram(Row, frozen=True):
    """One BPF program.

    Attributes:
        id: Its number (``bpf_prog_aux.id``).
        type: ``kprobe``, ``cgroup_skb`` or another of ``enum bpf_prog_type``; a number where that is not
            known.
        name: Its name, of 15 characters at most; empty where its loader gave none.
        tag: The checksum of its instructions, as in ``/proc/kallsyms``.
        uid: Who loaded it; ``None`` where that cannot be told.
        attached: The kernel's function that it is made for (``attach_func_name``); empty for other types.
        overrides: Whether it can have the kernel's functions return what it likes (``bpf_override_return``); ``None``
            where the kernel does not say.
        address: Its code; ``None`` where it is interpreted.
        prog: Address of its ``struct bpf_prog``.
    """

    id: int
    type: str
    name: str
    tag: str
    uid: int | None
    attached: str
    overrides: bool | None
    address: Address | None
    prog: Address


Severity = Literal["critical", "high", "medium", "low"]
Confidence = Literal["certain", "likely", "possible"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What a detector found.

    Attributes:
        subject: What it is about, the same from one look to the next: ``process 123``, ``system call 59``.
        severity: How bad it is if true.
        confidence: How surely it is true.
        title: What it means, in words that need no expert.
        why: What was expected and what was found, with addresses, symbols, modules and processes, a sentence each.
        remedy: What to do next.
        attack: Ids of MITRE ATT&CK; those of its detector where it has none.
        detector: The name of what found it, which a detector leaves to be filled in.
    """

    subject: str
    severity: Severity
    confidence: Confidence
    title: str
    why: list[str]
    remedy: str
    attack: list[str] = []
    detector: str = ""


R = TypeVar("R", bound=Row)


@dataclass(frozen=True)
class Result(Generic[R]):
    """What a run of a probe gave.

    Attributes:
        rows: The rows.
        complete: Whether they are all there is.
        reasons: Why they are not, one sentence each.
        faults: Loads that the guest's memory did not allow.
        loads: Guest loads done.
        elapsed_s: Seconds the run took.
        notes: What a reader should know of the rows though they are complete.
    """

    rows: list[R]
    complete: bool
    reasons: list[str]
    faults: int
    loads: int
    elapsed_s: float
    notes: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[R]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


def escape(text: bytes) -> str:
    """Return bytes that the guest chose as printable ASCII, everything else escaped as in C."""
    plain = text.decode("latin-1")
    if plain.isascii() and plain.isprintable() and "\\" not in plain:
        return plain
    return "".join(chr(byte) if 0x20 <= byte < 0x7F and byte != 0x5C else f"\\x{byte:02x}" for byte in text)


@cache
def addresses(kind: type[Row]) -> frozenset[str]:
    """Return the names of the fields of rows that are addresses."""
    hints = get_type_hints(kind, include_extras=True)
    return frozenset(name for name, hint in hints.items() if any(map(_is_address, (hint, *get_args(hint)))))


def _is_address(hint: Any) -> bool:
    return _ADDRESS in getattr(hint, "__metadata__", ())


def plain(row: Row) -> dict[str, Any]:
    """Return a row as JSON shows it."""
    values = msgspec.structs.asdict(row)
    for name in addresses(type(row)):
        if values[name] is not None:
            values[name] = f"{values[name]:#x}"
    return values
