"""drgn on the same guest, as fast as it goes without debug info: ``pip install drgn``, for this comparison only.

It is given what it cannot find itself: the layouts of the few structures, as types built by hand, ``init_task`` and the
initial PID namespace. With these its own helpers run. It reads natively, nothing of it goes through Python callbacks:

* *core*: a copy of RAM as an ELF core whose segments lie at the kernel's addresses, so that a read is one ``pread``
  of a file in memory, without any translation;
* *live*: the guest itself by ``set_qemu_qmp``, which reads the VM's process, with drgn's own walk of the page tables,
  by VMCOREINFO.

Each way takes a task's fields out of one read of the whole structure, which is about twice as fast as a read for each.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.timing import Way
from yamori.guest import Guest
from yamori.kernel.vmcoreinfo import VmCoreInfo

TASKS_LIVE, TASKS_CORE = "drgn for_each_task, live", "drgn for_each_task, core"
LIST_CORE = "drgn list_for_each_entry, core"
MEMORY_LIVE, MEMORY_CORE = "drgn memory API, live", "drgn memory API, core"

_HEX = frozenset(
    (
        *("MODULES_VADDR", "MODULES_END", "VMALLOC_START", "VMALLOC_END", "VMEMMAP_START", "VMEMMAP_END"),
        *("kimage_voffset", "PHYS_OFFSET", "TCR_EL1_T1SZ", "KERNELPACMASK"),
    )
)
"""Numbers that VMCOREINFO gives in hexadecimal (``arch/arm64/kernel/crash_core.c``)."""


def installed() -> bool:
    """Say whether drgn can be imported."""
    return importlib.util.find_spec("drgn") is not None


def reads_live(guest: Guest) -> bool:
    """Say whether drgn can translate the live guest's addresses; on 32-bit Arm 0.3 gives up in the page tables."""
    return guest.profile.vmcoreinfo is not None and guest.profile.architecture == "aarch64"


def core(path: Path) -> Any:
    """Return drgn's program for an ELF core."""
    program = importlib.import_module("drgn").Program()
    program.set_core_dump(path)
    return program


def live(guest: Guest, socket: Path) -> Any:
    """Return drgn's program for the live guest, which must not be stopped yet."""
    drgn = importlib.import_module("drgn")
    assert guest.profile.vmcoreinfo
    program = drgn.Program(drgn.Platform(drgn.Architecture.AARCH64))
    program.set_qemu_qmp(str(socket))
    # With -device vmcoreinfo drgn would take this step itself; the guest is stock and has none.
    program.set_linux_kernel_custom(_text(guest.profile.vmcoreinfo), is_live=True)
    return program


def _text(info: VmCoreInfo) -> str:
    """Return VMCOREINFO as the kernel writes it (``kernel/crash_core.c``)."""
    lines = [f"OSRELEASE={info.release}", f"PAGESIZE={info.page_size}"]
    lines += [f"SYMBOL({name})={value:x}" for name, value in info.symbols.items()]
    lines += [
        f"NUMBER({name})={value:#x}" if name in _HEX else f"NUMBER({name})={value}"
        for name, value in info.numbers.items()
    ]
    return "\n".join([*lines, f"KERNELOFFSET={info.kernel_offset or 0:x}", ""])


