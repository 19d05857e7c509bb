"""Rights that a process did not get from the kernel."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from yamori.detectors.detector import NotChecked, detector
from yamori.detectors.view import View
from yamori.records import Finding, Process

REMEDY = "Treat the process, and what it has started since, as an intruder's; preserve the memory, isolate the device."


def _with_cred(view: View) -> Iterator[tuple[Process, int]]:
    """Yield each process that lives, and its ``real_cred``: ``cred`` is another's for a while (``override_creds``)."""
    member = view.profile.require("task_struct", "real_cred")
    reader = view.reader()
    for row in view.processes():
        if row.state not in {"Z", "X"} and (cred := reader.pointer(row.task + member.offset)):
            yield row, cred


@detector(
    title="Rights taken from another process",
    needs="where the kernel keeps credentials",
    misses="rights that were copied, or changed in place",
    attack=["T1068", "T1134"],
)
def shared_credentials(view: View) -> Iterator[Finding]:
    """Look for programs whose ``cred`` is another process's: ``copy_creds`` gives every process one of its own."""
    users: dict[int, list[Process]] = defaultdict(list)
    for row, cred in _with_cred(view):
        users[cred].append(row)
    # init_task is no row: it is the idle task, whose init_cred commit_creds(&init_cred) of an exploit hands out.
    at = view.profile.require("task_struct", "real_cred").offset
    idle = view.reader().pointer(view.profile.init.gva + at)
    for cred, rows in users.items():
        programs = [row for row in rows if not row.kthread]
        kernel = [row for row in rows if row.kthread]
        owner = None if cred == idle else (kernel or rows)[0]
        name = f"process {owner.pid} ({owner.comm})" if owner else "the kernel itself (init_task)"
        for row in programs:
            if row is not owner:
                yield _shared(row, cred, name)


def _shared(row: Process, cred: int, owner: str) -> Finding:
    return Finding(
        subject=f"process {row.pid}",
        severity="critical",
        confidence="certain",
        title=f"Process {row.pid} ({row.comm}) has the rights of another process",
        why=[
            "Expected: every process has a struct cred of its own; only threads of one process share one.",
            f"Found: its cred at {cred:#x} is that of {owner}, too.",
        ],
        remedy=REMEDY,
    )


@detector(
    title="Rights changed in place",
    needs="cred.user and user_struct.uid: from BTF, debug info, or where programs of different users run",
    misses="changed capabilities; a changed user_struct as well",
    attack=["T1068", "T1134"],
)
def changed_credentials(view: View) -> Iterator[Finding]:
    """Look for a ``cred`` whose uid is not that of its ``user_struct``: ``set_cred_user`` changes both."""
    user, uid = view.profile.member("cred", "user"), view.profile.member("user_struct", "uid")
    if user is None or uid is None:
        raise NotChecked("where cred.user lies in this kernel is not known", hint="give --vmlinux")
    reader = view.reader()
    for row, cred in _with_cred(view):
        account = reader.pointer(cred + user.offset)
        raw = reader.read(account + uid.offset, 4) if account else None
        if raw is None or row.uid is None:
            continue
        owner = int.from_bytes(raw, "little")
        if owner != row.uid:
            yield Finding(
                subject=f"process {row.pid}",
                severity="critical",
                confidence="likely",
                title=f"The rights of process {row.pid} ({row.comm}) were changed behind the kernel's back",
                why=[
                    "Expected: the uid of a process is that of the account (user_struct) that it is counted for.",
                    f"Found: uid {row.uid}, euid {row.euid} in the cred at {cred:#x}, and the account of uid {owner}.",
                ],
                remedy=REMEDY,
            )
