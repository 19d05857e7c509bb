"""What the kernel is set to call later, on synthetic kernels with made-up layouts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.detectors.test_hooks import LAYOUT, Made, Scene
from tests.kernel.synthetic import ARM64, MODULES, X86, Machine

from yamori.kernel.kernel import Kernel
from yamori.kernel.types import Member

MACHINES = pytest.mark.parametrize("machine", [X86, ARM64], ids=lambda machine: machine.name)
PRIVATE, DL_BASE = 0xB00, 0xB08
"""Of ``task_struct``: where the synthetic tasks have nothing."""

SLOTS = 8
BASE_SIZE = 16 + 8 * SLOTS
MINE = {
    ("task_struct", "worker_private"): (PRIVATE, 8),
    ("task_struct", "dl.dl_timer.base"): (DL_BASE, 8),
    ("kthread", "threadfn"): (0, 8),
    ("kthread", "data"): (8, 8),
    ("worker", "task"): (0, 8),
    ("worker", "current_func"): (8, 8),
    ("worker", "pool"): (16, 8),
    ("worker", "scheduled"): (24, 16),
    ("worker_pool", "worklist"): (8, 16),
    ("work_struct", "entry"): (8, 16),
    ("work_struct", "func"): (24, 8),
    ("delayed_work", "work.func"): (24, 8),
    ("delayed_work", "timer"): (32, 24),
    ("timer_list", "entry"): (0, 16),
    ("timer_list", "function"): (16, 8),
    ("timer_base", "cpu"): (0, 4),
    ("timer_base", "vectors"): (16, 8 * SLOTS),
    ("hrtimer_cpu_base", "cpu"): (0, 4),
    ("hrtimer_cpu_base", "clock_base"): (8, 32),
    ("hrtimer_clock_base", "cpu_base"): (0, 8),
    ("hrtimer_clock_base", "active.rb_root.rb_root.rb_node"): (8, 8),
    ("hrtimer", "node.node"): (8, 24),
    ("hrtimer", "function"): (32, 8),
    ("rb_node", "rb_right"): (8, 8),
    ("rb_node", "rb_left"): (16, 8),
}


class Types(Made):
    """Layouts and sizes that this test makes up."""

    def member(self, struct: str, path: str) -> Member | None:
        found = super().member(struct, path)
        return found._replace(stride=16) if found and path == "clock_base" else found

    def size(self, struct: str) -> int | None:
        return {"timer_base": BASE_SIZE}.get(struct)


class Later(Scene):
    """A guest with a kernel thread that works, and one CPU with timers of both kinds."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        self.own, self.foreign = self.guest.symbols["helper5"], MODULES[machine.name] + 0x40
        self.task = next(row.gva for row in self.guest.tasks if row.kthread and row.pid != 2)
        self.pool = self.put(0, 0, 0)
        self.guest.words(self.pool + 8, self.pool + 8, self.pool + 8)
        self.worker = self.put(self.task, 0, self.pool, 0, 0)
        self.guest.words(self.worker + 24, self.worker + 24, self.worker + 24)
        self.kthread = self.put(self.own, self.worker)
        self.guest.words(self.task + PRIVATE, self.kthread)
        self.precise = self.name("hrtimer_bases", self.put(0, 0, 0, 0, 0))
        self.wheel = self.name("timer_bases", self.put(*[0] * (BASE_SIZE // 8 * 3)))
        for clock in (self.precise + 8, self.precise + 24):
            self.guest.words(clock, self.precise)
        for row in self.guest.tasks:
            self.guest.words(row.gva + DL_BASE, self.precise + 8)

    def kernel(self) -> Kernel:
        kernel = super().kernel()
        types = [Types({**LAYOUT, **MINE}), *self.known.profile.types]
        return Kernel(self.guest.memory(), replace(kernel.profile, types=types))

    def timer(self, function: int, before: int = 0) -> int:
        """Put a timer into the third list of the second base, with room for work before it."""
        slot = self.wheel + BASE_SIZE + 16 + 8 * 2
        whole = self.put(*[0] * (before // 8), 0, slot, function)
        self.guest.words(slot, whole + before)
        return whole


@MACHINES
def test_clean(machine: Machine) -> None:
    scene = Later(machine)
    scene.timer(scene.own)
    report = scene.check("deferred-code")
    assert (report.findings, report.not_checked) == ([], [])


def only(scene: Later) -> str:
    report = scene.check("deferred-code")
    assert report.complete, report.not_checked
    (found,) = report.findings
    assert (found.severity, f"{scene.foreign:#x}" in found.why[1]) == ("high", True)
    return found.subject.removesuffix(f" {scene.foreign:#x}")


@MACHINES
def test_threads_and_work(machine: Machine) -> None:
    scene = Later(machine)
    scene.guest.words(scene.kthread, scene.foreign)
    assert only(scene) == "kernel thread"
    scene.guest.words(scene.kthread, scene.own)
    scene.guest.words(scene.worker + 8, scene.foreign)
    assert only(scene) == "work"
    scene.guest.words(scene.worker + 8, 0)
    for head in (scene.worker + 24, scene.pool + 8):
        work = scene.put(0, head, head, scene.foreign)
        scene.guest.ring(head, work + 8)
        assert only(scene) == "work"
        scene.guest.ring(head)
    scene.guest.words(scene.worker, 0)  # what the thread works on is something else
    scene.guest.words(scene.worker + 8, scene.foreign)
    assert scene.check("deferred-code").findings == []


@MACHINES
def test_timers(machine: Machine) -> None:
    scene = Later(machine)
    scene.timer(scene.foreign)
    assert only(scene) == "timer"
    scene.name("delayed_work_timer_fn", scene.guest.symbols["helper9"])
    work = scene.timer(scene.guest.symbols["helper9"], before=32)
    scene.guest.words(work + 24, scene.foreign)
    assert only(scene) == "work"
    scene.guest.words(work + 24, scene.own)
    leaf = scene.put(0, 0, 0, 0, scene.foreign)
    root = scene.put(0, 0, leaf + 8, 0, scene.own)
    scene.guest.words(scene.precise + 24 + 8, root + 8)  # the second clock
    assert only(scene) == "high-resolution timer"


def test_circles_and_nonsense_end() -> None:
    scene = Later(X86)
    first = scene.timer(scene.own)
    scene.guest.words(first, first)
    node = scene.put(0, 0, 0, 0, scene.own) + 8
    scene.guest.words(node + 8, node, node)
    scene.guest.words(scene.precise + 8 + 8, node)
    scene.guest.words(scene.pool + 8, 0x10)
    scene.guest.words(scene.kthread, 0x1230)  # where nothing is
    assert scene.check("deferred-code").findings == []


def test_what_is_not_known_is_not_checked() -> None:
    ((_, reason),) = Scene(X86).check("deferred-code").not_checked  # one reason for all
    assert "kernel threads" in reason
    scene = Later(X86)
    scene.guest.ints(scene.wheel, 7)
    scene.guest.ints(scene.wheel + BASE_SIZE, 7)
    scene.guest.ints(scene.wheel + 2 * BASE_SIZE, 7)
    ((_, reason),) = scene.check("deferred-code").not_checked
    assert "timers of CPU 0" in reason
