"""What a QEMU command line says of the guest's RAM, its board, its name and its QMP sockets.

QEMU's own parser is ``util/qemu-option.c`` and ``softmmu/vl.c`` in its source tree. Whatever is malformed is left out
rather than refused: QEMU has accepted the line, so what is not understood here is a form that is not known here.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass

# The options without an argument (qemu-options.hx); every other option takes the next word, whatever that looks like.
_FLAGS = frozenset(
    re.findall(
        r"\S+",
        """-S -s -h -help -version -audio-help -snapshot -usb -nographic -portrait -full-screen -win2k-hack
        -no-fd-bootchk -no-acpi -no-hpet -singlestep -preconfig -enable-kvm -xen-attach -xen-domid-restrict -no-reboot
        -no-shutdown -daemonize -only-migratable -nodefaults -no-user-config -nouserconfig -async-teardown
        -enable-sync-profile -mem-prealloc -old-param -semihosting -no-quit -no-frame -alt-grab -ctrl-grab -sdl
        -curses -enable-fips -no-kvm -rtc-td-hack -localtime""",
    )
)
_PROGRAM = re.compile(r"qemu-system-([a-z0-9_]+)")
_NATIVE_PROGRAMS = frozenset({"qemu-kvm", "kvm"})
_SIZE = re.compile(r"(0x[0-9a-f]{1,16}|\d{1,19})(?:\.(\d{1,9}))?([bkmgtpe]?)(?:i?b)?", re.IGNORECASE | re.ASCII)
_UNITS = {"b": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50, "e": 60}
_RAM_ALIGNMENT = 8192  # set_memory_options() rounds -m up to it


@dataclass(frozen=True, slots=True)
class Backend:
    """A ``memory-backend-*`` object.

    Attributes:
        id: What ``memory-backend=`` and ``memdev=`` name.
        kind: ``ram``, ``file``, ``memfd``, ``epc``, …
        size: Bytes.
        path: ``mem-path``, as it was given; may be relative, or a directory.
    """

    id: str
    kind: str
    size: int
    path: str = ""


@dataclass(frozen=True, slots=True)
class CommandLine:
    """The part of a QEMU command line that attaching needs.

    Attributes:
        architecture: As in ``qemu-system-ARCHITECTURE``.
        machine: The board's name, empty where QEMU's default runs.
        options: The board's properties, as in ``{"max-ram-below-4g": "2G"}``.
        name: The guest's name, or empty.
        ram_size: Bytes that ``-m`` asks for, 0 where it is left to the board.
        ram: The objects that are the guest's RAM, in the order of their guest physical addresses; empty for plain RAM.
        backends: Every memory object, in the order of creation.
        hotplug: Memory was added as a device (``pc-dimm``, ``virtio-mem``, …), whose place only QEMU knows.
        qmp: Sockets of the QMP monitor: a path, or ``fd:N`` for one that was handed over.
        sockets: Every socket path on the line, whatever speaks there.
    """

    architecture: str
    machine: str
    options: dict[str, str]
    name: str
    ram_size: int
    ram: tuple[Backend, ...]
    backends: tuple[Backend, ...]
    hotplug: bool
    qmp: tuple[str, ...]
    sockets: tuple[str, ...]


def architecture(program: str) -> str:
    """Return the guest architecture that a program emulates, empty where it is not a QEMU system emulator.

    Args:
        program: A path or a name, such as ``/usr/bin/qemu-system-arm`` or ``/usr/libexec/qemu-kvm``.
    """
    name = program.rpartition("/")[2]
    if match := _PROGRAM.search(name):
        return match[1]
    return os.uname().machine if name in _NATIVE_PROGRAMS else ""


def size(text: str, unit: str = "b") -> int:
    """Return the bytes that a size such as ``1.5G``, ``4194304k`` or ``0x1000`` stands for, 0 where it is not one.

    Args:
        text: The size.
        unit: What a bare number counts, as the suffix's letter.
    """
    match = _SIZE.fullmatch(text.strip())
    if not match:
        return 0
    bits = _UNITS[match[3].lower() or unit]
    whole = int(match[1], 0 if match[1][:2].lower() == "0x" else 10)
    fraction = match[2] or ""
    return (whole << bits) + (int(fraction or 0) << bits) // int("1" + "0" * len(fraction))


def parse(program: str, words: list[str]) -> CommandLine:
    """Read a command line.

    Args:
        program: The program that runs, as ``architecture`` takes it.
        words: The words behind the program's name.
    """
    given = _collect(words)
    machine = _merged(given, "machine", implied="type")
    memory = _merged(given, "m", implied="size")
    backends = tuple(_backends(given.get("object", ())))
    qmp, sockets = _monitors(given)
    name = _merged(given, "name", implied="guest").get("guest", "")
    wanted = size(machine.get("memory.size") or memory.get("size", ""), unit="b" if "memory.size" in machine else "m")
    return CommandLine(
        architecture=architecture(program),
        machine=machine.pop("type", ""),
        options=machine,
        name=name,
        ram_size=-(-wanted // _RAM_ALIGNMENT) * _RAM_ALIGNMENT,
        ram=_main_ram(machine, given.get("numa", ()), backends),
        backends=backends,
        hotplug=any(_is_memory_device(text) for text in given.get("device", ())),
        qmp=qmp,
        sockets=sockets,
    )


def _collect(words: Iterable[str]) -> dict[str, list[str]]:
    """Return the arguments of each option, one dash or two, ``-M`` and ``-machine`` under one name."""
    given: dict[str, list[str]] = {}
    rest = iter(words)
    for word in rest:
        option = "-" + word.lstrip("-")
        if not word.startswith("-") or option in _FLAGS:
            continue
        name = option[1:]
        given.setdefault("machine" if name == "M" else name, []).append(next(rest, ""))
    return given


def _pairs(text: str, implied: str = "") -> dict[str, str]:
    """Split ``implied,key=value,flag,no,,comma``: a doubled comma stands for one."""
    values: dict[str, str] = {}
    for index, field in enumerate(text.replace(",,", "\0").split(",")):
        key, equals, value = field.replace("\0", ",").partition("=")
        if equals:
            values[key] = value
        elif index == 0 and implied:
            values[implied] = key
        elif key:
            values[key] = "on"
    return values


def _merged(given: dict[str, list[str]], option: str, implied: str) -> dict[str, str]:
    """Return the pairs of every occurrence of an option; the last one wins, key by key."""
    values: dict[str, str] = {}
    for text in given.get(option, ()):
        values |= _pairs(text, implied)
    return values


def _properties(text: str, implied: str) -> dict[str, str]:
    """Split an argument that QEMU takes as JSON or as pairs; libvirt writes JSON."""
    if not text.startswith("{"):
        return _pairs(text, implied)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return {key: str(item) for key, item in value.items()} if isinstance(value, dict) else {}


def _backends(objects: Iterable[str]) -> Iterable[Backend]:
    for text in objects:
        values = _properties(text, "qom-type")
        kind = values.get("qom-type", "")
        if kind.startswith("memory-backend-"):
            yield Backend(
                id=values.get("id", ""),
                kind=kind.removeprefix("memory-backend-"),
                size=size(values.get("size", "")),
                path=values.get("mem-path", ""),
            )


def _main_ram(machine: dict[str, str], numa: Iterable[str], backends: tuple[Backend, ...]) -> tuple[Backend, ...]:
    """Return the objects that the board's RAM consists of: nodes follow each other by number."""
    by_id = {backend.id: backend for backend in backends}
    nodes: list[tuple[int, Backend]] = []
    for text in numa:
        values = _pairs(text, "type")
        if values.get("type") == "node" and values.get("memdev") in by_id:
            number = values.get("nodeid", "")
            nodes.append((int(number) if re.fullmatch("[0-9]{1,9}", number) else len(nodes), by_id[values["memdev"]]))
    if nodes:
        return tuple(backend for _, backend in sorted(nodes, key=lambda node: node[0]))
    chosen = by_id.get(machine.get("memory-backend", ""))
    return (chosen,) if chosen else ()


