"""Functions that see every packet: the hooks of netfilter, ``struct netns_nf`` of each network namespace."""

from __future__ import annotations

from collections.abc import Iterator

from yamori.detectors.detector import NotChecked, detector
from yamori.detectors.hooks import Hooks
from yamori.detectors.view import View
from yamori.errors import ProfileError
from yamori.records import Finding

TABLES = {"hooks_ipv4": "IPv4", "hooks_ipv6": "IPv6", "hooks_arp": "ARP", "hooks_bridge": "a bridge"}
"""Members of ``struct netns_nf`` (since 4.16, b0f38338aef2): arrays of pointers to ``struct nf_hook_entries``."""
MOST_NAMESPACES = 1024
MOST_HOOKS = 1024  # MAX_HOOK_COUNT of net/netfilter/core.c


@detector(
    title="netfilter hooks",
    needs="a network namespace (init_net, or that of init_task), struct net and nf_hook_entries from BTF or debug info",
    misses="hooks of the ingress and egress of a device, and eBPF programs",
    attack=["T1014", "T1205", "T1040"],
)
def netfilter_hooks(view: View) -> Iterator[Finding]:
    """Look at the hooks of each namespace and family."""
    hooks = Hooks(view)
    for net in _namespaces(view):
        for member, family in TABLES.items():
            for entries in _tables(view, net, member):
                for function in _functions(view, entries):
                    if not hooks.is_stock(function):
                        yield hooks.finding(
                            f"netfilter hook {function:#x}",
                            function,
                            f"Packets of {family} go through a function that did not come with the kernel",
                            "hooks of netfilter are functions of the kernel and of its own modules.",
                            f"a hook of {family} in the network namespace at {net:#x}",
                        )


def _namespaces(view: View) -> Iterator[int]:
    """Yield each ``struct net``: they are on one list, which that of ``init_task`` is on, too."""
    first = view.profile.address("init_net")
    if first is None:
        proxy = view.pointer("task_struct", "nsproxy", view.profile.init.gva)
        first = view.pointer("nsproxy", "net_ns", proxy) if proxy else None
    if not first:
        raise NotChecked("no network namespace is known")
    link = view.profile.require("net", "list").offset
    kind = view.pointer("net", "ns.ops", first)  # netns_operations, the same for all
    node, seen, others = first + link, set[int](), 0
    while node not in seen:
        seen.add(node)
        if view.pointer("net", "ns.ops", node - link) == kind:
            yield node - link
        else:
            others += 1  # net_namespace_list itself
        after = view.reader().pointer(node)
        if after is None or others > 1 or len(seen) > MOST_NAMESPACES:
            raise NotChecked("the list of network namespaces cannot be followed")
        node = after


def _tables(view: View, net: int, member: str) -> Iterator[int]:
    try:
        table = view.profile.require("net", f"nf.{member}")
    except ProfileError:
        if member in {"hooks_ipv4", "hooks_ipv6"}:
            raise
        return  # built without this family
    word = view.profile.init.word_size
    for index in range(table.size // word):
        entries = view.reader().pointer(net + table.offset + index * word)
        if entries is None:
            raise NotChecked("a table of netfilter's hooks cannot be read")
        if entries:
            yield entries


def _functions(view: View, entries: int) -> Iterator[int]:
    """Yield the functions of ``struct nf_hook_entries``: a count, then pairs of a function and what is its own."""
    count = view.number("nf_hook_entries", "num_hook_entries", entries)
    if count is None or count > MOST_HOOKS:
        raise NotChecked("the hooks of netfilter cannot be read")
    first = entries + view.profile.require("nf_hook_entries", "hooks").offset
    for index in range(count):
        function = view.reader().pointer(first + index * 2 * view.profile.init.word_size)
        if function:
            yield function
