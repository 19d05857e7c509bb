"""What the guest's ``truth`` prints, and what is made of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yamori.errors import LabError
from yamori.lab.truth import Task, parse


def test_lines() -> None:
    output = "1 1 0 0 0 0 S 3 0 init\n" + "9 12 1 1000 0 100 R 377 0 a) R (b\n"
    assert parse(output) == [
        Task(1, 1, 0, 0, 0, 0, "S", 3, kthread=False, comm="init"),
        Task(9, 12, 1, 1000, 0, 100, "R", 377, kthread=False, comm="a) R (b"),
    ]
    assert parse("") == []


@pytest.mark.parametrize(
    ("shown", "kthread", "comm"),
    [
        (r"new\nline", 0, "new\nline"),
        (r"back\\slash", 0, r"back\slash"),
        (r"\\n", 0, r"\n"),
        ("", 0, ""),
        ("two words ", 0, "two words "),
        ("kworker/0:0H-events_highpri", 1, "kworker/0:0H"),
        ("kworker/u2:1+flush-8:0", 1, "kworker/u2:1"),
        ("kworker/0:1", 1, "kworker/0:1"),
        ("kworker/0:1-fake", 0, "kworker/0:1-fak"),
        ("kworker/R-mm_percpu_wq", 1, "kworker/R-mm_pe"),
        ("kworker/R-tls-strp", 1, "kworker/R-tls-s"),
        ("kworker/R-md+md", 1, "kworker/R-md"),
        ("kworker/R-mld-mld", 1, "kworker/R-mld"),
        ("kworker/R-a-b-a-b", 1, "kworker/R-a-b"),
        ("rcu_tasks_trace_kthread", 1, "rcu_tasks_trace"),
        ("\udcff\udcfebytes", 0, "\udcff\udcfebytes"),
    ],
)
def test_comm(shown: str, kthread: int, comm: str) -> None:
    assert parse(f"1 1 0 0 0 0 S 3 {kthread} {shown}\n")[0].comm == comm


@given(st.text(max_size=80))
def test_any_text_is_refused_or_read(text: str) -> None:
    try:
        parse(text)
    except LabError as error:
        assert "says nothing" in str(error)  # noqa: PT017  both outcomes are right
