from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yamori.detectors.known_trouble import CAVEAT, KnownTrouble, Trouble, known_trouble
from yamori.errors import YamoriError
from yamori.probes.banner_text import parse

DEBIAN = (
    "Linux version 6.1.0-50-armmp (debian-kernel@lists.debian.org) (arm-linux-gnueabihf-gcc-12 (Debian "
    "12.2.0-14+deb12u1) 12.2.0, GNU ld (GNU Binutils for Debian) 2.40) #1 SMP Debian 6.1.{}-1 (2026-07-03)"
)
VEX = "https://openvex.dev/ns/v0.2.0"


def banner(release: str, compiler: str = "gcc version 12.2.0 (GCC) ") -> str:
    return f"Linux version {release} (a@b) ({compiler}) #1 SMP Wed Feb 5 10:00:00 CST 2020"


def osv(number: str, *ranges: list[dict[str, str]], **more: Any) -> dict[str, Any]:
    spans = [{"type": "ECOSYSTEM", "events": events} for events in ranges]
    affected = {"package": {"ecosystem": "Linux", "name": "Kernel"}, "ranges": spans}
    return {"schema_version": "1.7.0", "id": number, "summary": f"about {number}", "affected": [affected], **more}


def vex(*statements: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"@context": VEX, "@id": "https://maker.example/vex/1", "author": "maker", "statements": statements, **more}


def statement(number: str, status: str, product: Any = "pkg:generic/linux", **more: Any) -> dict[str, Any]:
    products = [{"@id": product}] if isinstance(product, str) else [product]
    return {"vulnerability": {"name": number}, "status": status, "products": products, **more}


def check(tmp_path: Path, *documents: Any, text: str = DEBIAN.format(100)) -> Trouble:
    for index, document in enumerate(documents):
        (tmp_path / f"{index}.json").write_text(document if isinstance(document, str) else json.dumps(document))
    return known_trouble(parse(text), "arm", tmp_path)


def ids(found: list[KnownTrouble]) -> set[str]:
    return {trouble.id for trouble in found}


def test_a_current_debian_kernel_is_compared_by_its_package() -> None:
    trouble = known_trouble(parse(DEBIAN.format(176)), "arm")
    assert (trouble.version, trouble.version_source) == ("6.1.176", "Debian package")
    assert (trouble.known, trouble.silenced, trouble.unchecked, trouble.skipped) == ([], [], [], [])
    assert trouble.caveat == CAVEAT


def test_an_old_kernel_and_its_compiler() -> None:
    trouble = known_trouble(parse(banner("3.18.20", "gcc version 4.8.1 20130401 (prerelease) (Linaro) ")), "armv7")
    found = {each.id: each for each in trouble.known}
    assert {"CVE-2016-5195", "CVE-2017-18017", "GCC-PR58854"} <= set(found)
    assert "CVE-2022-0847" not in found
    cow = found["CVE-2016-5195"]
    assert cow.why == "3.18.20 is in the range from 2.6.22-rc1 to 3.18.44, the 3.18 release with the fix"
    assert cow.remedy == "update the kernel to 3.18.44 or later"
    assert cow.source == "https://git.kernel.org/linus/19be0eaffa3ac7d8eb6784ad9bdbc7d67ed8e619"
    assert found["GCC-PR58854"].why.startswith("built with GCC 4.8.1; 4.8.0 up to, not including, 4.8.3")
    assert trouble.known[0].severity == "critical"


def test_a_series_that_never_got_the_fix_says_so() -> None:
    trouble = known_trouble(parse(banner("5.9.16")), "arm64")
    (pipe,) = [each for each in trouble.known if each.id == "CVE-2022-0847"]
    assert "the 5.9 series never got it upstream" in pipe.why
    assert pipe.remedy == "move to a maintained series; mainline has the fix since 5.17-rc6"


def test_nothing_is_claimed_of_a_series_that_could_not_be_verified() -> None:
    trouble = known_trouble(parse(banner("3.10.108")), "arm")
    assert "CVE-2017-6074" in trouble.unchecked
    assert ids(trouble.known).isdisjoint(trouble.unchecked)


def test_a_distribution_that_counts_from_zero_gets_a_warning() -> None:
    assert "likely too long" in known_trouble(parse(banner("4.18.0-425.el8.x86_64")), "x86_64").caveat


@pytest.mark.parametrize("text", ["", "not Linux", banner("custom")])
def test_without_a_version_nothing_is_compared(text: str) -> None:
    trouble = known_trouble(parse(text), "arm")
    assert (trouble.version, trouble.known) == ("", [])
    assert trouble.caveat == "The banner names no upstream version, so no vulnerability could be compared."


