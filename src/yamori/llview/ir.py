"""LLView's intermediate representation: structured statements over integers, with loads of guest memory made explicit.

A program is a tree of statements, as in WebAssembly: ``Loop`` and ``Block`` carry labels, ``Break`` and ``Continue``
name them. Expressions have no effects and cannot fault; whatever reads guest memory or can fail is a statement, and
names the label of the ``Attempt`` that takes its fault (``END`` where the whole run ends). ``None`` there is a
missing fault path, which the verifier refuses.

The front end writes ``LoadVirt`` and ``CopyVirt``; the translation pass turns them into ``Page`` and ``LoadHost``.
Only then does the verifier let a program through to a back end. Walkers use ``LoadPhys`` alone.

What the statements mean is defined here and nowhere else; the interpreter (``python_backend``, ``runtime``) and the C
back end (``c_backend``, ``runtime.h``) do the same, load for load, which the tests compare.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

from msgspec import Struct

END = ""
"""The fault path that ends the run."""

MOST_FIELDS = 64
"""Fields of a row: one word says which of them are present."""

MOST_STORAGE = 1 << 15
"""Bytes of a program's arrays and buffers: threads of some C libraries have stacks of 128 KiB."""


class IntType(NamedTuple):
    """A C integer: ``uint8_t`` to ``int64_t``; one bit is ``bool``. Arithmetic wraps, signed too."""

    bits: int
    signed: bool = False

    @property
    def name(self) -> str:
        """The name in the language."""
        return "bool" if self.bits == 1 else f"{'s' if self.signed else 'u'}{self.bits}"

    @property
    def one(self) -> str:
        """The name with its article: an s32, a u32."""
        return f"an {self.name}" if self.signed else f"a {self.name}"

    def wrap(self, value: int) -> int:
        """Return what a C variable of this type holds once ``value`` is assigned to it."""
        value &= (1 << self.bits) - 1
        return value - (1 << self.bits) if self.signed and value >> (self.bits - 1) else value


BOOL = IntType(1)
U8, U16, U32, U64 = IntType(8), IntType(16), IntType(32), IntType(64)
S8, S16, S32, S64 = (IntType(bits, signed=True) for bits in (8, 16, 32, 64))


# --- Expressions: no effects, no faults ---------------------------------------------------------------------------


class Const(NamedTuple):
    """A number; within the range of its type."""

    value: int
    type: IntType


class Local(NamedTuple):
    """A variable: a local of the program or one of its parameters."""

    name: str
    type: IntType


BinaryOperator: TypeAlias = Literal["+", "-", "*", "//", "%", "&", "|", "^", "<<", ">>"]
Comparison: TypeAlias = Literal["==", "!=", "<", "<=", ">", ">="]


class Binary(NamedTuple):
    """``left operator right``, both of ``type``, wrapped to ``type``.

    The divisor of ``//`` and ``%`` is a positive ``Const``, and the type unsigned. A shift by ``type.bits`` or more
    gives 0 (``>>`` of a negative number: -1); ``>>`` keeps the sign of a signed type; the right operand of a shift is
    unsigned.
    """

    operator: BinaryOperator
    left: Expression
    right: Expression
    type: IntType


class Compare(NamedTuple):
    """``left operator right``, both of one type; a ``BOOL``."""

    operator: Comparison
    left: Expression
    right: Expression

    @property
    def type(self) -> IntType:
        """Always ``BOOL``."""
        return BOOL


class Not(NamedTuple):
    """``not operand`` of a ``BOOL``."""

    operand: Expression

    @property
    def type(self) -> IntType:
        """Always ``BOOL``."""
        return BOOL


class Cast(NamedTuple):
    """``operand`` as C assigns it to a variable of ``type``; to ``BOOL`` it is ``operand != 0``."""

    operand: Expression
    type: IntType


SlotField: TypeAlias = Literal["exists", "offset", "size", "stride"]


class SlotValue(NamedTuple):
    """A field of a slot, filled when the program is bound to a kernel: ``exists`` is a ``BOOL``, all else a ``U64``.

    ``offset`` of a symbol's slot is its address.
    """

    slot: int
    field: SlotField

    @property
    def type(self) -> IntType:
        """``BOOL`` or ``U64``."""
        return BOOL if self.field == "exists" else U64


Expression: TypeAlias = Const | Local | Binary | Compare | Not | Cast | SlotValue


# --- Statements ---------------------------------------------------------------------------------------------------


