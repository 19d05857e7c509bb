"""``yamori profile``: what is known of a kernel, made into a file, shown, and given to other tools."""

from __future__ import annotations

import lzma
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from yamori.cli import output
from yamori.cli.files import Force, write
from yamori.cli.output import AsJson, RamBase, safe
from yamori.errors import ProfileError, YamoriError
from yamori.records import SCHEMA

if TYPE_CHECKING:
    from yamori.kernel.kernel import Kernel
    from yamori.kernel.portable import Portable

app = typer.Typer(
    name="profile",
    help="Profiles of kernels: make one of a vmlinux, import and export those of other tools.",
    epilog="Examples: yamori profile build --vmlinux vmlinux -o gateway.profile, yamori profile show lab:arm64",
    no_args_is_help=True,
)


class Format(StrEnum):
    """What a profile can be written as."""

    YAMORI = "yamori"
    ISF = "isf"
    VMCOREINFO = "vmcoreinfo"


Out = Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to; - is standard output.")]
Source = Annotated[
    str, typer.Argument(metavar="FILE|TARGET", help="A profile, ISF or BTF file, or a guest (see `yamori targets`).")
]


@app.command(epilog="Example: yamori profile build --vmlinux vmlinux --system-map System.map -o gateway.profile")
def build(
    *,
    vmlinux: Annotated[Path | None, typer.Option(metavar="FILE", help="With DWARF or BTF.")] = None,
    system_map: Annotated[Path | None, typer.Option(metavar="FILE", help="System.map of the same build.")] = None,
    struct: Annotated[
        list[str] | None, typer.Option("--struct", metavar="NAME", help="Another structure wanted from DWARF.")
    ] = None,
    out: Out = None,
    force: Force = False,
) -> None:
    """Make a profile of what a kernel's build leaves behind."""
    from yamori.kernel import portable, systemmap  # noqa: PLC0415  `yamori --help` need not wait for them

    if vmlinux is None and system_map is None:
        raise typer.BadParameter("nothing to build from: give --vmlinux, --system-map, or both")
    with output.waiting(f"reading {safe(str(vmlinux))}"):
        made = portable.of_vmlinux(vmlinux, struct or ()) if vmlinux else portable.Portable(provenance="system.map")
    if system_map:
        symbols = systemmap.load(system_map)
        made.word_size = 8 if any(row.address >> 32 for row in symbols) else 4
        made.put_symbols(symbols)
    first = vmlinux or system_map
    write(portable.dumps(made), out or Path(f"{first.name if first else ''}.profile"), force=force)


@app.command("import", epilog="Example: yamori profile import vmlinux.json.xz -o gateway.profile")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="ISF of Volatility 3, or raw BTF.")],
    *,
    out: Out = None,
    force: Force = False,
) -> None:
    """Make a profile of another tool's: ISF of Volatility 3, or a copy of /sys/kernel/btf/vmlinux."""
    from yamori.kernel import portable  # noqa: PLC0415  `yamori --help` need not wait for it

    write(portable.dumps(portable.of_file(file)), out or Path(f"{file.name}.profile"), force=force)


@app.command(epilog="Examples: yamori profile show gateway.profile task_struct.mm, yamori profile show lab:arm64 cred")
def show(
    source: Source,
    members: Annotated[list[str] | None, typer.Argument(metavar="[STRUCT[.MEMBER]]...")] = None,
    *,
    ram_base: RamBase = None,
    as_json: AsJson = False,
) -> None:
    """Say what a profile, or a running kernel, is known to be: its build, its symbols, where members lie."""
    known = _known(source, ram_base)
    types, symbols = known.types(), known.symbols()
    about: dict[str, object] = {
        "banner": known.banner,
        "build_id": known.build_id,
        "architecture": known.architecture,
        "word_size": known.word_size,
        "types": len(types) if types else 0,
        "types_from": known.provenance if types else "",
        "symbols": len(symbols) if symbols else 0,
    }
    rows = [row for name in members or () for row in _members(known, name)]
    if as_json:
        fields = ("member", "offset", "size", "type")
        shown = [dict(zip(fields, row, strict=True)) for row in rows]
        output.print_json({"schema": SCHEMA, "command": "profile show", "source": source, **about, "rows": shown})
        return
    for name, value in about.items():
        sys.stdout.write(f"{name.replace('_', ' '):13} {safe(str(value)) or 'not known'}\n")
    if rows:
        sys.stdout.write("\n")
        headings = {"member": "left", "offset": "right", "bytes": "right", "type": "left"}
        output.print_table(headings, iter(tuple(map(str, row)) for row in rows))


