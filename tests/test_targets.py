from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from yamori import targets
from yamori.errors import TargetError
from yamori.hypervisors.vm import RamSegment, VirtualMachine

ONE = VirtualMachine("qemu:one", "one", 7, "qemu", ((RamSegment(0, 4096, "ram", 0, "shared"),),))


class Scheme:
    """A hypervisor with VMs."""

    def __init__(self, scheme: str, *vms: VirtualMachine) -> None:
        self.SCHEME = scheme
        self.vms = list(vms)
        self.asked: list[tuple[str, int | None]] = []

    def find(self) -> list[VirtualMachine]:
        return self.vms

    def attach(self, spec: str, *, ram_base: int | None = None) -> VirtualMachine:
        self.asked.append((spec, ram_base))
        return replace(ONE, target=f"{self.SCHEME}:{spec}")


@pytest.fixture
def schemes(monkeypatch: pytest.MonkeyPatch) -> list[Scheme]:
    found = {"lab": Scheme("lab"), "process": object(), "qemu": Scheme("qemu")}
    monkeypatch.setattr(targets, "_hypervisors", lambda: list(found))
    monkeypatch.setattr(targets, "_hypervisor", found.get)
    monkeypatch.delenv("YAMORI_TARGET", raising=False)
    return [scheme for scheme in found.values() if isinstance(scheme, Scheme)]


def test_a_vm_is_listed_once_under_its_first_name(schemes: list[Scheme]) -> None:
    schemes[0].vms = [replace(ONE, target="lab:one")]
    schemes[1].vms = [ONE, replace(ONE, target="qemu:two", pid=8)]
    assert [vm.target for vm in targets.find()] == ["lab:one", "qemu:two"]


def test_scheme_is_asked(schemes: list[Scheme]) -> None:
    assert targets.attach("qemu:/run/a:b.sock", ram_base=4096).target == "qemu:/run/a:b.sock"
    assert schemes[1].asked == [("/run/a:b.sock", 4096)]


def test_environment_and_the_only_vm(schemes: list[Scheme], monkeypatch: pytest.MonkeyPatch) -> None:
    schemes[1].vms = [ONE]
    assert targets.attach().target == "qemu:one"
    monkeypatch.setenv("YAMORI_TARGET", "lab:x")
    assert targets.attach().target == "lab:x"
    assert targets.attach("qemu:y").target == "qemu:y"


def test_image_is_a_target(schemes: list[Scheme], tmp_path: Path) -> None:
    (tmp_path / "ram").write_bytes(bytes(4096))
    assert targets.attach(f"file:{tmp_path}/ram").machine == "raw image"


@pytest.mark.parametrize("target", ["", "qemu", "qemu:", ":x", "vbox:x", "process:x", "file:"])
def test_what_is_no_target(schemes: list[Scheme], target: str) -> None:
    with pytest.raises(TargetError) as caught:
        targets.attach(target)
    assert "\n" not in str(caught.value)
    assert "lab:" in str(caught.value)


def test_several_vms_have_to_be_told_apart(schemes: list[Scheme]) -> None:
    schemes[1].vms = [ONE, replace(ONE, target="qemu:two", pid=8)]
    with pytest.raises(TargetError, match=r"which of the 2 VMs .*\(qemu:one, qemu:two\); .*YAMORI_TARGET"):
        targets.attach()


def test_rooms_modules_are_the_schemes() -> None:
    finders = targets._finders()
    assert finders[0].SCHEME == "lab"
    assert "qemu" in {finder.SCHEME for finder in finders}
    assert all(targets._scheme(finder.SCHEME) is finder for finder in finders)
