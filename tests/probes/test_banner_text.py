from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yamori.probes.banner_text import LONGEST, BannerText, parse

DEBIAN = (
    "Linux version 6.1.0-50-armmp (debian-kernel@lists.debian.org) (arm-linux-gnueabihf-gcc-12 (Debian "
    "12.2.0-14+deb12u1) 12.2.0, GNU ld (GNU Binutils for Debian) 2.40) #1 SMP Debian 6.1.176-1 (2026-07-03)\n\0junk"
)
OLD = (
    "Linux version 3.18.20 (root@host) (gcc version 4.8.3 20140320 (prerelease) (Sourcery CodeBench Lite 2014.05-29) )"
    " #17 SMP PREEMPT Wed Feb 5 10:00:00 CST 2020"
)
UBUNTU = (
    "Linux version 5.15.0-91-generic (buildd@lcy02-amd64-045) (gcc (Ubuntu 11.4.0-1ubuntu1~22.04) 11.4.0, GNU ld (GNU"
    " Binutils for Ubuntu) 2.38) #101-Ubuntu SMP Tue Nov 14 13:30:08 UTC 2023 (Ubuntu 5.15.0-91.101-generic 5.15.131)"
)
ANDROID = (
    "Linux version 5.4.61-android11-2-00064-g4271ad6e8ade-ab6991359 (build-user@build-host) (Android (6443078 based on"
    " r383902) clang version 11.0.1 (https://android.googlesource.com/toolchain/llvm-project b397f81060ce), LLD 11.0.1)"
    " #1 SMP PREEMPT Sat Nov 21 02:56:57 UTC 2020"
)


def test_debian_names_the_stable_release_in_its_package() -> None:
    assert parse(DEBIAN) == BannerText(
        release="6.1.0-50-armmp",
        upstream="6.1.176",
        numbers=(6, 1, 176),
        upstream_source="Debian package",
        package="6.1.176-1",
        compiler="gcc",
        compiler_version=(12, 2, 0),
        compiler_text=(
            "arm-linux-gnueabihf-gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0, GNU ld (GNU Binutils for Debian) 2.40"
        ),
        builder="debian-kernel@lists.debian.org",
        build="#1 SMP Debian 6.1.176-1 (2026-07-03)",
        build_number=1,
        smp=True,
        build_time="2026-07-03",
    )


def test_an_old_banner_of_a_maker() -> None:
    text = parse(OLD)
    assert (text.upstream, text.upstream_source) == ("3.18.20", "release")
    assert (text.compiler, text.compiler_version) == ("gcc", (4, 8, 3))
    assert (text.builder, text.build_number, text.build_time) == ("root@host", 17, "Wed Feb 5 10:00:00 CST 2020")
    assert text.smp
    assert text.preempt
    assert not text.preempt_rt


def test_ubuntu_names_the_stable_release_behind_the_time() -> None:
    text = parse(UBUNTU)
    assert (text.upstream, text.upstream_source) == ("5.15.131", "Ubuntu package")
    assert (text.package, text.build_number) == ("5.15.0-91.101-generic", 101)


def test_android_is_built_with_clang() -> None:
    text = parse(ANDROID)
    assert (text.upstream, text.compiler, text.compiler_version) == ("5.4.61", "clang", (11, 0, 1))
    assert text.build_time == "Sat Nov 21 02:56:57 UTC 2020"


@pytest.mark.parametrize(
    ("compiler", "expected"),
    [
        ("gcc version 4.9.x 20150123 (prerelease) (GCC) ", ("gcc", (4, 9))),
        (
            "arm-none-linux-gnueabihf-gcc (GNU Toolchain 10.3-2021.07 (arm-10.29)) 10.3.1 20210621, GNU ld 2.36",
            ("gcc", (10, 3, 1)),
        ),
        (
            "arm-buildroot-linux-gnueabihf-gcc.br_real (Buildroot 2021.02) 9.3.0, GNU ld (GNU Binutils) 2.35.2",
            ("gcc", (9, 3, 0)),
        ),
        (
            "mips-openwrt-linux-musl-gcc (OpenWrt GCC 8.4.0 r16279) 8.4.0, GNU ld (GNU Binutils) 2.34",
            ("gcc", (8, 4, 0)),
        ),
        ("Debian clang version 14.0.6, Debian LLD 14.0.6", ("clang", (14, 0, 6))),
        (
            "clang version 10.0.1 (https://example.org/gcc 1.2.3), GNU ld (binutils-2.27) 2.27.0.2017",
            ("clang", (10, 0, 1)),
        ),
        ("tcc 0.9.27", ("", ())),
        ("gcc ((((", ("", ())),
    ],
)
def test_compilers(compiler: str, expected: tuple[str, tuple[int, ...]]) -> None:
    text = parse(f"Linux version 5.10.1 (a@b) ({compiler}) #1 SMP Wed Feb 5 10:00:00 CST 2020")
    assert (text.compiler, text.compiler_version) == expected


