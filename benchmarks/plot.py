"""The plot: what a row costs by every way, and how the cost grows. Drawn by matplotlib, where it is installed."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

from benchmarks import by_drgn
from benchmarks.by_hand import LIMIT, UNCHECKED
from benchmarks.ours import BUFFER, INTERPRETER, RECORDS, TUPLES

Figures = dict[str, Any]

COLOURS = {"ours": "#1b7f5c", "hand": "#8a8f98", "drgn": "#c4622d"}
COLD_ALPHA = 0.45
LINES = {
    UNCHECKED: ("hand", ":"),
    LIMIT: ("hand", "-"),
    BUFFER: ("ours", "-"),
    TUPLES: ("ours", "--"),
    RECORDS: ("ours", "-."),
    INTERPRETER: ("ours", ":"),
    by_drgn.MEMORY_CORE: ("drgn", ":"),
    by_drgn.TASKS_CORE: ("drgn", "--"),
    by_drgn.TASKS_LIVE: ("drgn", "-"),
}
"""What the plot of growth shows, and how."""


def installed() -> bool:
    """Say whether matplotlib can be imported."""
    return importlib.util.find_spec("matplotlib") is not None


def draw(figures: Figures, path: Path) -> None:
    """Draw the figures as SVG, with its text as text."""
    matplotlib = importlib.import_module("matplotlib")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "yamori", "font.size": 9})
    panels = [*figures["guests"], *(["growth"] if figures.get("growth") else [])]
    figure = importlib.import_module("matplotlib.figure").Figure(figsize=(9, 3.6 * len(panels)), layout="constrained")
    figure.patch.set_facecolor("white")
    for axes, panel in zip(figure.subplots(len(panels), 1, squeeze=False)[:, 0], panels, strict=True):
        if panel == "growth":
            _growth(axes, figures["growth"])
        else:
            _ways(axes, panel, figures["guests"][panel])
    figure.savefig(path, format="svg", metadata={"Date": None})


def _family(name: str) -> str:
    return next(
        (family for family, start in (("drgn", "drgn"), ("hand", "C by hand")) if name.startswith(start)), "ours"
    )


def _ways(axes: Any, kind: str, guest: Figures) -> None:
    """Bars, the quickest on top: warm and, paler, with cold caches."""
    names = sorted(guest["ways"], key=lambda name: -guest["ways"][name]["warm"]["median_us"])
    rows = guest["rows"]
    for place, name in enumerate(names):
        for state, shift, alpha in (("warm", 0.2, 1.0), ("cold", -0.2, COLD_ALPHA)):
            found = guest["ways"][name][state]
            value = found["median_us"] / rows
            axes.barh(place + shift, value, 0.38, color=COLOURS[_family(name)], alpha=alpha)
            axes.text(value * 1.08, place + shift, f"{value:.3g}", va="center", fontsize=7)
    axes.set_yticks(range(len(names)), names)
    axes.set_xscale("log")
    axes.margins(x=0.12)
    axes.set_xlabel("µs a row, logarithmic")
    axes.set_title(f"{kind}, {rows} processes: warm, and paler with cold CPU caches", loc="left")
    axes.spines[["top", "right"]].set_visible(False)


def _growth(axes: Any, stages: list[Figures]) -> None:
    """Lines: time of one run over the number of processes."""
    for name, (family, style) in LINES.items():
        points = [(stage["rows"], stage["ways"][name]["median_us"]) for stage in stages if name in stage["ways"]]
        if points:
            xs, ys = zip(*points, strict=True)
            axes.plot(xs, ys, style, color=COLOURS[family], marker=".", label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("processes; the leftmost is a copy of the guest whose list was cut short")
    axes.set_ylabel("µs a run")
    axes.set_title("arm64, growth, warm", loc="left")
    axes.grid(visible=True, alpha=0.25)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
