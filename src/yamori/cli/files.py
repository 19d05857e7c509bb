"""Files that commands write."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from yamori.cli.output import safe
from yamori.errors import YamoriError

Force = Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")]


def write(data: bytes, path: Path, *, force: bool) -> None:
    """Write a file whole or not at all, and say so; ``-`` is standard output.

    Raises:
        YamoriError: It is there already, or cannot be written.
    """
    if str(path) == "-":
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        return
    if path.exists() and not force:
        raise YamoriError("it is there already", where=str(path), hint="--force replaces it")
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-", delete=False) as stream:
            partial = Path(stream.name)
            try:
                stream.write(data)
                stream.flush()
                mask = os.umask(0)
                os.umask(mask)
                partial.chmod(0o666 & ~mask)
                partial.replace(path)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise YamoriError(f"cannot be written: {error.strerror}", where=str(path)) from error
    sys.stderr.write(f"written: {safe(str(path))} ({_size(len(data))})\n")


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.1f} kB"
