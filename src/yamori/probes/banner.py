"""``ids banner``: what runs in the guest."""

from __future__ import annotations

from collections.abc import Iterator

from yamori.kernel.kernel import Kernel
from yamori.probes.banner_text import parse
from yamori.records import Banner


def banner(kernel: Kernel) -> Iterator[Banner]:
    """Yield the one row that says what runs in the guest."""
    profile = kernel.profile
    uts, root, info = profile.uts, profile.root, profile.vmcoreinfo
    text = parse(profile.banner)
    yield Banner(
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
