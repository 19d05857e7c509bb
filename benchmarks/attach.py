"""First attach to an unknown guest, on every device, and the start of a process to its first row.

Every figure is the median of several fresh processes. The first attach uses no cache of what was learnt of a kernel;
the start of a process to the first row of a *known* kernel does.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.guests import device

IMPORT = "import time; t = time.perf_counter(); import yamori, yamori.guest; print(time.perf_counter() - t)"
ATTACH = """
import resource, sys, time
t = time.perf_counter()
import yamori
with yamori.open(sys.argv[1], cache=False) as guest:
    rows = guest.plist()
    print(time.perf_counter() - t, len(rows), rows.complete, rows.elapsed_s)
"""
FIRST = """
import sys
import yamori
with yamori.open(sys.argv[1]) as guest:
    print(guest.plist().rows[0].pid, flush=True)
    from yamori.probes.plist import tasks
    from yamori.probes.run import engine_of
    print(engine_of(guest.kernel, tasks))
"""
CASES: tuple[tuple[str, dict[str, Any], int], ...] = (
    ("armv7", {}, 0),
    ("arm64", {}, 0),
    ("arm64", {"ram": "private"}, 0),
    ("arm64", {"memory": "512M"}, 2000),
    ("x86-64", {}, 0),
)


class Peak:
    """Watches the anonymous memory of a process until it ends."""

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        self.kilobytes = 0

    def look(self) -> None:
        """Read ``RssAnon`` once; the process may have ended."""
        try:
            text = self._status.read_text()
        except (FileNotFoundError, ProcessLookupError):
            return
        for line in text.splitlines():
            if line.startswith("RssAnon:"):
                self.kilobytes = max(self.kilobytes, int(line.split()[1]))


def measure(program: str, *arguments: str) -> tuple[list[str], int]:
    """Run a program in a fresh interpreter; return the words it prints and its peak of anonymous memory in KB."""
    with subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True) as process:
        peak = Peak(process.pid)
        while process.poll() is None:
            peak.look()
            time.sleep(0.002)
        assert process.stdout
        assert process.returncode == 0, "the measured program failed"
        return process.stdout.read().split(), peak.kilobytes


def imports(runs: int) -> dict[str, float]:
    """Measure the import of the package and its API."""
    return summary([float(measure(IMPORT)[0][0]) for _ in range(runs)])


def case(kind: str, settings: dict[str, Any], crowd: int, runs: int) -> dict[str, Any]:
    """Measure the first attach to one device."""
    with device(kind, settings, crowd) as vm:
        found = [measure(ATTACH, vm.target) for _ in range(runs + 1)][1:]
        start = first_row(vm.target, runs)
    assert all(words[2] == "True" for words, _ in found)
    return {
        "device": " ".join([kind, *map(str, settings.values())]),
        "processes": int(found[-1][0][1]),
        "attach_to_plist": summary([float(words[0]) for words, _ in found]),
        "start_to_first_row": start,
        "plist_alone_s": statistics.median(float(words[3]) for words, _ in found),
        "peak_anonymous_mb": round(max(kilobytes for _, kilobytes in found) / 1024, 1),
    }


def first_row(target: str, runs: int) -> dict[str, float]:
    """Measure from the start of a process to the first row of a known kernel, on the clock on the wall."""
    found = []
    for _ in range(runs + 1):
        started = time.perf_counter()
        with subprocess.Popen([sys.executable, "-c", FIRST, target], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            line = process.stdout.readline()
            found.append(time.perf_counter() - started)
            engine = process.stdout.read()
        assert process.returncode == 0, "the measured program failed"
        assert line.strip() == "1", line
        assert engine.startswith("(True"), engine
    return summary(found[1:])


def summary(seconds: list[float]) -> dict[str, float]:
    """Return median and range."""
    return {"median_s": statistics.median(seconds), "low_s": min(seconds), "high_s": max(seconds)}
