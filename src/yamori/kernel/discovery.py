"""From RAM to a kernel: one streaming pass, then everything found is held against everything else."""

from __future__ import annotations

import time
from bisect import bisect
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain

from yamori.address import GPA, GVA
from yamori.errors import NoKernelError, ProfileError
from yamori.kernel import btf, kallsyms, vmcoreinfo
from yamori.kernel import init_task as first_task
from yamori.kernel import uts as names
from yamori.kernel.accounts import accounts
from yamori.kernel.btf import BtfTypes
from yamori.kernel.deferred import Deferred
from yamori.kernel.functions import Functions
from yamori.kernel.given import Given, link_slide, of_another_kernel
from yamori.kernel.inference import infer
from yamori.kernel.inferred import InferredTypes, offsets
from yamori.kernel.init_task import InitTask
from yamori.kernel.kernel import Kernel
from yamori.kernel.memo import Memo
from yamori.kernel.modules import modules
from yamori.kernel.profile import Profile, Step
from yamori.kernel.programs import programs
from yamori.kernel.rambase import Rebased, find_base
from yamori.kernel.ranking import ranked, spoken_for
from yamori.kernel.root import Anchor, Evidence, Named, Root, find_root, image_tables, init_mm_tables, search_root
from yamori.kernel.scan import Progress, scan
from yamori.kernel.symbols import Symbols
from yamori.kernel.types import Member, Types
from yamori.kernel.uts import Uts
from yamori.kernel.variables import Variables
from yamori.kernel.vmcoreinfo import VmCoreInfo
from yamori.memory.physical import PhysicalMemory, read_some
from yamori.translation.space import AddressSpace

NEEDLES = {
    "banner": names.BANNER,
    "uts": names.NEEDLE,
    "init_task": first_task.NEEDLE,
    "kallsyms": kallsyms.NEEDLE[:-1],  # searching for something that does not end in NUL is five times faster
    "plain kallsyms": kallsyms.PLAIN_NEEDLE,
    "vmcoreinfo": vmcoreinfo.NEEDLE,
    "btf": btf.MAGIC,
}
ROOT_NAMES = ("swapper_pg_dir", "init_top_pgt", "init_level4_pgt")
"""``init_mm.pgd``: everywhere; on x86-64 since 4.13 (65ade2f872b4) and before."""

MOST_LOOKED_AT = 1024
"""Sightings of one kind that are looked at, the nearest to a likely ``init_task``: natural decoys are up to 17, and
what the kernel holds itself lies in its image. But so does what it has freed of it, some hundred pages that a program
may get and fill."""

LONGEST_LOOK = 3.0
"""Seconds for which tables of kallsyms are looked for: a guest can make each cost up to a second."""

PATIENCE = 30.0
"""Seconds for which candidates for ``init_task`` are held against the roots that symbols name. A program can plant any
number; the likely ones come first."""

GRACE = 1.0
"""Seconds for which the others are still tried once one was proved: a second kernel would be worth a word."""

MOST_LED = 16
"""Candidates around which ``init_mm`` is looked for, at about a tenth of a second each."""

MOST_SEARCHED = 2
"""Candidates for which the whole image is searched for a root where nothing leads to one: it takes seconds for each."""

NO_TABLES = "no Linux kernel is running yet: init_task is there, but no page tables that lead to it"


def discover(
    memory: PhysicalMemory, given: Given | None = None, *, base_known: bool = True, progress: Progress | None = None
) -> Kernel:
    """Find the running kernel in ``memory`` and learn what the commands need of it.

    Args:
        memory: The guest's RAM.
        given: What the maker gives; the guest's own memory is asked for the rest.
        base_known: False where the memory's addresses count from 0 because nobody knows the RAM base.
        progress: Told how much of RAM has been read.

    Raises:
        NoKernelError: Nothing that can be proved to be a running Linux kernel is there.
        ProfileError: What the maker gives is of another kernel.
    """
    return Discovery(memory, given or Given()).run(base_known=base_known, progress=progress)


