"""Where instructions of the kernel are replaced by kprobes: ``kprobe_table`` of ``kernel/kprobes.c``."""

from __future__ import annotations

from collections.abc import Iterator

from yamori.detectors.detector import UNNAMED, NotChecked, detector
from yamori.detectors.hooks import Hooks
from yamori.detectors.view import View
from yamori.records import Finding

BUCKETS = 64  # KPROBE_TABLE_SIZE, 1 << KPROBE_HASH_BITS
MOST_IN_LIST = 1 << 12
HANDLERS = ("pre_handler", "post_handler")
AGGREGATES = ("aggr_pre_handler", "aggr_post_handler")
"""What calls those of all probes on a list."""
RETURN_HANDLERS = ("handler", "entry_handler")


@detector(
    title="kprobes",
    needs="the symbol kprobe_table, or capstone; struct kprobe from BTF or debug info, and the list of modules",
    misses="kprobes that were taken out of their table again",
    attack=["T1014", "T1056.004"],
)
def kprobes(view: View) -> Iterator[Finding]:
    """Look at what is called where kprobes are."""
    table = view.profile.address("kprobe_table")
    if view.profile.symbols and view.profile.address("register_kprobe") is None:
        return  # built without
    if table is None:
        raise NotChecked("the kernel does not name kprobe_table", hint=UNNAMED)
    hooks = Hooks(view)
    link = view.profile.require("kprobe", "hlist").offset
    for index in range(BUCKETS):
        head = table + index * view.profile.init.word_size
        for node in _nodes(view, head):
            yield from _probes(view, hooks, node - link)


def _nodes(view: View, head: int) -> Iterator[int]:
    """Yield the nodes of a list that ends in NULL, or where it began."""
    seen = {head}
    node = view.reader().pointer(head)
    while node and node not in seen:
        if len(seen) > MOST_IN_LIST:
            raise NotChecked("a list of kprobes does not end")
        seen.add(node)
        yield node
        node = view.reader().pointer(node)
    if node is None:
        raise NotChecked("a list of kprobes cannot be read")


def _probes(view: View, hooks: Hooks, probe: int) -> Iterator[Finding]:
    """Yield what a probe of the table calls; one that stands for several at one place has them on a list."""
    for one in (probe, *_members(view, probe)):
        place = view.pointer("kprobe", "addr", one) or 0
        symbol = view.profile.symbol_at(place)
        where = f"{symbol[0]}+{symbol[1]:#x}" if symbol else f"{place:#x}"
        if functions := list(_handlers(view, one)):
            yield hooks.finding(
                f"kprobe at {place:#x}",
                hooks.worst(functions),
                f"A kprobe was set into {where}",
                "nobody sets probes into the kernel's code.",
                f"the kprobe at {where}",
            )


def _handlers(view: View, probe: int) -> Iterator[int]:
    """Yield what a probe calls in the end: a kretprobe, around a kprobe, has handlers of its own."""
    for name in HANDLERS:
        function = view.pointer("kprobe", name, probe)
        if not function:
            continue
        if function in view.named(*AGGREGATES):
            continue
        yield function
        if function in view.named("pre_handler_kretprobe"):
            around = probe - view.profile.require("kretprobe", "kp").offset
            yield from filter(None, (view.pointer("kretprobe", name, around) for name in RETURN_HANDLERS))


def _members(view: View, probe: int) -> Iterator[int]:
    link = view.profile.require("kprobe", "list").offset
    yield from (node - link for node in _nodes(view, probe + link))
