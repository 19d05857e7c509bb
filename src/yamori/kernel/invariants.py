"""What holds of tasks and credentials in every kernel: the tests that inference puts to each offset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

from yamori.kernel.sample import Task

CRED_REACH = 128
CRED_MAGIC = 0x4373_6564  # include/linux/cred.h, with CONFIG_DEBUG_CREDENTIALS, until 6.6 (ae1914174a63)
CAPABILITY_BITS = range(30, 65)  # CAP_LAST_CAP + 1, 41 in 6.x; all 64 before 3.17 (7d8b6c63751c)
MASKS = frozenset(((1 << bits) - 1).to_bytes(8, "little") * 3 for bits in CAPABILITY_BITS)
SECOND = 1_000_000_000
BOOT = 1000 * SECOND
"""Half of the kernel threads at least were started so early."""
MILLISECOND = SECOND // 1000
LEAST_BIRTHS = 4
"""Different times at which kernel threads were started, where the clock only ticks (``CONFIG_HIGH_RES_TIMERS`` is off,
or not switched on yet): many are started in one tick, whose length is a whole number of milliseconds."""
APART = SECOND // 100
"""Between ``start_time`` and ``start_boottime`` of a task that was started before the guest ever slept."""


def enough(votes: int, total: int) -> bool:
    """Say whether three quarters agree, and anybody at all."""
    return 0 < total * 3 <= votes * 4


class Quorum:
    """How many tasks have to agree.

    Attributes:
        quarters: Of four. Three for what is taken; one for what would make it doubtful.
    """

    def __init__(self) -> None:
        self.quarters = 3

    @contextmanager
    def lowered(self) -> Iterator[None]:
        """Let one quarter be enough for a while."""
        self.quarters = 1
        try:
            yield
        finally:
            self.quarters = 3

    @property
    def low(self) -> bool:
        """Whether one quarter is enough now; then no single task decides either."""
        return self.quarters == 1

    def agrees(self, tasks: Sequence[Task], test: Callable[[Task], bool]) -> bool:
        """Say whether enough of the tasks pass; one may fail in any case."""
        spare = max(1, len(tasks) * (4 - self.quarters) // 4)
        for task in tasks:
            if not test(task):
                spare -= 1
                if spare < 0:
                    return False
        return True

    def differ(self, tasks: Sequence[Task], read: Callable[[Task], int]) -> bool:
        """Say whether enough of what is read of the tasks are different values."""
        return len({read(task) for task in tasks}) * 4 >= len(tasks) * self.quarters


def ids_of_root(cred: bytes, word_size: int) -> int | None:
    """Return the offset of ``uid`` in the ``cred`` of a fully capable root process, or ``None``.

    ``cap_permitted``, ``cap_effective`` and ``cap_bset`` are all ones up to the last capability; before them lie the
    eight ids, ``securebits`` and ``cap_inheritable`` (8 bytes), all zero (``include/linux/cred.h``). Since 6.3
    (f122a08b197d) ``cap_inheritable`` is aligned to 8, so 4 bytes of padding may lie before it. Where they do not,
    those 4 bytes are the last before ``uid``, and these are never zero: ``usage``, or ``magic``. ``usage`` has 4 bytes,
    or a word since 6.7 and in stable releases (``atomic_long_t``, f8fa5d769205).

    Args:
        cred: The first ``CRED_REACH`` bytes of ``struct cred``.
        word_size: Bytes of a pointer.
    """
    for permitted in range(48, CRED_REACH - 23, 4):
        if cred[permitted : permitted + 24] in MASKS:
            padded = permitted % 8 == 0 and not any(cred[permitted - 48 : permitted - 44])
            uid = permitted - (48 if padded else 44)
            known = uid in {4, word_size} or int.from_bytes(cred[uid - 4 : uid], "little") == CRED_MAGIC
            return uid if known and not any(cred[uid:permitted]) else None
    return None


def nanoseconds(task: Task, offset: int) -> int:
    """Return a ``u64`` of nanoseconds."""
    return task.u64(offset)


def timespec(task: Task, offset: int) -> int:
    """Return a ``struct timespec`` of two words in nanoseconds, or -1 where it is none."""
    rest = task.word(offset + task.word_size)
    return task.word(offset) * SECOND + rest if rest < SECOND else -1


def are_births(kernel_threads: Sequence[tuple[int, int]], users: Sequence[tuple[int, int]]) -> bool:
    """Say whether two times in nanoseconds since boot, without and with sleep, are when tasks were started.

    Args:
        kernel_threads: The times of each, in order of birth.
        users: The times of other tasks, which only have to be times.
    """
    total = len(kernel_threads)
    times = [*kernel_threads, *users]
    wrong = sum(not 0 <= start <= boot for start, boot in times)
    early = sum(boot - start < APART and 0 < start < BOOT for start, boot in kernel_threads)
    falls = sum(after < before for column in zip(*kernel_threads, strict=True) for before, after in pairwise(column))
    born = Counter(kernel_threads)
    ticks = len(born) >= LEAST_BIRTHS and all(
        number == 1 or not start % MILLISECOND for (start, _), number in born.items()
    )
    return (
        wrong <= max(1, len(times) // 16)
        and early * 2 >= total
        and (len(born) * 2 > total or ticks)
        and falls * 4 <= total
    )
