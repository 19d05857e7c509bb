"""The front end: a function's source → a program of the intermediate representation."""

from __future__ import annotations

import ast
import types
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

from yamori.llview import ir
from yamori.llview.calls import Calls, resolve_quietly, source_of
from yamori.llview.ir import BOOL, U64, IntType, Program
from yamori.llview.language import Helper, Kernel, Probe, Walker, attempt
from yamori.llview.types import PtrType, StructType, lookup
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


class Statements(Calls):
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
            self._yield(node.value)
            return
        self.value(node.value)

    def _yield(self, node: ast.Yield) -> None:
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
        for target in node.targets:
            self.bind(target, value, node.value)

    def _annassign_statement(self, node: ast.AnnAssign) -> None:
        if not isinstance(node.target, ast.Name) or node.value is None:
            self.fail("a variable needs its value at once", node, hint="as in count: u32 = 0")
        kind = resolve_quietly(node.annotation, self.frame.scope)
        value = self.value(node.value)
        if isinstance(kind, IntType):
            value = Number(self.number(value, node.value, kind))
        elif isinstance(kind, StructType) and isinstance(value, Constant) and value.value == 0:
            value = Reference(kind, ir.Const(0, self.word))
        elif kind is None:
            self.fail("this is no type of the language", node.annotation)
        self.bind(node.target, value, node.value)

    def _augassign_statement(self, node: ast.AugAssign) -> None:
        if not isinstance(node.target, ast.Name):
            self.fail("only a variable can be changed so", node.target, hint="say a[i] = a[i] + 1")
        current = ast.copy_location(ast.Name(id=node.target.id, ctx=ast.Load()), node.target)
        whole = ast.copy_location(ast.BinOp(left=current, op=node.op, right=node.value), node)
        value = self.value(whole)
        variable = self.frame.variables[node.target.id]
        if isinstance(variable, Number) and isinstance(value, Number):  # as in C, and as += promises
            value = Number(self.cast(value.expression, variable.type))
        self.bind(node.target, value, node)

    def bind(self, target: ast.expr, value: Value, node: ast.AST) -> None:
        """Assign a value to a name, to several names, or to an element of a local array."""
        if isinstance(target, ast.Tuple | ast.List):
            if not isinstance(value, Record) or len(value.values) != len(target.elts):
                self.fail(f"{describe(value)} cannot be taken apart into {len(target.elts)}", target)
            kept = [self._copied(str(index), part, node) for index, part in enumerate(value.values)]
            for one, part in zip(target.elts, kept, strict=True):
                self.bind(one, part, node)
            return
        if isinstance(target, ast.Subscript):
            self._store(target, value, node)
            return
        if not isinstance(target, ast.Name):
            self.fail("guest memory is only read", target, hint="assign to a variable")
        known = self.frame.variables.get(target.id)
        if known is None:
            self.frame.variables[target.id] = self._copied(target.id, value, node)
        else:
            self.assign(known, value, node)

    def _copied(self, name: str, value: Value, node: ast.AST) -> Value:
        """Return a variable of its own with a value; what cannot be assigned to anew is kept as it is."""
        if isinstance(value, Constant) and isinstance(value.value, int):
            value = self.literal(value.value, node)
        if isinstance(value, Number):
            return Number(self.keep(value.expression, name))
        if isinstance(value, Reference):
            return Reference(value.struct, self.keep(value.address, name))
        if isinstance(value, Pointer):
            return Pointer(value.target, self.keep(value.address, name))
        if isinstance(value, Record):
            return Record(value.names, tuple(self._copied(name, part, node) for part in value.values))
        if isinstance(value, Constant) and value.value is None:
            self.fail("this gives no value", node)
        return value

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
        self.add(ir.If(place=self.place, condition=ir.Not(condition), then=[leave]))

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
        values = [Number(self.int_of(argument)) for argument in call.args]
        first = values[0] if len(values) == 2 else Number(ir.Const(0, values[0].type))
        kind = first.type if first.type == values[-1].type else self.common(first, values[-1], call)
        end = self.keep(self.cast(values[-1].expression, kind), "end")
        counter = self.keep(self.cast(first.expression, kind), "counter")
        loop, label = self._loop()
        with self.into(loop.body):
            self._leave_unless(ir.Compare("<", counter, end), label)
            self.bind(node.target, Number(counter), node)
            one = ir.Binary("+", counter, ir.Const(1, kind), kind)
            self.add(ir.Assign(place=self.place, target=counter, value=one))
            self.frame.loops.append((label, label, True))
            self.statements(node.body)
            self.frame.loops.pop()

    def _generator(self, node: ast.For, call: ast.Call, function: Helper[Any, Any]) -> None:
        """The loop's body stands where the generator has its ``yield``."""
        outer, inner = self.fresh("for"), self.fresh("next")
        frame, depth = self.frame, len(self.frames)

        def consume(value: Value, place: ast.AST) -> None:
            body: list[ir.Statement] = []
            self.add(ir.Block(place=self.place, label=inner, body=body))
            hidden, self.frames = self.frames[depth:], self.frames[:depth]
            frame.loops.append((outer, inner, False))
            with self.into(body):
                self.bind(node.target, value, place)
                self.statements(node.body)
            frame.loops.pop()
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
        named = lookup(call.func, self.frame.scope) if isinstance(call, ast.Call) else None
        if len(node.items) != 1 or named is not attempt:
            self.fail("with is for attempt() alone", node, hint="as in `with attempt() as failed:`")
        failed = self.temporary(BOOL, "failed")
        if isinstance(item.optional_vars, ast.Name):
            self.frame.variables[item.optional_vars.id] = Number(failed)
        label = self.fresh("attempt")
        statement = ir.Attempt(place=self.place, label=label, failed=failed, body=[])
        self.add(statement)
        before, self.fault = self.fault, label
        with self.into(statement.body):
            self.statements(node.body)
        self.fault = before

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
        elif frame.result is not None or (frame.consume and not nothing):
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
                self.fail("a helper can give one text only", node, hint="call text() where the helper is called")
            return
        self.assign(frame.result, value, node)

    def _result(self, value: Value) -> Value:
        """Return new variables of the kind that the helper's annotation, or else its first result, has."""
        kind = resolve_quietly(self.frame.node.returns, self.frame.scope)
        if isinstance(kind, IntType):
            return Number(self.temporary(kind, self.frame.node.name))
        if isinstance(kind, StructType):
            return Reference(kind, self.temporary(self.word, self.frame.node.name))
        if isinstance(kind, PtrType) and not isinstance(value, Reference):
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
        if isinstance(value, Record):
            return Record(value.names, tuple(self._like(part, node) for part in value.values))
        return value

    def _end(self, value: Value, node: ast.Return) -> None:
        """``return`` of the program itself."""
        if self.program.kind == "walker":
            parts = value.values if isinstance(value, Record) else (value,)
            expressions = [self.number(part, node) for part in parts]
            kinds = [expression.type for expression in expressions]
            if self.program.results and self.program.results != kinds:
                self.fail("all results of a walker are of one kind", node)
            self.program.results = kinds
            self.add(ir.Return(place=self.place, values=expressions))
            return
        if not isinstance(value, Constant) or value.value is not None:
            self.fail("a probe gives its rows by emit()", node)
        self.add(ir.Break(place=self.place, label=PROGRAM))

    def emission(self, fields: dict[str, ast.expr], node: ast.Call) -> None:
        """Give out a row; for each condition of ``x if known else None`` one with and one without."""
        row = self.program.row
        known = {field.name: field for field in row}
        for name, expression in fields.items():
            if name not in known:
                self.fail(f"rows have no field {name!r}", expression, hint=f"there are {', '.join(known)}")
        if missing := [field.name for field in row if field.name not in fields and not field.nullable]:
            self.fail(f"the row lacks {', '.join(missing)}", node)
        self._emit([self._field(fields[f.name], f) if f.name in fields else (None, None) for f in row])

    def _field(self, node: ast.expr, field: ir.RowField) -> tuple[Value | None, ir.Expression | None]:
        """Return a field's value and the condition for it."""
        if isinstance(node, ast.IfExp) and isinstance(node.orelse, ast.Constant) and node.orelse.value is None:
            if not field.nullable:
                self.fail(f"the field {field.name!r} cannot be None", node.orelse)
            condition = self.condition(node.test)
            return self._fitting(self.value(node.body), field, node.body), condition
        return self._fitting(self.value(node), field, node), None

    def _fitting(self, value: Value, field: ir.RowField, node: ast.expr) -> Value | None:
        if isinstance(value, Constant) and value.value is None and field.nullable:
            return None
        if isinstance(value, Text):
            if isinstance(field.type, IntType):
                if field.type != TEXTUAL:
                    self.fail(f"the field {field.name!r} is a number", node)
                field = field._replace(type=self.program.buffers[value.buffer])
            size = max(cast("int", field.type), self.program.buffers[value.buffer])
            self._settle(field._replace(type=size))
            return value
        number = self.number(value, node)
        if field.type == TEXTUAL:
            self._settle(field._replace(type=CHARACTER))
            return Number(self.cast(number, CHARACTER))
        if not isinstance(field.type, IntType):
            self.fail(f"the field {field.name!r} is a text elsewhere", node)
        if field.type == BOOL:
            return Number(self.cast(number, BOOL))
        kind = number.type if number.type == U64 or not number.type.signed else ir.S64
        if field.type == UNSETTLED:
            self._settle(field._replace(type=U64 if kind == U64 or not kind.signed else ir.S64))
        elif not self.fits(Number(number), field.type):
            self.fail(f"the field {field.name!r} is {field.type.name} elsewhere", node, hint=f"say {field.type.name}()")
        final = next(one for one in self.program.row if one.name == field.name).type
        return Number(self.cast(number, cast("IntType", final)))

    def _settle(self, field: ir.RowField) -> None:
        """Fix a field's type as the first row has it."""
        index = next(n for n, one in enumerate(self.program.row) if one.name == field.name)
        self.program.row[index] = field

    def _emit(self, values: list[tuple[Value | None, ir.Expression | None]]) -> None:
        open_ = next((condition for _, condition in values if condition is not None), None)
        if open_ is None:
            row = [_emitted(value) for value, _ in values]
            self.add(ir.Emit(place=self.place, values=row))
            return
        bodies: tuple[list[ir.Statement], list[ir.Statement]] = ([], [])
        for body, chosen in zip(bodies, (True, False), strict=True):
            decided = [
                (value if chosen else None, None) if condition == open_ else (value, condition)
                for value, condition in values
            ]
            with self.into(body):
                self._emit(decided)
        self.add(ir.If(place=self.place, condition=open_, then=bodies[0], otherwise=bodies[1]))


