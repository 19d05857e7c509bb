"""A walker, a guest and programs, written as IR by hand, that the tests of native and of emulated code share."""

from __future__ import annotations

import random
import struct
from dataclasses import replace

from yamori.llview import ir
from yamori.llview.ir import BOOL, END, S8, S16, S32, S64, U8, U16, U32, U64, Const, IntType, Local, Program, Statement
from yamori.llview.machine import Machine, SlotFill
from yamori.memory.physical import BytesMemory

P = ir.Place("/somewhere/demo.py", 3)
KINDS = (BOOL, U8, U16, U32, U64, S8, S16, S32, S64)
KERNEL = {4: 0xC000_0000, 8: 0xFFFF_8880_0000_0000}
PAGE = 4096
PAGES = 16
BASE = 0x4000_0000
"""GPA of RAM: first the table, then ``PAGES`` pages that are mapped from ``KERNEL`` on."""


def u64(value: int) -> Const:
    return Const(value, U64)


def op(operator: ir.BinaryOperator, left: ir.Expression, right: ir.Expression, kind: IntType = U64) -> ir.Binary:
    return ir.Binary(operator, left, right, kind)


def flat_walker() -> Program:
    """One table of 64-bit entries, by bits 12 to 20 of a GVA. Bit 0 is valid; a parameter is added to the result."""
    root, gva, bias, entry = (Local(name, U64) for name in ("root", "gva", "bias", "entry"))
    at = op("+", root, op("*", op("&", op(">>", gva, u64(12)), u64(511)), u64(8)))
    return Program(
        name="flat",
        kind="walker",
        word_size=0,
        file="flat.py",
        parameters=[root, gva, bias],
        results=[U64],
        messages=["not valid"],
        locals={"entry": U64},
        body=[
            ir.LoadPhys(place=P, fault=END, target=entry, address=at, size=8),
            ir.If(
                place=P,
                condition=ir.Not(ir.Cast(op("&", entry, u64(1)), BOOL)),
                then=[ir.Raise(place=P, fault=END, message=0, value=entry)],
            ),
            ir.Return(place=P, values=[op("+", op("-", entry, u64(1)), bias)]),
        ],
    )


def load(
    target: Local,
    address: ir.Expression,
    *,
    slot: int | None = None,
    size: int = 0,
    fault: str = END,
    root: ir.Expression | None = None,
) -> list[Statement]:
    """The two statements that a translated load is."""
    return [
        ir.Page(place=P, fault=fault, target="page", address=address, size=size, slot=slot, root=root),
        ir.LoadHost(place=P, fault=fault, target=target, page="page", address=address, size=size, slot=slot),
    ]


def list_probe(word_size: int, name: str = "items") -> Program:
    """Walk a circular list of items from ``head`` on; a row for each, with its number and a text of 12 bytes."""
    word = IntType(word_size * 8)
    head, item, number, at = Local("head", word), Local("item", word), Local("number", S32), Local("for", word)

    def member(slot: int) -> Statement:
        offset = ir.SlotValue(slot, "offset")
        return ir.Assign(
            place=P, target=at, value=op("+", item, ir.Cast(offset, word) if word != U64 else offset, word)
        )

    text = Local("text", U32)
    copies: list[Statement] = []
    for step in (0, 4, 8):
        there = Local("there", word)
        copies += [
            ir.Assign(place=P, target=there, value=op("+", at, Const(step, word), word)),
            *load(text, there, size=4),
            ir.StoreBuffer(place=P, fault=END, buffer="name", at=u64(step), value=text, size=4),
        ]
    return Program(
        name=name,
        kind="probe",
        word_size=word_size,
        file="demo.py",
        parameters=[head],
        slots=[ir.SlotSpec("member", "item", part) for part in ("next", "number", "name")],
        row=[ir.RowField("item", U64), ir.RowField("number", S32, nullable=True), ir.RowField("name", 12)],
        locals={"item": word, "number": S32, "for": word, "there": word, "text": U32},
        buffers={"name": 12},
        body=[
            ir.Assign(place=P, target=item, value=head),
            ir.Loop(
                place=P,
                label="items",
                body=[
                    ir.Tick(place=P),
                    member(1),
                    *load(number, at, slot=1),
                    member(2),
                    *copies,
                    ir.If(
                        place=P,
                        condition=ir.Compare("==", number, Const(-1, S32)),
                        then=[ir.Emit(place=P, values=[as_u64(item), None, "name"])],
                        otherwise=[ir.Emit(place=P, values=[as_u64(item), number, "name"])],
                    ),
                    member(0),
                    *load(item, at, slot=0),
                    ir.If(place=P, condition=ir.Compare("==", item, head), then=[ir.Break(place=P, label="items")]),
                ],
            ),
        ],
    )


def as_u64(value: ir.Expression) -> ir.Expression:
    return value if value.type == U64 else ir.Cast(value, U64)


