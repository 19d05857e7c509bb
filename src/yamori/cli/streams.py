"""The process's standard streams: what cannot be written is an error of one line, and nothing breaks at the very end.

Python alone would end in a traceback and exit code 1 or 120 when the output's file system is full, or its file closed.
"""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

from yamori.errors import YamoriError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class OutputError(YamoriError):
    """Standard output cannot be written."""


class ReaderGoneError(Exception):
    """Whoever read our standard output has seen enough, as in ``yamori plist | head``."""


class _Output(io.FileIO):
    """Standard output. Only the first write that fails says so: what is buffered by then has nowhere to go."""

    _failed = False

    def write(self, data: ReadableBuffer, /) -> int:
        if self._failed:
            return memoryview(data).nbytes
        try:
            return super().write(data)
        except BrokenPipeError:
            self._failed = True
            raise ReaderGoneError from None
        except OSError as error:
            self._failed = True
            raise OutputError(f"cannot write the output: {error.strerror}") from None


class _Messages(io.FileIO):
    """Standard error. Where it cannot be written, there is nobody to tell, and the exit code has to do."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def prepare() -> None:
    """Replace the standard streams of this process with ours."""
    for number in range(3):
        _occupy(number)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115  a number, for the whole run
    # A terminal or pipe may not be able to show every character, such as the branches of a tree.
    sys.stdout = _text(_Output(1, "wb", closefd=False), sys.stdout)
    sys.stderr = _text(_Messages(2, "wb", closefd=False), sys.stderr, lines=True)


def _occupy(number: int) -> None:
    """Keep the number of a stream that was closed (``>&-``) from going to the next file that is opened.

    It is opened the wrong way round, so that using it is the error that it was; only standard error takes anything.
    """
    try:
        os.fstat(number)
    except OSError:
        null = os.open(os.devnull, os.O_RDONLY if number == 1 else os.O_WRONLY)
        if null != number:
            os.dup2(null, number)
            os.close(null)


def _text(raw: io.FileIO, like: TextIO | None, *, lines: bool = False) -> io.TextIOWrapper:
    encoding = like.encoding if like is not None else None
    buffer = io.BufferedWriter(raw)
    return io.TextIOWrapper(buffer, encoding, errors="backslashreplace", line_buffering=lines or raw.isatty())
