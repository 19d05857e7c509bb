"""Calls: the words of the language, conversions, and helpers, which are inlined."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from yamori.llview import ir, language
from yamori.llview.diagnostics import CompileError
from yamori.llview.expressions import Expressions
from yamori.llview.ir import BOOL, U32, U64, IntType
from yamori.llview.language import Helper, Scalar, Struct
from yamori.llview.lowering import MOST_INLINED, Frame
from yamori.llview.types import PtrType, Scope, StructType, resolve
from yamori.llview.values import (
    Constant,
    GuestArray,
    LocalArray,
    Number,
    Pointer,
    Record,
    Reference,
    Symbols,
    Value,
    describe,
)

MOST_TEXT = 4096
"""The most that ``text`` copies."""
MOST_ELEMENTS = 4096
"""The most elements of a local array."""


class Calls(Expressions):
    """Lowers calls."""

    def _call(self, node: ast.Call) -> Value:
        called = self.value(node.func)
        function = called.value if isinstance(called, Constant) else None
        if any(isinstance(argument, ast.Starred) for argument in node.args) or any(
            k.arg is None for k in node.keywords
        ):
            self.fail("arguments have to be named one by one", node)
        if isinstance(function, Scalar):
            return self._convert(function.of(self.word.bits // 8), node)
        if function is bool:
            return Number(self.condition(self._only(node)))
        if isinstance(function, Helper):
            return self.inline(function, node)
        if isinstance(function, type) and issubclass(function, tuple) and hasattr(function, "_fields"):
            return self._record(function, node)
        word = WORDS.get(function) if callable(function) else None
        if word is None:
            self._refuse_call(function, node)
        unknown = [keyword.arg for keyword in node.keywords if keyword.arg not in word.keywords]
        if unknown and word.keywords != ANY:
            self.fail(f"{ast.unparse(node.func)}() has no argument {unknown[0]!r}", node)
        if not word.least <= len(node.args) <= word.most:
            self.fail(f"it takes {word.least} to {word.most} arguments, not {len(node.args)}", node)
        return word.lower(self, node)

    def _refuse_call(self, function: object, node: ast.Call) -> NoReturn:
        name = ast.unparse(node.func)
        if inspect.isfunction(function):
            self.fail(f"{name}() is no function of the language", node, hint=f"mark {name} with @helper")
        if function is range:
            self.fail("range() belongs in a for loop", node)
        self.fail(f"{name}() is not part of the language", node)

    def _only(self, node: ast.Call) -> ast.expr:
        if len(node.args) != 1 or node.keywords:
            self.fail("it takes one argument", node)
        return node.args[0]

    def _convert(self, kind: IntType, node: ast.Call) -> Value:
        argument = self._only(node)
        value = self.value(argument)
        if isinstance(value, Constant) and isinstance(value.value, int):
            return Number(ir.Const(kind.wrap(int(value.value)), kind))
        return Number(self.cast(self.number(value, argument), kind))

    def _record(self, record: type[Any], node: ast.Call) -> Value:
        """Build a ``NamedTuple`` of integers; each field keeps the value it has now."""
        names: tuple[str, ...] = record._fields
        given = dict(zip(names, node.args, strict=False)) | {k.arg: k.value for k in node.keywords if k.arg}
        if set(given) != set(names) or len(node.args) + len(node.keywords) != len(names):
            self.fail(f"{record.__name__} has the fields {', '.join(names)}", node)
        hints = inspect.get_annotations(record)
        values: list[Value] = []
        for name in names:
            kind = BOOL if hints.get(name) in {"bool", bool} else U64
            expression = given[name]
            value = self.condition(expression) if kind == BOOL else self.int_of(expression, kind)
            values.append(Number(self.keep(value, name)))
        return Record(names, tuple(values))

    # --- helpers

    def inline(
        self, function: Helper[Any, Any], node: ast.Call, consume: Callable[[Value, ast.AST], None] | None = None
    ) -> Value:
        """Compile a helper's body in place of its call.

        Args:
            function: The helper.
            node: The call.
            consume: Where it is a generator: what becomes of each value.
        """
        definition, scope = source_of(function.function, self.word.bits // 8)
        generator = any(isinstance(inner, ast.Yield) for inner in ast.walk(definition))
        name = definition.name
        if generator and consume is None:
            self.fail(f"{name}() is a generator", node, hint=f"write `for x in {name}(...):`")
        if not generator and consume is not None:
            self.fail(f"{name}() is no generator: it has no yield", node)
        if any(frame.node is definition for frame in self.frames):
            self.fail(f"{name}() calls itself", node, hint="write a loop, with a local_array() as its stack")
        if len(self.frames) > MOST_INLINED:
            self.fail("helpers call each other too deeply", node)
        frame = Frame(scope, definition, self._bind(definition, scope, node), leave=self.fresh(name), consume=consume)
        body: list[ir.Statement] = []
        self.add(ir.Block(place=self.place, label=frame.leave, body=body))
        self.frames.append(frame)
        try:
            with self.into(body):
                self.statements(definition.body)
        finally:
            self.frames.pop()
        return frame.result if frame.result is not None else Constant(None)

    def _bind(self, definition: ast.FunctionDef, scope: Scope, node: ast.Call) -> dict[str, Value]:
        """Return a helper's parameters: what is known while compiling stays so, all else is copied."""
        arguments = definition.args
        if arguments.vararg or arguments.kwarg or arguments.posonlyargs:
            self.fail(f"{definition.name}() has parameters of a kind that the language has not", node)
        parameters = [*arguments.args, *arguments.kwonlyargs]
        names = [parameter.arg for parameter in parameters]
        if len(node.args) > len(arguments.args):
            self.fail(f"{definition.name}() takes {len(arguments.args)} arguments, not {len(node.args)}", node)
        given: dict[str, ast.expr] = dict(zip(names, node.args, strict=False))
        for keyword in node.keywords:
            if keyword.arg not in names or keyword.arg in given:
                self.fail(f"{definition.name}() has no further argument {keyword.arg!r}", keyword.value)
            given[keyword.arg or ""] = keyword.value
        values = {name: self.value(expression) for name, expression in given.items()}
        defaults = dict(zip(names[len(arguments.args) - len(arguments.defaults) :], arguments.defaults, strict=False))
        defaults |= {p.arg: d for p, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if d}
        bound: dict[str, Value] = {}
        for parameter in parameters:
            name = parameter.arg
            if name not in values and name not in defaults:
                self.fail(f"{definition.name}() needs the argument {name!r}", node)
            expression = given.get(name, defaults.get(name, node))
            value = values[name] if name in values else Constant(ast.literal_eval(defaults[name]))
            bound[name] = self._parameter(parameter, value, scope, expression)
        return bound

    def _parameter(self, parameter: ast.arg, value: Value, scope: Scope, node: ast.AST) -> Value:
        kind = resolve_quietly(parameter.annotation, scope)
        if isinstance(kind, IntType):
            if isinstance(value, Constant) and isinstance(value.value, int):
                return value
            return Number(self.keep(self.number(value, node, kind), parameter.arg))
        if isinstance(kind, StructType) and not _is(value, kind):
            self.fail(f"struct {kind.name} is needed here, not {describe(value)}", node)
        if isinstance(value, Reference):
            return Reference(value.struct, self.keep(value.address, parameter.arg))
        if isinstance(value, Pointer):
            return Pointer(value.target, self.keep(value.address, parameter.arg))
        if isinstance(value, Number):
            return Number(self.keep(value.expression, parameter.arg))
        return value

    def statements(self, body: list[ast.stmt]) -> None:
        """Lower statements."""
        raise NotImplementedError

    # --- words of the language

    def struct(self, node: ast.expr) -> StructType:
        """Return the structure that an argument names."""
        value = self.value(node)
        named = value.value if isinstance(value, Constant) else None
        if not isinstance(named, type) or not issubclass(named, Struct):
            self.fail("a structure's class is needed here", node)
        return StructType(named)

    def string(self, node: ast.expr) -> str:
        """Return a text that is written in the source."""
        value = self.value(node)
        if not isinstance(value, Constant) or not isinstance(value.value, str):
            self.fail("a text in the source is needed here", node)
        return value.value

    def constant(self, node: ast.expr, most: int) -> int:
        """Return a number that is known while compiling."""
        value = self.value(node)
        if not isinstance(value, Constant) or not isinstance(value.value, int) or not 0 < value.value <= most:
            self.fail(f"a number from 1 to {most} that is known beforehand is needed here", node)
        return value.value

    def address(self, node: ast.expr) -> ir.Expression:
        """Return an address: a word, or what a structure, pointer or array stands for."""
        value = self.value(node)
        if isinstance(value, GuestArray):
            return value.address
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
        self.slot(self.program.slots[slot]._replace(optional=False), asked=True)
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
        slot = self.member(struct, path)
        offset = self.cast(ir.SlotValue(slot, "offset"), self.word)
        return Reference(struct, ir.Binary("-", member, offset, self.word))

    def sizeof(self, node: ast.Call) -> Value:
        """``sizeof(task_struct)``."""
        kind = resolve_quietly(node.args[0], self.frame.scope)
        if kind is None:
            kind = self.struct(node.args[0])
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

    def user_word(self, node: ast.Call) -> Value:
        """``user_word(pgd, address)``."""
        root = self.keep(self.cast(self.int_of(node.args[0]), U64), "root")
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
        kind = resolve_quietly(node.args[0], self.frame.scope)
        if not isinstance(kind, IntType):
            self.fail(
                "a local array holds integers", node.args[0], hint="keep addresses: address_of(...), later at(T, a)"
            )
        name, length = self.fresh("array"), self.constant(node.args[1], MOST_ELEMENTS)
        self.program.arrays[name] = (kind, length)
        self.add(ir.ClearArray(place=self.place, array=name))
        return LocalArray(name, kind, length)

    def emit(self, node: ast.Call) -> Value:
        """``emit(pid=..., uid=uid if known else None)``."""
        fields = {keyword.arg or "": keyword.value for keyword in node.keywords}
        if not fields:
            self.fail("a row needs its fields by name", node, hint="as in emit(pid=task.pid)")
        self.emission(fields, node)
        return Constant(None)

    def emission(self, fields: dict[str, ast.expr], node: ast.Call) -> None:
        """Give out a row."""
        raise NotImplementedError

    def trouble(self, node: ast.Call) -> Value:
        """``trouble("why", value)``."""
        faulted = any(isinstance(k.value, ast.Constant) and bool(k.value.value) for k in node.keywords)
        self._note(node, faulted=faulted, torn=False)
        return Constant(None)

    def torn(self, node: ast.Call) -> Value:
        """``torn("why", value)``."""
        self._note(node, faulted=False, torn=True)
        return Constant(None)

    def _note(self, node: ast.Call, *, faulted: bool, torn: bool) -> None:
        message, value = self._said(node)
        self.add(ir.Trouble(place=self.place, message=message, value=value, faulted=faulted, torn=torn))

    def stop(self, node: ast.Call) -> Value:
        """``stop("why", value)``."""
        message, value = self._said(node)
        self.add(ir.Raise(place=self.place, fault=self.fault, message=message, value=value))
        return Constant(None)

    def _said(self, node: ast.Call) -> tuple[int, ir.Expression]:
        message = self.message(self.string(node.args[0]))
        value = self.address(node.args[1]) if len(node.args) > 1 else ir.Const(0, U64)
        return message, self.cast(value, U64)


