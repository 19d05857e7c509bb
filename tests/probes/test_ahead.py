from __future__ import annotations

from pathlib import Path

import pytest

from yamori.llview import objects
from yamori.llview.native import Native
from yamori.probes import ahead


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(ahead, "_folder", lambda: tmp_path)
    ahead.built.cache_clear()
    ahead.build(tmp_path, [None])
    ahead.built.cache_clear()
    return tmp_path


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
    monkeypatch.setattr(ahead, "_sources", lambda: "0" * 32)
    ahead.built.cache_clear()
    assert ahead.built(8) is None
    before = {path.name for path in folder.rglob("*.pickle")}
    ahead.build(folder, [None])
    after = {path.name for path in folder.rglob("*.pickle")}
    assert len(after) == len(ahead.WORD_SIZES)
    assert not before & after


@pytest.fixture(autouse=True)
def _forget() -> object:
    yield
    ahead.built.cache_clear()
