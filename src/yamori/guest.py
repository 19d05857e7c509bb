"""The Python API: open a target, ask it what runs there."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from yamori import targets
from yamori.address import GPA, GVA
from yamori.errors import Fault, NoKernelError, ProfileError, TargetError, YamoriError
from yamori.hypervisors.vm import Commands, Layout, VirtualMachine
from yamori.kernel import sparse
from yamori.kernel.given import Given
from yamori.kernel.init_task import COMM_LENGTH, COMMS
from yamori.kernel.kernel import Kernel
from yamori.kernel.profile import Profile
from yamori.kernel.recall import learn
from yamori.kernel.scan import Progress
from yamori.kernel.store import Store
from yamori.kernel.uts import read_uts
from yamori.llview.language import Probe
from yamori.memory.host import HostMemory
from yamori.memory.physical import forget
from yamori.probes.banner import banner, stated
from yamori.probes.banner_text import parse
from yamori.probes.listings import listing
from yamori.probes.plist import plist
from yamori.probes.run import run_probe
from yamori.probes.syscall import syscall
from yamori.records import Banner, Process, Program, Result, SystemCall

if TYPE_CHECKING:
    from yamori.detectors.baseline import Baseline
    from yamori.detectors.check import Report
    from yamori.detectors.known_trouble import Trouble

STRUCTURES = (
    "task_struct", "signal_struct", "cred", "user_struct", "mm_struct", "list_head", "hlist_head", "hlist_node",
    "file", "dentry", "vfsmount", "mount", "module", "module_memory", "module_kobject", "kobject", "kset",
    "pid", "upid", "pid_namespace", "xarray", "xa_node", "radix_tree_root", "radix_tree_node",
)  # fmt: skip
"""What is taken from a maker's DWARF; reading all of it would take minutes."""


class Guest:
    """A guest whose kernel is known. Use it as a context manager, or call ``close``.

    Attributes:
        vm: What it runs in.
        kernel: Its kernel, for probes of one's own.
    """

    def __init__(
        self, vm: VirtualMachine, memory: HostMemory, kernel: Kernel | Callable[[], Kernel], *, given: bool = True
    ) -> None:
        self.vm = vm
        self._memory = memory
        self._kernel = kernel
        self._given = given

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        known = isinstance(self._kernel, Kernel)
        return f"<Guest {self.vm.target}: {(self.profile.banner if known else '') or 'Linux'}>"

    @property
    def kernel(self) -> Kernel:
        """Its kernel, for probes of one's own; learnt when it is first asked for where that is slow."""
        if not isinstance(self._kernel, Kernel):
            with _named(self.vm):
                self._kernel = self._kernel()
        return self._kernel

    @property
    def release(self) -> str:
        """As ``uname -r``, or empty; the kernel need not be known for it where its hypervisor tells."""
        if self._asked:
            return parse(self._text()).release
        return self.profile.uts.release if self.profile.uts else ""

    @property
    def _asked(self) -> Commands | None:
        """The commands in the hypervisor, as long as the kernel is not known."""
        return None if isinstance(self._kernel, Kernel) else self.vm.commands

    def _text(self) -> str:
        from yamori.exports import rows  # noqa: PLC0415  only a hypervisor with exported commands needs them

        with _named(self.vm):
            return rows.banner(self._asked) if self._asked else self.profile.banner

    @property
    def profile(self) -> Profile:
        """What is known of the guest's kernel."""
        return self.kernel.profile

    def banner(self) -> Result[Banner]:
        """Say what runs in the guest: one row."""
        if self._asked:
            return stated(self._text(), "its hypervisor's `ids banner` says so; nothing else is known of the kernel")
        with _named(self.vm):
            self._check()
            return banner(self.kernel)

    def known_trouble(self, advisories: str | Path | None = None) -> Trouble:
        """Compare the kernel's version and compiler with what is known to be wrong with them.

        Args:
            advisories: A directory of OSV records and OpenVEX statements to compare with, too.
        """
        from yamori.detectors.known_trouble import known_trouble  # noqa: PLC0415  only `banner` needs it

        architecture = "" if self._asked else self.profile.architecture
        return known_trouble(parse(self._text()), architecture, Path(advisories) if advisories else None)

    def syscall(self, table: str = "native") -> Result[SystemCall]:
        """List a system-call table: ``native``, ``compat`` or ``x32``."""
        if self._asked and table == "native":
            from yamori.exports import rows  # noqa: PLC0415  as above

            with _named(self.vm):
                return rows.syscall(self._asked)
        with _named(self.vm):
            self._check()
            return syscall(self.kernel, table=table)

    def plist(self, *, threads: bool = False) -> Result[Process]:
        """List every process; with ``threads`` every thread."""
        if self._asked and not threads:
            from yamori.exports import rows  # noqa: PLC0415  as above

            with _named(self.vm):
                return rows.plist(self._asked)
        with _named(self.vm):
            self._check()
            return plist(self.kernel, threads=threads)

    def programs(self) -> Result[Program]:
        """List every process with its executable and arguments."""
        from yamori.probes.programs import programs  # noqa: PLC0415  rarely asked for

        with _named(self.vm):
            self._check()
            return programs(self.kernel)

    def listing(self, name: str) -> Result[Any]:
        """List what the guest has of a kind: see ``yamori.probes.listings``.

        Args:
            name: Such as ``modules``.
        """
        with _named(self.vm):
            self._check()
            return listing(name)(self.kernel)

    def check(
        self, only: Collection[str] = (), skip: Collection[str] = (), baseline: Path | str | None = None
    ) -> Report:
        """Run the detectors once.

        Args:
            only: Names of those that alone run; none means all.
            skip: Names of those that do not.
            baseline: A file with what the device is meant to run.

        Raises:
            YamoriError: There is no detector of a name, or the baseline cannot be used.
        """
        from yamori.detectors.baseline import read  # noqa: PLC0415  only this needs them
        from yamori.detectors.check import check, chosen  # noqa: PLC0415

        meant = read(Path(baseline)) if baseline is not None else None
        wanted = chosen(only, skip, meant)
        if self._asked and not self._given and not (only or skip or meant):
            from yamori.exports import judged  # noqa: PLC0415  as above

            with _named(self.vm):
                return judged.report(self._asked)
        with _named(self.vm):
            self._check()
            return check(self.kernel, wanted, meant)

    def baseline(self) -> tuple[Baseline, list[str]]:
        """Return what the guest runs now as a baseline, and what could not be told, a sentence each."""
        from yamori.detectors.learning import learned  # noqa: PLC0415  only this needs them
        from yamori.detectors.view import View  # noqa: PLC0415

        with _named(self.vm):
            self._check()
            view = View(self.kernel)
            return learned(view), [*dict.fromkeys(view.lacks)]

    def run(self, probe: Probe, arguments: tuple[int, ...] = ()) -> Result[Any]:
        """Run a probe of one's own.

        Args:
            probe: What ``@probe`` made.
            arguments: One number for each of its parameters behind the kernel.
        """
        with _named(self.vm):
            self._check()
            return run_probe(self.kernel, probe, arguments)

    def _check(self) -> None:
        """Make sure that the VM, and the kernel that is known, are still there."""
        self._memory.check_alive()
        forget(self._memory, renew=True)
        if not _still_there(self.kernel):
            raise TargetError("the guest has rebooted, or its kernel is gone", hint="attach to it again")

    def close(self) -> None:
        """Let go of the guest's memory."""
        self._memory.close()