class Place(NamedTuple):
    """Where in the source a statement comes from."""

    file: str
    line: int


class Statement(Struct, kw_only=True):
    """What all statements have: the place in the source."""

    place: Place


class Faulting(Statement, kw_only=True):
    """A statement that may fault, and the label of the ``Attempt`` that takes the fault; ``END`` ends the run."""

    fault: str | None


class Assign(Statement, kw_only=True):
    """``target = value``, of one type."""

    target: Local
    value: Expression


class LoadVirt(Faulting, kw_only=True):
    """``load.virt``: a load of guest virtual memory, before translation.

    With ``slot`` the size is the slot's, and a bit-field is cut out of it (shift, bits), extended by the slot's sign,
    and then cast to the target's type. Otherwise ``size`` bytes (1, 2, 4 or 8), extended by the sign of the target's
    type. ``root`` is the GPA of a table (``U64``); ``None`` is the kernel's own.
    """

    target: Local
    address: Expression
    size: int = 0
    slot: int | None = None
    root: Expression | None = None


class CopyVirt(Faulting, kw_only=True):
    """``load.virt`` of a string: at most ``length`` (``U64``) bytes at ``address`` into a buffer, up to and with a NUL.

    The buffer is cleared first, and is zero behind the NUL. What does not fit in the buffer is left out.
    """

    buffer: str
    address: Expression
    length: Expression
    root: Expression | None = None


class Page(Faulting, kw_only=True):
    """``page(gva)``: translate, for a load of ``size`` bytes or of the slot's size.

    Faults ``MISALIGNED`` where the address is not a multiple of the size, ``SIZE`` where a slot's size is not 1, 2, 4
    or 8, ``NOT_KERNEL`` where the kernel's root is meant and the address is not a kernel address, and with whatever
    the walker faults. A translation is looked up in, and put into, the direct-mapped cache. ``target`` becomes a
    handle, good until the next ``Page``.
    """

    target: str
    address: Expression
    size: int = 0
    slot: int | None = None
    root: Expression | None = None


class LoadHost(Faulting, kw_only=True):
    """The load itself, through a handle that ``Page`` gave for the same address and size.

    See ``LoadVirt`` for the value. Counts one load, and is recorded as event (``V``, gva, size). Faults ``OUTSIDE``.
    """

    target: Local
    page: str
    address: Expression
    size: int = 0
    slot: int | None = None


class Translate(Faulting, kw_only=True):
    """``target`` becomes the GPA (``U64``) of an address of the kernel, by its own tables. Faults as ``Page``."""

    target: Local
    address: Expression


class LoadPhys(Faulting, kw_only=True):
    """``load.phys``: ``size`` (4 or 8) bytes at a GPA, for walkers.

    Event (``P``, gpa, size). Faults ``MISALIGNED`` and ``OUTSIDE``.
    """

    target: Local
    address: Expression
    size: int


class StoreBuffer(Faulting, kw_only=True):
    """``size`` low bytes of ``value``, little endian, to ``buffer[at]``. Faults ``INDEX`` where they do not fit."""

    buffer: str
    at: Expression
    value: Expression
    size: int


class ClearBuffer(Statement, kw_only=True):
    """Fill a buffer with zeros."""

    buffer: str


class LoadBuffer(Faulting, kw_only=True):
    """One byte of a buffer. Faults ``INDEX``."""

    target: Local
    buffer: str
    at: Expression


class LoadArray(Faulting, kw_only=True):
    """``target = array[at]`` of a local array. Faults ``INDEX``."""

    target: Local
    array: str
    at: Expression


class StoreArray(Faulting, kw_only=True):
    """``array[at] = value`` of a local array. Faults ``INDEX``."""

    array: str
    at: Expression
    value: Expression


class ClearArray(Statement, kw_only=True):
    """Fill a local array with zeros."""

    array: str


class Tick(Statement, kw_only=True):
    """Spend one of the run's budget.

    The run ends with ``BUDGET`` where nothing is left, whatever ``Attempt`` is around.
    """


class If(Statement, kw_only=True):
    """``if condition: then else: otherwise``."""

    condition: Expression
    then: list[Statement]
    otherwise: list[Statement] = []  # msgspec gives each statement its own


class Loop(Statement, kw_only=True):
    """Repeat ``body`` until a ``Break``. Its first statement must be a ``Tick``."""

    label: str
    body: list[Statement]


