"""What a function of the kernel loads from the objects that it is given: read from its machine code.

A second way to learn layouts, which has nothing to do with what lies in the objects. ``get_task_mm(task)`` loads
``task->mm``: somewhere in it is a load from its first argument with the member's offset as an immediate. Registers are
followed from where a function begins along its text, over moves, additions and loads; where two ways meet, only that
is known which both know. The text is gone through a few times, so that most ways back are followed, not all of them:
what is said here confirms, it does not prove.

``capstone`` decodes the instructions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from yamori.address import GVA
from yamori.errors import Fault, ProfileError

if TYPE_CHECKING:
    from yamori.translation.space import AddressSpace

LONGEST = 4096
"""Bytes of a function that are decoded."""

PASSES = 3
"""Times that a function is gone through."""

DEEPEST = 4
"""Pointers that are followed from what a function is given."""

Path = tuple[int, ...]
"""Offsets in bytes: of a pointer in what a function is given, of a member in what that leads to, and so on."""


class _Value(NamedTuple):
    """What a register holds: a pointer that was reached by ``path``, and ``plus`` bytes."""

    path: Path
    plus: int = 0

    def at(self, displacement: int) -> Path:
        return (*self.path, self.plus + displacement)


_GIVEN = _Value(())
"""An argument, what a call returned, or the running task."""

_STACK, _STACK_START, _NUMBER = _Value((-1,)), _Value((-2,)), _Value((-3,))
"""The stack pointer; ``current_thread_info()`` of 32-bit Arm before 5.16, at the start of the stack; and 0."""

_State = dict[str, _Value]
"""What is known, by the name of a register, or of a word on the stack."""


class _Operand(NamedTuple):
    """An operand: ``register``, ``number``, ``memory`` at a register and a number, ``per CPU`` of x86, or ``other``."""

    kind: str
    register: str = ""
    number: int = 0


class _Machine(NamedTuple):
    """How to read one architecture's code, by the procedure call standard that its kernel is built for.

    Attributes:
        modes: capstone's names of the architecture and of its modes.
        counter: The program counter, where instructions count from it; how far it is ahead of them (0: behind them).
        given: Registers that lead to something where a function begins.
        result: The register with a function's result.
        kept: Registers that a call leaves alone.
        loads: How the instructions begin that load into their first operands.
        stores: How those begin that store a register.
        calls: Those that call.
        leaves: Those behind which the next instruction is not reached from here.
    """

    modes: tuple[str, ...]
    counter: tuple[str, int]
    given: tuple[str, ...]
    result: str
    kept: frozenset[str]
    loads: tuple[str, ...]
    stores: tuple[str, ...]
    calls: frozenset[str]
    leaves: frozenset[str]


def _numbered(letter: str, first: int, last: int) -> tuple[str, ...]:
    return tuple(f"{letter}{number}" for number in range(first, last + 1))


_ARM = _Machine(
    ("ARM", "ARM"), ("pc", 8), _numbered("r", 0, 3), "r0", frozenset({*_numbered("r", 4, 8), "sb", "sl", "fp", "sp"}),
    ("ldr",), ("str",), frozenset({"bl", "blx"}), frozenset({"b", "b.w", "bx", "pop"}),
)  # fmt: skip
_MACHINES: Mapping[str, _Machine] = {
    "arm": _ARM,
    "thumb": _ARM._replace(modes=("ARM", "THUMB"), counter=("pc", 4)),
    "aarch64": _Machine(
        ("ARM64", "ARM"), ("", 0), _numbered("x", 0, 5), "x0", frozenset({*_numbered("x", 19, 28), "fp", "sp"}),
        ("ldr", "ldp", "ldur"), ("str", "stur"), frozenset({"bl", "blr"}), frozenset({"b", "br", "ret"}),
    ),
    "riscv64": _Machine(
        ("RISCV", "RISCV64", "RISCVC"), ("", 0), (*_numbered("a", 0, 5), "tp"), "a0",
        frozenset({*_numbered("s", 0, 11), "sp", "tp"}),
        ("ld", "lw", "lh", "lb", "c.ld", "c.lw"), ("sd", "sw"), frozenset({"jal", "jalr", "c.jalr"}),
        frozenset({"j", "c.j", "jr", "c.jr", "ret"}),
    ),
    "x86_64": _Machine(
        ("X86", "64"), ("rip", 0), ("rdi", "rsi", "rdx", "rcx", "r8", "r9"), "rax",
        frozenset({*_numbered("r", 12, 15), "rbx", "rbp", "rsp"}), ("mov",), ("mov",), frozenset({"call"}),
        frozenset({"jmp", "ret"}),
    ),
}  # fmt: skip
_NEAR = (1 << 32) - 1
"""Of an address, what tells places in a function apart; capstone gives some as negative numbers."""

_REGISTER, _IMMEDIATE, _MEMORY, _JUMP = 1, 2, 3, 1  # CS_OP_REG, CS_OP_IMM, CS_OP_MEM, CS_GRP_JUMP of capstone 4 and 5
_STACK_POINTERS = frozenset({"sp", "rsp"})
_HALVES = frozenset({"adrp", "movw", "lui", "auipc"})
"""Instructions that make the first part of an address only."""

_RISCV_STORES = frozenset({"sb", "sh", "sw", "sd", "fsw", "fsd"})
_COMPRESSED = frozenset({"c.lw", "c.ld", "c.sw", "c.sd", "c.fld", "c.fsd"})
_X86_32 = {f"e{name}": f"r{name}" for name in ("ax", "bx", "cx", "dx", "si", "di", "bp", "sp")}


class Code:
    """Reads functions of one kernel.

    Args:
        space: The kernel's address space.
        machine: As ``Profile.architecture`` names it, or ``thumb``.

    Raises:
        ProfileError: capstone is not installed.
    """

    def __init__(self, space: AddressSpace, machine: str) -> None:
        try:
            import capstone  # noqa: PLC0415  an extra, and slow to import
        except ImportError:
            raise ProfileError("capstone is not installed", hint="pip install 'yamori[code]'") from None
        self._space = space
        self._machine = _MACHINES[machine]
        self._most = (1 << 32) - 1 if self._machine.modes[0] == "ARM" else (1 << 64) - 1
        family, *modes = self._machine.modes
        mode = sum(getattr(capstone, f"CS_MODE_{name}") for name in modes)
        self._decoder: Any = capstone.Cs(getattr(capstone, f"CS_ARCH_{family}"), mode)
        self._decoder.detail = True

    def paths(self, *parts: range) -> frozenset[Path]:
        """Return what a function loads, stores, or hands on the address of.

        Args:
            parts: GVAs of its text: from its entry on, and of what the compiler put elsewhere as hardly ever reached.

        Returns:
            The paths; none where its code cannot be read.
        """
        return frozenset(path for path in self._swept(parts).paths if path[0] >= 0)

    def addresses(self, *parts: range) -> frozenset[int]:
        """Return the fixed addresses that a function uses: GVAs of variables, of other functions, and numbers.

        Args:
            parts: As of ``paths``.
        """
        used = self._swept(parts).paths
        return frozenset(path[1] & self._most for path in used if len(path) > 1 and path[:1] == _NUMBER.path)

    def _swept(self, parts: Sequence[range]) -> _Sweep:
        instructions = [instruction for part in parts for instruction in self._decoded(part)]
        sweep = _Sweep(self._machine, self._word)
        for _ in range(PASSES):
            sweep.enter()
            for instruction in instructions:
                sweep.step(instruction)
        return sweep

    def _word(self, address: int) -> int | None:
        """Return a word of 32 bits that lies among instructions."""
        try:
            return self._space.u32(GVA(address & self._most))
        except Fault:
            return None

    def _decoded(self, part: range) -> Iterator[Any]:
        try:
            text = self._space.read(GVA(part.start), min(len(part), LONGEST))
        except Fault:
            return iter(())
        return iter(self._decoder.disasm(text, part.start))


class _Sweep:
    """One way along a function's text.

    Attributes:
        paths: What it uses.
    """

    def __init__(self, machine: _Machine, word: Callable[[int], int | None]) -> None:
        self.paths: set[Path] = set()
        self._machine = machine
        self._word = word
        self._state: _State = {}
        self._reached = False
        self._after = 0
        self._ahead: dict[int, _State] = {}

    def enter(self) -> None:
        """Begin at the function's entry, with what was learnt of where jumps lead to."""
        self._state = dict.fromkeys(self._machine.given, _GIVEN) | dict.fromkeys(_STACK_POINTERS, _STACK)
        self._reached, self._after = True, 0

    def step(self, instruction: Any) -> None:
        """Follow one instruction."""
        if self._after not in {0, instruction.address}:  # another part
            self._reached = False
        self._after = instruction.address + instruction.size
        come = self._ahead.pop(instruction.address & _NEAR, None)
        if come is not None:
            self._state = _common(self._state, come) if self._reached else come
            self._reached = True
        if not self._reached:  # but by a way back
            return
        name, machine = instruction.mnemonic, self._machine
        operands = _operands(instruction)
        counter, ahead = machine.counter
        if counter:
            at = (instruction.address + ahead) & ~3 if ahead else self._after
            self._state[counter] = _NUMBER._replace(plus=at)
        if name in machine.calls:
            self._hand_on()
            self._state = {
                place: value for place, value in self._state.items() if place in machine.kept or place.startswith("[")
            }
            self._state[machine.result] = _GIVEN
            return
        self._note_jump(instruction, operands)
        if name == "cmp" and operands[-1].kind == "number":
            self.paths.add(_NUMBER.at(operands[-1].number))
        for place in self._places(operands):
            self.paths.add(place.at(0))
            if place.path == _STACK.path and (stored := self._stored(name, operands)) is not None:
                self._set(_slot(place), self._state.get(stored))
        known = dict(self._results(instruction, operands))
        for register in {*self._written(instruction, operands), *known} - _STACK_POINTERS:
            self._set(register, known.get(register))
        if name in machine.leaves and (name != "pop" or any(operand.register == "pc" for operand in operands)):
            self._hand_on()
            self._reached = False

    def _set(self, register: str, value: _Value | None) -> None:
        if value is None or len(value.path) > DEEPEST:
            self._state.pop(register, None)
        else:
            self._state[register] = value

    def _hand_on(self) -> None:
        """Note which addresses a call, or a jump elsewhere, is given."""
        values = (self._state.get(register) for register in self._machine.given)
        self.paths.update(value.at(0) for value in values if value and value.plus)

    def _note_jump(self, instruction: Any, operands: list[_Operand]) -> None:
        """Keep what is known for where a jump leads to; of use where that comes later."""
        if not operands or operands[-1].kind != "number" or not instruction.group(_JUMP):
            return
        number = operands[-1].number + (instruction.address if "RISCV" in self._machine.modes else 0)
        target = number & _NEAR
        there = self._ahead.get(target)
        self._ahead[target] = dict(self._state) if there is None else _common(there, self._state)

    def _written(self, instruction: Any, operands: list[_Operand]) -> Iterator[str]:
        """Yield the registers that an instruction writes. Of RISC-V, capstone does not tell."""
        if "RISCV" not in self._machine.modes:
            yield from (_name(instruction.reg_name(register)) for register in instruction.regs_access()[1])
        elif instruction.mnemonic.removeprefix("c.") not in _RISCV_STORES and not instruction.group(_JUMP):
            yield from (operand.register for operand in operands[:1])

    def _places(self, operands: list[_Operand]) -> Iterator[_Value]:
        """Yield the places in memory that an instruction uses, where they are known."""
        for operand in operands:
            base = self._state.get(operand.register) if operand.kind in {"memory", "indexed"} else None
            if operand.kind == "memory" and not operand.register:
                base = _NUMBER
            if base is not None and (operand.kind == "memory" or base.path == _NUMBER.path):
                yield base._replace(plus=base.plus + operand.number)

    def _stored(self, name: str, operands: list[_Operand]) -> str | None:
        """Return the register that an instruction stores."""
        loads = name.startswith(self._machine.loads) and operands[0].kind == "register"  # of x86, both are mov
        if loads or not name.removeprefix("c.").startswith(self._machine.stores):
            return None
        return next((operand.register for operand in operands if operand.kind == "register"), "")

    def _results(self, instruction: Any, operands: list[_Operand]) -> Iterator[tuple[str, _Value]]:
        """Yield the registers to which an instruction gives a known value."""
        name = instruction.mnemonic
        registers = [operand.register for operand in operands if operand.kind == "register"]
        if not registers or operands[0].kind not in {"register", "other"}:
            return
        if name.startswith("ldm") and (place := self._state.get(registers[0])) and place.path != _STACK.path:
            for index, register in enumerate(registers[1:]):
                self.paths.add(place.at(4 * index))
                yield register, _Value(place.at(4 * index))
            return
        if any(operand.kind == "per CPU" for operand in operands) or name in {"mrc", "mrs"}:
            yield registers[0], _GIVEN
        elif any(operand.kind == "memory" for operand in operands):
            place = next(self._places(operands), None)
            if place and name.startswith("lea"):
                yield registers[0], place
            elif place and name.startswith(self._machine.loads):
                yield from self._loaded(name, registers, place)
        elif (number := self._number(instruction, operands)) is not None:
            if name.removeprefix("c.") not in _HALVES:
                self.paths.add(_NUMBER.at(number))
            yield registers[0], _NUMBER._replace(plus=number)
        elif value := self._state.get(registers[-1]):
            yield from self._moved(name, registers[0], value, operands[-1])

    def _number(self, instruction: Any, operands: list[_Operand]) -> int | None:
        """Return the number that an instruction puts into a register, or the part of an address."""
        name, number = instruction.mnemonic.removeprefix("c."), operands[-1].number
        if operands[-1].kind != "number":
            return None
        if name == "movt":
            low = self._state.get(operands[0].register)
            return low.plus & 0xFFFF | number << 16 if low and low.path == _NUMBER.path else None
        if name in {"adr", "adrp", "movw", "movabs"} or (name == "mov" and len(operands) == 2):
            return number
        if name in {"lui", "auipc"}:
            high = (number & 0xFFFFF ^ 0x80000) - 0x80000 << 12
            return high + (instruction.address if name == "auipc" else 0)
        return None

    def _loaded(self, name: str, registers: list[str], place: _Value) -> Iterator[tuple[str, _Value]]:
        """Yield what is loaded from a place: pairs by ``ldp`` and ``ldrd``."""
        if place.path == _STACK_START.path:
            yield registers[0], _GIVEN
        elif place.path == _NUMBER.path and registers[0] not in _STACK_POINTERS and self._is_literal(place):
            if (word := self._word(place.plus)) is not None:
                self.paths.add(_NUMBER.at(word))
                yield registers[0], _NUMBER._replace(plus=word)
        elif place.path == _STACK.path:
            if (kept := self._state.get(_slot(place))) is not None:
                yield registers[0], kept
        else:
            size = {"ldp": 8, "ldrd": 4}.get(name)
            for index, register in enumerate(registers[:2] if size else registers[:1]):
                yield register, _Value(place.at(index * (size or 0)))

    def _is_literal(self, place: _Value) -> bool:
        """Say whether what is loaded lies among a 32-bit Arm function's instructions."""
        return self._machine.modes[0] == "ARM" and 0 <= place.plus - self._after < LONGEST

    def _moved(self, name: str, target: str, value: _Value, last: _Operand) -> Iterator[tuple[str, _Value]]:
        """Yield what a move or an addition makes of a value."""
        kind = name.removeprefix("c.")
        if last.kind == "register" and kind in {"mov", "movs", "mv"}:
            yield target, value
        elif last.kind == "number" and kind.startswith("bic") and value.path[:1] in {_STACK.path, _STACK_START.path}:
            yield target, _STACK_START
        elif last.kind == "number" and kind in {"add", "addi", "add.w", "addw", "adds", "sub", "subs"}:
            sum_ = value._replace(plus=value.plus + (-last.number if kind.startswith("sub") else last.number))
            if sum_.path == _NUMBER.path:
                self.paths.add(sum_.at(0))
            yield target, sum_


