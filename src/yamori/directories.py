"""Whose a directory is: what lies in a cache is used only where nobody else could have put it there."""

from __future__ import annotations

import os
import stat
from pathlib import Path

_OTHERS_WRITE = 0o022


def cache_base() -> Path:
    """Return the user's directory for caches: ``$XDG_CACHE_HOME``, else ``~/.cache``.

    Raises:
        RuntimeError: There is no home.
    """
    given = os.environ.get("XDG_CACHE_HOME", "")
    return Path(given) if given.startswith("/") else Path.home() / ".cache"


def is_ours(directory: Path) -> bool:
    """Say whether only this user, and root, can change what lies in a directory, or move it away.

    Raises:
        OSError: It cannot be looked at.
    """
    status = directory.lstat()
    return status.st_uid == os.geteuid() and not status.st_mode & _OTHERS_WRITE and is_safe(directory)


def is_safe(directory: Path) -> bool:
    """Say whether nobody but this user, and root, can move away what is theirs in a directory.

    With ``sudo`` the home is often another user's: what lies there must not be loaded by root, nor made root's.

    Args:
        directory: A path without symbolic links.

    Raises:
        OSError: It cannot be looked at.
    """
    for part in (directory, *directory.parents):
        status = part.lstat()
        # In a sticky directory others can add, but not move away what is not theirs.
        open_to_all = status.st_mode & _OTHERS_WRITE and not status.st_mode & stat.S_ISVTX
        if status.st_uid not in {os.geteuid(), 0} or open_to_all:
            return False
    return True


def make(directory: Path) -> None:
    """Make a directory of this user's own where it is not there yet, and what is missing above it.

    Raises:
        OSError: It cannot be made, or others can write to it.
    """
    for part in reversed([directory, *directory.parents]):
        if not part.exists():  # each with a mode of its own, which no umask opens to a group
            part.mkdir(mode=0o700, exist_ok=True)
    if not is_ours(directory):
        raise PermissionError