@pytest.mark.parametrize(
    ("release", "build", "upstream", "source"),
    [
        ("4.14.98-imx_4.14.98_2.0.0_ga+g5d6cbeafb80c", "#1 SMP", "4.14.98", "release"),
        ("4.9.337+", "#1 SMP", "4.9.337", "release"),
        ("2.6.32.64", "#1", "2.6.32.64", "release"),
        ("6.1.0-rc3-amd64", "#1 SMP Debian 6.1~rc3-1~exp1 (2022-11-02)", "6.1-rc3", "Debian package"),
        ("6.12.0-rc7", "#1 SMP", "6.12.0-rc7", "release"),
        ("6.6.31+rpt-rpi-v8", "#1 SMP PREEMPT Debian 1:6.6.31-1+rpt1 (2024-05-29)", "6.6.31", "Debian package"),
        ("4.18.0", "#1 SMP Debian 6.1.176-1 (2026-07-03)", "4.18.0", "release"),
        ("custom", "#1 SMP Debian 6.1.176-1 (2026-07-03)", "", "release"),
    ],
)
def test_upstream_versions(release: str, build: str, upstream: str, source: str) -> None:
    text = parse(f"Linux version {release} (a@b) (gcc version 4.9.2 (GCC) ) {build}")
    assert (text.upstream, text.upstream_source) == (upstream, source)
    assert ".".join(map(str, text.numbers)) == upstream.partition("-")[0]
    assert text.candidate == int(upstream.partition("-rc")[2] or 0)


@pytest.mark.parametrize(
    ("flags", "smp", "preempt", "real_time"),
    [
        ("", False, False, False),
        ("SMP", True, False, False),
        ("SMP PREEMPT_DYNAMIC", True, True, False),
        ("SMP PREEMPT_RT", True, True, True),
        ("PREEMPT RT", False, True, True),
    ],
)
def test_flags(flags: str, smp: bool, preempt: bool, real_time: bool) -> None:
    text = parse(f"Linux version 5.10.1 (a@b) (gcc version 4.9.2 (GCC) ) #2 {flags} Wed Feb 5 10:00:00 CST 2020")
    assert (text.smp, text.preempt, text.preempt_rt) == (smp, preempt, real_time)


def test_what_is_missing_is_empty() -> None:
    assert parse("") == parse("Windows NT") == parse("Linux version") == BannerText()
    assert parse("Linux version 4.9.1").upstream == "4.9.1"
    assert parse("Linux version 4.9.1 # SMP").build_number is None
    assert parse("Linux version %s (a@b) (gcc version 4.9.2) # SMP").upstream == ""


PIECES = st.sampled_from(
    [
        "Linux version ",
        "6.1.0-50",
        " (",
        ")",
        " #",
        "1",
        "SMP",
        " Debian ",
        "6.1.1-1",
        "gcc",
        " version ",
        "٣",
        "\x1b[31m",
        "9" * 40,
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.text(max_size=300), st.lists(PIECES, max_size=60).map("".join)))
def test_hostile_text_is_bounded_and_never_raises(text: str) -> None:
    for banner in (text, "Linux version " + text, DEBIAN.partition("#")[0] + "#" + text):
        parsed = parse(banner)
        assert all(
            len(part) <= LONGEST for part in (parsed.release, parsed.compiler_text, parsed.build, parsed.package)
        )
        assert all(0 <= number < 10**5 for number in (*parsed.numbers, *parsed.compiler_version))


def test_the_worst_text_takes_no_time() -> None:
    for piece in ("(", " #1", " gcc", "gcc (", "Debian 1.", "6.1"):
        assert parse("Linux version 6.1.1 (a) " + piece * 100_000).release == "6.1.1"