def _emitted(value: Value | None) -> ir.Expression | str | None:
    if isinstance(value, Text):
        return value.buffer
    return value.expression if isinstance(value, Number) else None


PROGRAM = "program"
"""Label of a whole program."""
UNSETTLED = IntType(0)
TEXTUAL = IntType(-1)
"""A field of type ``str`` before it is known whether it is a text or a character."""
CHARACTER = ir.U8


def compile_probe(probe: Probe, word_size: int) -> Program:
    """Compile a probe for guests of a word size; loads are not translated yet.

    Raises:
        CompileError: It is not one of the language.
    """
    definition, scope = source_of(probe.function, word_size)
    program = Program(
        name=definition.name,
        kind="probe",
        word_size=word_size,
        file=scope.file,
        parameters=[],
        row=_row(probe.row),
    )
    compiler = Statements(program, scope, definition)
    variables = compiler.frame.variables
    for index, parameter in enumerate(definition.args.args):
        if index == 0:
            named = lookup(parameter.annotation, scope) if parameter.annotation else None
            if not isinstance(named, type) or not issubclass(named, Kernel):
                compiler.fail("a probe's first parameter is the kernel", parameter, hint="as in kernel: Kernel")
            variables[parameter.arg] = Symbols(named)
            continue
        kind = resolve_quietly(parameter.annotation, scope)
        if not isinstance(kind, IntType):
            compiler.fail("a probe's further parameters are numbers", parameter, hint="as in count: u32")
        local = ir.Local(parameter.arg, kind)
        program.parameters.append(local)
        variables[parameter.arg] = Number(local)
    body: list[ir.Statement] = []
    program.body.append(ir.Block(place=compiler.place, label=PROGRAM, body=body))
    with compiler.into(body):
        compiler.statements(definition.body)
    if any(field.type in {UNSETTLED, TEXTUAL} for field in program.row):
        program.row = [
            field._replace(type=ir.S64) if field.type in {UNSETTLED, TEXTUAL} else field for field in program.row
        ]
    return program


