"""Where QEMU's boards put their RAM.

Of a board whose name is not known here, the guest's page tables have to tell. Each entry was compared with
``info mtree -f`` of QEMU 7.2, where that version has the board; the tables are in the file of the board's name
under ``hw/arm``, ``hw/riscv`` and ``hw/i386`` of QEMU's source tree.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from yamori.hypervisors.qemu_commandline import CommandLine, size

GIB = 1 << 30
MIB = 1 << 20
_FOUR_GIB = 4 * GIB

Placement = tuple[tuple[int, int], ...]
"""Pieces of RAM as (GPA, size), which lie one behind the other in QEMU's RAM block."""

_BASES = {
    0: "highbank integratorcp kudo-bmc midway mori-bmc musicpal npcm750-evb quanta-gbs-bmc quanta-gsj raspi0 raspi1ap "
    "raspi2 raspi2b raspi3 raspi3ap raspi3b raspi4b realview-eb realview-eb-mpcore versatileab versatilepb "
    "xilinx-zynq-a9",
    0x1000_0000: "sabrelite",
    0x4000_0000: "bpim2u cubieboard nuri orangepi-pc palmetto-bmc quanta-q71l-bmc smdkc210 supermicrox11-bmc virt",
    0x6000_0000: "vexpress-a9",
    0x8000_0000: "ast2500-evb ast2600-evb bletchley-bmc catalina-bmc fby35-bmc fp5280g2-bmc fuji-bmc g220a-bmc "
    "gb200nvl-bmc imx25-pdk kzm mcimx6ul-evk mcimx7d-sabre n800 n810 qcom-dc-scm-v1-bmc qcom-firework-bmc "
    "rainier-bmc romulus-bmc sonorapass-bmc supermicro-x11spi-bmc tacoma-bmc tiogapass-bmc vexpress-a15 "
    "witherspoon-bmc yosemitev2-bmc",
    0xA000_0000: "akita borzoi connex mainstone spitz terrier tosa verdex z2",
    0xC000_0000: "collie",
    0x100_0000_0000: "sbsa-ref",
}
_RISCV_BASES = {0x8000_0000: "virt spike sifive_u shakti_c"}

_DEFAULT_MIB = {
    32: "musicpal z2",
    64: "akita borzoi connex mainstone spitz terrier tosa",
    256: "palmetto-bmc supermicrox11-bmc",
    512: "ast2500-evb collie fp5280g2-bmc npcm750-evb quanta-gsj raspi0 raspi1ap raspi3ap romulus-bmc sonorapass-bmc "
    "witherspoon-bmc",
    1024: "ast2600-evb bpim2u cubieboard g220a-bmc kudo-bmc mori-bmc nuri orangepi-pc qcom-dc-scm-v1-bmc "
    "qcom-firework-bmc quanta-gbs-bmc rainier-bmc raspi2 raspi2b raspi3 raspi3b sbsa-ref smdkc210 tacoma-bmc",
    2048: "bletchley-bmc fby35-bmc fuji-bmc raspi4b",
}


class Placements(NamedTuple):
    """How RAM may lie.

    Attributes:
        choices: Placements, the most likely first.
        base_known: False where the only choice is a stand-in at GPA 0.
        note: How they were arrived at.
    """

    choices: tuple[Placement, ...]
    base_known: bool
    note: str


def default_ram_size(command: CommandLine) -> int:
    """Return the bytes of RAM of a board that was started without ``-m``."""
    name = _board(command.machine)
    return next((mib * MIB for mib, names in _DEFAULT_MIB.items() if name in names.split()), 128 * MIB)


def placements(command: CommandLine, total: int) -> Placements:
    """Return how ``total`` bytes of RAM may lie in the guest physical address space of the command line's board."""
    if command.architecture in {"x86_64", "i386"}:
        return _x86(command, total)
    name = _board(command.machine)
    if name in {"xlnx-zcu102", "xlnx-versal-virt"}:
        return Placements((_split(total, 2 * GIB, 0x8_0000_0000),), base_known=True, note=f"the RAM map of {name}")
    if name in {"realview-pb-a8", "realview-pbx-a9"}:
        # The first 256 MiB are at both places (hw/arm/realview.c), and a kernel is built for one of them.
        choices = ((0x7000_0000, total),), ((0, total),)
        return Placements(
            choices if name.endswith("a8") else choices[::-1], base_known=True, note=f"the RAM map of {name}"
        )
    bases = _RISCV_BASES if command.architecture.startswith("riscv") else _BASES
    for base, names in bases.items():
        if name in names.split():
            return Placements((((base, total),),), base_known=True, note=f"RAM base {base:#x} of the board {name}")
    return Placements(
        (((0, total),),), base_known=False, note=f"the RAM base of the board {name or '(default)'} is not known"
    )


def _board(machine: str) -> str:
    """Strip the version from a name such as ``virt-7.2`` or ``virt-rhel9.2.0``."""
    return re.sub(r"^virt-.*", "virt", machine)


def _split(total: int, low: int, high_base: int = _FOUR_GIB) -> Placement:
    return ((0, total),) if total <= low else ((0, low), (high_base, total - low))


def _x86(command: CommandLine, total: int) -> Placements:
    """Place RAM below and above 4 GiB as ``pc_init1``, ``pc_q35_init`` and ``microvm_memory_init`` do."""
    machine = command.machine
    limit = size(command.options.get("max-ram-below-4g", ""))
    q35 = _split(total, _q35_low(total, limit))
    i440fx = _split(total, _i440fx_low(machine, total, limit))
    if machine == "microvm":
        choices: tuple[Placement, ...] = (_split(total, 3 * GIB),)
    elif "q35" in machine:
        choices = (q35,)
    elif machine in {"pc", "isapc"} or "i440fx" in machine or machine.startswith("pc-"):
        choices = (i440fx,)
    else:
        choices = tuple(dict.fromkeys((i440fx, q35)))
    high = "" if len(choices[0]) == 1 else f", {choices[0][0][1] // MIB} MiB of it below 4 GiB"
    return Placements(choices, base_known=True, note=f"the RAM map of {machine or 'the default x86 board'}{high}")


def _q35_low(total: int, limit: int) -> int:
    low = 2 * GIB if total >= 0xB000_0000 else 0xB000_0000
    return min(low, limit or _FOUR_GIB)


def _i440fx_low(machine: str, total: int, limit: int) -> int:
    limit = limit or 0xE000_0000
    # Boards up to 1.7 do not align the split to a gigabyte (pc_i440fx_1_7_machine_options).
    old = re.search(r"-(?:0\.\d+|1\.[0-7])$", machine)
    return min(limit, 3 * GIB) if total >= limit and not old else limit
