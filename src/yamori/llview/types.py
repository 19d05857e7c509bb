"""Types of the language, and how annotations name them."""

from __future__ import annotations

import ast
import inspect
import linecache
import sys
from collections.abc import Mapping
from typing import Any, ForwardRef, NamedTuple, TypeAlias, get_args, get_origin

from yamori.llview.diagnostics import CompileError
from yamori.llview.ir import BOOL, U64, IntType
from yamori.llview.language import Array, CharArray, Kernel, Ptr, Scalar, Struct


class PtrType(NamedTuple):
    """A pointer to something that is no structure, or a member that is a pointer."""

    target: Type


class ArrayType(NamedTuple):
    """An array in guest memory."""

    element: Type


class TextType(NamedTuple):
    """A ``char`` array."""


class StructType(NamedTuple):
    """A structure: the class that declares it."""

    declaration: type[Struct]

    @property
    def name(self) -> str:
        """Its C name."""
        return self.declaration.c_name


Type: TypeAlias = IntType | PtrType | ArrayType | TextType | StructType


class Scope(NamedTuple):
    """Where names of an annotation are looked up.

    Attributes:
        names: The module's global names.
        file: For errors.
        word_size: Of the guest.
    """

    names: Mapping[str, Any]
    file: str
    word_size: int


class Known(ast.expr):
    """An object that an annotation is, rather than its name."""

    thing: Any


def resolve(node: ast.expr, scope: Scope) -> Type | None:
    """Return the type that an annotation names, ``None`` where it is none of the language's.

    Raises:
        CompileError: A name in it is unknown.
    """
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return resolve(_annotation(node.value, scope.file, node), scope)
    if isinstance(node, ast.Subscript):
        return _generic(node, scope)
    named = lookup(node, scope)
    if isinstance(named, Scalar):
        return named.of(scope.word_size)
    if named is bool:
        return BOOL
    if named is int:
        return U64
    if named is CharArray or named is str:
        return TextType()
    if isinstance(named, type) and issubclass(named, Struct) and named is not Struct:
        return StructType(named)
    return None


def _generic(node: ast.Subscript, scope: Scope) -> Type | None:
    outer = lookup(node.value, scope)
    if outer is not Ptr and outer is not Array:
        return None
    inner = resolve(node.slice, scope)
    if inner is None:
        raise CompileError("this is no type of the language", scope.file, node.slice)
    return PtrType(inner) if outer is Ptr else ArrayType(inner)


def lookup(node: ast.expr, scope: Scope) -> Any:
    """Return the Python object that a name, or a name in a module, stands for; ``None`` for other expressions.

    Raises:
        CompileError: It is unknown.
    """
    if isinstance(node, Known):
        return node.thing
    if isinstance(node, ast.Attribute):
        outer = lookup(node.value, scope)
        return getattr(outer, node.attr, None)
    if not isinstance(node, ast.Name):
        return None
    if node.id in scope.names:
        return scope.names[node.id]
    builtins: dict[str, Any] = {"bool": bool, "int": int, "str": str, "None": None, "True": True, "False": False}
    if node.id in builtins:
        return builtins[node.id]
    raise CompileError(f"the name {node.id!r} is not known", scope.file, node)


def member_type(declaration: type[Struct | Kernel], name: str, word_size: int) -> Type | None:
    """Return the type of a declared member or symbol, ``None`` where there is none of this name.

    Raises:
        CompileError: Its annotation is no type of the language.
    """
    for owner in declaration.__mro__:
        if owner in {Struct, Kernel, object}:
            break
        # Python mangles a name with two leading underscores in a class.
        annotation = _annotations(owner).get(name)
        if annotation is None and name.startswith("__"):
            annotation = _annotations(owner).get(f"_{owner.__name__.lstrip('_')}{name}")
        if annotation is None:
            continue
        module = sys.modules.get(owner.__module__)
        file = getattr(module, "__file__", None) or "<prompt>"
        scope = Scope({**(vars(module) if module else {}), owner.__name__: owner}, file, word_size)
        node = _written(annotation, scope, _class_line(owner, file))
        found = resolve(node, scope)
        if found is None:
            what = f"the annotation of {owner.__name__}.{name}, {ast.unparse(node)}, is no type of the language"
            raise CompileError(what, file, node)
        return found
    return None


def _written(annotation: Any, scope: Scope, place: ast.AST) -> ast.expr:
    """Return an annotation as it was written; without ``from __future__ import annotations`` it is an object."""
    if isinstance(annotation, ast.expr):
        return annotation
    if isinstance(annotation, str):
        return _annotation(annotation, scope.file, place)
    if isinstance(annotation, ForwardRef):
        return _annotation(annotation.__forward_arg__, scope.file, place)
    inner: ast.expr
    if get_origin(annotation) in {Ptr, Array}:
        inner = ast.Subscript(
            value=_named(get_origin(annotation), place), slice=_written(get_args(annotation)[0], scope, place)
        )
        return ast.copy_location(inner, place)
    return _named(annotation, place)


def _named(thing: Any, place: ast.AST) -> ast.expr:
    """Return an expression that stands for an object itself; see ``lookup``."""
    known = Known()
    known.thing = thing
    return ast.copy_location(known, place)


def _annotation(text: str, file: str, place: ast.AST) -> ast.expr:
    """Parse an annotation that is a text."""
    try:
        node = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError):
        raise CompileError(f"the annotation {text!r:.60} is no expression", file, place) from None
    for inner in ast.walk(node):
        ast.copy_location(inner, place)
    return node


def members(declaration: type[Struct | Kernel]) -> list[str]:
    """Return the names of all declared members, as the kernel has them."""
    names: dict[str, None] = {}
    for owner in declaration.__mro__:
        prefix = f"_{owner.__name__.lstrip('_')}__"
        for name in _annotations(owner):
            plain = name.removeprefix(prefix[:-2]) if name.startswith(prefix) else name
            if owner not in {Struct, Kernel, object}:
                names[plain] = None
    return list(names)


def resolve_quietly(annotation: ast.expr | None, scope: Scope) -> Any:
    """Return the type that an annotation names, ``None`` where it is for ``mypy`` alone (``type[T]``)."""
    if annotation is None:
        return None
    try:
        return resolve(annotation, scope)
    except CompileError:
        return None


def attribute(declaration: type[Struct | Kernel], name: str) -> Any:
    """Return the value that a declared member has in its class, ``None`` where it has none."""
    for owner in declaration.__mro__:
        for known in (name, f"_{owner.__name__.lstrip('_')}{name}"):
            if known in vars(owner):
                return vars(owner)[known]
    return None


def _annotations(owner: type) -> dict[str, Any]:
    return inspect.get_annotations(owner) if owner is not object else {}


def _class_line(owner: type, file: str) -> ast.AST:
    for number, line in enumerate(linecache.getlines(file), 1):
        if line.lstrip().startswith(f"class {owner.__name__}"):
            return ast.Name(id=owner.__name__, lineno=number, col_offset=0)
    return ast.Name(id=owner.__name__, lineno=1, col_offset=0)
