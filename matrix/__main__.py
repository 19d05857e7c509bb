"""``python -m matrix [PATTERN...]``: run the cells, print each as it ends, write ``docs/matrix.md``.

A run that was stopped goes on where it was: verdicts are kept in ``build/matrix`` until ``--fresh``, or until the code
changes. The exit status is 1 where a cell is wrong. With patterns (``arm64-*``) only those cells run, and the page is
written when all have a verdict.
"""

from __future__ import annotations

import argparse
import sys
import time
from fnmatch import fnmatch
from pathlib import Path

import msgspec

from matrix import report
from matrix.cells import FAST, Cell, cells
from matrix.judge import Verdict, judged, source

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "build" / "matrix"
PAGE = ROOT / "docs" / "matrix.md"


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m matrix", description=__doc__)
    parser.add_argument("patterns", nargs="*", metavar="PATTERN", help="names of cells, such as 'riscv64-*'; all")
    parser.add_argument("--fast", action="store_true", help=f"what CI runs: {', '.join(FAST)}")
    parser.add_argument("--fresh", action="store_true", help="forget the verdicts of earlier runs")
    parser.add_argument("--list", action="store_true", help="print the names of the cells and stop")
    options = parser.parse_args()
    every = list(cells())
    patterns = [*options.patterns, *(FAST if options.fast else ())] or ["*"]
    wanted = [cell for cell in every if any(fnmatch(cell.name, pattern) for pattern in patterns)]
    if options.list or not wanted:
        print("\n".join(cell.name for cell in every))
        return 0 if wanted else 2
    if options.fresh:
        for cell in wanted:
            _kept(cell).unlink(missing_ok=True)
    print(f"{len(wanted)} of {len(every)} cells", flush=True)
    verdicts = [_verdict(cell, f"{number}/{len(wanted)}") for number, cell in enumerate(wanted, 1)]
    print(report.summary(verdicts))
    if all(_kept(cell).exists() and _load(cell).source == source() for cell in every):
        report.write(PAGE, [_load(cell) for cell in every], every)
        print(f"written: {PAGE.relative_to(ROOT)}")
    return int(any(verdict.wrong for verdict in verdicts))


def _verdict(cell: Cell, number: str) -> Verdict:
    verdict = _load(cell) if _kept(cell).exists() else None
    seconds = 0.0
    if verdict is None or verdict.source != source():
        started = time.monotonic()
        verdict = judged(cell)
        seconds = time.monotonic() - started
        KEPT.mkdir(parents=True, exist_ok=True)
        partial = _kept(cell).with_suffix(".partial")
        partial.write_bytes(msgspec.json.encode(verdict))
        partial.replace(_kept(cell))
    said = f"skipped: {verdict.skipped}" if verdict.skipped else "; ".join(verdict.wrong[:3]) or "right"
    times = f", first {verdict.first_s:.2f} s, known {verdict.known_s:.2f} s" if verdict.first_s else ""
    print(f"{number:>6} {cell.name}: {said} ({verdict.kernel}{times}; {seconds:.0f} s)", flush=True)
    return verdict


def _kept(cell: Cell) -> Path:
    return KEPT / f"{cell.name}.json"


def _load(cell: Cell) -> Verdict:
    return msgspec.json.decode(_kept(cell).read_bytes(), type=Verdict)


if __name__ == "__main__":
    sys.exit(main())