class _Outcome:
    """What one step found; the step fills it in."""

    found, where, confidence = "nothing", "", "missing"

    def __call__(self, found: str, where: str, confidence: str) -> None:
        self.found, self.where, self.confidence = found, where, confidence


@dataclass
class Discovery:
    """One discovery under way: what is known so far, and the steps that learn more.

    Attributes:
        memory: The guest's RAM.
        given: What the maker gives.
        memo: What earlier discoveries decoded.
        likely: Offsets at which alone members are looked for by inference; none looks at all.
        root: What the root is thought to be besides what names it.
        searching: Whether the whole image is searched for a root where nothing leads to one.
        base: GPA of the first byte of RAM, where the page tables told it.
        places: Where things were seen.
        tables: The tables of kallsyms that are sound.
        trusted: Those that the page tables speak for.
        doubts: What does not agree.
    """

    memory: PhysicalMemory
    given: Given
    memo: Memo = field(default_factory=Memo)
    likely: Collection[int] = ()
    root: Named | None = None
    searching: bool = True
    base: int | None = None
    places: dict[str, list[int]] = field(default_factory=dict)
    candidates: list[InitTask] = field(default_factory=list)
    tables: list[kallsyms.Tables] = field(default_factory=list)
    infos: list[VmCoreInfo] = field(default_factory=list)
    decoded: dict[tuple[kallsyms.Tables, int], Symbols | None] = field(default_factory=dict)
    symbols: Symbols | None = None
    trusted: kallsyms.Tables | None = None
    btf: BtfTypes | None = None
    found: tuple[InitTask, Root] | None = None
    steps: list[Step] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)

    def run(self, *, base_known: bool, progress: Progress | None) -> Kernel:
        """Look through all of RAM, and learn; see ``discover``."""
        self.look(progress)
        if not base_known:
            self.find_base()
        self.find_root()
        return self.conclude()

    def doubt(self, what: str) -> None:
        """Note once what does not agree."""
        if what not in self.doubts:
            self.doubts.append(what)

    @contextmanager
    def step(self, name: str) -> Iterator[_Outcome]:
        """Time a step and note what it found."""
        outcome = _Outcome()
        started = time.perf_counter()
        yield outcome
        seconds = time.perf_counter() - started
        self.steps.append(Step(name, outcome.found, outcome.where, outcome.confidence, seconds))

    def look(self, progress: Progress | None) -> None:
        """Scan RAM and sort out the natural decoys."""
        with self.step("scan of RAM") as outcome:
            sightings = scan(self.memory, NEEDLES, progress)
            self.places = {name: places.tolist() for name, places in sightings.places.items()}
            size = sum(region.size for region in self.memory.regions)
            first = self.memory.regions[0].gpa if self.memory.regions else 0
            read = f"{sightings.bytes_read >> 20} of {size >> 20} MB hold something"
            outcome(read, f"GPA {first:#x}", "proved")
        for name in sorted(sightings.flooded):
            self.doubt(f"RAM is full of what looks like {name}: somebody may be planting decoys")
        if sightings.bytes_lost:
            self.doubt(f"{sightings.bytes_lost >> 10} KB of RAM could not be read")
        self.sort_out()
        if not self.candidates:
            if first_task.is_shuffled(self.memory, self.places["init_task"]):
                raise ProfileError(SHUFFLED, hint="nothing of such a kernel is guessed, and it is not supported yet")
            why = "; ".join([self._why_none(sightings.bytes_read), *self.doubts])
            raise NoKernelError(why, hint="if the VM is still booting, try again")

    def sort_out(self) -> None:
        """Tell what is sound of what was seen."""
        memory, places = self.memory, self.places
        candidates = dict.fromkeys(first_task.candidates(memory, places["init_task"], self.doubt))
        # Before anything is left out: of many copies, only the true one's pointers lead to its init_uts_ns.
        likely = sorted(spoken_for(memory, list(candidates), places["uts"]), key=lambda init: init.comm)
        for sightings in places.values():
            if len(sightings) > MOST_LOOKED_AT:
                sightings.sort(key=partial(_distance, likely))
                del sightings[MOST_LOOKED_AT:]
        with self.step("VMCOREINFO") as outcome:
            hits = places["vmcoreinfo"]
            found = [
                (hit, info) for hit in hits if (info := vmcoreinfo.parse(read_some(memory, hit, vmcoreinfo.MAX_SIZE)))
            ]
            self.infos = [info for _, info in found]
            for hit, info in found:
                outcome(f"{info.release}, {len(info.symbols)} symbols", f"GPA {hit:#x}", "stated")
        with self.step("kallsyms") as outcome:
            said = {
                info.symbols["kallsyms_token_table"] for info in self.infos if "kallsyms_token_table" in info.symbols
            }
            named = {address - init.image_offset for address in said for init in likely}
            hits = [*places["kallsyms"], *places["plain kallsyms"]]
            hits.sort(key=lambda hit: min((abs(hit - place) for place in named), default=0))
            deadline = time.monotonic() + LONGEST_LOOK
            located = (self.memo.locate(memory, GPA(hit)) for hit in hits if time.monotonic() < deadline)
            self.tables = [tables for tables in located if tables]
            for tables in self.tables:
                outcome(f"{tables.count} symbols, {tables.encoding}", f"GPA {tables.names:#x}", "stated")
        self.candidates = ranked(memory, list(candidates), self.tables, self.infos, places["uts"])

    def _why_none(self, bytes_read: int) -> str:
        if not bytes_read:
            return "no Linux kernel is running yet: RAM is empty"
        if self.places["banner"] or self.places["uts"]:
            return "no Linux kernel is running yet: a kernel's image lies in RAM, but no init_task that is set up"
        return "no Linux kernel is running yet: nothing in RAM looks like one"

    def find_base(self) -> None:
        """Learn from the page tables where RAM starts, and count addresses from there."""
        with self.step("RAM base") as outcome:
            base = next((base for base in self._bases() if base is not None), None)
            if base is None:
                raise NoKernelError(
                    "the RAM base cannot be told from the page tables", hint="give it with --ram-base, as in 0x40000000"
                )
            self.memory, self.base = Rebased(self.memory, base), base
            self.places = {name: [place + base for place in places] for name, places in self.places.items()}
            outcome(f"{base:#x}", "page tables", "inferred")
        self.steps = [step for step in self.steps if step.name not in ("kallsyms", "VMCOREINFO")]
        self.sort_out()

    def _bases(self) -> Iterator[int | None]:
        """Yield what each candidate says, first by what leads to its root, then by the pages of its image."""
        for init in self.candidates[:MOST_LED]:
            tables = [named.gva - init.image_offset for named in self._named(init)]
            evidence = Evidence(self.memory, init, self._anchors())
            yield find_base(evidence, chain(tables, init_mm_tables(evidence, self._texts())))
        for init in self.candidates[:MOST_SEARCHED] if self.searching else ():
            evidence = Evidence(self.memory, init, self._anchors())
            yield find_base(evidence, image_tables(evidence))

    def find_root(self) -> None:
        """Prove ``init_task`` and the kernel's translation root together."""
        proved: list[tuple[InitTask, Root, Symbols | None]] = []
        with self.step("translation root") as outcome:
            for number, init in enumerate(self._within_time(proved)):
                named = self._named(init)
                texts = self._texts() if number < MOST_LED else []
                if root := find_root(Evidence(self.memory, init, self._anchors()), named, texts):
                    proved.append((init, root, self.symbols))
            for init in self.candidates[:MOST_SEARCHED] if self.searching and not proved else ():
                if root := search_root(Evidence(self.memory, init, self._anchors())):
                    self._named(init)
                    proved.append((init, root, self.symbols))
            if not proved:
                raise NoKernelError(
                    "; ".join([NO_TABLES, *self.doubts]),
                    hint="if the VM is still booting, try again",
                )
            init, root, self.symbols = max(proved, key=lambda one: one[1].score)
            about = f"{root.geometry.describe()}; from {root.source}"
            outcome(f"{about}; {len(root.anchors)} anchors, {root.lists} lists", f"GPA {root.gpa:#x}", "proved")
        if others := ", ".join(f"GPA {other.gpa:#x}" for other, _, _ in proved if other != init):
            self.doubt(f"more than one kernel can be proved: that of init_task at GPA {init.gpa:#x}, not {others}")
        self.found = init, root
        what = f"{init.votes} lists point to themselves; image at GVA - GPA = {init.image_offset:#x}"
        self.steps.insert(1, Step("init_task", what, f"GVA {init.gva:#x}", "proved", 0.0))

    def _within_time(self, proved: Collection[object]) -> Iterator[InitTask]:
        """Yield the candidates until the time is up: there is less of it once one was proved."""
        started = time.monotonic()
        proved_at = 0.0
        for number, init in enumerate(self.candidates):
            now = time.monotonic()
            proved_at = proved_at or (now if proved else 0.0)
            if now - started > PATIENCE or (proved_at and now - proved_at > GRACE):
                self.doubt(
                    f"{len(self.candidates)} things look like init_task, {number} of them were tried: "
                    "somebody may be planting decoys"
                )
                return
            yield init

    def _anchors(self) -> list[Anchor]:
        anchors = [Anchor("kallsyms", tables.token_table) for tables in self.tables]
        anchors += [Anchor("banner", place) for place in self.places["banner"]]
        anchors += [Anchor("uts", place) for place in self.places["uts"]]
        return anchors + [Anchor("btf", place) for place in self.places["btf"]]

    def _named(self, init: InitTask) -> list[Named]:
        """Return what VMCOREINFO and kallsyms say the root is; decode the kallsyms of this image on the way."""
        nearest = min(self.tables, key=lambda tables: abs(tables.token_table - init.gpa), default=None)
        self.symbols = self._decoded(nearest, init.image_offset) if nearest else None
        named = [
            Named("VMCOREINFO", info.symbols[ROOT_NAMES[0]]) for info in self.infos if ROOT_NAMES[0] in info.symbols
        ]
        named += [Named(f"kallsyms {name}", address) for name in ROOT_NAMES if (address := self._address(name))]
        return [*named, self.root] if self.root else named

    def _decoded(self, tables: kallsyms.Tables, image_offset: int) -> Symbols | None:
        """Return the symbols of ``tables``, expanded once: decoys of ``init_task`` shall not cost a second each."""
        key = tables, image_offset if tables.encoding == "PC-relative" else 0
        if key not in self.decoded:
            try:
                self.decoded[key] = self.memo.decode(self.memory, tables, GVA(tables.addresses + image_offset))
            except ProfileError as error:
                self.doubt(str(error))
                self.decoded[key] = None
        return self.decoded[key]

    def _texts(self) -> list[range]:
        return _texts(self.symbols) if self.symbols else []

    def _address(self, name: str) -> int | None:
        return self.symbols.address(name) if self.symbols else None

    def conclude(self) -> Kernel:
        """Put together what is known of the kernel that was proved."""
        assert self.found  # noqa: S101  # find_root raises otherwise
        init, root = self.found
        space = AddressSpace(self.memory, root.geometry, GPA(root.gpa))
        uts = self._uts(space, init)
        family = root.geometry.format.partition("-")[0]  # arm, aarch64, riscv64, x86
        if uts and not uts.machine.startswith(family):
            self.doubt(f"the page tables are those of {root.geometry.format}, but uname says {uts.machine}")
        banner, place = self._banner(space, init, uts)
        if banner and self.given.banner not in {"", banner}:
            raise of_another_kernel(self.given)
        info = self._info(uts)
        slide = self._slide(init, root, info)
        self._trust_tables(space, init)
        sources = [symbols for symbols in (self.given.at(slide), self.symbols) if symbols]
        types = self._types(space, init, root, sources)
        text = kernel_text(sources)
        profile = Profile(init, root, uts, banner, sources, types, info, slide, text, self.steps, self.doubts, place)
        return Kernel(self.memory, profile)

    def keep(self) -> None:
        """Keep what was decoded of the kernel that was concluded upon."""
        assert self.found  # noqa: S101  # the caller's condition
        if self.trusted and self.symbols:
            place = GVA(self.trusted.addresses + self.found[0].image_offset)
            self.memo.keep_symbols(self.memory, self.trusted, place, self.symbols)
        if self.btf:
            self.memo.keep_types(self.btf)

    def _trust_tables(self, space: AddressSpace, init: InitTask) -> None:
        """Take the symbols of the kallsyms that the page tables speak for, whichever was nearest before."""
        tables = {found.token_table: found for found in self.tables}
        places = names.likely_in_image(space, init, tables)
        self.trusted = tables[places[0]] if places else None
        self.symbols = self._decoded(self.trusted, init.image_offset) if self.trusted else None
        if len(places) > 1:
            others = ", ".join(f"GPA {place:#x}" for place in places[1:])
            self.doubt(f"more than one kallsyms lies in the kernel: that at GPA {places[0]:#x} is used, not {others}")

    def _uts(self, space: AddressSpace, init: InitTask) -> Uts | None:
        with self.step("init_uts_ns") as outcome:
            uts = names.find_uts(self.memory, space, init, self.places["uts"])
            if uts:
                confidence = "proved" if uts.proved else "doubtful"
                outcome(f"{uts.release} {uts.machine}", f"GPA {uts.gpa:#x}", confidence)
                if not uts.proved:
                    self.doubt("init_uts_ns was found by its shape only: init_task does not lead to it")
        return uts

    def _banner(self, space: AddressSpace, init: InitTask, uts: Uts | None) -> tuple[str, int | None]:
        with self.step("banner") as outcome:
            places = self.places["banner"]
            found = names.live_banners(self.memory, uts, places) if uts else []
            named = (self._address("linux_banner") or 0) - init.image_offset
            found.sort(key=lambda one: (one[0] != named, abs(one[0] - init.gpa)))
            for place, banner in found:
                if names.in_image(space, init, place):
                    outcome(banner[:60], f"GPA {place:#x}", "proved")
                    return banner, place
        self.doubt("no banner in the kernel's image agrees with init_uts_ns")
        return "", None

    def _info(self, uts: Uts | None) -> VmCoreInfo | None:
        assert self.found  # noqa: S101  # conclude comes after find_root
        init, root = self.found
        tables = [info for info in self.infos if info.symbols.get(ROOT_NAMES[0]) == root.gpa + init.image_offset]
        agreeing = [info for info in tables if uts and info.release == uts.release]
        if self.infos and not agreeing:
            self.doubt(f"VMCOREINFO speaks of another kernel: {self.infos[0].release}")
        return agreeing[0] if agreeing else None

    def _slide(self, init: InitTask, root: Root, info: VmCoreInfo | None) -> int | None:
        with self.step("KASLR slide") as outcome:
            if self.given.symbols:
                slide = link_slide(self.given, init, self.symbols, info)
                outcome(f"{slide:#x}", self.given.source, "given")
                return slide
            if info and info.kernel_offset is not None:
                outcome(f"{info.kernel_offset:#x}", "VMCOREINFO", "stated")
                return info.kernel_offset
            if root.geometry.format.startswith("arm-"):
                outcome("0x0", "32-bit Arm kernels have no KASLR", "stated")
                return 0
        return None

    def _inferred(self, space: AddressSpace, init: InitTask, debug: list[BtfTypes]) -> InferredTypes:
        """Infer layouts. Where BTF tells them, its offsets are tried first, and no others if all of them hold."""
        if self.likely or len(debug) != 1:
            return infer(space, init, self.likely)
        quick = infer(space, init, offsets(debug[0]))
        return infer(space, init) if quick.unknown or quick.disagreements(debug[0]) else quick

    def _types(self, space: AddressSpace, init: InitTask, root: Root, symbols: list[Symbols]) -> list[Types]:
        sources: list[Types] = [self.given.types] if self.given.types else []
        read = (
            (place, self.memo.types(self.memory, GPA(place), init.word_size))
            for place in names.likely_in_image(space, init, self.places["btf"])
        )
        debug = [(place, types) for place, types in read if types and _has_comm(types, init)]
        with self.step("inference") as outcome:
            inferred = self._inferred(space, init, [types for _, types in debug])
            unknown = f"; not {', '.join(inferred.unknown)}" if inferred.unknown else ""
            where = f"{inferred.processes} processes"
            outcome(f"{len(inferred.members)} members{unknown}", where, "inferred" if inferred.members else "missing")
        with self.step("BTF") as outcome:
            for place, types in debug:
                if against := inferred.disagreements(types):
                    self.doubt(
                        f"BTF at GPA {place:#x} is not believed: it contradicts what holds in memory on {against}"
                    )
                    continue
                sources.append(types)
                self.btf = types
                outcome("task_struct agrees with init_task", f"GPA {place:#x}", "proved")
                break
        if self.given.types and (against := inferred.disagreements(self.given.types)):
            self.doubt(f"{self.given.source} and what holds in memory disagree on {against}")
        known: list[Types] = [*sources, inferred]
        lookup = partial(_member, known)
        by_code = Variables(space, init, Functions(space, root.architecture, symbols))
        finders = [
            programs(space, init, lookup),
            modules(space, init, lambda name: self._address(name) or by_code.address(name)),
            accounts(space, init, lookup),
            *by_code.finders(),
        ]
        return [*sources, Deferred(finders), inferred]


