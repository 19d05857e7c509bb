"""What is kept between commands, as a user sees it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.conftest import Run
from tests.kernel.synthetic import ARM64, build


def test_doctor_says_what_came_from_the_cache(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("YAMORI_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    image = tmp_path / "ram"
    image.write_bytes(build(ARM64).ram)
    first, second, told, without = (
        run("doctor", f"file:{image}", *words) for words in ((), (), ("--json",), ("--no-cache",))
    )
    assert "RAM was not searched" not in first.out + without.out
    assert "scan of RAM" in first.out
    assert "known from last time, kallsyms decoded before; all proved anew, RAM was not searched" in second.out
    assert "scan of RAM" not in second.out
    assert told.json()["rows"][0]["name"] == "cache"
    assert "scan of RAM" in without.out


def test_rows_are_the_same(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("YAMORI_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    image = tmp_path / "ram"
    image.write_bytes(build(ARM64).ram)
    for command in ("plist", "syscall", "banner"):
        said = [run(command, f"file:{image}", "--json", *words).json()["rows"] for words in ((), (), ("--no-cache",))]
        assert said[0] == said[1] == said[2] != []
