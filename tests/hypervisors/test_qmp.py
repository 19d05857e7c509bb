from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yamori.errors import TargetError
from yamori.hypervisors import qemu
from yamori.hypervisors.qmp import Monitor, pieces


@contextmanager
def listening(path: Path, greeting: bytes, *, reply: bytes = b"", close: bool = False) -> Iterator[None]:
    """A server that greets each client with some bytes, and answers its first word alone."""
    clients = []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        server.settimeout(0.02)
        done = threading.Event()

        def serve() -> None:
            while not done.is_set():
                try:
                    client = server.accept()[0]
                except TimeoutError:
                    continue
                client.sendall(greeting)
                if reply:
                    client.recv(4096)
                    client.sendall(reply)
                if close:
                    client.close()
                clients.append(client)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            for client in clients:
                client.close()


@pytest.mark.parametrize("greeting", [b"hello\n", b'{"QMP": \n', b"[1]\n", b"\xff\xfe\n", b"half a line", b"[" * 70000])
@pytest.mark.parametrize("close", [False, True])
def test_garbage_is_not_qmp(tmp_path: Path, greeting: bytes, *, close: bool) -> None:
    start = time.monotonic()
    with listening(tmp_path / "s", greeting, close=close), pytest.raises(TargetError, match="does not speak QMP"):
        Monitor(str(tmp_path / "s"))
    assert time.monotonic() - start < 10


def test_silence_is_no_error_but_bounded(tmp_path: Path) -> None:
    start = time.monotonic()
    with listening(tmp_path / "s", b""), Monitor(str(tmp_path / "s")) as monitor:
        assert not monitor.greets
        assert monitor.pid == os.getpid()
    assert 0.9 < time.monotonic() - start < 10


GREETING = (
    b'{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}, "package": ""}, "capabilities": []}}\r\n'
)


@pytest.mark.parametrize("reply", [b"", b'{"return": {}, "id": "__qmp#00000"}\r\n', b'{"return": {}}\r\n', b"no\r\n"])
def test_a_greeting_and_then_silence_or_nonsense(tmp_path: Path, reply: bytes) -> None:
    start = time.monotonic()
    with listening(tmp_path / "s", GREETING, reply=reply), Monitor(str(tmp_path / "s")) as monitor:
        assert monitor.greets
        assert monitor.ask() is None
    assert time.monotonic() - start < 10


def test_a_full_queue_is_not_waited_for(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as first:
        server.bind(str(tmp_path / "s"))
        server.listen(0)
        first.connect(str(tmp_path / "s"))
        start = time.monotonic()
        with Monitor(str(tmp_path / "s")) as monitor:
            assert not monitor.greets
            assert monitor.pid is None
        assert time.monotonic() - start < 10


def test_no_socket_and_no_listener(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="no such socket"):
        qemu.attach(str(tmp_path / "none"))
    (tmp_path / "file").write_text("")
    with pytest.raises(TargetError, match="nobody listens"):
        qemu.attach(str(tmp_path / "file"))
    with pytest.raises(TargetError, match="too long"):
        qemu.attach("/" + "x" * 200)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(tmp_path / "datagram"))
        with pytest.raises(TargetError, match="not a UNIX stream socket"):
            qemu.attach(str(tmp_path / "datagram"))


def test_a_listener_that_is_not_qemu(tmp_path: Path) -> None:
    with listening(tmp_path / "s", b""), pytest.raises(TargetError, match=f"process {os.getpid()}, not a QEMU VM"):
        qemu.attach(str(tmp_path / "s"))


def test_processes_that_are_not_qemu() -> None:
    with pytest.raises(TargetError, match="not a QEMU system emulator"):
        qemu.attach(str(os.getpid()))
    with pytest.raises(TargetError, match="no such process"):
        qemu.attach("999999999")
    with pytest.raises(TargetError, match="no such process"):
        qemu.attach("9" * 5000)
    with pytest.raises(TargetError, match="no QEMU VM has this name"):
        qemu.attach("a name that nobody has")


TREE = """FlatView #0
 AS "I/O", root: io
 Root memory region: io
  0000000000000000-0000000000000007 (prio 0, ram): no

FlatView #1
 AS "memory", root: system
 AS "cpu-memory-0", root: system
 Root memory region: system
  0000000000000000-00000000000bffff (prio 0, ram): pc.ram KVM
  00000000000c0000-00000000000fffff (prio 0, rom): pc.ram @00000000000c0000 KVM
  0000000000100000-000000007fffffff (prio 0, ram): pc.ram @0000000000100000 KVM
  00000000fd000000-00000000fdffffff (prio 1, ram): vga.vram
  00000000fec00000-00000000fec00fff (prio 0, i/o): ioapic
  0000000100000000-000000017fffffff (prio 0, ram): pc.ram @0000000080000000 KVM
"""


def test_pieces_of_the_memory_tree() -> None:
    assert pieces(TREE) == [(0, 0x8000_0000), (0xFD00_0000, 0x100_0000), (0x1_0000_0000, 0x8000_0000)]
    assert pieces("") == []
    assert pieces("unknown command: 'info mtree'") == []


@given(st.lists(st.sampled_from([*TREE.splitlines(keepends=True), "FlatView #2\n", "-", "0" * 16]), max_size=12))
def test_any_tree_is_survived(lines: list[str]) -> None:
    assert all(size >= 0 for _, size in pieces("".join(lines)))
