from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from yamori.address import GPA, GVA
from yamori.errors import MemoryFault
from yamori.llview import ahead as stored
from yamori.llview import frontend, objects, python_backend
from yamori.llview.language import Walker
from yamori.llview.native import Native
from yamori.llview.python_backend import python_source
from yamori.llview.verify import verify
from yamori.memory.physical import BytesMemory
from yamori.probes import ahead
from yamori.translation import aarch64
from yamori.translation import format as formats
from yamori.translation.loads import PhysicalLoads


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is built ahead, compiled once for all tests."""
    made = tmp_path_factory.mktemp("built")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored, "folder", lambda: made)
        forget()
        ahead.build(made, [None])
        forget()
    return made


@pytest.fixture
def folder(everything: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    own = tmp_path / "built"
    shutil.copytree(everything, own)
    monkeypatch.setattr(stored, "folder", lambda: own)
    return own


def test_what_is_built_ahead(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = folder / objects.this_machine()
    for word_size in ahead.WORD_SIZES:
        unit = ahead.built(word_size)
        assert unit
        assert {program.name for program in unit.probes} == {probe.name for probe in ahead.probes()}
        native = Native(unit, machine / f"{unit.object}.so")  # it is the object of just this unit
        assert native
    (folder / "old.pickle").write_bytes(b"")

    def compiler(*_: object) -> None:
        pytest.fail("compiled what was there")

    monkeypatch.setattr(objects, "build", compiler)
    ahead.build(folder, [None])


def test_what_was_built_of_other_sources_is_not_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "sources", lambda: "0" * 32)
    ahead.built.cache_clear()
    assert ahead.built(8) is None
    before = {path.name for path in folder.rglob("*.pickle")}
    ahead.build(folder, [None])
    after = {path.name for path in folder.rglob("*.pickle")}
    assert len(after) == len(ahead.WORD_SIZES)
    assert not before & after


def test_texts_are_those_of_the_programs(folder: Path) -> None:
    for word_size in ahead.WORD_SIZES:
        unit = ahead.built(word_size)
        assert unit
        programs = (*unit.probes, *unit.walkers)
        assert unit.texts == {program.name: python_source(program) for program in programs}


def test_walkers_built_ahead_are_only_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = verify(frontend.compile_walker(aarch64.walk))

    def compiler(*_: object) -> None:
        pytest.fail("compiled what was there")

    monkeypatch.setattr(frontend, "compile_walker", compiler)
    monkeypatch.setattr(python_backend, "python_source", compiler)
    walker = formats.program(aarch64.walk, 8)
    assert walker == made
    with pytest.raises(MemoryFault):
        next(aarch64.geometries()).walk(PhysicalLoads(BytesMemory({})), GPA(0), GVA((1 << 64) - 1))


def test_walkers_are_compiled_where_nothing_was_built_ahead(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    built = formats.program(aarch64.walk, 8)
    forget()
    monkeypatch.setattr(stored, "folder", lambda: tmp_path_factory.mktemp("empty"))
    compiled = formats.program(aarch64.walk, 8)
    assert compiled == built
    assert compiled is not built


def test_only_the_rooms_own_walkers_are_taken_by_name(folder: Path) -> None:
    def walk(root: int, gva: int) -> int:
        return root + gva

    walk.__module__ = "elsewhere.aarch64"
    assert formats.program(Walker(walk), 8) != formats.program(aarch64.walk, 8)


def forget() -> None:
    for remembered in (ahead.built, formats.program, formats.compiled, formats.bound):
        remembered.cache_clear()


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    yield
    forget()
