from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from yamori.records import Process, Result, SystemCall, escape, plain


@given(st.binary(max_size=64))
def test_escaped_text_is_printable_and_reversible(text: bytes) -> None:
    escaped = escape(text)
    assert escaped.isascii()
    assert escaped.isprintable() or not escaped
    assert escaped.encode().decode("unicode_escape").encode("latin-1") == text


def test_addresses_are_strings_in_json() -> None:
    row = SystemCall(nr=1, address=0xFFFF_8000_1000_0000, symbol="", offset=0, in_kernel_text=None)
    assert plain(row)["address"] == "0xffff800010000000"
    assert plain(row)["nr"] == 1


def test_result_is_its_rows() -> None:
    result: Result[Process] = Result([], complete=True, reasons=[], faults=0, loads=0, elapsed_s=0.0)
    assert (list(result), len(result)) == ([], 0)
