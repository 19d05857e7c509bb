"""Learning a baseline from a guest, and writing it for people to edit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
import tomlkit
from tomlkit.exceptions import ParseError
from tomlkit.items import AoT, Array

from yamori.detectors.baseline import (
    VERSION,
    Allowed,
    Baseline,
    BaselineError,
    Tables,
    functions,
    listens,
    matches,
    parsed,
    text_of,
)
from yamori.detectors.view import View
from yamori.errors import YamoriError
from yamori.records import Process, Program


def learned(view: View) -> Baseline:
    """Return what a guest runs now; what cannot be told of it becomes no section."""
    calls = _whole(view, lambda: functions(view.calls()))
    return Baseline(
        version=VERSION,
        process=_processes(view),
        modules=_whole(view, lambda: sorted({module.name for module in view.modules()})),
        listening=_whole(view, lambda: sorted({at for row in view.sockets() if (at := listens(row))})),
        tables=Tables(view.profile.banner, calls) if calls is not None else None,
    )


def _processes(view: View) -> list[Allowed]:
    rows: Iterable[Process]
    try:
        rows = view.programs()
    except YamoriError as error:
        view.lacks.append(str(error))
        rows = view.processes()
    users: dict[tuple[str, str | None], set[int]] = {}
    for row in rows:
        if not row.kthread:
            path = row.executable if isinstance(row, Program) else None
            users.setdefault((row.comm, path), set()).update(uid for uid in (row.uid, row.euid) if uid is not None)
    ordered = sorted(users.items(), key=lambda one: (one[0][0], one[0][1] or ""))
    return [Allowed(name, path, sorted(uids)) for (name, path), uids in ordered]


def _whole(view: View, section: Callable[[], list[str]]) -> list[str] | None:
    """Return a section, or ``None`` where it is not all there is: what is missing would be found every time."""
    before = len(view.lacks)
    try:
        found = section()
    except YamoriError as error:
        view.lacks.append(str(error))
    return found if len(view.lacks) == before else None


HEAD = """\
What this device is meant to run. Edit it: `yamori check --baseline` finds what is not here.
A * in a name or path stands for anything. A section that is taken out is not looked at.
A process may have `executable` and `users`, or neither; with `required = true` it is missed when it is gone.
"""


def text(baseline: Baseline) -> str:
    """Return a baseline as a file for people."""
    document = tomlkit.document()
    for line in HEAD.splitlines():
        document.add(tomlkit.comment(line))
    document["version"] = baseline.version
    if baseline.modules is not None:
        document["modules"] = _array(baseline.modules)
    if baseline.listening is not None:
        document["listening"] = _array(baseline.listening)
    document["process"] = tomlkit.aot()
    _add(document, baseline.process or [])
    if baseline.tables:
        tables = tomlkit.table()
        tables["kernel"] = baseline.tables.kernel
        tables["system_calls"] = _array(baseline.tables.system_calls)
        document["tables"] = tables
    return tomlkit.dumps(document)


def text_with(path: Path, baseline: Baseline) -> str:
    """Return a baseline's file with what it does not have yet, and all that was written there by hand.

    Raises:
        BaselineError: It cannot be read, or is none.
    """
    before = text_of(path)
    known = parsed(before, path)
    try:
        document = tomlkit.parse(before)
    except ParseError as error:
        raise BaselineError(f"it is no baseline: {error}", where=str(path)) from error
    if known.process is not None:
        new = [one for one in baseline.process or [] if not any(old.includes(one) for old in known.process)]
        if "process" not in document or not isinstance(document["process"], AoT):
            raise BaselineError("its processes are not written as [[process]]", where=str(path))
        _add(document, new)
    for section in ("modules", "listening"):
        patterns = getattr(known, section) or []
        for name in getattr(baseline, section) or [] if getattr(known, section) is not None else ():
            if not any(matches(pattern, name) for pattern in patterns):
                document[section].add_line(name)
    return tomlkit.dumps(document)


def _array(names: Iterable[str]) -> Array:
    array = tomlkit.array()
    for name in names:
        array.add_line(name)
    array.multiline(multiline=True)
    return array


def _add(document: tomlkit.TOMLDocument, processes: Iterable[Allowed]) -> None:
    for one in processes:
        table = tomlkit.table()
        table.update(
            {key: value for key, value in msgspec.to_builtins(one).items() if value is not None and value is not False}
        )
        document["process"].append(table)
