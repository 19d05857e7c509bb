"""What inference states of a kernel's layout, and where debug info has the same."""

from __future__ import annotations

from yamori.kernel.types import Member, Provenance, Types

STILL_BOOTING = "the guest is still booting: there is no user process yet"
"""Why members are not known where ``InferredTypes.booting``."""

IDS = ("uid", "gid", "suid", "sgid", "euid", "egid", "fsuid", "fsgid")

STATED = {
    "task_struct": (
        "__state", "state", "stack", "flags", "tasks", "mm", "active_mm", "exit_state", "exit_code", "exit_signal",
        "pid", "tgid", "real_parent", "parent", "children", "sibling", "group_leader", "thread_group", "thread_node",
        "start_time", "start_boottime", "real_start_time", "real_start_time.tv_sec", "real_start_time.tv_nsec",
        "real_cred", "cred", "comm", "signal",
    ),
    "cred": ("usage.counter", *IDS),
    "signal_struct": ("thread_head",),
    "mm_struct": ("pgd",),
}  # fmt: skip
"""What inference looks for, under all names that it has had."""


class InferredTypes:
    """Layouts found by inference.

    Attributes:
        members: (structure, member) → where it lies.
        unknown: What was looked for and not found, with the reason.
        processes: How many processes the invariants were tried on.
        booting: Nothing but the kernel's own threads is there, or not even those: see ``STILL_BOOTING``.
    """

    provenance: Provenance = "inferred"

    def __init__(self) -> None:
        self.members: dict[tuple[str, str], Member] = {}
        self.unknown: dict[str, str] = {}
        self.processes = 0
        self.booting = False

    def member(self, struct: str, path: str) -> Member | None:
        """Return where ``path`` lies in ``struct``, or ``None``."""
        return self.members.get((struct, path))

    def size(self, struct: str) -> int | None:  # noqa: ARG002  # the protocol's parameter
        """Sizes are not inferred."""
        return None

    def disagreements(self, types: Types) -> str:
        """Return the members that ``types`` has elsewhere, as words; empty if there are none."""
        wrong = (
            f"{struct}.{path}"
            for (struct, path), member in self.members.items()
            if (other := types.member(struct, path)) and other.offset != member.offset
        )
        return ", ".join(wrong)


def offsets(types: Types) -> set[int]:
    """Return at which offsets ``types`` has what inference looks for."""
    members = (types.member(struct, path) for struct, paths in STATED.items() for path in paths)
    return {member.offset for member in members if member}
