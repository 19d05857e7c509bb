"""All measurements in one run: ``python -m benchmarks [--quick] [--out DIRECTORY]``, or ``make bench``.

One probe on one live guest by every way to read it, warm and with cold caches, on arm64 and armv7; how that grows; from
three places; first attach, and the start of a process; the size of what is exported. Printed as tables with the goals
beside them, written as JSON, as a plot and into ``benchmarks.md`` there. A part that fails is reported, the rest goes
on, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import datetime as dt
import gc
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import yamori
from benchmarks import attach, by_drgn, comparison, plot, report, sizes
from benchmarks.guests import device, grow
from yamori import lab

PROCESSES = 1000
STAGES = (100, PROCESSES, 10_000)
FEWEST = 10
"""Fewer than a kernel has threads of its own, so this stage is a copy whose list is cut short."""
MEMORY = {PROCESSES: "512M", 10_000: "3G"}


class Run:
    """One run of everything.

    Args:
        folder: For copies of RAM.
        quick: Few rounds, and neither large guests nor every device.

    Attributes:
        figures: What was found so far.
    """

    def __init__(self, folder: Path, *, quick: bool) -> None:
        self.folder = folder
        self.quick = quick
        self.rounds = 3 if quick else 15
        self.figures: dict[str, Any] = {
            "taken": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            "quick": quick,
            "machine": report.machine(),
            "guests": {},
            "growth": [],
            "attach": [],
            "sizes": [],
            "failures": [],
        }

    def attempt(self, part: str, work: Callable[[], None]) -> None:
        """Do a part; where it fails say so, and go on."""
        started = time.perf_counter()
        try:
            work()
        except Exception as error:  # noqa: BLE001  whatever it is, the other parts are worth having
            traceback.print_exc(limit=-3)
            self.figures["failures"].append({"part": part, "why": f"{type(error).__name__}: {error}"})
        gc.collect()  # drgn lies in cycles, and keeps the only connection to QMP as long
        print(f"{part}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)

    def everything(self) -> None:
        """Measure all parts."""
        self.attempt("arm64", self._arm64)
        self.attempt("armv7", self._armv7)
        self.attempt("import", lambda: self.figures.update(imports=attach.imports(3 if self.quick else 7)))
        for kind, settings, crowd in attach.CASES[: 2 if self.quick else None]:
            self.attempt(f"attach {kind} {settings}", partial(self._attach, kind, settings, crowd))
        for kind in filter(sizes.installed, sizes.COMPILERS):
            self.attempt(f"sizes {kind}", partial(self._sizes, kind))

    def _arm64(self) -> None:
        stages = STAGES[: 2 if self.quick else None]
        with device("arm64", {"memory": MEMORY[stages[-1]]}, 0) as vm:
            if not self.quick:
                self.attempt(f"growth {FEWEST}", lambda: self._grown(vm, cut=FEWEST))
                self.attempt("growth, as booted", lambda: self._grown(vm))
            for count in stages:
                fill(vm, count)
                self.attempt(f"growth {count}", lambda: self._grown(vm))
                if count == PROCESSES:
                    self._at_rest("arm64", vm)
                    self.attempt("places", lambda: self._places(vm))
                    self.attempt("start", lambda: self._start(vm))

    def _armv7(self) -> None:
        with device("armv7", {"memory": MEMORY[PROCESSES]}, 0) as vm:
            fill(vm, PROCESSES)
            self._at_rest("armv7", vm)

    def _at_rest(self, kind: str, vm: lab.Machine) -> None:
        def work() -> None:
            self.figures["guests"][kind] = comparison.compare(vm, self.folder, self.rounds)

        self.attempt(f"comparison on {kind}", work)

    def _grown(self, vm: lab.Machine, cut: int = 0) -> None:
        rounds = 3 if self.quick else 5
        self.figures["growth"].append(comparison.grown(vm, self.folder, rounds, cut))

    def _places(self, vm: lab.Machine) -> None:
        self.figures["places"] = comparison.places(vm, self.folder, 3 if self.quick else 7)

    def _start(self, vm: lab.Machine) -> None:
        found = attach.first_row(vm.target, 3 if self.quick else 7)
        self.figures["start"] = {"device": f"arm64, {PROCESSES} processes", **found}

    def _attach(self, kind: str, settings: dict[str, Any], crowd: int) -> None:
        self.figures["attach"].append(attach.case(kind, settings, crowd, 3 if self.quick else 7))

    def _sizes(self, kind: str) -> None:
        self.figures["sizes"].append(sizes.sizes(kind))


def fill(vm: lab.Machine, count: int) -> None:
    """Start as many processes as are missing."""
    with yamori.open(vm.target) as guest:
        there = len(guest.plist())
    grow(vm, max(0, count - there))
    time.sleep(1)


def write(figures: dict[str, Any], out: Path) -> None:
    """Write JSON, the plot, and the tables into the document that is there."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "benchmarks.json").write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if plot.installed() and figures["guests"]:
        plot.draw(figures, out / "benchmarks.svg")
    if (out / "benchmarks.md").is_file():
        report.put_into(out / "benchmarks.md", figures)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small run, to see that all works")
    parser.add_argument("--out", type=Path, help="where to write; a small run writes nothing without it")
    options = parser.parse_args()
    out = options.out or (None if options.quick else Path(__file__).parents[1] / "docs")
    for name, there in (("drgn", by_drgn.installed()), ("matplotlib", plot.installed())):
        if not there:
            print(f"{name} is not installed: what needs it is skipped", file=sys.stderr)
    shared = Path("/dev/shm")  # noqa: S108  copies of RAM are files in memory where there is room for such
    with tempfile.TemporaryDirectory(prefix="yamori-bench-", dir=shared if shared.is_dir() else None) as folder:
        run = Run(Path(folder), quick=options.quick)
        run.everything()
    run.figures["goals"] = [goal._asdict() for goal in report.goals(run.figures)]
    print(report.text(run.figures))
    if out:
        write(run.figures, out)
    sys.exit(1 if run.figures["failures"] else 0)


if __name__ == "__main__":
    main()
