"""What the figures say: the goals, tables for the terminal and the documentation, the machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import by_drgn
from benchmarks.by_hand import LIMIT
from benchmarks.ours import INTERPRETER, RECORDS
from benchmarks.timing import LARGER, last_level_cache

Figures = dict[str, Any]

BEGIN, END = "<!-- figures: written by `make bench` -->", "<!-- end of figures -->"


class Goal(NamedTuple):
    """A goal of the project.

    Attributes:
        what: It, with what it is measured on.
        wanted: The bound, in words.
        found: The figure.
        unit: Of it.
        met: Whether it is met.
    """

    what: str
    wanted: str
    found: float
    unit: str
    met: bool


def goals(figures: Figures) -> list[Goal]:
    """Hold what was measured against the goals, warm figures where a goal does not say otherwise."""
    found: list[Goal] = []
    for kind, guest in figures["guests"].items():
        found += _guest_goals(kind, guest)
    starts = {f"{row['device']}, {row['processes']} processes": row["start_to_first_row"] for row in figures["attach"]}
    if "start" in figures:
        starts[figures["start"]["device"]] = figures["start"]
    for kind, start in starts.items():
        what = f"start of a process to the first native row of a known kernel, {kind}"
        found.append(_at_most(what, start["median_s"], 0.4, "s"))
    for row in figures.get("sizes", []):
        if row["device"] == "arm64":
            found.append(_at_most("text of the exported commands, arm64", row["text"] / 1024, 24, "KiB"))
    return found


def _guest_goals(kind: str, guest: Figures) -> Iterable[Goal]:
    ways, rows, loads = guest["ways"], guest["rows"], guest["loads"]
    for state in ("warm", "cold"):
        yield _at_most(
            f"native call over C by hand for the same work, {kind}, {state}", 1 / ways[LIMIT][state]["ratio"], 1.3, "x"
        )
    for name in (by_drgn.TASKS_LIVE, by_drgn.TASKS_CORE):
        if name in ways:
            yield _at_least(f"{name}, over native call, {kind}", ways[name]["warm"]["ratio"], 300, "x")
    yield _at_most(f"Python objects, {kind}", ways[RECORDS]["warm"]["median_us"] / rows, 0.7, "µs a row")
    yield _at_most(f"interpreter, {kind}", ways[INTERPRETER]["warm"]["median_us"] / loads, 3, "µs a load")


def _at_most(what: str, found: float, bound: float, unit: str) -> Goal:
    return Goal(what, f"at most {bound} {unit}", found, unit, found <= bound)


def _at_least(what: str, found: float, bound: float, unit: str) -> Goal:
    return Goal(what, f"at least {bound} {unit}", found, unit, found >= bound)


def machine() -> dict[str, str]:
    """Say what the figures are taken on."""
    cores, release = len(os.sched_getaffinity(0)), platform.release().partition("-")[0]
    return {
        "cpu": f"{_cpu()}, {cores} cores, last-level cache {last_level_cache() >> 20} MiB",
        "system": f"Linux {release}, {platform.machine()}, load {os.getloadavg()[0]:.2f} before the run",
        "python": platform.python_version(),
        "compiler": _first_line("cc", "--version"),
        "qemu": _first_line("qemu-system-aarch64", "--version"),
        "yamori": f"{_version('yamori')} {_first_line('git', 'describe', '--always', '--dirty')}".strip(),
        "drgn": _version("drgn"),
        "cold": f"caches emptied before each run by reading and writing a buffer {LARGER} times the last-level cache",
    }


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown CPU")


def _first_line(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent)
    except OSError:
        return ""
    return (done.stdout.splitlines() or [""])[0]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except PackageNotFoundError:
        return "not installed"


# --- text


def text(figures: Figures) -> str:
    """Return all tables, in Markdown that is readable as it stands."""
    parts = ["\n".join(f"- {name}: {value}" for name, value in figures["machine"].items() if value)]
    for title, table in (
        ("Goals", _goals),
        ("One probe by every way", _ways),
        ("Growth with the number of processes, warm, µs", _growth),
        ("One probe from three places, warm, µs", _places),
        ("First attach, and the start of a process", _attach),
        ("The exported commands, bytes", _sizes),
        ("What failed", _failures),
    ):
        rows = list(table(figures))
        if len(rows) > 1:
            parts.append(f"**{title}**\n\n{_table(rows)}")
    return "\n\n".join(parts) + "\n"


def put_into(document: Path, figures: Figures) -> None:
    """Replace the figures in a document."""
    old = document.read_text(encoding="utf-8")
    before, _, rest = old.partition(BEGIN)
    _, _, after = rest.partition(END)
    document.write_text(f"{before}{BEGIN}\n\n{text(figures)}\n{END}{after}", encoding="utf-8")


Rows = Iterable[Sequence[str]]


def _goals(figures: Figures) -> Rows:
    yield "goal", "wanted", "measured", ""
    for goal in goals(figures):
        yield goal.what, goal.wanted, f"{_number(goal.found)} {goal.unit}", "met" if goal.met else "**not met**"


def _ways(figures: Figures) -> Rows:
    guests = figures["guests"]
    columns = [(kind, state) for kind in guests for state in ("warm", "cold")]
    heads = [
        f"{kind} {state}, {guests[kind]['rows']} rows" if state == "warm" else f"{kind} {state}"
        for kind, state in columns
    ]
    yield "way (µs: median, quartiles; x native call)", *heads
    names = dict.fromkeys(name for guest in guests.values() for name in guest["ways"])
    for name in names:
        yield name, *(_cell(guests[kind]["ways"].get(name, {}).get(state)) for kind, state in columns)


def _cell(found: Figures | None) -> str:
    if not found:
        return "-"
    spread = f"({_number(found['low_us'])}-{_number(found['high_us'])})"
    return f"{_number(found['median_us'])} {spread} {_number(found['ratio'])}x"


def _growth(figures: Figures) -> Rows:
    stages = figures.get("growth", [])
    yield "way", *(f"{stage['rows']}{'' if stage['source'] == 'guest' else ' (copy)'}" for stage in stages)
    names = dict.fromkeys(name for stage in stages for name in stage["ways"])
    for name in names if stages else ():
        cells = (stage["ways"].get(name) for stage in stages)
        yield name, *(_number(cell["median_us"]) if cell else "-" for cell in cells)


def _places(figures: Figures) -> Rows:
    yield "place", "native, to tuples", "interpreter"
    for place in figures.get("places", []):
        times = (place[name] for name in ("native, to tuples", "interpreter"))
        yield (
            place["place"],
            *(f"{_number(t['median_us'])} ({_number(t['low_us'])}-{_number(t['high_us'])})" for t in times),
        )


def _attach(figures: Figures) -> Rows:
    yield "device", "processes", "attach to plist", "start to first row", "plist alone", "peak of anonymous memory"
    for row in figures["attach"]:
        times = (_seconds(row[name]) for name in ("attach_to_plist", "start_to_first_row"))
        alone, peak = f"{row['plist_alone_s'] * 1000:.1f} ms", f"{row['peak_anonymous_mb']} MB"
        yield row["device"], str(row["processes"]), *times, alone, peak
    if "imports" in figures:
        yield "import of the package", "", _seconds(figures["imports"]), "", "", ""


def _sizes(figures: Figures) -> Rows:
    yield "device", "kernel", "text", "of it the core", "data"
    for row in figures.get("sizes", []):
        sizes = (row["text"], row["parts"]["ids_core"], row["data"])
        yield row["device"], row["kernel"], *map(str, sizes)


def _failures(figures: Figures) -> Rows:
    yield "part", "why"
    for failure in figures["failures"]:
        yield failure["part"], failure["why"].replace("|", "/")


def _seconds(found: Figures) -> str:
    return f"{found['median_s']:.2f} s ({found['low_s']:.2f}-{found['high_s']:.2f})"


def _number(value: float) -> str:
    """Three digits, and no exponents."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]

    def line(row: Sequence[str]) -> str:
        first, *others = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        return f"| {' | '.join([first, *others])} |"

    ruler = line(["-" * width for width in widths])
    return "\n".join([line(rows[0]), ruler, *map(line, rows[1:])])
