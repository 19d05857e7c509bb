"""The console of Xvisor: type a command, wait for its answer, and know when neither can be trusted.

The management terminal (``daemons/mterm.c`` of v0.3.2) echoes what is typed, runs the line, and prints its prompt.
Three things go wrong with it. Its receiver can lose a line that arrives all at once, so each character waits for its
echo. What others print comes in between: messages of the hypervisor, or of a guest. So each command is followed by
``echo`` and a number that nobody can know before; what answers is either exactly what such a command prints, or it is
asked for again. And the terminal may be somebody else's: a guest's console may be bound to it, or half a line be typed.
"""

from __future__ import annotations

import os
import secrets
import select
import socket
import termios
import time
import tty
import weakref
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from yamori.errors import TargetError

T = TypeVar("T")

PROMPT = b"XVisor# "
LONGEST_LINE = 256
"""Characters that the terminal takes (``core/vmm_stdio.c``, ``daemons/mterm.c``)."""

ECHO_S = 1.0
"""Seconds for which the echo of a character is waited for."""

SILENCE_S = 0.1
"""Seconds of silence by which an answer has ended that did not end as it should."""

ANSWER_S = 30.0
"""Seconds for which an answer is waited for while nothing comes: the exported commands give up after 20."""

ATTEMPTS = 4
MOST_BYTES = 8 << 20
"""Of one answer: the whole system-call table, or all regions of a guest, are some ten KiB."""

DELETE = b"\x7f"


class Line:
    """Bytes to and from a terminal: a UNIX socket, a TCP connection, or a serial device.

    Args:
        fd: Open for both; its own from now on.
        where: How messages name it.
    """

    def __init__(self, fd: int, where: str) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self.where = where
        self.close = weakref.finalize(self, os.close, fd)

    def send(self, data: bytes) -> None:
        """Send bytes.

        Raises:
            TargetError: The other end is gone, or takes nothing.
        """
        end = time.monotonic() + ECHO_S
        self._check()
        try:
            while data:
                if not select.select([], [self._fd], [], max(0.0, end - time.monotonic()))[1]:
                    raise TargetError("the console takes nothing", where=self.where, hint="is it connected?")
                data = data[os.write(self._fd, data) :]
        except OSError as error:
            raise self._gone(error) from None

    def receive(self, timeout: float) -> bytes:
        """Return what came, at least one byte; nothing if the time is up.

        Raises:
            TargetError: The other end is gone.
        """
        self._check()
        try:
            if not select.select([self._fd], [], [], max(0.0, timeout))[0]:
                return b""
            data = os.read(self._fd, 1 << 16)
        except OSError as error:
            raise self._gone(error) from None
        if not data:
            raise TargetError("the console was closed", where=self.where, hint="does the hypervisor still run?")
        return data

    def _check(self) -> None:
        if not self.close.alive:  # its number may be another file's by now
            raise TargetError("the console was let go of", where=self.where, hint="attach again")

    def _gone(self, error: OSError) -> TargetError:
        return TargetError(f"the console is gone: {error.strerror}", where=self.where)


def unix_line(path: str) -> Line:
    """Connect to a console that is a UNIX socket.

    Raises:
        TargetError: It cannot be had.
    """
    wire = socket.socket(socket.AF_UNIX)
    return _connected(wire, path, path)


def tcp_line(host: str, port: int) -> Line:
    """Connect to a console by TCP: that of a terminal server, or of QEMU.

    Raises:
        TargetError: It cannot be had.
    """
    where = f"{host}:{port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise TargetError(f"the console cannot be reached: {error.strerror}", where=where) from None
    return _connected(socket.socket(family, kind, protocol), address, where)


def _connected(wire: socket.socket, address: object, where: str) -> Line:
    wire.settimeout(5.0)
    try:
        wire.connect(address)  # type: ignore[arg-type]  # as its family has it
    except OSError as error:
        wire.close()
        why = error.strerror or "nobody answers"
        raise TargetError(f"the console cannot be reached: {why}", where=where) from None
    return Line(wire.detach(), where)


def serial_line(path: str, baud: int) -> Line:
    """Open a serial device, eight bits without parity.

    Args:
        path: Such as ``/dev/ttyUSB0``.
        baud: Bits a second.

    Raises:
        TargetError: It cannot be had, or has no such speed.
    """
    speed = getattr(termios, f"B{baud}", None)
    if not isinstance(speed, int):
        raise TargetError(f"there is no speed of {baud} baud", where=path, hint="such as baud=115200")
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise TargetError(f"the console cannot be opened: {error.strerror}", where=path) from None
    try:
        tty.setraw(fd)
        mode = termios.tcgetattr(fd)
        mode[2] = mode[2] & ~(termios.CSTOPB | termios.PARENB | termios.HUPCL) | termios.CLOCAL | termios.CREAD
        mode[4] = mode[5] = speed
        termios.tcsetattr(fd, termios.TCSANOW, mode)
    except (OSError, termios.error):
        os.close(fd)
        raise TargetError("this is no serial device, or it has no such speed", where=path) from None
    return Line(fd, path)


