"""Yamori: intrusion detection for IoT devices and gateways, from outside the system it guards.

::

    import yamori

    with yamori.open("qemu:/run/vm.sock") as guest:
        print(guest.banner().rows[0].release)
        for process in guest.plist():
            print(process.pid, process.comm)
"""

from __future__ import annotations

from yamori.errors import (
    Fault,
    LabError,
    MemoryFault,
    NoKernelError,
    ProfileError,
    TargetError,
    TranslationFault,
    YamoriError,
)

TYPE_CHECKING = False  # importing `typing` for it would take longer than all the rest
if TYPE_CHECKING:
    from typing import Any

    from yamori.guest import Guest
    from yamori.guest import open_guest as open  # noqa: A004  yamori.open, as in the design

__version__ = "0.1.0"
__all__ = [
    "Fault",
    "Guest",
    "LabError",
    "MemoryFault",
    "NoKernelError",
    "ProfileError",
    "TargetError",
    "TranslationFault",
    "YamoriError",
    "open",
]


def __getattr__(name: str) -> Any:
    """Import the API on first use, so that ``import yamori`` stays quick."""
    if name in {"open", "Guest"}:
        from yamori import guest  # noqa: PLC0415  the point of this function

        return guest.open_guest if name == "open" else guest.Guest
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
