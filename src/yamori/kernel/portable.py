"""A maker's profile in a file: what is known of one build of a kernel, small, and readable by other tools.

The format, version 1: the line ``yamori-profile 1``, then a msgpack map, compressed with zlib. Its keys are the
attributes of ``Portable``; types are BTF, as the kernel documents it, symbols are arrays. Nothing in it is executed,
nor believed: its BTF is checked as that of a guest's memory is, and a profile of another kernel is refused.
"""

from __future__ import annotations

import sys
import zlib
from array import array
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from yamori.errors import ProfileError
from yamori.kernel import btf, isf
from yamori.kernel.btf import BtfTypes
from yamori.kernel.btf_writer import Placed, Writer, blob_of
from yamori.kernel.given import Given
from yamori.kernel.inferred import InferredTypes
from yamori.kernel.profile import Profile
from yamori.kernel.symbols import Columns, Symbol, Symbols
from yamori.kernel.types import Provenance

HEAD = b"yamori-profile 1\n"
KIND = b"yamori-profile "
UTS_NAME = "init_uts_ns.name"
"""What is known of ``init_uts_ns`` where no types tell how far before it that begins."""

MOST = 512 << 20
"""Bytes of a profile, unpacked; that of a distribution's kernel has 12 MB."""

STRUCTURES = (
    *(
        "address_space",
        "bpf_prog",
        "css_set",
        "cred",
        "dentry",
        "dentry_operations",
        "device_driver",
        "file",
        "file_operations",
        "files_struct",
        "fdtable",
        "fs_struct",
        "hlist_head",
        "hlist_node",
        "idr",
        "inet_sock",
        "inode",
        "inode_operations",
        "kernel_symbol",
        "kobject",
        "kset",
        "list_head",
        "load_info",
        "maple_node",
        "maple_tree",
        "mm_struct",
        "module",
        "module_kobject",
        "module_layout",
        "module_memory",
        "mount",
        "net",
        "net_device",
        "net_protocol",
        "netns_nf",
        "nf_hook_entries",
        "nf_hook_entry",
        "nf_hook_ops",
        "ns_common",
        "nsproxy",
        "page",
        "path",
        "pid",
        "pid_namespace",
        "pipe_inode_info",
        "proc_dir_entry",
        "proc_ops",
        "proto",
        "qstr",
        "radix_tree_node",
        "radix_tree_root",
        "rb_node",
        "rb_root",
        "request_sock",
        "rq",
        "sched_entity",
        "seq_file",
        "seq_operations",
        "sighand_struct",
        "signal_struct",
        "sk_buff",
        "sock",
        "sock_common",
        "socket",
        "socket_alloc",
        "super_block",
        "task_struct",
        "tcp_sock",
        "thread_info",
        "thread_struct",
        "timer_list",
        "timespec",
        "timespec64",
        "udp_sock",
        "unix_sock",
        "upid",
        "user_struct",
        "user_namespace",
        "uts_namespace",
        "new_utsname",
        "vfsmount",
        "vm_area_struct",
        "vm_struct",
        "vmap_area",
        "work_struct",
        "workqueue_struct",
        "xarray",
        "xa_node",
        "fprobe",
        "ftrace_func_entry",
        "ftrace_hash",
        "ftrace_ops",
        "kprobe",
        "kretprobe",
        "tracepoint",
        "perf_event",
        "bpf_map",
        "bpf_link",
        "bpf_prog_aux",
        "bpf_ksym",
        "security_hook_list",
        "static_call_key",
    ),
)
"""What is taken from DWARF, with all that these contain; BTF is taken whole."""


