"""The table that system calls go through: told by the code that dispatches them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from tests.detectors.test_hooks import Scene
from tests.detectors.test_switch import scene as switching
from tests.kernel.synthetic import ARM64, X86, Machine

from yamori.kernel.profile import Profile

MACHINES = pytest.mark.parametrize("machine", [X86, ARM64], ids=lambda machine: machine.name)


def subjects(scene: Scene, used: int | None, monkeypatch: pytest.MonkeyPatch, drop: Sequence[str] = ()) -> list[str]:
    """Check a kernel whose code uses a table; what the code says is made up, as a synthetic guest has none."""
    monkeypatch.setattr(Profile, "inferred_address", lambda _, name, **__: used if name == "sys_call_table" else None)
    kernel = scene.kernel()
    for symbols in kernel.profile.symbols:
        known = symbols.address
        monkeypatch.setattr(symbols, "address", lambda name, known=known: None if name in drop else known(name))
    scene.kernel = lambda: kernel  # type: ignore[method-assign]
    report = scene.check("system-calls")
    assert report.complete
    return [finding.subject for finding in report.findings]


@MACHINES
def test_table_that_symbols_name(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(machine)
    own = scene.guest.symbols["sys_call_table"]
    assert subjects(scene, own, monkeypatch) == []
    assert subjects(scene, None, monkeypatch) == []
    assert subjects(scene, own + 0x400, monkeypatch) == ["system-call table"]


@MACHINES
def test_table_that_no_symbol_names(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(machine)
    own = scene.guest.symbols["sys_call_table"]
    assert subjects(scene, own, monkeypatch, ["sys_call_table"]) == []
    assert "system-call table" in subjects(scene, scene.put(0), monkeypatch, ["sys_call_table"])


def test_a_kernel_with_a_switch_follows_no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = switching()
    assert subjects(scene, scene.put(0), monkeypatch) == []
