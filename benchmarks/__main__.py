"""First attach to an unknown guest, on every device: time to the answer of `plist`, and anonymous memory.

Every figure is the median of several fresh processes, with their range; the machine is noisy, so quote ratios between
figures of one run. Nothing is cached by Yamori between runs. Run as ``python -m benchmarks [--json FILE]``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from yamori import lab

RUNS = 7
IMPORT = "import time; t = time.perf_counter(); import yamori, yamori.guest; print(time.perf_counter() - t)"
ATTACH = """
import resource, sys, time
t = time.perf_counter()
import yamori
with yamori.open(sys.argv[1]) as guest:
    rows = guest.plist()
    print(time.perf_counter() - t, len(rows), rows.complete, rows.elapsed_s)
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


@contextmanager
def device(kind: str, settings: dict[str, Any], crowd: int) -> Iterator[str]:
    """Boot a device with a crowd of processes."""
    with lab.machine(kind, **settings) as vm:
        if crowd:
            vm.run(["spawn", str(crowd)], timeout=300)
        time.sleep(1)
        yield vm.target


def case(kind: str, settings: dict[str, Any], crowd: int) -> dict[str, Any]:
    """Measure one device."""
    with device(kind, settings, crowd) as target:
        runs = [measure(ATTACH, target) for _ in range(RUNS + 1)][1:]
    seconds = [float(words[0]) for words, _ in runs]
    probe = [float(words[3]) for words, _ in runs]
    assert all(words[2] == "True" for words, _ in runs)
    return {
        "device": " ".join([kind, *map(str, settings.values())]),
        "processes": int(runs[-1][0][1]),
        "attach_to_plist_s": statistics.median(seconds),
        "range_s": [min(seconds), max(seconds)],
        "plist_alone_s": statistics.median(probe),
        "peak_anonymous_mb": round(max(kilobytes for _, kilobytes in runs) / 1024, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    options = parser.parse_args()
    imports = [float(measure(IMPORT)[0][0]) for _ in range(RUNS)]
    print(f"import of the package and its API: {statistics.median(imports):.3f} s (median of {RUNS})")
    print(
        f"{'device':<18}{'processes':>10}{'attach to plist':>17}{'range':>16}{'plist alone':>13}{'peak anonymous':>16}"
    )
    rows = []
    for kind, settings, crowd in CASES:
        row = case(kind, settings, crowd)
        rows.append(row)
        low, high = row["range_s"]
        print(
            f"{row['device']:<18}{row['processes']:>10}{row['attach_to_plist_s']:>15.2f} s{low:>8.2f}-{high:.2f} s"
            f"{row['plist_alone_s'] * 1000:>10.1f} ms{row['peak_anonymous_mb']:>13.1f} MB"
        )
    if options.json:
        options.json.write_text(json.dumps({"import_s": statistics.median(imports), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