class Portable(msgspec.Struct, kw_only=True):
    """What is known of one build of a kernel.

    Attributes:
        banner: ``linux_banner``, without its line feed; empty where not known.
        build_id: GNU build id in hexadecimal digits; empty where not known.
        architecture: As ``Profile.architecture``; empty where not known.
        word_size: Bytes of a pointer.
        provenance: Where the layouts were learnt.
        btf: The types, a blob of BTF; empty where there are none.
        addresses: Of the symbols, at link time, 64 bits each, little endian, ascending.
        kinds: One letter a symbol.
        names: All names, each between two line feeds.
        starts: Where each name starts in ``names``, and the end, 32 bits each, little endian.
    """

    banner: str = ""
    build_id: str = ""
    architecture: str = ""
    word_size: int = 8
    provenance: Provenance = "dwarf"
    btf: bytes = b""
    addresses: bytes = b""
    kinds: str = ""
    names: bytes = b"\n"
    starts: bytes = b"\1\0\0\0"

    def types(self) -> BtfTypes | None:
        """Return the layouts, ``None`` where there are none.

        Raises:
            ProfileError: They are damaged.
        """
        return btf.parse(self.btf, self.word_size, self.provenance) if self.btf else None

    def symbols(self) -> Symbols | None:
        """Return the symbols at their link-time addresses, ``None`` where there are none.

        Raises:
            ProfileError: They are damaged.
        """
        if not self.kinds:
            return None
        columns = Columns(_native("Q", self.addresses), self.kinds, self.names, _native("I", self.starts))
        try:
            return Symbols.restored(columns, "isf" if self.provenance == "isf" else "system.map")
        except ValueError as error:
            raise ProfileError("its symbols are damaged") from error

    def put_symbols(self, symbols: Symbols, slide: int = 0) -> None:
        """Take symbols over.

        Args:
            symbols: At the addresses where they run.
            slide: Bytes by which these are above those at link time.
        """
        if slide:
            symbols = Given(symbols=symbols).at(-slide) or symbols
        columns = symbols.columns
        self.addresses, self.starts = _native("Q", columns.addresses), _native("I", columns.starts)
        self.kinds, self.names = columns.kinds, columns.names

    def given(self, source: str) -> Given:
        """Return it as what a maker gives."""
        return Given(self.symbols(), self.types(), self.build_id, source, self.banner)


def _native(code: str, data: bytes) -> bytes:
    """Turn little-endian numbers into those of this machine, or back."""
    if sys.byteorder == "little":
        return data
    words = array(code, data)
    words.byteswap()
    return words.tobytes()


def is_profile(path: Path) -> bool:
    """Say whether a file begins as a profile does; what cannot be read does not."""
    try:
        with path.open("rb") as file:
            return file.read(len(KIND)) == KIND
    except OSError:
        return False


def dumps(portable: Portable) -> bytes:
    """Return a profile as the bytes of its file."""
    return HEAD + zlib.compress(msgspec.msgpack.encode(portable), 6)


