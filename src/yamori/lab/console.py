"""Commands in a guest over its serial console: run one and take its output and exit status, or type by hand."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import shlex
import socket
import sys
import termios
import time
import tty
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self

from yamori.errors import LabError

SOCKET = "serial.sock"
LOG = "console.log"

COMMAND_LIMIT = 64 * 1024
"""Bytes that one command may have; Linux passes no argument above 128 KiB (MAX_ARG_STRLEN, execve(2))."""

OUTPUT_LIMIT = 64 << 20
"""Bytes that one command may print: the guest is not trusted to stop."""

_INTERRUPT = b"\x03"
_LEAVE = 0x1D  # Ctrl-]

# Typed at whatever shell waits there. It is echoed, so the quotes keep the echo from looking like the answer.
# The command itself follows when the terminal neither echoes, edits nor limits lines, in pieces that the guest asks
# for one by one: a terminal that overflows loses bytes (and an Arm PL011 then receives nothing ever again).
# `dmesg -n 1` keeps kernel messages off the console; the end is said twice in case one gets into a line all the same.
_LINE = """\
stty -echo -icanon min 1 -opost; dmesg -n 1 2>/dev/null; n={pieces}; \
sh -c -- "$(while [ $n -gt 0 ]; do echo ya''{nonce} >&2; head -c {size}; n=$((n-1)); done)" </dev/null 2>&1; \
r=$?; echo; echo ya''{nonce} $r.; echo ya''{nonce} $r.; stty sane
"""
_PIECE = 1000

_PROMPT = re.compile(rb"[#$](?: |\x1b\[[0-9;?]*[A-Za-z])*\Z")  # colours, and busybox asks where the cursor is
_QUIET = 0.1  # seconds of silence after which what looks like a prompt is one


class Result(NamedTuple):
    """What a command in the guest did.

    Attributes:
        output: Its standard output and error. Bytes that are not UTF-8 are kept as surrogate escapes.
        status: Its exit status.
    """

    output: str
    status: int


class Console:
    """The serial console of one VM, held for us alone while the ``with`` block runs.

    Args:
        directory: The VM's state directory, in which its console's socket lies.
        name: What to call the VM in errors.
        wait: Seconds to wait for somebody else who holds the console.

    Raises:
        LabError: The console is held by somebody else, or the VM has ended.
    """

    def __init__(self, directory: Path, name: str, wait: float = 60) -> None:
        self._name = name
        self._lock = _lock(directory / "console.lock", name, wait)
        self._left = os.fstat(self._lock.fileno()).st_size > 0  # somebody did not end what they began
        self._mark(begun=True)
        self._seen = bytearray()
        try:
            self._socket = connect(directory / SOCKET)
        except OSError as error:
            self._lock.close()
            raise LabError("its console cannot be reached", where=name, hint="has the VM ended?") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        self._lock.close()

    def run(self, command: str | Sequence[str], timeout: float = 60) -> Result:
        """Run a command in the guest's shell, without input.

        Args:
            command: A line or a script for the shell, or a program and its arguments.
            timeout: Seconds that it may take.

        Raises:
            LabError: It took too long, cannot be typed, or the VM ended meanwhile.
        """
        typed = _typeable(command, self._name)
        deadline = time.monotonic() + timeout
        self._mark(begun=True)
        try:
            word = self._type(typed, deadline)
            output, status = self._end(word, deadline, f"no end of the command within {timeout:g} s")
            self._settle(_QUIET, time.monotonic() + 1)
        except BaseException:
            self._left = True
            with contextlib.suppress(OSError):
                self._socket.sendall(_INTERRUPT)  # what was begun is not to go on without us
            raise
        self._mark(begun=False)
        return Result(output.decode("utf-8", "surrogateescape"), int(status))

    def _end(self, word: bytes, deadline: float, late: str) -> tuple[bytes, bytes]:
        found = self._until(re.compile(rb"\n" + word + rb" (\d{1,3})\.\n"), deadline)
        if found is None:
            raise LabError(late, where=self._name, hint="allow it more time")
        return found

    def _type(self, typed: bytes, deadline: float) -> bytes:
        """Give the shell a command to run; return the word that ends its output."""
        size = min(_PIECE, len(typed))
        pieces = [typed[at : at + size].ljust(size, b"\n") for at in range(0, len(typed), size)]
        patience, settle = 3.0, 0.03
        while time.monotonic() < deadline:
            nonce = os.urandom(8).hex()
            asked = re.compile(rb"(ya" + nonce.encode() + rb")\r?\n")
            if self._left:  # what a previous, interrupted command left behind ends here; its output is skipped
                self._seen.clear()
                self._send(_INTERRUPT)
                self._settle(settle, min(deadline, time.monotonic() + 1))
            self._send(_LINE.format(nonce=nonce, pieces=len(pieces), size=size).encode())
            for piece in pieces:
                if not self._until(asked, min(deadline, time.monotonic() + patience)):
                    break
                self._send(piece)
            else:
                self._left = False
                return b"ya" + nonce.encode()
            self._left = True
            patience, settle = patience * 2, settle * 4  # it may only be busy
        hint = f"look with `yamori lab shell {self._name}`"
        raise LabError("the shell on its console does not answer", where=self._name, hint=hint)

    def _settle(self, quiet: float, deadline: float) -> None:
        """Let the shell come back to its prompt: some throw away what is typed before."""
        while not _PROMPT.search(self._seen[-256:]) and time.monotonic() < deadline and (data := self.read(quiet)):
            self._seen += data

    def _mark(self, *, begun: bool) -> None:
        """Note where whoever is next sees it whether the shell may be left in the middle of something.

        Only then is it interrupted: busybox's leaves its own functions with ``longjmp`` when it is, and now and then a
        heap that it later says is corrupted.
        """
        self._lock.truncate(0)
        if begun:
            self._lock.write(b"begun")
        self._lock.flush()

    def _until(self, pattern: re.Pattern[bytes], deadline: float) -> tuple[bytes, bytes] | None:
        """Read until the pattern is there.

        Returns:
            What came before it, and its group; both are then forgotten. ``None`` when time is up.
        """
        searched = 0
        while True:
            match = pattern.search(self._seen, searched)
            if match:
                found = bytes(self._seen[: match.start()]), bytes(match[1])
                del self._seen[: match.end()]
                return found
            searched = max(0, len(self._seen) - 64)  # longer than any pattern here
            data = self.read(deadline - time.monotonic())
            if not data:
                return None
            self._seen += data
            if len(self._seen) > OUTPUT_LIMIT:
                raise LabError(f"the command printed more than {OUTPUT_LIMIT >> 20} MiB", where=self._name)

    def wait_for_prompt(self, timeout: float) -> None:
        """Return when the guest shows a prompt and waits. Nothing may be typed earlier: a booting PL011 chokes on it.

        Raises:
            LabError: It did not in time, or the VM has ended.
        """
        deadline = time.monotonic() + timeout
        tail = b""
        while time.monotonic() < deadline:
            data = self.read(_QUIET)
            if not data and _PROMPT.search(tail):
                return
            tail = (tail + data)[-256:]
        raise LabError(f"no prompt of a root shell within {timeout:.0f} s", where=self._name)

    def _send(self, data: bytes) -> None:
        """Type something.

        Raises:
            LabError: The VM has ended.
        """
        try:
            self._socket.sendall(data)
        except OSError:
            raise LabError("the VM has ended", where=self._name) from None

    def read(self, timeout: float) -> bytes:
        """Return what the guest printed, or nothing when there is nothing for ``timeout`` seconds.

        Raises:
            LabError: The VM has ended.
        """
        if not select.select([self._socket], [], [], max(0.0, timeout))[0]:
            return b""
        try:
            time.sleep(0.002)  # a serial line gives single bytes: let some gather
            data = self._socket.recv(1 << 16)
        except ConnectionError:
            data = b""
        if not data:
            raise LabError("the VM has ended", where=self._name)
        return data

    def bridge(self) -> None:
        """Join our terminal and the guest's console until Ctrl-] is typed or the VM ends.

        Raises:
            LabError: Our standard input or output is no terminal.
        """
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise LabError("a shell needs a terminal", where=self._name, hint="use `yamori lab exec` in scripts")
        keyboard, screen = sys.stdin.fileno(), sys.stdout.fileno()
        sys.stderr.write(f"console of {self._name}; Ctrl-] leaves\n")
        self._send(b"\r")  # to show a prompt
        with _raw(keyboard):
            while True:
                ready = select.select([keyboard, self._socket], [], [])[0]
                if self._socket in ready:
                    _write_all(screen, self.read(0))
                if keyboard in ready:
                    keys = os.read(keyboard, 4096)
                    if not keys or _LEAVE in keys:
                        return
                    self._send(keys)


def connect(path: Path) -> socket.socket:
    """Connect to a UNIX socket whose path may be longer than the 107 bytes that ``sockaddr_un`` holds (unix(7)).

    Raises:
        OSError: Nobody listens there.
    """
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        link.connect(f"/proc/self/fd/{directory}/{path.name}")
    except OSError:
        link.close()
        raise
    finally:
        os.close(directory)
    return link


def _typeable(command: str | Sequence[str], name: str) -> bytes:
    text = command if isinstance(command, str) else shlex.join(command)
    typed = text.encode("utf-8", "surrogateescape")
    if len(typed) > COMMAND_LIMIT:
        hint = f"at most {COMMAND_LIMIT} fit; split it"
        raise LabError(f"a command of {len(typed)} bytes is too long", where=name, hint=hint)
    if re.search(rb"[\x00-\x08\x0b-\x1f\x7f]", typed):
        hint = "write it with printf's \\ooo"
        raise LabError("a command cannot contain control characters but tab and newline", where=name, hint=hint)
    return typed or b":"


def _lock(path: Path, name: str, wait: float) -> BinaryIO:
    try:
        file = path.open("ab")
    except OSError as error:
        raise LabError("no such VM is running", where=name) from error
    deadline = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                file.close()
                hint = "another `lab exec` or `lab shell` holds it"
                raise LabError(f"its console was not free within {wait:g} s", where=name, hint=hint) from None
            time.sleep(0.05)
        except BaseException:
            file.close()
            raise
        else:
            return file


@contextlib.contextmanager
def _raw(terminal: int) -> Iterator[None]:
    before = termios.tcgetattr(terminal)
    tty.setraw(terminal)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSAFLUSH, before)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