def _has_comm(types: Types, init: InitTask) -> bool:
    comm = types.member("task_struct", "comm")
    return comm is not None and comm.offset == init.comm - init.gpa


def _distance(candidates: Sequence[InitTask], place: int) -> int:
    """Return how far a place is from the nearest candidate for ``init_task``; candidates are in ascending order."""
    index = bisect(candidates, place, key=lambda init: init.comm)
    return min((abs(place - init.comm) for init in candidates[max(0, index - 1) : index + 1]), default=place)


def _member(sources: list[Types], struct: str, path: str) -> Member | None:
    return next((member for types in sources if (member := types.member(struct, path))), None)


SHUFFLED = "the members of this kernel's structures are in random order (CONFIG_RANDSTRUCT)"

TEXT_BEGINS = ("_stext", "_text")
TEXT_ENDS = ("_etext", "__start_rodata")
"""``_text`` lies before ``_stext``, and read-only data, of ``include/asm-generic/vmlinux.lds.h``, behind ``_etext``."""


def kernel_text(sources: list[Symbols]) -> range | None:
    """Return the bounds of the kernel's text: ``_stext`` to ``_etext``, or the symbols next to these.

    Any one of them may be damaged. The narrowest of what they say is taken, in which no foreign code passes for the
    kernel's.
    """
    return next((texts[0] for texts in map(_texts, sources) if texts), None)


def _texts(symbols: Symbols) -> list[range]:
    """Return what may be the bounds of the kernel's text, the narrowest first.

    Of Arm kernels before 4.8 (14c4a533e099) ``_etext`` stands behind the read-only data, which is wider.
    """
    begins = [address for name in TEXT_BEGINS if (address := symbols.address(name))]
    ends = [address for name in TEXT_ENDS if (address := symbols.address(name))]
    texts = [range(first, last) for first in begins for last in ends if first < last]
    return sorted(texts, key=lambda text: text.stop - text.start)
