"""``ids banner``: what runs in the guest."""

from __future__ import annotations

from yamori.kernel.kernel import Kernel
from yamori.probes.banner_text import parse
from yamori.records import Banner, Result


def stated(banner: str, note: str) -> Result[Banner]:
    """Return what a banner alone says, in one row.

    Args:
        banner: ``linux_banner``.
        note: Who says so.
    """
    text = parse(banner)
    row = Banner(
        banner=banner,
        release=text.release,
        version="",
        upstream=text.upstream,
        machine="",
        nodename="",
        compiler=f"{text.compiler} {'.'.join(map(str, text.compiler_version))}".strip(),
        build=f"{text.build} by {text.builder}".removesuffix(" by "),
        architecture="",
        translation="",
        granule=0,
        slide=None,
        build_id="",
    )
    return Result([row], complete=True, reasons=[], faults=0, loads=0, elapsed_s=0.0, notes=[note])


def banner(kernel: Kernel) -> Result[Banner]:
    """Say what runs in the guest, in one row: what discovery proved. Nothing more is read."""
    profile = kernel.profile
    uts, root, info = profile.uts, profile.root, profile.vmcoreinfo
    text = parse(profile.banner)
    row = Banner(
        banner=profile.banner,
        release=uts.release if uts else text.release,
        version=uts.version if uts else "",
        upstream=text.upstream,
        machine=uts.machine if uts else "",
        nodename=uts.nodename if uts else "",
        compiler=f"{text.compiler} {'.'.join(map(str, text.compiler_version))}".strip(),
        build=f"{text.build} by {text.builder}".removesuffix(" by "),
        architecture=profile.architecture,
        translation=root.geometry.describe(),
        granule=root.geometry.page_size,
        slide=profile.slide,
        build_id=info.build_id if info else "",
    )
    return Result([row], complete=True, reasons=[], faults=0, loads=0, elapsed_s=0.0, notes=[*profile.doubts])
