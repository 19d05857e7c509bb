"""Guests of Xvisor, seen from outside of the machine that it runs on: by its console.

A target is ``xvisor:`` and where the console is, with options behind a question mark: ``/path/console.sock`` (a UNIX
socket), ``host:port`` (TCP) or ``/dev/ttyUSB0?baud=115200`` (a serial device); ``guest=NAME`` says which guest. Only
commands that read are typed: ``guest list``, ``guest region_list``, ``guest dumpmem`` (``commands/cmd_guest.c`` of
v0.3.2), and ``ids`` where the exported commands are there.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl

from yamori.errors import TargetError
from yamori.hypervisors.vm import Missing, PackedSegment, VirtualMachine
from yamori.hypervisors.xvisor_console import Answer, Console, Garbled, Line, serial_line, tcp_line, unix_line

SCHEME = "xvisor"

BLOCK = 256
"""Bytes that are read at once: a command and its echo take as long as the output of 200 on a virtual line."""

MOST_AT_ONCE = 64 * BLOCK
"""Bytes that one command is asked for: what is garbled has to be asked for again."""

MOST_ATTACHING = 8 << 20
MOST_A_LOOK = 512 << 10
"""Bytes that are read while attaching, and for one command or detector; then memory is no longer given. A hundred
processes take 100 KB; what reads all of the kernel's text, or of RAM, would take minutes to hours, and is told so."""

TOO_MUCH = "more than a console gives in time"

REAL, MEMORY, RAM = 0x1, 0x8, 0x100
"""Flags of a region (``VMM_REGION_REAL``, ``_MEMORY``, ``_ISRAM`` of ``core/include/vmm_manager.h``)."""

_UNITS = {"B": 0, "KB": 10, "MB": 20, "GB": 30, "TB": 40}
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.,+-]{0,63}")
_GUEST = re.compile(r" \d+ +(\S+) +(little|big) +\S+ *")
_FIELD = re.compile(r"Region ([a-z ]+?) *: ?(.*)")
_PIECE = re.compile(r"\t0x([0-9A-Fa-f]{8,16}) => 0x[0-9A-Fa-f]{8,16} \((\d+) ([KMGT]?B)\)")
_WORDS = re.compile(r"0x([0-9A-Fa-f]{8,16}): ([0-9a-f]{8}) ([0-9a-f]{8}) ([0-9a-f]{8}) ([0-9a-f]{8})")
_ROW = re.compile(r"[A-Z=] [\x20-\x7e]*")


class Spec(NamedTuple):
    """What a user typed behind ``xvisor:``.

    Attributes:
        where: A path, or ``host:port``.
        guest: The guest's name; empty where there is one only.
        baud: Of a serial device.
    """

    where: str
    guest: str
    baud: int


def parse(spec: str) -> Spec:
    """Return what a target says.

    Raises:
        TargetError: It says something else.
    """
    where, _, options = spec.partition("?")
    given = dict(parse_qsl(options, keep_blank_values=True))
    guest, baud = given.pop("guest", ""), given.pop("baud", "115200")
    if given:
        raise TargetError(f"there is no option {next(iter(given))!r}", where=f"{SCHEME}:{spec}", hint="guest, baud")
    if not where or not baud.isdecimal() or len(baud) > len("4000000") or (guest and not _NAME.fullmatch(guest)):
        hint = "as in /path/console.sock?guest=guest0, host:port or /dev/ttyUSB0?baud=115200"
        raise TargetError("this is no console", where=f"{SCHEME}:{spec}", hint=hint)
    return Spec(where, guest, int(baud))


def find() -> list[VirtualMachine]:
    """Return nothing: whoever has a console has to say where."""
    return []


def attach(spec: str, *, ram_base: int | None = None) -> VirtualMachine:
    """Return what is known of a guest's RAM, which its hypervisor's console gives.

    Args:
        spec: Where the console is, and which guest.
        ram_base: Of no use: the hypervisor knows.

    Raises:
        TargetError: There is no such console or guest, or it is dead.
    """
    if ram_base is not None:
        raise TargetError("the hypervisor says where RAM is", where=f"{SCHEME}:{spec}", hint="leave --ram-base away")
    wanted = parse(spec)
    console = Console(_line(wanted))
    try:
        name = _guest(console, wanted.guest)
        regions = console.ask(f"guest region_list {name}", read_regions)
        commands = _commands(console, name)
    except BaseException:
        console.close()
        raise
    if not regions:
        console.close()
        raise TargetError("this guest has no RAM", where=f"{SCHEME}:{spec}")
    source = Memory(console, name)
    layout = tuple(PackedSegment(gpa, size, wanted.where, gpa, "image", source=source) for gpa, size in regions)
    return VirtualMachine(
        target=f"{SCHEME}:{spec}",
        name=name,
        pid=None,
        machine="Xvisor, by its console",
        layouts=(layout,),
        notes=(
            "the commands `ids` of an export are in the hypervisor" if commands else "memory is read by guest dumpmem",
        ),
        slow=True,
        commands=commands,
    )


