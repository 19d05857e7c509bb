"""Memory images at rest: of the formats in ``formats``, or else raw. What is neither is refused by name."""

from __future__ import annotations

import stat
from pathlib import Path

from yamori.errors import TargetError
from yamori.hypervisors.vm import Layout, PackedSegment, RamSegment, Source, VirtualMachine
from yamori.memory import formats
from yamori.memory.host import open_readonly
from yamori.memory.source import Contents, File, LeftOut, Piece

SCHEME = "file"
_GIB = 1 << 30
_MOST_LAYERS = 4
"""An image that is packed in more ways than anybody packs: a flattened kdump, and that packed, are two."""

_CONVERT = "convert it to a raw image or an ELF core first"
_UNPACK = "unpack it first"
_FOREIGN = {
    b"DISKDUMP": ("a diskdump", _CONVERT),
    b"PAGEDUMP": ("a Windows crash dump", "Yamori reads Linux guests"),
    b"PAGEDU64": ("a Windows crash dump", "Yamori reads Linux guests"),
    b"hibr": ("a Windows hibernation file", "Yamori reads Linux guests"),
    b"HIBR": ("a Windows hibernation file", "Yamori reads Linux guests"),
    b"\xd2\xbe\xd2\xbe": ("a VMware suspend file", _CONVERT),
    b"LibvirtQemudSave": ("a libvirt save file", "write it with `virsh dump --memory-only --format elf`"),
    b"QEVM": ("a QEMU migration stream", "write it with dump-guest-memory"),
    b"QFI\xfb": ("a qcow2 disk image", "a memory image is needed"),
    b"KDMV": ("a VMDK disk image", "a memory image is needed"),
    b"LUKS\xba\xbe": ("encrypted with LUKS", "open it first"),
    b"Salted__": ("encrypted with openssl", "decrypt it first"),
    b"age-encryption.org/": ("encrypted with age", "decrypt it first"),
    b"-----BEGIN PGP": ("encrypted or signed with OpenPGP", "decrypt it first"),
    b"\x04\x22\x4d\x18": ("packed with lz4", _UNPACK),
    b"\x89LZO\0\r\n\x1a": ("packed with lzop", _UNPACK),
    b"PK\x03\x04": ("packed with zip", _UNPACK),
    b"7z\xbc\xaf\x27\x1c": ("packed with 7-Zip", _UNPACK),
}
_READ = "Yamori reads raw images, ELF cores, kdumps, LiME and AVML images, also packed with gzip, bzip2, xz or zstd"


def attach(path: str, *, ram_base: int | None = None) -> VirtualMachine:
    """Describe a memory image.

    Args:
        path: The file.
        ram_base: GPA of a raw image's first byte; other images say it themselves.

    Raises:
        TargetError: There is no such file, or it is not a memory image that can be read.
    """
    plain = File(_open(path))
    try:
        found, notes = _identified(plain, path)
    except OSError as error:
        raise TargetError(f"cannot be read: {error.strerror}", where=path) from None
    packed = None if found.source is plain else found.source
    if isinstance(found, Contents):
        if ram_base is not None:
            hint = "leave the RAM base out"
            raise TargetError("this image says itself where its memory lies", where=path, hint=hint)
        segments = [_segment(path, piece, packed) for piece in found.pieces]
        segments += [_segment(path, piece, LeftOut(piece.size)) for piece in found.left_out]
        layouts: tuple[Layout, ...] = (tuple(sorted(segments, key=lambda segment: segment.gpa)),)
        machine, notes = found.machine, (*notes, *found.notes)
    else:
        pieces = _raw_layouts(found.source.size, ram_base)
        layouts = tuple(tuple(_segment(path, piece, packed, raw=True) for piece in layout) for layout in pieces)
        base = "not known: the page tables will tell" if ram_base is None else f"{ram_base:#x} as the user gave it"
        machine, notes = "raw image", (*notes, f"raw image of {found.source.size} bytes", f"RAM base {base}")
    return VirtualMachine(
        target=f"{SCHEME}:{path}",
        name=Path(path).name,
        pid=None,
        machine=machine,
        layouts=layouts,
        base_known=isinstance(found, Contents) or ram_base is not None,
        notes=notes,
    )


def _identified(source: Source, path: str) -> tuple[Contents | formats.Unpacked, tuple[str, ...]]:
    """Return what is in an image below its packings, which the notes name: ``Unpacked`` stands for a raw image."""
    notes: list[str] = []
    for _ in range(_MOST_LAYERS):
        head = source.read(32, 0)
        found = _parsed(source, head, path)
        if isinstance(found, Contents):
            return found, tuple(notes)
        if found is None:
            _refuse_foreign(head, path)
            return formats.Unpacked(source, ""), tuple(notes)
        source = found.source
        notes.append(found.note)
    raise TargetError(f"this is packed more than {_MOST_LAYERS} times over", where=path, hint=_UNPACK)


def _parsed(source: Source, head: bytes, path: str) -> Contents | formats.Unpacked | None:
    for kind in formats.known():
        if head.startswith(kind.MAGICS) and (found := kind.parse(source, path)) is not None:
            return found
    return None


def _open(path: str) -> int:
    if "\0" in path:
        raise TargetError("a file's name has no NUL in it", where=path.replace("\0", "\\0"))
    # Looked at before it is opened: a FIFO would wait for its writer.
    try:
        mode, size = Path(path).stat().st_mode, Path(path).stat().st_size
    except OSError:
        return open_readonly(path)  # which says why not
    if stat.S_ISDIR(mode):
        raise TargetError("this is a directory", where=path, hint="name the image in it")
    if not stat.S_ISREG(mode):
        raise TargetError("this is not a regular file", where=path, hint="copy the memory into one")
    if not size:
        raise TargetError("the file is empty", where=path)
    return open_readonly(path)


def _refuse_foreign(head: bytes, path: str) -> None:
    for magic, (what, hint) in _FOREIGN.items():
        if head.startswith(magic):
            raise TargetError(f"this is {what}, which Yamori does not read", where=path, hint=f"{hint}; {_READ}")


def _segment(path: str, piece: Piece, packed: Source | None, *, raw: bool = False) -> RamSegment:
    if packed is None:
        return RamSegment(piece.gpa, piece.size, path, piece.offset, "image")
    return PackedSegment(piece.gpa, piece.size, path, piece.offset, "image", source=packed, raw=raw)


def _raw_layouts(size: int, ram_base: int | None) -> tuple[tuple[Piece, ...], ...]:
    """Place a raw image in one piece; a large one may also be a PC's RAM without the hole below 4 GiB."""
    whole = (Piece(ram_base or 0, size, 0),)
    if ram_base is not None:
        return (whole,)
    splits = [low for low in (2 * _GIB, 3 * _GIB) if size > low]
    return (whole, *((Piece(0, low, 0), Piece(4 * _GIB, size - low, low)) for low in splits))
