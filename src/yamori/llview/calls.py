"""Calls: conversions, and helpers, which are inlined; the words of the language are in ``lexicon``."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Hashable
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from yamori.llview import flow, ir, language
from yamori.llview.diagnostics import CompileError
from yamori.llview.ir import BOOL, U64, IntType
from yamori.llview.language import Helper, Kernel, Scalar, Struct
from yamori.llview.lexicon import ANY, WORDS, Lexicon
from yamori.llview.lowering import MOST_INLINED, Frame
from yamori.llview.types import Scope, lookup, resolve_quietly
from yamori.llview.values import (
    Constant,
    LocalArray,
    Number,
    Pointer,
    Record,
    Reference,
    Symbols,
    Text,
    Value,
)

__all__ = ["Calls", "resolve_quietly", "source_of"]


class Calls(Lexicon):
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
        word = WORDS.get(function) if callable(function) and isinstance(function, Hashable) else None
        if word is None:
            self._refuse_call(function, node)
        unknown = [keyword.arg for keyword in node.keywords if keyword.arg not in word.keywords]
        if unknown and word.keywords != ANY:
            self.fail(f"{ast.unparse(node.func)}() has no argument {unknown[0]!r}", node)
        if not word.least <= len(node.args) <= word.most:
            least = f"{word.least} to " if word.least < word.most else ""
            self.fail(f"{ast.unparse(node.func)}() takes {least}{_count(word.most)}, not {len(node.args)}", node)
        return word.lower(self, node)

    def _refuse_call(self, function: object, node: ast.Call) -> NoReturn:
        name = ast.unparse(node.func)
        if inspect.isfunction(function):
            self.fail(f"{name}() is no function of the language", node, hint=f"mark {name} with @helper")
        if function is range:
            self.fail("range() belongs in a for loop", node)
        if function is int:
            self.fail("int() says no width", node, hint="say u64(...) or s64(...)")
        if isinstance(function, type) and issubclass(function, Struct):
            self.fail("the guest's structures cannot be made", node, hint=f"say at({name}, address)")
        if function is language.attempt:
            self.fail("attempt() belongs in a with statement", node, hint="say `with attempt() as failed:`")
        self.fail(f"{name}() is not part of the language", node)

    def _only(self, node: ast.Call) -> ast.expr:
        if len(node.args) != 1 or node.keywords:
            self.fail("it takes one argument", node)
        return node.args[0]

    def _convert(self, kind: IntType, node: ast.Call) -> Value:
        argument = self._only(node)
        value = self.value(argument)
        if isinstance(value, Constant) and isinstance(value.value, int):
            number = int(value.value)
            return Number(ir.Const(int(number != 0) if kind == BOOL else kind.wrap(number), kind))
        if isinstance(value, Reference | Pointer):
            return Number(self.cast(value.address, kind))
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
            kind = BOOL if hints.get(name) is bool or hints.get(name) == "bool" else U64
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
        frame.body = body
        self.add(ir.Block(place=self.place, label=frame.leave, body=body))
        self.frames.append(frame)
        with self.into(body):
            self.statements(definition.body)
            if frame.result is not None and not flow.ends(body):
                self.fail(f"{name}() may end without a value", definition, hint="end it with return or stop()")
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
            self.fail(f"{definition.name}() takes {_count(len(arguments.args))}, not {len(node.args)}", node)
        given: dict[str, ast.expr] = dict(zip(names, node.args, strict=False))
        for keyword in node.keywords:
            if keyword.arg not in names or keyword.arg in given:
                self.fail(f"{definition.name}() has no further argument {keyword.arg!r}", keyword.value)
            given[keyword.arg or ""] = keyword.value
        values = {name: self.value(expression) for name, expression in given.items()}
        first = len(arguments.args) - len(arguments.defaults)
        defaults = dict(zip(names[first : len(arguments.args)], arguments.defaults, strict=True))
        defaults |= {p.arg: d for p, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if d}
        frame = Frame(scope, definition)
        bound: dict[str, Value] = {}
        for parameter in parameters:
            name = parameter.arg
            if name in defaults and name not in values:
                values[name] = self._default(defaults[name], scope, definition)
            if name not in values:
                self.fail(f"{definition.name}() needs the argument {name!r}", node)
            bound[name] = self._parameter(parameter, values[name], frame, given.get(name, node))
        return bound

    def _default(self, node: ast.expr, scope: Scope, definition: ast.FunctionDef) -> Value:
        frame = Frame(scope, definition)
        frame.stored = frozenset()
        self.frames.append(frame)
        value = self.value(node)
        self.frames.pop()
        return value

    def _parameter(self, parameter: ast.arg, value: Value, frame: Frame, node: ast.AST) -> Value:
        scope = frame.scope
        if isinstance(value, Symbols):
            named = lookup(parameter.annotation, scope) if isinstance(parameter.annotation, ast.Name) else None
            if isinstance(named, type) and issubclass(named, Kernel) and not issubclass(value.declaration, named):
                what = f"{named.__name__} is needed here, not {value.declaration.__name__}"
                self.fail(what, node, hint=f"let class {value.declaration.__name__} inherit from it")
            return value
        kind = resolve_quietly(parameter.annotation, scope)
        value = self.converted(value, kind, node)
        changes = parameter.arg in frame.stored
        if isinstance(value, Number) and isinstance(value.expression, ir.Const) and not changes:
            return value
        if isinstance(value, Constant) and not changes:
            return value
        return self.copied(value, parameter.arg, node)

    def statements(self, body: list[ast.stmt]) -> None:
        """Lower statements."""
        raise NotImplementedError

    def alias(self, value: Value) -> Value | None:
        """Return the text or local array in a value that a variable of the function stands for already."""
        if isinstance(value, Record):
            return next((found for part in value.values if (found := self.alias(part))), None)
        known = any(_holds(variable, value) for variable in self.frame.variables.values())
        return value if isinstance(value, Text | LocalArray) and known else None


def _holds(variable: Value, value: Value) -> bool:
    return variable == value or (isinstance(variable, Record) and any(_holds(part, value) for part in variable.values))


@cache
def _parsed(file: str, changed: int) -> ast.Module:  # noqa: ARG001  a file that has changed is parsed again
    return ast.parse(Path(file).read_text(encoding="utf-8"), filename=file)


def source_of(function: Callable[..., Any], word_size: int) -> tuple[ast.FunctionDef, Scope]:
    """Return a function's syntax tree and where its names are looked up.

    Raises:
        CompileError: Its source is not to be had.
    """
    code = getattr(function, "__code__", None)
    if code is None:
        what = f"{getattr(function, '__name__', 'it')!r} is no function of Python's"
        raise CompileError(what, "<unknown>", ast.Pass(lineno=1))
    file = code.co_filename
    try:
        tree = _parsed(file, Path(file).stat().st_mtime_ns)
    except (OSError, SyntaxError, ValueError, RecursionError):
        what = f"the source of {function.__name__}() cannot be read"
        raise CompileError(what, file, ast.Pass(lineno=code.co_firstlineno), hint="write it to a file") from None
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == function.__name__:
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            if first <= code.co_firstlineno <= node.lineno:
                return node, Scope(function.__globals__, file, word_size)
    if function.__name__ == "<lambda>" or inspect.iscoroutinefunction(function):
        what = "a lambda or an async function is no program of the language"
        raise CompileError(what, file, ast.Pass(lineno=code.co_firstlineno), hint="write it as def")
    what = f"the source of {function.__name__}() is not where it was: {file} has changed"
    raise CompileError(what, file, ast.Pass(lineno=code.co_firstlineno))


def _count(number: int) -> str:
    return f"{number or 'no'} argument{'' if number == 1 else 's'}"