def _line(spec: Spec) -> Line:
    if not spec.where.startswith("/"):
        host, _, port = spec.where.rpartition(":")
        if host and port.isdecimal() and int(port) < 1 << 16:
            return tcp_line(host.removeprefix("[").removesuffix("]"), int(port))
        raise TargetError("this is no console", where=spec.where, hint="a full path, or host:port")
    try:
        mode = Path(spec.where).stat().st_mode
    except OSError as error:
        raise TargetError(f"the console cannot be reached: {error.strerror}", where=spec.where) from None
    return unix_line(spec.where) if stat.S_ISSOCK(mode) else serial_line(spec.where, spec.baud)


def _guest(console: Console, wanted: str) -> str:
    names = console.ask("guest list", read_guests)
    if wanted in names:
        return wanted
    if not wanted and len(names) == 1:
        return names[0]
    there = f"there is {', '.join(names)}" if names else "there is none"
    what = f"there is no guest {wanted!r}" if wanted else "which guest? Say so with ?guest=NAME"
    raise TargetError(what, where=console.where, hint=there)


def read_guests(answer: Answer) -> list[str]:
    """Return the names of the guests out of ``guest list``.

    Raises:
        Garbled: That is not what came.
    """
    rule = "-" * 79
    lines = answer.lines
    if not answer.ok or len(lines) < 4 or [lines[0], lines[2], lines[-1]] != [rule] * 3:
        raise Garbled("no list of guests")
    rows = [_GUEST.fullmatch(line) for line in lines[3:-1]]
    names = [row[1] for row in rows if row and _NAME.fullmatch(row[1])]
    if len(names) != len(rows) or len(set(names)) != len(names):
        raise Garbled("no list of guests")
    return names


def read_regions(answer: Answer) -> list[tuple[int, int]]:
    """Return (GPA, bytes) of the RAM out of ``guest region_list``, in ascending order.

    Sizes are rounded down to whole units there, so the pieces of the map are added up, which are powers of two.

    Raises:
        Garbled: That is not what came.
    """
    if not answer.ok:
        raise Garbled("no list of regions")
    found: list[tuple[int, int]] = []
    fields: dict[str, str] = {}
    pieces: list[tuple[int, int]] = []
    for line in [*answer.lines, ""]:
        if piece := _PIECE.fullmatch(line):
            pieces.append((int(piece[1], 16), int(piece[2]) << _UNITS[piece[3]]))
        elif field := _FIELD.fullmatch(line):
            if field[1] in fields:
                raise Garbled("no list of regions")
            fields[field[1]] = field[2]
        elif line:
            raise Garbled("no list of regions")
        elif fields:
            found += _region(fields, pieces)
            fields, pieces = {}, []
    found.sort()
    if any(gpa + size > after for (gpa, size), (after, _) in pairwise(found)):
        raise Garbled("regions overlap")
    return found


def _region(fields: dict[str, str], pieces: list[tuple[int, int]]) -> list[tuple[int, int]]:
    try:
        start, flags = int(fields["guest physical address"], 16), int(fields["flags"], 16)
    except (KeyError, ValueError):
        raise Garbled("no list of regions") from None
    if flags & (REAL | MEMORY | RAM) != REAL | MEMORY | RAM:
        return []
    end = start
    for gpa, size in pieces:
        if gpa != end or not size:
            raise Garbled("the pieces of a region have gaps")
        end += size
    return [(start, end - start)] if pieces else []


def read_words(answer: Answer, gpa: int, size: int) -> bytes:
    """Return memory out of ``guest dumpmem``.

    Args:
        answer: What came.
        gpa: What was asked for.
        size: Bytes, a multiple of 16.

    Raises:
        Garbled: That is not what came.
        Missing: The hypervisor does not give it.
    """
    lines = answer.lines
    if not lines or not re.fullmatch(r"\S+ physical memory 0x[0-9A-Fa-f]+ - 0x[0-9A-Fa-f]+:", lines[0]):
        raise Garbled("no dump of memory")
    body = lines[1:] if answer.ok else lines[1:-1]
    rows = [_WORDS.fullmatch(line) for line in body]
    places = [int(row[1], 16) for row in rows if row]
    if places != list(range(gpa, gpa + 16 * len(body), 16)) or 16 * len(body) > size:
        raise Garbled("no dump of memory")
    if 16 * len(body) < size:
        if answer.ok:
            raise Garbled("no whole dump of memory")
        raise Missing("not given by the hypervisor")
    return b"".join(int(row[n], 16).to_bytes(4, "little") for row in rows if row for n in range(2, 6))


