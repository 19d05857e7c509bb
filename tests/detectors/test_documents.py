"""The documents name every detector."""

from __future__ import annotations

from pathlib import Path

from yamori.detectors.check import detectors

PAGE = Path(__file__).resolve().parents[2] / "docs" / "detectors.md"


def test_every_detector_is_described() -> None:
    lines = PAGE.read_text().splitlines()
    listed = [line.split("`")[1] for line in lines if line.startswith("| `")]
    assert sorted(listed) == sorted(one.name for one in detectors())
