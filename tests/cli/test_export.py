"""``yamori export`` as a user meets it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from tests.cli.conftest import Run
from tests.kernel.synthetic import ARM, ARM64, BANNER, X86, Machine, build

from yamori.cli import output
from yamori.exports.xvisor import CORE, NAMES


def target(machine: Machine, folder: Path) -> tuple[str, ...]:
    path = folder / f"{machine.name}.raw"
    path.write_bytes(build(machine).ram)
    return f"file:{path}", "--ram-base", f"{machine.base:#x}"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("machine", [ARM64, ARM], ids=lambda machine: machine.name)
def test_a_directory_is_written(machine: Machine, run: Run, tmp_path: Path) -> None:
    out = tmp_path / "ids"
    ran = run("export", "xvisor", *target(machine, tmp_path), "--out", out)
    assert (ran.code, ran.out) == (0, "")
    assert ran.err.count("\n") == 1
    assert f"written: {out} (8 files)" in ran.err
    assert names(out) == sorted([*NAMES, *CORE])
    assert BANNER in (out / "README.md").read_text()
    assert names(tmp_path) == [f"{machine.name}.raw", "ids"]


def test_json_names_the_files_and_their_digests(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "ids"
    answer = run("export", "xvisor", *target(ARM64, tmp_path), "--out", out, "--json").json()
    assert answer["command"] == "export xvisor"
    assert answer["banner"] == BANNER
    assert [row["name"] for row in answer["rows"]] == names(out)
    for row in answer["rows"]:
        data = (out / row["name"]).read_bytes()
        assert (row["size"], row["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())


def test_only_what_it_wrote_is_replaced_and_only_if_told(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "ids"
    out.mkdir()
    given = ("export", "xvisor", *target(ARM64, tmp_path), "--out", out)
    assert run(*given).code == 0
    (out / "ids_core.c").write_text("old")
    refused = run(*given)
    assert (refused.code, refused.err.count("\n")) == (output.ERROR, 1)
    assert "--force" in refused.err
    assert (out / "ids_core.c").read_text() == "old"
    assert run(*given, "--force").code == 0
    assert (out / "ids_core.c").read_text() != "old"
    (out / "mine").write_text("mine")
    kept = run(*given, "--force")
    assert kept.code == output.ERROR
    assert "choose another directory" in kept.err
    assert (out / "mine").read_text() == "mine"


def test_nothing_is_half_written(run: Run, tmp_path: Path) -> None:
    for wanted in (tmp_path / "missing" / "ids", tmp_path / f"{ARM64.name}.raw"):
        ran = run("export", "xvisor", *target(ARM64, tmp_path), "--out", wanted)
        assert (ran.code, ran.out, ran.err.count("\n")) == (output.ERROR, "", 1)
        assert "cannot be written" in ran.err
    other = run("export", "xvisor", *target(X86, tmp_path), "--out", tmp_path / "ids")
    assert other.code == output.ERROR
    assert "do not run x86_64" in other.err
    assert names(tmp_path) == [f"{ARM64.name}.raw", f"{X86.name}.raw"]


def test_it_has_to_be_told_where_to(run: Run, tmp_path: Path) -> None:
    ran = run("export", "xvisor", *target(ARM64, tmp_path))
    assert (ran.code, ran.err.count("\n")) == (output.ERROR, 1)
    assert "--out" in ran.err