def _still_there(kernel: Kernel) -> bool:
    """Say whether what is known of a kernel still holds: its name, where it lies, and its page tables.

    A boot of the same kernel at the same place passes, and may: all that is known holds for it, too.
    """
    init, uts = kernel.profile.init, kernel.profile.uts
    try:
        mapped = kernel.space.translate(GVA(init.gva)).gpa
        comm = kernel.memory.read(GPA(init.comm), COMM_LENGTH)
    except Fault:
        return False
    now = read_uts(kernel.memory, uts.gpa) if uts else None
    # The guest's root may rename host and domain.
    same = now is uts or (now and uts and now._replace(nodename=uts.nodename, proved=uts.proved) == uts)
    return bool(same) and mapped == init.gpa and comm in COMMS


def open_guest(
    target: str | None = None,
    *,
    vmlinux: str | Path | None = None,
    symbols: str | Path | None = None,
    ram_base: int | None = None,
    cache: bool = True,
    progress: Progress | None = None,
) -> Guest:
    """Attach to a VM or an image and learn its kernel.

    Args:
        target: Such as ``qemu:/run/vm.sock`` or ``file:memory.raw``; without one, ``$YAMORI_TARGET`` or the only VM.
        vmlinux: The maker's ``vmlinux`` with DWARF or BTF, a profile that was made of it, or a folder of profiles, of
            which that of the kernel is taken.
        symbols: The maker's ``System.map``.
        ram_base: GPA of the first byte of RAM, where nothing on the host tells.
        cache: Whether to use, and to keep, what was learnt in earlier runs; see ``yamori.kernel.recall``.
        progress: Told how much of RAM has been read.

    Raises:
        TargetError: The target cannot be reached.
        NoKernelError: No running Linux kernel was found in it.
        ProfileError: The maker's files are unusable, or of another kernel.
    """
    folder = Path(vmlinux) if vmlinux is not None and Path(vmlinux).is_dir() else None
    given = _given(None if folder else vmlinux, symbols)
    vm = targets.attach(target, ram_base=ram_base)
    with _named(vm):
        if not vm.layouts:
            raise TargetError(vm.lacks[0] if vm.lacks else "its RAM cannot be reached")
        return _open_best(vm, _Maker(given, folder), Store.usual(wanted=cache), progress)


