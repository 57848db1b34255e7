"""Who reaches whom under the rules, each with the same knock succeeding once the rules are gone."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from appliance.clock import ManualClock, SystemClock
from appliance.config import Settings
from appliance.errors import NetworkError
from appliance.model import VmId
from appliance.runtime import bridge
from appliance.runtime.firewall import Firewall
from appliance.runtime.nft import Nftables
from appliance.runtime.ruleset import MOST_TALKS, Json
from tests.support.lxc_rig import NETWORK
from tests.support.onlooker import fenced
from tests.support.wire import ALICE, BOB, GATEWAY, HOST_OUTSIDE, WORLD, Wire, spec

pytestmark = pytest.mark.host


async def test_a_guest_reaches_the_world_as_this_host(wire: Wire) -> None:
    with wire.world.listening(80):
        assert wire.alice.knock(WORLD, 80) == f"seen as {HOST_OUTSIDE}"
        await wire.unruled()
        assert wire.alice.knock(WORLD, 80) == f"seen as {ALICE.address.ip}"


async def test_this_host_reaches_a_guest(wire: Wire) -> None:
    with wire.alice.listening(3030):
        assert wire.host.knock(str(ALICE.address.ip), 3030) == f"seen as {GATEWAY}"


@pytest.mark.parametrize("port", [3030, 4100])
async def test_the_world_does_not_reach_a_guest(wire: Wire, port: int) -> None:
    with wire.alice.listening(port):
        assert wire.world.knock(str(ALICE.address.ip), port) == "nothing"
        await wire.unruled()
        assert wire.world.knock(str(ALICE.address.ip), port) == f"seen as {WORLD}"


async def test_a_guest_does_not_reach_this_host_but_may_ask_for_names(wire: Wire) -> None:
    with wire.host.listening(22), wire.host.listening(53):
        assert wire.alice.knock(GATEWAY, 22) == "nothing"
        assert wire.alice.knock(HOST_OUTSIDE, 22) == "nothing"
        assert wire.alice.knock(GATEWAY, 53) == f"seen as {ALICE.address.ip}"
        assert wire.alice.knock(HOST_OUTSIDE, 53) == "nothing"
        await wire.unruled()
        assert wire.alice.knock(GATEWAY, 22) == f"seen as {ALICE.address.ip}"
        assert wire.alice.knock(HOST_OUTSIDE, 22) == f"seen as {ALICE.address.ip}"


async def test_a_guest_does_not_reach_another_over_the_bridge(wire: Wire) -> None:
    with wire.bob.listening(3030):
        wire.join_ports()
        assert wire.alice.knock(str(BOB.address.ip), 3030) == "nothing"
        await wire.unruled()
        assert wire.alice.knock(str(BOB.address.ip), 3030) == f"seen as {ALICE.address.ip}"


async def test_the_isolation_of_ports_alone_keeps_guests_apart(wire: Wire) -> None:
    with wire.bob.listening(3030):
        await wire.firewall.remove()
        assert wire.alice.knock(str(BOB.address.ip), 3030) == "nothing"


async def test_a_guest_does_not_reach_another_through_the_gateway(wire: Wire) -> None:
    mac = bridge.spec(Settings(NETWORK)).mac
    for machine, other in ((wire.alice, BOB), (wire.bob, ALICE)):
        machine.configure("neigh", "add", str(other.address.ip), "lladdr", mac, "dev", "eth0")
    with wire.bob.listening(3030):
        assert wire.alice.knock(str(BOB.address.ip), 3030) == "nothing"
        await wire.firewall.remove()
        assert wire.alice.knock(str(BOB.address.ip), 3030) == f"seen as {ALICE.address.ip}"


async def test_a_guest_cannot_use_anothers_address(wire: Wire) -> None:
    wire.alice.configure("address", "add", "10.44.0.55/24", "dev", "eth0")
    with wire.world.listening(80):
        assert wire.alice.knock(WORLD, 80) == f"seen as {HOST_OUTSIDE}"
        assert wire.alice.knock(WORLD, 80, source="10.44.0.55") == "nothing"
        assert wire.alice.knock(WORLD, 80) == f"seen as {HOST_OUTSIDE}"
        await wire.unruled()
        assert wire.alice.knock(WORLD, 80, source="10.44.0.55") == "seen as 10.44.0.55"


async def test_a_guest_cannot_use_another_hardware_address(wire: Wire) -> None:
    wire.alice.configure("link", "set", "eth0", "address", "54:52:00:2c:00:77")
    with wire.world.listening(80):
        assert wire.alice.knock(WORLD, 80) == "nothing"
        await wire.unruled()
        assert wire.alice.knock(WORLD, 80) == f"seen as {ALICE.address.ip}"


async def test_a_guest_cannot_claim_anothers_address_by_arp(wire: Wire) -> None:
    """Bob's address is added to Alice, who answers for it; the host must go on finding Bob."""
    wire.bob.configure("link", "set", "eth0", "down")
    wire.alice.configure("address", "add", f"{BOB.address.ip}/32", "dev", "eth0")
    with wire.alice.listening(3030):
        assert wire.host.knock(str(BOB.address.ip), 3030) == "nothing"
        await wire.unruled()
        wire.host.configure("neigh", "flush", "all")
        assert wire.host.knock(str(BOB.address.ip), 3030) == f"seen as {GATEWAY}"