def _members(known: Portable, name: str) -> list[tuple[str, int, int, str]]:
    """Return (name, offset, bytes, type) of a structure's members, or of the one that is named."""
    types = known.types()
    owner, _, path = name.partition(".")
    size = types.size(owner) if types else None
    if types is None or size is None:
        raise ProfileError(f"it has no structure {owner}", hint="`--struct` of `profile build` takes more from DWARF")
    graph, kind = types.graph, types.graph.find(owner)
    rows = []
    for member in [path] if path else graph.members(kind) if kind else []:
        place = types.member(owner, member)
        if place is None:
            if path:
                raise ProfileError(f"{owner} has no member {path}", hint=f"`yamori profile show … {owner}` lists them")
            continue
        field = graph.field(kind, member) if kind else None
        rows.append((f"{owner}.{member}", place.offset, place.size, field.type.name if field else ""))
    return rows


@app.command(epilog="Example: yamori profile export lab:arm64 --format isf -o arm64.json.xz")
def export(
    source: Source,
    *,
    to: Annotated[Format, typer.Option("--format", help="For Yamori, Volatility 3 or drgn.")] = Format.YAMORI,
    ram_base: RamBase = None,
    out: Out = None,
    force: Force = False,
) -> None:
    """Write what is known of a kernel for another tool; with a TARGET, of the kernel that runs there."""
    from yamori.kernel import isf, portable  # noqa: PLC0415  `yamori --help` need not wait for them

    if to is Format.VMCOREINFO:
        data, ending = _vmcoreinfo(source, ram_base), "vmcoreinfo"
    else:
        known = _known(source, ram_base)
        if to is Format.ISF:
            data, ending = isf.dumps(known.types(), known.symbols(), known.banner, known.word_size), "json"
            if out is None or out.suffix == ".xz":
                data, ending = lzma.compress(data, preset=1), "json.xz"
        else:
            data, ending = portable.dumps(known), "profile"
    name = Path(source).name.replace(":", "-")
    write(data, out or Path(f"{name}.{ending}"), force=force)


def _is_target(source: str) -> bool:
    return ":" in source and not Path(source).exists()


def _known(source: str, ram_base: int | None) -> Portable:
    from yamori.kernel import portable  # noqa: PLC0415  `yamori --help` need not wait for it

    if not _is_target(source):
        return portable.of_file(Path(source))
    with output.opened(source, None, None, ram_base) as guest:
        return portable.of_profile(guest.profile, _tables(guest.kernel))


def _tables(kernel: Kernel) -> dict[str, int]:
    """Return where the system-call table lies, which costs a search where no symbol tells."""
    from yamori.probes.syscall import find_table  # noqa: PLC0415  as above

    try:
        return {"sys_call_table": find_table(kernel, "native").gva}
    except YamoriError:
        return {}


def _vmcoreinfo(source: str, ram_base: int | None) -> bytes:
    """Return the kernel's own VMCOREINFO, or one that says what is known where it has none."""
    from yamori.kernel import vmcoreinfo_writer  # noqa: PLC0415  as above

    if not _is_target(source):
        raise ProfileError("only a running kernel has addresses to tell", where=source, hint="name a TARGET")
    with output.opened(source, None, None, ram_base) as guest:
        return vmcoreinfo_writer.text(guest.profile).encode()
