"""Modules: hidden ones, and what the kernel holds against those that it lists."""

from __future__ import annotations

from collections.abc import Iterator

from yamori.detectors.detector import NotChecked, detector
from yamori.detectors.view import View
from yamori.kernel.modules import MOST_MODULES
from yamori.records import Finding

TAINTS = {12: "not built with this kernel (O)", 13: "without a valid signature (E)", 0: "not free software (P)"}
"""``TAINT_OOT_MODULE``, ``TAINT_UNSIGNED_MODULE``, ``TAINT_PROPRIETARY_MODULE`` of ``include/linux/panic.h``."""


@detector(
    title="Hidden modules",
    needs="where struct module keeps its kobject; a module on the list, or module_kset, by a symbol or capstone",
    misses="a module that left sysfs, too",
    attack=["T1014", "T1547.006"],
)
def hidden_modules(view: View) -> Iterator[Finding]:
    """Compare the list of modules with the objects that sysfs shows of them (``module_kset``)."""
    listed = {row.module: row for row in view.modules()}
    for module in _in_sysfs(view, list(listed)):
        if module not in listed:
            name = view.reader().text(module + view.profile.require("module", "name").offset, 56)
            yield Finding(
                subject=f"module {name}",
                severity="critical",
                confidence="certain",
                title=f"The kernel module {name} is hidden",
                why=[
                    "Expected: every module is on the kernel's list, which lsmod shows.",
                    f"Found: the struct module at {module:#x} has an entry in sysfs and is not on that list.",
                ],
                remedy="Preserve the memory, isolate the device and reinstall it from a trusted image.",
            )


def _in_sysfs(view: View, listed: list[int]) -> Iterator[int]:
    """Yield the modules that objects of ``module_kset`` stand for; what is built in has an object and no module."""
    places = [("kset", "list"), ("kobject", "entry"), ("module_kobject", "kobj"), ("module_kobject", "mod")]
    members = [view.profile.member(*place) for place in places]
    if None in members:
        raise NotChecked("where struct module_kobject keeps its module is not known", hint="give --vmlinux")
    first, entry, kobj, mod = (member.offset for member in members if member)
    reader = view.reader()
    kset = _kset(view, listed)
    head = kset + first
    node, seen = reader.pointer(head), {head}
    while node is not None and node not in seen and len(seen) < MOST_MODULES * 4:
        seen.add(node)
        module = reader.pointer(node - entry - kobj + mod)
        if module:
            yield module
        node = reader.pointer(node)
    if node != head:
        raise NotChecked("the set of the modules' objects does not close")


def _kset(view: View, listed: list[int]) -> int:
    reader = view.reader()
    named = view.profile.address("module_kset")
    if named and (kset := reader.pointer(named)):
        return kset
    path, kset_at = view.profile.member("module", "mkobj.kobj"), view.profile.member("kobject", "kset")
    if listed and path and kset_at and (kset := reader.pointer(listed[0] + path.offset + kset_at.offset)):
        return kset
    raise NotChecked("no module is listed, and the kernel names no module_kset")


@detector(
    title="Modules that did not come with the kernel",
    needs="struct module, from BTF or debug info",
    misses="a module that clears what the kernel holds against it",
    attack=["T1547.006"],
)
def foreign_modules(view: View) -> Iterator[Finding]:
    """Look at what taints the kernel."""
    rows = view.modules()
    if any(row.taints is None for row in rows):
        raise NotChecked("where module.taints lies in this kernel is not known", hint="give --vmlinux")
    for row in rows:
        what = [text for bit, text in TAINTS.items() if (row.taints or 0) >> bit & 1]
        if what:
            yield Finding(
                subject=f"module {row.name}",
                severity="low",
                confidence="certain",
                title=f"The kernel module {row.name} did not come with the kernel",
                why=["Expected: modules are of the kernel's own build.", f"Found: {row.name} is {', '.join(what)}."],
                remedy="Make sure that somebody has installed this driver on purpose.",
            )
