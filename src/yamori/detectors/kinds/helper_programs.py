"""Programs that the kernel starts by itself: what ``modprobe_path``, ``core_pattern`` and ``uevent_helper`` name."""

from __future__ import annotations

from collections.abc import Iterator

from yamori.detectors.detector import UNNAMED, NotChecked, detector
from yamori.detectors.kinds.executables import SYSTEM, WRITABLE
from yamori.detectors.view import View
from yamori.records import Finding

HELPERS = ("modprobe_path", "core_pattern", "uevent_helper", "poweroff_cmd", "reboot_cmd")
LONGEST = 256  # KMOD_PATH_LEN; core_pattern has 128


@detector(
    title="Programs that the kernel starts",
    needs="symbols of the kernel's variables, or of its functions and capstone",
    misses="a program that was replaced under its usual name",
    attack=["T1547", "T1068"],
)
def helper_programs(view: View) -> Iterator[Finding]:
    """Look at the paths of the kernel's helpers."""
    places = {name: address for name in HELPERS if (address := view.profile.address(name))}
    if not places:
        raise NotChecked("the kernel does not name modprobe_path and core_pattern", hint=UNNAMED)
    for name, place in places.items():
        said = view.reader().text(place, LONGEST)
        path = said.removeprefix("|").partition(" ")[0]
        if (name == "core_pattern" and not said.startswith("|")) or not path:
            continue  # a file's name for the dump, or no helper
        if not path.startswith(SYSTEM) or path.startswith(WRITABLE):
            yield Finding(
                subject=name,
                severity="critical" if path.startswith(WRITABLE) else "high",
                confidence="likely",
                title=f"The kernel would start {path} as root",
                why=[
                    f"Expected: {name} is a program of the system's, below {', '.join(SYSTEM)}.",
                    f"Found: {said!r} at {place:#x}.",
                ],
                remedy="Look at that file, and set the path back (below /proc/sys/kernel).",
            )
