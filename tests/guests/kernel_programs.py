"""Probes over what a stock kernel really has: each kind of structure that LLView's helpers go through.

They are for comparing engines on a real guest's memory, and for holding what they find against its own ``/proc``.
"""

from __future__ import annotations

from yamori.llview.language import (
    Array,
    CharArray,
    Kernel,
    Ptr,
    Struct,
    address_of,
    at,
    attempt,
    emit,
    exists,
    helper,
    named,
    physical,
    probe,
    s32,
    sizeof,
    text,
    trouble,
    u32,
    u64,
    ulong,
    user_text,
    user_word,
    word_at,
)
from yamori.llview.structures.bitmap import for_each_set_bit, test_bit
from yamori.llview.structures.hlist import for_each_hash_entry, for_each_hlist_entry, hlist_head, hlist_node
from yamori.llview.structures.lists import for_each_entry, is_linked, list_head
from yamori.llview.structures.percpu import PerCpu, per_cpu
from yamori.llview.structures.rbtree import for_each_rb_entry, rb_node, rb_root
from yamori.llview.structures.xarray import for_each_xa_entry, xarray
from yamori.records import Row

MOST_FILES = 256
"""Descriptors of one process that are looked at."""
BUCKETS = 256
"""``NETDEV_HASHENTRIES`` of ``include/net/net_namespace.h``, with ``CONFIG_BASE_SMALL`` off as Debian has it."""
PIDTYPE_PID = 0  # include/linux/pid.h


class cred(Struct):  # noqa: N801  names of the kernel, as all here
    uid: u32


class qstr(Struct):  # noqa: N801
    name: ulong


class dentry(Struct):  # noqa: N801
    d_name: qstr


class vm_area_struct(Struct):  # noqa: N801
    vm_start: ulong
    vm_end: ulong
    vm_pgoff: ulong
    vm_mm: ulong
    shared: rb_node = named("shared.rb")


class address_space(Struct):  # noqa: N801
    i_pages: xarray
    i_mmap: rb_root = named("i_mmap.rb_root")


class page(Struct):  # noqa: N801
    index: ulong
    __folio_index: ulong  # its name since 6.16
    mapping: ulong


class file(Struct):  # noqa: N801
    dentry: Ptr[dentry] = named("f_path.dentry")
    f_mapping: Ptr[address_space]


class fdtable(Struct):  # noqa: N801
    max_fds: u32
    fd: ulong
    open_fds: ulong


class files_struct(Struct):  # noqa: N801
    fdt: Ptr[fdtable]


class mm_struct(Struct):  # noqa: N801
    exe_file: Ptr[file]


class upid(Struct):  # noqa: N801
    nr: s32


class pid(Struct):  # noqa: N801
    numbers: Array[upid]
    tasks: Array[hlist_head]


class pid_namespace(Struct):  # noqa: N801
    idr: xarray = named("idr.idr_rt")


class net_device(Struct):  # noqa: N801
    name: CharArray
    ifindex: s32
    index_hlist: hlist_node


class net(Struct):  # noqa: N801
    dev_index_head: ulong


class nsproxy(Struct):  # noqa: N801
    pid_ns_for_children: Ptr[pid_namespace]
    net_ns: Ptr[net]


class task_struct(Struct):  # noqa: N801
    tasks: list_head
    pid: s32
    tgid: s32
    comm: CharArray
    real_parent: Ptr[task_struct]
    real_cred: Ptr[cred]
    mm: Ptr[mm_struct]
    files: Ptr[files_struct]
    nsproxy: Ptr[nsproxy]
    pid_links: Array[hlist_node]


class module(Struct):  # noqa: N801
    list: list_head
    name: CharArray
    state: u32


class rq(Struct):  # noqa: N801
    cpu: s32
    nr_running: u32
    idle: Ptr[task_struct]
    curr: Ptr[task_struct]


class Tasks(Kernel):
    init_task: task_struct


class Modules(Kernel):
    modules: list_head


class Cpus(PerCpu):
    runqueues: rq
    __cpu_online_mask: ulong


@helper
def fewer(count: u32, most: u32) -> u32:
    """Return the smaller of two numbers."""
    if count < most:
        return count
    return most


@helper
def index_of(cached: page) -> ulong:
    """Return where in its file a page says that it belongs."""
    if exists(cached.index):
        return cached.index
    return cached.__folio_index


class Who(Row, frozen=True):
    pid: int
    comm: str
    parent: str


@probe(row=Who)
def who(kernel: Tasks) -> None:
    """Root's processes, and who started them: the tutorial's probe."""
    for task in for_each_entry(kernel.init_task.tasks, task_struct, "tasks"):
        if task.real_cred.uid == 0:
            emit(pid=task.tgid, comm=task.comm, parent=task.real_parent.comm)


class Linked(Row, frozen=True):
    pid: int
    linked: bool


@probe(row=Linked)
def linked(kernel: Tasks) -> None:
    """Every process, and whether its neighbours on the list lead to it."""
    for task in for_each_entry(kernel.init_task.tasks, task_struct, "tasks"):
        emit(pid=task.pid, linked=is_linked(task.tasks))


class Word(Row, frozen=True):
    word: int
    text: str


