"""``yamori lab`` on a machine where one VM seems to run: a ``sleep`` stands in for it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from yamori.cli.lab import app
from yamori.errors import LabError
from yamori.hypervisors import lab as registry
from yamori.lab import Machine, Result

runner = CliRunner()


@pytest.fixture
def vm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[registry.Record]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with subprocess.Popen(["sleep", "1000"]) as process:
        started = registry.start_ticks(process.pid)
        assert started is not None
        record = registry.Record("sensor", "armv7", process.pid, started, "/boot/vmlinuz-6.1", 96, 1)
        state = registry.directory("sensor")
        state.mkdir(parents=True)
        (state / registry.RECORD_FILE).write_bytes(msgspec.json.encode(record))
        yield record
        process.kill()


def test_list(vm: registry.Record) -> None:
    result = runner.invoke(app, ["list"])
    assert result.output.splitlines()[1].split() == [
        "lab:sensor", "armv7", str(vm.pid), "96", "MiB", "1", "vmlinuz-6.1",
    ]  # fmt: skip
    (row,) = json.loads(runner.invoke(app, ["list", "--json"]).output)["rows"]
    assert row == {"target": "lab:sensor", **msgspec.to_builtins(vm)}


@pytest.mark.parametrize("words", [["sensor", "--"], ["sensor"]])
@pytest.mark.parametrize("command", [["ps"], ["ls", "-la", "--help"], ["sh", "-c", "exit 3"]])
def test_exec(vm: registry.Record, monkeypatch: pytest.MonkeyPatch, words: list[str], command: list[str]) -> None:
    ran: list[object] = []

    def run(self: Machine, command: object, timeout: float) -> Result:
        ran.append((self.name, command, timeout))
        return Result("out \udcff\n", 3)

    monkeypatch.setattr(Machine, "run", run)
    result = runner.invoke(app, ["exec", "--timeout", "5", *words, *command])
    assert ran == [("sensor", command[0] if len(command) == 1 else command, 5)]
    assert (result.exit_code, result.stdout_bytes) == (3, b"out \xff\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["exec", "sensor", "--"], "say what to run"),
        (["exec", "other", "ps"], "other: no such VM is running; running: sensor"),
        (["shell", "other"], "no such VM"),
        (["shell", "sensor"], "cannot be reached"),
        (["down"], "say which device"),
        (["down", "sensor", "--all"], "say which device"),
        (["up", "vax"], "no such lab device"),
        (["up", "armv7", "--ram", "rom"], "no such kind of RAM"),
    ],
)
def test_errors_are_ours(vm: registry.Record, words: list[str], message: str) -> None:
    with pytest.raises(LabError, match=message):
        runner.invoke(app, words, catch_exceptions=False)


@pytest.mark.parametrize("words", [["down", "sensor"], ["down", "--all"]])
def test_down(vm: registry.Record, words: list[str]) -> None:
    assert runner.invoke(app, words).output == "lab:sensor has ended\n"
    assert not registry.alive(vm)
    assert runner.invoke(app, ["list"]).output.startswith("no lab device is running")


@pytest.mark.parametrize("command", ["up", "list", "exec", "shell", "down"])
def test_help_has_an_example(command: str) -> None:
    assert "Example" in runner.invoke(app, [command, "--help"]).output