async def test_a_guest_without_a_fence_carries_nothing(wire: Wire) -> None:
    with wire.world.listening(80):
        await wire.firewall.unfence(ALICE.vm_id)
        assert wire.alice.knock(WORLD, 80) == "nothing"
        assert wire.bob.knock(WORLD, 80) == f"seen as {HOST_OUTSIDE}"
        await wire.firewall.fence(ALICE)
        assert wire.alice.knock(WORLD, 80) == f"seen as {HOST_OUTSIDE}"


async def test_other_tables_are_left_alone(wire: Wire) -> None:
    def rules(table: str) -> str:
        return subprocess.run(
            ["nft", "list", "table", "inet", table], capture_output=True, text=True, check=False
        ).stdout

    rule = "add table inet own; add chain inet own c; add rule inet own c tcp dport 7 counter accept"
    subprocess.run(["nft", rule], check=True)
    before = rules("own")
    await wire.firewall.apply()
    await wire.firewall.fence(replace(ALICE, mac="54:52:00:2c:00:01"))
    assert rules("own") == before != ""
    assert rules("qvd_qvdnet") != ""
    disabled = Firewall(Settings({**NETWORK, "internal.vm.network.firewall.enable": "0"}))
    await disabled.apply()
    assert rules("own") == before
    assert rules("qvd_qvdnet") == ""


async def test_rules_that_others_flush_come_back(wire: Wire) -> None:
    with wire.alice.listening(3030):
        keeping = asyncio.get_running_loop().create_task(wire.firewall.keep(SystemClock(), every_s=0.05))
        for flush in ("flush ruleset", "delete table bridge qvd_qvdnet"):
            subprocess.run(["nft", flush], check=True)
            async with asyncio.timeout(20):
                while "qvd_qvdnet" not in tables("bridge") or "qvd_qvdnet" not in tables("inet"):
                    await asyncio.sleep(0.01)
            assert wire.world.knock(str(ALICE.address.ip), 3030) == "nothing"
            assert wire.host.knock(str(ALICE.address.ip), 3030) == f"seen as {GATEWAY}"
        keeping.cancel()
        subprocess.run(["nft", "flush ruleset"], check=True)
        assert wire.world.knock(str(ALICE.address.ip), 3030) == f"seen as {WORLD}"


async def test_no_rules_come_back_that_are_not_wanted(network: str) -> None:
    firewall = Firewall(Settings({**NETWORK, "internal.vm.network.firewall.enable": "0"}))
    clock = ManualClock(datetime(2030, 1, 31, tzinfo=UTC))
    keeping = asyncio.get_running_loop().create_task(firewall.keep(clock))
    for _ in range(3):
        await clock.advance(60)
    assert not keeping.done()
    keeping.cancel()
    assert tables("inet") == tables("bridge") == ""


def tables(family: str) -> str:
    """The tables of a family, by name."""
    return subprocess.run(
        ["nft", "list", "tables", family], capture_output=True, text=True, check=True
    ).stdout