def _slot(place: _Value) -> str:
    """Return the name of a word on the stack, by what the stack pointer is now: it hardly ever moves within a body."""
    return f"[{place.plus}]"


def _common(one: _State, other: _State) -> _State:
    return {register: value for register, value in one.items() if other.get(register) == value}


def _operands(instruction: Any) -> list[_Operand]:
    operands = [_operand(instruction, operand) for operand in instruction.operands]
    if instruction.mnemonic in _COMPRESSED:  # capstone tells of these as of a number and a register
        value, displacement, base = operands
        return [value, _Operand("memory", base.register, displacement.number)]
    return operands


def _operand(instruction: Any, operand: Any) -> _Operand:
    """Return an operand as all architectures have it."""
    if operand.type == _REGISTER:
        return _Operand("register", _name(instruction.reg_name(operand.reg)))
    if operand.type == _IMMEDIATE:
        shift = getattr(operand, "shift", None)  # lsl #12 of AArch64
        return _Operand("number", "", operand.imm << (shift.value if shift else 0))
    if operand.type != _MEMORY:
        return _Operand("other")
    place = operand.mem
    if getattr(place, "segment", 0):
        return _Operand("per CPU")
    if not place.base:
        return _Operand("memory", "", place.disp)
    if getattr(place, "index", 0):
        return _Operand("indexed", _name(instruction.reg_name(place.base)), place.disp)
    return _Operand("memory", _name(instruction.reg_name(place.base)), place.disp)


def _name(register: str) -> str:
    """Return the name of the whole register of which an instruction uses a part."""
    if register[0] == "w" and register[1:].isdigit():
        return f"x{register[1:]}"
    if register[0] == "r" and register[-1] in "bwd" and register[1:-1].isdigit():
        return register[:-1]
    return _X86_32.get(register, register)
