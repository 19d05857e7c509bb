"""Known trouble with a kernel's version: vulnerabilities by upstream range, and a compiler that miscompiles kernels.

Two packaged tables (``data/*.toml``), and a directory of OSV records where there is one. A maker's OpenVEX statements
silence what it has mended or what cannot be reached in its product; what is silenced is kept, with the reason.

All of this compares version numbers. It sees neither what a distribution or a maker mended without changing the number,
nor whether the part in question is built in at all: a hint where to look, never an alarm.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import msgspec

from yamori.detectors import trouble_tables, versions
from yamori.detectors.advisories import Advisories, Advisory
from yamori.detectors.trouble_tables import Miscompiler, Vulnerability
from yamori.detectors.versions import KernelVersion
from yamori.probes.banner_text import BannerText

CAVEAT = "Compares upstream versions; a distribution may have fixed it without changing the version."
_FROZEN_RELEASE = (
    " This release counts the distribution's own builds, so the stable release it is based on is unknown and the list"
    " is likely too long."
)
_NO_VERSION = "The banner names no upstream version, so no vulnerability could be compared."

_ARCHITECTURES = {"arm64": "aarch64", "x86-64": "x86_64", "amd64": "x86_64", "armv7": "arm", "armv6": "arm"}
_RANKS = {"critical": 0, "high": 1, "medium": 2, "moderate": 2, "low": 3}


class KnownTrouble(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is known to be wrong with a kernel of this version.

    Attributes:
        id: The public number, or the compiler's bug.
        kind: What it was compared with: the packaged tables, or a record of ``--advisories``.
        name: What the press calls it; often empty.
        title: The mistake in one line.
        severity: ``critical``, ``high``, ``medium``, ``low``, or what a record says; ``unrated``.
        gain: What an attacker can do with it, or what it breaks.
        needs: What an attacker must have first.
        attack: The technique in MITRE ATT&CK, or empty.
        why: The version and the range that were compared.
        remedy: What to do.
        source: Where this was learnt.
        silenced_by: Why the maker says that it does no harm; empty where nobody does.
    """

    id: str
    kind: Literal["vulnerability", "compiler", "advisory"]
    name: str = ""
    title: str
    severity: str
    gain: str = ""
    needs: str = ""
    attack: str = ""
    why: str
    remedy: str
    source: str
    silenced_by: str = ""


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """Everything known of a version.

    Attributes:
        version: The upstream version that was compared; empty where the banner names none.
        version_source: Which part of the banner names it.
        known: What is wrong with it, the worst first.
        silenced: What would be wrong with it, were it not for the maker's OpenVEX statements.
        unchecked: Numbers of vulnerabilities of which the table does not know whether this stable series got the fix.
        compared_advisories: How many records of the directory could be compared.
        skipped: Files of the directory that were left out: name, place and reason.
        caveat: What this cannot know, for a person.
    """

    version: str
    version_source: str
    known: list[KnownTrouble]
    silenced: list[KnownTrouble]
    unchecked: list[str]
    compared_advisories: int
    skipped: list[str]
    caveat: str


def known_trouble(banner: BannerText, arch: str, advisories: Path | None = None) -> Trouble:
    """Compare a kernel with what is known of its version and of its compiler.

    Args:
        banner: The kernel's banner, taken apart.
        arch: ``arm``, ``aarch64``, ``riscv64`` or ``x86_64``; the usual other names are understood.
        advisories: A directory of OSV and OpenVEX files.

    Raises:
        YamoriError: The directory cannot be listed, or a packaged table has a mistake.
    """
    kernel = versions.parse(banner.upstream)
    directory = Advisories(advisories, banner) if advisories is not None else None
    found = [*_vulnerabilities(kernel), *_miscompilers(banner, arch)]
    if directory:
        listed = {trouble.id for trouble in found}
        found += [_advisory(hit) for hit in directory.affecting if listed.isdisjoint({hit.id, *hit.aliases})]
    known, silenced = _silence(found, directory)
    return Trouble(
        version=str(kernel) if kernel else "",
        version_source=banner.upstream_source,
        known=known,
        silenced=silenced,
        unchecked=_unchecked(kernel),
        compared_advisories=directory.compared if directory else 0,
        skipped=directory.skipped if directory else [],
        caveat=_caveat(banner, kernel),
    )