@contextmanager
def _named(vm: VirtualMachine) -> Iterator[None]:
    """Let errors name the target as the user did, not what it is to the host; a file that holds its RAM comes behind.

    Such a file is worth naming where the target does not: it may be what has the wrong owner, or was cut short.
    """
    try:
        yield
    except (NoKernelError, TargetError) as error:
        file = error.where
        if file and not file.startswith(("/proc/", "process ")) and file not in vm.target:
            error.message += f" ({file})"
        error.where = vm.target
        if isinstance(error, NoKernelError) and vm.pid is None and not vm.slow:
            error.hint = "is it the whole RAM of a Linux guest, not cut short, and --ram-base right?"
        raise


def _given(vmlinux: str | Path | None, symbols: str | Path | None) -> Given:
    if vmlinux is None and symbols is None:
        return Given()
    from yamori.kernel import dwarf, portable, systemmap  # noqa: PLC0415  rarely needed, and slow to import

    if vmlinux is not None and symbols is None and portable.is_profile(Path(vmlinux)):
        return portable.load(Path(vmlinux)).given(str(vmlinux))
    image = dwarf.load_vmlinux(vmlinux, STRUCTURES) if vmlinux is not None else None
    table = systemmap.load(symbols) if symbols is not None else None
    return Given(
        symbols=table or (image.symbols if image else None),
        types=image.types if image else None,
        build_id=(image.build.build_id or "") if image else "",
        source=str(vmlinux or symbols),
        banner=(image.build.banner or "") if image else "",
    )


class _Maker(NamedTuple):
    """What the maker of the kernel gives, and a folder with the profiles of several."""

    given: Given
    folder: Path | None


def _open_best(vm: VirtualMachine, maker: _Maker, store: Store, progress: Progress | None) -> Guest:
    """Open the VM with the first RAM layout under which its processes can be listed whole.

    Where none is flawless (a hostile guest, a list in motion), the one with the most processes is taken.
    """
    best: Guest | None = None
    most = (False, -1)
    failure: YamoriError | None = None
    try:
        for layout in vm.layouts:
            try:
                guest = _open(vm, layout, maker, store, progress)
            except (NoKernelError, TargetError) as error:
                failure = failure or error
                continue
            if len(vm.layouts) == 1:
                return guest
            rank = _rank(guest)
            best, loser, most = (guest, best, rank) if rank > most else (best, guest, most)
            if loser:
                loser.close()
            if most[0]:
                break
    except BaseException:
        if best:
            best.close()
        raise
    if best is None:
        raise failure or NoKernelError("it has no RAM")
    return best


def _open(vm: VirtualMachine, layout: Layout, maker: _Maker, store: Store, progress: Progress | None) -> Guest:
    memory = HostMemory(layout, pid=vm.pid)
    if vm.slow:
        return _open_slow(vm, memory, maker.given, progress)
    subject = repr((vm.target, vm.name, memory.regions))
    learnt = partial(learn, memory, base_known=vm.base_known, progress=progress, store=store, subject=subject)
    try:
        kernel = learnt(maker.given)
        if maker.folder:
            kernel = learnt(_of_folder(maker.folder, kernel.profile))
        return Guest(vm, memory, kernel)
    except BaseException:
        memory.close()
        raise


def _of_folder(folder: Path, profile: Profile) -> Given:
    from yamori.kernel.profiles import of_kernel  # noqa: PLC0415  rarely needed

    if found := of_kernel(folder, profile):
        return found
    kernel = f"{profile.uts.release} {profile.uts.version}" if profile.uts else "a kernel of which nothing is known"
    hint = "`yamori profile build` makes one of its vmlinux; without --vmlinux, memory alone is asked"
    raise ProfileError(f"no profile of the kernel that runs is there: {kernel}", where=str(folder), hint=hint)


def _open_slow(vm: VirtualMachine, memory: HostMemory, given: Given, progress: Progress | None) -> Guest:
    """Open a guest whose RAM cannot be read whole; with commands in its hypervisor, its kernel is learnt late."""
    learnt = partial(sparse.attach, memory, given, progress)
    try:
        return Guest(vm, memory, learnt if vm.commands else learnt(), given=given.symbols is not None)
    except BaseException:
        memory.close()
        raise


def _rank(guest: Guest) -> tuple[bool, int]:
    """Return whether all processes can be listed, and how many; none where a layout of the kernel's is not known."""
    try:
        result = guest.plist()
    except YamoriError:
        return False, 0
    return result.complete and len(result) > 0, len(result)
