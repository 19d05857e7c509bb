"""The command as a process: Ctrl-C at any moment, streams that are full, closed or not read."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import msgspec
import pytest
from tests.kernel.synthetic import build

from yamori.cli import output
from yamori.cli.app import UNREAD
from yamori.cli.main import INTERRUPTED
from yamori.hypervisors import lab as registry

SECONDS = 60
PROGRAM = "import sys; sys.argv[0] = 'yamori'; from yamori.cli.main import main; {}main()"
COMMAND = (sys.executable, "-c", PROGRAM.format(""))


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    err: str


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("image") / "ram"
    path.write_bytes(build().ram)
    return f"file:{path}"


@contextmanager
def started(*command: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()  # if the test has failed


def ended(command: subprocess.Popen[str]) -> Ended:
    _, err = command.communicate(timeout=SECONDS)
    return Ended(command.returncode, err)


# --- Ctrl-C


@pytest.fixture
def waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, ...]]:
    """A command that would wait for ten minutes, for the console of a VM that somebody else holds."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    pid = os.getpid()
    record = registry.Record("sensor", "armv7", pid, registry.start_ticks(pid) or 0, "vmlinuz", 96, 1)
    state = registry.directory("sensor")
    state.mkdir(parents=True)
    (state / registry.RECORD_FILE).write_bytes(msgspec.json.encode(record))
    with (state / "console.lock").open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield ("lab", "exec", "sensor", "--", "ps")


INTERRUPTION = Ended(INTERRUPTED, "yamori: interrupted\n")


@pytest.mark.parametrize("delay", [0, 0.02, 0.05, 0.15, 0.3, 1])
def test_ctrl_c(waiting: tuple[str, ...], delay: float) -> None:
    with started(sys.executable, "-c", PROGRAM.format("print('ready', flush=True); "), *waiting) as process:
        assert process.stdout
        process.stdout.readline()  # the interpreter's own start is not ours to mend
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        assert ended(process) == INTERRUPTION


@pytest.mark.parametrize(
    "module", ["yamori.cli.streams", "typer", "msgspec", "yamori.cli.app", "yamori.hypervisors", "yamori.lab.boot"]
)
def test_ctrl_c_while_a_module_is_imported(waiting: tuple[str, ...], module: str) -> None:
    with started(sys.executable, "-X", "importtime", *COMMAND[1:], *waiting) as process:
        assert process.stderr
        assert _imported(process.stderr, module)
        process.send_signal(signal.SIGINT)
        code, err = ended(process)
    said = [line for line in err.splitlines() if not line.startswith("import time:")]
    assert (code, said) == (INTERRUPTED, ["yamori: interrupted"])


def _imported(lines: IO[str], module: str) -> bool:
    return any(line.rpartition("|")[2].strip() == module for line in lines)


LOST = """
import sys, time
from yamori.cli import app, main
class Callback:
    def __del__(self):
        print("ready", flush=True)
        time.sleep(60)
def run():
    Callback()
    time.sleep(60)
app.run = run
main.main()
"""


def test_ctrl_c_where_the_interpreter_ignores_exceptions() -> None:
    with started(sys.executable, "-c", LOST) as process:
        assert process.stdout
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert ended(process) == INTERRUPTION


def test_status_130_of_a_guests_command_is_no_interrupt() -> None:
    program = "from yamori.cli import app, main; app.run = lambda: 130; main.main()"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=SECONDS, check=False)
    assert (ran.returncode, ran.stderr) == (INTERRUPTED, "")


# --- streams

COMMANDS = [("plist",), ("plist", "--json"), ("syscall",), ("doctor",), ("banner",)]
WITHOUT_TARGET = [("--help",), ("--version",), ("plist", "--help"), ("targets", "--json")]


def shell(script: str, *words: str) -> Ended:
    """Run a shell's script in which ``"$@"`` is the command."""
    arguments = ["bash", "-c", script, "bash", *COMMAND, *words]
    ran = subprocess.run(arguments, capture_output=True, timeout=SECONDS, check=False)
    return Ended(ran.returncode, ran.stderr.decode())


FULL = Ended(output.ERROR, "yamori: cannot write the output: No space left on device\n")
CLOSED = Ended(output.ERROR, "yamori: cannot write the output: Bad file descriptor\n")


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_output_that_cannot_be_written(target: str, words: tuple[str, ...]) -> None:
    assert shell('"$@" > /dev/full', *words, target) == FULL
    assert shell('"$@" >&-', *words, target) == CLOSED


@pytest.mark.parametrize("words", WITHOUT_TARGET, ids=" ".join)
def test_help_that_cannot_be_written(words: tuple[str, ...]) -> None:
    assert shell('"$@" > /dev/full', *words) == FULL
    assert shell('"$@" >&-', *words) == CLOSED


@pytest.mark.parametrize("words", [*COMMANDS, ("--help",)], ids=" ".join)
def test_output_that_nobody_reads(target: str, words: tuple[str, ...]) -> None:
    everything = words if words == ("--help",) else (*words, target)
    gone = Ended(UNREAD, "")
    assert shell('exec 3> >(exec true); wait $!; "$@" >&3', *everything) == gone
    read_or_not = shell('"$@" | head -1 > /dev/null; exit ${PIPESTATUS[0]}', *everything)
    assert read_or_not in {gone, Ended(0, ""), Ended(output.NOT_EVERYTHING, "")}


def test_messages_that_cannot_be_written(target: str) -> None:
    for script in ('"$@" 2> /dev/full', '"$@" 2>&-', '"$@" <&- 2>&-'):
        assert shell(script, "plist", target) == Ended(output.OK, "")
        assert shell(script, "plist", "what:x") == Ended(output.ERROR, "")
    assert shell('"$@" <&- >&- 2>&-', "plist", target).code == output.ERROR


def test_numbers_of_closed_streams_are_not_given_to_files(target: str) -> None:
    look = "import os; from yamori.cli import app; app.run = lambda: print(*map(os.readlink, ("
    look += "'/proc/self/fd/0', '/proc/self/fd/1', '/proc/self/fd/2')), file=open('/proc/self/fd/3', 'w')) or 0; "
    arguments = ["bash", "-c", 'exec 3>&1; "$@" <&- >&- 2>&-', "bash", sys.executable, "-c", PROGRAM.format(look)]
    ran = subprocess.run(arguments, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert ran.stdout.split() == ["/dev/null"] * 3


def test_shell_of_a_lab_vm_needs_standard_input(waiting: tuple[str, ...]) -> None:
    assert shell('"$@" <&-', "lab", "shell", "none").code == output.ERROR


def test_terminal_without_branches(target: str) -> None:
    script = 'PYTHONIOENCODING=ascii "$@" | tail -1 >&2'
    assert "\\u2514\\u2500" in shell(script, "plist", "--tree", target).err


def test_completion() -> None:
    script = shell('_YAMORI_COMPLETE=source_bash "$@" >&2')
    assert "complete -o default -F" in script.err
    offered = shell('_YAMORI_COMPLETE=complete_bash COMP_WORDS="yamori pl" COMP_CWORD=1 "$@" >&2')
    assert offered == Ended(0, "plist\n")
