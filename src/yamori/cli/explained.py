"""What ``yamori llview explain`` prints, for people and as JSON."""

from __future__ import annotations

import linecache
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from yamori.cli import output
from yamori.cli.output import safe
from yamori.errors import ProfileError
from yamori.records import SCHEMA

if TYPE_CHECKING:
    from yamori.guest import Guest
    from yamori.kernel.types import Member
    from yamori.llview.explain import Function, Load, Walks
    from yamori.llview.ir import Program, SlotSpec
    from yamori.llview.machine import SlotFill

WALK = "GPA by the guest's page tables"


class Explained:
    """A probe, what it becomes, and, with a guest, what it finds there.

    Args:
        name: The probe's name.
        source: Its program as the front end gave it.
        program: The same, translated.
        guest: To run it on.
    """

    def __init__(self, name: str, source: Program, program: Program, guest: Guest | None = None) -> None:
        from yamori.llview.explain import explain  # noqa: PLC0415  `yamori --help` need not wait for it

        self.name = name
        self.program = program
        self.functions: list[Function] = explain(source, program)
        self.guest = guest
        self.walk = f"GPA by {guest.kernel.profile.root.geometry.describe()}" if guest else WALK
        self.ran: Walks | None = None
        self.fills: list[SlotFill] = []
        self.not_run = ""
        if guest:
            try:
                self._run(guest)
            except ProfileError as error:
                self.not_run = str(error)

    def _run(self, guest: Guest) -> None:
        """Run it once by the interpreter, every load recorded."""
        from yamori.kernel.binding import bind  # noqa: PLC0415  `yamori --help` need not wait for them
        from yamori.llview.explain import walks  # noqa: PLC0415
        from yamori.llview.interpreter import Interpreter  # noqa: PLC0415

        self.fills = bind(self.program, guest.profile)
        arguments = (0,) * len(self.program.parameters)
        self.ran = walks(Interpreter().run(self.program, guest.kernel.machine, self.fills, arguments, trace=True))

    def ir(self) -> str:
        """Return the intermediate representation."""
        from yamori.llview.printer import show  # noqa: PLC0415  as above

        return show(self.program)

    def c(self) -> str:
        """Return the C text, of the probe alone or with the walker of the guest."""
        from yamori.llview.c_backend import c_source  # noqa: PLC0415  as above
        from yamori.llview.unit import Unit  # noqa: PLC0415  as above

        walkers = (self.guest.kernel.machine.walker,) if self.guest else ()
        files = {function.file for function in self.functions}
        sources = {file: [line.rstrip("\n") for line in linecache.getlines(file)] for file in files}
        return c_source(Unit(self.name, (self.program,), walkers), sources)

    # --- for people

    def print(self) -> None:
        """Print it."""
        from rich.text import Text  # noqa: PLC0415  slow to import

        console = output.stdout()
        for function in self.functions:
            console.print(Text(safe(f"{function.name}  {function.file}"), style="bold"))
            for line in function.lines:
                console.print(Text.assemble((f"{line.number:>5}  ", "dim"), safe(line.text.expandtabs(4))))
                for load in line.loads:
                    console.print(Text(safe(f"{'':>5}  {_indent(line.text)}▸ {self._words(load)}"), style="cyan"))
            console.print()
        write = sys.stdout.write
        for number, spec in enumerate(self.program.slots):
            write(f"{safe(self._slot_words(number, spec))}\n")
        if self.not_run:
            write(f"\nnot run: {safe(self.not_run)}\n")
        if self.ran:
            write(f"\none run: {self.ran.rows} rows, {self.ran.loads} loads, {self.ran.faults} faults; ")
            write(f"{self.ran.walks} walks of the page tables, which loaded {self.ran.entries} entries\n")

    def _words(self, load: Load) -> str:
        member = self._member(self.program.slots[load.slot]) if load.slot is not None else None
        place = f" at {_where(member)}" if member else ""
        bytes_ = load.size or (member.size if member else 0)
        size = "the member's bytes" if not bytes_ else f"{bytes_} bytes" if bytes_ > 1 else "1 byte"
        if load.is_text:
            size = f"words and bytes up to a NUL, {load.size} bytes at most"
        times = f", {load.times} times" if load.times > 1 else ""
        return f"{load.what}{place}: page({load.root} root, gva) → {self.walk}; load {size}{times}"

    def _slot_words(self, number: int, spec: SlotSpec) -> str:
        words = f"{spec.kind} {spec}{', optional' if spec.optional else ''}"
        return f"{words}: {self._found(number, spec) or 'not known'}" if self.guest else words

    def _found(self, number: int, spec: SlotSpec) -> str:
        """Return where a slot's thing lies in this guest, or an empty text."""
        if member := self._member(spec):
            return _where(member)
        if not self.fills or not self.fills[number].exists:
            return ""
        fill = self.fills[number]
        if spec.kind == "member":
            return f"+{fill.offset:#x} ({fill.size} bytes, the same in every kernel)"
        return f"{fill.offset:#x}" if spec.kind == "symbol" else f"{fill.size} bytes"

    def _member(self, spec: SlotSpec) -> Member | None:
        return self.guest.profile.member(spec.owner, spec.path) if self.guest and spec.kind == "member" else None

    # --- for programs

    def json(self, *, ir: bool, c: bool) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        value: dict[str, Any] = {
            "schema": SCHEMA,
            "command": "llview explain",
            "probe": self.name,
            "target": self.guest.vm.target if self.guest else None,
            "word_size": self.program.word_size,
            "walk": self.walk,
            "functions": [asdict(function) for function in self.functions],
            "slots": [self._json_slot(*pair) for pair in enumerate(self.program.slots)],
            "run": self.ran._asdict() if self.ran else None,
            "not_run": self.not_run,
        }
        lines = {"ir": self.ir().split("\n")} if ir else {}
        return value | lines | ({"c": self.c().split("\n")} if c else {})

    def _json_slot(self, number: int, spec: SlotSpec) -> dict[str, Any]:
        member = self._member(spec)
        fill = self.fills[number] if self.fills else None
        is_address = spec.kind == "symbol"
        return {
            "kind": spec.kind,
            "name": str(spec),
            "optional": spec.optional,
            "exists": fill.exists if fill else None,
            "offset": fill.offset if fill and not is_address else None,
            "address": f"{fill.offset:#x}" if fill and is_address else None,
            "size": fill.size if fill and not is_address else None,
            "provenance": member.provenance if member else None,
        }


def _where(member: Member) -> str:
    bits = f", {member.bits} bits from {member.shift}" if member.bits else ""
    return f"+{member.offset:#x} ({member.size} bytes{bits}, {member.provenance})"


def _indent(text: str) -> str:
    return text[: len(text) - len(text.lstrip())].expandtabs(4)
