"""Inference of the account that a process is counted for: made-up credentials of several users."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernel.heap import SIZE, Heap

from yamori.kernel import accounts as inference
from yamori.kernel.deferred import Found
from yamori.kernel.sample import Object, Reader, Sample
from yamori.kernel.types import Member

UID, USER, OWN = 8, 0x80, 0x28
"""Where ``cred.uid``, ``cred.user`` and ``user_struct.uid`` are here."""


def system(memory: Heap, uids: Sequence[int]) -> list[int]:
    """Make credentials, one for each uid of a list, and return where they are."""
    users: dict[int, int] = {}
    namespace = memory.new(64)
    creds = []
    for uid in uids:
        if uid not in users:
            users[uid] = memory.new(128)
            memory.put(users[uid] + OWN, uid, 4)
            memory.put(users[uid], 3, 4)
        cred = memory.new(176)
        for at in range(UID, UID + 32, 4):
            memory.put(cred + at, uid, 4)
        memory.put(cred + USER, users[uid])
        memory.put(cred + USER + memory.word, namespace)
        creds.append(cred)
    return creds


def find(memory: Heap, creds: Sequence[int]) -> Found:
    tasks = [Object(0, bytes(64) + cred.to_bytes(memory.word, "little"), memory.word) for cred in creds]
    reader: Any = Reader(memory.space, memory.init)
    reader.gather = lambda _: Sample([], tasks)
    known = {"uid": Member(UID, 4), "real_parent": Member(0, memory.word), "real_cred": Member(64, memory.word)}
    return inference._find(reader, lambda _, name: known.get(name))


@pytest.mark.parametrize("word", [4, 8])
@pytest.mark.parametrize("uids", [[0, 1000], [0, 0, 0, 33, 33, 1000], [7] * 9 + [0]])
def test_found(word: int, uids: list[int]) -> None:
    memory = Heap(word)
    found = find(memory, system(memory, uids))
    assert {place: member.offset for place, member in found.members.items()} == {
        ("cred", "user"): USER,
        ("user_struct", "uid"): OWN,
    }
    assert found.unknown == {}


@pytest.mark.parametrize("word", [4, 8])
def test_one_that_was_changed_does_not_matter(word: int) -> None:
    memory = Heap(word)
    creds = system(memory, [0, 0, 0, 1000, 1000, 1000, 33, 33])
    memory.put(creds[3] + UID, 0, 4)
    assert find(memory, creds).members["cred", "user"].offset == USER


@pytest.mark.parametrize("word", [4, 8])
def test_zeros_are_not_roots_uid(word: int) -> None:
    """Most processes are root's, and most words of an account are 0."""
    memory = Heap(word)
    assert find(memory, system(memory, [0] * 30 + [1000])).members["user_struct", "uid"].offset == OWN


@pytest.mark.parametrize("uids", [[], [0], [0, 0, 0]])
def test_one_user_tells_nothing(uids: list[int]) -> None:
    memory = Heap(8)
    found = find(memory, system(memory, uids))
    assert found.members == {}
    assert "different users" in found.unknown["cred.user"]


def test_no_account_is_not_guessed() -> None:
    memory = Heap(8)
    creds = system(memory, [0, 1000, 33, 7])
    for cred in creds:
        memory.put(cred + USER, memory.base + 0x100)
    assert find(memory, creds).unknown == {"cred.user": "no offset passes"}


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([4, 8]), st.data())
def test_spoiled_memory_raises_nothing(word: int, data: st.DataObject) -> None:
    memory = Heap(word)
    creds = system(memory, [0, 0, 1000, 33, 1000])
    for _ in range(data.draw(st.integers(1, 30))):
        at = data.draw(st.integers(0, SIZE // word - 1)) * word
        memory.put(memory.base + at, data.draw(st.sampled_from([0, memory.base + at, memory.base, 1000])))
    found = find(memory, creds)
    assert all(0 <= member.offset < inference.CRED_BYTES for member in found.members.values())
