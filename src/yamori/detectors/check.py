"""Running detectors: findings that last, and what could not be checked."""

from __future__ import annotations

import pkgutil
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module, metadata

import msgspec

from yamori.detectors import kinds
from yamori.detectors.baseline import Baseline
from yamori.detectors.detector import Detector, NotChecked
from yamori.detectors.view import View
from yamori.errors import YamoriError
from yamori.kernel.kernel import Kernel
from yamori.memory.physical import forget, lacks
from yamori.records import Finding

SEVERITIES = ("critical", "high", "medium", "low")
GROUP = "yamori.detectors"
MOST_FINDINGS = 100
"""Findings of one detector that are kept: a hostile guest can make any number."""


@dataclass
class Report:
    """What a check gave.

    Attributes:
        findings: The worst first.
        not_checked: (detector, reason).
        seconds: Detector → how long it took, both looks together.
        ran: Which detectors ran to their end.
    """

    findings: list[Finding] = field(default_factory=list)
    not_checked: list[tuple[str, str]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    ran: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether everything could be checked."""
        return not self.not_checked


def detectors() -> list[Detector]:
    """Return every detector: ours, then those of other packages.

    Raises:
        YamoriError: One of another package cannot be imported, or is none.
    """
    names = sorted(module.name for module in pkgutil.iter_modules(kinds.__path__))
    modules = [import_module(f"{kinds.__name__}.{name}") for name in names]
    ours = [thing for module in modules for thing in vars(module).values() if isinstance(thing, Detector)]
    return [*ours, *map(_loaded, metadata.entry_points(group=GROUP))]


def _loaded(entry: metadata.EntryPoint) -> Detector:
    try:
        found = entry.load()
    except Exception as error:  # another package's code may raise anything
        raise YamoriError(f"it cannot be imported: {error}", where=f"entry point {entry.value}") from error
    if not isinstance(found, Detector):
        raise YamoriError("it is no detector", where=f"entry point {entry.value}")
    return found


def chosen(only: Collection[str], skip: Collection[str], baseline: Baseline | None = None) -> list[Detector]:
    """Return the detectors to run.

    Args:
        only: Names of those that alone run; none means all.
        skip: Names of those that do not.
        baseline: What the device is meant to run.

    Raises:
        YamoriError: There is no detector of a name, or it needs a baseline with a section that is not there.
    """
    every = {one.name: one for one in detectors()}
    if unknown := [name for name in (*only, *skip) if name not in every]:
        raise YamoriError(f"there is no detector {unknown[0]!r}", hint=f"there are {', '.join(every)}")
    applying = {name: one for name, one in every.items() if _applies(one, baseline)}
    if idle := [name for name in only if name not in applying]:
        section = every[idle[0]].section
        raise YamoriError(f"it needs a baseline with {section}", where=idle[0], hint="give --baseline FILE")
    return [one for name, one in applying.items() if (not only or name in only) and name not in skip]


def _applies(one: Detector, baseline: Baseline | None) -> bool:
    return not one.section or (baseline is not None and getattr(baseline, one.section) is not None)


def check(kernel: Kernel, wanted: Sequence[Detector], baseline: Baseline | None = None) -> Report:
    """Run detectors once, and those that found something once more: what the guest was just changing does not last."""
    report = Report()
    first = View(kernel, baseline)
    looked = [(one, *_look(one, first, report)) for one in wanted]
    second = View(kernel, baseline)
    for one, findings, reasons in looked:
        if findings:
            again, _ = _look(one, second, report)
            subjects = {finding.subject for finding in again}
            report.findings += [finding for finding in findings if finding.subject in subjects]
        report.not_checked += [(one.name, reason) for reason in reasons]
        if not reasons:
            report.ran.append(one.name)
    report.findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return report


def _look(one: Detector, view: View, report: Report) -> tuple[list[Finding], list[str]]:
    """Return what a detector finds, and why it could not tell everything."""
    view.lacks.clear()
    forget(view.kernel.memory, renew=True)
    started = time.perf_counter()
    found: list[Finding] = []
    reasons: list[str] = []
    try:
        for finding in _some(one.look(view)):
            attack = finding.attack or list(one.attack)
            found.append(msgspec.structs.replace(finding, detector=one.name, attack=attack))
    except YamoriError as error:  # NotChecked, a layout that is not known, memory that cannot be read
        view.lacks.clear()  # which is why
        reasons.append(str(error))
    if said := lacks(view.kernel.memory):  # which it may have taken for pages that are not there
        reasons.append(said)
    report.seconds[one.name] = report.seconds.get(one.name, 0.0) + time.perf_counter() - started
    return found, [*dict.fromkeys([*reasons, *view.lacks])]


def _some(findings: Iterator[Finding]) -> Iterator[Finding]:
    for number, finding in enumerate(findings):
        if number >= MOST_FINDINGS:
            raise NotChecked(f"given up after {MOST_FINDINGS} findings")
        yield finding
