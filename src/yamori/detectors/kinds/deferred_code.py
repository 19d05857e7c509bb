"""Code that the kernel will call later, and that belongs to nobody: how an intruder's code lives on unseen."""

from __future__ import annotations

from collections.abc import Iterator

from yamori.detectors.detector import NotChecked, detector
from yamori.detectors.hooks import Hooks, image_of
from yamori.detectors.later import Later, precise_timers, threads, timers, works
from yamori.detectors.view import View
from yamori.errors import ProfileError
from yamori.records import Finding

WAYS = {"kernel threads": threads, "work": works, "timers": timers, "high-resolution timers": precise_timers}


@detector(
    title="Code that is set to be called later",
    needs="kthread, worker, timer_base, hrtimer and what they lead to, from BTF or debug info; threads since 5.8, "
    "timers since 4.8",
    misses="code of a module on the list; timers of a CPU on which no process was made; tasklets, RCU callbacks and "
    "io_uring's workers",
    attack=["T1014"],
)
def deferred_code(view: View) -> Iterator[Finding]:
    """Look at every kernel thread, work and timer."""
    judge, own = Hooks(view), image_of(view)
    lacking: list[str] = []
    known: dict[int, bool] = {}
    told: set[tuple[str, int]] = set()
    for name, way in WAYS.items():
        try:
            for later in way(view):
                function = later.function
                if function not in known:
                    known[function] = function in own or not view.executable(function) or _is_listed(judge, function)
                if not known[function] and (later.kind, function) not in told:
                    told.add((later.kind, function))
                    yield _finding(view, later)
        except ProfileError as error:
            lacking.append(f"{name}: {error}")
    if len(lacking) == len(WAYS):
        raise NotChecked(lacking[0])  # none of its structures is known, and one says it
    view.lacks += lacking  # at the end: what judges modules takes all of these for its own


def _is_listed(judge: Hooks, function: int) -> bool:
    if judge.module_of(function) is not None:
        return True
    if any(row.base is None or row.code is None for row in judge.view.modules()):
        raise NotChecked("where the code of modules lies is not known", hint="give --vmlinux")
    return False


def _finding(view: View, later: Later) -> Finding:
    return Finding(
        subject=f"{later.kind} {later.function:#x}",
        severity="high",
        confidence="likely",
        title=f"The kernel is set to call code that is neither its own nor a listed module's ({later.kind})",
        why=[
            "Expected: what the kernel is set to call is its own, or of a module on its list.",
            f"Found: {later.what} calls {later.function:#x}, {view.owner(later.function)}.",
        ],
        remedy="Preserve the memory, isolate the device and reinstall it from a trusted image.",
    )
