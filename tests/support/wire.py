"""This host between two guests and the world, each a network namespace, under the rules."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from ipaddress import IPv4Interface

from appliance.config import Settings
from appliance.model import VmId
from appliance.runtime import bridge
from appliance.runtime.backend import GuestSpec
from appliance.runtime.firewall import Firewall
from tests.support import netns
from tests.support.lxc_rig import NETWORK
from tests.support.machines import GUEST
from tests.support.machines_on_wire import Machine

GATEWAY, HOST_OUTSIDE, WORLD = "10.44.0.1", "192.0.2.1", "192.0.2.2"
NAMES = ("alice", "bob", "world", "host")


def spec(number: int) -> GuestSpec:
    """The guest of a VM, at 10.44.0.`number`."""
    return replace(
        GUEST,
        mark=replace(GUEST.mark, vm_id=VmId(number)),
        address=IPv4Interface(f"10.44.0.{number}/24"),
        mac=f"54:52:00:2c:00:{number:02x}",
        interface=f"qvd{number}",
    )


ALICE, BOB = spec(101), spec(102)


@dataclass(frozen=True)
class Wire:
    """Who is on it, and the rules."""

    alice: Machine
    bob: Machine
    world: Machine
    host: Machine
    firewall: Firewall

    async def unruled(self) -> None:
        """Without rules, and without the isolation of ports, which keeps guests apart by itself."""
        await self.firewall.remove()
        self.join_ports()

    def join_ports(self) -> None:
        """Take away the isolation of ports, so that the rules alone keep guests apart."""
        for guest in (ALICE, BOB):
            subprocess.run(["bridge", "link", "set", "dev", guest.interface, "isolated", "off"], check=True)


@contextmanager
def namespaces() -> Iterator[dict[str, Machine]]:
    """The machines, none connected yet; this thread is in the one called `host`."""
    with ExitStack() as stack:
        made = {name: stack.enter_context(netns.namespace()) for name in NAMES}
        stack.enter_context(netns.entered(made["host"]))
        yield {name: Machine(namespace) for name, namespace in made.items()}


async def connect(machines: dict[str, Machine]) -> Wire:
    """Plug everybody in, with the guests fenced."""
    settings = Settings(NETWORK)
    await bridge.converge(bridge.spec(settings))
    host = Machine(None)
    for guest, name in ((ALICE, "alice"), (BOB, "bob")):
        machine = machines[name]
        host.configure(
            *("link", "add", guest.interface, "type", "veth", "peer", "name", "eth0"),
            *("address", guest.mac, "netns", str(machine.namespace)),
        )
        machine.configure("link", "set", "eth0", "up")
        machine.configure("address", "add", str(guest.address), "dev", "eth0")
        machine.configure("route", "add", "default", "via", GATEWAY)
        await bridge.attach(guest.interface, guest.bridge)
    world = machines["world"]
    host.configure(
        "link", "add", "uplink", "type", "veth", "peer", "name", "eth0", "netns", str(world.namespace)
    )
    host.configure("address", "add", f"{HOST_OUTSIDE}/24", "dev", "uplink")
    host.configure("link", "set", "uplink", "up")
    world.configure("address", "add", f"{WORLD}/24", "dev", "eth0")
    world.configure("link", "set", "eth0", "up")
    world.configure("route", "add", "10.44.0.0/24", "via", HOST_OUTSIDE)
    firewall = Firewall(settings)
    await firewall.apply()
    await firewall.fence(ALICE)
    await firewall.fence(BOB)
    return Wire(machines["alice"], machines["bob"], world, host, firewall)
