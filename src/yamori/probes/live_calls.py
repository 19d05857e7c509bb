"""Helpers of the language, called at the prompt: each call is compiled, bound and run as a program of its own."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any, NamedTuple

from yamori.errors import Fault
from yamori.llview import ir, language
from yamori.llview.calls import resolve_quietly, source_of
from yamori.llview.diagnostics import CompileError
from yamori.llview.frontend import Statements
from yamori.llview.language import Helper
from yamori.llview.machine import Outcome
from yamori.llview.types import Scope, StructType, lookup
from yamori.llview.values import Constant, GuestArray, Pointer, Reference, Symbols, Value
from yamori.probes.live import PROMPT, LiveArray, LiveKernel, LiveStruct, Look, Session
from yamori.probes.live_objects import Loaded
from yamori.probes.run import fault_text


class Called(NamedTuple):
    """What a helper gave.

    Attributes:
        value: Its result; of a generator the list of what it yielded.
        reasons: Why that is not everything, one sentence each.
    """

    value: Any
    reasons: list[str]


def call(session: Session, function: Helper[Any, Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> Called:
    """Call a helper with live objects, numbers, texts and classes.

    Raises:
        CompileError: It cannot be called so.
        ProfileError: Something that it needs is not known of this kernel.
        Fault: The guest's memory ended it before it gave anything.
    """
    definition, scope = source_of(function.function, session.machine.word_size)
    generator = any(isinstance(node, ast.Yield) for node in ast.walk(definition))
    parameters = definition.args.args
    if len(arguments) > len(parameters):
        what = f"{definition.name}() takes {len(parameters)} at most, and was given {len(arguments)} arguments"
        raise CompileError(what, scope.file, definition)
    annotations = {parameter.arg: parameter.annotation for parameter in [*parameters, *definition.args.kwonlyargs]}
    given = dict(zip(annotations, arguments, strict=False)) | named
    for name, value in given.items():
        if isinstance(value, Loaded) and isinstance(resolve_quietly(annotations.get(name), scope), StructType):
            given[name] = value.owner_  # a structure of an integer's size, such as list_head where words have 4 bytes

    def build(compiler: Statements, places: list[ir.Local], give: Callable[[Value], None]) -> None:
        for place, (name, value) in zip(places, given.items(), strict=True):
            compiler.frame.variables[name] = _argument(value, place, annotations.get(name), scope)
        node = ast.parse(f"{definition.name}({', '.join(f'{name}={name}' for name in given)})", PROMPT, "eval").body
        assert isinstance(node, ast.Call)  # noqa: S101  for mypy: it was written so
        if generator:
            compiler.inline(function, node, lambda value, _: give(value))
        else:
            give(compiler.inline(function, node))

    look = session.compile(build, len(given))
    addresses = [int(value) if isinstance(value, LiveStruct | LiveArray) else 0 for value in given.values()]
    values, outcome = session.run(look, addresses)
    reasons = _reasons(session, look, outcome)
    if outcome.ended and not values:
        raise Fault(reasons[-1])
    return Called(values if generator else values[0] if values else None, reasons)


def _argument(value: object, place: ir.Local, annotation: ast.expr | None, scope: Scope) -> Value:
    """Return what a helper gets for an object of the prompt's: live ones by address, all else as it is."""
    if isinstance(value, LiveKernel):
        declared = lookup(annotation, scope) if annotation is not None else None
        if isinstance(declared, type) and issubclass(declared, language.Kernel):
            return Symbols(declared)
    if isinstance(value, LiveStruct):
        wanted = resolve_quietly(annotation, scope)
        same = isinstance(wanted, StructType) and wanted.name == value.declaration_.c_name
        return Reference(wanted if same or value.path_ else StructType(value.declaration_), place)
    if isinstance(value, LiveArray):
        if value.pointer_:
            return Pointer(value.element_, place)
        return GuestArray(value.element_, place, ir.Const(value.stride_, place.type))
    return Constant(value)


def _reasons(session: Session, look: Look, outcome: Outcome) -> list[str]:
    reasons = []
    for trouble in outcome.troubles:
        text = look.program.messages[trouble.message]
        fault = f": {fault_text(trouble.fault, look.program, session.machine)}" if trouble.fault else ""
        reasons.append(f"{text}: {trouble.value:#x}{fault}")
    if outcome.ended:
        reasons.append(fault_text(outcome.ended, look.program, session.machine))
    return reasons
