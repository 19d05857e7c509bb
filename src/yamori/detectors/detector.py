"""What a detector is: one kind of intrusion, and how it shows in what the guest's memory holds.

A detector is one file of ``yamori.detectors.kinds``, or another package's through an entry point of the group
``yamori.detectors``::

    @detector(
        title="The kernel's text can be written",
        needs="the bounds of the kernel's text",
        misses="text that was changed and protected again",
        attack=["T1014"],
    )
    def writable_text(view: View) -> Iterator[Finding]:
        yield Finding(subject="kernel text", severity="high", confidence="certain", title=..., why=[...], remedy=...)

It raises ``NotChecked`` where it cannot tell, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from yamori.detectors.view import View
from yamori.errors import YamoriError
from yamori.records import Finding

UNNAMED = "give --symbols, or install capstone (pip install 'yamori[code]'), by which functions tell of variables"
"""What helps where no symbol names one of the kernel's variables."""

Look = Callable[[View], Iterator[Finding]]


class NotChecked(YamoriError):
    """A detector cannot tell, and says why."""


@dataclass(frozen=True)
class Detector:
    """A detector.

    Attributes:
        name: What ``--only`` and ``--skip`` take.
        title: What it detects, in a few words.
        needs: What of the kernel has to be known.
        misses: What it cannot see.
        attack: The ids of MITRE ATT&CK that its findings carry.
        look: Looks once.
        section: What of a baseline it goes by; it is not run where there is no such section.
    """

    name: str
    title: str
    needs: str
    misses: str
    attack: Sequence[str]
    look: Look
    section: str = ""


def detector(
    *, title: str, needs: str, misses: str, attack: Sequence[str], section: str = ""
) -> Callable[[Look], Detector]:
    """Make a detector of a function, whose name with dashes is the detector's."""

    def made(look: Look) -> Detector:
        return Detector(look.__name__.replace("_", "-"), title, needs, misses, attack, look, section)

    return made
