"""``yamori lab``: boot stock test devices, look into them, end them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import to_builtins

from yamori.cli import output
from yamori.cli.output import AsJson
from yamori.errors import LabError
from yamori.lab.devices import DEVICES
from yamori.records import SCHEMA

if TYPE_CHECKING:
    from yamori.lab import Machine

app = typer.Typer(
    name="lab",
    help="Boot stock test devices (real Debian kernels in QEMU), look into them, end them.",
    epilog="Examples: yamori lab up arm64 --name gateway, yamori lab exec gateway -- ps, yamori lab down --all",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The device VM's name, see `yamori lab list`.")]


@app.command(epilog="Example: yamori lab up armv7 --name sensor --memory 128M")
def up(  # noqa: PLR0917  every option of a typer command is a parameter
    device: Annotated[str, typer.Argument(help=f"One of {', '.join(DEVICES)}.")],
    name: Annotated[str | None, typer.Option(help="What to call it; the device's name unless given.")] = None,
    memory: Annotated[str | None, typer.Option(help="RAM, such as 256M or 1G.")] = None,
    smp: Annotated[int, typer.Option(min=1, max=16, help="Number of vCPUs.")] = 1,
    kernel: Annotated[Path | None, typer.Option(help="A kernel to boot instead of Debian's.")] = None,
    initrd: Annotated[Path | None, typer.Option(help="An initrd with a root shell on the serial console.")] = None,
    append: Annotated[str, typer.Option(help="Words to add to the kernel's command line.")] = "",
    ram: Annotated[str, typer.Option(help="Where QEMU keeps the RAM: memfd, file or private.")] = "memfd",
    cpu: Annotated[str, typer.Option(help="QEMU's -cpu; the device's own unless given.")] = "",
    suite: Annotated[str | None, typer.Option(help="Debian suite of the kernel, such as bullseye or sid.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds that booting may take.")] = 180,
) -> None:
    """Boot a device and return when its shell answers; it keeps running.

    The first time, its kernel and busybox are fetched through apt.
    """
    from yamori import lab  # noqa: PLC0415  `yamori --help` need not wait for it
    from yamori.lab.qemu import ram_kind  # noqa: PLC0415

    start = time.monotonic()
    with progress(device) as report:
        vm = lab.up(
            device,
            name,
            memory=memory,
            smp=smp,
            kernel=kernel,
            initrd=initrd,
            append=append,
            ram=ram_kind(ram),
            cpu=cpu,
            suite=suite,
            timeout=timeout,
            progress=report,
        )
    sys.stdout.write(f"{vm.target} is up after {time.monotonic() - start:.1f} s\n")


@app.command("list", epilog="Example: yamori lab list --json")
def list_(*, as_json: AsJson = False) -> None:
    """List the devices that run."""
    from yamori import lab  # noqa: PLC0415  `yamori --help` need not wait for it

    living = lab.running()
    if as_json:
        rows = [{"target": vm.target, **to_builtins(vm.record)} for vm in living]
        output.print_json({"schema": SCHEMA, "command": "lab list", "rows": rows})
        return
    if not living:
        sys.stdout.write("no lab device is running; start one with `yamori lab up DEVICE`\n")
        return
    sides = {"target": "left", "device": "left", "pid": "right", "memory": "right", "vCPUs": "right", "kernel": "left"}
    output.print_table(sides, (_cells(vm) for vm in living))


@app.command(
    "exec",
    epilog="Example: yamori lab exec armv7 -- ps",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
def exec_(
    name: Name,
    command: Annotated[list[str], typer.Argument(metavar="CMD...", help="A program of the guest, and its arguments.")],
    timeout: Annotated[float, typer.Option(help="Seconds that the command may take.")] = 600,
) -> None:
    """Run a command in a device, as root; print what it prints and exit with its status."""
    from yamori import lab  # noqa: PLC0415  `yamori --help` need not wait for it

    words = command[1:] if command[0] == "--" else command
    if not words:
        raise LabError("say what to run", where=f"lab exec {name}", hint=f"for instance: yamori lab exec {name} -- ps")
    result = lab.find(name).run(words[0] if len(words) == 1 else words, timeout)
    _show(result.output)
    raise typer.Exit(result.status)


@app.command(epilog="Example: yamori lab shell armv7")
def shell(name: Name) -> None:
    """Type at a device's console by hand; Ctrl-] leaves."""
    from yamori import lab  # noqa: PLC0415  `yamori --help` need not wait for it

    vm = lab.find(name)
    with vm.console() as console:
        console.bridge()
    sys.stderr.write("\n")


