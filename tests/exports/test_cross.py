"""The core as the compilers of hypervisors take it: no warning, no function of others, small."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from tests.exports.building import CROSS, FLAGS, compiled, has
from tests.kernel.synthetic import ARM, ARM64, Machine, build

from yamori.exports.core import core_source
from yamori.kernel.discovery import discover

MOST_TEXT = {"aarch64": 24 << 10, "armv7l": 28 << 10, "riscv64": 24 << 10}
KERNELS = {"aarch64": ARM64, "armv7l": ARM, "riscv64": ARM64}
HYPERVISOR = ("-std=gnu11", "-nostdlib", "-fno-builtin", "-O2", "-Wall", "-Wextra", "-Werror", "-Wstack-usage=2048")
"""What hypervisors are built with; no word of a free-standing environment."""


def source(machine: Machine) -> str:
    return core_source(discover(build(machine).memory()))


def undefined(prefix: str, made: Path) -> set[str]:
    listed = subprocess.run([f"{prefix}nm", "-u", made], check=True, capture_output=True, text=True).stdout
    return set(listed.split()) - {"U"}


@pytest.mark.parametrize("cpu", CROSS)
def test_cross_compilers_take_it(cpu: str, tmp_path: Path) -> None:
    prefix, flags = CROSS[cpu]
    if not has(prefix):
        pytest.skip(f"{prefix}gcc is not installed")
    text = source(KERNELS[cpu])
    made = compiled(text, tmp_path / "small", prefix, (*FLAGS, *flags))
    assert undefined(prefix, made) == set()
    sizes = subprocess.run([f"{prefix}size", made], check=True, capture_output=True, text=True).stdout.split()
    assert int(sizes[6]) <= MOST_TEXT[cpu]
    assert int(sizes[7]) + int(sizes[8]) <= 8 << 10
    fast = compiled(text, tmp_path / "fast", prefix, (*HYPERVISOR, *flags))
    assert undefined(prefix, fast) == set()


def test_it_is_the_same_text_each_time() -> None:
    assert source(ARM64) == source(ARM64)
    assert source(ARM) != source(ARM64)


def test_it_includes_its_own_header_alone() -> None:
    includes = [line for line in source(ARM64).splitlines() if line.startswith("#include")]
    assert includes == ['#include "ids_core.h"']
