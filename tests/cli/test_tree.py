from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from yamori.cli.tree import DEEPEST, draw
from yamori.records import Process


def process(pid: int, ppid: int, tgid: int | None = None) -> Process:
    return Process(
        pid=pid,
        tgid=pid if tgid is None else tgid,
        ppid=ppid,
        uid=0,
        gid=0,
        euid=0,
        egid=0,
        comm=f"p{pid}",
        state="S",
        kthread=False,
        start_time=0.0,
        task=pid,
    )


def lines(*rows: Process) -> list[str]:
    return [branch + row.comm for branch, row in draw(rows)]


def test_tree() -> None:
    rows = [process(1, 0), process(2, 0), process(3, 1), process(4, 3), process(5, 1), process(6, 2), process(7, 5, 5)]
    assert lines(*rows) == ["p1", "├─ p3", "│  └─ p4", "└─ p5", "   └─ p7", "p2", "└─ p6"]


def test_circle_of_parents_and_own_parent() -> None:
    assert lines(process(1, 2), process(2, 1)) == ["p1", "└─ p2"]
    assert lines(process(3, 3)) == ["p3"]
    assert lines(process(1, 0), process(4, 5), process(5, 6), process(6, 4)) == ["p1", "p4", "└─ p6", "   └─ p5"]


def test_every_row_of_one_pid_is_drawn() -> None:
    """A hidden process may borrow another's pid: it must not vanish from the tree."""
    rows = [process(1, 0), process(9, 1), process(9, 1), process(10, 9)]
    assert lines(*rows) == ["p1", "├─ p9", "│  └─ p10", "└─ p9"]


@settings(max_examples=200)
@given(st.lists(st.tuples(*[st.integers(0, 12)] * 3), max_size=30))
def test_whatever_the_parents_each_row_is_drawn_once(triples: list[tuple[int, int, int]]) -> None:
    rows = [process(pid, ppid, tgid) for pid, ppid, tgid in triples]
    drawn = [id(row) for _, row in draw(rows)]
    assert sorted(drawn) == sorted(map(id, rows))


def test_depth_does_not_cost_width() -> None:
    rows = [process(pid, pid - 1) for pid in range(1, 5000)]
    drawn = list(draw(rows))
    assert [row.pid for _, row in drawn] == list(range(1, 5000))
    assert max(len(branch) for branch, _ in drawn) <= 3 * DEEPEST + 3
