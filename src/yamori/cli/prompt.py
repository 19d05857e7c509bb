"""The prompt of ``yamori shell``: IPython where it is installed, else Python's own with completion."""

from __future__ import annotations

import code
import importlib
import rlcompleter
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from yamori.cli.output import safe
from yamori.errors import YamoriError
from yamori.probes.live import LiveKernel, LiveNumber, LiveStruct


def interact(names: dict[str, Any], welcome: str) -> None:
    """Run what is typed, or piped, until its end.

    Args:
        names: What is known at the prompt.
        welcome: Printed first, where somebody types.
    """
    watched = sys.stdin.isatty()
    if watched:
        sys.stdout.write(welcome)
        with suppress(ModuleNotFoundError):
            ipython = importlib.import_module("IPython")
            with _one_line_errors():
                ipython.start_ipython(argv=["--no-banner"], user_ns=names)
            return
        with suppress(ModuleNotFoundError):  # a Python without readline
            readline = importlib.import_module("readline")
            readline.set_completer(Completer(names).complete)
            readline.parse_and_bind("tab: complete")
    _Console(names).interact(banner="", exitmsg="")


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Let IPython show an error of ours as one line: it asks the error itself (``showtraceback``)."""
    name = "_render_traceback_"
    setattr(YamoriError, name, lambda error, *_: [safe(str(error))])
    try:
        yield
    finally:
        delattr(YamoriError, name)


class _Console(code.InteractiveConsole):
    """A prompt where an error of ours is one line; none is written where nobody types."""

    def raw_input(self, prompt: str = "") -> str:
        return super().raw_input(prompt if sys.stdin.isatty() else "")

    def showtraceback(self) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, YamoriError):
            sys.stderr.write(f"{safe(str(error))}\n")
        else:
            super().showtraceback()


class Completer(rlcompleter.Completer):
    """Completes members of live objects without loading each of them, as the usual completer would."""

    def __init__(self, names: dict[str, Any]) -> None:
        super().__init__(names)
        self._names = names

    def attr_matches(self, text: str) -> list[str]:
        """Return what an expression with dots can become."""
        before, _, last = text.rpartition(".")
        first, *path = before.split(".")
        thing = self._names.get(first)
        try:
            for name in path:
                thing = getattr(thing, name)
        except (YamoriError, AttributeError):
            return []
        if not isinstance(thing, LiveStruct | LiveKernel | LiveNumber):
            return super().attr_matches(text)
        known = thing.names_(last) if isinstance(thing, LiveKernel) and last else dir(thing)
        return [f"{before}.{name}" for name in known if name.startswith(last)]
