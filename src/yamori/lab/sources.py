"""The machine's own apt sources, rewritten for another suite of the same archive.

No host name stands in our code: where packages come from, by which mirror and proven by which key, is what the
machine's sources say. Both of apt's formats are read, see sources.list(5).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from yamori.errors import LabError

_ROLLING = frozenset({"sid", "unstable"})
_NAMES = frozenset({"oldoldstable", "oldstable", "stable", "testing", *_ROLLING})
_PARTS = ("", "-security", "-updates")  # of a suite; backports carry other kernels than the suite's own
_ONE_LINE = re.compile(r"deb\s+(?:\[(?P<options>[^]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<components>\S.*)")


def write(suite: str, directory: Path, etc: Path = Path("/etc")) -> None:
    """Write sources of another suite, as files for apt's ``Dir::Etc::sourceparts``.

    Args:
        suite: Name of it, such as ``trixie``.
        directory: Where to; made if it is not there.
        etc: Where the machine's own are.

    Raises:
        LabError: The machine has no source of its distribution's own suite.
        OSError: They cannot be read or written.
    """
    names = _NAMES | {_codename(etc / "os-release")}
    apt = etc / "apt"
    lists = _texts([apt / "sources.list", *sorted(apt.glob("sources.list.d/*.list"))])
    stanzas = _texts(sorted(apt.glob("sources.list.d/*.sources")))
    found = {
        "suite.list": "\n".join(one_line(lists, suite, names)),
        "suite.sources": "\n\n".join(deb822(stanzas, suite, names)),
    }
    if not any(found.values()):
        hint = "give --kernel and --initrd, or a device without a suite of its own"
        raise LabError(f"no source to make one of {suite} from", where=str(apt), hint=hint)
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in found.items():
        (directory / name).write_text(text + "\n", encoding="utf-8")


def one_line(text: str, suite: str, names: frozenset[str]) -> Iterator[str]:
    """Yield the sources of the one-line format.

    Args:
        text: What the machine has.
        suite: The suite to name.
        names: The suites that are replaced; other sources are somebody else's, and left out.
    """
    for line in text.splitlines():
        match = _ONE_LINE.fullmatch(line.partition("#")[0].strip())
        if match is None:
            continue
        options = [word for word in (match["options"] or "").split() if not word.startswith("arch")]
        shown = f"[{' '.join(options)}] " if options else ""
        for other in _suites([match["suite"]], suite, names):
            yield f"deb {shown}{match['uri']} {other} {match['components']}"


def deb822(text: str, suite: str, names: frozenset[str]) -> Iterator[str]:
    """Yield the sources of the deb822 format; arguments as ``one_line``."""
    for stanza in re.split(r"\n[ \t]*\n", text):
        kept = "\n".join(line for line in stanza.splitlines() if not line.startswith("#"))
        fields = {
            name.lower(): value for name, value in re.findall(r"^([^\s:]+):((?:.*)(?:\n[ \t].*)*)", kept, re.MULTILINE)
        }
        suites = _suites(fields.get("suites", "").split(), suite, names)
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "").strip() == "no" or not suites:
            continue
        fields |= {"types": " deb", "suites": f" {' '.join(suites)}"}
        fields.pop("architectures", None)  # those of the machine
        yield "\n".join(f"{name}:{value}" for name, value in fields.items())


def _suites(own: list[str], suite: str, names: frozenset[str]) -> list[str]:
    """Return the parts of another suite for the parts that the machine has."""
    found = []
    for word in own:
        name = next((name for name in names if name and word.startswith(name)), None)
        part = "-security" if word == f"{name}/updates" else word.removeprefix(name or "")
        if name and part in _PARTS and not (part and suite in _ROLLING):
            found.append(suite + part)
    return list(dict.fromkeys(found))


def _codename(path: Path) -> str:
    """Return the name of the machine's release (os-release(5)), or nothing."""
    match = re.search(r'^VERSION_CODENAME="?(\w+)', _texts([path]), re.MULTILINE)
    return match[1] if match else ""


def _texts(paths: list[Path]) -> str:
    return "\n\n".join(path.read_text(encoding="utf-8", errors="replace") for path in paths if path.is_file())
