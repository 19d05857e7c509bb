"""What the exported ``ids check`` found, as a report of ``yamori check``; and that it is no more than that."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from yamori.detectors.check import Report
from yamori.exports.rows import no_rows
from yamori.hypervisors.vm import Commands
from yamori.records import Finding

COMMAND = "ids check"

OTHERS = "it is not among the commands in the hypervisor; with a profile (--vmlinux), memory is read for it"
NO_LIST = "the export was given no allow-list (--baseline)"

_UID = r"(\d{1,10}|-)"
_NAME = r"([\x20-\x7e]{0,64})"


def report(commands: Commands) -> Report:
    """Return what ``ids check`` says.

    Raises:
        TargetError: The console is dead, or what came is no such answer.
    """
    started = time.perf_counter()
    *lines, end = commands.run("check")
    made = Report(not_checked=[("all other detectors", OTHERS)])
    for line in lines:
        if line == "N process":
            made.not_checked.append(("unknown-process", NO_LIST))
        else:
            made.findings.append(_finding(line))
    if end.startswith("= "):
        made.ran.append(COMMAND)
    else:
        made.not_checked.insert(0, (COMMAND, end.removeprefix("E ")))
    made.seconds[COMMAND] = time.perf_counter() - started
    return made


def _finding(line: str) -> Finding:
    for pattern, make in _KINDS.items():
        if found := re.fullmatch(pattern, line):
            return make(*found.groups())
    raise no_rows(line)


def _process(pid: str, uid: str, name: str) -> Finding:
    return Finding(
        subject=f"process {pid}",
        severity="high",
        confidence="certain",
        title=f"Process {pid} ({name}) is not meant to run on this device",
        why=["Expected: a process of the allow-list of the export.", f"Found: {name} as uid {uid}."],
        remedy="Find out who started it, and what it does. If it is meant, put it into the baseline and export anew.",
        attack=["T1059", "T1204.002"],
        detector="unknown-process",
    )


def _missing(name: str) -> Finding:
    return Finding(
        subject=f"missing {name}",
        severity="high",
        confidence="certain",
        title=f"{name} does not run, and this device needs it",
        why=["Expected: it runs, which the allow-list of the export requires.", "Found: no such process."],
        remedy="Start it again, and find out who ended it: intruders end what watches them.",
        attack=["T1489"],
        detector="unknown-process",
    )


def _syscall(number: str, address: str) -> Finding:
    return Finding(
        subject=f"system call {number}",
        severity="critical",
        confidence="certain",
        title=f"System call {number} leads elsewhere than when the commands were exported",
        why=["Expected: the kernel's own function.", f"Found: {address}."],
        remedy="Take the device off the network, keep an image of its memory, and restart it from a sound image.",
        attack=["T1014"],
        detector="system-calls",
    )


def _code(number: str, address: str) -> Finding:
    return Finding(
        subject=f"code of system call {number}",
        severity="critical",
        confidence="likely",
        title=f"The first instructions of system call {number} are not those of the export",
        why=["Expected: the code that was there when the commands were exported.", f"Found: other code at {address}."],
        remedy="Look for who traces or patches the kernel; if nobody is meant to, restart it from a sound image.",
        attack=["T1014"],
        detector="inline-hooks",
    )


_KINDS: dict[str, Callable[..., Finding]] = {
    rf"F process (\d{{1,10}}) {_UID} {_NAME}": _process,
    rf"F missing {_NAME}": _missing,
    r"F syscall (\d{1,5}) (0x[0-9a-f]{1,16})": _syscall,
    r"F code (\d{1,5}) (0x[0-9a-f]{1,16})": _code,
}
