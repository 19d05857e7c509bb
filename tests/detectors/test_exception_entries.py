"""Where exceptions enter the kernel, on synthetic kernels."""

from __future__ import annotations

import struct

import pytest
from tests.detectors.test_hooks import Scene
from tests.kernel.synthetic import ARM, ARM64, MODULES, X86

BRANCH = 0x1400_0000


def gates(scene: Scene, **elsewhere: int) -> None:
    """Write an IDT whose gates lead to helper5, but for one; the last is not present."""
    table = scene.name("idt_table", scene.put(*[0] * 512))
    for number in range(256):
        target = elsewhere.get("target", 0) if number == elsewhere.get("number") else scene.guest.symbols["helper5"]
        kind = 0 if number == 255 else 0x8E
        gate = struct.pack(
            "<HHBBHII", target & 0xFFFF, 0x10, 0, kind, target >> 16 & 0xFFFF, target >> 32 & 0xFFFFFFFF, 0
        )
        scene.guest.write(table + 16 * number, gate)


def test_gates() -> None:
    scene = Scene(X86)
    gates(scene)
    assert (scene.check("exception-entries").findings, scene.check("exception-entries").complete) == ([], True)
    foreign = MODULES[X86.name] + 0x40
    gates(scene, number=14, target=foreign)
    (found,) = scene.check("exception-entries").findings
    assert (found.subject, f"{foreign:#x}" in found.why[1]) == ("exception 0xe", True)
    gates(scene, number=255, target=foreign)  # not present: the CPU does not go there
    assert scene.check("exception-entries").findings == []


@pytest.mark.parametrize("at", [0, 100])
def test_slots(at: int) -> None:
    scene = Scene(ARM64)
    table = scene.name("vectors", scene.guest.symbols["_stext"] + 0x1000)
    scene.guest.write(table, struct.pack("<512I", *[BRANCH | 0x1000] * 512))  # 16 KB on, in the text
    assert (scene.check("exception-entries").findings, scene.check("exception-entries").complete) == ([], True)
    place, target = table + 128 * 5 + at, MODULES[ARM64.name] + 0x40
    load = [0x5800_0050, 0xD61F_0200, target & 0xFFFF_FFFF, target >> 32]  # ldr x16, .+8; br x16: they are far apart
    scene.guest.write(place, struct.pack("<4I", *load))
    (found,) = scene.check("exception-entries").findings
    assert (found.subject, f"{target:#x}" in found.why[1]) == ("exception vector 5 of vectors", True)


@pytest.mark.parametrize(
    ("machine", "reason"), [(X86, "idt_table"), (ARM64, "vectors"), (ARM, "read")], ids=lambda one: str(one)[:9]
)
def test_what_is_not_known_is_not_checked(machine: object, reason: str) -> None:
    ((_, said),) = Scene(machine).check("exception-entries").not_checked  # type: ignore[arg-type]
    assert reason in said
