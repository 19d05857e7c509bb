"""The commands ``ids …`` for the hypervisor Xvisor: what a maker adds to its tree.

The files call the hypervisor's public interfaces by name (``vmm_cmdmgr.h``, ``vmm_manager.h``, ``vmm_guest_aspace.h``,
``vmm_host_aspace.h``, ``vmm_heap.h`` and the like, of v0.3.2); nothing of it is in them.
"""

from __future__ import annotations

from importlib.resources import files

from yamori.detectors.baseline import Baseline
from yamori.errors import ProfileError
from yamori.exports.core import core_header, core_source
from yamori.kernel.kernel import Kernel

NAMES = ("README.md", "cmd_ids.c", "ids_port.c", "ids_port.h", "objects.mk", "openconf.cfg")
"""Files that are the same for every kernel, but for the banner in the first."""

ARCHITECTURES = ("aarch64", "arm", "riscv64")
"""Whose guests Xvisor runs on devices."""

CORE = ("ids_core.c", "ids_core.h")


def xvisor_files(kernel: Kernel, baseline: Baseline | None = None) -> dict[str, bytes]:
    """Return the files by their names; the same for the same kernel at the same state.

    Args:
        kernel: The kernel of an attached guest, a sound one.
        baseline: What the device is meant to run, for ``ids check``.

    Raises:
        ProfileError: Something that the commands need is not known of this kernel, or Xvisor does not run it.
    """
    architecture = kernel.profile.architecture
    if architecture not in ARCHITECTURES:
        raise ProfileError(
            f"Xvisor's devices do not run {architecture} kernels", hint="export a guest of Arm or RISC-V"
        )
    texts = dict(zip(CORE, (core_source(kernel, baseline), core_header()), strict=True))
    room = files("yamori.exports").joinpath("xvisor_files")
    for name in NAMES:
        texts[name] = room.joinpath(name).read_text(encoding="utf-8").replace("@BANNER@", kernel.profile.banner)
    return {name: text.encode() for name, text in sorted(texts.items())}
