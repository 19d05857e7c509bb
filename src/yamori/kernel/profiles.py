"""A folder of makers' profiles: the one that is of the kernel which runs is found by its build id, or its banner."""

from __future__ import annotations

import zlib
from pathlib import Path

import msgspec

from yamori.errors import ProfileError
from yamori.kernel.given import Given
from yamori.kernel.portable import HEAD, load
from yamori.kernel.profile import Profile

FIRST = 1 << 12
"""Bytes of a profile, unpacked, among which the banner and the build id are: they come first."""


def of_kernel(folder: Path, kernel: Profile) -> Given | None:
    """Return the profile in a folder that is of a kernel; ``None`` where none is.

    What is in the files is not believed: what the guest holds is compared with all of it on attach.

    Args:
        folder: Where they lie; what is no profile is passed over.
        kernel: What is known of the kernel without them.

    Raises:
        ProfileError: The folder cannot be read, or the profile is damaged.
    """
    build_id = kernel.vmcoreinfo.build_id if kernel.vmcoreinfo else ""
    wanted = [msgspec.msgpack.encode(text) for text in (build_id, kernel.banner) if text]
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file())
    except OSError as error:
        raise ProfileError(f"cannot be read: {error.strerror}", where=str(folder)) from error
    heads = {path: _head(path) for path in files}
    for text in wanted:
        for path, head in heads.items():
            if text in head:
                return load(path).given(str(path))
    return None


def _head(path: Path) -> bytes:
    """Return the first bytes of a profile, unpacked; nothing of any other file."""
    try:
        with path.open("rb") as file:
            data = file.read(len(HEAD) + FIRST)
        return zlib.decompressobj().decompress(data[len(HEAD) :], FIRST) if data.startswith(HEAD) else b""
    except (OSError, zlib.error):
        return b""
