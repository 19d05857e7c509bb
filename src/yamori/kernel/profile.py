"""The profile: everything that is known of one guest's kernel, each part with its provenance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from yamori.errors import ProfileError
from yamori.kernel.deferred import Deferred
from yamori.kernel.inferred import STILL_BOOTING, InferredTypes
from yamori.kernel.init_task import InitTask
from yamori.kernel.root import Root
from yamori.kernel.symbols import Symbols
from yamori.kernel.types import Member, Types
from yamori.kernel.uts import Uts
from yamori.kernel.vmcoreinfo import VmCoreInfo


class Step(NamedTuple):
    """One step of discovery, for ``yamori doctor``.

    Attributes:
        name: What was looked for.
        found: What was found, in words; what is missing, where nothing was.
        where: Where it lies: ``GPA 0x…``, ``GVA 0x…``, or a file.
        confidence: ``proved`` (several independent things agree), ``given`` (by the maker), ``stated`` (the guest
            says so and nothing contradicts), ``inferred``, ``doubtful`` or ``missing``.
        seconds: How long the step took.
    """

    name: str
    found: str
    where: str
    confidence: str
    seconds: float


@dataclass(frozen=True)
class Profile:
    """What is known of one kernel.

    Attributes:
        init: ``init_task`` and with it the offset of the kernel's image.
        root: The kernel's own translation root and the geometry of its page tables.
        uts: What the kernel says of itself (``init_uts_ns``), or ``None``.
        banner: ``linux_banner`` of the running kernel without the newline, or ``""``.
        symbols: Every source of symbols, the most trusted first.
        types: Every source of structure layouts, the most trusted first.
        vmcoreinfo: VMCOREINFO, or ``None``.
        slide: KASLR slide in bytes, ``None`` where it is not known.
        text: GVAs of the kernel's text, ``None`` where they are not known.
        steps: How all this was learnt.
        doubts: What does not agree, one sentence each.
        banner_gpa: Where the banner lies, ``None`` where it was not found.
    """

    init: InitTask
    root: Root
    uts: Uts | None
    banner: str
    symbols: Sequence[Symbols]
    types: Sequence[Types]
    vmcoreinfo: VmCoreInfo | None
    slide: int | None
    text: range | None
    steps: list[Step] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    banner_gpa: int | None = None

    @property
    def architecture(self) -> str:
        """The page-table format's architecture: ``arm``, ``aarch64``, ``riscv64`` or ``x86_64``."""
        return self.root.architecture

    def member(self, struct: str, path: str) -> Member | None:
        """Return where ``path`` lies in ``struct``, from the most trusted source that knows; ``None`` if none does."""
        return next((member for types in self.types if (member := types.member(struct, path))), None)

    def find(self, struct: str, *paths: str) -> tuple[str, Member] | None:
        """Return the first of ``paths`` that the most trusted source knows in ``struct``, and where it lies.

        Kernels differ in names; a less trusted source may know a member under another one.
        """
        for types in self.types:
            for path in paths:
                if member := types.member(struct, path):
                    return path, member
        return None

    @property
    def booting(self) -> bool:
        """Whether layouts could not be inferred because the guest still boots."""
        return any(isinstance(types, InferredTypes) and types.booting for types in self.types)

    def require(self, struct: str, *paths: str) -> Member:
        """Return where the first of ``paths`` lies, as ``find`` does.

        Raises:
            ProfileError: No source knows any of them, or not yet.
        """
        if found := self.find(struct, *paths):
            return found[1]
        if self.booting:
            raise ProfileError(STILL_BOOTING, hint="try again in a few seconds; where it stays so, give --vmlinux")
        wanted = " or ".join(f"{struct}.{path}" for path in paths)
        raise ProfileError(
            f"where {wanted} lies in this kernel is not known",
            hint="give the maker's vmlinux with --vmlinux; `yamori doctor` shows what is known",
        )

    def address(self, *names: str) -> int | None:
        """Return the GVA of the first of ``names`` that any source of symbols has, or that can be inferred."""
        sources = [*(symbols.address for symbols in self.symbols), self.inferred_address]
        found = (address for name in names for source in sources if (address := source(name)) is not None)
        return next(found, None)

    def inferred_address(self, name: str, *, fresh: bool = False) -> int | None:
        """Return the GVA of a variable that can be inferred, whatever symbols say.

        Args:
            name: Its name.
            fresh: Whether what an earlier look said is not enough, because somebody may have changed it since.
        """
        sources = (types for types in self.types if isinstance(types, Deferred))
        found = (types.address(name, fresh=fresh) for types in sources)
        return next((address for address in found if address is not None), None)

    def symbol_at(self, address: int) -> tuple[str, int] | None:
        """Return (name, offset) of the nearest symbol at or before ``address``, or ``None`` below all of them."""
        found = [pair for symbols in self.symbols if (pair := symbols.containing(address))]
        symbol, offset = min(found, key=lambda pair: pair[1], default=(None, 0))
        return (symbol.name, offset) if symbol else None

    def in_text(self, address: int) -> bool | None:
        """Say whether ``address`` lies in the kernel's own text; ``None`` where its bounds are not known."""
        return None if self.text is None else address in self.text
