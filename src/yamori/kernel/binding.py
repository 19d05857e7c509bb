"""Binding: the slots of a program, filled from what is known of one guest's kernel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from yamori.errors import ProfileError
from yamori.kernel.profile import Profile
from yamori.kernel.types import Member
from yamori.llview.ir import Declared, Program, SlotSpec
from yamori.llview.machine import SlotFill
from yamori.llview.needs import needed

MISSING = SlotFill(exists=False)
MOST = (1 << 64) - 1
_INTEGERS = frozenset({1, 2, 4, 8})
MOST_BYTES = 1 << 20  # no member is larger

_WORDS: Mapping[tuple[str, str], int] = {
    ("list_head", "next"): 0,
    ("list_head", "prev"): 1,
    ("hlist_head", "first"): 0,
    ("hlist_node", "next"): 0,
    ("hlist_node", "pprev"): 1,
    ("rb_root", "rb_node"): 0,
    ("rb_node", "__rb_parent_color"): 0,
    ("rb_node", "rb_right"): 1,
    ("rb_node", "rb_left"): 2,
}
"""Members of structures of a few words that have been the same since long before 3.10 and that ``CONFIG_RANDSTRUCT``
leaves alone (``include/linux/types.h``, ``rbtree.h``), counted in words; for where no source of types has them."""

MOST_NAMED = 3
"""Members that an error names."""


def bind(program: Program, profile: Profile) -> list[SlotFill]:
    """Fill the slots of a program.

    Raises:
        ProfileError: Something that the program needs here, whatever ``exists`` says, is not known of this kernel.
    """
    fills = [_fill(spec, profile) for spec in program.slots]
    for slot, spec in enumerate(program.slots):
        # As bpf_core_field_exists() of CO-RE: what is something else under that name is not there.
        if spec.optional and fills[slot].exists and any(_misfits(spec, fills[slot], profile)):
            fills[slot] = MISSING
    used = sorted(needed(program.body, fills))
    missing = [program.slots[slot] for slot in used if not fills[slot].exists]
    if missing:
        # The profile knows best what to say: a guest that still boots, a layout that was refused.
        if len(missing) == 1 or profile.booting:
            for spec in missing:
                if spec.kind == "member":
                    profile.require(spec.owner, spec.path)
        names = [*dict.fromkeys(map(str, missing))]
        more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        raise ProfileError(
            f"{program.name} needs {', '.join(names[:MOST_NAMED])}{more}, which is not known of this kernel",
            hint="give the maker's vmlinux with --vmlinux; `yamori doctor` shows what is known",
        )
    for slot in used:
        spec = program.slots[slot]
        for wrong, instead in _misfits(spec, fills[slot], profile):
            raise ProfileError(f"{spec} {wrong}", where=program.name, hint=f"declare {instead}" if instead else "")
    return fills


def _misfits(spec: SlotSpec, fill: SlotFill, profile: Profile) -> Iterator[tuple[str, str]]:
    """Yield how a kernel's member differs from what the probe declares, where that gives wrong values."""
    declared = spec.declared or Declared("text")
    if declared.kind == "number":
        has = fill.bits or fill.size * 8
        if not fill.bits and fill.size not in _INTEGERS:
            yield (
                f"has {fill.size} bytes on this kernel, so that it is no number",
                "CharArray, or the structure that it is",
            )
        elif declared.size and has > declared.size * 8:
            wrong = f"has {has} bits on this kernel, and the probe's number has {declared.size * 8}"
            yield wrong, f"{'s' if fill.signed else 'u'}{fill.size * 8}"
    elif declared.kind == "pointer" and fill.size != declared.size:
        yield (
            f"has {fill.size} bytes on this kernel, so that it is no pointer",
            "the number, or the structure, that it is",
        )
    elif declared.kind == "array" and declared.size and fill.stride != declared.size:
        wrong = f"has elements of {fill.stride} bytes on this kernel, and the probe declares {declared.size}"
        yield wrong, f"an array of u{fill.stride * 8}" if fill.stride in _INTEGERS else ""
    elif declared.kind == "struct":
        size = next((size for types in profile.types if (size := types.size(declared.name))), 0)
        if 0 < fill.size < size:
            wrong = f"has {fill.size} bytes on this kernel, and {declared.name} has {size}"
            yield wrong, f"Ptr[{declared.name}]" if fill.size == profile.init.word_size else "another type"


def fixed(spec: SlotSpec) -> bool:
    """Say whether every kernel has a member at the same place, so that no source needs to know it."""
    return (spec.owner, spec.path) in _WORDS


def _fill(spec: SlotSpec, profile: Profile) -> SlotFill:
    return {"member": _member, "symbol": _symbol, "sizeof": _sizeof}[spec.kind](spec, profile)


def _member(spec: SlotSpec, profile: Profile) -> SlotFill:
    member = profile.member(spec.owner, spec.path)
    if member is None:
        index = _WORDS.get((spec.owner, spec.path))
        if index is None:
            return MISSING
        word = profile.init.word_size
        member = Member(index * word, word)
    if spec.declared and spec.declared.kind == "array" and not member.stride:
        return MISSING  # its elements' size is not known, or it is no array
    return _sound(member)


def _sound(member: Member) -> SlotFill:
    """Return a member's slot. BTF is the guest's own word, and may say anything: then a load of it faults."""
    fits = member.shift >= 0 and 0 <= member.bits <= member.size * 8 - member.shift
    return SlotFill(
        exists=True,
        offset=member.offset & MOST,
        size=min(member.size & MOST, MOST_BYTES) if fits else 0,
        signed=member.signed,
        shift=member.shift if fits and member.bits else 0,
        bits=member.bits if fits else 0,
        stride=member.stride & MOST,
    )


def _symbol(spec: SlotSpec, profile: Profile) -> SlotFill:
    # Proved, while the kallsyms of most Arm kernels have functions only, and any of them may lie.
    address = profile.init.gva if spec.owner == "init_task" else profile.address(spec.owner)
    return MISSING if address is None else SlotFill(exists=True, offset=address)


def _sizeof(spec: SlotSpec, profile: Profile) -> SlotFill:
    sizes = (types.size(spec.owner) for types in profile.types)
    size = next((size for size in sizes if size), None)
    if size is None:
        words = [index for (owner, _), index in _WORDS.items() if owner == spec.owner]
        size = (max(words) + 1) * profile.init.word_size if words else None
    return MISSING if size is None or not 0 < size < 1 << 32 else SlotFill(exists=True, size=size)
