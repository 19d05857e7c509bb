"""A console that behaves as Xvisor's: it echoes, has a prompt, and gives a guest's memory. All of it is our own."""

from __future__ import annotations

import os
import pty
import socket
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from yamori.address import GPA
from yamori.errors import MemoryFault
from yamori.memory.physical import PhysicalMemory

PROMPT = b"XVisor# "
RULE = "-" * 79
PIECE = 2 << 20


class FakeXvisor:
    """The terminal, a byte at a time.

    Args:
        memory: Of the guest ``guest0``.
        ids: Lines of an exported command, if the hypervisor has them.
    """

    names: tuple[str, ...] = ("guest0",)

    def __init__(self, memory: PhysicalMemory, ids: Callable[[str], list[str]] | None = None) -> None:
        self.memory, self.ids = memory, ids
        self.line = bytearray()
        self.ran: list[str] = []

    def feed(self, byte: int) -> bytes:
        if byte == 0x0D:
            line, self.line = self.line.decode(), bytearray()
            return b"\r\n" + self.answer(line) + PROMPT
        if byte == 0x7F:
            erased = b"\b \b" if self.line else b""
            del self.line[-1:]
            return erased
        self.line.append(byte)
        return bytes([byte])

    def answer(self, line: str) -> bytes:
        lines: list[str] = []
        for command in filter(None, line.split(";")):
            self.ran.append(command)
            more, code = self.run(command.split())
            lines += more
            if code:
                lines.append(f"Error: command {command.split()[0]} failed (code {code})")
            if code or more[:1] == [f"Error: unknown command {command.split()[0]}"]:
                break
        return "".join(f"{line}\r\n" for line in lines).encode("latin-1")

    def run(self, words: list[str]) -> tuple[list[str], int]:
        match words:
            case ["echo", *text]:
                return ["".join(f"{word} " for word in text)], 0
            case ["guest", "list"]:
                rows = [
                    f" {n:<6} {name:<17} {'little':<13} {'/guests/' + name:<39}" for n, name in enumerate(self.names)
                ]
                return [RULE, f" {'ID ':<6} {'Name':<17} {'Endianness':<13} {'Device Path':<39}", RULE, *rows, RULE], 0
            case ["guest", "region_list", "guest0"]:
                return [*self.regions()], 0
            case ["guest", "dumpmem", "guest0", gpa, size]:
                return self.dumpmem(int(gpa, 0), int(size))
            case ["ids", "help"] if self.ids:
                return ["Usage:", "   ids help", "   ids plist   [--raw] [<guest_name>]"], 0
            case ["ids", command, "--raw", "guest0"] if self.ids:
                lines = self.ids(command)
                return lines, -1 if lines[-1].startswith("E ") else 0
        return [f"Error: unknown command {words[0]}"], 0

    def regions(self) -> Iterator[str]:
        yield from self.region("uart0", 0x0900_0000, 4096, 0x40A)
        for number, (gpa, size) in enumerate(self.memory.regions):
            yield from self.region(f"mem{number}", gpa, size, 0x1169)

    def region(self, name: str, gpa: int, size: int, flags: int) -> Iterator[str]:
        yield f"Region node name             : {name}"
        yield f"Region guest physical address: 0x{gpa:016X}"
        yield f"Region alias physical address: 0x{gpa:016X}"
        yield f"Region physical size         : {size >> 20} MB"
        yield f"Region flags                 : 0x{flags:08x}"
        yield "Region mappings              :"
        for at in range(0, size if flags & 0x100 else 0, PIECE):
            piece = min(PIECE, size - at)
            text = f"{piece >> 20} MB" if piece % (1 << 20) == 0 else f"{piece >> 10} KB"
            yield f"\t0x{gpa + at:016X} => 0x{0x8000_0000 + at:016X} ({text})"
        yield ""

    def dumpmem(self, gpa: int, size: int) -> tuple[list[str], int]:
        size = (size + 15) & ~15
        lines = [f"guest0 physical memory 0x{gpa:016X} - 0x{gpa + size:016X}:"]
        for at in range(gpa, gpa + size, 16):
            try:
                data = self.memory.read(GPA(at), 16)
            except MemoryFault:
                return lines, -1
            words = (f"{int.from_bytes(data[n : n + 4], 'little'):08x}" for n in range(0, 16, 4))
            lines.append(f"0x{at:016X}: {' '.join(words)}")
        return lines, 0


def serve(fake: FakeXvisor, fd: int) -> None:
    """Answer until the other end goes."""
    try:
        while data := os.read(fd, 4096):
            for byte in data:
                out = fake.feed(byte)
                while out:
                    out = out[os.write(fd, out) :]
    except OSError:
        return  # the other end has gone: so has the console's user


@contextmanager
def on_socket(fake: FakeXvisor, path: Path) -> Iterator[str]:
    """Put it behind a UNIX socket; yield the target."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        clients: list[socket.socket] = []

        def accept() -> None:
            try:
                while True:
                    with server.accept()[0] as client:
                        clients[:] = [client]
                        serve(fake, client.fileno())
            except OSError:
                return  # shut down below

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield f"xvisor:{path}?guest=guest0"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            for client in clients:
                with suppress(OSError):  # it has gone already
                    client.shutdown(socket.SHUT_RDWR)
            thread.join(5)


@contextmanager
def on_terminal(fake: FakeXvisor) -> Iterator[str]:
    """Put it behind a terminal, as a serial device is; yield the target."""
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    thread = threading.Thread(target=serve, args=(fake, ours), daemon=True)
    thread.start()
    try:
        yield f"xvisor:{os.ttyname(theirs)}?baud=115200&guest=guest0"
    finally:
        os.close(theirs)
        thread.join(0.2)  # whoever has the terminal open still keeps it
