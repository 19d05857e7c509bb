"""Attacks on devices of the lab, to try detectors with: what intruders really do, and no more than a detector must see.

An attack is a shell script of this directory that runs in the guest as root. The comments at its top say what it does
(``title``), its ``technique`` (MITRE ATT&CK), the ``detector`` that has to find it, those that ``also`` see it, and the
kernel ``module`` or the ``program`` that it needs, whose source is in ``sources`` or ``programs``. It prints
``subject: …``, which the detector's finding has to have, and ``proof: …``, the effect as the guest itself sees it; exit
code 77 means that it is not possible on this kernel. What follows the line ``# undo`` takes it back. Scripts, modules
and programs refuse to do anything where the kernel's command line does not say that it is a guest of the lab.
"""

from __future__ import annotations

import base64
import gzip
import re
import shlex
from functools import cache
from pathlib import Path
from typing import NamedTuple

from yamori.errors import LabError
from yamori.lab.attacks import modules
from yamori.lab.machines import Machine
from yamori.lab.packages import Progress

HERE = Path(__file__).parent
WORD = "yamori.lab"
"""What the lab puts on the command line of its guests' kernels."""

IMPOSSIBLE = 77
"""Exit code of a script that cannot do its work on this kernel."""

PIECE = 2000  # bytes of one line to the guest's console

_FIELD = re.compile(r"# (title|technique|detector|also|module|program): (.*)")
_GUARD = f"tr ' ' '\\n' < /proc/cmdline | grep -qxF {WORD} || {{ echo 'this is no guest of the lab'; exit 1; }}\n"


class Attack(NamedTuple):
    """An attack.

    Attributes:
        name: What a user types: its file's name.
        title: What it does.
        technique: Its id in MITRE ATT&CK.
        detector: The detector that has to find it.
        also: Other detectors that see it, with blanks between, or empty.
        module: The kernel module that it needs, or empty.
        program: The program that it needs, or empty.
        script: What does it.
        undo: What takes it back.
    """

    name: str
    title: str
    technique: str
    detector: str
    also: str
    module: str
    program: str
    script: str
    undo: str


class Effect(NamedTuple):
    """What an attack did.

    Attributes:
        subject: What a finding has to be about.
        proof: The effect as the guest sees it.
    """

    subject: str
    proof: str


class ImpossibleError(LabError):
    """An attack that is not possible on this kernel."""


@cache
def attacks() -> dict[str, Attack]:
    """Return every attack by its name."""
    return {path.stem: _parsed(path) for path in sorted(HERE.glob("*.sh"))}


def _parsed(path: Path) -> Attack:
    text = path.read_text()
    script, _, undo = text.partition("\n# undo\n")
    fields = {match[1]: match[2] for match in map(_FIELD.fullmatch, script.splitlines()) if match}
    optional = dict.fromkeys(("also", "module", "program"), "")
    return Attack(name=path.stem, script=script, undo=undo, **(optional | fields))


def attack(machine: Machine, name: str, progress: Progress = lambda _stage: None) -> Effect:
    """Attack a device of the lab, and return what the guest itself sees of it.

    Raises:
        ImpossibleError: It is not possible on this kernel.
        LabError: There is no such attack, or it failed.
    """
    chosen = _chosen(name)
    module, program = f"/run/{chosen.module}.ko", f"/run/{chosen.program}"
    if chosen.module:
        _put(machine, modules.built(machine, chosen.module, progress), module)
    if chosen.program:
        _put(machine, modules.program(machine, chosen.program), program)
    progress(f"running {name}")
    keep = f"echo \"pid='$pid' before='$before'\" > {_state(name)}\n"
    ran = machine.run(["sh", "-c", f"{_GUARD}module={module} program={program}\n{chosen.script}\n{keep}"], timeout=60)
    said = dict(line.split(": ", 1) for line in ran.output.splitlines() if line.startswith(("subject: ", "proof: ")))
    if ran.status == IMPOSSIBLE:
        raise ImpossibleError(ran.output.strip(), where=name)
    if ran.status or set(said) != {"subject", "proof"}:
        raise LabError(f"it failed: {ran.output.strip()}", where=name, hint="`yamori lab shell` shows the guest")
    return Effect(**said)


def undo(machine: Machine, name: str) -> None:
    """Take an attack back.

    Raises:
        LabError: There is no such attack, or it could not be undone.
    """
    chosen = _chosen(name)
    ran = machine.run(["sh", "-c", f"{_GUARD}. {_state(name)} && rm {_state(name)}\n{chosen.undo}"], timeout=60)
    if ran.status:
        raise LabError(
            f"it cannot be undone: {ran.output.strip()}", where=name, hint="`yamori lab down` ends the guest"
        )


def _chosen(name: str) -> Attack:
    if name not in attacks():
        raise LabError("no such attack", where=name, hint=f"there are {', '.join(attacks())}")
    return attacks()[name]


def _state(name: str) -> str:
    return f"/run/attack-{name}"


def _put(machine: Machine, data: bytes, place: str) -> None:
    """Write a file into the guest, over its console."""
    text = base64.b64encode(gzip.compress(data)).decode()
    packed = shlex.quote(f"{place}.b64")
    machine.run(f": > {packed}")
    for start in range(0, len(text), PIECE):
        machine.run(f"echo {text[start : start + PIECE]} >> {packed}")
    if machine.run(f"base64 -d {packed} | gunzip > {shlex.quote(place)} && rm {packed}").status:
        raise LabError("it could not be put into the guest", where=place)
