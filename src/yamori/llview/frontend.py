"""The front end: a function's source → a program of the intermediate representation."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from yamori.llview import flow, ir
from yamori.llview.calls import resolve_quietly, source_of
from yamori.llview.diagnostics import CompileError
from yamori.llview.emission import TEXTUAL, UNSETTLED, Emission, row_fields
from yamori.llview.ir import BOOL, U64, IntType, Program
from yamori.llview.language import Helper, Kernel, Probe, Walker, attempt
from yamori.llview.lowering import promoted
from yamori.llview.types import PtrType, Scope, StructType, lookup
from yamori.llview.values import (
    Constant,
    GuestArray,
    LocalArray,
    Number,
    Pointer,
    Record,
    Reference,
    Symbols,
    Text,
    Value,
    describe,
)

REFUSED: dict[type[ast.stmt], tuple[str, str]] = {
    ast.Try: ("exceptions are", "say `with attempt() as failed:`"),
    ast.Raise: ("exceptions are", "say stop('why', value)"),
    ast.Import: ("an import in a function is", "import at the top of the file"),
    ast.ImportFrom: ("an import in a function is", "import at the top of the file"),
    ast.ClassDef: ("a class in a function is", "declare it at the top of the file"),
    ast.FunctionDef: ("a function in a function is", "write a @helper at the top of the file"),
    ast.Global: ("a global variable is", "pass it as an argument"),
    ast.Nonlocal: ("a variable of another function is", "pass it as an argument"),
    ast.Delete: ("del is", "leave the variable alone"),
    ast.Match: ("match is", "say if ... elif ..."),
    ast.Assert: ("assert is", "say `if not ...: stop('why', value)`"),
}


class Statements(Emission):
    """Lowers statements."""

    def statements(self, body: list[ast.stmt]) -> None:
        """Lower statements."""
        for statement in body:
            method = getattr(self, f"_{type(statement).__name__.lower()}_statement", None)
            if method is None:
                what, instead = REFUSED.get(type(statement), (f"{type(statement).__name__!r} of Python is", ""))
                self.fail(f"{what} not part of the language", statement, hint=instead)
            with self.at(statement):
                method(statement)

    def _pass_statement(self, node: ast.Pass) -> None:
        pass

    def _expr_statement(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            return  # a docstring
        if isinstance(node.value, ast.Yield):
            self._give_out(node.value)
            return
        self.value(node.value)

    def _give_out(self, node: ast.Yield) -> None:
        if self.frame.consume is None:
            self.fail("yield belongs in a helper that a for loop goes through", node)
        if node.value is None:
            self.fail("yield needs a value", node)
        if sum(isinstance(inner, ast.Yield) for inner in ast.walk(self.frame.node)) > 1:
            self.fail("a generator has one yield: what the loop does stands there once", node)
        value = self.value(node.value)
        self.frame.consume(value, node)

    # --- variables

    def _assign_statement(self, node: ast.Assign) -> None:
        value = self.value(node.value)
        if len(node.targets) > 1:  # evaluated once
            value = self.copied(value, "value", node.value)
        for target in node.targets:
            self.bind(target, value, node.value)

    def _annassign_statement(self, node: ast.AnnAssign) -> None:
        if not isinstance(node.target, ast.Name) or node.value is None:
            self.fail("a variable needs its value at once", node, hint="as in count: u32 = 0")
        kind = resolve_quietly(node.annotation, self.frame.scope)
        if kind is None:
            self.fail("this is no type of the language", node.annotation, hint="say u32, u64, ulong, a structure, ...")
        value = self.converted(self.value(node.value), kind, node.value)
        known = self.frame.variables.get(node.target.id)
        if isinstance(known, Number) and isinstance(kind, IntType) and known.type != kind:
            self.fail(f"{node.target.id} is {known.type.one} already", node.annotation, hint="use another name")
        self.bind(node.target, value, node.value)

    def _augassign_statement(self, node: ast.AugAssign) -> None:
        if not isinstance(node.target, ast.Name):
            if isinstance(node.target, ast.Subscript):
                self.fail("only a variable can be changed so", node.target, hint="say a[i] = a[i] + 1")
            self.fail("guest memory is only read", node.target, hint="assign to a variable")
        current = ast.copy_location(ast.Name(id=node.target.id, ctx=ast.Load()), node.target)
        value = self.value(ast.copy_location(ast.BinOp(left=current, op=node.op, right=node.value), node))
        variable = self.frame.variables[node.target.id]
        if isinstance(variable, Number) and isinstance(value, Number):  # as in C, and as += promises
            value = Number(self.cast(value.expression, variable.type))
        self.bind(node.target, value, node)

    def bind(self, target: ast.expr, value: Value, node: ast.AST) -> None:
        """Assign a value to a name, to several names, or to an element of a local array."""
        if isinstance(target, ast.Tuple | ast.List):
            if not isinstance(value, Record) or len(value.values) != len(target.elts):
                self.fail(f"{describe(value)} cannot be taken apart into {len(target.elts)}", target)
            kept = [self.copied(part, "part", node) for part in value.values]
            for one, part in zip(target.elts, kept, strict=True):
                self.bind(one, part, node)
            return
        if isinstance(target, ast.Subscript):
            self._store(target, value, node)
            return
        if not isinstance(target, ast.Name):
            self.fail("guest memory is only read", target, hint="assign to a variable")
        if isinstance(value, Constant) and value.value is None:
            self.fail("this gives no value", node)
        known = self.frame.variables.get(target.id)
        if known is not None:
            self.assign(known, value, node)
            return
        if alias := self.alias(value):
            self.fail(
                f"{describe(alias)} has one name", node, hint="go on with that name: a second would change with it"
            )
        self.frame.variables[target.id] = variable = self.copied(value, target.id, node)
        self._zeroed(variable)

    def _zeroed(self, variable: Value) -> None:
        """Let a helper's variable that only some paths assign to be 0 on the others each time it is called."""
        body = self.frame.body
        if body is None or self.body is body:
            return
        if isinstance(variable, Record):
            for part in variable.values:
                self._zeroed(part)
        place = variable.expression if isinstance(variable, Number) else getattr(variable, "address", None)
        if isinstance(place, ir.Local):
            body.insert(0, ir.Assign(place=self.place, target=place, value=ir.Const(0, place.type)))
        elif isinstance(variable, Text):
            body.insert(0, ir.ClearBuffer(place=self.place, buffer=variable.buffer))
        elif isinstance(variable, LocalArray):
            body.insert(0, ir.ClearArray(place=self.place, array=variable.name))

    def _store(self, target: ast.Subscript, value: Value, node: ast.AST) -> None:
        array = self.value(target.value)
        if not isinstance(array, LocalArray):
            self.fail("guest memory is only read", target, hint="keep it in a local_array()")
        at = self.int_of(target.slice)
        number = self.number(value, node, array.element)
        self.add(ir.StoreArray(place=self.place, fault=self.fault, array=array.name, at=at, value=number))

    # --- control flow

    def _if_statement(self, node: ast.If) -> None:
        condition = self.condition(node.test)
        if isinstance(condition, ir.Const):  # known while compiling: only one side is compiled
            self.statements(node.body if condition.value else node.orelse)
            return
        statement = ir.If(place=self.place, condition=condition, then=[])
        self.add(statement)
        with self.into(statement.then):
            self.statements(node.body)
        with self.into(statement.otherwise):
            self.statements(node.orelse)

    def _loop(self) -> tuple[ir.Loop, str]:
        label = self.fresh("loop")
        loop = ir.Loop(place=self.place, label=label, body=[])
        self.add(loop)
        loop.body.append(ir.Tick(place=self.place))
        return loop, label

    def _leave_unless(self, condition: ir.Expression, label: str) -> None:
        leave = ir.Break(place=self.place, label=label)
        self.add(ir.If(place=self.place, condition=self.negation(condition), then=[leave]))

    def _while_statement(self, node: ast.While) -> None:
        if node.orelse:
            self.fail("a loop's else is not part of the language", node.orelse[0], hint="write it behind the loop")
        loop, label = self._loop()
        with self.into(loop.body):
            condition = self.condition(node.test)
            if not isinstance(condition, ir.Const) or not condition.value:
                self._leave_unless(condition, label)
            self.frame.loops.append((label, label, True))
            self.statements(node.body)
            self.frame.loops.pop()

    def _for_statement(self, node: ast.For) -> None:
        if node.orelse:
            self.fail("a loop's else is not part of the language", node.orelse[0], hint="write it behind the loop")
        call = node.iter
        if isinstance(call, ast.Call):
            called = self.value(call.func)
            if isinstance(called, Constant) and called.value is range:
                self._range(node, call)
                return
            if isinstance(called, Constant) and isinstance(called.value, Helper):
                self._generator(node, call, called.value)
                return
        self.fail(
            "a for loop goes through range(n) or a generator of the language", node.iter, hint="as for_each_entry()"
        )

    def _range(self, node: ast.For, call: ast.Call) -> None:
        if not 1 <= len(call.args) <= 2 or call.keywords:
            self.fail("range() takes one or two arguments here", call, hint="count in a while loop")
        values = [self._bound(argument) for argument in call.args]
        first = values[0] if len(values) == 2 else Number(ir.Const(0, values[0].type))
        kind = promoted(first.type) if first.type == values[-1].type else self.common(first, values[-1], call)
        end = self.keep(self.cast(values[-1].expression, kind), "end")
        counter = self.keep(self.cast(first.expression, kind), "counter")
        loop, label = self._loop()
        with self.into(loop.body):
            self._leave_unless(ir.Compare("<", counter, end), label)
            self.bind(node.target, Number(counter), node)
            one = self.binary("+", counter, ir.Const(1, kind), kind)
            self.add(ir.Assign(place=self.place, target=counter, value=one))
            self.frame.loops.append((label, label, True))
            self.statements(node.body)
            self.frame.loops.pop()

    def _bound(self, node: ast.expr) -> Number:
        """Return an end of a ``range``. One that is written in the source is a ``u32`` where it can be: it counts."""
        value = self.value(node)
        constant = isinstance(value, Constant) and isinstance(value.value, int) and 0 <= value.value < 1 << 32
        return Number(self.number(value, node, ir.U32 if constant else None))

    def _generator(self, node: ast.For, call: ast.Call, function: Helper[Any, Any]) -> None:
        """The loop's body stands where the generator has its ``yield``."""
        outer, inner = self.fresh("for"), self.fresh("next")
        frame, depth, fault = self.frame, len(self.frames), self.fault

        def consume(value: Value, place: ast.AST) -> None:
            body: list[ir.Statement] = []
            self.add(ir.Block(place=self.place, label=inner, body=body))
            hidden, self.frames = self.frames[depth:], self.frames[:depth]
            inside, self.fault = self.fault, fault  # the generator's attempts are not the loop's
            frame.loops.append((outer, inner, False))
            with self.into(body):
                self.bind(node.target, value, place)
                self.statements(node.body)
            frame.loops.pop()
            self.fault = inside
            self.frames += hidden

        block: list[ir.Statement] = []
        self.add(ir.Block(place=self.place, label=outer, body=block))
        with self.into(block):
            self.inline(function, call, consume)

    def _break_statement(self, _: ast.Break) -> None:
        self.add(ir.Break(place=self.place, label=self.frame.loops[-1][0]))

    def _continue_statement(self, _: ast.Continue) -> None:
        label, loops = self.frame.loops[-1][1:]
        self.add(ir.Continue(place=self.place, label=label) if loops else ir.Break(place=self.place, label=label))

    def _with_statement(self, node: ast.With) -> None:
        item = node.items[0]
        call = item.context_expr
        called = self.value(call.func) if isinstance(call, ast.Call) else None
        if len(node.items) != 1 or not isinstance(called, Constant) or called.value is not attempt:
            self.fail("with is for attempt() alone", node, hint="as in `with attempt() as failed:`")
        if isinstance(call, ast.Call) and (call.args or call.keywords):
            self.fail("attempt() takes no arguments", call)
        if self.program.kind == "walker":
            self.fail("attempt() is for probes", node, hint="a fault ends the walk")
        failed = self._failed(item.optional_vars)
        label = self.fresh("attempt")
        statement = ir.Attempt(place=self.place, label=label, failed=failed, body=[])
        self.add(statement)
        before, self.fault = self.fault, label
        with self.into(statement.body):
            self.statements(node.body)
        self.fault = before

    def _failed(self, name: ast.expr | None) -> ir.Local:
        """Return the variable that says whether an attempt failed."""
        if name is None:
            return self.temporary(BOOL, "failed")
        if not isinstance(name, ast.Name):
            self.fail("an attempt has one result", name, hint="as in `with attempt() as failed:`")
        if name.id not in self.frame.variables:
            self.bind(name, Constant(value=False), name)
        known = self.frame.variables[name.id]
        if not isinstance(known, Number) or known.type != BOOL or not isinstance(known.expression, ir.Local):
            self.fail(f"{name.id!r} is {describe(known)} already", name, hint="use another name")
        return known.expression

    # --- results

    def _return_statement(self, node: ast.Return) -> None:
        frame = self.frame
        value = self.value(node.value) if node.value is not None else Constant(None)
        if len(self.frames) == 1:
            self._end(value, node)
            return
        nothing = isinstance(value, Constant) and value.value is None
        if frame.consume is None and not nothing:
            self._give(value, node)
        elif frame.consume and not nothing:
            self.fail("a generator returns no value", node, hint="give it out by yield")
        elif frame.result is not None:
            self.fail("some returns of this helper give a value and others none", node)
        frame.returned = True
        self.add(ir.Break(place=self.place, label=frame.leave))

    def _give(self, value: Value, node: ast.Return) -> None:
        """Put a helper's result where its caller finds it."""
        frame = self.frame
        if frame.result is None:
            if frame.returned:
                self.fail("some returns of this helper give a value and others none", node)
            frame.result = self._result(value)
        if isinstance(frame.result, Text | Constant):
            if frame.result != value:
                what = describe(frame.result)
                self.fail(
                    f"{what} and {describe(value)} cannot both be a helper's result", node, hint="write two helpers"
                )
            return
        self.assign(frame.result, value, node)

    def _result(self, value: Value) -> Value:
        """Return new variables of the kind that the helper's annotation, or else its first result, has."""
        kind = resolve_quietly(self.frame.node.returns, self.frame.scope)
        if isinstance(kind, PtrType) and isinstance(kind.target, StructType):
            kind = kind.target
        if isinstance(kind, IntType):
            return Number(self.temporary(kind, self.frame.node.name))
        if isinstance(kind, StructType):
            return Reference(kind, self.temporary(self.word, self.frame.node.name))
        if isinstance(kind, PtrType):
            return Pointer(kind.target, self.temporary(self.word, self.frame.node.name))
        return self._like(value, self.frame.node)

    def _like(self, value: Value, node: ast.AST) -> Value:
        if isinstance(value, Constant) and isinstance(value.value, int):
            value = self.literal(value.value, node)
        if isinstance(value, Number):
            return Number(self.temporary(value.type, self.frame.node.name))
        if isinstance(value, Reference):
            return Reference(value.struct, self.temporary(self.word, self.frame.node.name))
        if isinstance(value, Pointer):
            return Pointer(value.target, self.temporary(self.word, self.frame.node.name))
        if isinstance(value, GuestArray):
            return value._replace(address=self.temporary(self.word, self.frame.node.name))
        if isinstance(value, Record):
            return Record(value.names, tuple(self._like(part, node) for part in value.values))
        return value

    def _end(self, value: Value, node: ast.Return) -> None:
        """``return`` of the program itself."""
        if self.program.kind == "walker":
            parts = value.values if isinstance(value, Record) else (value,)
            expressions = [self.number(part, node, None if n else U64) for n, part in enumerate(parts)]
            kinds = [expression.type for expression in expressions]
            if self.program.results and self.program.results != kinds:
                self.fail("all results of a walker are of one kind", node)
            self.program.results = kinds
            self.add(ir.Return(place=self.place, values=expressions))
            return
        if not isinstance(value, Constant) or value.value is not None:
            self.fail("a probe gives its rows by emit()", node)
        self.add(ir.Break(place=self.place, label=PROGRAM))