@probe(row=Word)
def program_start(kernel: Tasks, table: ulong, address: ulong) -> None:
    """The first word of what a program has at an address of its own, and the same as a text."""
    root = physical(table)
    emit(word=user_word(root, address), text=user_text(root, address, 4))


class Found(Row, frozen=True):
    address: int
    word: int | None


@probe(row=Found)
def scattered(kernel: Tasks, seed: u64, first: ulong, mask: ulong, count: u32) -> None:
    """Words at random addresses, or that there is none: what the page tables say of good addresses and of others."""
    state = u64(seed)
    for _ in range(count):
        state = state * 6364136223846793005 + 1442695040888963407  # Knuth's MMIX generator
        address = ulong(first + (ulong(state >> 16) & mask))
        word: ulong = 0
        with attempt() as unmapped:
            word = word_at(address)
        emit(address=address, word=word if not unmapped else None)


class OpenFile(Row, frozen=True):
    pid: int
    fd: int
    name: str


@probe(row=OpenFile)
def open_files(kernel: Tasks) -> None:
    """Every open file of every process, by the bitmap of its descriptors, which has to agree with itself."""
    for task in for_each_entry(kernel.init_task.tasks, task_struct, "tasks"):
        with attempt() as unreadable:
            if address_of(task.files) == 0:
                continue
            table = task.files.fdt
            bitmap = table.open_fds
            for number in for_each_set_bit(bitmap, fewer(table.max_fds, MOST_FILES)):
                opened = at(file, word_at(table.fd + number * sizeof(ulong)))
                if not test_bit(bitmap, u32(number)):
                    trouble("a bit is set and is not", number)
                emit(pid=task.tgid, fd=number, name=text(opened.dentry.d_name.name, 64))
        if unreadable:
            trouble("the files of a task cannot be read", task, faulted=True)


class Mapped(Row, frozen=True):
    pid: int
    start: int
    end: int
    offset: int


@probe(row=Mapped)
def mapped(kernel: Tasks) -> None:
    """Where every process has its own program's file, out of the tree of all mappings of that file."""
    for task in for_each_entry(kernel.init_task.tasks, task_struct, "tasks"):
        if address_of(task.mm) != 0 and address_of(task.mm.exe_file) != 0:
            for area in for_each_rb_entry(task.mm.exe_file.f_mapping.i_mmap, vm_area_struct, "shared"):
                if area.vm_mm == address_of(task.mm):
                    emit(pid=task.tgid, start=area.vm_start, end=area.vm_end, offset=area.vm_pgoff)


class CachedPage(Row, frozen=True):
    index: int
    entry: int
    agrees: bool


@probe(row=CachedPage)
def cached_pages(kernel: Tasks, wanted: s32) -> None:
    """The page cache of one process's program, and whether each page says that it belongs there."""
    for task in for_each_entry(kernel.init_task.tasks, task_struct, "tasks"):
        if task.tgid == wanted:
            mapping = task.mm.exe_file.f_mapping
            for index, entry in for_each_xa_entry(mapping.i_pages):
                cached = at(page, entry)
                agrees = cached.mapping == address_of(mapping) and index_of(cached) == index
                emit(index=index, entry=entry, agrees=agrees)


class Numbered(Row, frozen=True):
    index: int
    nr: int
    tid: int
    comm: str


@probe(row=Numbered)
def numbered(kernel: Tasks) -> None:
    """Every thread by the initial namespace's numbers: an IDR of ``struct pid``, and on each a list of its thread."""
    for index, entry in for_each_xa_entry(kernel.init_task.nsproxy.pid_ns_for_children.idr):
        number = at(pid, entry)
        for task in for_each_hlist_entry(number.tasks[PIDTYPE_PID], task_struct, "pid_links"):
            emit(index=index, nr=number.numbers[0].nr, tid=task.pid, comm=task.comm)


class Device(Row, frozen=True):
    ifindex: int
    name: str


@probe(row=Device)
def devices(kernel: Tasks) -> None:
    """The network devices, out of the hash table of their numbers."""
    space = kernel.init_task.nsproxy.net_ns
    for device in for_each_hash_entry(space.dev_index_head, BUCKETS, net_device, "index_hlist"):
        emit(ifindex=device.ifindex, name=device.name)


class Module(Row, frozen=True):
    name: str
    state: int


@probe(row=Module)
def modules(kernel: Modules) -> None:
    """The loaded modules, the latest first."""
    for loaded in for_each_entry(kernel.modules, module, "list"):
        emit(name=loaded.name, state=loaded.state)


class Cpu(Row, frozen=True):
    number: int
    cpu: int
    idle: str
    current: int


@probe(row=Cpu)
def cpus(kernel: Cpus) -> None:
    """Every CPU that is online, by its own copy of the run queue."""
    for number in for_each_set_bit(address_of(kernel.__cpu_online_mask), sizeof(ulong) * 8):
        queue = at(rq, per_cpu(kernel, address_of(kernel.runqueues), u32(number)))
        emit(number=number, cpu=queue.cpu, idle=queue.idle.comm, current=queue.curr.pid)


PROBES = (who, linked, program_start, scattered, open_files, mapped, cached_pages, numbered, devices, modules, cpus)
