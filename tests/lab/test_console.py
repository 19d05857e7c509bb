"""The console's protocol against a real shell on a real pseudo-terminal, which stands in for a guest's serial line."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from yamori.errors import LabError
from yamori.lab.console import COMMAND_LIMIT, Console


class Guest:
    """A shell behind a UNIX socket that serves one client at a time, as QEMU's serial line does."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        tools = directory / "tools"
        tools.mkdir()
        (tools / "dmesg").write_text("#!/bin/sh\n")  # the real one would change the console of this machine
        (tools / "dmesg").chmod(0o755)
        self.directory = directory
        self._listener = socket.socket(socket.AF_UNIX)
        handle = os.open(directory, os.O_PATH)
        self._listener.bind(f"/proc/self/fd/{handle}/serial.sock")
        os.close(handle)
        self._listener.listen()
        self._terminal, line = pty.openpty()
        environment = {"PATH": f"{tools}:{os.environ['PATH']}", "PS1": "# ", "HOME": str(directory)}
        self._shell = subprocess.Popen(
            ["setsid", "--ctty", "sh", "-i"], stdin=line, stdout=line, stderr=line, env=environment, cwd=directory
        )
        os.close(line)
        shown = b""
        while not shown.endswith(b"# "):  # the lab waits for the first prompt, too
            shown += os.read(self._terminal, 4096)
        self._over = os.pipe()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def vanish(self) -> None:
        """Close the line, as when QEMU dies."""
        os.write(self._over[1], b"x")

    def _serve(self) -> None:
        client: socket.socket | None = None
        while True:
            wanted: list[int | socket.socket] = [self._over[0], self._terminal, client or self._listener]
            ready = select.select(wanted, [], [])[0]
            if self._over[0] in ready:
                break
            if self._terminal in ready:
                data = os.read(self._terminal, 4096)
                if client:
                    with contextlib.suppress(ConnectionError):
                        client.sendall(data)
            if client and client in ready:
                typed = b""
                with contextlib.suppress(ConnectionError):
                    typed = client.recv(4096)
                if typed:
                    os.write(self._terminal, typed)
                else:
                    client.close()
                    client = None
            elif self._listener in ready:
                client = self._listener.accept()[0]
        if client:
            client.close()
        self._listener.close()

    def end(self) -> None:
        self.vanish()
        self._thread.join()
        for descriptor in (*self._over, self._terminal):
            os.close(descriptor)
        self._shell.kill()
        self._shell.wait()


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    started = Guest(tmp_path / "vm")
    yield started
    started.end()


def run(guest: Guest, command: str | list[str], timeout: float = 20) -> tuple[str, int]:
    with Console(guest.directory, "vm") as console:
        return console.run(command, timeout)


@pytest.mark.parametrize(
    ("command", "output", "status"),
    [
        ("echo hello", "hello\n", 0),
        ("printf 'no newline'", "no newline", 0),
        ("printf '\\n\\n'", "\n\n", 0),
        ("true", "", 0),
        ("", "", 0),
        ("exit 7", "", 7),
        ("exit 255", "", 255),
        ("echo out; echo err >&2; false", "out\nerr\n", 1),
        ("cat", "", 0),
        ("a=1\nb=2\necho $((a+b))\n", "3\n", 0),
        ("-x 2>/dev/null", "", 127),
        (["printf", "%s|", "a b", "it's", "$HOME", '"', "\\", "*"], "a b|it's|$HOME|\"|\\|*|", 0),
        (["echo", "ünï\tcode"], "ünï\tcode\n", 0),
    ],
)
def test_output_and_status(guest: Guest, command: str | list[str], output: str, status: int) -> None:
    assert run(guest, command) == (output, status)


def test_bytes_survive(guest: Guest) -> None:
    output, _ = run(guest, r"printf '\000\001\003\004\r\n\033[31m\377\376\n'")
    assert output.encode("utf-8", "surrogateescape") == b"\0\x01\x03\x04\r\n\x1b[31m\xff\xfe\n"


def test_long_output(guest: Guest) -> None:
    output, _ = run(guest, "seq 100000")
    assert output == "".join(f"{number}\n" for number in range(1, 100001))


