"""Ground truth: what a lab guest's own ``/proc`` says of its processes and threads, to compare with what we read."""

from __future__ import annotations

import re
from typing import NamedTuple

from yamori.errors import LabError

_COMM_BYTES = 15  # TASK_COMM_LEN without the final zero byte, include/linux/sched.h
_ESCAPE = re.compile(rb"\\(n|\\)")  # what proc_task_name() escapes in status, fs/proc/array.c
# What wq_worker_comm(), kernel/workqueue.c, adds begins with + or -. The name of a rescuer (6.9 and later) holds dashes
# itself; what is added to it is that of its workqueue, which is its own once more.
_WORKER = re.compile(rb"kworker/(?:R-([^+]+?)(?=[-+]\1$)|R-[^+]*|[^-+]*)")


class Task(NamedTuple):
    """One thread, as ``/proc`` shows it.

    Attributes:
        tgid: Process id (``task_struct.tgid``).
        tid: Thread id (``task_struct.pid``).
        ppid: Process id of the real parent.
        uid: Real user id.
        euid: Effective user id.
        gid: Real group id.
        state: The letter that ``ps`` shows.
        start_time: In clock ticks (1/100 s) after boot.
        kthread: Whether it is a kernel thread (``PF_KTHREAD``).
        comm: The name as ``task_struct.comm`` holds it, with surrogate escapes where it is not UTF-8. ``/proc``
            shows more of kernel threads: the whole of a long name, and what a worker is doing (``-events``).
    """

    tgid: int
    tid: int
    ppid: int
    uid: int
    euid: int
    gid: int
    state: str
    start_time: int
    kthread: bool
    comm: str


def parse(output: str) -> list[Task]:
    """Return the threads that the guest's command ``truth`` printed.

    Raises:
        LabError: A line is not what the command prints.
    """
    return [_task(line) for line in output.split("\n") if line]


def _task(line: str) -> Task:
    try:
        *front, comm = line.split(" ", 9)
        tgid, tid, ppid, uid, euid, gid, state, start, kthread = front
        kernel = kthread == "1"
        name = _comm(comm.encode("utf-8", "surrogateescape"), kernel=kernel)
        return Task(int(tgid), int(tid), int(ppid), int(uid), int(euid), int(gid), state, int(start), kernel, name)
    except ValueError as error:
        raise LabError(f"`truth` printed a line that says nothing: {line!r}") from error


def _comm(shown: bytes, *, kernel: bool) -> str:
    name = _ESCAPE.sub(lambda match: b"\n" if match[1] == b"n" else b"\\", shown)
    worker = _WORKER.match(name) if kernel else None
    return (worker[0] if worker else name)[:_COMM_BYTES].decode("utf-8", "surrogateescape")
