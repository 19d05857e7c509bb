"""Per-CPU variables: ``include/linux/percpu-defs.h``."""

from __future__ import annotations

from yamori.llview.language import Array, Kernel, helper, u32, ulong


class PerCpu(Kernel):
    """What leads to the copies of a per-CPU variable."""

    __per_cpu_offset: Array[ulong]


@helper
def per_cpu(kernel: PerCpu, variable: ulong, cpu: u32) -> ulong:
    """Return the address of one CPU's copy of the variable at an address, as ``per_cpu_ptr`` does."""
    return variable + kernel.__per_cpu_offset[cpu]  # noqa: SLF001  the kernel's name
