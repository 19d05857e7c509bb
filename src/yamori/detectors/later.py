"""What the kernel is set to call later: functions of kernel threads, work, timers.

Nothing of it needs a symbol. Kernel threads are tasks; those that work lead to their pool. The timers of every CPU are
reached from a timer that each task has (``dl_timer``): it is tied to the CPU on which the task was made.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from yamori.detectors.tasks import Tasks
from yamori.detectors.view import View
from yamori.errors import ProfileError
from yamori.kernel.btf import BtfTypes
from yamori.kernel.types import Member

PF_KTHREAD = 0x0020_0000
"""``include/linux/sched.h``, since 2.6.27."""

MOST = 1 << 14
"""Timers of a base, and work of a pool, that are followed."""

MOST_BASES = 3
"""``NR_BASES`` of ``kernel/time/timer.c``: 1 without NO_HZ, 2, since 6.9 (b2cf7507e186) 3."""

ROOTS = ("active.rb_root.rb_root.rb_node", "active.head.rb_node")
"""``struct timerqueue_head``: a tree with its leftmost node since 5.4 (511885d7061e), before that without."""


class Later(NamedTuple):
    """A function that will be called, or that runs.

    Attributes:
        kind: ``kernel thread``, ``work``, ``timer`` or ``high-resolution timer``.
        what: Which one, in words.
        function: GVA of what is called.
    """

    kind: str
    what: str
    function: int


def _kthreads(view: View) -> Iterator[tuple[int, str, int]]:
    """Yield (task, name, ``struct kthread``) of the kernel's threads.

    ``worker_private`` leads to it since 5.17 (e32cf5dfbe22), ``set_child_tid`` before.
    """
    place = view.profile.require("task_struct", "worker_private", "set_child_tid").offset
    tasks = Tasks(view)
    for task in dict.fromkeys([*(row.task for row in view.processes()), *tasks.family()]):
        flags = view.number("task_struct", "flags", task)
        if flags is None or not flags & PF_KTHREAD:
            continue
        kthread = view.reader().pointer(task + place)
        if kthread:
            yield task, tasks.comm(task), kthread


def threads(view: View) -> Iterator[Later]:
    """Yield what kernel threads run: ``kthread.threadfn``, since 5.8 (52782c92ac85)."""
    view.profile.require("kthread", "threadfn")
    for task, comm, kthread in _kthreads(view):
        if function := view.pointer("kthread", "threadfn", kthread):
            yield Later("kernel thread", f"the kernel thread {comm!r} at {task:#x}", function)


def works(view: View) -> Iterator[Later]:
    """Yield work that is being done, and that waits in the pools of those who do it (``kernel/workqueue.c``)."""
    view.profile.require("worker", "current_func")
    entry = view.profile.require("work_struct", "entry").offset
    lists = [("worker", "scheduled"), ("worker_pool", "worklist")]
    places = {where[0]: view.profile.require(*where).offset for where in lists}
    pools: set[int] = set()
    for task, comm, kthread in _kthreads(view):
        worker = view.pointer("kthread", "data", kthread)
        if not worker or view.pointer("worker", "task", worker) != task:
            continue  # it does something else
        if function := view.pointer("worker", "current_func", worker):
            yield Later("work", f"the worker {comm!r}", function)
        heads = [worker + places["worker"]]
        pool = view.pointer("worker", "pool", worker)
        if pool and pool not in pools:
            pools.add(pool)
            heads.append(pool + places["worker_pool"])
        for head in heads:
            for node in _ring(view, head):
                if function := view.pointer("work_struct", "func", node - entry):
                    yield Later("work", f"work that waits at {node - entry:#x}", function)


def _clocks(view: View) -> dict[int, int]:
    """Return each ``struct hrtimer_cpu_base`` that tasks lead to, and its CPU."""
    found: dict[int, int] = {}
    for row in view.processes():
        clock = view.pointer("task_struct", "dl.dl_timer.base", row.task)
        cpu_base = view.pointer("hrtimer_clock_base", "cpu_base", clock) if clock else None
        if not cpu_base or cpu_base in found:
            continue
        cpu = view.number("hrtimer_cpu_base", "cpu", cpu_base)
        if cpu is not None:
            found[cpu_base] = cpu
    if not found:
        raise ProfileError("no task leads to the timers of its CPU")
    return found


def precise_timers(view: View) -> Iterator[Later]:
    """Yield the timers of ``kernel/time/hrtimer.c``: a tree of each clock of each CPU."""
    clocks = view.profile.require("hrtimer_cpu_base", "clock_base")
    root = view.profile.require("hrtimer_clock_base", *ROOTS).offset
    stride = clocks.stride or _size(view, "hrtimer_clock_base")
    function_at = view.profile.require("hrtimer", "function", "_function").offset
    node_at = view.profile.require("hrtimer", "node.node").offset
    for base in _clocks(view):
        for clock in range(base + clocks.offset, base + clocks.offset + clocks.size, stride):
            for node in _tree(view, view.reader().pointer(clock + root)):
                if function := view.reader().pointer(node - node_at + function_at):
                    what = f"the high-resolution timer at {node - node_at:#x}"
                    yield Later("high-resolution timer", what, function)


def timers(view: View) -> Iterator[Later]:
    """Yield the timers of ``kernel/time/timer.c``: lists of a wheel since 4.8 (500462a9de65).

    A timer of delayed work stands for the work.
    """
    wheel = view.profile.require("timer_base", "vectors")
    entry, size = view.profile.require("timer_list", "entry").offset, _size(view, "timer_base")
    delayed = view.named("delayed_work_timer_fn")
    for base in _bases(view, wheel, size):
        for slot in _slots(view, base, wheel):
            for node in _chain(view, view.reader().pointer(slot)):
                timer = node - entry
                function = view.pointer("timer_list", "function", timer)
                if function and function in delayed:
                    work = timer - view.profile.require("delayed_work", "timer").offset
                    function = view.pointer("delayed_work", "work.func", work)
                    if function:
                        yield Later("work", f"work that waits for its time at {work:#x}", function)
                elif function:
                    yield Later("timer", f"the timer at {timer:#x}", function)


def _bases(view: View, wheel: Member, size: int) -> Iterator[int]:
    """Yield each ``struct timer_base``: they lie as far from a CPU's ``hrtimer_bases`` on all of them."""
    distance = _distance(view, "hrtimer_bases", "timer_bases")
    for base, cpu in _clocks(view).items():
        found = [base + distance + number * size for number in range(MOST_BASES)]
        good = [one for one in found if _is_base(view, one, wheel, cpu)]
        if not good:
            raise ProfileError(f"the timers of CPU {cpu} are not where the kernel's types have them")
        yield from good