def _vulnerabilities(kernel: KernelVersion | None) -> list[KnownTrouble]:
    return [
        KnownTrouble(
            id=entry.id,
            kind="vulnerability",
            name=entry.name,
            title=entry.title,
            severity=entry.severity,
            gain=entry.gain,
            needs=entry.needs,
            attack=entry.attack,
            why=_why(entry, kernel),
            remedy=_remedy(entry, kernel),
            source=f"https://git.kernel.org/linus/{entry.commit}",
        )
        for entry in trouble_tables.vulnerabilities()
        if kernel is not None and kernel.series not in entry.unchecked and entry.affects(kernel)
    ]


def _why(entry: Vulnerability, kernel: KernelVersion) -> str:
    fix = entry.fix_in(kernel.series)
    if fix:
        return f"{kernel} is in the range from {entry.introduced} to {fix}, the {kernel.series} release with the fix"
    return (
        f"{kernel} is in the range from {entry.introduced} to {entry.fixed}, the mainline release with the fix;"
        f" the {kernel.series} series never got it upstream"
    )


def _remedy(entry: Vulnerability, kernel: KernelVersion) -> str:
    fix = entry.fix_in(kernel.series)
    if fix:
        return f"update the kernel to {fix} or later"
    return f"move to a maintained series; mainline has the fix since {entry.fixed}"


def _unchecked(kernel: KernelVersion | None) -> list[str]:
    return [
        entry.id
        for entry in trouble_tables.vulnerabilities()
        if kernel is not None and kernel.series in entry.unchecked and entry.affects(kernel)
    ]


def _miscompilers(banner: BannerText, arch: str) -> list[KnownTrouble]:
    family = _ARCHITECTURES.get(arch, arch)
    return [
        KnownTrouble(
            id=entry.id,
            kind="compiler",
            title=entry.title,
            severity=entry.severity,
            gain=entry.effect,
            why=_compiled(entry, banner),
            remedy=f"have the kernel rebuilt with {entry.compiler.upper()} {entry.fixed} or later",
            source=", ".join(filter(None, (entry.source, f"{entry.file} in the kernel", entry.commit))),
        )
        for entry in trouble_tables.miscompilers()
        if entry.built(banner.compiler, banner.compiler_version, family)
    ]


def _compiled(entry: Miscompiler, banner: BannerText) -> str:
    compiler = f"{entry.compiler.upper()} {'.'.join(map(str, banner.compiler_version))}"
    where = f" on {' and '.join(entry.arch)}" if entry.arch else ""
    return f"built with {compiler}; {entry.since} up to, not including, {entry.fixed} have the mistake{where}"


def _advisory(hit: Advisory) -> KnownTrouble:
    return KnownTrouble(
        id=hit.id,
        kind="advisory",
        title=hit.summary or hit.id,
        severity=hit.severity,
        why=hit.why,
        remedy=f"update the kernel to {hit.remedy} or later" if hit.remedy else "see the advisory",
        source=hit.file,
    )


def _silence(found: list[KnownTrouble], directory: Advisories | None) -> tuple[list[KnownTrouble], list[KnownTrouble]]:
    known: list[KnownTrouble] = []
    silenced: list[KnownTrouble] = []
    aliases = {hit.id: hit.aliases for hit in directory.affecting} if directory else {}
    for trouble in sorted(found, key=lambda trouble: (_RANKS.get(trouble.severity, len(_RANKS)), trouble.id)):
        verdict = directory.statements.on((trouble.id, *aliases.get(trouble.id, ()))) if directory else None
        if verdict and verdict.silences:
            silenced.append(msgspec.structs.replace(trouble, silenced_by=verdict.reason))
        else:
            known.append(trouble)
    return known, silenced


def _caveat(banner: BannerText, kernel: KernelVersion | None) -> str:
    if kernel is None:
        return _NO_VERSION
    frozen = banner.upstream_source == "release" and re.match(r"\d+\.\d+\.0-\d", banner.release, re.ASCII)
    return CAVEAT + (_FROZEN_RELEASE if frozen else "")
