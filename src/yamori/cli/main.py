"""The ``yamori`` command as a process: its streams, Ctrl-C, its end. Imports little, so that Ctrl-C is met early."""

from __future__ import annotations

import signal
import sys

TYPE_CHECKING = False  # `typing` takes a while to import, too
if TYPE_CHECKING:
    from sys import UnraisableHookArgs

INTERRUPTED = 128 + signal.SIGINT
"""Exit code of a shell's command that Ctrl-C ended."""

_AGAIN_SECONDS = 0.01


class _CtrlC:
    """A handler of SIGINT that knows afterwards whether it was called, whatever became of its exception on the way."""

    came = False

    def __call__(self, *_where: object) -> None:
        self.came = True
        raise KeyboardInterrupt


def main() -> None:
    """Run the command and exit; an error is one line and exit code 2, Ctrl-C one line and 130."""
    ctrl_c = _CtrlC()
    try:
        signal.signal(signal.SIGINT, ctrl_c)
        signal.signal(signal.SIGALRM, ctrl_c)
        sys.unraisablehook = _unraisable
        from yamori.cli import streams  # noqa: PLC0415  Ctrl-C may come while modules are imported

        streams.prepare()
        from yamori.cli.app import run  # noqa: PLC0415  as above

        code = run()
    except KeyboardInterrupt:
        ctrl_c.came = True
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    if ctrl_c.came:
        sys.stderr.write("yamori: interrupted\n")
        code = INTERRUPTED
    sys.exit(code)


def _unraisable(lost: UnraisableHookArgs, /) -> None:
    """Interrupt once more, a little later, where Ctrl-C fell into a callback of the interpreter's, which ignores it."""
    if issubclass(lost.exc_type, KeyboardInterrupt):
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)
    else:
        sys.__unraisablehook__(lost)
