"""The kernel's tasks, for probes that go through them.

``for_each_process`` of ``include/linux/sched/signal.h``.
"""

from __future__ import annotations

from collections.abc import Iterator

from yamori.llview.language import helper
from yamori.llview.structures.lists import for_each_entry
from yamori.probes.plist import Tasks, task_struct


@helper
def for_each_task(kernel: Tasks) -> Iterator[task_struct]:
    """Go through all processes, oldest first; each by its leading thread."""
    for task in for_each_entry(kernel.init_task.tasks, task_struct, "tasks"):  # noqa: UP028  the language has `yield`
        yield task