def load(path: Path) -> Portable:
    """Read a profile.

    Raises:
        ProfileError: It cannot be read, is none, is damaged, or is of a later version.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ProfileError(f"cannot be read: {error.strerror}", where=str(path)) from error
    if not data.startswith(KIND):
        raise ProfileError("no profile of Yamori", where=str(path), hint="`yamori profile build` and `import` make one")
    if not data.startswith(HEAD):
        raise ProfileError("a profile of a version that is not known", where=str(path), hint="build it anew")
    try:
        portable = msgspec.msgpack.decode(_unpacked(data[len(HEAD) :]), type=Portable)
        portable.types(), portable.symbols()
    except (zlib.error, msgspec.MsgspecError, ValueError) as error:
        raise ProfileError("a damaged profile", where=str(path), hint="copy it again, or build it anew") from error
    except ProfileError as error:
        raise ProfileError(error.message, where=str(path), hint=error.hint) from error
    return portable


def _unpacked(data: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    body = unpacker.decompress(data, MOST)
    if not unpacker.eof:
        raise ProfileError("a profile that is cut short, or too large", hint="copy it again")
    return body


def of_file(path: Path) -> Portable:
    """Return the profile in a file of ours, of Volatility 3 (ISF), or of raw BTF (``/sys/kernel/btf/vmlinux``).

    Raises:
        ProfileError: It is none of these, or damaged.
    """
    try:
        if is_profile(path):
            return load(path)
        with path.open("rb") as file:
            start = file.read(len(btf.MAGIC))
        if start == btf.MAGIC:
            blob = path.read_bytes()
            return Portable(btf=blob, provenance="btf", word_size=btf.parse(blob).word_size or 8)
        found = isf.load(path)
        portable = Portable(btf=found.btf, banner=found.banner, word_size=found.word_size, provenance="isf")
        portable.put_symbols(Symbols(found.symbols, "isf"))
    except OSError as error:
        raise ProfileError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except ProfileError as error:
        raise ProfileError(error.message, where=str(path), hint=error.hint) from error
    return portable


def of_vmlinux(path: Path, structures: Iterable[str] = ()) -> Portable:
    """Return what a maker's ``vmlinux`` tells: all types of its BTF, or those of ``STRUCTURES`` from its DWARF.

    Args:
        path: The file.
        structures: More that are wanted from DWARF.

    Raises:
        ProfileError: As ``dwarf.load_vmlinux``.
    """
    from yamori.kernel import dwarf  # noqa: PLC0415  pyelftools is an extra, and slow to import

    image = dwarf.load_vmlinux(path, (*STRUCTURES, *structures), deep=True)
    portable = Portable(
        banner=image.build.banner or "",
        build_id=image.build.build_id or "",
        architecture=_ARCHITECTURES.get(image.build.machine, ""),
        word_size=image.build.word_size,
        btf=blob_of(image.types.table),
    )
    portable.put_symbols(image.symbols)
    return portable


_ARCHITECTURES = {"EM_ARM": "arm", "EM_AARCH64": "aarch64", "EM_RISCV": "riscv64", "EM_X86_64": "x86_64"}


def _proved(profile: Profile) -> dict[str, int]:
    """Return the GVAs of what was proved without a symbol."""
    init = profile.init
    proved = {"init_task": init.gva}
    if not profile.root.source.startswith("search of"):  # then it is init_mm.pgd
        proved["swapper_pg_dir"] = profile.root.gpa + init.image_offset
    if profile.banner_gpa is not None:
        proved["linux_banner"] = profile.banner_gpa + init.image_offset
    name = profile.member("uts_namespace", "name")
    if profile.uts and profile.uts.proved:
        place = profile.uts.gpa + init.image_offset
        proved |= {"init_uts_ns": place - name.offset} if name else {UTS_NAME: place}
    return proved


def of_profile(profile: Profile, found: Mapping[str, int] | None = None) -> Portable:
    """Return what is known of a running kernel, at link-time addresses where its KASLR slide is known.

    Args:
        profile: What is known.
        found: GVAs of symbols that were found otherwise.

    Raises:
        ProfileError: Nothing is known of its types.
    """
    source = next((types for types in profile.types if isinstance(types, BtfTypes)), None)
    info = profile.vmcoreinfo
    portable = Portable(
        banner=profile.banner,
        build_id=info.build_id if info else "",
        architecture=profile.architecture,
        word_size=profile.init.word_size,
        provenance=source.provenance if source else "inferred",
        btf=blob_of(source.table) if source else _inferred(profile),
    )
    rows = list(profile.symbols[0]) if profile.symbols else []
    there = {row.name for row in rows}  # kallsyms may have functions only
    rows += [Symbol(gva, "D", name) for name, gva in {**_proved(profile), **(found or {})}.items() if name not in there]
    portable.put_symbols(Symbols(rows, "kallsyms"), profile.slide or 0)
    return portable


def _inferred(profile: Profile) -> bytes:
    writer = Writer()
    for types in profile.types:
        if not isinstance(types, InferredTypes):
            continue
        structures: dict[str, list[Placed]] = {}
        for (owner, path), member in sorted(types.members.items(), key=lambda pair: pair[1].offset):
            if "." not in path:
                plain = member.size in {1, 2, 4, 8}
                unit = writer.integer(
                    f"{'s' if member.signed else 'u'}{member.size * 8 if plain else 8}",
                    member.size if plain else 1,
                    signed=member.signed,
                )
                kind = unit if plain else writer.array(unit, member.size)
                structures.setdefault(owner, []).append(Placed(path, kind, member.offset * 8))
        for owner, members in structures.items():
            end = max(member.bit // 8 for member in members) + profile.init.word_size
            writer.compound(writer.reserve(), owner, end, members)
        writer.integer("long unsigned int", profile.init.word_size)
        if structures:
            return writer.blob()
    raise ProfileError("nothing is known of this kernel's structures", hint="`yamori doctor` says why")
