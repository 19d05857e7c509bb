"""Dumps of real guests, by QEMU and by the writers of these tests: they show what the guest itself shows."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.guests.monitor import Monitor
from tests.memory.writers import Kdump, avml, flattened, lime, zstd

import yamori
from yamori import lab
from yamori.address import GPA
from yamori.records import Process

pytestmark = [
    pytest.mark.guest,
    pytest.mark.skipif(not shutil.which("qemu-system-aarch64"), reason="needs QEMU"),
]


class Stopped(NamedTuple):
    """A guest that was stopped: its processes, its RAM, and QEMU's dumps of it by format."""

    rows: list[Process]
    ram: list[tuple[int, bytes]]
    dumps: dict[str, Path]


@pytest.fixture(scope="module", params=["armv7", "arm64", "x86-64"])
def stopped(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stopped]:
    work = tmp_path_factory.mktemp("dumps")
    with lab.machine(request.param) as vm, yamori.open(vm.target) as guest:
        assert vm.run(["spawn", "20"]).status == 0
        with Monitor(vm.directory / "qmp.sock") as monitor:
            monitor.execute("stop")
            rows = list(guest.plist().rows)
            memory = guest.kernel.memory
            ram = [(region.gpa, memory.read(GPA(region.gpa), region.size)) for region in memory.regions]
            offered = monitor.execute("query-dump-guest-memory-capability")["formats"]
            dumps = {name: work / name for name in offered if name != "win-dmp"}
            for name, path in dumps.items():
                monitor.execute("dump-guest-memory", paging=False, protocol=f"file:{path}", format=name)
    yield Stopped(rows, ram, dumps)
    shutil.rmtree(work)


def shown(path: Path) -> list[Process]:
    with yamori.open(f"file:{path}") as guest:
        result = guest.plist()
        assert result.complete
        return list(result.rows)


def test_what_qemu_writes(stopped: Stopped) -> None:
    assert {"elf", "kdump-zlib"} <= set(stopped.dumps)
    assert len(stopped.rows) > 20
    for path in stopped.dumps.values():
        assert shown(path) == stopped.rows


def pages(ram: list[tuple[int, bytes]]) -> dict[int, bytes | None]:
    return {(gpa + at) >> 12: data[at : at + 4096] for gpa, data in ram for at in range(0, len(data), 4096)}


def without_zeros(ram: list[tuple[int, bytes]]) -> dict[int, bytes | None]:
    return {number: page if page and page.strip(b"\0") else None for number, page in pages(ram).items()}


def in_pieces(ram: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """As AVML splits RAM, and leaves out what is all zeros."""
    step = 16 << 20
    parts = [(gpa + at, data[at : at + step]) for gpa, data in ram for at in range(0, len(data), step)]
    return [(gpa, data) for gpa, data in parts if data.strip(b"\0")]


WRITERS: dict[str, Callable[[list[tuple[int, bytes]]], bytes]] = {
    "lime": lime,
    "avml 1": lambda ram: lime(in_pieces(ram)),
    "avml 2": lambda ram: avml(in_pieces(ram)),
    "lime, gzip": lambda ram: gzip.compress(lime(ram), 1),
    "lime, zstd": lambda ram: bytes(zstd().compress(lime(ram), 1)),
    "raw": lambda ram: ram[0][1],
    "raw, zstd": lambda ram: bytes(zstd().compress(ram[0][1], 1)),
    "kdump, raw": lambda ram: Kdump(pages(ram), method="").written(),
    "kdump, snappy": lambda ram: Kdump(pages(ram), method="snappy").written(),
    "kdump, zstd": lambda ram: Kdump(pages(ram), method="zstd").written(),
    "kdump, zeros excluded": lambda ram: Kdump(without_zeros(ram), method="snappy", level=1).written(),
    "kdump, flattened": lambda ram: flattened([(0, Kdump(pages(ram), method="snappy").written())]),
}


@pytest.mark.parametrize("name", WRITERS)
def test_what_others_write(stopped: Stopped, tmp_path: Path, name: str) -> None:
    path = tmp_path / "image"
    path.write_bytes(WRITERS[name](stopped.ram))
    try:
        assert shown(path) == stopped.rows
    finally:
        path.unlink()
