"""One cell: boot it, let a crowd run in it, and hold what Yamori reads against what the guest says."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import msgspec
from benchmarks.attach import ATTACH, first_row, measure

import yamori
from matrix.cells import Cell
from yamori import lab
from yamori.errors import LabError, ProfileError, YamoriError
from yamori.guest import Guest
from yamori.kernel.deferred import Deferred
from yamori.kernel.inferred import InferredTypes
from yamori.lab.compare import lasting_differences, wrong_executables, wrong_symbols
from yamori.records import Process

BUILT = Path(__file__).resolve().parents[1] / "build" / "vendor"
CROWD, THREADS = 40, 8
RUNS = 3


class Verdict(msgspec.Struct, kw_only=True):
    """What became of a cell.

    Attributes:
        cell: Its name.
        kernel: What ``uname -r`` says in it.
        machine: The page tables, in words.
        memory_mb: RAM.
        vcpus: Of them.
        processes: How many were compared.
        wrong: What differs, one sentence each; empty where all is right.
        skipped: Why it was not run; empty where it was.
        refused: How the kernel was refused, where it had to be.
        first_s: From a fresh process to all rows of an unknown kernel, median.
        known_s: From the start of a process to the first row of a known kernel, median.
        anonymous_mb: Peak of anonymous memory of a first attach.
        inferred: Members that inference found, those that only some commands ask for among them.
        unknown: What it looked for and did not find.
        confirmed: Members found that BTF has at the same place; ``None`` where the kernel has no BTF.
        contradicted: Members found that BTF has elsewhere.
        source: A digest of the code that was judged.
    """

    cell: str
    kernel: str = ""
    machine: str = ""
    memory_mb: int = 0
    vcpus: int = 1
    processes: int = 0
    wrong: list[str] = []
    skipped: str = ""
    refused: str = ""
    first_s: float = 0.0
    known_s: float = 0.0
    anonymous_mb: float = 0.0
    inferred: int = 0
    unknown: list[str] = []
    confirmed: int | None = None
    contradicted: int | None = None
    source: str = ""


def judged(cell: Cell) -> Verdict:
    """Run one cell. Of what is not built, or cannot be fetched now, the reason is kept."""
    verdict = Verdict(cell=cell.name, vcpus=cell.smp, source=source())
    kernel = BUILT / cell.vendor / "kernel" if cell.vendor else None
    if kernel and not kernel.is_file():
        verdict.skipped = f"not built: matrix/vendor/build.sh {cell.vendor}"
        return verdict
    try:
        vm = lab.up(
            cell.device,
            f"matrix-{cell.name}",
            suite=cell.suite or None,
            kernel=kernel,
            memory=cell.memory,
            smp=cell.smp,
            append=cell.append,
            cpu=cell.cpu,
            ram=cell.ram,
            timeout=400,
        )
    except LabError as error:
        if error.where == "apt":  # whose words name hosts, which change from machine to machine
            verdict.skipped = f"its kernel cannot be fetched now: `yamori lab up {cell.device}` says why"
        else:
            verdict.wrong.append(str(error))
        return verdict
    try:
        crowd(vm, cell)
        with yamori.open(vm.target, cache=False) as guest:
            describe(verdict, guest)
            verdict.wrong = list(differences(vm, guest))
            if cell.refused:
                verdict.wrong.append("it should have been refused")
        if not verdict.wrong:
            timed(verdict, vm)
    except YamoriError as error:
        if cell.refused and cell.refused in str(error):
            verdict.kernel, verdict.refused = vm.run("uname -r").output.strip(), str(error)
        else:
            verdict.wrong.append(str(error))
    finally:
        vm.down()
    return verdict


@cache
def source() -> str:
    """Return a digest of the code whose verdict it is: Yamori's and the matrix's own."""
    digest = hashlib.sha256()
    for folder in (Path(yamori.__file__).parent, Path(__file__).parent):
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def crowd(vm: lab.Machine, cell: Cell) -> None:
    """Start what there is to see."""
    for words in (["spawn", str(CROWD)], ["threads", str(THREADS)], *([["busy", str(cell.smp)]] if cell.busy else [])):
        output, status = vm.run(words, timeout=300)
        if status:
            raise LabError(f"`{' '.join(words)}` failed: {output.strip()}", where=vm.name)


def describe(verdict: Verdict, guest: Guest) -> None:
    """Note what kind of machine it is, and what inference says of its kernel beside BTF."""
    profile = guest.profile
    verdict.kernel = profile.uts.release if profile.uts else ""
    verdict.machine = profile.root.geometry.describe()
    verdict.memory_mb = sum(region.size for region in guest.kernel.memory.regions) >> 20
    found = dict(next(types for types in profile.types if isinstance(types, InferredTypes)).members)
    for part in next(types for types in profile.types if isinstance(types, Deferred)).everything():
        found.update(part.members)
        verdict.unknown += part.unknown
    verdict.inferred = len(found)
    btf = next((types for types in profile.types if types.provenance == "btf"), None)
    if btf:
        said = [(member, other) for key, member in found.items() if (other := btf.member(*key))]
        verdict.confirmed = sum(member.offset == other.offset for member, other in said)
        verdict.contradicted = len(said) - verdict.confirmed


def differences(vm: lab.Machine, guest: Guest) -> Iterator[str]:
    """Yield what is not as the guest says."""
    yield from (f"doubt: {doubt}" for doubt in guest.profile.doubts)
    banner = guest.banner().rows
    for command, seen in (
        ("cat /proc/version", banner and banner[0].banner),
        ("uname -r", banner and banner[0].release),
        ("uname -m", banner and banner[0].machine),
    ):
        said = vm.run(command).output.strip()
        if seen != said and not str(seen).startswith(said):  # /proc/version lacks Ubuntu's last words
            yield f"{command} says {said!r}, seen is {seen!r}"
    yield from _processes(vm, guest)
    yield from wrong_executables(vm, guest.programs)
    kallsyms = vm.run("grep sys_ /proc/kallsyms", timeout=300).output
    if not kallsyms.startswith(tuple("0123456789abcdef")):  # nothing names the system calls; they must not be guessed
        try:
            guest.syscall()
        except ProfileError:
            return
        yield "system calls, of which this kernel has no names"
        return
    has_compat = guest.profile.architecture == "aarch64" and "_compat_sys_" in kallsyms
    for table in ("native", "compat") if has_compat else ("native",):
        result = guest.syscall(table)
        if not result.complete or not 350 < len(result) < 700:
            yield f"{table} system calls: {len(result)}, {'; '.join(result.reasons) or 'complete'}"
        yield from (f"system call {row.nr} of {table}: {row.symbol}" for row in wrong_symbols(result, kallsyms)[:4])
        yield from (f"system call {row.nr} of {table} outside" for row in result if row.in_kernel_text is False)


def _processes(vm: lab.Machine, guest: Guest) -> Iterator[str]:
    for threads in (False, True):

        def look(*, threads: bool = threads) -> list[Process]:
            result = guest.plist(threads=threads)
            if not result.complete:
                raise LabError(f"the list is not complete: {'; '.join(result.reasons)}", where=vm.name)
            return result.rows

        for one in lasting_differences(vm, look)[:4]:
            yield f"task {one.task} {one.field}: the guest says {one.guest}, seen is {one.seen}"
    rows = guest.plist(threads=True).rows
    groups = [row.tgid for row in rows]
    if len(rows) < CROWD + THREADS or max(map(groups.count, set(groups))) < THREADS:
        yield f"only {len(rows)} threads"


def timed(verdict: Verdict, vm: lab.Machine) -> None:
    """Measure attaching, in fresh processes."""
    found = [measure(ATTACH, vm.target) for _ in range(RUNS)]
    verdict.processes = int(found[-1][0][1])
    verdict.first_s = statistics.median(float(words[0]) for words, _ in found)
    verdict.anonymous_mb = round(max(kilobytes for _, kilobytes in found) / 1024, 1)
    verdict.known_s = first_row(vm.target, RUNS)["median_s"]
