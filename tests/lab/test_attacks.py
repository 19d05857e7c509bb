"""The attacks of the lab, without a guest: what is written about each, and that none runs anywhere else."""

from __future__ import annotations

import subprocess

import pytest

from yamori.detectors.check import detectors
from yamori.lab.attacks import WORD, attacks
from yamori.lab.attacks.modules import PROGRAMS, SOURCES, names
from yamori.lab.devices import DEVICES


@pytest.mark.parametrize("name", attacks())
def test_attack(name: str) -> None:
    one = attacks()[name]
    assert one.title
    assert one.technique.startswith("T1")
    assert {one.detector, *one.also.split()} <= {detector.name for detector in detectors()}
    assert one.undo.strip()
    assert not one.module or (SOURCES / f"{one.module}.c").is_file()
    assert not one.program or (PROGRAMS / f"{one.program}.c").is_file()
    for script in (one.script, one.undo):
        assert subprocess.run(["sh", "-n"], input=script.encode(), check=False).returncode == 0


def test_every_module_is_for_the_lab_only() -> None:
    used = {one.module for one in attacks().values()} - {""}
    found = {path.stem for path in SOURCES.glob("*.c")}
    assert used == found
    for path in SOURCES.glob("*.c"):
        text = path.read_text()
        assert '#include "guard.h"' in text
        start = text.partition("__init start(void)")[2]
        assert start.index("lab_only()") < start.index("if (error)\n\t\treturn error;")
    assert f'"{WORD}"' in (SOURCES / "guard.h").read_text()
    assert all(WORD in device.append.split() for device in DEVICES.values())


def test_every_program_is_for_the_lab_only() -> None:
    assert {one.program for one in attacks().values()} - {""} == {path.stem for path in PROGRAMS.glob("*.c")}
    assert f'word[] = "{WORD}"' in (PROGRAMS / "lab.h").read_text()
    for path in PROGRAMS.glob("*.c"):
        text = path.read_text()
        assert '#include "lab.h"' in text
        body = text.partition("void _start(void)")[2]
        assert body.index("if (in_lab())") < body.index("call(")


@pytest.mark.parametrize(
    ("release", "common", "tools"),
    [
        ("5.10.0-32-armmp", "5.10.0-32", "5.10"),
        ("6.1.0-50-armmp-lpae", "6.1.0-50", "6.1"),
        ("6.1.0-56-cloud-arm64", "6.1.0-56", "6.1"),
        ("6.12.117+deb13-cloud-amd64", "6.12.117+deb13", "6.12.117+deb13"),
    ],
)
def test_names_of_headers(release: str, common: str, tools: str) -> None:
    assert names(release) == (common, tools)
