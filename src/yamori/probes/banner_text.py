"""The banner's text taken apart: release, upstream version, compiler, builder and build.

The kernel writes ``linux_banner`` in ``init/version.c`` (``init/version-timestamp.c`` since 6.1) as
``Linux version RELEASE (USER@HOST) (COMPILER) UTS_VERSION``, and ``UTS_VERSION`` as ``#N``, ``SMP``, ``PREEMPT...`` and
the time (``scripts/mkcompile_h``, in later kernels ``init/Makefile``). Debian writes its package's version in
place of the time; Ubuntu puts its own behind it.

The text is the guest's: it is cut to a length, searched by patterns that cannot run wild, and a part that cannot be
read is left empty. Nothing here raises, and nothing is made fit for a terminal.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

import msgspec

LONGEST = 1024
"""Characters of a banner that are looked at; real ones have about 250."""

UpstreamSource = Literal["release", "Debian package", "Ubuntu package"]
"""Which part of the banner names the upstream version."""

_LAYOUT = re.compile(
    r"Linux version (\S{1,128})(?: \(([^()]{0,256})\))?(?: (.*?))??(?: (#\d{1,9}(?:\D.*)?))?", re.ASCII
)
_VERSION = r"(\d{1,5}(?:\.\d{1,5}){1,3})(?:[-~]?rc(\d{1,4}))?"
_RELEASE = re.compile(_VERSION, re.ASCII)
_PACKAGES: tuple[tuple[UpstreamSource, re.Pattern[str]], ...] = (
    ("Debian package", re.compile(rf"\bDebian ((?:\d{{1,3}}:)?{_VERSION}-\S{{1,128}})", re.ASCII)),
    ("Ubuntu package", re.compile(rf"\(Ubuntu (\S{{1,128}}) {_VERSION}\)", re.ASCII)),
)
_COMPILERS: tuple[tuple[Literal["gcc", "clang"], re.Pattern[str]], ...] = (
    ("clang", re.compile(r"\bclang version (\d{1,4}(?:\.\d{1,4}){0,2})", re.ASCII)),
    ("gcc", re.compile(r"gcc\S{0,64} +(?:version )?(\d{1,4}(?:\.\d{1,4}){1,2})", re.ASCII)),
)
_BUILD_TIME = re.compile(
    r"[A-Z][a-z]{2} [A-Z][a-z]{2} {1,2}\d{1,2} \d\d:\d\d:\d\d (?:[A-Za-z0-9+:-]{1,8} )?\d{4}"
    r"|(?<=\()\d{4}-\d\d-\d\d(?=\))",
    re.ASCII,
)


class BannerText(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a banner.

    Attributes:
        release: What ``uname -r`` shows, for example ``6.1.0-50-armmp``; empty where the text is no banner.
        upstream: The upstream version, for example ``6.1.176`` or ``6.1-rc3``; empty where there is none.
        numbers: Its numbers, for example ``(6, 1, 176)``.
        candidate: The number of the release candidate, 0 for a release.
        upstream_source: Where it was read: a distribution's ``release`` often keeps counting from ``.0``, while its
            package's version names the stable release it is based on.
        package: The distribution's package version (``6.1.176-1``); empty where there is none.
        compiler: ``gcc``, ``clang`` or empty.
        compiler_version: The compiler's numbers, as many as it tells.
        compiler_text: What the banner says of compiler and linker.
        builder: The user and host that built the kernel.
        build: Everything from ``#`` on.
        build_number: The number behind ``#``, or ``None``.
        smp: Built for several CPUs.
        preempt: Built with a preemptible kernel of any kind.
        preempt_rt: Built for real time (``PREEMPT_RT``; ``PREEMPT RT`` in older patches).
        build_time: The time of the build as the banner tells it; empty where it does not.
    """

    release: str = ""
    upstream: str = ""
    numbers: tuple[int, ...] = ()
    candidate: int = 0
    upstream_source: UpstreamSource = "release"
    package: str = ""
    compiler: Literal["gcc", "clang", ""] = ""
    compiler_version: tuple[int, ...] = ()
    compiler_text: str = ""
    builder: str = ""
    build: str = ""
    build_number: int | None = None
    smp: bool = False
    preempt: bool = False
    preempt_rt: bool = False
    build_time: str = ""


def parse(banner: str) -> BannerText:
    """Take a banner apart; what cannot be read is left empty."""
    line = banner[:LONGEST].split("\0", 1)[0].split("\n", 1)[0].rstrip()
    match = _LAYOUT.fullmatch(line)
    if not match:
        return BannerText()
    release, builder, compiler_text, build = (part or "" for part in match.groups())
    upstream = _upstream(release, build)
    compiler, compiler_version = _compiler(compiler_text)
    number = re.match(r"#(\d+)", build, re.ASCII)
    words = build.split()
    time = _BUILD_TIME.search(build)
    return BannerText(
        release=release,
        upstream=upstream.text,
        numbers=upstream.numbers,
        candidate=upstream.candidate,
        upstream_source=upstream.source,
        package=upstream.package,
        compiler=compiler,
        compiler_version=compiler_version,
        compiler_text=_unwrapped(compiler_text),
        builder=builder,
        build=build,
        build_number=int(number[1]) if number else None,
        smp="SMP" in words,
        preempt=any(word.startswith("PREEMPT") for word in words),
        preempt_rt="PREEMPT_RT" in words or "PREEMPT RT" in build,
        build_time=time[0] if time else "",
    )


class _Upstream(NamedTuple):
    text: str = ""
    numbers: tuple[int, ...] = ()
    candidate: int = 0
    source: UpstreamSource = "release"
    package: str = ""


def _upstream(release: str, build: str) -> _Upstream:
    """Read the upstream version from the package where one is named, otherwise from the release."""
    match = _RELEASE.match(release)
    if not match:
        return _Upstream()
    own = _numbers(match[1])
    for source, pattern in _PACKAGES:
        named = pattern.search(build)
        # A package of another series is not this kernel's: somebody's build time or host merely looks like one.
        if named and _numbers(named[2])[:2] == own[:2]:
            return _version(named[2], named[3], source, named[1])
    return _version(match[1], match[2], "release", "")


def _version(numbers: str, candidate: str | None, source: UpstreamSource, package: str) -> _Upstream:
    text = f"{numbers}-rc{candidate}" if candidate else numbers
    return _Upstream(text, _numbers(numbers), int(candidate or 0), source, package)


def _compiler(text: str) -> tuple[Literal["gcc", "clang", ""], tuple[int, ...]]:
    """Read name and version: behind ``version`` in old banners, behind the vendor's parentheses since 5.8."""
    plain = _without_parentheses(_unwrapped(text))
    for name, pattern in _COMPILERS:
        match = pattern.search(plain)
        if match:
            return name, _numbers(match[1])
    return "", ()


def _unwrapped(text: str) -> str:
    return text[1:].removesuffix(")").rstrip() if text.startswith("(") else text


def _without_parentheses(text: str) -> str:
    kept: list[str] = []
    depth = 0
    for character in text:
        depth += character == "("
        if not depth:
            kept.append(character)
        depth -= character == ")" and depth > 0
    return "".join(kept)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split("."))
