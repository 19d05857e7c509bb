from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from yamori.detectors import versions
from yamori.detectors.trouble_tables import Miscompiler, Vulnerability, load, miscompilers, vulnerabilities
from yamori.errors import YamoriError

BY_ID = {entry.id: entry for entry in vulnerabilities()}


def kernel(text: str) -> versions.KernelVersion:
    version = versions.parse(text)
    assert version, text
    return version


@pytest.mark.parametrize("entry", vulnerabilities(), ids=lambda entry: entry.id)
def test_every_vulnerability_is_sound(entry: Vulnerability) -> None:
    assert len(entry.commit) == 40
    assert entry.id.startswith("CVE-20")
    assert entry.attack.startswith("T1")
    assert not entry.affects(kernel(entry.fixed))
    assert entry.affects(kernel(entry.introduced))
    for fixed in entry.stable:
        last = kernel(fixed)
        assert not entry.affects(last)
        assert entry.affects(last._replace(patch=last.patch - 1))
        assert not entry.affects(last._replace(patch=last.patch + 500))
    ranges = [kernel(text) for text in (entry.introduced, *entry.stable, entry.fixed)]
    assert all(low < high for low, high in pairwise(ranges))


def test_the_table_is_in_order_of_age() -> None:
    numbers = [tuple(map(int, entry.id.split("-")[1:])) for entry in vulnerabilities()]
    assert numbers == sorted(numbers)
    assert len(numbers) >= 20


@pytest.mark.parametrize(
    ("number", "affected", "free"),
    [
        (
            "CVE-2016-5195",
            ["2.6.22", "3.4.112", "3.10.103", "4.5.7", "4.8.2", "4.9-rc1"],
            ["2.6.21", "3.4.113", "3.10.104", "4.8.3", "4.9-rc2", "4.9", "6.1"],
        ),
        (
            "CVE-2022-0847",
            ["5.8-rc1", "5.9.16", "5.10.101", "5.15.24", "5.16.10", "5.17-rc5"],
            ["5.7.19", "5.10.102", "5.15.25", "5.17", "5.4.300"],
        ),
        ("CVE-2023-3269", ["6.1", "6.1.36", "6.2.16", "6.4"], ["6.0.19", "6.1.37", "6.3.11", "6.4.1", "6.5"]),
        (
            "CVE-2024-1086",
            ["3.15", "4.14.336", "5.10.209", "6.1.75", "6.8-rc1"],
            ["3.14.79", "5.10.210", "6.1.76", "6.8"],
        ),
        ("CVE-2026-31431", ["4.14", "6.1.169", "6.17.1"], ["4.13.16", "6.1.170", "7.0"]),
    ],
)
def test_ranges_across_series(number: str, affected: list[str], free: list[str]) -> None:
    entry = BY_ID[number]
    assert [text for text in affected if not entry.affects(kernel(text))] == []
    assert [text for text in free if entry.affects(kernel(text))] == []


@pytest.mark.parametrize(
    ("numbers", "arch", "expected"),
    [
        ((4, 8, 1), "arm", ["GCC-PR58854"]),
        ((4, 8, 3), "arm", []),
        ((4, 8), "arm", []),
        ((4, 8, 1), "x86_64", []),
        ((4, 9), "aarch64", ["GCC-PR63293"]),
        ((4, 9, 4), "aarch64", ["GCC-PR63293"]),
        ((5, 1, 0), "aarch64", []),
        ((4, 9, 1), "x86_64", []),
        ((4, 1, 1), "riscv64", ["GCC-PR27781"]),
        ((3, 2, 3), "arm", ["GCC-PR8896"]),
        ((12, 2, 0), "arm", []),
        ((), "arm", []),
    ],
)
def test_compilers(numbers: tuple[int, ...], arch: str, expected: list[str]) -> None:
    assert [entry.id for entry in miscompilers() if entry.built("gcc", numbers, arch)] == expected
    assert not any(entry.built("clang", numbers, arch) for entry in miscompilers())


GOOD = """
[[vulnerability]]
id = "CVE-1"
title = "t"
severity = "high"
gain = "g"
needs = "n"
attack = "T1068"
introduced = "3.2"
stable = ["3.10.4", "4.1.2"]
fixed = "4.5-rc1"
commit = "0123456789ab"
"""


@pytest.mark.parametrize(
    ("good", "bad", "complaint"),
    [
        ('severity = "high"', 'severity = "awful"', "CVE-1: Invalid enum value 'awful'"),
        ('"3.10.4", "4.1.2"', '"4.1.2", "3.10.4"', "CVE-1: introduced, stable and fixed are not in ascending order"),
        ('"4.1.2"]', '"4.1.2", "4.1.3"]', "CVE-1: a stable series is named twice"),
        ('fixed = "4.5-rc1"', 'fixed = "4.5-rc1"\nunchecked = ["4.1"]', "CVE-1: a stable series is named twice"),
        ('introduced = "3.2"', 'introduced = "soon"', "CVE-1: 'soon' is not a version"),
        ('commit = "0123456789ab"', 'commit = "fix"', "CVE-1: 'fix' is not a commit"),
        ('commit = "0123456789ab"', "", "CVE-1: Object missing required field `commit`"),
        ('gain = "g"', 'gains = "g"', "CVE-1: Object contains unknown field `gains`"),
        ('id = "CVE-1"', "", "entry 1: Object missing required field `id`"),
        ("[[vulnerability]]", "[[fault]]", "should hold [[vulnerability]] entries"),
        ('title = "t"', "title = ", "cannot be read: Invalid value (at line 4"),
    ],
)
def test_a_mistake_is_named_with_file_and_entry(tmp_path: Path, good: str, bad: str, complaint: str) -> None:
    path = tmp_path / "table.toml"
    path.write_text(GOOD)
    assert [entry.id for entry in load(path, "vulnerability", Vulnerability)] == ["CVE-1"]
    path.write_text(GOOD.replace(good, bad))
    with pytest.raises(YamoriError) as caught:
        load(path, "vulnerability", Vulnerability)
    assert str(caught.value).startswith(f"{path}: ")
    assert complaint in str(caught.value)


def test_an_entry_named_twice_and_a_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "table.toml"
    path.write_text(GOOD * 2)
    with pytest.raises(YamoriError, match="CVE-1: named twice"):
        load(path, "vulnerability", Vulnerability)
    with pytest.raises(YamoriError, match="cannot be read"):
        load(tmp_path / "none.toml", "compiler", Miscompiler)
