"""A small store of files between runs, for what took long to learn of a kernel.

Whatever goes wrong with it costs time and nothing else: an entry that is missing, damaged, of another version or of
another name is none, and a directory that is missing, full, read-only or somebody else's is an empty one.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self, TypeVar

import msgspec

from yamori import __version__
from yamori.directories import cache_base, is_ours, is_safe, make

T = TypeVar("T")

FORMAT = 1
"""Grows whenever what an entry holds, or what it means, changes."""

VERSION = f"yamori {__version__} profiles {FORMAT} {sys.byteorder}".encode()
"""Part of every entry's digest: what another version wrote is not read."""

LARGEST = 48 << 20
"""Bytes of the largest entry that is written or read; a distribution's kernel has 12 MB of symbols."""

MOST_BYTES = 256 << 20
MOST_ENTRIES = 512

_DIGEST = hashlib.sha256().digest_size
_SUFFIX = ".profile"
_UNFINISHED = ".part"


class Store:
    """Entries by name, each whole or not there at all.

    Args:
        directory: Where they lie, ours alone; ``None`` keeps nothing.
    """

    def __init__(self, directory: Path | None) -> None:
        self.directory = directory

    @classmethod
    def usual(cls, *, wanted: bool = True) -> Self:
        """Return the user's own: ``$XDG_CACHE_HOME/yamori/profiles``.

        It keeps nothing where it is not wanted, where ``YAMORI_CACHE=0`` says so, where there is no home, and where
        others can write.
        """
        return cls(_directory() if wanted and os.environ.get("YAMORI_CACHE") != "0" else None)

    def load(self, name: str) -> memoryview | None:
        """Return an entry; ``None`` where there is none that can be trusted to be what was saved."""
        if self.directory is None:
            return None
        path = self.directory / (name + _SUFFIX)
        with suppress(OSError):
            data = _read(path)
            payload = memoryview(data)[_DIGEST:]
            if data[:_DIGEST] == _digest(name, payload):
                os.utime(path)  # those longest not used are dropped first
                return payload
            path.unlink()
        return None

    def save(self, name: str, payload: bytes) -> None:
        """Write an entry; of two at once the last is kept, whole."""
        if self.directory is None or len(payload) > LARGEST - _DIGEST:
            return
        with suppress(OSError):
            make(self.directory)
            path = self.directory / (name + _SUFFIX)
            with _written(path) as descriptor, os.fdopen(descriptor, "wb") as file:
                file.write(_digest(name, payload))
                file.write(payload)
                file.flush()
                os.fsync(file.fileno())  # what is renamed before that may be empty after a power cut
            self._make_room(path)

    def drop(self, name: str) -> None:
        """Forget an entry."""
        if self.directory is not None:
            with suppress(OSError):
                (self.directory / (name + _SUFFIX)).unlink()

    def _make_room(self, keep: Path) -> None:
        """Drop the entries longest not used, and what a run that was cut off left behind."""
        assert self.directory is not None  # noqa: S101  # save's condition
        entries = []
        for path in self.directory.iterdir():
            with suppress(FileNotFoundError):  # another process makes room, too
                status = path.lstat()
                if path != keep and path.suffix in {_SUFFIX, _UNFINISHED}:
                    entries.append((status.st_mtime, status.st_size, path))
        entries.sort(key=lambda entry: entry[0], reverse=True)
        total = keep.lstat().st_size
        for number, (_, size, path) in enumerate(entries, 1):
            total += size
            if total > MOST_BYTES or number >= MOST_ENTRIES:
                path.unlink(missing_ok=True)


NOWHERE = Store(None)
"""Keeps nothing."""


def unpacked(payload: memoryview | None, kind: type[T]) -> T | None:
    """Return what an entry's payload says; ``None`` where it is none of that kind."""
    if payload is None:
        return None
    try:
        return msgspec.msgpack.decode(payload, type=kind)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None


def _digest(name: str, payload: bytes | memoryview) -> bytes:
    digest = hashlib.sha256(b"%s\0%s\0" % (VERSION, name.encode()))
    digest.update(payload)
    return digest.digest()


def _read(path: Path) -> bytes:
    """Read a file of ours; nothing that somebody else may change while it is read."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_size > LARGEST:
            return b""
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(LARGEST)
    finally:
        os.close(descriptor)


@contextmanager
def _written(path: Path) -> Iterator[int]:
    """Yield a new file's descriptor; the file gets its name once it is whole."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}-{os.urandom(4).hex()}{_UNFINISHED}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(unfinished, flags, 0o600)
    try:
        yield descriptor
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def _directory() -> Path | None:
    try:
        directory = cache_base() / "yamori" / "profiles"
        there = next(part for part in (directory, *directory.parents) if part.exists())
        whole = there == directory
        resolved = there.resolve()
        # What is not there yet is made when something is to be saved.
        safe = is_ours(resolved) if whole else is_safe(resolved)
        return resolved / directory.relative_to(there) if safe else None
    except (OSError, RuntimeError):  # RuntimeError: there is no home
        return None
