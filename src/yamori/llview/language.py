"""The words of LLView: what a probe, a helper or a walker imports.

A program is written as though it were part of the guest's kernel, in a typed subset of Python::

    class task_struct(Struct):
        tasks: list_head
        pid: s32
        comm: CharArray
        real_parent: Ptr["task_struct"]

    @probe(row=Process)
    def plist(kernel: Symbols) -> None:
        for task in for_each_entry(kernel.init_task.tasks, task_struct, "tasks"):
            emit(pid=task.pid, ppid=task.real_parent.tgid, comm=task.comm)

These functions are never called by Python: the front end reads their source. To ``mypy`` integers are ``int``, and a
pointer is what it points to; the front end knows better.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NoReturn, ParamSpec, Self, TypeAlias, TypeVar, cast, overload

from yamori.llview.ir import S8, S16, S32, S64, U8, U16, U32, U64, IntType

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
P = ParamSpec("P")


class Scalar:
    """An integer type of the language; called, a conversion as C does it.

    Args:
        type: The C type, or ``None`` where it has the guest's word size.
        signed: Whether a type of the word size is signed.
    """

    def __init__(self, type: IntType | None, *, signed: bool = False) -> None:
        self.type = type
        self.signed = signed

    def of(self, word_size: int) -> IntType:
        """Return the C type on a guest of this word size."""
        return self.type or IntType(word_size * 8, self.signed)

    def __call__(self, value: int) -> NoReturn:
        raise _not_python("a conversion")


if TYPE_CHECKING:
    u8: TypeAlias = int
    u16: TypeAlias = int
    u32: TypeAlias = int
    u64: TypeAlias = int
    s8: TypeAlias = int
    s16: TypeAlias = int
    s32: TypeAlias = int
    s64: TypeAlias = int
    ulong: TypeAlias = int
    slong: TypeAlias = int
else:
    u8, u16, u32, u64 = Scalar(U8), Scalar(U16), Scalar(U32), Scalar(U64)
    s8, s16, s32, s64 = Scalar(S8), Scalar(S16), Scalar(S32), Scalar(S64)
    ulong, slong = Scalar(None), Scalar(None, signed=True)


class Struct:
    """A partial C structure, union or typedef: the members that a program uses, under the kernel's own names.

    An attribute's annotation is a scalar, another ``Struct`` (embedded), ``Ptr[...]``, ``Array[...]`` or ``CharArray``.
    A scalar says what type the *value* has; how many bytes are loaded, and a bit-field's place, come from the kernel's
    layout.

    Args:
        c_name: The C name, where it is not the class's.
    """

    c_name: str

    def __init_subclass__(cls, *, c_name: str = "") -> None:
        cls.c_name = c_name or cls.__name__


class Kernel:
    """The kernel's global variables that a program uses: subclass it, and annotate one attribute for each symbol."""


class Ptr(Generic[T_co]):
    """A pointer. A pointer to a structure is used as the structure; any other is followed with ``p[0]``."""

    if TYPE_CHECKING:

        @overload
        def __get__(self, instance: None, owner: type[object]) -> Self: ...
        @overload
        def __get__(self, instance: object, owner: type[object]) -> T_co: ...
        def __get__(self, instance: object | None, owner: type[object]) -> Any: ...
        def __getitem__(self, index: int) -> T_co: ...


class Array(Generic[T_co]):
    """An array: ``a[i]`` is its element, not checked against a length: what lies behind it is loads like any other."""

    if TYPE_CHECKING:

        @overload
        def __get__(self, instance: None, owner: type[object]) -> Self: ...
        @overload
        def __get__(self, instance: object, owner: type[object]) -> Self: ...
        def __get__(self, instance: object | None, owner: type[object]) -> Any: ...
        def __getitem__(self, index: int) -> T_co: ...


class CharArray:
    """A ``char`` array: its value is the text up to a NUL, ``TEXT_BYTES`` at most."""

    if TYPE_CHECKING:

        def __get__(self, instance: object | None, owner: type[object]) -> str: ...


class Named:
    """What ``named`` gives.

    Attributes:
        path: The member's path in its structure.
    """

    def __init__(self, path: str) -> None:
        self.path = path


def named(path: str) -> Any:
    """Declare a member under a name of one's own, as in ``start_seconds: slong = named("real_start_time.tv_sec")``."""
    return Named(path)


TEXT_BYTES = 64
"""The most of a ``CharArray`` that is read."""

NULL: Any = 0
"""The null pointer."""


def exists(member: object) -> bool:
    """Say whether the kernel has the member or symbol named, as in ``exists(task.__state)``; nothing is loaded.

    What a program asks for so need not be there for the program to run.
    """
    raise _not_python("exists()")


def address_of(thing: object) -> int:
    """Return the address of a structure or array, or of what a pointer points to: an ``ulong``."""
    raise _not_python("address_of()")


def at(type: type[T], address: int) -> T:
    """Return the structure of a type at an address."""
    raise _not_python("at()")


def container_of(member: object, type: type[T], name: str) -> T:
    """Return the structure of a type whose member ``name`` (may have dots) is ``member``."""
    raise _not_python("container_of()")