class Knowledge:
    """Types and objects, handed to one program of drgn.

    Args:
        program: It.
        guest: Where they are known from.

    Attributes:
        whole: Whether all that ``for_each_task`` needs is known; else there is only the list of tasks.
    """

    def __init__(self, program: Any, guest: Guest) -> None:
        self._drgn = importlib.import_module("drgn")
        self._program = program
        self._profile = guest.profile
        self._word = guest.kernel.machine.word_size
        self._types: dict[str, Any] = {}
        self._objects: dict[str, Any] = {}
        self.whole = guest.profile.member("pid_namespace", "idr") is not None
        self._basics()
        if self.whole:
            self._pids()
        self._task()
        program.register_type_finder("by hand", self._find_type, enable_index=0)
        program.register_object_finder("by hand", self._find_object, enable_index=0)

    def _find_type(self, _program: Any, kinds: Any, name: str, _file: str | None) -> Any:
        return self._types.get(name) if self._drgn.TypeKind.STRUCT in kinds else None

    def _find_object(self, _program: Any, name: str, _flags: Any, _file: str | None) -> Any:
        return self._objects.get(name)

    def _at(self, owner: str, name: str) -> int:
        return self._profile.require(owner, name).offset

    def _struct(self, name: str, **members: tuple[Any, int, int]) -> Any:
        """Make a structure known by some of its members: type, size, offset. It ends with the last of them."""
        size = max(at + length for _, length, at in members.values())
        made = [self._drgn.TypeMember(kind, member, bit_offset=8 * at) for member, (kind, _, at) in members.items()]
        self._types[name] = self._program.struct_type(name, size, made)
        return self._types[name]

    def _basics(self) -> None:
        program, word = self._program, self._word
        self._s32 = program.int_type("int", 4, True)  # noqa: FBT003  drgn's own signature
        self._u32 = program.int_type("unsigned int", 4, False)  # noqa: FBT003

        def node() -> Any:
            return program.pointer_type(self._types["list_head"])

        self._list = self._struct("list_head", next=(node, word, 0), prev=(node, word, word))
        cred = self._struct("cred", uid=(self._u32, 4, self._at("cred", "uid")))
        self._cred = program.pointer_type(cred)

    def _task(self) -> None:
        program, word = self._program, self._word
        char = program.int_type("char", 1, True)  # noqa: FBT003
        members = {
            "tasks": (self._list, 2 * word, self._at("task_struct", "tasks")),
            "pid": (self._s32, 4, self._at("task_struct", "pid")),
            "tgid": (self._s32, 4, self._at("task_struct", "tgid")),
            "comm": (program.array_type(char, 16), 16, self._at("task_struct", "comm")),
            "real_cred": (self._cred, word, self._at("task_struct", "real_cred")),
        }
        if self.whole:
            links = program.array_type(self._types["hlist_node"], 4)
            members["pid_links"] = links, 64, self._at("task_struct", "pid_links")
        task = self._struct("task_struct", **members)
        self._objects["init_task"] = self._drgn.Object(program, task, address=self._profile.init.gva)

    def _pids(self) -> None:
        """What ``for_each_task`` walks: the IDR of the initial PID namespace (``include/linux/pid.h``)."""
        program, u8 = self._program, self._program.int_type("unsigned char", 1, False)  # noqa: FBT003
        void = program.pointer_type(program.void_type())

        def node() -> Any:
            return program.pointer_type(self._types["hlist_node"])

        self._struct("hlist_node", next=(node, 8, 0), pprev=(void, 8, 8))
        head = self._struct("hlist_head", first=(node, 8, 0))
        tree = self._struct("xarray", xa_head=(void, 8, self._at("xarray", "xa_head")))
        idr = self._struct(
            "idr", idr_rt=(tree, 16, self._at("idr", "idr_rt")), idr_base=(self._u32, 4, self._at("idr", "idr_base"))
        )
        space = self._struct("pid_namespace", idr=(idr, 24, self._at("pid_namespace", "idr")))
        slots = program.array_type(void, 64)
        shift, first = self._at("xa_node", "shift"), self._at("xa_node", "slots")
        self._struct("xa_node", shift=(u8, 1, shift), slots=(slots, 512, first))
        self._struct("pid", tasks=(program.array_type(head, 4), 32, self._at("pid", "tasks")))
        init = self._profile.init.gva
        proxy = program.read_u64(init + self._at("task_struct", "nsproxy"))
        where = program.read_u64(proxy + self._at("nsproxy", "pid_ns_for_children"))
        self._objects["init_pid_ns"] = self._drgn.Object(program, space, address=where)
        self._objects["PIDTYPE_PID"] = self._drgn.Object(program, self._s32, 0)


Rows = list[tuple[Any, ...]]


def ways(program: Any, guest: Guest, names: tuple[str, str, str]) -> list[Way]:
    """Return what drgn can do with a program: ``for_each_task`` where its types are known, the list, its memory API.

    Args:
        program: drgn's.
        guest: It.
        names: Of the three ways; an empty one is left out.
    """
    knowledge = Knowledge(program, guest)
    works = [_by_tasks(program) if knowledge.whole else None, _by_list(program), _by_memory(program, guest)]
    return [Way(name, work, work) for name, work in zip(names, works, strict=True) if name and work]


def _row(task: Any) -> tuple[Any, ...]:
    whole = task[0].read_()
    return whole.pid.value_(), whole.tgid.value_(), whole.comm.string_(), whole.real_cred.uid.value_()


def _by_tasks(program: Any) -> Callable[[], Rows]:
    each = importlib.import_module("drgn.helpers.linux.pid").for_each_task
    return lambda: [_row(task) for task in each(program)]


def _by_list(program: Any) -> Callable[[], Rows]:
    each = importlib.import_module("drgn.helpers.linux.list").list_for_each_entry
    return lambda: [
        _row(task) for task in each("struct task_struct", program["init_task"].tasks.address_of_(), "tasks")
    ]


def _by_memory(program: Any, guest: Guest) -> Callable[[], Rows]:
    """One read for each task, from its first field to its last, and one for its credentials."""
    names = ("tasks", "pid", "tgid", "comm", "real_cred")
    offsets = [guest.profile.require("task_struct", name).offset for name in names]
    word, first, end = guest.kernel.machine.word_size, min(offsets), max(offsets) + 16
    tasks, pid, tgid, comm, cred = (offset - first for offset in offsets)
    uid = guest.profile.require("cred", "uid").offset
    head = guest.profile.init.gva + offsets[0]
    number, read, read_u32 = int.from_bytes, program.read, program.read_u32

    def walk() -> Rows:
        rows = []
        node = program.read_word(head)
        while node != head:
            task = read(node - tasks, end - first)
            rows.append(
                (
                    number(task[pid : pid + 4], "little", signed=True),
                    number(task[tgid : tgid + 4], "little", signed=True),
                    task[comm : comm + 16].partition(b"\0")[0],
                    read_u32(number(task[cred : cred + word], "little") + uid),
                )
            )
            node = number(task[tasks : tasks + word], "little")
        return rows

    return walk
