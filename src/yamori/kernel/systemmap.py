"""Symbols from a file that the maker hands over: a ``System.map``, or a copy of ``/proc/kallsyms``.

Both hold lines of ``address type name``, as ``nm`` prints them (``scripts/mksysmap``, ``kernel/kallsyms.c`` of the
kernel tree). ``System.map`` has link-time addresses; the KASLR slide is for the caller to find.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from yamori.errors import ProfileError
from yamori.kernel.symbols import Symbol, Symbols

_MAX_SIZE = 64 << 20
_STUB = b"The real System.map is in"
_LINE = re.compile(rb"([0-9a-fA-F]{8}|[0-9a-fA-F]{16}) ([A-Za-z?]) ([!-~]+)(\s+\[[!-~]+\])?")


def load(path: str | Path) -> Symbols:
    """Read a ``System.map`` or a copy of ``/proc/kallsyms``.

    Symbols of modules, which ``/proc/kallsyms`` marks with the module's name in brackets, are left out: they come and
    go with the module.

    Args:
        path: The file.

    Raises:
        ProfileError: The file cannot be read, is not of that form (with file and line), is the stub that Debian
            installs, or was copied while the kernel hid its addresses.
    """
    text = _read(Path(path))
    if _STUB in text[:200]:
        where = text.split(_STUB, 1)[1].decode(errors="replace").strip()
        raise ProfileError("only a stub", where=str(path), hint=f"the real System.map is in {where}")
    symbols = Symbols(_lines(text, str(path)), "system.map")
    if not len(symbols):
        raise ProfileError("holds no symbols", where=str(path), hint="give a System.map or a copy of /proc/kallsyms")
    if all(symbol.address == 0 for symbol in symbols):
        raise ProfileError(
            "every address is zero, because the kernel hid them",
            where=str(path),
            hint="copy /proc/kallsyms as root, with kernel.kptr_restrict at 0 or 1",
        )
    return symbols


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_SIZE + 1)
    except OSError as error:
        raise ProfileError(f"cannot be read: {error.strerror}", where=str(path)) from error
    if len(text) > _MAX_SIZE:
        raise ProfileError("too large for a System.map", where=str(path))
    return text


def _lines(text: bytes, path: str) -> Iterator[Symbol]:
    match = _LINE.fullmatch
    for number, line in enumerate(text.splitlines(), 1):
        found = match(line)
        if found is None:
            raise ProfileError(
                f"not a line of the form 'address type name': {line[:60].decode(errors='backslashreplace')!r}",
                where=f"{path}:{number}",
                hint="give a System.map or a copy of /proc/kallsyms",
            )
        address, kind, name, module = found.groups()
        if module is None:
            yield Symbol(int(address, 16), kind.decode(), name.decode())
