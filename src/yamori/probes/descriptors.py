"""File descriptors of processes, for probes that go through them: ``fdget`` of ``fs/file.c``."""

from __future__ import annotations

from collections.abc import Iterator

from yamori.llview.language import NULL, Ptr, Struct, helper, sizeof, trouble, u32, ulong, word_at

MOST_FILES = 1 << 16
"""Descriptors of one process that are looked at; ``sysctl_nr_open`` is 1 << 20, of which few use a hundredth."""


class fdtable(Struct):  # noqa: N801  a name of the kernel, as all here
    """``include/linux/fdtable.h``."""

    max_fds: u32
    fd: ulong


class files_struct(Struct):  # noqa: N801
    """``include/linux/fdtable.h``."""

    fdt: Ptr[fdtable]


@helper
def for_each_descriptor(held: files_struct) -> Iterator[tuple[int, int]]:
    """Go through (descriptor, address of the ``struct file``) of a process's table; of NULL there are none."""
    if held != NULL:
        table = held.fdt
        count = table.max_fds
        first = table.fd
        if count > MOST_FILES:
            trouble("a process has more files than are looked at", held)
            count = MOST_FILES
        for fd in range(count):
            opened = word_at(first + ulong(fd) * sizeof(ulong))
            if opened != 0:
                yield fd, opened
