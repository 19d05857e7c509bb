"""OpenVEX: a maker's word on which vulnerabilities matter for its product.

Of an OpenVEX document (specification 0.2.0, and 0.0.1 where products and vulnerabilities are plain strings) this reads
``statements``: a vulnerability with its aliases, products, a status and a justification. A statement is taken for this
kernel when one of its products, or a subcomponent of one, names the Linux kernel:

* a purl whose name is ``linux``, ``kernel``, ``linux-kernel``, ``linux_kernel`` or begins with ``linux-image``, of any
  type and namespace: ``pkg:generic/linux@6.1.176``, ``pkg:deb/debian/linux@6.1.176-1?arch=armhf``;
* a CPE of ``linux:linux_kernel``: ``cpe:2.3:o:linux:linux_kernel:6.1.176:*:...``.

A version there must be the release, the distribution's package or the upstream version of the banner; without one every
version is meant. A product that is the device itself counts only if it names the kernel as a subcomponent.
Of several statements on one vulnerability the latest counts; only ``not_affected`` and ``fixed`` silence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import unquote

import msgspec

from yamori.detectors import versions
from yamori.probes.banner_text import BannerText

_PURL = re.compile(r"pkg:(?://)?[^@?#]{0,512}?/(?P<name>[^/@?#]{1,256})/?(?:@(?P<version>[^?#]{1,256}))?(?:[?#].*)?")
_CPE = re.compile(r"cpe:(?:2\.3:|/)[oa]:linux:(?:linux_kernel|kernel)(?::(?P<version>[^:]*).*)?", re.DOTALL)
_KERNEL_NAMES = {"linux", "kernel", "linux-kernel", "linux_kernel"}
_SILENCING = {"not_affected", "fixed"}


class Vulnerability(msgspec.Struct, frozen=True):
    """``statements[].vulnerability``."""

    name: str = ""
    id: str = msgspec.field(default="", name="@id")
    aliases: list[str] = []


class Component(msgspec.Struct, frozen=True):
    """``statements[].products[]`` and its ``subcomponents[]``."""

    id: str = msgspec.field(default="", name="@id")
    identifiers: dict[str, Any] = {}
    subcomponents: list[Component | str] = []


class Statement(msgspec.Struct, frozen=True):
    """``statements[]``."""

    vulnerability: Vulnerability | str
    status: str
    products: list[Component | str] = []
    justification: str | None = None
    impact_statement: str | None = None
    timestamp: str | None = None


class Verdict(NamedTuple):
    """What a maker says of one vulnerability in this kernel.

    Attributes:
        silences: Whether the maker says that it does no harm here.
        reason: Status, justification and file, for a person.
    """

    silences: bool
    reason: str


class Statements:
    """The statements on the kernel of one banner, by vulnerability.

    Args:
        banner: The kernel they must be meant for.
    """

    def __init__(self, banner: BannerText) -> None:
        self._versions = {text for text in (banner.release, banner.package, banner.upstream) if text}
        self._upstream = versions.parse(banner.upstream)
        self._latest: dict[str, tuple[datetime, Verdict]] = {}

    def add(self, statement: Statement, document_time: str | None, file: str) -> None:
        """Take a statement in, if it is on this kernel and not older than what is known."""
        if not any(self._means_kernel(name) for name in _identifiers(statement.products)):
            return
        time = _time(statement.timestamp or document_time)
        because = ": ".join(text for text in (statement.justification, statement.impact_statement) if text)
        reason = f"{file}: {statement.status}" + (f" ({because})" if because else "")
        verdict = Verdict(statement.status in _SILENCING, reason)
        for name in _names(statement.vulnerability):
            known = self._latest.get(name)
            if known is None or known[0] <= time:
                self._latest[name] = (time, verdict)

    def on(self, identifiers: Iterable[str]) -> Verdict | None:
        """Return the latest word on a vulnerability known by any of these numbers, or ``None``."""
        words = [self._latest[name] for name in identifiers if name in self._latest]
        return max(words, key=lambda word: word[0])[1] if words else None

    def _means_kernel(self, identifier: str) -> bool:
        match = _PURL.fullmatch(identifier)
        if match:
            name = unquote(match["name"]).lower()
            if name not in _KERNEL_NAMES and not name.startswith("linux-image"):
                return False
        else:
            match = _CPE.fullmatch(identifier)
        return match is not None and self._means_version(unquote(match["version"] or ""))

    def _means_version(self, text: str) -> bool:
        if text in {"", "*", "-"} or text in self._versions:
            return True
        named = versions.parse(text)
        return named is not None and named == self._upstream


def _identifiers(products: list[Component | str]) -> Iterator[str]:
    pending: list[Component | str] = list(products)
    while pending:
        product = pending.pop()
        if isinstance(product, str):
            yield product
            continue
        yield product.id
        yield from (value for value in product.identifiers.values() if isinstance(value, str))
        pending.extend(product.subcomponents)


def _names(vulnerability: Vulnerability | str) -> list[str]:
    if isinstance(vulnerability, str):
        return [vulnerability]
    # "@id" is often the address of a page on the vulnerability, with the number as its last part.
    return [name for name in (vulnerability.name, vulnerability.id.rsplit("/", 1)[-1], *vulnerability.aliases) if name]


def _time(text: str | None) -> datetime:
    """Read a time; what has none, or one that cannot be read, is older than what has one."""
    try:
        time = datetime.fromisoformat(text or "")
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
    return time if time.tzinfo else time.replace(tzinfo=UTC)
