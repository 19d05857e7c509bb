"""What a guest can be asked to list, besides ``banner``, ``syscall`` and ``plist``, which have options of their own.

A listing is a function of one kernel that has the name of its module in this room; its command, its Python and its JSON
follow from that and from the line here.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from yamori.errors import YamoriError

if TYPE_CHECKING:  # the commands read the names here before they need any of these
    from yamori.kernel.kernel import Kernel
    from yamori.records import Result

LISTINGS = {
    "bpf": "List the BPF programs that the kernel runs.",
    "files": "List what processes have open, and where it lies.",
    "log": "List what the kernel's ring buffer holds, as dmesg does.",
    "maps": "List what processes have mapped into their memory.",
    "modules": "List the modules that the kernel's own list holds.",
    "mounts": "List what is mounted where, in every mount namespace.",
    "sockets": "List the sockets that processes hold, with both ends.",
}
"""Name → what it does, in a sentence."""


def listing(name: str) -> Callable[[Kernel], Result[Any]]:
    """Return what lists.

    Raises:
        YamoriError: There is no listing of this name.
    """
    if name not in LISTINGS:
        raise YamoriError(f"there is no listing {name!r}", hint=f"there are {', '.join(LISTINGS)}")
    return cast("Callable[[Kernel], Result[Any]]", getattr(import_module(f"yamori.probes.{name}"), name))
