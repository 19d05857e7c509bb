"""``cred.user`` and ``user_struct.uid`` without debug info: whom the kernel counts a process for.

There is one ``user_struct`` for each uid (``alloc_uid`` of ``kernel/user.c``), and ``set_user`` of ``kernel/sys.c``
changes a process's together with its uid: so two processes have the same one if, and only if, they have the same uid,
and the uid that it holds is theirs. At least two different uids are needed to see that.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import NamedTuple

from yamori.kernel.deferred import Finder, Found
from yamori.kernel.init_task import InitTask
from yamori.kernel.invariants import enough
from yamori.kernel.sample import Family, Object, Reader
from yamori.kernel.types import Member
from yamori.translation.space import AddressSpace

CRED_BYTES = 256
USER_BYTES = 256
LEAST_UIDS = 2

MEMBERS = (("cred", "user"), ("user_struct", "uid"))

Lookup = Callable[[str, str], Member | None]


class _Account(NamedTuple):
    uid: int
    cred: Object


def accounts(space: AddressSpace, init: InitTask, known: Lookup) -> Finder:
    """Return what finds these members.

    Args:
        space: The kernel's address space.
        init: ``init_task``.
        known: Where members lie by other sources: where credentials do, at least.
    """
    return Finder(MEMBERS, (), lambda: _find(Reader(space, init), known))


def _find(reader: Reader, known: Lookup) -> Found:
    found = Found({}, {}, {})
    uid = known("cred", "uid")
    sample = [_Account(cred.u32(uid.offset), cred) for cred in _creds(reader, known)] if uid else []
    if len({one.uid for one in sample}) < LEAST_UIDS or uid is None:
        found.unknown["cred.user"] = "there are no programs of different users"
        return found
    word = reader.word_size
    for offset in range(-(-uid.offset // word) * word, CRED_BYTES, word):
        if _separates(sample, offset) and (place := _uid_in(reader, sample, offset)) is not None:
            found.members["cred", "user"] = Member(offset, word)
            found.members["user_struct", "uid"] = Member(place, 4)
            return found
    found.unknown["cred.user"] = "no offset passes"
    return found


def _creds(reader: Reader, known: Lookup) -> Iterator[Object]:
    """Yield the credentials of programs, one each."""
    parent, real = known("task_struct", "real_parent"), known("task_struct", "real_cred")
    if parent is None or real is None:
        return
    for task in reader.gather(Family(parent.offset, reader.word_size)).users:
        cred = reader.object(task.word(real.offset), CRED_BYTES)
        if cred:
            yield cred


def _usual(sample: list[_Account], offset: int) -> dict[int, int]:
    """Return the word at ``offset`` that most credentials of each uid have."""
    words: dict[int, list[int]] = defaultdict(list)
    for one in sample:
        words[one.uid].append(one.cred.word(offset))
    return {uid: max(set(found), key=found.count) for uid, found in words.items()}


def _separates(sample: list[_Account], offset: int) -> bool:
    """Say whether what lies at ``offset`` is the same for the same uid, and different for another."""
    usual = _usual(sample, offset)
    agree = sum(one.cred.word(offset) == usual[one.uid] for one in sample)
    return 0 not in usual.values() and len(set(usual.values())) == len(usual) and enough(agree, len(sample))


def _uid_in(reader: Reader, sample: list[_Account], offset: int) -> int | None:
    """Return where the objects that ``offset`` leads to hold the uid, each uid counted once: most are of root."""
    usual = _usual(sample, offset)
    pairs = [
        (uid, user)
        for uid, at in usual.items()
        if reader.is_address(at) and (user := reader.object(at, USER_BYTES)) is not None
    ]
    if len(pairs) < LEAST_UIDS or not enough(len(pairs), len(usual)):
        return None
    places = range(0, USER_BYTES, 4)  # the first that fits: what lies behind may be another object
    return next((at for at in places if enough(sum(user.u32(at) == uid for uid, user in pairs), len(pairs))), None)
