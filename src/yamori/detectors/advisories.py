"""A directory of advisories: OSV records and OpenVEX documents, as JSON files.

An OSV record (schema 1.x, https://ossf.github.io/osv-schema/) is compared when it names the upstream kernel: an
``affected`` entry with ecosystem ``Linux`` and package ``Kernel``, as the kernel's own records in OSV's database do.
Records of other packages, distributions' included, are passed over, and so are withdrawn ones. Ranges of type
``ECOSYSTEM`` and ``SEMVER`` and the list ``versions`` are compared; ranges of commits (``GIT``) cannot be, without the
history.

One bad file must not hide the others, so it is left out and told of, with its name and the place of the mistake.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from yamori.detectors import openvex, versions
from yamori.detectors.versions import KernelVersion
from yamori.errors import YamoriError
from yamori.probes.banner_text import BannerText

LARGEST_FILE = 16 << 20
"""Bytes; the largest record of the kernel in OSV's database has well under a megabyte."""

_COMPARABLE = {"ECOSYSTEM", "SEMVER"}


class Event(msgspec.Struct, frozen=True):
    """``affected[].ranges[].events[]``: one of its three fields is set."""

    introduced: str | None = None
    fixed: str | None = None
    last_affected: str | None = None


class Range(msgspec.Struct, frozen=True):
    """``affected[].ranges[]``."""

    type: str = ""
    events: list[Event] = []


class Package(msgspec.Struct, frozen=True):
    """``affected[].package``."""

    ecosystem: str = ""
    name: str = ""


class Affected(msgspec.Struct, frozen=True):
    """``affected[]``."""

    package: Package | None = None
    ranges: list[Range] | None = None
    versions: list[str] | None = None

    @property
    def is_kernel(self) -> bool:
        """Whether this is on the upstream kernel."""
        package = self.package or Package()
        return package.ecosystem.partition(":")[0].lower() == "linux" and package.name.lower() == "kernel"


class Document(msgspec.Struct, frozen=True):
    """The fields of both kinds of documents that are read; everything else is passed over."""

    id: str = ""
    context: Any = msgspec.field(default=None, name="@context")
    timestamp: str | None = None
    statements: list[openvex.Statement] | None = None
    affected: list[Affected] | None = None
    aliases: list[str] | None = None
    summary: str | None = None
    details: str | None = None
    withdrawn: str | None = None
    database_specific: Any = None


class Advisory(msgspec.Struct, frozen=True, kw_only=True):
    """An OSV record by which this kernel is affected.

    Attributes:
        id: The record's number.
        aliases: Other numbers of the same vulnerability.
        summary: What it is, in the record's words.
        severity: As the record's database rates it, in small letters; ``unrated`` where it does not say.
        why: The range that holds the version.
        remedy: The first release after that range, or "".
        file: Where the record was read.
    """

    id: str
    aliases: tuple[str, ...]
    summary: str
    severity: str
    why: str
    remedy: str
    file: str


class Advisories:
    """What a directory says of one kernel.

    Attributes:
        affecting: Records by which it is affected.
        statements: The maker's OpenVEX statements on it.
        compared: How many records were on the upstream kernel and could be compared.
        skipped: Files that were left out: name, place and reason.
    """

    def __init__(self, directory: Path, banner: BannerText) -> None:
        """Read every ``*.json`` file below ``directory``.

        Raises:
            YamoriError: It is no directory, or cannot be listed.
        """
        self.affecting: list[Advisory] = []
        self.statements = openvex.Statements(banner)
        self.compared = 0
        self.skipped: list[str] = []
        self._kernel = versions.parse(banner.upstream)
        decoder = msgspec.json.Decoder(Document)
        for path in _json_files(directory):
            name = str(path.relative_to(directory))
            try:
                self._take(decoder.decode(_content(path)), name)
            except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, RecursionError, OSError) as error:
                self.skipped.append(f"{name}: {error}")

    def _take(self, document: Document, file: str) -> None:
        if document.statements is not None and "openvex" in str(document.context):
            for statement in document.statements:
                self.statements.add(statement, document.timestamp, file)
        elif document.affected is not None and document.id:
            if not document.withdrawn:
                self._compare(document, file)
        else:
            raise ValueError("is neither an OSV record nor an OpenVEX document")

    def _compare(self, document: Document, file: str) -> None:
        on_kernel = [affected for affected in document.affected or [] if affected.is_kernel]
        if not on_kernel or self._kernel is None:
            return
        if not any(map(_comparable, on_kernel)):
            raise ValueError("only has ranges of commits, which a version cannot be compared with")
        self.compared += 1
        hit = next(filter(None, (_hit(affected, self._kernel) for affected in on_kernel)), None)
        if hit:
            why, remedy = hit
            self.affecting.append(
                Advisory(
                    id=document.id,
                    aliases=tuple(document.aliases or ()),
                    summary=document.summary or (document.details or "").strip().partition("\n")[0],
                    severity=_severity(document.database_specific),
                    why=why,
                    remedy=remedy,
                    file=file,
                )
            )


def _json_files(directory: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise YamoriError(
            f"cannot list the advisories: {error.strerror}",
            where=str(error.filename or directory),
            hint="name a directory of OSV and OpenVEX files",
        ) from error

    for folder, folders, files in os.walk(directory, onerror=refuse):
        folders.sort()
        yield from (Path(folder, file) for file in sorted(files) if file.endswith(".json"))


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise ValueError(f"is larger than {LARGEST_FILE >> 20} MiB")
    return content


def _comparable(affected: Affected) -> bool:
    return bool(affected.versions) or any(span.type.upper() in _COMPARABLE for span in affected.ranges or [])


def _hit(affected: Affected, kernel: KernelVersion) -> tuple[str, str] | None:
    """Return why a version is affected and the release that mends it; ``None`` where it is not affected."""
    for index, span in enumerate(affected.ranges or []):
        if span.type.upper() in _COMPARABLE:
            try:
                hit = _in_range(span, kernel)
            except ValueError as error:
                raise ValueError(f"ranges[{index}]: {error}") from error
            if hit:
                return hit
    if any(versions.parse(text) == kernel for text in affected.versions or []):
        return f"{kernel} is among the versions that the record lists", ""
    return None


def _in_range(span: Range, kernel: KernelVersion) -> tuple[str, str] | None:
    """Follow the events of a range in order up to the version, as the schema's evaluation does."""
    since = end = ""
    affected = False
    for at, kind, text in sorted(_events(span)):
        # Only what comes after "last_affected" is free of it; "introduced" and "fixed" count from themselves on.
        if at > kernel or (at == kernel and kind == "last_affected"):
            end = f" up to {text}" if kind == "last_affected" else f" before {text}" if kind == "fixed" else ""
            break
        affected = kind == "introduced"
        since = text if affected else since
    if not affected:
        return None
    start = "all releases" if since == "0" else f"{since} and later"
    return f"{kernel} is affected: {start}{end}", end.removeprefix(" before ") if " before " in end else ""


def _events(span: Range) -> Iterator[tuple[KernelVersion, str, str]]:
    for event in span.events:
        for kind in ("introduced", "fixed", "last_affected"):
            text: str | None = getattr(event, kind)
            if text is not None:
                at = KernelVersion(0) if text == "0" else versions.parse(text)
                if at is None:
                    raise ValueError(f"{text!r} is not a version of the kernel")
                yield at, kind, text


def _severity(database_specific: Any) -> str:
    rating = database_specific.get("severity") if isinstance(database_specific, dict) else None
    return rating.lower() if isinstance(rating, str) else "unrated"