def compile_walker(walker: Walker) -> Program:
    """Compile a page-table walker.

    Raises:
        CompileError: It is not one of the language.
    """
    definition, scope = source_of(walker.function, 8)
    name = f"{scope.names['__name__'].rpartition('.')[2]}_{definition.name}"
    program = Program(name=name, kind="walker", word_size=0, file=scope.file, parameters=[])
    compiler = Statements(program, scope, definition)
    for parameter in [*definition.args.args, *definition.args.kwonlyargs]:
        local = ir.Local(parameter.arg, U64)
        program.parameters.append(local)
        compiler.frame.variables[parameter.arg] = Number(local)
    compiler.statements(definition.body)
    if not program.results:
        compiler.fail("a walker returns a NamedTuple of integers", definition)
    return program


def _row(row: type[Any]) -> list[ir.RowField]:
    """Return the fields of a row's class; the types of numbers are settled by the first ``emit``."""
    return [
        _row_field(name, hint)
        for name, hint in get_type_hints(row).items()
        if get_origin(hint) is None or "ClassVar" not in str(hint)
    ]


def _row_field(name: str, hint: Any) -> ir.RowField:
    options = get_args(hint) if isinstance(hint, types.UnionType) or get_origin(hint) is Union else (hint,)
    plain = next(option for option in options if option is not type(None))
    return ir.RowField(name, {bool: BOOL, str: TEXTUAL}.get(plain, UNSETTLED), nullable=type(None) in options)
