"""The words of the language: what ``language`` declares, and how each is lowered."""

from __future__ import annotations

import ast
import re
from collections import ChainMap
from collections.abc import Callable

from yamori.llview import ir, language
from yamori.llview.calculations import encodable
from yamori.llview.expressions import Expressions
from yamori.llview.ir import U32, U64, IntType
from yamori.llview.language import Struct
from yamori.llview.types import PtrType, StructType, Type, resolve_quietly
from yamori.llview.values import Constant, GuestArray, LocalArray, Number, Reference, Symbols, Value, describe

MOST_TEXT = 4096
"""The most that ``text`` copies."""
MOST_ELEMENTS = 4096
"""The most elements of a local array."""
_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)


class Lexicon(Expressions):
    """Lowers the words of the language."""

    def emission(self, fields: dict[str, ast.expr], node: ast.Call) -> None:
        """Give out a row."""
        raise NotImplementedError

    def struct(self, node: ast.expr) -> StructType:
        """Return the structure that an argument names."""
        value = self.value(node)
        named = value.value if isinstance(value, Constant) else None
        if not isinstance(named, type) or not issubclass(named, Struct) or named is Struct:
            self.fail("a structure's class is needed here", node)
        return StructType(named)

    def string(self, node: ast.expr) -> str:
        """Return a text that is written in the source."""
        value = self.value(node)
        if not isinstance(value, Constant) or not isinstance(value.value, str) or not encodable(value.value):
            self.fail("a text in the source is needed here", node)
        return value.value

    def constant(self, node: ast.expr, most: int) -> int:
        """Return a number that is known while compiling."""
        value = self.value(node)
        expression = value.expression if isinstance(value, Number) else None
        known = expression.value if isinstance(expression, ir.Const) else None
        known = value.value if isinstance(value, Constant) else known
        if not isinstance(known, int) or not 0 < known <= most:
            self.fail(f"a number from 1 to {most} that is known beforehand is needed here", node)
        return int(known)

    def named_type(self, node: ast.expr) -> Type | None:
        """Return the type that an argument names; a helper's parameter may stand for one."""
        known = {name: value.value for name, value in self.frame.variables.items() if isinstance(value, Constant)}
        scope = self.frame.scope._replace(names=ChainMap(known, dict(self.frame.scope.names)))
        found: Type | None = resolve_quietly(node, scope)
        return found

    def address(self, node: ast.expr) -> ir.Expression:
        """Return an address: a word, or what a structure, pointer or array stands for."""
        value = self.value(node)
        if isinstance(value, GuestArray):
            return value.address
        if isinstance(value, Number) and not self.fits(value, self.word):
            self.fail(
                f"an address is a ulong, {self.word.bits // 8} bytes on this guest, and this is {value.type.one}",
                node,
                hint="declare it ulong, or say ulong(...)",
            )
        return self.number(value, node, self.word)

    def exists(self, node: ast.Call) -> Value:
        """``exists(task.__state)``."""
        member = node.args[0]
        if not isinstance(member, ast.Attribute):
            self.fail("exists() is asked of a member or symbol", node, hint="as in exists(task.__state)")
        with self.into([]):  # to learn the type alone: nothing is loaded
            owner = self.value(member.value)
        if not isinstance(owner, Reference | Symbols):
            self.fail(f"exists() is asked of a member or symbol, not of {describe(owner)}", node)
        _, slot = self.declared(owner, member)
        self.slot(self.program.slots[slot], asked=True)
        return Number(ir.SlotValue(slot, "exists"))

    def address_of(self, node: ast.Call) -> Value:
        """``address_of(task)``; of a pointer what it points to, of any other member its place, which loads nothing."""
        argument = node.args[0]
        if isinstance(argument, ast.Attribute):
            owner = self.value(argument.value)
            if isinstance(owner, Reference | Symbols):
                kind, slot = self.declared(owner, argument)
                if not isinstance(kind, PtrType):
                    base = owner.address if isinstance(owner, Reference) else ir.Const(0, self.word)
                    return Number(self.offset(base, slot))
        return Number(self.address(argument))

    def at_(self, node: ast.Call) -> Value:
        """``at(task_struct, address)``."""
        return Reference(self.struct(node.args[0]), self.int_of(node.args[1], self.word))

    def container_of(self, node: ast.Call) -> Value:
        """``container_of(node, task_struct, "tasks")``."""
        member, struct, path = self.address(node.args[0]), self.struct(node.args[1]), self.string(node.args[2])
        if not _PATH.fullmatch(path):
            self.fail(f"{path!r} is no member", node.args[2], hint="as in container_of(node, task_struct, 'tasks')")
        slot = self.member(struct, path)
        offset = self.cast(ir.SlotValue(slot, "offset"), self.word)
        return Reference(struct, self.binary("-", member, offset, self.word))

    def sizeof(self, node: ast.Call) -> Value:
        """``sizeof(task_struct)``."""
        kind = self.named_type(node.args[0]) or self.struct(node.args[0])
        return Number(self.size(kind, node))

    def text(self, node: ast.Call) -> Value:
        """``text(address, 64)``."""
        address, limit = self.address(node.args[0]), self.constant(node.args[1], MOST_TEXT)
        return self.copy(address, ir.Const(limit, U64), limit)

    def user_text(self, node: ast.Call) -> Value:
        """``user_text(pgd, address, 64)``."""
        root = self.keep(self.cast(self.int_of(node.args[0]), U64), "root")
        limit = self.constant(node.args[2], MOST_TEXT)
        return self.copy(self.address(node.args[1]), ir.Const(limit, U64), limit, root)

    def word_at(self, node: ast.Call) -> Value:
        """``word_at(address)``."""
        return self.load(self.address(node.args[0]), self.word, name="word")

    def physical(self, node: ast.Call) -> Value:
        """``physical(mm.pgd)``."""
        self._probe_only(node)
        target = self.temporary(U64, "physical")
        address = self.address(node.args[0])
        self.add(ir.Translate(place=self.place, fault=self.fault, target=target, address=address))
        return Number(target)

    def user_word(self, node: ast.Call) -> Value:
        """``user_word(pgd, address)``."""
        root = self.keep(self.cast(self.int_of(node.args[0]), U64), "root")
        self.virtual()
        target = self.temporary(self.word, "user")
        load = ir.LoadVirt(
            place=self.place,
            fault=self.fault,
            target=target,
            address=self.address(node.args[1]),
            size=self.word.bits // 8,
            root=root,
        )
        self.add(load)
        return Number(target)

    def local_array(self, node: ast.Call) -> Value:
        """``local_array(u64, 16)``."""
        kind = self.named_type(node.args[0])
        if not isinstance(kind, IntType):
            self.fail(
                "a local array holds integers", node.args[0], hint="keep addresses: address_of(...), later at(T, a)"
            )
        self._probe_only(node)
        name, length = self.fresh("array"), self.constant(node.args[1], MOST_ELEMENTS)
        self.program.arrays[name] = (kind, length)
        self.check_storage()
        self.add(ir.ClearArray(place=self.place, array=name))
        return LocalArray(name, kind, length)

    def emit(self, node: ast.Call) -> Value:
        """``emit(pid=..., uid=uid if known else None)``."""
        fields = {keyword.arg or "": keyword.value for keyword in node.keywords}
        if not fields:
            self.fail("a row needs its fields by name", node, hint="as in emit(pid=task.pid)")
        self.emission(fields, node)
        return Constant(None)

    def trouble(self, node: ast.Call) -> Value:
        """``trouble("why", value)``."""
        faulted = False
        for keyword in node.keywords:
            value = self.value(keyword.value)
            if not isinstance(value, Constant) or not isinstance(value.value, bool):
                self.fail("it is True or False in the source", keyword.value)
            faulted = value.value
        self._note(node, faulted=faulted, torn=False)
        return Constant(None)

    def torn(self, node: ast.Call) -> Value:
        """``torn("why", value)``."""
        self._note(node, faulted=False, torn=True)
        return Constant(None)

    def _note(self, node: ast.Call, *, faulted: bool, torn: bool) -> None:
        self._probe_only(node)
        message, value = self._said(node)
        self.add(ir.Trouble(place=self.place, message=message, value=value, faulted=faulted, torn=torn))

    def stop(self, node: ast.Call) -> Value:
        """``stop("why", value)``."""
        message, value = self._said(node)
        self.add(ir.Raise(place=self.place, fault=self.fault, message=message, value=value))
        return Constant(None)

    def _said(self, node: ast.Call) -> tuple[int, ir.Expression]:
        message = self.message(self.string(node.args[0]))
        value = self.value(node.args[1]) if len(node.args) > 1 else Constant(0)
        if isinstance(value, GuestArray):
            value = Number(value.address)
        return message, self.number(value, node.args[-1], U64)

    def _probe_only(self, node: ast.Call) -> None:
        """Refuse a word of probes in a walker."""
        if self.program.kind == "walker":
            self.fail(f"{ast.unparse(node.func)}() is for probes", node, hint="a walker ends by return, or by stop()")


