"""Package names, and fetching through an apt that stands in for the real one."""

from __future__ import annotations

from pathlib import Path

import pytest

from yamori.errors import LabError
from yamori.lab import packages
from yamori.lab.packages import kernel_dependency, kernels

NAMES = [
    "linux-image-armmp",
    "linux-image-6.1.0-9-armmp",
    "linux-image-6.1.0-50-armmp",
    "linux-image-6.1.0-50-armmp-dbg",
    "linux-image-6.1.0-51-rt-armmp",
    "linux-image-6.1.0-52-armmp-lpae",
    "linux-image-6.12.117+deb12-armmp",
    "linux-image-6.1.0-50-armmp-unsigned",
    "linux-image-rt-armmp",
    "linux-image-6.12-armmp-dbg",
    "linux-image-6.1.0-6-armmp",
]


def test_newest_kernels() -> None:
    assert kernels(NAMES, "armmp") == [
        "linux-image-6.1.0-50-armmp",
        "linux-image-6.1.0-50-armmp-unsigned",
        "linux-image-6.1.0-9-armmp",
        "linux-image-6.1.0-6-armmp",
        "linux-image-6.12.117+deb12-armmp",
    ]
    assert kernels(NAMES, "armmp-lpae") == ["linux-image-6.1.0-52-armmp-lpae"]
    assert kernels(["linux-image-6.12.9-armmp-unsigned"], "armmp") == ["linux-image-6.12.9-armmp-unsigned"]
    assert kernels(["linux-image-6.12-cloud-arm64", "linux-image-7.2-cloud-arm64"], "cloud-arm64") == [
        "linux-image-7.2-cloud-arm64",
        "linux-image-6.12-cloud-arm64",
    ]
    assert kernels(NAMES, "cloud-arm64") == []


@pytest.mark.parametrize(
    ("depends", "expected"),
    [
        ("linux-image-6.1.0-50-armmp (= 6.1.176-1)", "linux-image-6.1.0-50-armmp"),
        ("kmod, linux-binary-7.2-armmp (= 7.2-1)", "linux-binary-7.2-armmp"),
        ("kmod, linux-base (>= 4.3~), initramfs-tools | linux-initramfs-tool", None),
        ("", None),
    ],
)
def test_kernel_dependency(depends: str, expected: str | None) -> None:
    shown = f"Package: linux-image-armmp\nVersion: 1\nDepends: {depends}\nDescription: x\n"
    assert kernel_dependency(shown, "linux-image-armmp") == expected


TOOLS = {
    "apt-get": """
        echo "apt-get $*" >> "$CALLS"
        case "$*" in
        *update*) [ ! -e "$CALLS.offline" ] || { echo 'E: Could not resolve the host' >&2; exit 100; } ;;
        *download*) [ ! -e "$CALLS.gone" ] || { echo 'E: 404  Not Found' >&2; exit 100; }; : > fetched.deb ;;
        esac""",
    "apt-cache": """
        echo "apt-cache $*" >> "$CALLS"
        case "$*" in
        *" show "*linux-image-armmp) echo 'Depends: linux-image-6.1.0-50-armmp (= 1)' ;;
        *" show "*linux-image-6*) echo 'Depends: kmod' ;;
        *" pkgnames "*) echo linux-image-6.1.0-3-cloud-arm64 ;;
        *) exit 100 ;;
        esac""",
    "dpkg-deb": """
        [ ! -e "$CALLS.broken" ] || { mkdir -p "$3/boot"; echo 'not a Debian archive' >&2; exit 2; }
        mkdir -p "$3/boot"; echo kernel > "$3/boot/vmlinuz-6.1.0-50-armmp" """,
}


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, script in TOOLS.items():
        (tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "calls"


def leftovers(calls: Path) -> list[str]:
    root = calls.parent / "cache" / "yamori" / "guests" / "armhf"
    return sorted(path.name for path in root.iterdir() if path.name not in {"apt", "lock"})


def test_fetch_once(calls: Path) -> None:
    stages: list[str] = []
    directory = packages.unpacked("armhf", "linux-image-armmp", stages.append)
    assert packages.kernel_image(directory).read_text() == "kernel\n"
    assert [stage.split()[0] for stage in stages] == ["asking", "fetching", "unpacking"]
    assert "download -qq linux-image-6.1.0-50-armmp" in calls.read_text()
    assert "Architecture=armhf" in calls.read_text()
    calls.unlink()
    assert packages.unpacked("armhf", "linux-image-armmp", stages.append) == directory
    assert not calls.exists()
    assert len(stages) == 3
    assert leftovers(calls) == ["linux-image-armmp"]


def test_without_a_meta_package(calls: Path) -> None:
    packages.unpacked("arm64", "linux-image-cloud-arm64")
    assert "download -qq linux-image-6.1.0-3-cloud-arm64" in calls.read_text()


@pytest.mark.parametrize(
    ("trouble", "package", "message"),
    [
        ("gone", "linux-image-armmp", r"cannot fetch linux-image-6\.1\.0-50-armmp for armhf \(404  Not Found\)"),
        ("offline", "busybox-static", r"no package busybox-static for armhf \(Could not resolve the host\)"),
        ("broken", "linux-image-armmp", r"cannot unpack linux-image-6\.1\.0-50-armmp: not a Debian archive"),
    ],
)
def test_failures_leave_nothing(calls: Path, trouble: str, package: str, message: str) -> None:
    calls.with_name(f"calls.{trouble}").touch()
    with pytest.raises(LabError, match=message):
        packages.unpacked("armhf", package)
    assert leftovers(calls) == []
    calls.with_name(f"calls.{trouble}").unlink()
    if package == "linux-image-armmp":
        assert packages.unpacked("armhf", package).is_dir()


def test_interrupt_leaves_nothing(calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_arguments: object) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(packages.Apt, "download", interrupted)
    with pytest.raises(KeyboardInterrupt):
        packages.unpacked("armhf", "linux-image-armmp")
    assert leftovers(calls) == []


def test_what_a_killed_process_left_is_removed(calls: Path) -> None:
    rest = calls.parent / "cache" / "yamori" / "guests" / "armhf" / ".partial-dead" / "files"
    rest.mkdir(parents=True)
    packages.unpacked("armhf", "linux-image-armmp")
    assert leftovers(calls) == ["linux-image-armmp"]


def test_without_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(LabError, match=r"apt-get: not found .* use Debian or Ubuntu"):
        packages.unpacked("armhf", "busybox-static")


def test_files_that_are_missing(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="no kernel"):
        packages.kernel_image(tmp_path)
    with pytest.raises(LabError, match="no busybox"):
        packages.busybox(tmp_path)
    image = tmp_path / "usr" / "lib" / "modules" / "7.2-armmp" / "vmlinuz"
    image.parent.mkdir(parents=True)
    image.touch()
    assert packages.kernel_image(tmp_path) == image
    (tmp_path / "usr" / "bin").mkdir()
    (tmp_path / "usr" / "bin" / "busybox").touch()
    assert packages.busybox(tmp_path) == tmp_path / "usr" / "bin" / "busybox"