PROGRAM = "program"
"""Label of a whole program."""


def compile_probe(probe: Probe, word_size: int) -> Program:
    """Compile a probe for guests of a word size; loads are not translated yet.

    Raises:
        CompileError: It is not one of the language.
    """
    definition, scope = source_of(probe.function, word_size)
    program = Program(name=_name(definition, scope), kind="probe", word_size=word_size, file=scope.file, parameters=[])
    try:
        program.row = row_fields(probe.row)
    except (NameError, TypeError, AttributeError, SyntaxError) as error:
        raise CompileError(f"the fields of the rows are not to be had: {error}", scope.file, definition) from None
    if len(program.row) > ir.MOST_FIELDS:
        why = f"a row has at most {ir.MOST_FIELDS} fields; {probe.row.__name__} has {len(program.row)}"
        raise CompileError(why, scope.file, definition, hint="give out rows of two kinds by two probes")
    compiler = Statements(program, scope, definition)
    body: list[ir.Statement] = []
    program.body.append(ir.Block(place=compiler.place, label=PROGRAM, body=body))
    with compiler.into(body), _bounded(compiler):
        _parameters_of_probe(compiler, definition)
        compiler.statements(definition.body)
    settled = {UNSETTLED: ir.S64, TEXTUAL: ir.S64}
    program.row = [
        field._replace(type=settled.get(field.type, field.type)) if isinstance(field.type, IntType) else field
        for field in program.row
    ]
    return program


