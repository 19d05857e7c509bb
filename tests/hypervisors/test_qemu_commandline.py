from __future__ import annotations

import json
import os
import shlex

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yamori.hypervisors.qemu_commandline import Backend, architecture, parse, size

MIB = 1 << 20


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("/usr/bin/qemu-system-arm", "arm"),
        ("qemu-system-x86_64", "x86_64"),
        ("/nix/store/x/bin/.qemu-system-aarch64-wrapped", "aarch64"),
        ("/usr/libexec/qemu-kvm", os.uname().machine),
        ("/usr/bin/qemu-img", ""),
        ("/home/me/qemu-system-arm/run.sh", ""),
        ("bash", ""),
    ],
)
def test_architecture(program: str, expected: str) -> None:
    assert architecture(program) == expected


@pytest.mark.parametrize(
    ("text", "unit", "expected"),
    [
        ("96", "m", 96 * MIB),
        ("96", "b", 96),
        ("1.5G", "m", 1536 * MIB),
        ("4194304k", "m", 4 << 30),
        ("0x1000", "b", 4096),
        ("1T", "b", 1 << 40),
        ("2MiB", "b", 2 * MIB),
        ("0.25", "m", MIB // 4),
        ("", "m", 0),
        ("-1", "m", 0),
        ("lots", "m", 0),
        ("٣", "m", 0),
        ("9" * 5000, "m", 0),
    ],
)
def test_size(text: str, unit: str, expected: int) -> None:
    assert size(text, unit) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", 0),
        ("-m 96", 96 * MIB),
        ("-m 1G", 1 << 30),
        ("--m size=98304k,slots=2,maxmem=4G", 96 * MIB),
        ("-m 1G -m size=96M", 96 * MIB),
        ("-m 1G,maxmem=4G", 1 << 30),
        ("-m 0.001", 8192),
        ("-M virt,memory.size=64M", 64 * MIB),
        ("-append -m -m 96", 96 * MIB),
        ("-append '-m 4G'", 0),
        ("disk.img -nodefaults -m 96", 96 * MIB),
    ],
)
def test_ram_size(options: str, expected: int) -> None:
    assert parse("qemu-system-arm", shlex.split(options)).ram_size == expected


@pytest.mark.parametrize(
    ("options", "machine", "properties"),
    [
        ("-M virt", "virt", {}),
        ("-machine type=q35,accel=kvm", "q35", {"accel": "kvm"}),
        ("-machine q35 -machine accel=tcg -M max-ram-below-4g=2G", "q35", {"accel": "tcg", "max-ram-below-4g": "2G"}),
        ("-M q35,usb", "q35", {"usb": "on"}),
        ("-M pc -M q35", "q35", {}),
        ("", "", {}),
    ],
)
def test_machine(options: str, machine: str, properties: dict[str, str]) -> None:
    command = parse("qemu-system-x86_64", options.split())
    assert command.machine == machine
    assert command.options == properties


@pytest.mark.parametrize(
    ("given_name", "expected"),
    [("gate", "gate"), ("guest=gate,debug-threads=on", "gate"), ("a,,b,process=x", "a,b"), ("process=x", "")],
)
def test_name(given_name: str, expected: str) -> None:
    assert parse("qemu-system-arm", ["-name", given_name]).name == expected


def test_backends_in_pairs_and_json() -> None:
    command = parse(
        "qemu-system-x86_64",
        [
            *("-object", "memory-backend-file,id=a,size=1G,mem-path=/dev/shm/x,,y,share=on"),
            *("-object", json.dumps({"qom-type": "memory-backend-memfd", "id": "b", "share": True, "size": 4096})),
            *("-object", "qom-type=memory-backend-ram,id=c,size=0x2000"),
            *("-object", "rng-random,id=r", "-object", "{", "-object", "[1]", "-object", "[" * 20000),
        ],
    )
    assert command.backends == (
        Backend("a", "file", 1 << 30, "/dev/shm/x,y"),
        Backend("b", "memfd", 4096),
        Backend("c", "ram", 8192),
    )
    assert command.ram == ()


def test_nodes_follow_each_other_by_number() -> None:
    objects = "-object memory-backend-ram,id=a,size=1G -object memory-backend-ram,id=b,size=1G"
    command = parse("qemu-system-arm", f"{objects} -numa node,nodeid=1,memdev=a -numa node,nodeid=0,memdev=b".split())
    assert [backend.id for backend in command.ram] == ["b", "a"]
    command = parse("qemu-system-arm", f"{objects} -numa node,memdev=a -numa cpu,node-id=0 -numa node,memdev=b".split())
    assert [backend.id for backend in command.ram] == ["a", "b"]
    assert parse("qemu-system-arm", ["-numa", "node,mem=1G"]).ram == ()
    assert [b.id for b in parse("qemu-system-arm", f"-M virt,memory-backend=b {objects}".split()).ram] == ["b"]


def test_qmp_sockets_are_told_from_others() -> None:
    words = (
        "-qmp unix:/a,,b=c,server=on,wait=off -serial unix:/serial,server=on -qmp tcp:localhost:1 -qmp-pretty unix:/p "
        "-chardev socket,id=m,path=/mon,server=on -mon chardev=m,id=x,mode=control "
        "-chardev socket,id=h,path=/human,server=on -mon h,mode=readline "
        "-chardev socket,id=f,fd=25,server=on -mon chardev=f,mode=control -chardev pty,id=p -mon chardev=p,mode=control"
    )
    command = parse("qemu-system-arm", words.split())
    assert set(command.qmp) == {"/a,b=c", "/p", "/mon", "fd:25"}
    assert set(command.sockets) == {"/a,b=c", "/p", "/mon", "fd:25", "/serial", "/human"}


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("pc-dimm,memdev=m", True),
        ("virtio-mem-pci,memdev=m", True),
        ('{"driver":"nvdimm","memdev":"m"}', True),
        ("virtio-net-pci", False),
    ],
)
def test_memory_devices(device: str, expected: bool) -> None:
    assert parse("qemu-system-x86_64", ["-device", device]).hotplug is expected


OPTIONS = ["-m", "-M", "-machine", "-object", "-numa", "-name", "-qmp", "-chardev", "-mon", "-device", "-S", "--m", "-"]
PIECES = [
    "size=",
    "node,",
    "memdev=",
    "id=",
    ",,",
    ",",
    "=",
    "nodeid=",
    "memory-backend-ram,",
    "unix:",
    "{",
    '"',
    "9" * 30,
]
VALUES = st.lists(st.sampled_from(PIECES), max_size=8).map("".join)
WORDS = st.one_of(st.sampled_from(OPTIONS), st.text(max_size=20), VALUES)


@settings(max_examples=100, deadline=None)
@given(st.lists(WORDS, max_size=12))
def test_any_command_line_is_survived(words: list[str]) -> None:
    command = parse("qemu-system-arm", words)
    assert command.ram_size >= 0
    assert command.ram_size % 8192 == 0
    assert set(command.ram) <= set(command.backends)
    assert set(command.qmp) <= set(command.sockets)
