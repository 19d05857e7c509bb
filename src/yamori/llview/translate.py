"""The pass that puts the address translation before every load of guest memory.

It runs before anything else does. After it a program holds no ``LoadVirt`` and no ``CopyVirt``: each has become a
``Page``, which translates GVA → GPA by the guest's own tables, and a ``LoadHost`` through what that found.
"""

from __future__ import annotations

from yamori.llview import ir
from yamori.llview.ir import BOOL, U8, U64, Program, Statement


def translate(program: Program) -> Program:
    """Rewrite a program in place, and return it."""
    program.body = _Pass(program).body(program.body)
    return program


class _Pass:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.word = program.word_size or 8
        self.count = 0

    def body(self, statements: list[Statement]) -> list[Statement]:
        """Return statements with every load translated."""
        result: list[Statement] = []
        for statement in statements:
            if isinstance(statement, ir.LoadVirt):
                result += self.load(statement)
            elif isinstance(statement, ir.CopyVirt):
                result += self.copy(statement)
            else:
                if isinstance(statement, ir.If):
                    statement.then = self.body(statement.then)
                    statement.otherwise = self.body(statement.otherwise)
                elif isinstance(statement, ir.Loop | ir.Block | ir.Attempt):
                    statement.body = self.body(statement.body)
                result.append(statement)
        return result

    def fresh(self, kind: ir.IntType, name: str) -> ir.Local:
        self.count += 1
        local = ir.Local(f"{name}_{self.count}x", kind)
        if any(local.name == parameter.name for parameter in self.program.parameters):
            return self.fresh(kind, name)
        self.program.locals[local.name] = kind
        return local

    def load(self, load: ir.LoadVirt) -> list[Statement]:
        """``page(gva)``, and the load through it."""
        place, fault = load.place, load.fault
        result: list[Statement] = []
        address = load.address
        if not isinstance(address, ir.Local):
            kept = self.fresh(address.type, "gva")
            result.append(ir.Assign(place=place, target=kept, value=address))
            address = kept
        self.count += 1
        page = f"page_{self.count}x"
        result.append(
            ir.Page(
                place=place, fault=fault, target=page, address=address, size=load.size, slot=load.slot, root=load.root
            )
        )
        result.append(
            ir.LoadHost(
                place=place, fault=fault, target=load.target, page=page, address=address, size=load.size, slot=load.slot
            )
        )
        return result

    def copy(self, copy: ir.CopyVirt) -> list[Statement]:
        """A loop of loads, each as large as a word where it is aligned and fits, up to a NUL or the end."""
        place = copy.place
        size = self.program.buffers[copy.buffer]
        at, left = self.fresh(U64, "at"), self.fresh(U64, "left")
        gva = self.fresh(copy.address.type, "gva")
        label = f"copy_{self.count}x"
        body: list[Statement] = [
            ir.Tick(place=place),
            ir.If(place=place, condition=ir.Compare("==", left, ir.Const(0, U64)), then=[_leave(place, label)]),
        ]
        word, byte = self.step(copy, gva, at, left, label, self.word), self.step(copy, gva, at, left, label, 1)
        aligned = ir.Compare(
            "==",
            ir.Binary("&", gva, ir.Const(self.word - 1, gva.type), gva.type),
            ir.Const(0, gva.type),
        )
        fits = ir.Compare(">=", left, ir.Const(self.word, U64))
        body.append(ir.If(place=place, condition=ir.Binary("&", aligned, fits, BOOL), then=word, otherwise=byte))
        most = ir.Const(size, U64)
        return [
            ir.ClearBuffer(place=place, buffer=copy.buffer),
            ir.Assign(place=place, target=gva, value=copy.address),
            ir.Assign(place=place, target=at, value=ir.Const(0, U64)),
            ir.Assign(place=place, target=left, value=_to(copy.length, U64)),
            ir.If(
                place=place,
                condition=ir.Compare(">", left, most),
                then=[ir.Assign(place=place, target=left, value=most)],
            ),
            ir.Loop(place=place, label=label, body=body),
        ]

    def step(  # noqa: PLR0917  the copy's state
        self, copy: ir.CopyVirt, gva: ir.Local, at: ir.Local, left: ir.Local, label: str, size: int
    ) -> list[Statement]:
        """Copy ``size`` bytes, and leave the loop behind a NUL."""
        place, fault = copy.place, copy.fault
        kind = ir.IntType(size * 8)
        value = self.fresh(kind, "chunk")
        load = ir.LoadVirt(place=place, fault=fault, target=value, address=gva, size=size, root=copy.root)
        steps: list[Statement] = self.load(load)

        def store(stored: ir.Expression) -> Statement:
            stored = _to(stored, U64)
            return ir.StoreBuffer(place=place, fault=fault, buffer=copy.buffer, at=at, value=stored, size=size)

        last = [_leave(place, label)] if size == 1 else [store(_up_to_nul(value)), _leave(place, label)]
        steps += [store(value), ir.If(place=place, condition=_has_nul(value), then=last)]
        moves: tuple[tuple[ir.Local, ir.BinaryOperator], ...] = ((at, "+"), (left, "-"), (gva, "+"))
        for local, operator in moves:
            moved = ir.Binary(operator, local, ir.Const(size, local.type), local.type)
            steps.append(ir.Assign(place=place, target=local, value=moved))
        return steps


def _leave(place: ir.Place, label: str) -> Statement:
    return ir.Break(place=place, label=label)


def _to(value: ir.Expression, kind: ir.IntType) -> ir.Expression:
    return value if value.type == kind else ir.Cast(value, kind)


def _has_nul(value: ir.Local) -> ir.Expression:
    """Say whether any byte is 0."""
    kind = value.type
    return (
        ir.Compare("==", value, ir.Const(0, kind)) if kind == U8 else ir.Compare("!=", _nuls(value), ir.Const(0, kind))
    )


def _nuls(value: ir.Local) -> ir.Expression:
    """``(v - 0x01..) & ~v & 0x80..``: its lowest bit is the top of the first byte that is 0 (Hacker's Delight, 6-1)."""
    kind = value.type
    ones = int.from_bytes(b"\x01" * (kind.bits // 8), "little")
    less = ir.Binary("-", value, ir.Const(ones, kind), kind)
    inverted = ir.Binary("^", value, ir.Const((1 << kind.bits) - 1, kind), kind)
    return ir.Binary("&", ir.Binary("&", less, inverted, kind), ir.Const(ones << 7, kind), kind)


def _up_to_nul(value: ir.Local) -> ir.Expression:
    """Return the bytes before the first that is 0, and zeros: ``v & (((n & -n) >> 7) - 1)``."""
    kind, nuls = value.type, _nuls(value)
    negated = ir.Binary("-", ir.Const(0, kind), nuls, kind)
    first = ir.Binary(">>", ir.Binary("&", nuls, negated, kind), ir.Const(7, kind), kind)
    return ir.Binary("&", value, ir.Binary("-", first, ir.Const(1, kind), kind), kind)
