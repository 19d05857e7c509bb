"""The lab's devices: one entry each says which Debian kernel boots on which QEMU machine."""

from __future__ import annotations

from dataclasses import dataclass

from yamori.errors import LabError


@dataclass(frozen=True, slots=True)
class Device:
    """A device that the lab can boot.

    Attributes:
        name: What a user types.
        title: What it is, in a few words.
        architecture: Debian's name of the architecture: its packages give the kernel and busybox.
        kernel: Debian's meta-package that depends on the newest kernel of this flavour; empty where it has none: then
            the user has to give one.
        elf: Which machine code the lab's helper program has: ``arm``, ``aarch64``, ``riscv64`` or ``x86_64``.
        qemu: The QEMU program.
        qemu_package: The Debian package that has it.
        machine: QEMU's ``-M``, without the memory backend.
        cpu: QEMU's ``-cpu``.
        memory: RAM in MiB, unless the user says otherwise.
        console: The serial console's name in the guest.
        suite: The Debian suite that carries its packages where not every one does; empty for the machine's own sources.
        dtb: The device tree that QEMU is to be given, by its name among the kernel package's files.
        words: What else the board needs on the kernel's command line.
    """

    name: str
    title: str
    architecture: str
    kernel: str
    elf: str
    qemu: str
    qemu_package: str
    machine: str
    cpu: str
    memory: int
    console: str
    suite: str = ""
    dtb: str = ""
    words: str = ""

    @property
    def append(self) -> str:
        """The kernel's command line.

        A panic ends the VM (with QEMU's ``-no-reboot``), so that it is noticed. ``yamori.lab`` says what guest it is:
        the attacks of the lab refuse to run in any other.
        """
        return " ".join(filter(None, [self.words, f"yamori.lab console={self.console} quiet panic=-1"]))


DEVICES = {
    device.name: device
    for device in (
        Device(
            name="armv7",
            title="32-bit Arm board, short descriptors",
            architecture="armhf",
            kernel="linux-image-armmp",
            elf="arm",
            qemu="qemu-system-arm",
            qemu_package="qemu-system-arm",
            machine="virt",
            cpu="cortex-a15",
            memory=96,
            console="ttyAMA0",
        ),
        Device(
            name="armv7-lpae",
            title="32-bit Arm board, long descriptors",
            architecture="armhf",
            kernel="linux-image-armmp-lpae",
            elf="arm",
            qemu="qemu-system-arm",
            qemu_package="qemu-system-arm",
            machine="virt",
            cpu="cortex-a15",
            memory=128,
            console="ttyAMA0",
        ),
        Device(
            name="armv6",
            title="Raspberry Pi Zero, ARMv6",
            architecture="armel",
            kernel="linux-image-rpi",
            elf="arm",
            qemu="qemu-system-arm",
            qemu_package="qemu-system-arm",
            machine="raspi0",
            cpu="arm1176",
            memory=512,
            console="ttyAMA0",
            suite="bookworm",
            dtb="bcm2835-rpi-zero.dtb",
            # The power driver waits for a firmware that QEMU does not have.
            words="earlycon=pl011,0x20201000 initcall_blacklist=bcm2835_power_driver_init",
        ),
        Device(
            name="armv5",
            title="ARM926 board, a kernel of your own",
            architecture="armel",
            kernel="",
            elf="arm",
            qemu="qemu-system-arm",
            qemu_package="qemu-system-arm",
            machine="versatilepb",
            cpu="arm926",
            memory=96,
            console="ttyAMA0",
            suite="bookworm",
        ),
        Device(
            name="arm64",
            title="64-bit Arm gateway, KASLR and KPTI",
            architecture="arm64",
            kernel="linux-image-cloud-arm64",
            elf="aarch64",
            qemu="qemu-system-aarch64",
            qemu_package="qemu-system-arm",
            machine="virt",
            cpu="cortex-a53",
            memory=256,
            console="ttyAMA0",
        ),
        Device(
            name="arm64-rt",
            title="64-bit Arm controller, PREEMPT_RT",
            architecture="arm64",
            kernel="linux-image-rt-arm64",
            elf="aarch64",
            qemu="qemu-system-aarch64",
            qemu_package="qemu-system-arm",
            machine="virt",
            cpu="cortex-a53",
            memory=256,
            console="ttyAMA0",
        ),
        Device(
            name="arm64-16k",
            title="64-bit Arm server, 16K pages",
            architecture="arm64",
            kernel="linux-image-arm64-16k",
            elf="aarch64",
            qemu="qemu-system-aarch64",
            qemu_package="qemu-system-arm",
            machine="virt",
            cpu="max",
            memory=512,
            console="ttyAMA0",
            suite="trixie",
        ),
        Device(
            name="riscv64",
            title="64-bit RISC-V board",
            architecture="riscv64",
            kernel="linux-image-riscv64",
            elf="riscv64",
            qemu="qemu-system-riscv64",
            qemu_package="qemu-system-misc",
            machine="virt",
            cpu="rv64",
            memory=256,
            console="ttyS0",
            suite="trixie",
        ),
        Device(
            name="x86-64",
            title="x86-64 gateway, KASLR",
            architecture="amd64",
            kernel="linux-image-cloud-amd64",
            elf="x86_64",
            qemu="qemu-system-x86_64",
            qemu_package="qemu-system-x86",
            machine="q35,accel=tcg",
            cpu="max",
            memory=256,
            console="ttyS0",
        ),
    )
}
"""Every device by its name. A new device is one more entry."""


def device(name: str) -> Device:
    """Return the device with this name.

    Raises:
        LabError: There is none.
    """
    try:
        return DEVICES[name]
    except KeyError:
        raise LabError("no such lab device", where=name, hint=f"choose from {', '.join(DEVICES)}") from None
