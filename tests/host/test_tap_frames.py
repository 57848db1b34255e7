"""What a virtual machine gets past the rules by its tap: any guest's words, and questions for its address.

Of a container, which knows its address, nobody hears such a question.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest

from appliance.runtime import bridge
from tests.support import ether, frames
from tests.support import tap as taps
from tests.support.forgery import HOST, ME, NEIGHBOUR, NOBODY, PORT, datagram, forged, honest
from tests.support.frames import EVERYBODY, Node, frame
from tests.support.wire import GATEWAY, WORLD, Wire, spec

pytestmark = pytest.mark.host

CAROL = replace(spec(103), asks_dhcp=True)
IT = Node(CAROL.mac, str(CAROL.address.ip))
ASK, ANSWER = (68, 67), (67, 68)
NONE, ALL = "0.0.0.0", "255.255.255.255"


@dataclass(frozen=True)
class Tapped:
    """The wire, with a virtual machine on it."""

    wire: Wire
    machine: int

    def heard(self, to: Node, told: list[bytes]) -> tuple[set[str], set[str]]:
        """What this host and Bob hear of what the machine says."""
        wire = self.wire
        with (
            ether.listening(wire.host, "qvdnet", "end") as by_host,
            ether.listening(wire.bob, "eth0", "end") as by_bob,
        ):
            taps.send(self.machine, [*told, honest("end", IT)])
            at_host = by_host()
            end = datagram(GATEWAY, to.address, ether.mark("end"))
            ether.send(wire.host, "qvdnet", [frame(HOST.mac, EVERYBODY, frames.IPV4, end)])
            return at_host, by_bob()


@pytest.fixture
async def tapped(wire: Wire) -> AsyncIterator[Tapped]:
    with taps.tap(CAROL.interface) as machine:
        await bridge.attach(CAROL.interface, CAROL.bridge)
        await wire.firewall.fence(CAROL)
        yield Tapped(wire, machine)


def question(
    me: Node, name: str, *, source: str = NONE, to: str = ALL, ports: tuple[int, int] = ASK
) -> bytes:
    return frame(me.mac, EVERYBODY, frames.IPV4, datagram(source, to, ether.mark(name), ports=ports))


def probe(me: Node, name: str, *, hardware: str | None = None) -> bytes:
    asked = frames.arp_request(
        hardware or me.mac, NONE, Node("00:00:00:00:00:00", me.address), ether.mark(name)
    )
    return frame(me.mac, EVERYBODY, frames.ARP, asked)


def asked(me: Node) -> dict[str, bytes]:
    """Everything that a client of DHCP says in its life."""
    to_gateway = {"source": me.address, "to": GATEWAY}
    return {
        "discover": question(me, "discover"),
        "probe": probe(me, "probe"),
        "renewal": frame(
            me.mac,
            HOST.mac,
            frames.IPV4,
            datagram(**to_gateway, mark=ether.mark("renewal"), ports=ASK),
        ),
        "rebinding": question(me, "rebinding", source=me.address),
    }


def said(me: Node) -> dict[str, bytes]:
    """What any guest says."""
    ping = frames.icmp(8, 0, bytes(4), ether.mark("ping"))
    return {
        "arp": frame(
            me.mac, EVERYBODY, frames.ARP, frames.arp_request(me.mac, me.address, HOST, ether.mark("arp"))
        ),
        "datagram": honest("datagram", me),
        "names": frame(
            me.mac,
            HOST.mac,
            frames.IPV4,
            datagram(me.address, GATEWAY, ether.mark("names"), ports=(PORT, 53)),
        ),
        "ping": frame(me.mac, HOST.mac, frames.IPV4, frames.ipv4(me.address, GATEWAY, frames.ICMP, ping)),
        "world": frame(me.mac, HOST.mac, frames.IPV4, datagram(me.address, WORLD, ether.mark("world"))),
    }


def lies(to: Node) -> dict[str, bytes]:
    """The lies of any guest, and those of one that asks for its address."""
    reply = frames.arp_reply(IT.mac, NONE, to, ether.mark("reply-of-nobody"))
    return {
        "asks-as-another": question(NOBODY, "asks-as-another"),
        "asks-one": question(IT, "asks-one", to=to.address),
        "asks-from-anywhere": question(IT, "asks-from-anywhere", ports=(PORT, 67)),
        "asks-as-a-relay": question(IT, "asks-as-a-relay", source=IT.address, ports=(67, 67)),
        "answers": question(IT, "answers", ports=ANSWER),
        "says-other-things": question(IT, "says-other-things", ports=(68, PORT)),
        "probes-for-another": probe(IT, "probes-for-another", hardware=NOBODY.mac),
        "reply-of-nobody": frame(IT.mac, EVERYBODY, frames.ARP, reply),
        **forged(to, IT),
    }


@pytest.mark.parametrize("to", [HOST, NEIGHBOUR], ids=["host", "neighbour"])
@pytest.mark.parametrize("isolated", [True, False])
async def test_this_host_hears_what_is_true_and_nobody_else_anything(
    tapped: Tapped, to: Node, isolated: bool
) -> None:
    if not isolated:
        tapped.wire.join_ports()
        tapped.wire.host.configure("link", "set", CAROL.interface, "type", "bridge_slave", "isolated", "off")
    true = said(IT) | asked(IT)
    at_host, at_bob = tapped.heard(to, [*true.values(), *lies(to).values()])
    assert (at_host, at_bob) == (set(true), set())


@pytest.mark.parametrize("to", [HOST, NEIGHBOUR], ids=["host", "neighbour"])
async def test_everybody_hears_all_of_it_without_rules(tapped: Tapped, to: Node) -> None:
    await tapped.wire.unruled()
    tapped.wire.host.configure("link", "set", CAROL.interface, "type", "bridge_slave", "isolated", "off")
    everything = lies(to)
    at_host, at_bob = tapped.heard(to, list(everything.values()))
    assert (at_host if to is HOST else at_bob) == set(everything)


async def test_a_container_does_not_ask(wire: Wire) -> None:
    with ether.listening(wire.host, "qvdnet", "end") as by_host:
        ether.send(wire.alice, "eth0", [*asked(ME).values(), honest("end")])
        assert by_host() == set()
    await wire.unruled()
    with ether.listening(wire.host, "qvdnet", "end") as by_host:
        ether.send(wire.alice, "eth0", [*asked(ME).values(), honest("end")])
        assert by_host() == set(asked(ME))


async def test_a_server_of_this_host_is_asked_and_no_other_service(tapped: Tapped) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as server, socket.socket(type=socket.SOCK_DGRAM) as other:
        for service, port in ((server, 67), (other, PORT)):
            service.bind(("", port))
            service.settimeout(10)
        questions = asked(IT)
        taps.send(tapped.machine, [honest("other", IT), *questions.values()])
        heard = {server.recv(100) for name in questions if name != "probe"}
        assert heard == {ether.mark(name) for name in questions if name != "probe"}
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            other.recv(100)
        await tapped.wire.unruled()
        taps.send(tapped.machine, [honest("other", IT)])
        other.settimeout(10)
        assert other.recv(100) == ether.mark("other")


async def test_nobody_asks_without_end(tapped: Tapped) -> None:
    many = [question(IT, f"question-{number}") for number in range(500)]
    at_host, _ = tapped.heard(HOST, many)
    assert 20 <= len(at_host) < len(many) / 2
    await tapped.wire.firewall.remove()
    at_host, _ = tapped.heard(HOST, many)
    assert len(at_host) == len(many)


async def test_a_machine_without_a_fence_does_not_ask(tapped: Tapped) -> None:
    await tapped.wire.firewall.unfence(CAROL.vm_id)
    with ether.listening(tapped.wire.host, "qvdnet", "end") as by_host:
        taps.send(tapped.machine, [*asked(IT).values(), *said(IT).values()])
        ether.send(tapped.wire.alice, "eth0", [honest("end")])
        assert by_host() == set()
