"""`yamori shell` with IPython, which is an extra: a small stand-in notes how it is called, and looks at the guest."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.kernel.synthetic import X86, build

from yamori.cli import app as entry
from yamori.llview.language import Helper


class Terminal(io.StringIO):
    """Standard input where somebody types."""

    def isatty(self) -> bool:
        return True


class IPython(ModuleType):
    """The part of IPython that is used."""

    def __init__(self, during: Callable[[dict[str, Any]], None] = lambda _names: None) -> None:
        super().__init__("IPython")
        self.calls: list[list[str]] = []
        self.during = during

    def start_ipython(self, argv: list[str], user_ns: dict[str, Any]) -> None:
        self.calls.append(argv)
        self.during(user_ns)


@pytest.fixture
def prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[io.StringIO, IPython | None], int]:
    """Open a prompt on a synthetic guest; ``None`` is no IPython."""
    image = tmp_path / "ram"
    image.write_bytes(build(X86).ram)

    def opened(typed: io.StringIO, ipython: IPython | None) -> int:
        monkeypatch.setitem(sys.modules, "IPython", ipython)
        monkeypatch.setitem(sys.modules, "readline", None)
        monkeypatch.setattr(sys, "stdin", typed)
        monkeypatch.setattr(sys, "argv", ["yamori", "shell", f"file:{image}", "--ram-base", "0"])
        return entry.run()

    return opened


Prompt = Callable[[io.StringIO, IPython | None], int]
LINE = "kernel.init_task.pid + 40\n"


def test_it_is_used_where_somebody_types(prompt: Prompt, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[object] = []

    def look(names: dict[str, Any]) -> None:
        welcome = capsys.readouterr().out
        assert "for_each_task" in welcome  # IPython's own banner is off
        seen.append(names["kernel"].init_task.comm)
        seen.append([task.pid for task in names["for_each_task"](names["kernel"])][:2])
        seen.append(len(names["guest"].plist()) > 2)

    before = list(sys.path)
    ipython = IPython(look)
    assert prompt(Terminal(LINE), ipython) == 0
    assert ipython.calls == [["--no-banner"]]
    assert seen == ["swapper/0", [1, 2], True]
    assert capsys.readouterr().out == ""  # and Python's own prompt does not follow
    assert sys.path == before
    assert Helper.call_hook is None


def test_what_it_leaves_behind_when_it_fails(prompt: Prompt) -> None:
    def fail(_names: dict[str, Any]) -> None:
        raise RuntimeError

    before = list(sys.path)
    with pytest.raises(RuntimeError):
        prompt(Terminal(), IPython(fail))
    assert sys.path == before
    assert Helper.call_hook is None


def test_it_is_not_used_for_what_is_piped(prompt: Prompt, capsys: pytest.CaptureFixture[str]) -> None:
    ipython = IPython()
    assert prompt(io.StringIO(LINE), ipython) == 0
    assert ipython.calls == []
    assert capsys.readouterr().out == "40\n"


def test_without_it_pythons_own_prompt_serves(prompt: Prompt, capsys: pytest.CaptureFixture[str]) -> None:
    assert prompt(Terminal(LINE), None) == 0
    assert "40\n" in capsys.readouterr().out
