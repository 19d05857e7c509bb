"""System.map and copies of /proc/kallsyms."""

from __future__ import annotations

from pathlib import Path

import pytest

from yamori.errors import ProfileError
from yamori.kernel import systemmap
from yamori.kernel.symbols import Symbol


def _file(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "System.map"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_system_map(tmp_path: Path) -> None:
    text = "0000000000000000 A fixed_percpu_data\nffffffff81000000 T _text\nffffffff81000000 T startup_64\n"
    symbols = systemmap.load(_file(tmp_path, text + "ffffffff82e12a40 D init_task\n"))
    assert symbols.find("init_task") == Symbol(0xFFFFFFFF82E12A40, "D", "init_task")
    assert [symbol.name for symbol in symbols] == ["fixed_percpu_data", "_text", "startup_64", "init_task"]
    assert symbols.provenance == "system.map"


def test_32_bit(tmp_path: Path) -> None:
    assert systemmap.load(str(_file(tmp_path, "c0008000 T stext"))).address("stext") == 0xC0008000


def test_kallsyms_without_its_modules(tmp_path: Path) -> None:
    text = "ffff800008000000 T _stext\nffff80000a000000 t helper\t[virtio_net]\nffff80000a000010 t prog\t[bpf]\n"
    assert [symbol.name for symbol in systemmap.load(_file(tmp_path, text))] == ["_stext"]


def test_debian_stub(tmp_path: Path) -> None:
    text = "ffffffffffffffff B The real System.map is in the linux-image-<version>-dbg package\n"
    with pytest.raises(
        ProfileError, match=r"only a stub; the real System.map is in the linux-image-<version>-dbg package"
    ):
        systemmap.load(_file(tmp_path, text))


def test_hidden_addresses(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="kptr_restrict"):
        systemmap.load(_file(tmp_path, "0000000000000000 T _text\n0000000000000000 T _stext\n"))


@pytest.mark.parametrize(
    "line",
    [
        "",
        "c0008000 T",
        "c0008000 T stext more",
        "c0008000 TT stext",
        "c000800 T stext",
        "c0_08000 T stext",
        "0xc00800 T stext",
        "         U printk",
        "c0008000 T na\x00me",
        "c0008000 T näme",
        "c0008000 T stext [bpf",
    ],
)
def test_line_that_does_not_belong(tmp_path: Path, line: str) -> None:
    path = _file(tmp_path, f"c0008000 T stext\n{line}\n")
    with pytest.raises(ProfileError, match="not a line of the form") as caught:
        systemmap.load(path)
    assert caught.value.where == f"{path}:2"
    assert "\n" not in str(caught.value)


def test_what_is_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="cannot be read"):
        systemmap.load(tmp_path / "none")
    with pytest.raises(ProfileError, match="cannot be read"):
        systemmap.load(tmp_path)
    with pytest.raises(ProfileError, match="no symbols"):
        systemmap.load(_file(tmp_path, ""))
    with pytest.raises(ProfileError, match="not a line"):
        systemmap.load(_file(tmp_path, b"\x7fELF\x02\x01\xff\xfe"))