class Block(Statement, kw_only=True):
    """Do ``body`` once; ``Break`` leaves it."""

    label: str
    body: list[Statement]


class Attempt(Statement, kw_only=True):
    """Do ``body``; a fault whose path is ``label`` ends it.

    It is counted, and sets ``failed``, which is a ``BOOL`` and otherwise false.
    """

    label: str
    failed: Local
    body: list[Statement]


class Break(Statement, kw_only=True):
    """Leave the ``Loop``, ``Block`` or ``Attempt`` of that label."""

    label: str


class Continue(Statement, kw_only=True):
    """Begin the next round of the ``Loop`` of that label."""

    label: str


class Raise(Faulting, kw_only=True):
    """Fault ``PROGRAM`` (in a walker: ``UNMAPPED``) with a message and a value."""

    message: int
    value: Expression


class Trouble(Statement, kw_only=True):
    """Note that the rows are not complete and why: a message, a value, and with ``faulted`` the last fault taken.

    With ``torn`` the guest changed what was read meanwhile: the runner may throw the rows away and run again.
    """

    message: int
    value: Expression
    faulted: bool = False
    torn: bool = False


class Emit(Statement, kw_only=True):
    """Append a row: for each field of the program an expression, the name of a buffer, or ``None`` (absent)."""

    values: list[Expression | str | None]


class Return(Statement, kw_only=True):
    """End a walker with its result, of the types of its ``Function``. A program's body may not hold one."""

    values: list[Expression]


# --- Programs -----------------------------------------------------------------------------------------------------


class Declared(NamedTuple):
    """What a probe says that a member is.

    Attributes:
        kind: How it is used.
        size: Bytes that are loaded: of a number (0: of any, it is only a truth value), of a pointer, of an array's
            element; 0 where those are structures.
        name: The structure's C name.
    """

    kind: Literal["number", "pointer", "array", "struct", "text"]
    size: int = 0
    name: str = ""


class SlotSpec(NamedTuple):
    """What a slot is filled with.

    Attributes:
        kind: ``member`` (offset, size, signed, shift, bits, stride of a member), ``symbol`` (offset is its address) or
            ``sizeof`` (size of a structure).
        owner: The structure's C name; the symbol's name; the structure's C name.
        path: The member's path, with dots; empty for the other kinds.
        optional: The program asks with ``exists`` before it uses it.
        declared: What the probe declares a member to be; ``None`` where only its offset is used.
    """

    kind: Literal["member", "symbol", "sizeof"]
    owner: str
    path: str = ""
    optional: bool = False
    declared: Declared | None = None

    def __str__(self) -> str:
        """Name it as people do: ``task_struct.comm``."""
        return f"{self.owner}.{self.path}" if self.path else self.owner


class RowField(NamedTuple):
    """One field of a row.

    Attributes:
        name: Its name.
        type: An integer's type, or the bytes of a text.
        nullable: Whether it may be absent.
    """

    name: str
    type: IntType | int
    nullable: bool = False


@dataclass(slots=True, kw_only=True)
class Program:
    """A probe, or a walker, for guests of one word size.

    Attributes:
        name: A C identifier.
        kind: ``probe`` or ``walker``.
        word_size: 4 or 8; 0 for a walker, which serves both.
        file: Where the source lies.
        parameters: Given for each run. A walker's first two are ``root`` and ``gva``, ``U64``.
        results: A walker's result types.
        slots: What binding fills.
        messages: Texts that ``Raise`` and ``Trouble`` refer to.
        row: The fields of a row.
        locals: Name → type of every variable but the parameters.
        arrays: Name → (element type, elements) of every local array.
        buffers: Name → bytes of every text buffer.
        body: The statements.
    """

    name: str
    kind: Literal["probe", "walker"]
    word_size: int
    file: str
    parameters: list[Local]
    results: list[IntType] = field(default_factory=list)
    slots: list[SlotSpec] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    row: list[RowField] = field(default_factory=list)
    locals: dict[str, IntType] = field(default_factory=dict)
    arrays: dict[str, tuple[IntType, int]] = field(default_factory=dict)
    buffers: dict[str, int] = field(default_factory=dict)
    body: list[Statement] = field(default_factory=list)

    @property
    def storage(self) -> int:
        """Bytes of its arrays and buffers, all of which lie on the stack of native code."""
        return sum(count * (kind.bits // 8 or 1) for kind, count in self.arrays.values()) + sum(self.buffers.values())
