"""``ids sockets``: the sockets that processes hold, with both ends, as ``ss -ap`` shows them.

From each process's table of files (``fdget`` of ``fs/file.c``) to ``struct socket`` (``sock_from_file`` of
``net/socket.c``) and its ``struct sock``. One socket has a row for each process and descriptor that holds it.
"""

from __future__ import annotations

import socket as names
from ipaddress import IPv4Address, IPv6Address

from yamori.kernel.kernel import Kernel as KernelView
from yamori.llview.language import (
    NULL,
    Array,
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
    probe,
    trouble,
    u8,
    u16,
    u32,
    ulong,
)
from yamori.llview.structures.lists import for_each_entry, list_head
from yamori.probes.descriptors import files_struct, for_each_descriptor
from yamori.probes.run import run_probe
from yamori.records import Address, Result, Row, Socket

KIND, SOCKET = 0o170000, 0o140000  # S_IFMT, S_IFSOCK
INET, INET6, PACKET = 2, 10, 17

FAMILIES = {1: "unix", INET: "inet", INET6: "inet6", 16: "netlink", PACKET: "packet", 29: "can", 31: "bluetooth",
            38: "alg", 40: "vsock", 44: "xdp"}  # fmt: skip
"""``AF_UNIX`` and others of ``include/linux/socket.h``."""
TYPES = {1: "stream", 2: "dgram", 3: "raw", 4: "rdm", 5: "seqpacket", 10: "packet"}
"""``enum sock_type`` of ``include/linux/net.h``."""
STATES = ("", "established", "syn-sent", "syn-recv", "fin-wait-1", "fin-wait-2", "time-wait", "closed", "close-wait",
          "last-ack", "listening", "closing", "syn-recv")  # fmt: skip
"""``include/net/tcp_states.h``; every family's ``sk_state`` is one of these."""


class in6_addr(Struct):  # noqa: N801  a name of the kernel, as all here
    """``include/uapi/linux/in6.h``."""

    words: Array[u32] = named("in6_u.u6_addr32")


class sock(Struct):  # noqa: N801
    """``include/net/sock.h``; its members are those of ``struct sock_common`` in front."""

    family: u16 = named("__sk_common.skc_family")
    state: u8 = named("__sk_common.skc_state")
    daddr: u32 = named("__sk_common.skc_daddr")
    rcv_saddr: u32 = named("__sk_common.skc_rcv_saddr")
    dport: u16 = named("__sk_common.skc_dport")
    num: u16 = named("__sk_common.skc_num")
    v6_daddr: in6_addr = named("__sk_common.skc_v6_daddr")
    v6_rcv_saddr: in6_addr = named("__sk_common.skc_v6_rcv_saddr")
    net: ulong = named("__sk_common.skc_net.net")
    sk_protocol: u32
    sk_filter: ulong


class socket(Struct):  # noqa: N801
    """``include/linux/net.h``."""

    type: u16
    sk: Ptr[sock]


class inode(Struct):  # noqa: N801
    """``include/linux/fs.h``."""

    i_mode: u16
    i_ino: ulong


class file(Struct):  # noqa: N801
    """``include/linux/fs.h``."""

    f_inode: Ptr[inode]
    private_data: Ptr[socket]


class task_struct(Struct):  # noqa: N801
    """``include/linux/sched.h``."""

    tasks: list_head
    tgid: u32
    files: Ptr[files_struct]


class Tasks(Kernel):
    """The kernel's variables that this probe starts from."""

    init_task: task_struct


class Held(Row, frozen=True):
    """One socket that a process holds, in numbers: addresses and ports as in memory, from bytes in network order."""

    pid: int
    fd: int
    family: int
    type: int
    protocol: int
    state: int
    saddr: int
    daddr: int
    num: int
    dport: int
    s0: int
    s1: int
    s2: int
    s3: int
    d0: int
    d1: int
    d2: int
    d3: int
    inode: int
    filtered: bool
    net: Address
    sock: Address