@pytest.mark.parametrize(
    ("events", "affected"),
    [
        ([{"introduced": "0"}], True),
        ([{"introduced": "0"}, {"fixed": "6.1.100"}], False),
        ([{"introduced": "6.1.0"}, {"fixed": "6.1.101"}], True),
        ([{"introduced": "6.1.100"}], True),
        ([{"introduced": "6.2"}], False),
        ([{"introduced": "6.1-rc3"}, {"last_affected": "6.1.100"}], True),
        ([{"introduced": "6.1-rc3"}, {"last_affected": "6.1.99"}], False),
        ([{"fixed": "6.1.50"}, {"introduced": "5.10"}, {"introduced": "6.1.90"}], True),
        ([{"introduced": "5.10"}, {"fixed": "6.1.100"}, {"introduced": "6.1.100"}], True),
        ([], False),
    ],
)
def test_osv_ranges(tmp_path: Path, events: list[dict[str, str]], affected: bool) -> None:
    trouble = check(tmp_path, osv("CVE-1", events))
    assert ("CVE-1" in ids(trouble.known)) == affected
    assert trouble.compared_advisories == 1
    assert trouble.skipped == []


def test_an_osv_record_becomes_trouble(tmp_path: Path) -> None:
    record = osv(
        "CVE-1",
        [{"introduced": "4.9"}, {"fixed": "5.10.2"}],
        [{"introduced": "5.11.0"}, {"fixed": "6.1.150"}],
        database_specific={"severity": "CRITICAL"},
    )
    first = check(tmp_path, record).known[0]
    assert (first.id, first.kind, first.severity, first.title) == ("CVE-1", "advisory", "critical", "about CVE-1")
    assert first.why == "6.1.100 is affected: 5.11.0 and later before 6.1.150"
    assert (first.remedy, first.source) == ("update the kernel to 6.1.150 or later", "0.json")


def test_osv_records_that_do_not_count(tmp_path: Path) -> None:
    everything = [{"introduced": "0"}]
    elsewhere = osv("CVE-3", everything)
    elsewhere["affected"][0]["package"] = {"ecosystem": "Debian:12", "name": "linux"}
    listed = osv("CVE-4")
    listed["affected"][0]["versions"] = ["6.1.99", "6.1.100"]
    nulls = osv("CVE-5", everything, aliases=None, details=None)
    trouble = check(tmp_path, osv("CVE-2", everything, withdrawn="2024-01-01T00:00:00Z"), elsewhere, listed, nulls)
    assert {"CVE-2", "CVE-3", "CVE-4", "CVE-5"} & ids(trouble.known) == {"CVE-4", "CVE-5"}
    assert (trouble.compared_advisories, trouble.skipped) == (2, [])


def test_the_packaged_table_and_an_advisory_on_the_same_are_told_once(tmp_path: Path) -> None:
    same = [
        osv("GHSA-1", [{"introduced": "0"}], aliases=["CVE-2026-31431"]),
        osv("CVE-2026-31431", [{"introduced": "0"}]),
    ]
    numbers = [trouble.id for trouble in check(tmp_path, *same).known]
    assert numbers.count("CVE-2026-31431") == 1
    assert "GHSA-1" not in numbers


