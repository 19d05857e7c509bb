"""Baselines: what is read, what is learned, and what is found with one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.kernel.synthetic import ARM64, X86, Machine, build, usual

from yamori.detectors import baseline as baselines
from yamori.detectors import learning
from yamori.detectors.baseline import Allowed, Baseline, BaselineError, Tables, matches
from yamori.detectors.check import check, chosen
from yamori.detectors.view import View
from yamori.errors import YamoriError
from yamori.kernel.discovery import discover
from yamori.kernel.kernel import Kernel
from yamori.records import Process, Socket

MACHINES = pytest.mark.parametrize("machine", [X86, ARM64], ids=lambda machine: machine.name)
SECTIONS = ["changed-system-calls", "unknown-listener", "unknown-module", "unknown-process"]


def process(comm: str, uid: int | None = 0, euid: int | None = 0) -> Process:
    return Process(pid=7, tgid=7, ppid=1, uid=uid, gid=0, euid=euid, egid=0, comm=comm, state="S", kthread=False,
                   start_time=1.0, task=4096)  # fmt: skip


@pytest.mark.parametrize(
    ("pattern", "text", "same"),
    [
        ("sh", "sh", True),
        ("sh", "ssh", False),
        ("sh*", "sh", True),
        ("/usr/*/x", "/usr/a/b/x", True),
        ("a.c", "abc", False),
        ("[kworker]", "k", False),
        ("*", "a\nb", True),
        ("", "a", False),
    ],
)
def test_pattern(pattern: str, text: str, *, same: bool) -> None:
    assert matches(pattern, text) is same


def test_what_is_not_known_is_not_held_against_a_process() -> None:
    one = Allowed("a", "/bin/a", [0])
    assert one.covers(process("a"))  # whose executable nobody knows
    assert one.covers(process("a", None, None))
    assert not one.covers(process("a", 0, 5))
    assert not one.covers(process("b"))


def test_learned_is_found_clean_and_survives_the_file(tmp_path: Path) -> None:
    kernel = discover(build().memory())
    learned = learning.learned(View(kernel))
    assert learned.process
    assert {one.name for one in learned.process} == {"init", *(f"user{number}" for number in range(12))}
    assert learned.modules == []
    assert learned.tables
    path = tmp_path / "device.toml"
    path.write_text(learning.text(learned))
    assert baselines.read(path) == learned
    report = check(kernel, chosen(["unknown-process", "changed-system-calls"], [], learned), learned)
    assert not report.findings
    assert report.complete


@MACHINES
def test_unknown_and_missing_process(machine: Machine) -> None:
    before = learning.learned(View(discover(build(machine).memory())))
    assert before.process is not None
    allowed = [Allowed(one.name, one.executable, one.users, one.name == "user3") for one in before.process]
    plans = [plan for plan in usual() if plan[4] != "user3"]
    plans = [(*plan[:2], 0, *plan[3:]) if plan[4] == "user4" else plan for plan in plans]
    kernel = discover(build(machine, plans=[*plans, (900, 1, 0, 0, "dropper", "S", 90.0)]).memory())
    meant = Baseline(version=1, process=allowed)
    report = check(kernel, chosen(["unknown-process"], [], meant), meant)
    why = {one.subject: one.why for one in report.findings}
    changed = next(plan[0] for plan in plans if plan[4] == "user4")
    assert set(why) == {"process 900", f"process {changed}", "missing user3"}
    assert why["process 900"][0] == "Expected: a process of the baseline."
    assert "only user4 as uid 1001" in why[f"process {changed}"][0]


@MACHINES
def test_changed_system_call(machine: Machine) -> None:
    guest = build(machine)
    known = discover(guest.memory())
    meant = learning.learned(View(known))
    table = guest.symbols["sys_call_table"]
    guest.words(table + 5 * machine.word, guest.symbols[guest.calls[9]])
    kernel = Kernel(guest.memory(), known.profile)
    wanted = chosen(["changed-system-calls"], [], meant)
    (found,) = check(kernel, wanted, meant).findings
    assert found.subject == "system call 5"
    assert guest.calls[5] in found.why[0]
    assert guest.calls[9] in found.why[1]
    for other, said in ((replace_kernel(meant), "another kernel"), (shorter(meant), "entries")):
        ((_, reason),) = check(kernel, wanted, other).not_checked
        assert said in reason
    assert check(Kernel(guest.memory(), replace(known.profile, banner="")), wanted, meant).not_checked


def replace_kernel(one: Baseline) -> Baseline:
    assert one.tables
    return Baseline(version=1, tables=Tables("Linux version 0", one.tables.system_calls))


def shorter(one: Baseline) -> Baseline:
    assert one.tables
    return Baseline(version=1, tables=Tables(one.tables.kernel, one.tables.system_calls[1:]))


def socket(**more: object) -> Socket:
    values = {"pid": 7, "fd": 3, "family": "inet", "type": "stream", "protocol": "tcp", "state": "listening",
              "local": "10.0.0.1", "local_port": 22, "remote": "10.0.0.2", "remote_port": 0, "filtered": False,
              "inode": 1, "net": 0, "sock": 4096}  # fmt: skip
    return Socket(**(values | more))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (socket(), "tcp 22"),
        (socket(state="established"), None),
        (socket(type="dgram", protocol="udp", state="closed", local_port=68), "udp 68"),
        (socket(type="dgram", protocol="udp", state="established", local_port=68, remote_port=67), None),
        (socket(type="dgram", protocol="udp", state="closed", local_port=0), None),
        (socket(family="unix", protocol=None, local=None, local_port=None, remote=None, remote_port=None), None),
    ],
)
def test_what_listens(row: Socket, said: str | None) -> None:
    assert baselines.listens(row) == said


def test_listener(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(View, "sockets", lambda _view: [socket(), socket(local_port=4444, pid=100)])
    kernel = discover(build().memory())
    meant = Baseline(version=1, listening=["tcp 2*"])
    (found,) = check(kernel, chosen(["unknown-listener"], [], meant), meant).findings
    assert found.subject == "process 100 at tcp 4444"
    assert "user0" in found.title


def test_sections_that_are_not_there_are_not_asked() -> None:
    assert not {one.name for one in chosen([], [])} & set(SECTIONS)
    assert {one.name for one in chosen([], [], Baseline(version=1, process=[]))} & set(SECTIONS) == {"unknown-process"}
    for name in SECTIONS:
        with pytest.raises(YamoriError, match="give --baseline FILE"):
            chosen([name], [])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("version = 1\nprocess = 5", r"\$.process"),
        ("version = 1\n[[process]]\nexecutable = 'a'", "name"),
        ("version = 1\n[[process]]\nname = 'a'\nuser = 3", "user"),
        ("version = 2", "version is 2"),
        ("version 1", "line 1"),
        ("modules = ['x']", "version"),
        ("version = 1\nmodules = [1]", r"\$.modules"),
        ("\ud800", "no text"),
    ],
)
def test_what_is_no_baseline_says_where(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(BaselineError, match=said) as error:
        baselines.read(path)
    assert str(path) in str(error.value)


def test_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BaselineError, match="baseline learn"):
        baselines.read(tmp_path / "none")


def test_adding_keeps_what_was_written_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "device.toml"
    path.write_text(
        "version = 1  # of the format\nmodules = ['crc*']\nlistening = ['tcp *']\n\n"
        "# our own\n[[process]]\nname = 'a*'\nrequired = true\n"
    )
    new = Baseline(
        version=1,
        process=[Allowed("abc", "/bin/abc", [0]), Allowed("b", "/bin/b", [3]), Allowed("c")],
        modules=["crc7", "veth"],
        listening=["tcp 22", "udp 68"],
        tables=Tables("kernel", ["x"]),
    )
    path.write_text(learning.text_with(path, new))
    text = path.read_text()
    assert "# of the format" in text
    assert "# our own" in text
    found = baselines.read(path)
    assert found.process == [Allowed("a*", required=True), Allowed("b", "/bin/b", [3]), Allowed("c")]
    assert found.modules == ["crc*", "veth"]
    assert found.listening == ["tcp *", "udp 68"]
    assert found.tables is None  # it was taken out
    again = learning.text_with(path, new)
    assert again == text


@given(
    st.lists(
        st.builds(
            Allowed,
            st.text(st.characters(codec="utf-8"), min_size=1),
            st.none() | st.text(st.characters(codec="utf-8")),
            st.none() | st.lists(st.integers(0, 1 << 32)),
            st.booleans(),
        )
    )
)
def test_any_names_survive_the_file(processes: list[Allowed]) -> None:
    made = Baseline(version=1, process=processes, modules=[one.name for one in processes])
    assert baselines.parsed(learning.text(made), Path("x")) == made