def every_statement(word_size: int, name: str = "everything") -> Program:
    """Whatever the other programs lack: attempts, arrays, jumps, troubles, a program's own fault, other roots."""
    word = IntType(word_size * 8)
    address, i, total, failed = Local("address", word), Local("i", U32), Local("total", U64), Local("failed", BOOL)
    small, other = Local("small", S16), Local("other", U64)

    def plus(amount: ir.Expression) -> ir.Assign:
        return ir.Assign(place=P, target=total, value=op("+", total, amount))

    attempt = ir.Attempt(
        place=P,
        label="try",
        failed=failed,
        body=[
            *load(small, address, size=1, fault="try"),
            *load(other, address, slot=0, fault="try", root=ir.SlotValue(1, "offset")),
            plus(other),
            ir.StoreArray(place=P, fault="try", array="seen", at=i, value=ir.Cast(small, U16)),
            ir.LoadArray(place=P, fault="try", target=Local("element", U16), array="seen", at=i),
            ir.StoreBuffer(place=P, fault="try", buffer="text", at=i, value=other, size=2),
            ir.LoadBuffer(place=P, fault="try", target=small, buffer="text", at=i),
            plus(ir.Cast(small, U64)),
        ],
    )
    loop = ir.Loop(
        place=P,
        label="loop",
        body=[
            ir.Tick(place=P),
            ir.Assign(place=P, target=i, value=op("+", i, Const(1, U32), U32)),
            ir.Assign(place=P, target=address, value=op("+", address, Const(0x301, word), word)),
            attempt,
            ir.If(
                place=P,
                condition=failed,
                then=[
                    ir.Trouble(place=P, message=0, value=ir.Cast(i, U64), faulted=True, torn=True),
                    ir.If(
                        place=P,
                        condition=ir.Compare("<", i, Const(200, U32)),
                        then=[ir.Continue(place=P, label="loop")],
                    ),
                ],
            ),
            ir.Block(
                place=P,
                label="block",
                body=[
                    ir.If(
                        place=P,
                        condition=ir.Compare("==", op("%", i, Const(7, U32), U32), Const(0, U32)),
                        then=[ir.Break(place=P, label="block")],
                    ),
                    ir.Emit(place=P, values=[ir.Cast(i, U8), op("%", total, u64(1000003)), "text", failed]),
                ],
            ),
            ir.If(
                place=P,
                condition=ir.Compare(">=", i, Const(220, U32)),
                then=[ir.Raise(place=P, fault=END, message=1, value=op("//", total, u64(10)))],
            ),
            ir.If(
                place=P,
                condition=ir.Compare("==", i, Const(150, U32)),
                then=[ir.ClearArray(place=P, array="seen"), ir.ClearBuffer(place=P, buffer="text")],
            ),
        ],
    )
    return Program(
        name=name,
        kind="probe",
        word_size=word_size,
        file="demo.py",
        parameters=[address],
        slots=[ir.SlotSpec("member", "item", "next"), ir.SlotSpec("symbol", "other_root")],
        messages=["it failed", "*/ it is over \\"],
        row=[
            ir.RowField("i", U8),
            ir.RowField("total", U64),
            ir.RowField("text", 70),
            ir.RowField("failed", BOOL),
        ],
        locals={"i": U32, "total": U64, "failed": BOOL, "small": S16, "other": U64, "element": U16},
        arrays={"seen": (U16, 100)},
        buffers={"text": 70},
        body=[loop],
    )


def slot(offset: int, size: int = 0, *, signed: bool = False, shift: int = 0, bits: int = 0) -> SlotFill:
    return SlotFill(exists=True, offset=offset, size=size, signed=signed, shift=shift, bits=bits)


def fills(word_size: int) -> list[SlotFill]:
    """The slots of ``list_probe``."""
    return [slot(16, word_size), slot(24, 4, signed=True), slot(28, 12)]


def ram(word_size: int, count: int = 50) -> tuple[bytearray, list[int]]:
    """A table, and pages of random bytes with a list of ``count`` items: the RAM, and where the items lie."""
    numbers = random.Random(1)
    data = bytearray(PAGE) + bytearray(numbers.randbytes(PAGES * PAGE))
    for page in range(PAGES):
        struct.pack_into("<Q", data, page * 8, (page + 1) * PAGE | 1)
    offsets = [64 * number for number in numbers.sample(range(PAGES * PAGE // 64), count)]
    items = [KERNEL[word_size] + offset for offset in offsets]
    for i, offset in enumerate(offsets):
        at = PAGE + offset + 16
        data[at : at + 8] = items[(i + 1) % count].to_bytes(8, "little")
        struct.pack_into("<i12s", data, at + 8, -i, f"item {i}".encode())
    return data, items


def rows(items: list[int]) -> list[tuple[int, int | None, bytes]]:
    """What ``list_probe`` finds."""
    return [(item, -i if i != 1 else None, f"item {i}".encode()) for i, item in enumerate(items)]


def machine(data: bytes | bytearray, word_size: int, walker: Program) -> Machine:
    last = (1 << (word_size * 8)) - 1
    memory = BytesMemory({BASE: data})
    return Machine(memory, walker, (BASE,), BASE, 12, (KERNEL[word_size], last), word_size)


def with_geometry(given: Machine, *geometry: int) -> Machine:
    return replace(given, geometry=geometry)
