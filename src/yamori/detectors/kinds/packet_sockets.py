"""Sockets that see all traffic of the device."""

from __future__ import annotations

from collections.abc import Iterator

from yamori.detectors.detector import NotChecked, detector
from yamori.detectors.view import View
from yamori.records import Finding

EVERYTHING = 0x0003  # ETH_P_ALL of include/uapi/linux/if_ether.h


@detector(
    title="Programs that listen to all traffic",
    needs="struct sock and struct packet_sock from BTF or debug info",
    misses="packet sockets of one protocol, as DHCP clients have them, and packets that netfilter or eBPF gives away",
    attack=["T1040", "T1205.002"],
)
def packet_sockets(view: View) -> Iterator[Finding]:
    """Look for packet sockets that are bound to every protocol."""
    comms = {row.pid: row.comm for row in view.processes()}
    for row in view.sockets():
        if row.family != "packet":
            continue
        protocol = view.number("packet_sock", "num", row.sock)
        if protocol is None:
            raise NotChecked("a packet socket cannot be read")
        if int.from_bytes(protocol.to_bytes(2, "little"), "big") == EVERYTHING:
            comm = comms.get(row.pid, "?")
            behind = ", behind a BPF filter" if row.filtered else ""
            yield Finding(
                subject=f"process {row.pid}",
                severity="medium",
                confidence="certain",
                title=f"Process {row.pid} ({comm}) listens to all traffic of the device",
                why=[
                    "Expected: packet sockets are for one protocol, as a DHCP client's.",
                    f"Found: descriptor {row.fd} is a packet socket for every protocol{behind}.",
                ],
                remedy="Ask who runs a packet capture now; a device in the field has none.",
            )
