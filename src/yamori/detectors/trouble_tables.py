"""The packaged tables of known vulnerabilities and of compilers that miscompile kernels, read once when first asked.

The tables are TOML files in ``data``, to be read and mended by people; the words that each entry uses are explained at
their top. A mistake in one is refused with the file and the entry, so that a table never quietly says less.
"""

from __future__ import annotations

import functools
import itertools
import tomllib
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from yamori.detectors import versions
from yamori.detectors.versions import KernelVersion
from yamori.errors import YamoriError

Severity = Literal["critical", "high", "medium", "low"]
Architecture = Literal["arm", "aarch64", "riscv64", "x86_64"]

_DATA = Path(__file__).with_name("data")
_Entry = TypeVar("_Entry", bound="Vulnerability | Miscompiler")


class Vulnerability(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An entry of ``vulnerabilities.toml``, which explains the fields."""

    id: str
    name: str = ""
    title: str
    severity: Severity
    gain: str
    needs: str
    attack: str
    introduced: str
    stable: tuple[str, ...]
    unchecked: tuple[str, ...] = ()
    fixed: str
    commit: str

    def __post_init__(self) -> None:
        """Refuse ranges that cannot be meant: unordered, overlapping, or outside of what they are part of."""
        _check_commit(self.commit)
        bounds = [version(self.introduced), *map(version, self.stable), version(self.fixed)]
        if any(low >= high for low, high in itertools.pairwise(bounds)):
            raise ValueError("introduced, stable and fixed are not in ascending order")
        series = [version(text).series for text in self.stable]
        if len({*series, *self.unchecked}) < len(series) + len(self.unchecked):
            raise ValueError("a stable series is named twice")

    def fix_in(self, series: str) -> KernelVersion | None:
        """Return the first release of a stable series that has the fix, or ``None`` where it never got it."""
        return next((fix for fix in map(version, self.stable) if fix.series == series), None)

    def affects(self, kernel: KernelVersion) -> bool:
        """Tell whether an upstream version has the mistake."""
        if not version(self.introduced) <= kernel < version(self.fixed):
            return False
        fix = self.fix_in(kernel.series)
        return fix is None or kernel < fix


class Miscompiler(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An entry of ``compilers.toml``, which explains the fields."""

    id: str
    title: str
    compiler: Literal["gcc", "clang"]
    arch: tuple[Architecture, ...]
    since: str
    fixed: str
    severity: Severity
    effect: str
    source: str = ""
    commit: str = ""
    file: str

    def __post_init__(self) -> None:
        """Refuse an empty range and an entry without a source."""
        if self.commit:
            _check_commit(self.commit)
        if version(self.since) >= version(self.fixed):
            raise ValueError("since does not come before fixed")
        if not (self.source or self.commit):
            raise ValueError("neither source nor commit is given")

    def built(self, compiler: str, numbers: tuple[int, ...], arch: str) -> bool:
        """Tell whether a kernel was built with this compiler, in a way that matters on its architecture.

        A version that is not told to the last number (Android's ``4.9``) counts only if the whole of it is affected.
        """
        if compiler != self.compiler or not numbers or (self.arch and arch not in self.arch):
            return False
        untold = 3 - len(numbers)
        oldest = KernelVersion(*numbers)
        newest = KernelVersion(*numbers, *[versions.RELEASED] * untold)
        return version(self.since) <= oldest and newest < version(self.fixed)


def version(text: str) -> KernelVersion:
    """Read a version of a table.

    Raises:
        ValueError: It is none.
    """
    parsed = versions.parse(text)
    if parsed is None:
        raise ValueError(f"{text!r} is not a version")
    return parsed


@functools.cache
def vulnerabilities() -> tuple[Vulnerability, ...]:
    """Return the packaged table of vulnerabilities.

    Raises:
        YamoriError: The table has a mistake.
    """
    return load(_DATA / "vulnerabilities.toml", "vulnerability", Vulnerability)


@functools.cache
def miscompilers() -> tuple[Miscompiler, ...]:
    """Return the packaged table of compilers.

    Raises:
        YamoriError: The table has a mistake.
    """
    return load(_DATA / "compilers.toml", "compiler", Miscompiler)


def load(path: Path, table: str, kind: type[_Entry]) -> tuple[_Entry, ...]:
    """Read every entry of a table.

    Raises:
        YamoriError: The file cannot be read, or an entry is wrong; names the file and the entry.
    """
    try:
        content: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise YamoriError(f"cannot be read: {error}", where=str(path)) from error
    entries = content.get(table)
    if not isinstance(entries, list) or len(content) > 1:
        raise YamoriError(f"should hold [[{table}]] entries and nothing else", where=str(path))
    read: dict[str, _Entry] = {}
    for index, entry in enumerate(entries):
        label = entry.get("id", f"entry {index + 1}") if isinstance(entry, dict) else f"entry {index + 1}"
        try:
            converted = msgspec.convert(entry, kind)
        except msgspec.ValidationError as error:
            raise YamoriError(f"{label}: {error}", where=str(path)) from error
        if converted.id in read:
            raise YamoriError(f"{label}: named twice", where=str(path))
        read[converted.id] = converted
    return tuple(read.values())


def _check_commit(commit: str) -> None:
    if not 7 <= len(commit) <= 40 or not set(commit) <= set("0123456789abcdef"):
        raise ValueError(f"{commit!r} is not a commit")
