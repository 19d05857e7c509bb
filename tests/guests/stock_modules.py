"""Small modules of the guest's own distribution, put into a lab guest over its console."""

from __future__ import annotations

import base64
import gzip
import lzma
from pathlib import Path

from yamori import lab

NAMES = ("nls_utf8", "nls_ascii", "crc7", "dummy")
"""Modules that need no other, of every Debian kernel."""

PIECE = 2000


def load(vm: lab.Machine, *names: str) -> None:
    """Load modules of the kernel that runs."""
    package = next(folder for folder in Path(vm.record.kernel).parents if list(folder.glob("**/kernel/lib")))
    for name in names:
        path = next(package.glob(f"**/{name}.ko*"))
        data = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
        text = base64.b64encode(gzip.compress(data)).decode()
        assert vm.run(f"mkdir -p /tmp && : > /tmp/{name}.b64") == ("", 0)
        for start in range(0, len(text), PIECE):
            assert vm.run(f"echo {text[start : start + PIECE]} >> /tmp/{name}.b64") == ("", 0)
        loaded = vm.run(f"base64 -d /tmp/{name}.b64 | gunzip > /tmp/{name}.ko && insmod /tmp/{name}.ko")
        assert loaded.status == 0, loaded.output
