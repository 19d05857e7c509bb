"""The matrix as a page of the documentation."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from matrix.cells import FACTORS, Cell, product
from matrix.judge import Verdict

HEAD = """# The matrix

Written by `make matrix`: Debian's stock kernels on the lab's machines, with nothing given but the VM. In every cell
40 processes of several users and a process of 8 threads run. The banner, every system call of every table, every
field of every process and thread that `ids banner`, `ids syscall` and `ids plist` show, and each executable and
command line of `ids plist --wide` are compared with the guest's own `/proc`; `doctor` has to have no doubt; and where
the kernel has BTF, what inference *found* is held against it.

*First* is a fresh process that knows nothing of this kernel, from attaching to all rows of `plist`; *known* is the
start of a process to the first row of a kernel that was seen before, the start of Python and its imports included.
Both are medians of three, under emulation (TCG) on the machine named below, beside whatever else it did.
"""


def write(path: Path, verdicts: Sequence[Verdict], cells: Sequence[Cell]) -> None:
    """Write the page, and the same as JSON beside it; a reader sees the old ones or the new ones, whole."""
    names = {cell.name: cell for cell in cells}
    lines = [HEAD, summary(verdicts), ""]
    lines += [
        "| machine | Debian | kernel | page tables | RAM | vCPUs | tasks | result | first | known | memory | found |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
        *(row(verdict, names[verdict.cell]) for verdict in verdicts if not verdict.skipped),
        "",
    ]
    if skipped := [verdict for verdict in verdicts if verdict.skipped]:
        lines += ["Not run:", "", *(f"- `{verdict.cell}`: {verdict.skipped}" for verdict in skipped), ""]
    lines += [_left_out(len(names)), "", f"Measured on {_machine()}.", ""]
    _replace(path, "\n".join(lines).encode())
    _replace(path.with_suffix(".json"), msgspec.json.format(msgspec.json.encode(list(verdicts)), indent=1) + b"\n")


def summary(verdicts: Iterable[Verdict]) -> str:
    """Say in one sentence how it went."""
    verdicts = list(verdicts)
    ran = [verdict for verdict in verdicts if not verdict.skipped]
    wrong = [verdict for verdict in ran if verdict.wrong]
    said = f"{len(ran) - len(wrong)} of {len(ran)} cells are right, {len(verdicts) - len(ran)} could not be run."
    compared = [verdict for verdict in ran if verdict.contradicted is not None]
    right, against = (sum(number or 0 for number in column) for column in zip(*_members(compared), strict=True))
    unknown = sum(len(verdict.unknown) for verdict in ran)
    return (
        f"{said} Of the members that inference found in the {len(compared)} cells with BTF, {right} are where BTF has"
        f" them and {against} are not; {unknown} things were looked for in all cells and not found."
    )


def _members(compared: Iterable[Verdict]) -> list[tuple[int | None, int | None]]:
    return [(0, 0), *((verdict.confirmed, verdict.contradicted) for verdict in compared)]


def row(verdict: Verdict, cell: Cell) -> str:
    """Return a cell's line of the table."""
    right = f"right: refused ({verdict.refused})" if verdict.refused else "right"
    result = right if not verdict.wrong else "<br>".join(["**wrong**", *verdict.wrong[:3]]).replace("|", "\\|")
    btf = "" if verdict.contradicted is None else f": {verdict.confirmed} as BTF, {verdict.contradicted} not"
    parts = (
        f"{cell.device}{f', {cell.what}' if cell.what else ''}",
        cell.suite or "own build",
        verdict.kernel,
        verdict.machine,
        f"{verdict.memory_mb} MB",
        f"{verdict.vcpus}{', busy' if cell.busy else ''}",
        f"{verdict.processes}",
        result,
        f"{verdict.first_s:.2f} s",
        f"{verdict.known_s:.2f} s",
        f"{verdict.anonymous_mb:.0f} MB",
        f"{verdict.inferred}{btf}",
    )
    return f"| {' | '.join(parts)} |"


def _left_out(run: int) -> str:
    factors = ", ".join(f"{count} {name}" for name, count in FACTORS.items())
    return (
        f"From each kernel's base machine one thing is changed at a time: {run} cells. All combinations of kernel, "
        f"{factors} would be {product():,}. The other {product() - run:,} are left out, because these things are told "
        "by different parts of memory and do not act on each other."
    )


def _machine() -> str:
    model = next(
        (line.partition(": ")[2] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    return f"{model}, {os.cpu_count()} CPUs, Python {platform.python_version()}"


def _replace(path: Path, data: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-", delete=False) as stream:
        stream.write(data)
        Path(stream.name).chmod(0o644)
    Path(stream.name).replace(path)
