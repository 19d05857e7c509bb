"""``for_each_task``, called as at the prompt and used by a probe."""

from __future__ import annotations

import pytest
from tests.kernel.synthetic import ARM, ARM64, X86, Machine, build

from yamori.kernel.discovery import discover
from yamori.kernel.given import Given
from yamori.llview.language import emit, probe
from yamori.probes.live import LiveKernel, Session
from yamori.probes.live_calls import call
from yamori.probes.plist import Tasks
from yamori.probes.run import run_probe
from yamori.probes.tasks import for_each_task
from yamori.records import Row


class Name(Row, frozen=True):
    comm: str


@probe(row=Name)
def names(kernel: Tasks) -> None:
    for task in for_each_task(kernel):
        if task.pid == 2:
            continue
        if task.pid == 100:
            break
        emit(comm=task.comm)


@pytest.mark.parametrize("machine", [X86, ARM64, ARM], ids=lambda machine: machine.name)
def test_for_each_task(machine: Machine) -> None:
    guest = build(machine)
    kernel = discover(guest.memory(), Given(), base_known=True)
    session = Session(kernel)
    found = call(session, for_each_task, (LiveKernel(session),), {})
    assert [task.pid for task in found.value] == [task.pid for task in guest.tasks]
    assert found.reasons == []
    result = run_probe(kernel, names)
    assert [row.comm for row in result] == ["init", "rcu_gp", "kworker/0:1-eve", "ksoftirqd/0"]
    assert result.complete