def compile_walker(walker: Walker) -> Program:
    """Compile a page-table walker.

    Raises:
        CompileError: It is not one of the language.
    """
    definition, scope = source_of(walker.function, 8)
    module = re.sub(r"\W", "_", str(scope.names.get("__name__", "")).rpartition(".")[2], flags=re.ASCII)
    name = f"{module}_{_name(definition, scope)}"
    program = Program(name=name, kind="walker", word_size=0, file=scope.file, parameters=[])
    compiler = Statements(program, scope, definition)
    for parameter in _parameters(compiler, definition, most_defaults=0):
        if resolve_quietly(parameter.annotation, scope) != U64:
            compiler.fail("a walker's parameters are all u64", parameter, hint=f"say {parameter.arg}: u64")
        _parameter(compiler, parameter, U64)
    if len(program.parameters) < 2:
        compiler.fail("a walker's first parameters are root and gva", definition)
    with _bounded(compiler):
        compiler.statements(definition.body)
    if not program.results:
        compiler.fail("a walker returns a NamedTuple of integers", definition)
    if not flow.ends(program.body):
        compiler.fail("a walker may end without a result", definition, hint="end it with return or stop()")
    return program


@contextmanager
def _bounded(compiler: Statements) -> Iterator[None]:
    """Refuse what is nested more deeply than Python can follow."""
    try:
        yield
    except RecursionError:
        raise CompileError(
            "an expression is nested too deeply", compiler.program.file, compiler.frames[0].node, hint="take it apart"
        ) from None


