"""Bytes of the exported commands (``yamori export xvisor``) as the cross compilers of devices make them.

Alone: ``python -m benchmarks.sizes``. The port and the command are compiled against the tests' own stand-in for the
hypervisor's headers, which makes them as large as in the real tree within a few dozen bytes.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import yamori
from yamori import lab
from yamori.exports.xvisor import xvisor_files

HEADERS = Path(__file__).parents[1] / "tests" / "exports" / "stub"
FLAGS = ("-std=gnu11", "-nostdlib", "-ffreestanding", "-fno-builtin", "-O2")
COMPILERS = {
    "arm64": ("aarch64-linux-gnu-", ("-mgeneral-regs-only",)),
    "armv7": ("arm-linux-gnueabi-", ("-march=armv7-a", "-msoft-float", "-marm")),
    "armv7-lpae": ("arm-linux-gnueabi-", ("-march=armv7ve", "-msoft-float", "-marm")),
}


def installed(device: str) -> bool:
    """Say whether the cross compiler of a device is there."""
    return shutil.which(f"{COMPILERS[device][0]}gcc") is not None


def sizes(device: str) -> dict[str, Any]:
    """Boot a device, export the commands for its kernel, compile them, and return their bytes."""
    prefix, flags = COMPILERS[device]
    with tempfile.TemporaryDirectory(prefix="yamori-sizes-") as name:
        folder = Path(name)
        with lab.machine(device) as vm, yamori.open(vm.target) as guest:
            for file, content in xvisor_files(guest.kernel).items():
                (folder / file).write_bytes(content)
            release = guest.release
        objects: list[Path] = []
        for source in sorted(folder.glob("*.c")):
            objects.append(source.with_suffix(".o"))
            command = [f"{prefix}gcc", *FLAGS, *flags, f"-I{HEADERS}", "-c", str(source), "-o", str(objects[-1])]
            subprocess.run(command, check=True, capture_output=True)
        listed = subprocess.run([f"{prefix}size", *objects], check=True, capture_output=True, text=True).stdout
        rows = [line.split() for line in listed.splitlines()[1:]]
    parts = {Path(row[5]).stem: int(row[0]) for row in rows}
    data = sum(int(row[1]) + int(row[2]) for row in rows)
    return {"device": device, "kernel": release, "parts": parts, "text": sum(parts.values()), "data": data}


if __name__ == "__main__":
    for kind in filter(installed, COMPILERS):
        found = sizes(kind)
        print(f"{kind:<10} {found['kernel']:<24} text {found['text']:>6} data {found['data']:>5}  {found['parts']}")
