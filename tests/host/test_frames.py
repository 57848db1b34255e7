"""What a guest that may send any frame gets past the rules, and what it gets past their absence."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess

import pytest

from tests.support import ether, frames
from tests.support.forgery import HOST, ME, NEIGHBOUR, PORT, datagram, forged, honest
from tests.support.frames import EVERYBODY, Node, frame
from tests.support.machines_on_wire import Machine
from tests.support.wire import ALICE, GATEWAY, Wire

pytestmark = pytest.mark.host

SAY = """
import socket, sys
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"end", (sys.argv[1], int(sys.argv[2])))
"""


def heard(wire: Wire, to: Node, told: list[bytes]) -> tuple[set[str], set[str]]:
    """What this host and Bob hear of what Alice says."""
    with (
        ether.listening(wire.host, "qvdnet", "end") as by_host,
        ether.listening(wire.bob, "eth0", "end") as by_bob,
    ):
        ether.send(wire.alice, "eth0", [*told, honest("end")])
        at_host = by_host()
        end = frame(HOST.mac, EVERYBODY, frames.IPV4, datagram(GATEWAY, to.address, ether.mark("end")))
        ether.send(wire.host, "qvdnet", [end])
        return at_host, by_bob()


@pytest.mark.parametrize("to", [HOST, NEIGHBOUR], ids=["host", "neighbour"])
@pytest.mark.parametrize("isolated", [True, False])
async def test_nobody_hears_a_forged_frame(wire: Wire, to: Node, isolated: bool) -> None:
    if not isolated:
        wire.join_ports()
    lies = forged(to)
    at_host, at_bob = heard(wire, to, [honest("first"), *lies.values()])
    assert (at_host, at_bob) == ({"first"}, set())


@pytest.mark.parametrize("to", [HOST, NEIGHBOUR], ids=["host", "neighbour"])
async def test_everybody_hears_them_without_rules(wire: Wire, to: Node) -> None:
    await wire.unruled()
    lies = forged(to)
    at_host, at_bob = heard(wire, to, list(lies.values()))
    assert (at_host if to is HOST else at_bob) == set(lies)


class TestReservedGroups:
    """Frames to the groups that a bridge keeps for itself take another way through it."""

    GROUPS = tuple(f"01:80:c2:00:00:{last:02x}" for last in range(16))
    PASSED = frozenset(GROUPS) - {GROUPS[1]}
    """All that the kernel does not drop by itself."""

    def told(self, group: str, sender: str) -> bytes:
        payload = datagram(ME.address, GATEWAY, ether.mark(f"group-{group[-2:]}"))
        return frame(sender, group, frames.IPV4, payload)

    def learned(self) -> set[str]:
        """By frames to which groups the bridge has learned where a machine of another name is."""
        shown = subprocess.run(["bridge", "-j", "fdb", "show"], capture_output=True, text=True, check=True)
        known = {entry["mac"] for entry in json.loads(shown.stdout) if entry["ifname"] == ALICE.interface}
        return {group for group in self.GROUPS if self.stranger(group) in known}

    def stranger(self, group: str) -> str:
        return f"54:52:00:2c:01:{group[-2:]}"

    def received(self, wire: Wire) -> set[str]:
        """To which groups a datagram may be sent that a service of this host gets."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as service:
            service.bind(("", PORT))
            told = [self.told(group, ME.mac) for group in self.GROUPS]
            ether.send(wire.alice, "eth0", told)
            wire.host.python(SAY, GATEWAY, str(PORT))
            heard = iter(lambda: service.recv(100), b"end")
            return {
                group for data in heard for group in self.GROUPS if f"group-{group[-2:]};" in data.decode()
            }

    async def test_no_service_of_this_host_is_reached(self, wire: Wire) -> None:
        assert self.received(wire) == set()
        await self.plain(wire)
        reached: set[str] = set()
        async with asyncio.timeout(20):
            while reached != self.PASSED:
                reached |= self.received(wire)
                await asyncio.sleep(0)

    async def test_the_bridge_learns_nobody_from_them(self, wire: Wire) -> None:
        lies = [self.told(group, self.stranger(group)) for group in self.GROUPS]
        heard(wire, HOST, lies)
        assert self.learned() == set()
        await self.plain(wire)
        heard(wire, HOST, lies)
        assert self.learned() == self.PASSED

    async def plain(self, wire: Wire) -> None:
        """The bridge as everybody else's."""
        await wire.unruled()
        wire.host.configure("link", "set", "qvdnet", "type", "bridge", "group_fwd_mask", "0")

    async def test_no_spanning_tree_is_told(self, wire: Wire) -> None:
        bpdu = frame(ME.mac, frames.BPDU_GROUP, 38, b"\x42\x42\x03" + ether.mark("spanning-tree"))
        wire.join_ports()
        assert heard(wire, HOST, [bpdu])[1] == set()
        await wire.unruled()
        assert heard(wire, HOST, [bpdu])[1] == {"spanning-tree"}


def test_a_machine_that_never_sends_is_not_heard(machines: dict[str, Machine]) -> None:
    """The listener itself: it hears what is sent, and not more."""
    host, alice = Machine(None), machines["alice"]
    host.configure("link", "add", "pair", "type", "veth", "peer", "eth0", "netns", str(alice.namespace))
    for machine, link in ((host, "pair"), (alice, "eth0")):
        machine.configure("link", "set", link, "up")
    with ether.listening(host, "pair", "end") as marks:
        ether.send(alice, "eth0", [honest("one"), honest("end")])
        assert marks() == {"one"}
