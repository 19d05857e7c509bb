"""``import yamori`` is quick: it pulls in nothing heavy. The commands do so only when they are run."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"typer", "click", "rich", "elftools", "qemu", "hypothesis", "asyncio"}


def modules_after(statement: str) -> set[str]:
    program = f"{statement}\nimport sys\nprint(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60)
    return set(ran.stdout.split())


def test_package_imports_nothing_but_its_errors() -> None:
    loaded = modules_after("import yamori")
    assert not {name.partition(".")[0] for name in loaded} & HEAVY
    assert {name for name in loaded if name.startswith("yamori")} == {"yamori", "yamori.errors"}


def test_api_is_imported_on_first_use_and_without_the_commands() -> None:
    loaded = modules_after("import yamori; yamori.open")
    assert "yamori.guest" in loaded
    assert not {name.partition(".")[0] for name in loaded} & (HEAVY - {"asyncio"})
    assert not {name for name in loaded if name.startswith(("yamori.cli", "yamori.lab"))}


def test_help_does_not_wait_for_what_it_does_not_need() -> None:
    loaded = modules_after("import yamori.cli.app")
    rooms = {".".join(name.split(".")[:2]) for name in loaded if name.startswith("yamori.")}
    assert rooms == {"yamori.cli", "yamori.errors", "yamori.lab", "yamori.probes", "yamori.records"}
    assert {name for name in loaded if name.startswith("yamori.probes")} == {"yamori.probes", "yamori.probes.listings"}
    assert {name for name in loaded if name.startswith("yamori.lab")} == {"yamori.lab", "yamori.lab.devices"}
    assert not loaded & {"asyncio", "rich.console", "rich.table", "rich.progress"}


def test_entry_point_imports_next_to_nothing_before_it_minds_ctrl_c() -> None:
    loaded = modules_after("import yamori.cli.main")
    assert {name for name in loaded if name.startswith("yamori")} == {
        "yamori", "yamori.errors", "yamori.cli", "yamori.cli.main",
    }  # fmt: skip
    assert not {name.partition(".")[0] for name in loaded} & HEAVY
    assert not loaded - modules_after("import signal") & {"typing", "re", "pathlib"}


def test_unknown_name_is_an_attribute_error() -> None:
    import yamori  # noqa: PLC0415  # the others look at fresh interpreters

    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = yamori.nothing
