from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yamori.detectors.versions import RELEASED, KernelVersion, parse


def test_the_order_is_the_kernels() -> None:
    texts = [
        "2.6.12",
        "2.6.32",
        "2.6.32.64",
        "3.0-rc1",
        "3.0",
        "4.9",
        "4.9.337",
        "4.10",
        "6.1-rc3",
        "6.1-rc10",
        "6.1",
        "6.1.9",
        "6.1.176",
    ]
    parsed = [parse(text) for text in texts]
    assert None not in parsed
    assert parsed == sorted(version for version in parsed if version)


def test_spellings_of_one_version() -> None:
    assert parse("6.1") == parse("6.1.0") == parse("v6.1") == KernelVersion(6, 1)
    assert parse("6.1-rc3") == parse("v6.1.0-rc3") == parse("6.1~rc3")


@pytest.mark.parametrize(
    ("text", "series"), [("6.1.176", "6.1"), ("6.1-rc3", "6.1"), ("2.6.32.64", "2.6.32"), ("3.0.101", "3.0")]
)
def test_series(text: str, series: str) -> None:
    version = parse(text)
    assert version
    assert version.series == series


@pytest.mark.parametrize(
    "text", ["", "6.1.0-50-armmp", "6.1.", "rc3", "6..1", "6.1.1.1.1", "6.1-rc", "٣.1", "9" * 5000]
)
def test_what_is_no_version(text: str) -> None:
    assert parse(text) is None


NUMBERS = st.integers(0, 999)


@given(st.builds(KernelVersion, st.integers(1, 999), NUMBERS, NUMBERS, NUMBERS, st.one_of(NUMBERS, st.just(RELEASED))))
def test_text_and_back(version: KernelVersion) -> None:
    assert parse(str(version)) == version
