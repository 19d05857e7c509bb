from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from tests.llview.native_programs import P, every_statement, flat_walker, list_probe

from yamori.llview import ir
from yamori.llview.c_backend import c_source, essence, host_source
from yamori.llview.ir import END, U64, Local, Program
from yamori.llview.objects import FLAGS, TARGETS, key
from yamori.llview.unit import Unit, row_layout
from yamori.llview.verify import VerifyError


def unit(word_size: int = 8) -> Unit:
    return Unit("demo", (list_probe(word_size), every_statement(word_size)), (flat_walker(),))


@pytest.mark.parametrize("machine", TARGETS)
@pytest.mark.parametrize("word_size", [4, 8])
def test_every_machine_compiles_it_without_warning_and_needs_only_the_contract(
    machine: str, word_size: int, tmp_path: Path
) -> None:
    target = TARGETS[machine]
    if not shutil.which(target.compiler):
        pytest.skip(f"{target.compiler} is not installed")
    files = {"unit": c_source(unit(word_size)), "host": host_source()}
    undefined = {}
    for name, text in files.items():
        source = tmp_path / f"{name}.c"
        source.write_text(text)
        compiled = source.with_suffix(".o")
        subprocess.run([target.compiler, *FLAGS, "-Werror", *target.flags, "-c", source, "-o", compiled], check=True)
        nm = target.compiler.removesuffix("gcc") + "nm"
        listed = subprocess.run([nm, "-u", compiled], check=True, capture_output=True, text=True).stdout.split()
        undefined[name] = {word for word in listed if word not in {"U", "w"}} - {"_GLOBAL_OFFSET_TABLE_"}
    assert undefined == {"unit": {"ll_read", "ll_window"}, "host": set()}


def test_nothing_but_the_two_free_standing_headers_is_included() -> None:
    includes = {line for line in c_source(unit()).splitlines() if line.startswith("#include")}
    assert includes == {"#include <stddef.h>", "#include <stdint.h>"}


def test_statements_name_their_line_and_quote_it() -> None:
    text = c_source(unit(), {P.file: ["", "", "  for item in items:  # */ #error"]})
    assert "/* demo.py:3  for item in items:  # * / #error */" in text
    assert "/somewhere" not in text


def test_comments_do_not_decide_over_the_object() -> None:
    plain, quoting = c_source(unit()), c_source(unit(), {P.file: ["", "", "a line"]})
    assert plain != quoting
    assert essence(plain) == essence(quoting)
    assert key(plain) == key(quoting) != key(c_source(unit(4)))


def test_messages_cannot_leave_their_comment() -> None:
    assert "message 1: * / it is over" in c_source(unit())
    assert "it is over" not in essence(c_source(unit()))


def test_names_that_c_would_take_for_one_or_for_its_own() -> None:
    names = ["for", "a.b", "a_b", "a b", "INT64_MAX", "c", "ll_fault", "é"]
    probe = Program(
        name="names",
        kind="probe",
        word_size=8,
        file="demo.py",
        parameters=[],
        locals=dict.fromkeys(names, U64),
        body=[ir.Assign(place=P, target=Local(name, U64), value=ir.Const(n, U64)) for n, name in enumerate(names)],
    )
    text = c_source(Unit("names", (probe,), ()))
    targets = [line.split("=")[0].strip() for line in text.splitlines() if line.startswith("    v_")]
    assert len(set(targets)) == len(names)


def test_rows_are_words() -> None:
    layout = row_layout(every_statement(8))
    assert layout.words == (1, 1, 9, 1)
    assert layout.stride == 8 * 13


def test_unverified_programs_are_refused() -> None:
    probe = list_probe(8)
    load = ir.LoadVirt(place=P, fault=END, target=Local("number", ir.S32), address=Local("item", U64), size=4)
    probe.body.insert(0, load)
    with pytest.raises(VerifyError, match="not translated"):
        c_source(Unit("demo", (probe,), (flat_walker(),)))


@pytest.mark.parametrize(
    ("walker", "message"),
    [
        (replace(flat_walker(), name="a-b"), "no C identifier"),
        (replace(flat_walker(), slots=[ir.SlotSpec("symbol", "init_task")]), "no slots"),
        (replace(flat_walker(), parameters=[Local(n, U64) for n in ["root", "gva", "bias", *"abcdefgh"]]), "at most 8"),
    ],
)
def test_what_no_native_code_can_have_is_refused(walker: Program, message: str) -> None:
    with pytest.raises(VerifyError, match=message):
        c_source(Unit("demo", (), (walker,)))


def test_a_row_has_no_more_fields_than_its_word_has_bits() -> None:
    probe = replace(list_probe(8), row=[ir.RowField(f"f{i}", U64) for i in range(65)], body=[])
    with pytest.raises(VerifyError, match="at most 64 fields"):
        c_source(Unit("demo", (probe,), ()))
