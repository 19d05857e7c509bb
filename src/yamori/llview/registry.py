"""Where probes are found: among the built-in ones, in a file of the user's, in other packages.

Another package adds probes by entry points of the group ``yamori.probes``, each naming one::

    [project.entry-points."yamori.probes"]
    modules = "acme_probes.modules:modules"
"""

from __future__ import annotations

import importlib
import inspect
import linecache
import pkgutil
import sys
import traceback
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import ModuleType

from yamori.errors import YamoriError
from yamori.llview.language import Probe
from yamori.records import Row

GROUP = "yamori.probes"
"""The entry-point group."""


class ProbeError(YamoriError):
    """There is no such probe, or the file that should hold it cannot be used."""


def find(name: str, builtin: ModuleType) -> Probe:
    """Return the probe of a name: ``FILE``, ``FILE:NAME``, or what a package provides.

    Args:
        name: As the user gives it. Whatever ends in ``.py``, or has a slash, is a file.
        builtin: The package whose modules hold the built-in probes.

    Raises:
        ProbeError: There is none, or there are several.
    """
    file, wanted = _split(name)
    if file is not None:
        return _choose(in_file(file), file, wanted)
    known = in_package(builtin)
    if name in known:
        return known[name]
    for entry in metadata.entry_points(group=GROUP):
        if entry.name == name:
            return _loaded(entry)
    names = ", ".join(sorted({*known, *names_of_others()}))
    raise ProbeError(f"there is no probe {name!r}", hint=f"there are {names}, and files as in ./my.py or ./my.py:NAME")


def in_package(package: ModuleType) -> dict[str, Probe]:
    """Return the probes of a package's modules by name; where a module has but one, by the module's name, too."""
    found: dict[str, Probe] = {}
    for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        probes = list(_of(importlib.import_module(info.name)))
        found |= {probe.name: probe for probe in probes}
        if len(probes) == 1:
            found.setdefault(info.name.rpartition(".")[2], probes[0])
    return found


def names_of_others() -> list[str]:
    """Return the names of the probes that other packages add; nothing is imported."""
    return sorted({entry.name for entry in metadata.entry_points(group=GROUP)})


def in_file(path: Path) -> list[Probe]:
    """Import a file, which runs it, and return the probes that it defines, in its order.

    Raises:
        ProbeError: There is no such file, it is no Python, cannot be imported, or has no probe.
    """
    if not path.is_file():
        raise ProbeError("it is a directory" if path.is_dir() else "there is no such file", where=str(path))
    probes = list(_of(_imported(path.resolve())))
    if not probes:
        raise ProbeError("it has no probe", where=str(path), hint="mark a function with @probe(row=...)")
    return [_with_rows(probe, str(path)) for probe in probes]


def load(name: str, builtin: ModuleType) -> list[Probe]:
    """Return all probes of ``FILE``, or the one that ``find`` returns.

    Raises:
        ProbeError: As ``in_file`` and ``find``.
    """
    file, wanted = _split(name)
    return in_file(file) if file is not None and not wanted else [find(name, builtin)]


def _split(name: str) -> tuple[Path | None, str]:
    """Return the file that a name means, if it means one, and the probe's name in it."""
    if Path(name).is_file():
        return Path(name), ""
    before, colon, after = name.rpartition(":")
    file, wanted = (before, after) if colon and after.isidentifier() else (name, "")
    return (Path(file), wanted) if file.endswith(".py") or "/" in file else (None, "")


def _choose(probes: list[Probe], file: Path, wanted: str) -> Probe:
    names = ", ".join(probe.name for probe in probes)
    if not wanted and len(probes) > 1:
        raise ProbeError(f"it has several probes: {names}", where=str(file), hint=f"say {file}:{probes[0].name}")
    for probe in probes:
        if wanted in {"", probe.name}:
            return probe
    raise ProbeError(f"it has no probe {wanted!r}", where=str(file), hint=f"there are {names}")


def _of(module: ModuleType) -> Iterator[Probe]:
    """Yield the probes of a module, without those that it imports."""
    for thing in vars(module).values():
        if isinstance(thing, Probe) and thing.function.__module__ == module.__name__:
            yield thing


def _loaded(entry: metadata.EntryPoint) -> Probe:
    where = f"entry point {entry.value}"
    try:
        loaded = entry.load()
    except Exception as error:  # another package's code may raise anything
        raise ProbeError(f"it cannot be imported: {_words(error)}", where=where) from error
    if not isinstance(loaded, Probe):
        raise ProbeError("it is no probe", where=where)
    return _with_rows(loaded, where)


def _with_rows(probe: Probe, where: str) -> Probe:
    """Return a probe whose rows every command can show."""
    row = probe.row
    if not isinstance(row, type) or not issubclass(row, Row) or not _positional(row):
        what = f"the rows of {probe.name} are none: {getattr(row, '__name__', row)}"
        raise ProbeError(what, where=where, hint="say class MyRow(Row, frozen=True), with Row of yamori.records")
    return probe


def _positional(row: type[Row]) -> bool:
    """Say whether rows can be made without naming their fields, which is quicker."""
    return all(parameter.kind is not parameter.KEYWORD_ONLY for parameter in inspect.signature(row).parameters.values())


def _imported(path: Path) -> ModuleType:
    """Import a file as a module of its own; beside it lie what it imports, as with ``python FILE``."""
    try:
        compiled = compile(path.read_bytes(), str(path), "exec")
    except (SyntaxError, ValueError) as error:  # ValueError: a NUL
        where = f"{path}:{getattr(error, 'lineno', None) or 1}:{getattr(error, 'offset', None) or 1}"
        raise ProbeError(f"this is no Python: {getattr(error, 'msg', error)}", where=where) from error
    except OSError as error:
        raise ProbeError(f"it cannot be read: {error.strerror}", where=str(path)) from error
    linecache.checkcache(str(path))
    name = f"file:{path}".replace(".", "_")
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # types of the language are looked up by their module's name
    sys.path.insert(0, str(path.parent))
    try:
        exec(compiled, vars(module))  # noqa: S102  this is what importing a file means; no __pycache__ is left
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        del sys.modules[name]
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = f"{path}:{lines[-1]}" if lines else str(path)
        raise ProbeError(f"it cannot be imported: {_words(error)}", where=where) from error
    finally:
        sys.path.remove(str(path.parent))
    return module


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".replace("\n", " ")