def _phys(kind: IntType) -> Callable[[Calls, ast.Call], Value]:
    def lower(self: Calls, node: ast.Call) -> Value:
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
        lower: Callable[[Calls, ast.Call], Value],
        least: int,
        most: int | None = None,
        keywords: frozenset[str] = frozenset(),
    ) -> None:
        self.lower = lower
        self.least = least
        self.most = least if most is None else most
        self.keywords = keywords


WORDS: dict[object, Word] = {
    language.exists: Word(Calls.exists, 1),
    language.address_of: Word(Calls.address_of, 1),
    language.at: Word(Calls.at_, 2),
    language.container_of: Word(Calls.container_of, 3),
    language.sizeof: Word(Calls.sizeof, 1),
    language.text: Word(Calls.text, 2),
    language.user_text: Word(Calls.user_text, 3),
    language.word_at: Word(Calls.word_at, 1),
    language.user_word: Word(Calls.user_word, 2),
    language.local_array: Word(Calls.local_array, 2),
    language.phys_u32: Word(_phys(U32), 1),
    language.phys_u64: Word(_phys(U64), 1),
    language.emit: Word(Calls.emit, 0, 0, ANY),
    language.trouble: Word(Calls.trouble, 1, 2, frozenset({"faulted"})),
    language.torn: Word(Calls.torn, 1, 2),
    language.stop: Word(Calls.stop, 1, 2),
}


