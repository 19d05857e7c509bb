"""Binding: what a profile says badly, or not at all, is refused, and never read as something else."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.kernel.synthetic import X86, build
from tests.llview.sources import probe, program

from yamori.errors import ProfileError
from yamori.kernel.binding import bind
from yamori.kernel.discovery import discover
from yamori.kernel.profile import Profile
from yamori.kernel.types import Member, Provenance


class Stated:
    """A source of types that says what it is told to."""

    provenance: Provenance = "btf"

    def __init__(self, **members: Member) -> None:
        self.members = members

    def member(self, struct: str, path: str) -> Member | None:
        return self.members.get(path) if struct in {"item", "inner"} else None

    def size(self, struct: str) -> int | None:
        return 64 if struct in {"item", "inner"} else None


@pytest.fixture(scope="module")
def profile() -> Profile:
    return discover(build(X86).memory()).profile


def bound(profile: Profile, body: str, **members: Member) -> dict[str, object]:
    found = program(probe(f"n = at(item, ulong(4096))\n{body}"))
    fills = bind(found, replace(profile, types=(Stated(**members),)))
    return {str(spec): fill for spec, fill in zip(found.slots, fills, strict=True)}


@pytest.mark.parametrize(
    "member", [Member(8, 4, shift=30, bits=8), Member(8, 4, shift=-1, bits=3), Member(8, 4, bits=-1)]
)
def test_a_bit_field_that_leaves_its_unit_cannot_be_loaded(profile: Profile, member: Member) -> None:
    with pytest.raises(ProfileError, match=r"item.number has 0 bytes on this kernel, so that it is no number"):
        bound(profile, "emit(a=n.number)", number=member)
    assert bound(profile, "emit(a=address_of(n.inside))", inside=member)["item.inside"] == (True, 8, 0, False, 0, 0, 0)


def test_a_bit_field(profile: Profile) -> None:
    fill = bound(profile, "emit(a=n.number)", number=Member(8, 4, signed=True, shift=24, bits=8))["item.number"]
    assert fill == (True, 8, 4, True, 24, 8, 0)


def test_elements_are_as_large_as_declared(profile: Profile) -> None:
    fill = bound(profile, "emit(a=n.table[1])", table=Member(8, 16, stride=4))["item.table"]
    assert fill == (True, 8, 16, False, 0, 0, 4)
    with pytest.raises(
        ProfileError, match=r"item.table has elements of 2 bytes on this kernel, and the probe declares 4.*u16"
    ):
        bound(profile, "emit(a=n.table[1])", table=Member(8, 16, stride=2))
    with pytest.raises(ProfileError, match=r"item.links has elements of 4 bytes .* declares 8"):
        bound(profile, "emit(a=n.links[1].number)", links=Member(8, 16, stride=4), number=Member(0, 4))


def test_structures_in_an_array_are_as_large_as_the_kernel_says(profile: Profile) -> None:
    fill = bound(profile, "p = address_of(n.insides[1])\nemit(a=p)", insides=Member(8, 160, stride=40))["item.insides"]
    assert fill == (True, 8, 160, False, 0, 0, 40)


def test_an_array_of_elements_of_no_known_size_is_not_known(profile: Profile) -> None:
    with pytest.raises(ProfileError, match=r"item.table"):
        bound(profile, "emit(a=n.table[1])", table=Member(8, 16))
    assert bound(profile, "emit(a=n.table[1] if exists(n.table) else 0)", table=Member(8, 16))["item.table"] == (
        False, 0, 0, False, 0, 0, 0,
    )  # fmt: skip


MISFITS = [
    ("emit(a=n.number)", {"number": Member(8, 8)}, "has 64 bits .*, and the probe's number has 32.*declare u64"),
    ("emit(a=n.number)", {"number": Member(8, 8, signed=True)}, "declare s64"),
    ("emit(a=n.number)", {"number": Member(8, 16)}, "has 16 bytes on this kernel, so that it is no number"),
    ("emit(a=n.small)", {"small": Member(8, 4, shift=3, bits=9)}, "has 9 bits on this kernel.*has 8"),
    ("emit(a=n.next.number)", {"next": Member(8, 4), "number": Member(0, 4)}, "so that it is no pointer"),
    ("emit(a=n.inside.left)", {"inside": Member(8, 8), "left": Member(0, 4)}, r"8 b.*, and inner has 64.*Ptr\[inner"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "members", "message"), MISFITS)
def test_what_would_give_wrong_values_is_refused(
    profile: Profile, body: str, members: dict[str, Member], message: str
) -> None:
    with pytest.raises(ProfileError, match=message):
        bound(profile, body, **members)


def test_what_is_something_else_does_not_exist(profile: Profile) -> None:
    body = "if exists(n.inside):\n    emit(a=n.inside.left)\nelse:\n    emit(a=u32(n.number))"
    fills = bound(profile, body, inside=Member(8, 4), left=Member(0, 4), number=Member(8, 4))
    assert fills["item.inside"] == (False, 0, 0, False, 0, 0, 0)
    fills = bound(profile, body, inside=Member(8, 64), left=Member(0, 4), number=Member(8, 4))
    assert fills["item.inside"] == (True, 8, 64, False, 0, 0, 0)


FITS = [
    ("emit(a=n.number)", {"number": Member(8, 2)}),
    ("emit(a=n.small)", {"small": Member(8, 4, shift=3, bits=8)}),
    ("emit(a=n.flag)", {"flag": Member(8, 8)}),
    ("emit(a=n.next.number)", {"next": Member(8, 8), "number": Member(0, 4)}),
]


@pytest.mark.parametrize(("body", "members"), FITS)
def test_what_fits_is_bound(profile: Profile, body: str, members: dict[str, Member]) -> None:
    assert bound(profile, body, **members)


def test_all_that_is_missing_is_named(profile: Profile) -> None:
    with pytest.raises(ProfileError, match=r"run needs item.number, item.small, which is not known of this kernel"):
        bound(profile, "emit(a=n.number, b=n.small)")
