"""The lines for programs of exported commands (``--raw``) as rows; the ``README.md`` of an export tells of them.

They come over a line from a hypervisor that looks into a hostile guest. So each line is checked, and what is no such
line is refused as a whole.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeVar

from yamori.errors import TargetError
from yamori.hypervisors.vm import Commands
from yamori.records import Process, Result, Row, SystemCall

R = TypeVar("R", bound=Row)

NANOSECONDS = 1_000_000_000

_NUMBER = r"(-?\d{1,20}|-)"
_PROCESS = re.compile(
    rf"P {' '.join([_NUMBER] * 7)} (\S|\\x[0-9a-f]{{2}}) ([01]) {_NUMBER} 0x([0-9a-f]{{1,16}}) ([\x20-\x7e]{{0,64}})"
)
_CALL = re.compile(r"S (\d{1,5}) 0x([0-9a-f]{1,16}) ([01]) ([01])")
_BANNER = re.compile(r"B ([\x20-\x7e]+)")


def plist(commands: Commands) -> Result[Process]:
    """List every process by ``ids plist``.

    Raises:
        TargetError: The console is dead, or what came are no such rows.
    """
    return _result(commands, "plist", _process)


def syscall(commands: Commands) -> Result[SystemCall]:
    """List the system-call table by ``ids syscall``; without symbols, which the hypervisor has no room for.

    Raises:
        TargetError: The console is dead, or what came are no such rows.
    """
    changed: list[int] = []
    result = _result(commands, "syscall", lambda line: _call(line, changed))
    more = [f"system call {nr} does not lead where it led at the export" for nr in changed]
    return replace(result, notes=[*result.notes, *more])


def banner(commands: Commands) -> str:
    """Return the banner of the kernel that runs by ``ids banner``.

    Raises:
        TargetError: The console is dead, or the kernel was not found.
    """
    lines = commands.run("banner")
    found = _BANNER.fullmatch(lines[0])
    if not found:
        raise TargetError(lines[-1].removeprefix("E ") if lines[-1].startswith("E ") else "it has no banner")
    return found[1]


def _result(commands: Commands, command: str, row: Callable[[str], R]) -> Result[R]:
    started = time.perf_counter()
    *lines, end = commands.run(command)
    rows = [row(line) for line in lines]
    whole = end.startswith("= ")
    return Result(
        rows=rows,
        complete=whole,
        reasons=[] if whole else [end.removeprefix("E ")],
        faults=0,
        loads=_loads(end) if whole else 0,
        elapsed_s=time.perf_counter() - started,
        notes=[f"`ids {command}` ran in the hypervisor"],
    )


def _loads(end: str) -> int:
    found = re.fullmatch(r"= \d{1,9} (\d{1,18})", end)
    if not found:
        raise no_rows(end)
    return int(found[1])


def no_rows(line: str) -> TargetError:
    """Return the error that says that a line is no row."""
    return TargetError(f"this is no row of an exported command: {line[:80]!r}", hint="is it of this version?")


def _process(line: str) -> Process:
    found = _PROCESS.fullmatch(line)
    if not found:
        raise no_rows(line)
    pid, tgid, ppid, uid, gid, euid, egid = _numbers(found.groups()[:7])
    state, kthread, start, task, comm = found.groups()[7:]
    if pid is None or tgid is None:
        raise no_rows(line)
    return Process(
        pid=pid,
        tgid=tgid,
        ppid=ppid or 0,
        uid=uid,
        gid=gid,
        euid=euid,
        egid=egid,
        comm=comm,
        state=None if state == "-" else state,
        kthread=kthread == "1",
        start_time=None if start == "-" else int(start) / NANOSECONDS,
        task=int(task, 16),
    )


def _numbers(texts: Iterable[str]) -> list[int | None]:
    return [None if text == "-" else int(text) for text in texts]


def _call(line: str, changed: list[int]) -> SystemCall:
    found = _CALL.fullmatch(line)
    if not found:
        raise no_rows(line)
    if found[4] == "0":
        changed.append(int(found[1]))
    return SystemCall(int(found[1]), int(found[2], 16), "", 0, found[3] == "1")
