"""Programs that pass for threads of the kernel."""

from __future__ import annotations

from collections.abc import Iterator

from yamori.detectors.detector import detector
from yamori.detectors.view import View
from yamori.records import Finding


@detector(
    title="Programs that pass for kernel threads",
    needs="the list of tasks and where the kernel keeps a program's executable",
    misses="a name that is only like that of a kernel thread",
    attack=["T1036.004", "T1036.009"],
)
def kernel_thread_names(view: View) -> Iterator[Finding]:
    """Look for programs that have a kernel thread's name, or brackets around theirs."""
    rows = view.programs()
    kernel = {row.comm for row in rows if row.kthread}
    families = {name.partition("/")[0] for name in kernel if "/" in name}
    for row in rows:
        if row.kthread or row.executable is None:
            continue
        said = (row.arguments or "").partition(" ")[0]
        names = {row.comm, said.strip("[]")} if said.startswith("[") else {row.comm}
        like = sorted(name for name in names if name in kernel or (name.partition("/")[0] in families and "/" in name))
        bracketed = (said.startswith("[") and said.endswith("]")) or row.comm.startswith("[")
        if like or bracketed:
            called = said if bracketed else row.comm
            yield Finding(
                subject=f"process {row.pid}",
                severity="high",
                confidence="certain" if like and bracketed else "likely",
                title=f"Process {row.pid} passes for a kernel thread ({row.comm})",
                why=[
                    "Expected: only the kernel's own threads have such names, and they have no memory of their own.",
                    f"Found: a program, {row.executable}, that calls itself {called!r}, as uid {row.uid}.",
                ],
                remedy="Look at its executable, files and connections; a service of the device does not hide its name.",
            )
