"""What the exported ``ids check`` found, as a report of ``yamori check``; and that it is no more than that."""

from __future__ import annotations

import re
import time
from typing import NamedTuple

from yamori.detectors.check import Report
from yamori.exports.rows import no_rows
from yamori.hypervisors.vm import Commands
from yamori.records import Confidence, Finding, Severity

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


class _Kind(NamedTuple):
    """What a line of a kind means: sentences in which ``{0}`` and so on are its fields."""

    detector: str
    attack: str
    severity: Severity
    confidence: Confidence
    subject: str
    title: str
    expected: str
    found: str
    remedy: str


_KINDS = {
    rf"F process (\d{{1,10}}) {_UID} {_NAME}": _Kind(
        *("unknown-process", "T1059", "high", "certain"),
        "process {0}",
        "Process {0} ({2}) is not meant to run on this device",
        "a process of the allow-list of the export",
        "{2} as uid {1}",
        "Find out who started it, and what it does. If it is meant, put it into the baseline and export anew.",
    ),
    rf"F missing {_NAME}": _Kind(
        *("unknown-process", "T1489", "high", "certain"),
        "missing {0}",
        "{0} does not run, and this device needs it",
        "it runs, which the allow-list of the export requires",
        "no such process",
        "Start it again, and find out who ended it: intruders end what watches them.",
    ),
    r"F syscall (\d{1,5}) (0x[0-9a-f]{1,16})": _Kind(
        *("system-calls", "T1014", "critical", "certain"),
        "system call {0}",
        "System call {0} leads elsewhere than when the commands were exported",
        "the kernel's own function",
        "{1}",
        "Take the device off the network, keep an image of its memory, and restart it from a sound image.",
    ),
    r"F code (\d{1,5}) (0x[0-9a-f]{1,16})": _Kind(
        *("inline-hooks", "T1014", "critical", "likely"),
        "code of system call {0}",
        "The first instructions of system call {0} are not those of the export",
        "the code that was there when the commands were exported",
        "other code at {1}",
        "Look for who traces or patches the kernel; if nobody is meant to, restart it from a sound image.",
    ),
}


def _finding(line: str) -> Finding:
    for pattern, kind in _KINDS.items():
        if found := re.fullmatch(pattern, line):
            subject, title, expected, seen = (text.format(*found.groups()) for text in kind[4:8])
            return Finding(
                subject=subject,
                severity=kind.severity,
                confidence=kind.confidence,
                title=title,
                why=[f"Expected: {expected}.", f"Found: {seen}."],
                remedy=kind.remedy,
                attack=[kind.attack],
                detector=kind.detector,
            )
    raise no_rows(line)