def test_long_command(guest: Guest) -> None:
    word = "x" * 30_000
    assert run(guest, ["echo", word]) == (word + "\n", 0)
    lines = "\n".join(f": line {number}" for number in range(2000))
    assert run(guest, f"{lines}\necho end") == ("end\n", 0)


def test_many_commands_on_one_console(guest: Guest) -> None:
    with Console(guest.directory, "vm") as console:
        assert [console.run(f"echo {number}").output for number in range(10)] == [f"{n}\n" for n in range(10)]


@pytest.mark.parametrize("command", ["a\x03b", "a\x00b", "a\rb", ["echo", "\x1b"], "x" * (COMMAND_LIMIT + 1)])
def test_what_cannot_be_typed_is_refused(guest: Guest, command: str | list[str]) -> None:
    with pytest.raises(LabError, match=r"control characters|too long"):
        run(guest, command)
    assert run(guest, "echo still there") == ("still there\n", 0)


def test_a_command_that_takes_too_long_ends(guest: Guest) -> None:
    with pytest.raises(LabError, match="no end of the command within 1 s"):
        run(guest, "echo begun; sleep 1000", timeout=1)
    assert run(guest, "ps -o args= | grep -c '^sleep 1000$'") == ("0\n", 1)


def test_a_client_that_vanished_is_got_over(guest: Guest) -> None:
    console = Console(guest.directory, "vm")
    console._type(b"while :; do echo noise; done", time.monotonic() + 10)
    console.__exit__(None, None, None)
    assert run(guest, "echo calm") == ("calm\n", 0)
    console = Console(guest.directory, "vm")
    console._socket.sendall(b"half a lin'e")
    console.__exit__(None, None, None)
    assert run(guest, "echo calm") == ("calm\n", 0)


def test_a_shell_at_its_prompt_is_not_interrupted(guest: Guest) -> None:
    typed = []
    with Console(guest.directory, "vm") as console:
        send = console._send

        def noted(data: bytes) -> None:
            typed.append(data)
            send(data)

        console._send = noted  # type: ignore[method-assign]
        assert [console.run(["echo", word]).output for word in "abc"] == ["a\n", "b\n", "c\n"]
    assert run(guest, "echo d") == ("d\n", 0)
    assert typed
    assert b"\x03" not in b"".join(typed)
    assert not (guest.directory / "console.lock").read_bytes()


def test_commands_queue(guest: Guest) -> None:
    outputs = []

    def twice(number: int) -> None:
        outputs.append(run(guest, f"echo {number}; sleep 0.1; echo {number}")[0])

    threads = [threading.Thread(target=twice, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outputs) == [f"{n}\n{n}\n" for n in range(4)]


def test_a_console_in_use_is_not_waited_for_without_end(guest: Guest) -> None:
    with Console(guest.directory, "vm"), pytest.raises(LabError, match="not free within"):
        Console(guest.directory, "vm", wait=0.2)


def test_no_vm(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="no such VM"):
        Console(tmp_path / "nowhere", "nowhere")
    with pytest.raises(LabError, match="cannot be reached"):
        Console(tmp_path, "dead")


def test_a_vm_that_ends(guest: Guest) -> None:
    with Console(guest.directory, "vm") as console:
        guest.vanish()
        with pytest.raises(LabError, match="has ended"):
            console.run("sleep 10")


def test_a_shell_needs_a_terminal(guest: Guest) -> None:
    with Console(guest.directory, "vm") as console, pytest.raises(LabError, match="needs a terminal"):
        console.bridge()


def test_a_shell_joins_terminal_and_console(guest: Guest) -> None:
    ours, theirs = pty.openpty()
    code = "import sys, pathlib as p, yamori.lab as l\nwith l.Console(p.Path(sys.argv[1]), 'vm') as c: c.bridge()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(guest.directory)], stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    try:
        while b"# " not in shown:
            shown += os.read(ours, 4096)
        os.write(ours, b"echo $((6 * 7))\r")
        while b"42\r\n" not in shown:
            shown += os.read(ours, 4096)
        os.write(ours, b"\x1d")
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_a_directory_with_a_long_path(tmp_path: Path) -> None:
    far = Guest(tmp_path / ("d" * 120) / "vm")
    try:
        assert run(far, "echo far") == ("far\n", 0)
    finally:
        far.end()
