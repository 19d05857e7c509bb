"""What a baseline does not have, and what it has and the guest has not."""

from __future__ import annotations

from collections.abc import Iterator

from yamori.detectors.baseline import Allowed, Baseline, functions, listens, matches
from yamori.detectors.detector import NotChecked, detector
from yamori.detectors.view import View
from yamori.records import Finding, Process, Program

MEANT = "If it is meant to be there, add it to the baseline; else find out who started it."


def _baseline(view: View) -> Baseline:
    if view.baseline is None:
        raise NotChecked("no baseline is given")
    return view.baseline


@detector(
    title="Processes that the baseline has not, or misses",
    needs="a baseline with processes, and where the kernel keeps a program's executable where the baseline names them",
    misses="what an allowed program does, and processes that no list of the kernel has",
    attack=["T1059", "T1204.002", "T1489"],
    section="process",
)
def unknown_process(view: View) -> Iterator[Finding]:
    """Hold each process against the baseline."""
    allowed = _baseline(view).process or []
    rows = [row for row in _rows(view, allowed) if not row.kthread]
    for row in rows:
        if not any(one.covers(row) for one in allowed):
            yield _unknown(row, allowed)
    for one in allowed:
        if one.required and not any(one.covers(row) for row in rows):
            yield Finding(
                subject=f"missing {one.name}",
                severity="high",
                confidence="certain",
                title=f"{one.name} does not run, and this device needs it",
                why=[f"Expected: {_said(one)}, which the baseline requires.", "Found: no such process."],
                remedy="Start it again, and find out who ended it: intruders end what watches them.",
            )


def _rows(view: View, allowed: list[Allowed]) -> list[Process]:
    """Return the processes, with their executables where the baseline asks for these."""
    return [*(view.programs() if any(one.executable for one in allowed) else view.processes())]


def _said(one: Allowed) -> str:
    path = f" from {one.executable}" if one.executable else ""
    users = f" as uid {' or '.join(map(str, one.users))}" if one.users else ""
    return f"{one.name}{path}{users}"


def _unknown(row: Process, allowed: list[Allowed]) -> Finding:
    path = f" from {row.executable}" if isinstance(row, Program) and row.executable else ""
    same = [_said(one) for one in allowed if matches(one.name, row.comm)]
    expected = f"only {'; '.join(same[:3])}" if same else "a process of the baseline"
    return Finding(
        subject=f"process {row.pid}",
        severity="high",
        confidence="certain",
        title=f"Process {row.pid} ({row.comm}) is not meant to run on this device",
        why=[
            f"Expected: {expected}.",
            f"Found: {row.comm}{path} as uid {row.uid}, euid {row.euid}, started by process {row.ppid}.",
        ],
        remedy=MEANT,
    )


@detector(
    title="Modules that the baseline has not",
    needs="a baseline with modules, and the list of modules",
    misses="hidden modules, which hidden-modules looks for",
    attack=["T1547.006"],
    section="modules",
)
def unknown_module(view: View) -> Iterator[Finding]:
    """Hold each module's name against the baseline."""
    patterns = _baseline(view).modules or []
    for module in view.modules():
        if not any(matches(pattern, module.name) for pattern in patterns):
            yield Finding(
                subject=f"module {module.name}",
                severity="high",
                confidence="certain",
                title=f"The kernel runs a module that this device is not meant to have: {module.name}",
                why=["Expected: a module of the baseline.", f"Found: {module.name}, {module.size} bytes."],
                remedy=MEANT,
            )


@detector(
    title="Ports that are listened at and that the baseline has not",
    needs="a baseline with listening, and struct sock from BTF or debug info",
    misses="sockets that no process holds, and those that are not of the internet",
    attack=["T1571", "T1205"],
    section="listening",
)
def unknown_listener(view: View) -> Iterator[Finding]:
    """Hold each socket that waits for somebody against the baseline."""
    patterns = _baseline(view).listening or []
    comms = {row.pid: row.comm for row in view.processes()}
    for row in view.sockets():
        at = listens(row)
        if at and not any(matches(pattern, at) for pattern in patterns):
            comm = comms.get(row.pid, "?")
            yield Finding(
                subject=f"process {row.pid} at {at}",
                severity="high",
                confidence="certain",
                title=f"Process {row.pid} ({comm}) listens at {at}, which this device is not meant to do",
                why=[
                    f"Expected: {', '.join(patterns) or 'nothing is listened at'}.",
                    f"Found: {at} at {row.local}, descriptor {row.fd} of process {row.pid}.",
                ],
                remedy=MEANT,
            )


@detector(
    title="System calls that lead elsewhere than in the baseline",
    needs="a baseline with tables, learned from the same build of the kernel",
    misses="changes of the functions themselves",
    attack=["T1014"],
    section="tables",
)
def changed_system_calls(view: View) -> Iterator[Finding]:
    """Hold each entry of the system-call table against the baseline."""
    tables = _baseline(view).tables
    if tables is None or tables.kernel != view.profile.banner:
        raise NotChecked(f"the baseline's tables are of another kernel: {tables.kernel if tables else 'none'}")
    rows, before = view.calls(), tables.system_calls
    if len(rows) != len(before):
        raise NotChecked(f"the baseline's table has {len(before)} entries, not {len(rows)}")
    for row, expected, found in zip(rows, before, functions(rows), strict=True):
        if expected != found:
            yield Finding(
                subject=f"system call {row.nr}",
                severity="critical",
                confidence="certain",
                title=f"System call {row.nr} was led elsewhere",
                why=[
                    f"Expected: {expected}, as in the baseline.",
                    f"Found: {row.address:#x}, {view.owner(row.address)}.",
                ],
                remedy="Preserve the memory of the device and isolate it.",
            )