class Answer(NamedTuple):
    """What a command printed.

    Attributes:
        lines: Its lines, without their ends; whatever bytes they held.
        ok: Whether the hypervisor carried it out; if not, the last line says so.
    """

    lines: list[str]
    ok: bool


class Garbled(Exception):
    """What came is not what such a command prints: something else writes there, or bytes were lost."""


class Console:
    """The prompt of a hypervisor.

    Args:
        line: What leads to it.

    Raises:
        TargetError: Nothing answers, or something else than the prompt.

    Attributes:
        commands: Commands that were answered.
        received: Bytes that came.
        retries: How often a command had to be typed again.
    """

    def __init__(self, line: Line) -> None:
        self._line = line
        self.commands = self.received = self.retries = 0
        self._begin()

    @property
    def where(self) -> str:
        """How messages name it."""
        return self._line.where

    def close(self) -> None:
        """Let go of the line."""
        self._line.close()

    def ask(self, command: str, read: Callable[[Answer], T]) -> T:
        """Type a command, and read its answer; again where that is garbled.

        Args:
            command: A line, without its end, that changes nothing in the hypervisor.
            read: Makes something of the answer, or raises ``Garbled`` where it is not what such a command prints.

        Raises:
            TargetError: The console is dead, or every answer is garbled.
        """
        for attempt in range(ATTEMPTS):
            try:
                found = read(self._once(command))
            except Garbled as garbled:
                last = str(garbled)
                self.retries += 1
                time.sleep(SILENCE_S * attempt)
                self._begin()
                continue
            self.commands += 1
            return found
        raise TargetError(
            f"something else writes on the console, or bytes are lost: {last}",
            where=self.where,
            hint="let nobody else use it, a guest's console neither",
        )

    def _once(self, command: str) -> Answer:
        mark = f"y{secrets.token_hex(4)}"
        line = f"{command};echo {mark}"
        if len(line) >= LONGEST_LINE or not line.isprintable() or not line.isascii():
            raise TargetError("this cannot be typed", where=self.where)
        self._type(line)
        self._line.send(b"\r")
        return self._answer(mark)

    def _receive(self, timeout: float) -> bytes:
        data = self._line.receive(timeout)
        self.received += len(data)
        return data

    def _type(self, line: str) -> None:
        """Type a line, a character after the other's echo."""
        for character in line.encode():
            self._line.send(bytes([character]))
            echo = self._receive(ECHO_S)
            if not echo:
                raise Garbled("a character was not echoed")
            if echo != bytes([character]):
                raise Garbled("what was echoed is not what was typed")

    def _answer(self, mark: str) -> Answer:
        """Read up to the prompt that follows the mark, or an error of the hypervisor."""
        data = bytearray()
        ending = f"{mark} \r\n".encode() + PROMPT
        while True:
            came = self._receive(ANSWER_S if not data.endswith(PROMPT) else SILENCE_S)
            data += came
            if data.endswith(ending):
                return Answer(_lines(bytes(data[: -len(ending)])), ok=True)
            if not came and data.endswith(b"\n" + PROMPT):
                lines = _lines(bytes(data[: -len(PROMPT)]))
                if lines and lines[-1].startswith("Error: "):  # core/vmm_cmdmgr.c: what follows is not carried out
                    return Answer(lines, ok=False)
                raise Garbled("the prompt came before its time")
            if not came:
                raise Garbled("the answer does not end") if data else self._dead()
            if len(data) > MOST_BYTES:
                raise TargetError("the console does not stop to write", where=self.where)

    def _dead(self) -> TargetError:
        return TargetError("the console is dead: nothing answers", where=self.where, hint="does the hypervisor run?")

    def _begin(self) -> None:
        """Come to an empty line: what somebody began to type is deleted, never carried out.

        Raises:
            TargetError: There is none.
        """
        while self._receive(SILENCE_S):
            pass  # of whoever was there before, or a late answer
        for _ in range(LONGEST_LINE):
            self._line.send(DELETE)
            if not self._receive(SILENCE_S / 2):
                break
        self._line.send(b"\r")
        data = b""
        end = time.monotonic() + 2 * ECHO_S
        while time.monotonic() < end:
            came = self._receive(SILENCE_S)
            data = (data + came)[-LONGEST_LINE:]
            if not came and data.endswith(PROMPT):
                return
        if not data:
            raise self._dead()
        raise TargetError(
            "what answers is not the prompt of Xvisor",
            where=self.where,
            hint="is a guest's console bound to it (leave it with ESC x q), or does it ask for a login?",
        )


def _lines(data: bytes) -> list[str]:
    """Return the lines of an answer: the first end of line is that of what was typed."""
    text = data.decode("latin-1").replace("\r\n", "\n")
    if not text.startswith("\n"):
        raise Garbled("something came before the answer")
    return text[1:].removesuffix("\n").split("\n") if len(text) > 1 else []
