from __future__ import annotations

import pytest

from yamori.kernel.uts import Uts, live_banners
from yamori.memory.physical import BytesMemory

RELEASE = "5.15.0-91-generic"
VERSION = "#101-Ubuntu SMP Tue Nov 14 13:30:08 UTC 2023"
UTS = Uts(0, "host", RELEASE, VERSION, "x86_64", proved=True)
START = f"Linux version {RELEASE} (buildd@lcy02) (gcc (Ubuntu 11.4.0) 11.4.0) "


def banners(text: str) -> list[tuple[int, str]]:
    return live_banners(BytesMemory({0: text.encode().ljust(4096, b"\0")}), UTS, [0])


@pytest.mark.parametrize("package", ["", " (Ubuntu 5.15.0-91.101-generic 5.15.131)"])
def test_banner_ends_with_the_version_or_with_the_package(package: str) -> None:
    banner = f"{START}{VERSION}{package}"
    assert banners(f"{banner}\n") == [(0, banner)]


@pytest.mark.parametrize(
    "text",
    [
        f"{START}{VERSION}",  # no newline: a copy
        f"{START}{VERSION}9\n",
        f"{START}{VERSION} (Ubuntu\n",
        f"{START}#102-Ubuntu SMP\n",
        f"{START.replace('5.15', '5.16')}{VERSION}\n",
    ],
)
def test_other_banners_are_not_the_live_one(text: str) -> None:
    assert banners(text) == []
