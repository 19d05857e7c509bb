"""What BPF programs mean; that they are read from a guest's memory is ``tests/guests/test_bpf_guests.py``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pytest

from yamori.detectors.detector import NotChecked
from yamori.detectors.kinds import bpf_programs as kind
from yamori.detectors.view import View
from yamori.probes.bpf import Compiled
from yamori.records import BpfProgram, Finding, Result


class Profile:
    def __init__(self, **addresses: int | None) -> None:
        self.symbols, self.addresses = True, addresses

    def address(self, name: str) -> int | None:
        return self.addresses.get(name)


class Rows:
    """A view of a kernel that has these programs."""

    kernel = None

    def __init__(self, *rows: BpfProgram, **addresses: int | None) -> None:
        known: dict[str, int | None] = {"bpf_prog_put": 1, "bpf_get_kallsym": 2, "prog_idr": 3, "bpf_kallsyms": 4}
        self.rows, self.profile, self.lacks = rows, Profile(**(known | addresses)), list[str]()

    def bpf(self) -> Sequence[BpfProgram]:
        return self.rows

    def named(self, *names: str) -> set[int]:
        return {address for name in names if (address := self.profile.address(name))}


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Compiled]:
    rows: list[Compiled] = []
    monkeypatch.setattr(
        kind, "hidden", lambda _kernel: Result(rows, complete=True, reasons=[], faults=0, loads=0, elapsed_s=0)
    )
    return rows


def program(type: str, *, overrides: bool | None = False) -> BpfProgram:  # noqa: A002  as the field
    return BpfProgram(
        id=7, type=type, name="look", tag="0123456789abcdef", uid=0, attached="", overrides=overrides, address=1, prog=2
    )


def found(view: Rows) -> list[Finding]:
    return list(kind.bpf_programs.look(cast("View", view)))


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("type_", ["kprobe", "tracepoint", "raw_tracepoint", "tracing", "perf_event"])
def test_tracing_is_a_note(type_: str) -> None:
    (finding,) = found(Rows(program(type_)))
    assert (finding.subject, finding.severity) == ("BPF program 7", "low")


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("type_", ["cgroup_skb", "cgroup_device", "cgroup_sock_addr", "lsm", "socket_filter"])
def test_what_systemd_loads_is_none(type_: str) -> None:
    view = Rows(program(type_, overrides=None))
    assert found(view) == []
    assert view.lacks == []


@pytest.mark.usefixtures("compiled")
def test_program_that_overrides_functions() -> None:
    (finding,) = found(Rows(program("kprobe", overrides=True)))
    assert finding.severity == "high"


@pytest.mark.usefixtures("compiled")
def test_type_without_a_name_is_not_clean() -> None:
    view = Rows(program("99"))
    assert found(view) == []
    assert view.lacks


def test_hidden(compiled: list[Compiled]) -> None:
    compiled.append(Compiled(aux=1, name="bpf_prog_0123456789abcdef_x", start=0x5000))
    (finding,) = found(Rows())
    assert (finding.subject, finding.severity) == ("BPF program at 0x5000", "critical")
    assert found(Rows(bpf_get_kallsym=0)) == []  # built without a compiler: there is no such list
    with pytest.raises(NotChecked, match="bpf_kallsyms"):
        found(Rows(program("lsm"), bpf_get_kallsym=0, bpf_kallsyms=None))


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("name", ["prog_idr", "bpf_kallsyms"])
def test_what_no_symbol_names_is_not_checked(name: str) -> None:
    view = Rows()
    del view.profile.addresses[name]
    with pytest.raises(NotChecked, match=name):
        found(view)


@pytest.mark.usefixtures("compiled")
def test_kernel_without_bpf() -> None:
    view = Rows()
    view.profile.addresses.clear()
    assert found(view) == []