async def test_a_refused_ruleset_leaves_the_old_one_in_force(wire: Wire) -> None:
    with pytest.raises(NetworkError, match="the firewall cannot be set up: nftables refuses: "):
        await wire.firewall.fence(replace(spec(103), mac="not an address"))
    await wire.firewall.fence(spec(104))
    with wire.world.listening(80):
        assert wire.alice.knock(WORLD, 80) == f"seen as {HOST_OUTSIDE}"


async def test_many_fences_at_once_are_all_in_force(network: str) -> None:
    settings = Settings(NETWORK)
    await bridge.converge(bridge.spec(settings))
    firewall = Firewall(settings)
    await asyncio.gather(*(firewall.fence(spec(number)) for number in range(2, 202)))
    await asyncio.gather(*(firewall.unfence(VmId(number)) for number in range(2, 202, 2)))
    shown = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout
    for number in range(2, 202):
        assert (f"10.44.0.{number} " in shown.replace(",", " ")) is (number % 2 == 1)


async def test_the_bridge_converges(network: str) -> None:
    settings = Settings(NETWORK)
    for _ in range(2):
        await bridge.converge(bridge.spec(settings))
    moved = bridge.spec(Settings({**NETWORK, "vm.network.gateway": "10.45.0.1", "vm.network.netmask": "16"}))
    await bridge.converge(moved)
    shown = subprocess.run(
        ["ip", "-4", "-o", "address", "show", "qvdnet"], capture_output=True, text=True, check=True
    )
    assert [word for word in shown.stdout.split() if "/" in word] == ["10.45.0.1/16"]


async def test_another_link_of_that_name_is_refused(network: str) -> None:
    subprocess.run(["ip", "link", "add", "qvdnet", "type", "veth"], check=True)
    with pytest.raises(NetworkError, match="qvdnet exists and is not a bridge"):
        await bridge.converge(bridge.spec(Settings(NETWORK)))


async def test_a_fence_that_failed_after_its_work_was_done_is_removed_all_the_same(
    network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    firewall = Firewall(Settings(NETWORK))
    await firewall.begin([])
    run = Nftables.run

    async def done_and_failed(nftables: Nftables, commands: Json) -> Json:
        await run(nftables, commands)
        raise NetworkError("the answer was lost")

    with monkeypatch.context() as failing:
        failing.setattr(Nftables, "run", done_and_failed)
        with pytest.raises(NetworkError, match="the answer was lost"):
            await firewall.fence(ALICE)
    assert ALICE.interface in fenced()
    await firewall.unfence(ALICE.vm_id)
    assert fenced() == set()


FLOOD = """
import socket, sys
for port in range(1024, 1024 + int(sys.argv[2])):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as talking:
        talking.sendto(b"?", (sys.argv[1], port))
"""


async def test_a_guest_does_not_use_up_what_the_kernel_remembers_of_conversations(wire: Wire) -> None:
    with wire.world.listening(80):
        flood = [*wire.alice.there(), sys.executable, "-I", "-c", FLOOD, WORLD, str(2 * MOST_TALKS)]
        subprocess.run(flood, check=True)
        remembered = int(Path("/proc/sys/net/netfilter/nf_conntrack_count").read_text())
        assert MOST_TALKS / 2 < remembered < MOST_TALKS + 100
        assert wire.alice.knock(WORLD, 80) == "nothing"
        assert wire.bob.knock(WORLD, 80) == f"seen as {HOST_OUTSIDE}"


async def test_questions_for_names_are_bounded_like_other_conversations(wire: Wire) -> None:
    with wire.host.listening(53):
        flood = FLOOD.replace("sys.argv[1], port", "sys.argv[1], 53")
        script = [*wire.alice.there(), sys.executable, "-I", "-c", flood, GATEWAY, str(2 * MOST_TALKS)]
        subprocess.run(script, check=True)
        remembered = int(Path("/proc/sys/net/netfilter/nf_conntrack_count").read_text())
        assert MOST_TALKS / 2 < remembered < MOST_TALKS + 100
        assert wire.bob.knock(GATEWAY, 53) == f"seen as {BOB.address.ip}"
