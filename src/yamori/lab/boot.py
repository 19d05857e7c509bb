"""Waiting for a guest to boot: until the shell on its serial console answers, or it is clear that none will."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from yamori.errors import LabError
from yamori.lab.console import LOG, Console
from yamori.lab.packages import Progress
from yamori.lab.qemu import last_words


def wait_for_shell(state: Path, name: str, alive: Callable[[], bool], timeout: float, progress: Progress) -> None:
    """Return when the guest's shell answers.

    Args:
        state: The VM's state directory.
        name: What to call it.
        alive: Says whether its QEMU still runs.
        timeout: Seconds that booting may take.
        progress: Told how far it is.

    Raises:
        LabError: The VM ended or its shell did not answer in time; says what the console showed last.
    """
    deadline = time.monotonic() + timeout
    progress("booting")
    try:
        with _console(state, name, alive, deadline) as console:
            console.wait_for_prompt(deadline - time.monotonic())
            progress("trying the shell")
            console.run(":", max(10.0, deadline - time.monotonic()))
    except LabError as error:
        if alive():
            raise LabError(f"did not reach a shell: {last_lines(state)}", where=name, hint=error.message) from error
        said = last_words(state) or last_lines(state)
        raise LabError(f"ended while it booted: {said}", where=name) from error


def last_lines(state: Path, count: int = 4) -> str:
    """Return the last lines that the guest put on its console, made fit for one line of ours."""
    text = ""
    with suppress(OSError):
        text = (state / LOG).read_bytes()[-16000:].decode("ascii", "replace")
    lines = [line for raw in text.splitlines() if (line := re.sub(r"[^ -~]", "?", raw).strip())]
    panics = [line for line in lines if "Kernel panic" in line]  # registers and call traces come after it
    return " | ".join(panics[:1] or lines[-count:]) or "its console stayed silent"


def _console(state: Path, name: str, alive: Callable[[], bool], deadline: float) -> Console:
    """Return the console once QEMU has made its socket."""
    while True:
        try:
            return Console(state, name)
        except LabError:
            if not alive() or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
