from __future__ import annotations

import pytest


@pytest.fixture(autouse=True, scope="session")
def _no_cache_of_this_machine() -> None:
    """Let no test meet what an earlier run learnt; those of the cache say where it lies."""
    patch = pytest.MonkeyPatch()
    patch.setenv("YAMORI_CACHE", "0")