def _is_memory_device(text: str) -> bool:
    driver = _properties(text, "driver").get("driver", "")
    return driver in {"pc-dimm", "nvdimm"} or driver.startswith(("virtio-mem", "virtio-pmem"))


def _monitors(given: dict[str, list[str]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the QMP sockets, and all sockets."""
    characters: dict[str, str] = {}
    for text in given.get("chardev", ()):
        values = _pairs(text, "backend")
        if values.get("backend") == "socket" and (values.get("path") or values.get("fd")):
            characters[values.get("id", "")] = values.get("path") or f"fd:{values['fd']}"
    sockets = list(characters.values())
    qmp = []
    for text in given.get("mon", ()):
        values = _pairs(text, "chardev")
        if values.get("mode") == "control" and values.get("chardev") in characters:
            qmp.append(characters[values["chardev"]])
    for option, arguments in given.items():
        if option in {"qmp", "qmp-pretty", "monitor", "serial", "gdb", "parallel", "debugcon"}:
            paths = [_path(text) for text in arguments if text.startswith("unix:")]
            sockets += paths
            qmp += paths if option.startswith("qmp") else []
    return tuple(qmp), tuple(sockets)


def _path(text: str) -> str:
    """Return the path of ``unix:PATH,server=on``."""
    return text.removeprefix("unix:").replace(",,", "\0").partition(",")[0].replace("\0", ",")
