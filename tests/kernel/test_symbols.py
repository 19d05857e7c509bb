from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from yamori.kernel.symbols import Symbol, Symbols

ROWS = [
    Symbol(0x2000, "T", "late"),
    Symbol(0x1000, "T", "_text"),
    Symbol(0x1000, "t", "_stext"),
    Symbol(0x1800, "D", "données"),
    Symbol(0x2000, "t", "alias\udce9"),
]


def test_symbols_are_sorted_and_keep_the_order_of_the_source_at_one_address() -> None:
    table = Symbols(ROWS, "system.map")
    assert [symbol.name for symbol in table] == ["_text", "_stext", "données", "late", "alias\udce9"]
    assert table.provenance == "system.map"
    assert len(table) == 5


def test_names_are_found_whole_and_whatever_they_hold() -> None:
    table = Symbols(ROWS, "system.map")
    assert all(table.find(row.name) == row for row in ROWS)
    assert table.address("late") == 0x2000
    for absent in ("text", "_tex", "", "_text\n_stext", "lat\ud800"):
        assert table.find(absent) is None
        assert table.address(absent) is None


def test_addresses_are_looked_up() -> None:
    table = Symbols(ROWS, "kallsyms")
    assert table.containing(0xFFF) is None
    assert table.containing(0x1000) == (ROWS[1], 0)
    assert table.containing(0x17FF) == (ROWS[1], 0x7FF)
    assert table.containing(0x9000) == (ROWS[0], 0x7000)
    assert table.aliases(0x2000) == [ROWS[0], ROWS[4]]
    assert table.aliases(0x2001) == []
    assert table.next_address(0x1000) == 0x1800
    assert table.next_address(0x2000) is None


def test_an_empty_table_answers() -> None:
    table = Symbols((), "kallsyms")
    assert (len(table), list(table), table.find("x"), table.containing(1)) == (0, [], None, None)
    assert table.next_address(0) is None


@given(
    st.lists(st.tuples(st.integers(0, (1 << 64) - 1), st.sampled_from("TtDd"), st.text("ab\xe9\u4e00_", min_size=1)))
)
def test_columns_and_rows_give_the_same_table(rows: list[tuple[int, str, str]]) -> None:
    by_rows = Symbols([Symbol(*row) for row in rows], "kallsyms")
    by_columns = Symbols.from_columns(
        [r[0] for r in rows], "".join(r[1] for r in rows), [r[2] for r in rows], "kallsyms"
    )
    assert [tuple(symbol) for symbol in by_columns] == sorted(rows, key=lambda row: row[0])
    assert list(by_rows) == list(by_columns)


def test_more_names_than_are_packed_at_once() -> None:
    table = Symbols([Symbol(at, "t", f"f{at}") for at in range(10_000)], "kallsyms")
    assert table.find("f9999") == Symbol(9999, "t", "f9999")
    assert table.containing(4096) == (Symbol(4096, "t", "f4096"), 0)


@given(st.lists(st.text("ab\u00e9", max_size=4), max_size=30), st.lists(st.text("ab\u00e9", max_size=2), max_size=3))
def test_starting(names: list[str], prefixes: list[str]) -> None:
    rows = [Symbol(number // 2, "t", name) for number, name in enumerate(names)]
    table = Symbols(rows, "kallsyms")
    assert table.starting(prefixes) == [row for row in rows if row.name.startswith(tuple(prefixes))]