@helper
def word6(one: sock, remote: bool, index: u32) -> u32:
    """Return a word of an IPv6 address; 0 where the socket has none, or the kernel knows none."""
    if exists(one.v6_daddr) and exists(one.v6_rcv_saddr) and one.family == INET6:
        return one.v6_daddr.words[index] if remote else one.v6_rcv_saddr.words[index]
    return 0


@helper
def give(task: task_struct, fd: u32, number: ulong, kind: u16, one: sock) -> None:
    """Give out one socket."""
    emit(
        pid=task.tgid,
        fd=fd,
        family=one.family,
        type=kind,
        protocol=one.sk_protocol,
        state=one.state,
        saddr=one.rcv_saddr,
        daddr=one.daddr,
        num=one.num,
        dport=one.dport,
        s0=word6(one, remote=False, index=0),
        s1=word6(one, remote=False, index=1),
        s2=word6(one, remote=False, index=2),
        s3=word6(one, remote=False, index=3),
        d0=word6(one, remote=True, index=0),
        d1=word6(one, remote=True, index=1),
        d2=word6(one, remote=True, index=2),
        d3=word6(one, remote=True, index=3),
        inode=number,
        filtered=one.sk_filter != 0,
        net=one.net if exists(one.net) else 0,
        sock=address_of(one),
    )


@helper
def look(task: task_struct, fd: u32, opened: file) -> None:
    """Give out a file if it is a socket."""
    node = opened.f_inode
    if node != NULL and node.i_mode & KIND == SOCKET:
        held = opened.private_data
        if held != NULL:
            one = held.sk
            if one != NULL:
                give(task, fd, node.i_ino, held.type, one)


@probe(row=Held)
def held_sockets(kernel: Tasks) -> None:
    """Give out the sockets of all processes."""
    for task in for_each_entry(kernel.init_task.tasks, task_struct, "tasks"):
        with attempt() as unreadable:
            for fd, opened in for_each_descriptor(task.files):
                look(task, fd, at(file, opened))
        if unreadable:
            trouble("the files of a process cannot be read", task, faulted=True)


def sockets(kernel: KernelView) -> Result[Socket]:
    """List the sockets that processes hold.

    Raises:
        ProfileError: Something that it needs is not known of this kernel.
    """
    found = run_probe(kernel, held_sockets)
    return Result(
        rows=[_socket(row) for row in found.rows],
        complete=found.complete,
        reasons=found.reasons,
        faults=found.faults,
        loads=found.loads,
        elapsed_s=found.elapsed_s,
        notes=found.notes,
    )


def _socket(row: Held) -> Socket:
    internet = row.family in {INET, INET6}
    local, remote = _addresses(row) if internet else (None, None)
    return Socket(
        pid=row.pid,
        fd=row.fd,
        family=FAMILIES.get(row.family, str(row.family)),
        type=TYPES.get(row.type, str(row.type)),
        protocol=_protocol(row.protocol) if internet else None,
        state=STATES[row.state] if row.state < len(STATES) else str(row.state),
        local=local,
        local_port=row.num if internet else None,
        remote=remote,
        remote_port=int.from_bytes(row.dport.to_bytes(2, "little"), "big") if internet else None,
        filtered=row.filtered,
        inode=row.inode,
        net=row.net,
        sock=row.sock,
    )


def _addresses(row: Held) -> tuple[str, str]:
    if row.family == INET:
        return str(IPv4Address(row.saddr.to_bytes(4, "little"))), str(IPv4Address(row.daddr.to_bytes(4, "little")))
    ends = (row.s0, row.s1, row.s2, row.s3), (row.d0, row.d1, row.d2, row.d3)
    local, remote = (b"".join(word.to_bytes(4, "little") for word in end) for end in ends)
    return str(IPv6Address(local)), str(IPv6Address(remote))


def _protocol(number: int) -> str:
    known = {names.IPPROTO_TCP: "tcp", names.IPPROTO_UDP: "udp", names.IPPROTO_ICMP: "icmp", 58: "icmpv6", 132: "sctp"}
    return known.get(number, str(number))
