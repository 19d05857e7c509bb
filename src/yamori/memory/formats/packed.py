"""Images that are packed whole: gzip, zlib (LiME's ``compress=1``), bzip2, xz, zstd.

Nothing in such a stream can be found without all that is before it. So it is unpacked once, into a file without a name
that is gone with its last user; zeros are left as holes. It lies in ``$TMPDIR``, else in /var/tmp, which
file-hierarchy(7) has for large files: /tmp may be memory.
"""

from __future__ import annotations

import bz2
import errno
import lzma
import os
import tempfile
import zlib
from collections.abc import Iterator
from typing import Any, Protocol

from yamori.errors import TargetError
from yamori.hypervisors.vm import Source
from yamori.memory.codecs import zstd_library
from yamori.memory.formats import Unpacked
from yamori.memory.formats.lime import MAGIC as LIME
from yamori.memory.source import File

_BLOCK = 1 << 16
_INPUT = 1 << 18
_MOST = 1 << 38
"""256 GiB. Whoever has a larger image unpacks it, so that a file of a few bytes cannot keep a program busy for days."""
_LZMA_MEMORY = 1 << 28
_DIRECTORY = "/var/tmp"  # noqa: S108  files without a name cannot be tampered with
_ZLIB_MAGICS = tuple(bytes([first, second]) for first in range(0x08, 0x80, 0x10) for second in range(256)
                     if (first << 8 | second) % 31 == 0 and not second & 0x20)  # fmt: skip
"""RFC 1950: any window, any level, no preset dictionary. LiME's are 38 and something."""
_NAMES = {b"\x1f\x8b\x08": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_NAMES.update({bytes([0x50 + number]) + b"\x2a\x4d\x18": "zstd" for number in range(16)})
MAGICS = (*_NAMES, *_ZLIB_MAGICS)


class _Unpacker(Protocol):
    """What Python's own modules for compression share."""

    @property
    def eof(self) -> bool:
        """Whether the stream has ended."""

    @property
    def needs_input(self) -> bool:
        """Whether nothing more can be unpacked of what was given."""

    @property
    def unused_data(self) -> bytes:
        """What was given from behind the stream's end."""

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """Return up to ``max_length`` bytes more."""


def parse(source: Source, where: str) -> Unpacked | None:
    """Unpack an image.

    Raises:
        TargetError: It is damaged or cut short, there is no room for it, or a library is missing.
    """
    head = source.read(8, 0)
    name = next((name for magic, name in _NAMES.items() if head.startswith(magic)), "zlib")
    kind = _Kind(name, where)
    if name == "zlib" and not _holds_lime(source):
        return None
    return Unpacked(_spooled(_unpacked(source, kind, where), where), f"packed with {name}; unpacked into a file")


class _Kind:
    """One method: how to begin with a stream, and what goes wrong with it."""

    def __init__(self, name: str, where: str) -> None:
        self._name = name
        self._zstd: Any = zstd_library(where) if name == "zstd" else None
        self.errors = (zlib.error, lzma.LZMAError, OSError, EOFError, *((self._zstd.ZstdError,) if self._zstd else ()))

    def begin(self) -> _Unpacker:
        """Return what unpacks one stream; several may follow each other."""
        if self._name == "bzip2":
            return bz2.BZ2Decompressor()
        if self._name == "xz":
            return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_LZMA_MEMORY)
        if self._zstd:
            unpacker: _Unpacker = self._zstd.ZstdDecompressor()
            return unpacker
        return _Zlib(31 if self._name == "gzip" else 15)


class _Zlib:
    """zlib with the manners of the others: what it has not come to, it keeps itself."""

    def __init__(self, window: int) -> None:
        self._unpacker = zlib.decompressobj(window)

    @property
    def eof(self) -> bool:
        return self._unpacker.eof

    @property
    def unused_data(self) -> bytes:
        return self._unpacker.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._unpacker.unconsumed_tail

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        return self._unpacker.decompress(self._unpacker.unconsumed_tail + data, max_length)


def _holds_lime(source: Source) -> bool:
    """Say whether a zlib stream is a LiME image. Two bytes alone, the first of a raw image, may look like one."""
    try:
        return zlib.decompressobj().decompress(source.read(4096, 0), len(LIME)) == LIME
    except zlib.error:
        return False


def _unpacked(source: Source, kind: _Kind, where: str) -> Iterator[bytes]:
    """Yield the image in blocks of up to 64 KiB, without an empty one."""
    at, unpacker, data, fresh, ended = 0, kind.begin(), b"", True, False
    while True:
        if not data and (fresh or unpacker.needs_input):
            data = _input(source, at, where)
            at += len(data)
            ended = not data
        if fresh and not data.strip(b"\0"):  # padding behind the last stream, as gzip(1) allows
            if ended:
                return
            data = b""
            continue
        try:
            block = unpacker.decompress(data, _BLOCK)
        except kind.errors as error:
            raise TargetError(f"it cannot be unpacked: {error}", where=where, hint="it is damaged") from None
        fresh, data = False, b""
        if block:
            yield block
        if unpacker.eof:
            data, unpacker, fresh = unpacker.unused_data, kind.begin(), True
        elif ended and not block:
            raise TargetError("it ends before its packed contents do", where=where, hint="it was cut short")


def _input(source: Source, at: int, where: str) -> bytes:
    try:
        return source.read(_INPUT, at)
    except OSError as error:
        raise TargetError(f"cannot be read: {error.strerror}", where=where) from None


def _spooled(blocks: Iterator[bytes], where: str) -> Source:
    """Write an image into a file without a name; zeros become holes."""
    directory = os.environ.get("TMPDIR") or _DIRECTORY
    size = 0
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            fd = file.fileno()
            for block in blocks:
                if block.strip(b"\0"):
                    _write(fd, block, size)
                size += len(block)
                if size > _MOST:
                    raise TargetError(
                        f"it unpacks into more than {_MOST >> 30} GiB", where=where, hint="unpack it first"
                    )
            os.ftruncate(fd, size)
            return File(os.dup(fd))
    except OSError as error:
        hint = "unpack it yourself, or let $TMPDIR name a directory with room"
        raise TargetError(f"no room to unpack it in {directory}: {error.strerror}", where=where, hint=hint) from None


def _write(fd: int, block: bytes, at: int) -> None:
    """Write all of a block. The system writes a part of it where the disk becomes full within it."""
    if os.pwrite(fd, block, at) != len(block):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
