"""BPF programs that trace, that are hidden, or that can have the kernel's functions fail."""

from __future__ import annotations

from collections.abc import Iterator

from yamori.detectors.detector import UNNAMED, NotChecked, detector
from yamori.detectors.view import View
from yamori.probes.bpf import Compiled, hidden
from yamori.records import BpfProgram, Finding

TRACING = {"kprobe", "tracepoint", "perf_event", "raw_tracepoint", "raw_tracepoint_writable", "tracing"}
"""Of ``enum bpf_prog_type``: those that see what programs and the kernel do. systemd's own are of other types."""


@detector(
    title="BPF programs that trace, or are hidden",
    needs="the symbols prog_idr and bpf_kallsyms, or capstone; struct bpf_prog from BTF or debug info",
    misses="hidden programs that are interpreted or off both lists; what programs of other types do, as on the network",
    attack=["T1014"],
)
def bpf_programs(view: View) -> Iterator[Finding]:
    """Look at the table of BPF programs, and at the list of compiled ones."""
    if view.profile.symbols and not view.named("bpf_prog_free_id", "bpf_prog_put"):
        return  # built without
    if view.profile.address("prog_idr") is None:
        raise NotChecked("the kernel does not name prog_idr", hint=UNNAMED)
    for row in view.bpf():
        if row.overrides:
            yield _overrides(row)
        elif row.type in TRACING:
            yield _traces(row)
        elif row.type.isdecimal():
            view.lacks.append(f"the type of BPF program {row.id} is not known")
    if not view.named("bpf_get_kallsym") and all(row.address is None for row in view.bpf()):
        return  # built without a compiler of programs
    if view.profile.address("bpf_kallsyms") is None:
        raise NotChecked("the kernel does not name bpf_kallsyms", hint=UNNAMED)
    found = hidden(view.kernel)
    view.lacks += found.reasons
    yield from map(_hidden, found.rows)


def _hidden(row: Compiled) -> Finding:
    return Finding(
        subject=f"BPF program at {row.start:#x}",
        severity="critical",
        confidence="likely",
        title=f"A BPF program is hidden ({row.name})",
        why=[
            "Expected: a program whose compiled code the kernel can name has a number, or is part of one that has.",
            f"Found: {row.name} at {row.start:#x} is on bpf_kallsyms, and no program of prog_idr has it.",
        ],
        remedy="Preserve the memory, isolate the device and reinstall it from a trusted image.",
    )


def _named(row: BpfProgram) -> str:
    return f"{row.name or 'no name'}, {row.type}"


def _loader(row: BpfProgram) -> str:
    return "somebody" if row.uid is None else f"uid {row.uid}"


def _overrides(row: BpfProgram) -> Finding:
    return Finding(
        subject=f"BPF program {row.id}",
        severity="high",
        confidence="likely",
        title=f"A BPF program can have the kernel's functions return what it likes ({_named(row)})",
        why=[
            "Expected: only tests that inject faults call bpf_override_return.",
            f"Found: program {row.id}, tag {row.tag}, loaded by {_loader(row)}, may (bpf_prog.kprobe_override).",
        ],
        remedy="Ask who tests the kernel so; else find the process that holds it by prog_id in /proc/PID/fdinfo.",
    )


def _traces(row: BpfProgram) -> Finding:
    where = f" at {row.attached}" if row.attached else ""
    return Finding(
        subject=f"BPF program {row.id}",
        severity="low",
        confidence="certain",
        title=f"A BPF program traces the device ({_named(row)})",
        why=[
            "Expected: nobody traces a device in the field.",
            f"Found: program {row.id}, tag {row.tag}, loaded by {_loader(row)}, sees what runs{where}.",
            "The owner's own tools for tracing and monitoring do this, too.",
        ],
        remedy="Make sure that the owner traces it; /proc/PID/fdinfo names the process that holds this prog_id.",
    )
