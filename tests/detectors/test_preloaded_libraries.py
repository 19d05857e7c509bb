"""Which mappings are a finding; that they are read from a guest's memory is ``tests/guests/test_attacks.py``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pytest

from yamori.detectors.kinds.preloaded_libraries import preloaded_libraries
from yamori.detectors.view import View
from yamori.records import Finding, Mapping, Program


class Rows:
    """A view of one process, which runs ``/tmp/agent``."""

    def __init__(self, *mapped: Mapping) -> None:
        self.mapped = mapped

    def mappings(self) -> Sequence[Mapping]:
        return self.mapped

    def programs(self) -> Sequence[Program]:
        ids = dict.fromkeys(("pid", "tgid", "ppid", "uid", "gid", "euid", "egid", "task"), 7)
        rest = {"comm": "agent", "state": "S", "kthread": False, "start_time": None}
        return [Program(**ids, **rest, executable="/tmp/agent", deleted=False, arguments=None)]  # type: ignore[arg-type]


def mapping(
    path: str | None, mode: str = "r-xp", *, pid: int = 7, start: int = 0x1000, deleted: bool = False
) -> Mapping:
    return Mapping(pid=pid, start=start, end=start + 0x1000, mode=mode, offset=0, deleted=deleted, path=path)


def found(*mapped: Mapping) -> list[Finding]:
    return list(preloaded_libraries.look(cast("View", Rows(*mapped))))


@pytest.mark.parametrize("folder", ["/tmp", "/var/tmp", "/dev/shm", "/run/user/1000"])
def test_library(folder: str) -> None:
    (finding,) = found(mapping(f"{folder}/a.so"), mapping(f"{folder}/a.so", start=0x2000), mapping("/usr/lib/b.so"))
    assert (finding.subject, finding.severity) == ("process 7", "medium")
    assert f"{folder}/a.so is mapped at 0x1000" in finding.why[1]
    assert "agent" in finding.title


def test_deleted_file_is_a_note() -> None:
    (finding,) = found(mapping("/tmp/ffiA1b2C3", deleted=True))
    assert (finding.severity, finding.confidence) == ("low", "possible")


def test_process_that_is_not_listed() -> None:
    (finding,) = found(mapping("/tmp/agent", pid=8))
    assert finding.subject == "process 8"


@pytest.mark.parametrize("mode", ["rwxp", "r-xp"])
@pytest.mark.parametrize("path", ["", None, "[heap]", "[vdso]", "/dev/zero", "/tmp/agent", "/tmpfiles/a.so"])
def test_silent(path: str | None, mode: str) -> None:
    """Memory of no file, as just-in-time compilers have it, and the executable, which ``writable-place`` reports."""
    assert found(mapping(path, mode)) == []


def test_data_is_no_code() -> None:
    assert found(mapping("/tmp/hsperfdata_root/1", "rw-s")) == []
