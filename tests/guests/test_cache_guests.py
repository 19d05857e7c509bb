"""What is kept between runs, on real guests: the same facts, without a search, also after a reboot."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.guests.devices import DEVICES
from tests.kernel.test_cache import facts, was_recalled

import yamori
from yamori import lab
from yamori.guest import Guest
from yamori.kernel.profile import Profile

pytestmark = pytest.mark.guest


@pytest.fixture(scope="module", params=DEVICES)
def vm(request: pytest.FixtureRequest) -> Iterator[lab.Machine]:
    with lab.machine(request.param) as machine:
        yield machine


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("YAMORI_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def lasting(profile: Profile) -> dict[str, object]:
    """Return the facts without what changes while a guest runs: which lists are empty."""
    said = facts(profile)
    said["init"], said["root"] = said["init"]._replace(votes=0), said["root"]._replace(lists=0)
    said["inferred"] = said["inferred"]["members"], sorted(said["inferred"]["unknown"])
    return said


def attach(vm: lab.Machine, *, cache: bool = True) -> tuple[Guest, float]:
    started = time.process_time()
    return yamori.open(vm.target, cache=cache), time.process_time() - started


def test_second_attach(vm: lab.Machine) -> None:
    fresh, slow = attach(vm)
    again, quick = attach(vm)
    other, _ = attach(vm, cache=False)
    with fresh, again, other:
        assert [was_recalled(guest.kernel) for guest in (fresh, again, other)] == [False, True, False]
        assert lasting(again.profile) == lasting(fresh.profile) == lasting(other.profile)
        assert again.plist().complete
        assert quick * 3 < slow


def test_next_boot_under_the_same_name() -> None:
    """Of the same kernel, at another place: what was decoded serves, what was learnt of the other boot does not."""
    slides = set()
    for boot in range(2):
        with lab.machine("arm64", "rebooted") as vm, attach(vm)[0] as guest, attach(vm, cache=False)[0] as other:
            assert lasting(guest.profile) == lasting(other.profile)
            assert guest.plist().complete
            assert any(step.name == "cache" for step in guest.profile.steps) == bool(boot)
            slides.add(guest.profile.slide)
    assert len(slides) == 2
