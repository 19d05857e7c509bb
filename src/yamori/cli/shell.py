"""``yamori shell``: a prompt with the guest's kernel at hand."""

from __future__ import annotations

import importlib
import pkgutil
import signal
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from yamori.cli import output
from yamori.cli.output import NoCache, RamBase, SystemMap, Target, Vmlinux, safe

if TYPE_CHECKING:
    from yamori.guest import Guest
    from yamori.llview.language import Helper

HELP = """\
kernel       its variables: kernel.init_task.comm
guest        guest.plist(), guest.run(probe), guest.profile
{helpers}
at("struct mm_struct", address), cast("struct file *", number), sizeof("pid_t"), address_of(thing)
Members load when you ask for them; names complete. Ctrl-D leaves.
"""


def shell(
    target: Target = None,
    *,
    vmlinux: Vmlinux = None,
    symbols: SystemMap = None,
    ram_base: RamBase = None,
    no_cache: NoCache = False,
) -> None:
    """Open a Python prompt with the guest's kernel at hand, as in `kernel.init_task.comm`.

    Helpers can be called: `for task in for_each_task(kernel): print(task.pid, task.comm)`. Piped commands run, too.
    IPython is used where it is installed.
    """
    from yamori.cli.prompt import interact  # noqa: PLC0415  `yamori --help` need not wait for them
    from yamori.llview.language import Helper  # noqa: PLC0415

    with output.opened(target, vmlinux, symbols, ram_base, cache=not no_cache) as guest:
        names = namespace(guest)
        Helper.call_hook = names.pop("call")
        signal.signal(signal.SIGINT, signal.default_int_handler)  # Ctrl-C ends a line of the prompt, not the command
        sys.path.insert(0, "")
        try:
            interact(names, _welcome(guest, names))
        finally:
            sys.path.remove("")
            Helper.call_hook = None


def namespace(guest: Guest) -> dict[str, Any]:
    """Return the names of the prompt; ``call`` is what a call of a helper does."""
    from yamori import probes  # noqa: PLC0415  `yamori --help` need not wait for them
    from yamori.llview import structures  # noqa: PLC0415
    from yamori.llview.language import NULL  # noqa: PLC0415
    from yamori.probes.live import LiveKernel, Session, structure  # noqa: PLC0415
    from yamori.probes.live_calls import call  # noqa: PLC0415

    session = Session(guest.kernel)

    def called(helper: Helper[Any, Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        result = call(session, helper, arguments, named)
        for reason in result.reasons:
            sys.stderr.write(f"incomplete: {safe(reason)}\n")
        return result.value

    modules = (*_modules(structures), *_modules(probes))
    names = {name: thing for module in modules for name, thing in vars(module).items() if _is_word(thing)}
    own = {"kernel": LiveKernel(session), "guest": guest, "NULL": NULL, "address_of": int}
    types = {"at": session.at, "cast": session.cast, "sizeof": session.sizeof, "structure": structure}
    return {**names, **own, **types, "call": called}


def _is_word(thing: object) -> bool:
    """Say whether something is a helper or a structure."""
    from yamori.llview.language import Helper, Struct  # noqa: PLC0415  `yamori --help` need not wait for them

    return isinstance(thing, Helper) or (isinstance(thing, type) and issubclass(thing, Struct) and thing is not Struct)


def _modules(package: ModuleType) -> list[ModuleType]:
    return [
        importlib.import_module(info.name) for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
    ]


def _welcome(guest: Guest, names: dict[str, Any]) -> str:
    from yamori.llview.language import Helper  # noqa: PLC0415  `yamori --help` need not wait for it

    helpers = sorted(name for name, thing in names.items() if isinstance(thing, Helper) and name.startswith("for_each"))
    listed = f"helpers      {', '.join(helpers)}, ..."
    return f"{safe(guest.profile.banner or 'Linux')}\n{HELP.format(helpers=listed)}"
