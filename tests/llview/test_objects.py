"""Compiled units as files: found, kept, made anew, refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.llview.native_programs import (
    machine,
)
from tests.llview.test_native import TROUBLED, UNIT, WALKER

from yamori import directories
from yamori.llview import layout, objects
from yamori.llview.c_backend import c_source
from yamori.llview.engine import choose
from yamori.llview.native import Native, NativeError
from yamori.llview.unit import Unit


def test_objects_are_kept_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("YAMORI_NATIVE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(directories, "is_ours", lambda directory: directory.is_relative_to(tmp_path))
    monkeypatch.setattr(directories, "is_safe", lambda directory: directory.is_relative_to(tmp_path))
    unit = Unit("demo", (TROUBLED,), (WALKER,))
    for expected in ("compiler", "cache"):
        with objects.find(c_source(unit)) as found:
            assert found.why == expected
            assert found.path is not None
            assert Native(unit, found.path).run(TROUBLED, machine(b"", 8, WALKER), [], budget=1).rows == [(1,)]
    cache = tmp_path / "yamori" / "llview" / objects.this_machine()
    assert [path.name for path in cache.iterdir()] == [f"{objects.key(c_source(unit))}.so"]
    monkeypatch.setenv("YAMORI_NATIVE", "0")
    with objects.find(c_source(unit)) as found:
        assert found == (None, "YAMORI_NATIVE=0 says so")


def test_a_cache_that_others_can_write_to_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("YAMORI_NATIVE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    directory = tmp_path / "yamori" / "llview" / objects.this_machine()
    directory.mkdir(parents=True)
    directory.chmod(0o777)
    unit = Unit("demo", (TROUBLED,), (WALKER,))
    text = c_source(unit)
    (directory / f"{objects.key(text)}.so").write_bytes(b"planted")
    with objects.find(text) as found:
        assert found.path is not None
        assert found.path.parent != directory
        Native(unit, found.path)
    assert not found.path.exists()


@pytest.mark.parametrize("content", [b"", b"\x7fELF cut short"])
def test_an_object_in_the_cache_that_cannot_be_loaded_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.delenv("YAMORI_NATIVE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(directories, "is_ours", lambda directory: directory.is_relative_to(tmp_path))
    monkeypatch.setattr(directories, "is_safe", lambda directory: directory.is_relative_to(tmp_path))
    unit = Unit("demo", (TROUBLED,), (WALKER,))
    path = tmp_path / "yamori" / "llview" / objects.this_machine() / f"{objects.key(c_source(unit))}.so"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    engine, _, why = choose(unit, TROUBLED, machine(b"", 8, WALKER), compiling=True)
    assert isinstance(engine, Native), why
    assert path.read_bytes()[:4] == b"\x7fELF"
    whole = path.read_bytes()
    path.unlink()  # it is loaded
    path.write_bytes(whole[: len(whole) // 2])
    with objects.find(c_source(unit), compiling=False) as found:
        assert found.path is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    path = tmp_path / "other" / path.relative_to(tmp_path)
    path.parent.mkdir(parents=True)
    path.write_bytes(whole[:4] + b"\xff" + whole[5:])  # whole, but for no machine
    engine, _, why = choose(Unit("demo", (TROUBLED,), (WALKER,)), TROUBLED, machine(b"", 8, WALKER), compiling=False)
    assert not isinstance(engine, Native)
    assert "cannot be loaded" in why
    assert not path.exists()


def test_a_cache_that_is_made_is_open_to_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("YAMORI_NATIVE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home" / "cache"))
    monkeypatch.setattr(directories, "is_safe", lambda _: True)  # of the folder of tests
    before = os.umask(0o002)
    try:
        with objects.find(c_source(Unit("demo", (TROUBLED,), (WALKER,)))) as found:
            assert found.path is not None
            made = [part for part in found.path.parents if part.is_relative_to(tmp_path) and part != tmp_path]
            assert [part.stat().st_mode & 0o777 for part in made] == [0o700] * 5
    finally:
        os.umask(before)


def test_nothing_is_made_in_a_directory_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root with the home of a user, as ``sudo`` has it: the user must be able to make a cache later."""
    monkeypatch.delenv("YAMORI_NATIVE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if os.getuid() == 0:
        os.chown(tmp_path, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with objects.find(c_source(Unit("demo", (TROUBLED,), (WALKER,)))) as found:
        assert found.path is not None
        assert not found.path.is_relative_to(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_a_compiler_there_is_no_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("YAMORI_NATIVE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with objects.find(c_source(Unit("demo", (TROUBLED,), (WALKER,)))) as found:
        assert found == (None, "there is no C compiler")


def test_what_is_no_object_of_the_unit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "unit.so"
    path.write_bytes(b"nothing")
    with pytest.raises(NativeError, match="cannot be loaded"):
        Native(UNIT, path)
    unit = Unit("demo", (TROUBLED,), (WALKER,))
    objects.build(c_source(unit), path)
    with pytest.raises(NativeError, match="cannot be loaded"):
        Native(UNIT, path)
    monkeypatch.setattr(layout, "VERSION", 1)
    with pytest.raises(NativeError, match="another version"):
        Native(unit, path)


def test_what_the_compiler_says_is_told(tmp_path: Path) -> None:
    with pytest.raises(objects.BuildError, match="the C compiler refused"):
        objects.build("int f(void) { return nothing; }", tmp_path / "unit.so")
    assert list(tmp_path.iterdir()) == []
