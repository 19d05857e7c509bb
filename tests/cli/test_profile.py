"""``yamori profile`` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.conftest import Run
from tests.kernel.synthetic import ARM, build
from tests.kernel.test_portable import blob

from yamori.cli import output


@pytest.fixture
def target(tmp_path: Path) -> str:
    guest = build(ARM)
    (tmp_path / "ram").write_bytes(guest.ram)
    return f"file:{tmp_path}/ram"


@pytest.fixture
def btf(tmp_path: Path) -> Path:
    path = tmp_path / "vmlinux.btf"
    path.write_bytes(blob())
    return path


def test_a_running_kernel_becomes_a_profile_that_serves_it(run: Run, target: str, tmp_path: Path) -> None:
    path = tmp_path / "x.profile"
    ran = run("profile", "export", target, "-o", str(path))
    assert (ran.code, ran.out) == (0, "")
    assert str(path) in ran.err
    shown = run("profile", "show", str(path), "task_struct.pid", "--json")
    assert shown.code == 0
    answer = json.loads(shown.out)
    assert answer["word_size"] == 4
    assert answer["rows"][0]["member"] == "task_struct.pid"
    listed = run("plist", target, "--vmlinux", str(path))
    assert listed.code == 0
    assert "kthreadd" in listed.out


def test_the_right_profile_of_a_folder_is_taken(run: Run, target: str, btf: Path, tmp_path: Path) -> None:
    folder = tmp_path / "profiles"
    folder.mkdir()
    (folder / "a.txt").write_text("no profile")
    assert run("profile", "import", str(btf), "-o", str(folder / "b.profile")).code == 0  # of nobody knows which kernel
    ran = run("plist", target, "--vmlinux", str(folder))
    assert ran.code == output.ERROR
    assert "no profile of the kernel that runs is there: 6.1.0-9-test" in ran.err
    assert run("profile", "export", target, "-o", str(folder / "c.profile")).code == 0
    slide = next(row for row in run("doctor", target, "--vmlinux", str(folder), "--json").json()["rows"]
                 if row["name"] == "KASLR slide")  # fmt: skip
    assert (slide["where"], slide["confidence"]) == (str(folder / "c.profile"), "given")
    whole = (folder / "c.profile").read_bytes()
    (folder / "c.profile").write_bytes(whole[: len(whole) // 2])
    ran = run("plist", target, "--vmlinux", str(folder))
    assert (ran.code, "c.profile: a profile that is cut short" in ran.err) == (output.ERROR, True)


def test_nothing_is_overwritten_unless_told(run: Run, btf: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.profile"
    path.write_text("mine")
    ran = run("profile", "import", str(btf), "-o", str(path))
    assert (ran.code, path.read_text()) == (output.ERROR, "mine")
    assert "--force" in ran.err
    assert run("profile", "import", str(btf), "-o", str(path), "--force").code == 0
    assert path.read_bytes().startswith(b"yamori-profile 1\n")
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []


def test_members_are_shown(run: Run, btf: Path) -> None:
    ran = run("profile", "show", str(btf), "task_struct", "mm_struct.users")
    assert ran.code == 0
    assert "struct mm_struct *" in ran.out
    assert "mm_struct.users" in ran.out
    ran = run("profile", "show", str(btf), "task_struct.nothing")
    assert (ran.code, "task_struct has no member nothing" in ran.err) == (output.ERROR, True)
    ran = run("profile", "show", str(btf), "nothing")
    assert (ran.code, "no structure nothing" in ran.err) == (output.ERROR, True)


def test_isf_there_and_back(run: Run, btf: Path, tmp_path: Path) -> None:
    path, again = tmp_path / "x.json.xz", tmp_path / "y.profile"
    assert run("profile", "export", str(btf), "--format", "isf", "-o", str(path)).code == 0
    assert run("profile", "import", str(path), "-o", str(again)).code == 0
    assert "isf" in run("profile", "show", str(again)).out


def test_system_map_alone(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "System.map"
    path.write_text("c0008000 T _stext\nc0500000 D init_task\n")
    assert run("profile", "build", "--system-map", str(path), "-o", str(tmp_path / "x.profile")).code == 0
    assert "symbols       2" in run("profile", "show", str(tmp_path / "x.profile")).out


def test_vmcoreinfo_of_a_running_kernel(run: Run, target: str, btf: Path, tmp_path: Path) -> None:
    path = tmp_path / "info"
    assert run("profile", "export", target, "--format", "vmcoreinfo", "-o", str(path)).code == 0
    assert path.read_text().startswith("OSRELEASE=")
    ran = run("profile", "export", str(btf), "--format", "vmcoreinfo", "-o", str(tmp_path / "z"))
    assert (ran.code, "name a TARGET" in ran.err) == (output.ERROR, True)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("build",), "nothing to build from"),
        (("build", "--vmlinux", "nowhere"), "nowhere: cannot be read"),
        (("import", "nowhere"), "nowhere: cannot be read"),
        (("show", "nowhere"), "nowhere: cannot be read"),
        (("show", "file:nowhere"), "nowhere"),
    ],
)
def test_errors_name_what_is_wrong(run: Run, words: tuple[str, ...], says: str) -> None:
    ran = run("profile", *words)
    assert ran.code == output.ERROR
    assert says in ran.err
    assert ran.err.count("\n") == 1
