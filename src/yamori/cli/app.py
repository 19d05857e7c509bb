"""The ``yamori`` command: what it offers, and what its errors become."""

from __future__ import annotations

import signal
import sys
from typing import Annotated

import typer

from yamori import __version__
from yamori.cli import baseline, export, ids, lab, llview, output, profile
from yamori.cli.check import check, detectors
from yamori.cli.demo import demo
from yamori.cli.doctor import doctor
from yamori.cli.shell import shell
from yamori.cli.streams import ReaderGoneError
from yamori.cli.targets import targets
from yamori.errors import YamoriError

GROUPS = (ids.app, baseline.app, profile.app, export.app, lab.app, llview.app)
COMMANDS = (
    (check, "Examples: yamori check lab:arm64, yamori check qemu:gateway --baseline gateway.toml --json"),
    (detectors, "Example: yamori detectors"),
    (doctor, "Example: yamori doctor lab:arm64"),
    (targets, "Example: yamori targets --json"),
    (demo, "Example: yamori demo arm64"),
    (shell, "Example: yamori shell lab:armv7"),
)


def application(word: str = "") -> typer.Typer:
    """Return the command with all that it offers; or with no more than what ``word`` names, if that is a command.

    To build the others takes longer than to run one.
    """
    app = typer.Typer(
        name="yamori",
        help="Look into a Linux guest from outside: no agent, no debug info, no change to the guest.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        epilog="Examples: yamori lab up armv7, yamori plist, yamori syscall lab:armv7 --json, yamori doctor qemu:1234",
    )
    app.callback()(options)
    for group in GROUPS:
        app.add_typer(group)
    app.registered_commands += ids.app.registered_commands
    for command, epilog in COMMANDS:
        app.command(epilog=epilog)(command)
    groups = [
        group for group in app.registered_groups if group.typer_instance and group.typer_instance.info.name == word
    ]
    commands = [
        command for command in app.registered_commands if command.callback and command.callback.__name__ == word
    ]
    if groups or commands:
        app.registered_groups, app.registered_commands = groups, commands
    return app


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"yamori {__version__}\n")
        raise typer.Exit


def options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Look into a Linux guest from outside: no agent, no debug info, no change to the guest."""
    del version  # its callback has seen to it


WrongUsage: type[Exception] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "UsageError")
"""What an argument that cannot be understood raises; older releases of typer take it from click."""


UNREAD = 128 + signal.SIGPIPE
"""Exit code of a shell's command whose reader went away."""


def run() -> int:
    """Run the command and return its exit code; an error is one line."""
    try:
        try:
            return _completed_or_run()
        finally:
            sys.stdout.flush()  # also what was said before an error
    except ReaderGoneError:
        return UNREAD
    except YamoriError as error:
        return _error(str(error))
    except WrongUsage as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # which has printed the help
            return output.ERROR
        return _error(_message(error))


def _completed_or_run() -> int:
    try:
        return application(sys.argv[1] if len(sys.argv) > 1 else "")(standalone_mode=False) or output.OK
    except SystemExit as ended:  # the shell asked what could be typed next
        return ended.code if isinstance(ended.code, int) else output.OK


def _error(message: str) -> int:
    sys.stderr.write(f"yamori: {output.safe(message)}\n")
    return output.ERROR


def _message(error: Exception) -> str:
    message: str = getattr(error, "format_message", error.__str__)()
    return f"{message.rstrip('.')}; `yamori --help` shows what there is"