def test_bad_files_are_left_out_and_named_with_the_place(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not read")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "bytes.json").write_bytes(b'{"id": "\xff\xfe"}')
    git = osv("CVE-6")
    git["affected"][0]["ranges"] = [{"type": "GIT", "events": [{"introduced": "0"}]}]
    trouble = check(
        tmp_path,
        '{"id": "CVE-1", ',
        '{"id": 7}',
        osv("CVE-2", [{"introduced": "yesterday"}]),
        "[" * 100_000,
        "{}",
        git,
        osv("CVE-7", [{"introduced": "0"}]),
    )
    assert "CVE-7" in ids(trouble.known)
    places = ["truncated", "$.id", "ranges[0]: 'yesterday' is not a version of the kernel", "", "neither", "commits"]
    for index, place in enumerate(places):
        (line,) = [line for line in trouble.skipped if line.startswith(f"{index}.json: ")]
        assert place in line
    assert any(line.startswith("below/bytes.json: ") for line in trouble.skipped)
    assert len(trouble.skipped) == 7


def test_a_directory_that_is_none_is_an_error(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path / "file"):
        (tmp_path / "file").write_text("")
        with pytest.raises(YamoriError, match=f"{path.name}: cannot list the advisories"):
            known_trouble(parse(DEBIAN), "arm", path)


@pytest.mark.parametrize(
    ("product", "matches"),
    [
        ("pkg:generic/linux", True),
        ("pkg:generic/linux@6.1.100", True),
        ("pkg:generic/linux@6.1.100?arch=armhf#x", True),
        ("pkg:generic/linux@6.1.101", False),
        ("pkg:deb/debian/linux@6.1.100-1", True),
        ("pkg:deb/debian/linux@6.1.100-2", False),
        ("pkg:deb/debian/linux-image-6.1.0-50-armmp@6.1.100-1?arch=armhf", True),
        ("pkg:generic/kernel@6.1.0-50-armmp", True),
        ("pkg:github/torvalds/linux@v6.1.100", True),
        ("pkg:generic/busybox@6.1.100", False),
        ("pkg:generic/acme-gateway@2", False),
        ("cpe:2.3:o:linux:linux_kernel:6.1.100:*:*:*:*:*:*:*", True),
        ("cpe:2.3:o:linux:linux_kernel:*:*:*:*:*:*:*:*", True),
        ("cpe:2.3:o:linux:linux_kernel:6.1.99:*:*:*:*:*:*:*", False),
        ("cpe:/o:linux:linux_kernel:6.1.100", True),
        ({"@id": "pkg:generic/acme-gateway@2", "subcomponents": [{"@id": "pkg:generic/linux"}]}, True),
        ({"@id": "acme", "identifiers": {"purl": "pkg:generic/linux@6.1.100"}}, True),
    ],
)
def test_openvex_products(tmp_path: Path, product: Any, matches: bool) -> None:
    trouble = check(tmp_path, vex(statement("CVE-2026-31431", "fixed", product)))
    assert ("CVE-2026-31431" in ids(trouble.silenced)) == matches
    assert ("CVE-2026-31431" in ids(trouble.known)) != matches


def test_what_is_silenced_is_kept_with_the_reason(tmp_path: Path) -> None:
    said = statement(
        "CVE-1",
        "not_affected",
        justification="vulnerable_code_not_in_execute_path",
        impact_statement="nf_tables is not built in",
    )
    trouble = check(tmp_path, vex(said), osv("CVE-1", [{"introduced": "0"}]))
    (silenced,) = trouble.silenced
    assert silenced.id == "CVE-1"
    assert silenced.silenced_by == (
        "0.json: not_affected (vulnerable_code_not_in_execute_path: nf_tables is not built in)"
    )


@pytest.mark.parametrize(
    ("status", "silences"),
    [("fixed", True), ("not_affected", True), ("affected", False), ("under_investigation", False)],
)
def test_openvex_statuses(tmp_path: Path, status: str, silences: bool) -> None:
    trouble = check(tmp_path, vex(statement("CVE-2026-31431", status)))
    assert ("CVE-2026-31431" in ids(trouble.silenced)) == silences


def test_the_latest_openvex_statement_counts(tmp_path: Path) -> None:
    number = "CVE-2026-31431"
    trouble = check(
        tmp_path,
        vex(statement(number, "affected", timestamp="2026-06-01T10:00:00.123456789+02:00")),
        vex(statement(number, "not_affected"), timestamp="2026-05-01T00:00:00Z"),
        vex(statement(number, "fixed", timestamp="never")),
    )
    assert number in ids(trouble.known)


def test_openvex_by_alias_and_in_its_first_version(tmp_path: Path) -> None:
    alias = statement("GHSA-9", "fixed")
    alias["vulnerability"]["aliases"] = ["CVE-2026-31431"]
    plain = {"vulnerability": "CVE-2026-43284", "products": ["pkg:generic/linux"], "status": "fixed"}
    page = {"vulnerability": {"@id": "https://nvd.example/CVE-1"}, "products": ["pkg:generic/linux"], "status": "fixed"}
    record = osv("OTHER-1", [{"introduced": "0"}], aliases=["CVE-1"])
    assert ids(check(tmp_path, vex(alias, plain, page), record).silenced) >= {
        "CVE-2026-31431",
        "CVE-2026-43284",
        "OTHER-1",
    }


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["id", "@context", "statements", "affected", "package", "ranges", "events", "products", "@id"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(document=st.one_of(JSON.map(lambda value: json.dumps(value).encode()), st.binary(max_size=60)))
def test_no_file_raises(tmp_path_factory: pytest.TempPathFactory, document: bytes) -> None:
    directory = tmp_path_factory.mktemp("advisories")
    (directory / "a.json").write_bytes(document)
    trouble = known_trouble(parse(DEBIAN.format(176)), "arm", directory)
    assert trouble.known == []
    assert len(trouble.skipped) <= 1


def test_ten_thousand_files_take_seconds(tmp_path: Path) -> None:
    content = json.dumps(osv("CVE-1", *[[{"introduced": f"{n}.1"}, {"fixed": f"{n}.9"}] for n in range(3, 12)]))
    for index in range(10_000):
        (tmp_path / f"CVE-{index}.json").write_text(content.replace("CVE-1", f"CVE-{index}"))
    started = time.process_time()
    assert known_trouble(parse(DEBIAN.format(176)), "arm", tmp_path).compared_advisories == 10_000
    assert time.process_time() - started < 10


def test_importing_reads_no_table() -> None:
    code = (
        "import yamori.detectors.known_trouble, yamori.detectors.trouble_tables as t;"
        "print(t.vulnerabilities.cache_info().currsize)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "0\n"