def _name(definition: ast.FunctionDef, scope: Scope) -> str:
    """Return a program's name, which is one of C's, too."""
    if not definition.name.isascii():
        raise CompileError("a program's name has ASCII letters only", scope.file, definition)
    return definition.name


def _parameters(compiler: Statements, definition: ast.FunctionDef, *, most_defaults: int) -> list[ast.arg]:
    arguments = definition.args
    if arguments.vararg or arguments.kwarg or arguments.posonlyargs:
        compiler.fail("a program has plain parameters", definition)
    given = [default for default in (*arguments.defaults, *arguments.kw_defaults) if default is not None]
    if given and len(given) > most_defaults:
        compiler.fail("this parameter has no default", given[0])
    for default in given:
        if not isinstance(default, ast.Constant) or type(default.value) is not int:
            compiler.fail("a parameter's default is a number", default)
    return [*arguments.args, *arguments.kwonlyargs]


def _parameter(compiler: Statements, parameter: ast.arg, kind: IntType) -> None:
    if not parameter.arg.isascii():
        compiler.fail("a parameter's name has ASCII letters only", parameter)
    local = ir.Local(parameter.arg, kind)
    compiler.program.parameters.append(local)
    compiler.frame.variables[parameter.arg] = Number(local)


def _parameters_of_probe(compiler: Statements, definition: ast.FunctionDef) -> None:
    most = len(definition.args.args) + len(definition.args.kwonlyargs) - 1
    parameters, scope = _parameters(compiler, definition, most_defaults=most), compiler.frame.scope
    first = parameters[0] if parameters else None
    named = lookup(first.annotation, scope) if first is not None and first.annotation else None
    if first is None or not isinstance(named, type) or not issubclass(named, Kernel):
        compiler.fail("a probe's first parameter is the kernel", first or definition, hint="as in kernel: Kernel")
    compiler.frame.variables[first.arg] = Symbols(named)
    for parameter in parameters[1:]:
        kind = resolve_quietly(parameter.annotation, scope)
        if not isinstance(kind, IntType):
            compiler.fail("a probe's further parameters are numbers", parameter, hint="as in count: u32")
        _parameter(compiler, parameter, kind)
