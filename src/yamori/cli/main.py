"""The ``yamori`` command."""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

from yamori import __version__
from yamori.cli import ids, lab, output
from yamori.cli.demo import demo
from yamori.cli.doctor import doctor
from yamori.cli.targets import targets
from yamori.errors import YamoriError

app = typer.Typer(
    name="yamori",
    help="Look into a Linux guest from outside: no agent, no debug info, no change to the guest.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog="Examples: yamori lab up armv7, yamori plist, yamori syscall lab:armv7 --json, yamori doctor qemu:gateway",
)
app.add_typer(ids.app)
app.add_typer(lab.app)
for command in ids.app.registered_commands:
    app.registered_commands.append(command)
app.command(epilog="Example: yamori doctor lab:arm64")(doctor)
app.command(epilog="Example: yamori targets --json")(targets)
app.command(epilog="Example: yamori demo arm64")(demo)


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"yamori {__version__}\n")
        raise typer.Exit


@app.callback()
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


def main() -> None:
    """Run the command; an error is one line and exit code 2."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that cannot show the branches of a tree
    try:
        sys.exit(app(standalone_mode=False))
    except YamoriError as error:
        sys.stderr.write(f"yamori: {output.safe(str(error))}\n")
        sys.exit(output.ERROR)
    except WrongUsage as error:
        if type(error).__name__ != "NoArgsIsHelpError":  # which has printed the help
            sys.stderr.write(f"yamori: {output.safe(_message(error))}\n")
        sys.exit(output.ERROR)
    except (KeyboardInterrupt, typer.Abort):
        sys.stderr.write("yamori: interrupted\n")
        sys.exit(130)
    except BrokenPipeError:  # the reader, as in `yamori plist | head`, has seen enough
        sys.stderr.close()
        sys.exit(0)


def _message(error: Exception) -> str:
    message: str = getattr(error, "format_message", error.__str__)()
    return f"{message.rstrip('.')}; `yamori --help` shows what there is"
