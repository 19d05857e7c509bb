"""Finding probes: built-in ones, in files, from other packages; and what is said of files that cannot be used."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest

from yamori import probes
from yamori.llview import registry
from yamori.llview.language import Probe
from yamori.llview.registry import ProbeError

HEAD = """
from __future__ import annotations
from yamori.llview.language import Kernel, Struct, emit, probe, s32
from yamori.records import Row
class task_struct(Struct):
    pid: s32
class Symbols(Kernel):
    init_task: task_struct
class One(Row, frozen=True):
    pid: int
"""
PROBE = """
@probe(row=One)
def {name}(kernel: Symbols) -> None:
    emit(pid=kernel.init_task.pid)
"""


def write(directory: Path, *names: str, head: str = HEAD, tail: str = "") -> Path:
    path = directory / "my.py"
    path.write_text(head + "".join(PROBE.format(name=name) for name in names) + tail, encoding="utf-8")
    return path


def test_in_a_file(tmp_path: Path) -> None:
    path = write(tmp_path, "one")
    found = registry.find(str(path), probes)
    assert (found.name, found.row.__name__) == ("one", "One")
    assert sys.path[0] != str(tmp_path)


def test_several_in_a_file(tmp_path: Path) -> None:
    path = write(tmp_path, "one", "two")
    assert [probe.name for probe in registry.load(str(path), probes)] == ["one", "two"]
    assert registry.find(f"{path}:two", probes).name == "two"
    assert [probe.name for probe in registry.load(f"{path}:one", probes)] == ["one"]
    with pytest.raises(ProbeError, match="several probes: one, two"):
        registry.find(str(path), probes)
    with pytest.raises(ProbeError, match="no probe 'three'; there are one, two"):
        registry.find(f"{path}:three", probes)


def test_a_file_imports_what_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "beside_this_one.py").write_text("NUMBER = 3\n", encoding="utf-8")
    path = write(tmp_path, "one", tail="import beside_this_one\nassert beside_this_one.NUMBER == 3\n")
    assert registry.load(str(path), probes)[0].name == "one"


def test_an_imported_probe_is_not_the_files_own(tmp_path: Path) -> None:
    path = write(tmp_path, "one", tail="from yamori.probes.plist import tasks\n")
    assert [probe.name for probe in registry.load(str(path), probes)] == ["one"]


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("def f(:\n", ":1:7", "this is no Python"),
        ("x = 1\n\nraise RuntimeError('a\\nb')\n", ":3", "it cannot be imported: RuntimeError: a b"),
        ("import there_is_no_such_module\n", ":1", "ModuleNotFoundError"),
        ("", "", "it has no probe; mark a function with @probe"),
        ("\0\x7fELF", "", "this is no Python"),
        ("x = '\udcff'\n", "", "no Python"),
        ("from __future__ import annotations\n" * 2 + "import sys; sys.exit(4)", "", "cannot be imported: SystemExit"),
        (HEAD.replace("Row, frozen=True", "object") + PROBE.format(name="one"), "", "the rows of one are none: One"),
        (HEAD.replace("frozen=True", "frozen=True, kw_only=True") + PROBE.format(name="one"), "", "the rows of one"),
    ],
    ids=["syntax", "raises", "import", "no probe", "binary", "not UTF-8", "exits", "no rows", "rows by name only"],
)
def test_files_that_cannot_be_used(tmp_path: Path, text: str, where: str, what: str) -> None:
    path = tmp_path / "my.py"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    paths = list(sys.path)
    with pytest.raises(ProbeError) as caught:
        registry.load(str(path), probes)
    assert str(caught.value).startswith(f"{path}{where}")
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sys.path == paths


def test_no_such_file_and_no_such_probe(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match="no such file"):
        registry.load(str(tmp_path / "none.py"), probes)
    with pytest.raises(ProbeError, match="no such file"):
        registry.find("./none.py:one", probes)
    with pytest.raises(ProbeError, match=r"there is no probe 'nothing'; there are .*plist"):
        registry.find("nothing", probes)


def test_built_in() -> None:
    assert registry.find("plist", probes) is registry.find("tasks", probes)


def test_entry_points(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (own,) = registry.load(str(write(tmp_path, "one")), probes)
    module = ModuleType("acme_probes")
    vars(module).update(one=own, number=3)
    monkeypatch.setitem(sys.modules, "acme_probes", module)
    entries = [
        metadata.EntryPoint("acme", "acme_probes:one", registry.GROUP),
        metadata.EntryPoint("wrong", "acme_probes:number", registry.GROUP),
        metadata.EntryPoint("gone", "acme_gone:one", registry.GROUP),
    ]
    monkeypatch.setattr(metadata, "entry_points", lambda *, group: entries if group == registry.GROUP else [])
    assert isinstance(registry.find("acme", probes), Probe)
    assert registry.names_of_others() == ["acme", "gone", "wrong"]
    with pytest.raises(ProbeError, match="entry point acme_probes:number: it is no probe"):
        registry.find("wrong", probes)
    with pytest.raises(ProbeError, match="entry point acme_gone:one: it cannot be imported: ModuleNotFoundError"):
        registry.find("gone", probes)
    with pytest.raises(ProbeError, match=r"there are acme, .*gone, "):
        registry.find("nothing", probes)
