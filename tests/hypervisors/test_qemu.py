"""Which QEMU is meant, and what an error says of the others; no QEMU is needed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from yamori.errors import TargetError
from yamori.hypervisors import lab, qemu
from yamori.hypervisors.qemu_commandline import parse


@contextmanager
def zombie(path: Path) -> Iterator[int]:
    """A process by this name that has ended and was not waited for."""
    shutil.copy(shutil.which("sleep") or "", path)
    with subprocess.Popen([path, "1000"]) as child:
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        yield child.pid


def running(*names: str) -> list[qemu._Qemu]:
    named = (["-name", name] if name else [] for name in names)
    return [qemu._Qemu(pid, "qemu-system-arm", parse("qemu-system-arm", words)) for pid, words in enumerate(named, 101)]


@pytest.mark.parametrize("program", ["qemu-system-aarch64", "qemu-kvm"])
def test_vm_that_ended_but_was_not_reaped(tmp_path: Path, program: str) -> None:
    with zombie(tmp_path / program) as pid, pytest.raises(TargetError) as caught:
        qemu.attach(str(pid))
    assert str(caught.value).startswith(f"qemu:{pid}: the VM has ended")


def test_other_process_that_ended(tmp_path: Path) -> None:
    with zombie(tmp_path / "some (program)") as pid, pytest.raises(TargetError) as caught:
        qemu.attach(str(pid))
    assert str(caught.value).startswith(f"qemu:{pid}: process {pid} (some (program)) has ended")


def test_process_that_is_no_vm() -> None:
    with pytest.raises(TargetError, match="is not a QEMU system emulator"):
        qemu.attach(str(os.getpid()))


@pytest.mark.parametrize(
    ("names", "offered"),
    [
        (("dup", "dup"), "there is qemu:101, qemu:102"),
        (("one", "dup", "dup", ""), "there is qemu:one, qemu:102, qemu:103, qemu:104"),
        (("7", "a/b"), "there is qemu:101, qemu:102"),
        ((), "no QEMU VM runs on this machine, or none that this user can see"),
    ],
)
def test_others_are_offered_by_what_names_only_them(
    monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], offered: str
) -> None:
    monkeypatch.setattr(qemu, "_running", lambda: running(*names))
    with pytest.raises(TargetError) as caught:
        qemu.attach("none")
    assert str(caught.value) == f"qemu:none: no QEMU VM has this name; {offered}"


def test_name_of_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu, "_running", lambda: running("dup", "dup"))
    with pytest.raises(TargetError) as caught:
        qemu.attach("dup")
    assert str(caught.value) == "qemu:dup: 2 VMs have this name; name one by its process id: qemu:101 or qemu:102"


def test_lab_vm_is_named_as_the_user_named_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = lab.Record("sensor", "armv7", os.getpid(), lab.start_ticks(os.getpid()) or 0, "vmlinuz", 96, 1)
    monkeypatch.setattr(lab, "load", lambda _state: record)
    with pytest.raises(TargetError) as caught:
        lab.attach("sensor")
    assert str(caught.value).startswith("lab:sensor: ")
    assert f"qemu:{os.getpid()}" not in str(caught.value)
