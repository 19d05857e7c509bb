"""How single pages and blocks of an image are packed: each is unpacked into a size that is known beforehand.

zlib is Python's, LZO is ours (``lzo.py``: its usual library is under the GPL), Snappy and zstd come with the extra
``images``; zstd is Python's own from 3.14 on.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from importlib import import_module
from typing import Any

from yamori.errors import TargetError
from yamori.memory import lzo
from yamori.memory.lzo import DamagedError

Codec = Callable[[bytes, int], bytes]
"""Unpacks bytes into exactly that many, or raises ``DamagedError``; never takes much more memory than that."""


def codec(name: str, where: str) -> Codec:
    """Return what unpacks ``zlib``, ``lzo``, ``snappy`` or ``zstd``.

    Args:
        name: The method.
        where: The image's name, for errors.

    Raises:
        TargetError: It needs a library that is not installed.
    """
    if name == "snappy":
        return _snappy(library("cramjam", "Snappy", where).snappy)
    if name == "zstd":
        return _zstd(zstd_library(where))
    if name == "lzo":
        return lzo.unpack
    return _zlib


def zstd_library(where: str) -> Any:
    """Return the module of Python 3.14's ``compression.zstd``, or what stands in for it.

    Raises:
        TargetError: It is not installed.
    """
    return library("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd", "zstd", where)


def library(module: str, what: str, where: str) -> Any:
    """Import a library of the extra ``images``.

    Raises:
        TargetError: It is not installed.
    """
    try:
        return import_module(module)
    except ImportError:
        hint = "install yamori[images]"
        raise TargetError(f"it is packed with {what}, for which a library is missing", where=where, hint=hint) from None


def _zlib(data: bytes, size: int) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        found = unpacker.decompress(data, size)
        # The end of the stream, with its checksum, may be behind the last byte.
        rest = unpacker.decompress(unpacker.unconsumed_tail, 1)
    except zlib.error as error:
        raise DamagedError(str(error)) from None
    return _checked(found, size, whole=unpacker.eof and not rest)


def _snappy(snappy: Any) -> Codec:
    def unpack(data: bytes, size: int) -> bytes:
        buffer = bytearray(size)
        try:
            made = snappy.decompress_raw_into(data, buffer)
        except Exception as error:  # the library's own class descends from nothing else  # noqa: BLE001
            raise DamagedError(str(error)) from None
        return _checked(bytes(buffer), size, whole=made == size)

    return unpack


def _zstd(zstd: Any) -> Codec:
    def unpack(data: bytes, size: int) -> bytes:
        unpacker = zstd.ZstdDecompressor()
        try:
            found = unpacker.decompress(data, size)
            rest = b"" if unpacker.eof else unpacker.decompress(b"", 1)
        except zstd.ZstdError as error:
            raise DamagedError(str(error)) from None
        return _checked(found, size, whole=unpacker.eof and not rest)

    return unpack


def _checked(data: bytes, size: int, *, whole: bool) -> bytes:
    if len(data) != size or not whole:
        raise DamagedError("it unpacks into another size")
    return data