def _is_base(view: View, base: int, wheel: Member, cpu: int) -> bool:
    """Say whether something is a wheel: of that CPU, and its lists' first entries link back."""
    if view.number("timer_base", "cpu", base) != cpu:
        return False
    back = view.profile.init.word_size
    firsts = [(slot, view.reader().pointer(slot)) for slot in _slots(view, base, wheel)]
    wrong = sum(1 for slot, first in firsts if first is None or (first and view.reader().pointer(first + back) != slot))
    return wrong <= 2  # the kernel may be changing one, and the reading of another


def _slots(view: View, base: int, wheel: Member) -> range:
    return range(base + wheel.offset, base + wheel.offset + wheel.size, view.profile.init.word_size)


def _distance(view: View, start: str, end: str) -> int:
    """Return how far one per-CPU variable lies behind another: of the symbols, or of BTF's section of these."""
    first, last = view.profile.address(start), view.profile.address(end)
    if first is not None and last is not None:
        return last - first
    for types in view.profile.types:
        if isinstance(types, BtfTypes):
            first, last = types.percpu_offset(start), types.percpu_offset(end)
            if first is not None and last is not None:
                return last - first
    raise ProfileError(f"where {end} lies is not known", hint="give --symbols")


def _size(view: View, struct: str) -> int:
    size = next((size for types in view.profile.types if (size := types.size(struct))), None)
    if not size:
        raise ProfileError(f"the size of struct {struct} is not known", hint="give --vmlinux")
    return size


def _ring(view: View, head: int) -> Iterator[int]:
    """Yield the nodes of a ``list_head``; what the kernel takes off it while this looks ends it early."""
    return _chain(view, view.reader().pointer(head), last=head)


def _chain(view: View, node: int | None, last: int = 0) -> Iterator[int]:
    seen: set[int] = set()
    while node and node != last and node not in seen and len(seen) < MOST:
        seen.add(node)
        if view.reader().pointer(node) is None:
            return  # it was taken off: the kernel leaves no address there
        yield node
        node = view.reader().pointer(node)


def _tree(view: View, root: int | None) -> Iterator[int]:
    """Yield the nodes of a red-black tree, in any order."""
    sides = [view.profile.require("rb_node", side).offset for side in ("rb_left", "rb_right")]
    waiting, seen = [root], set[int]()
    while waiting and len(seen) < MOST:
        node = waiting.pop()
        if not node or node in seen:
            continue
        seen.add(node)
        yield node
        waiting += [view.reader().pointer(node + side) for side in sides]
