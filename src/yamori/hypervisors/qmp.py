"""Ask QEMU through QMP, in the little time between connect and disconnect; never needed, sometimes useful.

QMP serves one client at a time and a VM's manager usually holds the place: a connection without a greeting within a
second means just that. Everything here reads; the guest is not stopped. The protocol is ``docs/interop/qmp-spec.rst``
in QEMU's source tree.
"""

from __future__ import annotations

import json
import logging
import re
import socket
import struct
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, Self

from yamori.errors import TargetError

if TYPE_CHECKING:
    from qemu.qmp import QMPClient

GREETING_SECONDS = 1.0
ANSWER_SECONDS = 1.0
_PEEK = 65536
_MOST_PIECES = 64
_VIEW = re.compile(r"^FlatView #\d+$", re.MULTILINE)
_RAM = re.compile(r"^\s*([0-9a-f]{16})-([0-9a-f]{16}) \(prio -?\d+, ram\): (\S+)(?: @([0-9a-f]{16}))?", re.MULTILINE)
_HVA = re.compile(r"is (0x[0-9a-f]+)\s*$")


class Piece(NamedTuple):
    """A run of RAM as QEMU says: where it lies in the guest and in the QEMU process."""

    gpa: int
    size: int
    hva: int


class Answer(NamedTuple):
    """What QEMU said of the guest's memory.

    Attributes:
        ram_size: Bytes of the RAM that the VM was started with.
        plugged: GPA and size of memory that was added as a device.
        pieces: Every piece of memory that can be written, video memory not told apart from RAM.
    """

    ram_size: int
    plugged: tuple[tuple[int, int], ...]
    pieces: tuple[Piece, ...]


class Monitor:
    """A connection to a QMP socket.

    Args:
        path: The socket.

    Raises:
        TargetError: There is no such socket, nobody listens, or what listens does not speak QMP.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.pid: int | None = None
        self.greets = False
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._connect()
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        """Return the monitor itself."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Give the place back."""
        self._socket.close()

    def _connect(self) -> None:
        self._socket.settimeout(GREETING_SECONDS)
        try:
            self._socket.connect(self.path)
        except BlockingIOError:
            return  # its queue is full: others wait for the one place already
        except FileNotFoundError:
            raise TargetError("no such socket", where=self.path, hint="`yamori targets` lists what runs here") from None
        except PermissionError:
            raise TargetError(
                "no permission to connect", where=self.path, hint="run as root or as the VM's user"
            ) from None
        except ConnectionRefusedError:
            raise TargetError("nobody listens on this socket", where=self.path, hint="has the VM ended?") from None
        except OSError as error:
            raise TargetError(f"not a UNIX stream socket ({error.strerror or error})", where=self.path) from None
        peer = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        self.pid = struct.unpack("3i", peer)[0] or None
        self.greets = self._greeted()

    def _greeted(self) -> bool:
        """Look at the greeting without taking it, so that the client library still finds it."""
        until = time.monotonic() + GREETING_SECONDS
        seen = b""
        while b"\n" not in seen and len(seen) < _PEEK and (left := until - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                fresh = self._socket.recv(_PEEK, socket.MSG_PEEK)
            except TimeoutError:
                break
            except OSError:
                return False
            if len(fresh) == len(seen):
                if not fresh:
                    return False
                time.sleep(0.01)  # a part of a line is there, and peeking at it does not wait for the rest
            seen = fresh
        if not seen:
            return False
        if not _is_greeting(seen):
            human = b"monitor - type" in seen
            what = "this is QEMU's human monitor, not QMP" if human else "what listens there does not speak QMP"
            raise TargetError(what, where=self.path, hint="name the VM by its name or process id instead")
        return True

    def ask(self) -> Answer | None:
        """Ask how memory lies, and disconnect.

        Returns:
            ``None`` where the library ``qemu.qmp`` is not installed, or QEMU does not say.
        """
        try:
            from qemu.qmp import QMPError  # noqa: PLC0415 - an extra, and asyncio costs 0.1 s to import
        except ImportError:
            return None
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - only here

        # A thread of its own, because the caller may be inside an event loop: a notebook, a server.
        with ThreadPoolExecutor(1) as pool:
            try:
                return pool.submit(_converse, self._socket).result()
            except (QMPError, OSError, TimeoutError, ValueError, KeyError, TypeError) as error:
                logging.getLogger(__name__).debug("QMP at %s gave no answer: %r", self.path, error)
                return None


def _is_greeting(line: bytes) -> bool:
    try:
        greeting = json.loads(line.partition(b"\n")[0])
    except (ValueError, RecursionError):
        return False
    return isinstance(greeting, dict) and "QMP" in greeting


def _converse(connection: socket.socket) -> Answer:
    import asyncio  # noqa: PLC0415 - see Monitor.ask

    from qemu.qmp import QMPClient  # noqa: PLC0415 - see Monitor.ask

    async def bounded() -> Answer:
        client = QMPClient()
        client.logger.setLevel(logging.CRITICAL)
        async with asyncio.timeout(ANSWER_SECONDS):
            await client.connect(connection.dup())
            try:
                return await _questions(client)
            finally:
                await client.disconnect()

    return asyncio.run(bounded())


async def _questions(client: QMPClient) -> Answer:
    async def human(command: str) -> str:
        return str(await client.execute("human-monitor-command", {"command-line": command}))

    summary = await client.execute("query-memory-size-summary")
    devices = await client.execute("query-memory-devices")
    found = []
    for gpa, size in pieces(await human("info mtree -f")):
        if match := _HVA.search(await human(f"gpa2hva {gpa:#x}")):
            found.append(Piece(gpa, size, int(match[1], 16)))
    return Answer(int(summary["base-memory"]), tuple(_plugged(devices)), tuple(found))  # type: ignore[index]


def _plugged(devices: object) -> Iterator[tuple[int, int]]:
    """Yield where memory devices lie; ``virtio-mem`` calls its address by another name (qapi/machine.json)."""
    for device in devices if isinstance(devices, list) else []:
        data = device["data"]
        yield int(data.get("addr", data.get("memaddr", 0))), int(data["size"])


def pieces(tree: str) -> list[tuple[int, int]]:
    """Return (GPA, size) of each piece of RAM in the output of ``info mtree -f``.

    Devices cut holes into RAM on some boards (Raspberry Pi): ranges of one region at one distance are one piece.
    """
    view = next((part for part in _VIEW.split(tree) if 'AS "memory"' in part), "")
    runs: dict[tuple[str, int], tuple[int, int]] = {}
    for match in _RAM.finditer(view):
        first, last, offset = int(match[1], 16), int(match[2], 16), int(match[4] or "0", 16)
        key = match[3], first - offset
        runs[key] = min(first, runs.get(key, (first, 0))[0]), max(last + 1, runs.get(key, (0, 0))[1])
    largest = sorted(((start, end - start) for start, end in runs.values()), key=lambda run: -run[1])
    return sorted(largest[:_MOST_PIECES])
