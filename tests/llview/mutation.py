"""Modules with one thing changed, for as long as a block lasts: to see whether tests would notice."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from types import FunctionType, ModuleType
from typing import Any


@contextmanager
def changed(module: ModuleType, old: str, new: str) -> Iterator[None]:
    """Change a text that stands once in a module's functions."""
    text = inspect.getsource(module)
    assert text.count(old) == 1, f"{module.__name__} has {text.count(old)} times: {old}"
    with compiled(module, ast.parse(text.replace(old, new))):
        yield


@contextmanager
def compiled(module: ModuleType, tree: ast.Module) -> Iterator[None]:
    """Give a module's functions, wherever they were imported to, the code that another text of it has."""
    other = ModuleType(module.__name__)
    other.__dict__.update(__file__=module.__file__, __package__=module.__package__)
    exec(compile(tree, str(module.__file__), "exec"), other.__dict__)  # noqa: S102  our own source
    codes = functions(other)
    own = functions(module)
    assert own.keys() == codes.keys()
    kept = {name: function.__code__ for name, function in own.items()}
    for name, function in own.items():
        function.__code__ = codes[name].__code__
    try:
        yield
    finally:
        for name, function in own.items():
            function.__code__ = kept[name]


def functions(module: ModuleType) -> dict[str, FunctionType]:
    """Return the functions and methods that a module defines itself."""
    found: dict[str, FunctionType] = {}
    for thing in vars(module).values():
        if getattr(thing, "__module__", None) == module.__name__:
            for function in (thing, *(vars(thing).values() if isinstance(thing, type) else ())):
                if isinstance(function, FunctionType):
                    found[function.__qualname__] = function
    return found


def calls(*tests: Callable[..., Any]) -> Iterator[Callable[[], object]]:
    """Yield every call of test functions that need no fixtures, with each set of their parameters."""
    for test in tests:
        for given in parameters(test, list(getattr(test, "pytestmark", []))):
            yield lambda test=test, given=given: test(**given)  # type: ignore[misc]


def parameters(test: Callable[..., Any], marks: list[Any]) -> Iterator[dict[str, Any]]:
    if not marks:
        yield {}
        return
    mark, *others = marks
    assert mark.name == "parametrize", test
    names = mark.args[0].split(",") if isinstance(mark.args[0], str) else mark.args[0]
    for values in mark.args[1]:
        row = values if len(names) > 1 else (values,)
        for rest in parameters(test, others):
            yield {**dict(zip(names, row, strict=True)), **rest}


# --- mutants of any module

OPERATORS = {
    "+": "-",
    "-": "+",
    "&": "|",
    "|": "&",
    "==": "!=",
    "!=": "==",
    "<": "<=",
    "<=": "<",
    ">": ">=",
    ">=": ">",
    "<<": ">>",
    ">>": "<<",
}
"""Of the language, as programs that build IR name them."""
COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.BitAnd: ast.BitOr,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitXor: ast.BitOr,
    ast.Mult: ast.Add,
}


def mutants(module: ModuleType) -> Iterator[tuple[str, ast.Module]]:
    """Yield a module's functions with one thing left out or swapped, and what; good until the next one is asked for."""
    text = inspect.getsource(module)
    tree, lines = ast.parse(text), text.splitlines()
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            for node in [inner for statement in function.body for inner in ast.walk(statement)]:
                if isinstance(node, ast.stmt | ast.expr):
                    for what in chain(left_out(node), swapped(node)):
                        yield f"{lines[node.lineno - 1].strip()}: {what}", tree


def left_out(node: ast.AST) -> Iterator[str]:
    """Leave out statements of a body one at a time, elements of a list, operands of ``and`` and ``or``."""
    for body in (getattr(node, "body", None), getattr(node, "orelse", None)):
        statements: list[Any] = body if isinstance(body, list) else []
        for at, statement in enumerate(statements):
            if isinstance(statement, ast.Expr | ast.AugAssign) and not isinstance(statement.value, ast.Constant):
                yield from one_other(statements, at, ast.copy_location(ast.Pass(), statement))
    if isinstance(node, ast.List) and len(node.elts) > 1:
        nothing = ast.copy_location(ast.List([], ast.Load()), node)
        for at in range(len(node.elts)):
            yield from one_other(node.elts, at, ast.copy_location(ast.Starred(nothing, ast.Load()), node))
    if isinstance(node, ast.BoolOp):
        for at, operand in enumerate(node.values):
            neutral = ast.Constant(isinstance(node.op, ast.And))
            yield from one_other(node.values, at, ast.copy_location(neutral, operand))


def one_other(nodes: list[Any], at: int, new: ast.AST) -> Iterator[str]:
    """Put another node in the place of one, for as long as a mutant is looked at."""
    old = nodes[at]
    nodes[at] = new
    yield f"without {ast.unparse(old)}"
    nodes[at] = old


def swapped(node: ast.AST) -> Iterator[str]:
    """Swap an operator, a number's neighbours, the branches of a condition."""
    changes: list[tuple[str, Any]] = []
    match node:
        case ast.Constant(value=str(value)) if value in OPERATORS:
            changes = [("value", OPERATORS[value])]
        case ast.Constant(value=int(value)) if not isinstance(value, bool):
            changes = [("value", value + 1), ("value", max(0, value - 1))]
        case ast.Compare(ops=[operator]) if type(operator) in COMPARED:
            changes = [("ops", [COMPARED[type(operator)]()])]
        case ast.BinOp(op=operator) if type(operator) in COMPUTED:
            changes = [("op", COMPUTED[type(operator)]())]
        case ast.If() | ast.IfExp():
            changes = [("test", ast.copy_location(ast.Constant(value), node)) for value in (True, False)]
    for field, new in changes:
        old = getattr(node, field)
        setattr(node, field, new)
        yield f"{field} {shown(old)} becomes {shown(new)}"
        setattr(node, field, old)


def shown(value: Any) -> str:
    if isinstance(value, list):
        return shown(value[0])
    if isinstance(value, ast.expr):
        return ast.unparse(value)
    return type(value).__name__ if isinstance(value, ast.AST) else repr(value)
