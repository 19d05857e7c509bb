"""ftrace, kprobes and netfilter: whose functions they call, on synthetic kernels with made-up layouts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from tests.kernel.synthetic import ARM64, HEAP_AT, MODULES, X86, Guest, Machine, build

from yamori.address import GVA
from yamori.detectors.check import Report, check, chosen
from yamori.detectors.hooks import trampolines
from yamori.detectors.view import View
from yamori.kernel.discovery import discover
from yamori.kernel.kernel import Kernel
from yamori.kernel.symbols import Symbol, Symbols
from yamori.kernel.types import Member, Provenance

MACHINES = pytest.mark.parametrize("machine", [X86, ARM64], ids=lambda machine: machine.name)
HEAP = HEAP_AT + 0x20000
LAYOUT = {
    ("ftrace_ops", "func"): (0, 8),
    ("ftrace_ops", "next"): (8, 8),
    ("ftrace_ops", "func_hash"): (16, 8),
    ("ftrace_ops", "trampoline"): (24, 8),
    ("ftrace_ops", "trampoline_size"): (32, 8),
    ("ftrace_ops_hash", "filter_hash"): (8, 8),
    ("ftrace_hash", "size_bits"): (0, 8),
    ("ftrace_hash", "buckets"): (8, 8),
    ("ftrace_func_entry", "ip"): (16, 8),
    ("ftrace_ops", "direct_call"): (40, 8),
    ("fprobe", "ops"): (0, 40),
    ("fprobe", "entry_handler"): (40, 8),
    ("fprobe", "exit_handler"): (48, 8),
    ("kretprobe", "kp"): (8, 64),
    ("kretprobe", "handler"): (72, 8),
    ("kretprobe", "entry_handler"): (80, 8),
    ("kprobe", "hlist"): (0, 16),
    ("kprobe", "list"): (16, 16),
    ("kprobe", "addr"): (40, 8),
    ("kprobe", "pre_handler"): (48, 8),
    ("kprobe", "post_handler"): (56, 8),
    ("net", "list"): (8, 16),
    ("net", "ns.ops"): (32, 8),
    ("net", "nf.hooks_ipv4"): (64, 40),
    ("net", "nf.hooks_ipv6"): (104, 40),
    ("nf_hook_entries", "num_hook_entries"): (0, 2),
    ("nf_hook_entries", "hooks"): (8, 0),
}


class Made:
    """Layouts that this test makes up."""

    provenance: Provenance = "btf"

    def __init__(self, layout: Mapping[tuple[str, str], tuple[int, int]]) -> None:
        self.layout = layout

    def member(self, struct: str, path: str) -> Member | None:
        known = self.layout.get((struct, path))
        return Member(*known) if known else None

    def size(self, struct: str) -> int | None:
        return None


class Scene:
    """A guest whose heap a test writes, and whose kernel names what a test says."""

    def __init__(self, machine: Machine) -> None:
        self.guest: Guest = build(machine)
        self.known = discover(self.guest.memory())
        self.names: dict[str, int] = {}
        self.free = HEAP

    def put(self, *words: int) -> int:
        at = self.guest.linear(self.free)
        self.guest.words(at, *words)
        self.free += 8 * len(words) + 64
        return at

    def name(self, name: str, address: int) -> int:
        self.names[name] = address
        return address

    def check(self, detector: str) -> Report:
        return check(self.kernel(), chosen([detector], []))

    def kernel(self) -> Kernel:
        profile = self.known.profile
        named = Symbols([Symbol(GVA(address), "D", name) for name, address in self.names.items()], "kallsyms")
        profile = replace(profile, symbols=[*profile.symbols, named], types=[Made(LAYOUT), *profile.types])
        return Kernel(self.guest.memory(), profile)


def ftrace(scene: Scene, *functions: int) -> None:
    """Register ops, each of which traces helper5."""
    last = scene.name("ftrace_list_end", scene.put(0, 0, 0, 0, 0))
    scene.name("register_ftrace_function", scene.guest.symbols["helper1"])
    following = last
    for function in functions:
        entry = scene.put(0, 0, scene.guest.symbols["helper5"])
        table = scene.put(0, scene.put(entry))
        following = scene.put(function, following, scene.put(0, table), 0, 0)
    scene.name("ftrace_ops_list", scene.put(following))


@MACHINES
def test_ftrace(machine: Machine) -> None:
    scene = Scene(machine)
    ftrace(scene)
    assert (scene.check("ftrace-hooks").findings, scene.check("ftrace-hooks").complete) == ([], True)
    scene = Scene(machine)
    ftrace(scene, scene.guest.symbols["helper9"], MODULES[machine.name] + 0x40)
    findings = scene.check("ftrace-hooks").findings
    assert [one.severity for one in findings] == ["critical", "low"]  # the other is the kernel's own tracer
    assert all("helper5" in one.title for one in findings)


def test_ftrace_list_that_does_not_end() -> None:
    scene = Scene(X86)
    ftrace(scene)
    circle = scene.put(scene.guest.symbols["helper9"], 0, 0, 0, 0)
    scene.guest.words(circle + 8, circle)
    scene.name("ftrace_ops_list", scene.put(circle))
    ((_, reason),) = scene.check("ftrace-hooks").not_checked
    assert "does not end" in reason


@MACHINES
def test_kprobes(machine: Machine) -> None:
    scene = Scene(machine)
    scene.name("register_kprobe", scene.guest.symbols["helper1"])
    table = scene.name("kprobe_table", scene.put(*[0] * 64))
    assert (scene.check("kprobes").findings, scene.check("kprobes").complete) == ([], True)
    place, handler = scene.guest.symbols["helper5"], scene.guest.symbols["helper9"]
    probe = scene.put(0, table + 8 * 7, 0, 0, 0, place, handler, 0)
    scene.guest.words(probe + 16, probe + 16, probe + 16)
    scene.guest.words(table + 8 * 7, probe)
    (found,) = scene.check("kprobes").findings
    assert (found.subject, found.severity) == (f"kprobe at {place:#x}", "low")
    assert "helper5" in found.title
    scene.guest.words(probe, probe)
    assert len(scene.check("kprobes").findings) == 1  # a circle ends
    scene.guest.words(table + 8 * 7, 0x10)
    ((_, reason),) = scene.check("kprobes").not_checked
    assert "cannot be read" in reason


@MACHINES
def test_what_kprobes_call_in_the_end(machine: Machine) -> None:
    scene = Scene(machine)
    scene.name("register_kprobe", scene.guest.symbols["helper1"])
    own, way, foreign = (*(scene.guest.symbols[name] for name in ("helper8", "helper9")), MODULES[machine.name] + 0x40)
    scene.name("pre_handler_kretprobe", way)
    table = scene.name("kprobe_table", scene.put(*[0] * 64))
    outer = scene.put(0, 0, 0, 0, 0, 0, scene.guest.symbols["helper5"], own, foreign, foreign, own)
    probe = outer + 8  # a struct kretprobe begins with something else here
    scene.guest.words(probe + 16, probe + 16, probe + 16)
    scene.guest.words(table + 8 * 7, probe)
    (found,) = scene.check("kprobes").findings
    assert (found.severity, f"{foreign:#x}" in found.why[1]) == ("critical", True)  # post_handler
    scene.guest.words(probe + 48, way, 0)
    (found,) = scene.check("kprobes").findings
    assert (found.severity, f"{foreign:#x}" in found.why[1]) == ("critical", True)  # that of the kretprobe
    scene.guest.words(outer + 72, 0)
    (found,) = scene.check("kprobes").findings
    assert found.severity == "low"


@MACHINES
@pytest.mark.parametrize(("way", "severity"), [("call_direct_funcs", "low"), ("fprobe_handler", "critical")])
def test_what_ftrace_calls_in_the_end(machine: Machine, way: str, severity: str) -> None:
    """Code of no module: called directly it is what BPF's trampolines are, systemd's among them."""
    scene = Scene(machine)
    foreign = MODULES[machine.name] + 0x40
    scene.name(way, scene.guest.symbols["helper9"])
    ftrace(scene, scene.guest.symbols["helper9"])
    ops = scene.guest.word(scene.names["ftrace_ops_list"])
    (found,) = scene.check("ftrace-hooks").findings
    assert found.severity == "low"
    scene.guest.words(ops + 40, foreign)
    (found,) = scene.check("ftrace-hooks").findings
    assert (found.severity, f"{foreign:#x}" in found.why[1]) == (severity, severity == "critical")


@MACHINES
def test_where_traced_functions_lead(machine: Machine) -> None:
    scene = Scene(machine)
    made, direct = (MODULES[machine.name] + at for at in (0x4000, 0x8000))
    ftrace(scene, scene.guest.symbols["helper9"], scene.guest.symbols["helper9"])
    ops = scene.guest.word(scene.names["ftrace_ops_list"])
    scene.guest.words(ops + 24, made, 0x100)
    scene.guest.words(scene.guest.word(ops + 8) + 40, direct)
    assert trampolines(View(scene.kernel())) == [range(made, made + 0x100), range(direct, direct + 1)]


@MACHINES
def test_netfilter(machine: Machine) -> None:
    scene = Scene(machine)
    own, foreign = scene.guest.symbols["helper9"], MODULES[machine.name] + 0x40
    head = scene.name("net_namespace_list", scene.put(0, 0, 0, 0, 0))
    operations = scene.guest.symbols["helper1"]
    nets = [scene.put(*[0] * 4, operations, *[0] * 13) for _ in range(2)]
    scene.name("init_net", nets[0])
    scene.guest.ring(head, *(net + 8 for net in nets))
    scene.guest.words(nets[1] + 64 + 8, scene.put(2, own, 0, own, 0))
    assert (scene.check("netfilter-hooks").findings, scene.check("netfilter-hooks").complete) == ([], True)
    scene.guest.words(nets[1] + 104, scene.put(1, foreign, 0))
    (found,) = scene.check("netfilter-hooks").findings
    assert (found.severity, "IPv6" in found.title, f"{foreign:#x}" in found.why[1]) == ("critical", True, True)
    scene.name("module_put", own)  # it may be a module's, and nobody can say whose
    assert "no list of modules" in scene.check("netfilter-hooks").not_checked[0][1]
    scene.guest.words(nets[1] + 104, scene.put(0xFFFF, foreign, 0))
    assert "cannot be read" in scene.check("netfilter-hooks").not_checked[0][1]
    scene.guest.words(nets[1] + 104, 0)
    scene.guest.words(nets[1] + 32, 0)
    assert "cannot be followed" in scene.check("netfilter-hooks").not_checked[0][1]


def test_what_is_not_named_is_not_checked() -> None:
    scene = Scene(X86)
    scene.name("register_kprobe", scene.guest.symbols["helper1"])
    scene.name("register_ftrace_function", scene.guest.symbols["helper1"])
    for detector in ("ftrace-hooks", "kprobes"):
        assert "does not name" in scene.check(detector).not_checked[0][1]
    for detector in ("ftrace-hooks", "kprobes"):
        assert Scene(X86).check(detector).complete  # built without