def _phys(kind: IntType) -> Callable[[Lexicon, ast.Call], Value]:
    def lower(self: Lexicon, node: ast.Call) -> Value:
        if self.program.kind != "walker":
            self.fail("physical loads are for walkers", node, hint="load by virtual address, as in task.pid")
        address = self.cast(self.int_of(node.args[0]), U64)
        target = self.temporary(kind, "entry")
        load = ir.LoadPhys(place=self.place, fault=self.fault, target=target, address=address, size=kind.bits // 8)
        self.add(load)
        return Number(target)

    return lower


ANY = frozenset({"*"})


class Word:
    """A word of the language: how it is lowered, and how many arguments it takes."""

    def __init__(
        self,
        lower: Callable[[Lexicon, ast.Call], Value],
        least: int,
        most: int | None = None,
        keywords: frozenset[str] = frozenset(),
    ) -> None:
        self.lower = lower
        self.least = least
        self.most = least if most is None else most
        self.keywords = keywords


WORDS: dict[object, Word] = {
    language.exists: Word(Lexicon.exists, 1),
    language.address_of: Word(Lexicon.address_of, 1),
    language.at: Word(Lexicon.at_, 2),
    language.container_of: Word(Lexicon.container_of, 3),
    language.sizeof: Word(Lexicon.sizeof, 1),
    language.text: Word(Lexicon.text, 2),
    language.user_text: Word(Lexicon.user_text, 3),
    language.word_at: Word(Lexicon.word_at, 1),
    language.user_word: Word(Lexicon.user_word, 2),
    language.physical: Word(Lexicon.physical, 1),
    language.local_array: Word(Lexicon.local_array, 2),
    language.phys_u32: Word(_phys(U32), 1),
    language.phys_u64: Word(_phys(U64), 1),
    language.emit: Word(Lexicon.emit, 0, 0, ANY),
    language.trouble: Word(Lexicon.trouble, 1, 2, frozenset({"faulted"})),
    language.torn: Word(Lexicon.torn, 1, 2),
    language.stop: Word(Lexicon.stop, 1, 2),
}