@app.command(epilog="Examples: yamori lab down armv7, yamori lab down --all")
def down(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Which device.")] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
) -> None:
    """End a device, or all of them."""
    from yamori import lab  # noqa: PLC0415  `yamori --help` need not wait for it

    if (name is None) != everything:
        raise LabError("say which device to end", where="lab down", hint="give either a NAME or --all")
    ended = lab.running() if name is None else [lab.find(name)]
    for vm in ended:
        vm.down()
        sys.stdout.write(f"{vm.target} has ended\n")


def _cells(vm: Machine) -> tuple[str, ...]:
    record = vm.record
    kernel = Path(record.kernel).name
    return vm.target, record.device, str(record.pid), f"{record.memory} MiB", str(record.smp), kernel


@contextmanager
def progress(device: str) -> Iterator[Callable[[str], None]]:
    """Show the present stage and the time so far, if somebody watches."""
    if not sys.stderr.isatty():
        yield lambda _stage: None
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415  slow to import

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=output.stderr(), transient=True) as display:
        task = display.add_task(device)
        yield lambda stage: display.update(task, description=f"{device}: {stage}")


def _show(output: str) -> None:
    """Print what a guest printed: as it is into a file or pipe, made harmless for a terminal."""
    if sys.stdout.isatty():
        output = "".join(
            char if char.isprintable() or char in "\n\t" else f"\\x{ord(char) & 0xFF:02x}" for char in output
        )
    sys.stdout.flush()
    sys.stdout.buffer.write(output.encode("utf-8", "surrogateescape"))
    sys.stdout.buffer.flush()


@app.command(epilog="Example: yamori lab attacks")
def attacks(*, as_json: AsJson = False) -> None:
    """List the attacks that detectors are tried with."""
    from yamori.lab.attacks import attacks as every  # noqa: PLC0415  as above

    rows = [
        {"name": one.name, "technique": one.technique, "detector": one.detector, "title": one.title}
        for one in every().values()
    ]
    if as_json:
        output.print_json({"schema": SCHEMA, "command": "lab attacks", "rows": rows})
    else:
        output.print_table(dict.fromkeys(rows[0], "left"), (tuple(row.values()) for row in rows))


@app.command(
    epilog="Examples: yamori lab attack gateway hidden-process, yamori lab attack gateway hidden-process --undo"
)
def attack(
    name: Name,
    which: Annotated[str, typer.Argument(metavar="ATTACK", help="See `yamori lab attacks`.")],
    *,
    undo: Annotated[bool, typer.Option("--undo", help="Take it back.")] = False,
) -> None:
    """Attack a device of the lab, as an intruder with root in it would, and say what the guest itself sees of it.

    An attack does no more than its detector has to see, and refuses to run anywhere but in a guest of the lab.
    """
    from yamori import lab  # noqa: PLC0415  as above
    from yamori.lab import attacks as fixtures  # noqa: PLC0415

    machine = lab.find(name)
    if undo:
        fixtures.undo(machine, which)
        sys.stdout.write(f"{which} is undone in {machine.target}\n")
        return
    with progress(which) as report:
        effect = fixtures.attack(machine, which, report)
    sys.stdout.write(f"{effect.subject}: {output.safe(effect.proof)}\n")
    sys.stdout.write(f"now: yamori check {machine.target}\n")