def sizeof(type: object) -> int:
    """Return the bytes of a structure, scalar or pointer."""
    raise _not_python("sizeof()")


def text(address: int, limit: int) -> str:
    """Return the string at an address up to its NUL, ``limit`` bytes at most (a number that is known beforehand)."""
    raise _not_python("text()")


def user_text(pgd: int, address: int, limit: int) -> str:
    """Return a string of a program: as ``text``, translated by the table whose GPA is ``pgd``."""
    raise _not_python("user_text()")


def word_at(address: int) -> int:
    """Return the ``ulong`` at an address: an entry of a table that has no type."""
    raise _not_python("word_at()")


def physical(address: object) -> int:
    """Return the GPA (``u64``) of an address of the kernel: of ``mm.pgd``, as an example, for ``user_text``."""
    raise _not_python("physical()")


def user_word(pgd: int, address: int) -> int:
    """Return the ``ulong`` at a program's address, translated by the table whose GPA is ``pgd``."""
    raise _not_python("user_word()")


def local_array(element: object, length: int) -> list[int]:
    """Return an array of the program's own, of integers, zeros at first. Its length is known beforehand."""
    raise _not_python("local_array()")


def phys_u32(gpa: int) -> int:
    """Load an aligned ``u32`` of guest physical memory. For walkers."""
    raise _not_python("phys_u32()")


def phys_u64(gpa: int) -> int:
    """Load an aligned ``u64`` of guest physical memory. For walkers."""
    raise _not_python("phys_u64()")


def emit(**fields: object) -> None:
    """Give out a row. ``x if known else None`` leaves a field out."""
    raise _not_python("emit()")


def trouble(message: str, value: object = 0, *, faulted: bool = False) -> None:
    """Note that the rows are not complete, why, and for which address; with ``faulted`` also the last fault."""
    raise _not_python("trouble()")


def torn(message: str, value: object = 0) -> None:
    """Like ``trouble``, but it may be that the guest was just changing what is read: the run is worth repeating."""
    raise _not_python("torn()")


def stop(message: str, value: object = 0) -> NoReturn:
    """Fault: end the run, or the ``attempt`` around. In a walker: the address is not mapped."""
    raise _not_python("stop()")


class attempt:  # noqa: N801  reads as a word of the language
    """``with attempt() as failed:`` a fault in it ends it, and not the run; afterwards ``failed`` says so."""

    def __enter__(self) -> bool:
        raise _not_python("attempt()")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        raise _not_python("attempt()")


class Helper(Generic[P, T_co]):
    """A function of the language, inlined where it is called.

    Attributes:
        call_hook: What a call by Python does, with the helper, its arguments and its named ones; the prompt sets it.
        function: The Python function whose source it is.
    """

    call_hook: ClassVar[Callable[[Helper[Any, Any], tuple[Any, ...], dict[str, Any]], Any] | None] = None

    def __init__(self, function: Callable[P, T_co]) -> None:
        self.function = function
        self.__doc__ = function.__doc__
        self.__name__ = function.__name__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T_co:
        if Helper.call_hook is not None:
            return cast("T_co", Helper.call_hook(self, args, kwargs))
        raise _not_python(f"{self.__name__}()")

    def __repr__(self) -> str:
        return f"<helper {self.function.__module__}.{self.__name__}>"


def helper(function: Callable[P, T]) -> Helper[P, T]:
    """Mark a function as one of the language; with one ``yield`` it is a generator for a ``for`` loop."""
    return Helper(function)


class Probe:
    """A program that gives rows.

    Attributes:
        function: The Python function whose source it is.
        row: The class of its rows: a ``msgspec.Struct`` whose fields ``emit`` names.
        name: What it is called, as in ``yamori ids run``.
    """

    def __init__(self, function: Callable[..., None], row: type[Any]) -> None:
        self.function = function
        self.row = row
        self.name = function.__name__
        self.__doc__ = function.__doc__

    def default(self, parameter: str) -> int | None:
        """Return what a parameter is where it is not given, ``None`` where it has to be."""
        value = inspect.signature(self.function).parameters[parameter].default
        return value if isinstance(value, int) else None

    def __repr__(self) -> str:
        return f"<probe {self.function.__module__}.{self.name}>"


def probe(*, row: type[Any]) -> Callable[[Callable[..., None]], Probe]:
    """Make a probe of a function whose first parameter is the kernel; others are numbers given for each run.

    Args:
        row: The class of its rows.
    """
    return lambda function: Probe(function, row)


class Walker:
    """A page-table walk: parameters ``root`` and ``gva``, then those of the geometry; physical loads only.

    Attributes:
        function: The Python function whose source it is.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.__doc__ = function.__doc__
        self.__name__ = function.__name__

    def __repr__(self) -> str:
        return f"<walker {self.function.__module__}.{self.__name__}>"


def walker(function: Callable[..., Any]) -> Walker:
    """Make a walker of a function. Its result is a ``NamedTuple`` of integers whose first is the GPA."""
    return Walker(function)


def _not_python(what: str) -> TypeError:
    return TypeError(f"{what} belongs to LLView: it is compiled, not called")
