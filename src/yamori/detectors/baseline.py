"""Baselines: what a device is meant to run, learned once, edited by hand, and held against what it does run.

A baseline is a TOML file; each of its sections is one question, and a section that is not there is not asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import msgspec

from yamori.errors import YamoriError
from yamori.records import Process, Program, Socket, SystemCall

VERSION = 1
MOST_BYTES = 16 << 20


class BaselineError(YamoriError):
    """A baseline cannot be used."""


class Allowed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A process that a device is meant to run.

    Attributes:
        name: Its ``comm``; ``*`` stands for anything.
        executable: Path of its file, in which ``*`` stands for anything; ``None`` allows every one.
        users: The uids that it may have; ``None`` allows every one.
        required: Whether its absence is found, too.
    """

    name: str
    executable: str | None = None
    users: list[int] | None = None
    required: bool = False

    def covers(self, row: Process) -> bool:
        """Say whether a process is meant; what is not known of it cannot be held against it."""
        path = row.executable if isinstance(row, Program) else None
        return (
            matches(self.name, row.comm)
            and (self.executable is None or path is None or matches(self.executable, path))
            and (self.users is None or {row.uid, row.euid} - {None} <= set(self.users))
        )

    def includes(self, other: Allowed) -> bool:
        """Say whether all that another one allows is allowed by this one."""
        same = self.executable is None or (other.executable is not None and matches(self.executable, other.executable))
        users = self.users is None or (other.users is not None and set(other.users) <= set(self.users))
        return matches(self.name, other.name) and same and users


class Tables(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The kernel's own tables.

    Attributes:
        kernel: The banner of the kernel that they were learned from.
        system_calls: The function of each entry of the system-call table, in its order.
    """

    kernel: str
    system_calls: list[str]


class Baseline(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a device is meant to run. Sections that are ``None`` are not looked at.

    Attributes:
        version: Of this format.
        process: Every process that is meant to run.
        modules: Names of modules, in which ``*`` stands for anything.
        listening: What may be listened at: ``tcp 443``, ``udp 68``, ``tcp *``.
        tables: The kernel's own tables.
    """

    version: int
    process: list[Allowed] | None = None
    modules: list[str] | None = None
    listening: list[str] | None = None
    tables: Tables | None = None


def matches(pattern: str, text: str) -> bool:
    """Say whether a text is meant by a pattern, in which ``*`` stands for anything and all else for itself."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text, re.DOTALL) is not None


def read(path: Path) -> Baseline:
    """Read a baseline.

    Raises:
        BaselineError: It cannot be read, or is none; with the line, or the place in it.
    """
    return parsed(text_of(path), path)


def text_of(path: Path) -> str:
    """Return what is in a file.

    Raises:
        BaselineError: It cannot be read, or is no text.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MOST_BYTES + 1)
    except OSError as error:
        hint = "`yamori baseline learn` writes one"
        raise BaselineError(error.strerror or str(error), where=str(path), hint=hint) from error
    if len(data) > MOST_BYTES:
        raise BaselineError("it is too large for a baseline", where=str(path))
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise BaselineError(f"it is no text: {error.reason}", where=str(path)) from error


def parsed(text: str, path: Path) -> Baseline:
    """Return the baseline that a text is.

    Raises:
        BaselineError: It is none; with the line, or the place in it.
    """
    try:
        found = msgspec.toml.decode(text, type=Baseline)
    except msgspec.DecodeError as error:  # ValidationError, too, which names the place
        raise BaselineError(f"it is no baseline: {error}", where=str(path), hint="docs/detectors.md has one") from error
    if found.version != VERSION:
        raise BaselineError(f"its version is {found.version}; this Yamori reads version {VERSION}", where=str(path))
    return found


def functions(rows: Iterable[SystemCall]) -> list[str]:
    """Return what each entry leads to, as it stays from boot to boot: a symbol, not an address."""
    return [f"{row.symbol}+{row.offset:#x}" if row.offset else row.symbol for row in rows]


def listens(row: Socket) -> str | None:
    """Return what a socket listens at, as a baseline has it, or ``None`` if it does not.

    A datagram socket listens while it has a port and nobody at the other end.
    """
    waiting = row.state == "listening" or (row.type == "dgram" and row.local_port and not row.remote_port)
    return f"{row.protocol} {row.local_port}" if row.protocol and waiting else None
