"""``yamori check`` and ``yamori detectors``: words, JSON and exit codes."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Run
from tests.cli.test_commands import is_error, save
from tests.kernel.synthetic import Guest, build

from yamori.cli import output


def attacked(tmp_path: Path) -> tuple[str, int]:
    """Return an image in which a process was taken off the list, and its id."""
    guest: Guest = build()
    victim = guest.tasks[5]
    node = guest.member(victim.gva, "tasks")
    after, before = guest.word(node), guest.word(node + 8)
    guest.words(before, after)
    guest.words(after + 8, before)
    return save(guest, tmp_path / "ram"), victim.pid


def test_findings(run: Run, tmp_path: Path) -> None:
    target, pid = attacked(tmp_path)
    ran = run("check", target, "--only", "hidden-processes")
    assert ran.code == output.FINDINGS
    assert ran.out.startswith(f"CRITICAL Process {pid} ")
    for part in ("Expected:", "Found:", "Do:", "hidden-processes, certain, T1014, T1564", "1 finding; 1 detectors ran"):
        assert part in ran.out
    found = run("check", target, "--json", "--only", "hidden-processes").json()
    assert (found["schema"], found["command"], found["complete"]) == ("yamori/1", "check", False)
    assert [one["subject"] for one in found["findings"]] == [f"process {pid}"]
    assert found["detectors"][0]["name"] == "hidden-processes"


def test_nothing_found(run: Run, tmp_path: Path) -> None:
    target = save(build(), tmp_path / "ram")
    clean = run("check", target, "--only", "shared-credentials", "--only", "system-calls")
    assert clean.code == output.OK
    assert clean.out.startswith("nothing found; 2 detectors ran")
    partly = run("check", target)
    assert partly.code == output.NOT_EVERYTHING
    assert "NOT CHECKED changed-credentials: " in partly.out
    assert "NOT CHECKED deleted-executable, memfd-executable, writable-place, kernel-thread-names: " in partly.out
    told = run("check", target, "--json").json()
    assert not told["complete"]
    assert {"detector", "reason"} == set(told["not_checked"][0])
    assert len(partly.out.splitlines()) == len({one["reason"] for one in told["not_checked"]}) + 1


def test_unknown_detector(run: Run, tmp_path: Path) -> None:
    target = save(build(), tmp_path / "ram")
    assert is_error(run("check", target, "--only", "rootkits"), "there is no detector 'rootkits'", "kernel-text")


def test_detectors(run: Run) -> None:
    listed = run("detectors").out
    rows = run("detectors", "--json").json()["rows"]
    assert len(rows) > 10
    assert all(f"{row['name']}: {row['title']}" in listed and row["misses"] in listed for row in rows)
