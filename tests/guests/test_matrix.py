"""The fast subset of the matrix: kernels and page tables that no other test boots. `make matrix` runs all of it."""

from __future__ import annotations

import pytest
from matrix.cells import FAST, cells, product
from matrix.judge import judged

pytestmark = pytest.mark.guest

EVERY = {cell.name: cell for cell in cells()}


@pytest.mark.parametrize("name", FAST)
def test_cell(name: str) -> None:
    verdict = judged(EVERY[name])
    if verdict.skipped:
        pytest.skip(verdict.skipped)
    assert verdict.wrong == []
    assert verdict.processes > 40
    assert not verdict.contradicted


def test_what_is_left_out_is_counted() -> None:
    pytest.skip(f"{len(EVERY) - len(FAST)} cells of `make matrix`, and {product() - len(EVERY)} that nobody runs")