def _is(value: Value, kind: StructType) -> bool:
    if isinstance(value, Constant):
        return isinstance(value.value, int) and value.value == 0
    return isinstance(value, Reference) and issubclass(value.struct.declaration, kind.declaration)


def resolve_quietly(annotation: ast.expr | None, scope: Scope) -> Any:
    """Return the type that an annotation names, ``None`` where it is for ``mypy`` alone (``type[T]``)."""
    if annotation is None:
        return None
    try:
        return resolve(annotation, scope)
    except CompileError:
        return None


@cache
def _parsed(file: str, changed: int) -> ast.Module:  # noqa: ARG001  a file that has changed is parsed again
    return ast.parse(Path(file).read_text(encoding="utf-8"), filename=file)


def source_of(function: Callable[..., Any], word_size: int) -> tuple[ast.FunctionDef, Scope]:
    """Return a function's syntax tree and where its names are looked up.

    Raises:
        CompileError: Its source is not to be had.
    """
    code = function.__code__
    file = code.co_filename
    try:
        tree = _parsed(file, Path(file).stat().st_mtime_ns)
    except (OSError, SyntaxError, UnicodeDecodeError):
        what = f"the source of {function.__name__}() cannot be read"
        raise CompileError(what, file, ast.Pass(lineno=code.co_firstlineno), hint="write it to a file") from None
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == function.__name__:
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            if first <= code.co_firstlineno <= node.lineno:
                return node, Scope(function.__globals__, file, word_size)
    what = f"the source of {function.__name__}() is not where it was: {file} has changed"
    raise CompileError(what, file, ast.Pass(lineno=code.co_firstlineno))
