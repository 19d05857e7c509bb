"""Who has functions of the kernel call back by ftrace."""

from __future__ import annotations

from collections.abc import Iterator

from yamori.detectors.detector import detector
from yamori.detectors.hooks import Hooks, ftrace_ops
from yamori.detectors.view import View
from yamori.records import Finding

MOST_BUCKETS = 1 << 12
MOST_NAMED = 3


@detector(
    title="ftrace hooks",
    needs="the symbol ftrace_ops_list, or capstone; struct ftrace_ops from BTF or debug info, and the list of modules",
    misses="ftrace_ops taken off their list, whose patches inline-hooks looks for; the graph tracer's callees, BPF",
    attack=["T1014", "T1056.004"],
)
def ftrace_hooks(view: View) -> Iterator[Finding]:
    """Look at what is called by functions that are traced."""
    if view.profile.symbols and view.profile.address("register_ftrace_function") is None:
        return  # built without
    hooks = Hooks(view)
    for ops in ftrace_ops(view):
        if functions := list(_called(view, hooks, ops)):
            yield hooks.finding(
                f"ftrace_ops at {ops:#x}",
                hooks.worst(functions),
                f"Calls of {_traced(view, ops)} are followed by ftrace",
                "nobody traces the kernel's functions.",
                f"the ftrace_ops at {ops:#x}",
            )


def _called(view: View, hooks: Hooks, ops: int) -> Iterator[int]:
    """Yield what is called in the end: by fprobes and by direct calls the kernel's own function is only the way.

    A direct call into code of no module is what BPF's trampolines are (``bpf_trampoline_link_prog``), systemd's among
    them: it is not held against anybody.
    """
    function = view.pointer("ftrace_ops", "func", ops)
    if not function:
        return
    yield function
    if function in view.named("call_direct_funcs"):  # register_ftrace_direct
        direct = view.pointer("ftrace_ops", "direct_call", ops)
        if direct and (hooks.is_own(direct) or hooks.module_of(direct)):
            yield direct
    elif function in view.named("fprobe_handler", "fprobe_kprobe_handler"):
        probe = ops - view.profile.require("fprobe", "ops").offset
        yield from filter(None, (view.pointer("fprobe", name, probe) for name in ("entry_handler", "exit_handler")))


def _traced(view: View, ops: int) -> str:
    """Name the functions that are traced, from the ``ftrace_hash`` of their addresses."""
    hashed = view.pointer("ftrace_ops", "func_hash", ops)
    table = hashed and view.pointer("ftrace_ops_hash", "filter_hash", hashed)
    buckets = table and view.pointer("ftrace_hash", "buckets", table)
    bits = table and view.number("ftrace_hash", "size_bits", table)
    if not buckets or bits is None or 1 << bits > MOST_BUCKETS:
        return "the kernel's functions"
    entries = (view.reader().pointer(buckets + index * view.profile.init.word_size) for index in range(1 << bits))
    places = [view.pointer("ftrace_func_entry", "ip", entry) for entry in entries if entry]
    names = [symbol[0] for place in places if place and (symbol := view.profile.symbol_at(place))]
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"{', '.join(sorted(names)[:MOST_NAMED])}{more}" if names else "the kernel's functions"