class Memory:
    """A guest's memory by GPA, as ``guest dumpmem`` gives it; a ``Source``.

    What was read is kept until ``forget``, so that one run of a probe reads each place once.

    Args:
        console: The prompt.
        guest: The guest's name.
    """

    size = 1 << 64

    def __init__(self, console: Console, guest: str) -> None:
        self._console = console
        self._guest = guest
        self._blocks: dict[int, bytes] = {}
        self._left = MOST_ATTACHING
        self._refused = False

    def forget(self, *, renew: bool = False) -> bool:
        """Forget what was read: a new run has to see the guest as it is now.

        Args:
            renew: Whether a new look begins, which has its own share of what may be read.
        """
        self._blocks.clear()
        if renew:
            self._left, self._refused = MOST_A_LOOK, False
        return True

    def close(self) -> None:
        """Let go of the console, which others may want."""
        self._console.close()

    def read(self, size: int, offset: int) -> bytes:
        """Return ``size`` bytes at the GPA ``offset``.

        Raises:
            Missing: The hypervisor does not give them, or they are more than a look's share.
            TargetError: The console is dead, or what it says cannot be trusted.
        """
        first, last = offset // BLOCK, (offset + size - 1) // BLOCK
        wanted = [number for number in range(first, last + 1) if number not in self._blocks]
        if len(wanted) * BLOCK > self._left:
            self._refused = True
            raise Missing(TOO_MUCH)
        self._left -= len(wanted) * BLOCK
        for start, behind in _runs(wanted):
            self._read(start, behind)
        data = b"".join(self._blocks[number] for number in range(first, last + 1))
        skip = offset - first * BLOCK
        return data[skip : skip + size]

    def _read(self, start: int, behind: int) -> None:
        gpa, size = start * BLOCK, (behind - start) * BLOCK
        command = f"guest dumpmem {self._guest} {gpa:#x} {size}"
        data = self._console.ask(command, partial(read_words, gpa=gpa, size=size))
        for number in range(start, behind):
            at = (number - start) * BLOCK
            self._blocks[number] = data[at : at + BLOCK]

    def lacks(self) -> str:
        """Say what was asked for, and not given, since the share was renewed; empty where nothing was."""
        return f"it reads {TOO_MUCH}" if self._refused else ""

    def data(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Refuse: whoever asks means to read all of RAM, which would take hours."""
        raise Missing(f"{(end - start) >> 20} MB, {TOO_MUCH}")


def _runs(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """Yield (first, behind) of numbers that follow each other, of at most ``MOST_AT_ONCE`` bytes."""
    most = MOST_AT_ONCE // BLOCK
    at = 0
    while at < len(numbers):
        behind = at + 1
        while behind < len(numbers) and behind - at < most and numbers[behind] == numbers[behind - 1] + 1:
            behind += 1
        yield numbers[at], numbers[behind - 1] + 1
        at = behind


class Inside:
    """The exported commands in the hypervisor, for one guest; a ``Commands``.

    Args:
        console: The prompt.
        guest: The guest's name.
    """

    def __init__(self, console: Console, guest: str) -> None:
        self._console = console
        self._guest = guest

    def run(self, command: str) -> list[str]:
        """Return the lines of ``ids COMMAND --raw``: whole, or with the line that says why not as the last.

        Raises:
            TargetError: The console is dead, or what it says cannot be trusted.
        """
        return self._console.ask(f"ids {command} --raw {self._guest}", read_rows)


def read_rows(answer: Answer) -> list[str]:
    """Return the lines for programs of an exported command.

    Raises:
        Garbled: That is not what came: something is between them, or they are not as many as they say.
    """
    lines = answer.lines if answer.ok else answer.lines[:-1]
    if not lines or not all(map(_ROW.fullmatch, lines)):
        raise Garbled("no lines of an exported command")
    ends = [line for line in lines if line[0] in "=E"]
    if len(ends) != 1 or lines[-1] != ends[0]:
        raise Garbled("no end of an exported command")
    if ends[0][0] == "=":
        rows = [line for line in lines if line[0] in "PSBF"]
        if not answer.ok or ends[0].split(" ")[1] != str(len(rows)):
            raise Garbled("not as many lines as there should be")
    return lines


def _commands(console: Console, guest: str) -> Inside | None:
    """Return the exported commands, if the hypervisor has them."""
    there = console.ask("ids help", lambda answer: _says(answer, "Usage:", "   ids help"))
    return Inside(console, guest) if there else None


def _says(answer: Answer, first: str, other: str) -> bool:
    if not answer.ok and answer.lines == ["Error: unknown command ids"]:
        return False
    if not answer.ok or not answer.lines or answer.lines[0] != first:
        raise Garbled("no usage of a command")
    return any(line.startswith(other) for line in answer.lines)
