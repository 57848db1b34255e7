"""Addresses told by a real dnsmasq to real clients, under the rules."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from appliance.clock import SystemClock
from appliance.config import Settings
from appliance.errors import MissingToolError, NetworkError
from appliance.runtime import bridge, preflight
from appliance.runtime.addressing import AddressedFences
from appliance.runtime.backend import GuestSpec
from appliance.runtime.dhcp import Dhcp
from appliance.runtime.firewall import Firewall
from tests.support.lxc_rig import NETWORK
from tests.support.machines_on_wire import Machine
from tests.support.wire import GATEWAY, spec

pytestmark = pytest.mark.host

SETTINGS = {**NETWORK, "vm.network.domain": "desks.example"}
CAROL, DAVE = (
    replace(spec(number), asks_dhcp=True, hostname=name) for number, name in ((103, "carol"), (104, "dave"))
)
TELL = """#!/bin/sh
echo "$1 ip=$ip/$mask router=$router dns=$dns domain=$domain name=$hostname"
[ "$1" = deconfig ] || ip address replace "$ip/$mask" dev "$interface"
"""
NAME = """
import socket, struct, sys
asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asking.settimeout(5)
question = b"".join(bytes([len(part)]) + part.encode() for part in sys.argv[2].split(".")) + b"\\0"
question = struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + question + struct.pack("!2H", 1, 1)
asking.sendto(question, (sys.argv[1], 53))
answer = asking.recv(512)
print(".".join(map(str, answer[-4:])) if struct.unpack("!H", answer[6:8])[0] else "no such name")
"""


@dataclass
class Site:
    """A host with its bridge, and the ends of two guests' links."""

    fences: AddressedFences
    dhcp: Dhcp
    hosts: Path
    guests: dict[str, Machine]
    script: Path

    def asks(self, name: str, *words: str) -> str:
        """What a guest's DHCP client is told, if anything."""
        client = [
            "busybox",
            "udhcpc",
            "-f",
            "-q",
            "-n",
            "-i",
            "eth0",
            "-s",
            str(self.script),
            "-O",
            "hostname",
        ]
        told = subprocess.run(
            [*self.guests[name].there(), *client, "-t", "4", "-T", "1", *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        bound = re.search(r"^bound (.*)$", told.stdout, re.MULTILINE)
        return bound[1] if bound else "nothing"

    def asks_for_a_name(self, guest: str, name: str) -> str:
        """What a guest is told about a name."""
        words = [*self.guests[guest].there(), sys.executable, "-I", "-c", NAME, GATEWAY, name]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()

    def dnsmasq(self) -> list[int]:
        """The processes that read this site's file."""
        return [
            pid
            for pid, words in processes()
            if words[0] == "dnsmasq" and any(str(self.hosts) in w for w in words)
        ]


def processes() -> Iterator[tuple[int, list[str]]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if words := (entry / "cmdline").read_text(errors="replace").split("\0")[:-1]:
                    yield int(entry.name), words


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.02)


def told(guest: GuestSpec, dns: str = GATEWAY) -> str:
    return f"ip={guest.address.ip}/24 router={GATEWAY} dns={dns} domain=desks.example name={guest.hostname}"


@pytest.fixture
async def host(machines: dict[str, Machine], tmp_path: Path) -> dict[str, Machine]:
    """Two guests who know nothing, plugged into the bridge."""
    await bridge.converge(bridge.spec(Settings(SETTINGS)))
    for guest, machine in ((CAROL, machines["alice"]), (DAVE, machines["bob"])):
        Machine(None).configure(
            *("link", "add", guest.interface, "type", "veth", "peer", "name", "eth0"),
            *("address", guest.mac, "netns", str(machine.namespace)),
        )
        machine.configure("link", "set", "eth0", "up")
        await bridge.attach(guest.interface, guest.bridge)
    script = tmp_path / "told"
    script.write_text(TELL)
    script.chmod(0o755)
    return {"carol": machines["alice"], "dave": machines["bob"]}


@asynccontextmanager
async def daemon(
    guests: dict[str, Machine], directory: Path, known: Sequence[GuestSpec] = (), **more: str
) -> AsyncIterator[Site]:
    """What of a daemon tells addresses; leaving the block is its end."""
    settings = Settings(SETTINGS | {name.replace("__", "."): value for name, value in more.items()})
    dhcp = Dhcp(settings, directory, SystemClock())
    await dhcp.check()
    fences = AddressedFences(Firewall(settings), dhcp)
    site = Site(fences, dhcp, directory / "dhcp-hostsfile", guests, directory / "told")
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(dhcp.run())
        await fences.begin(known)
        await until(site.dnsmasq)
        yield site
        running.cancel()


async def test_a_guest_is_told_its_own_address_and_all_that_the_settings_say(
    host: dict[str, Machine], tmp_path: Path
) -> None:
    async with daemon(host, tmp_path, [CAROL]) as site:
        assert site.asks("carol") == told(CAROL)
        assert site.asks("carol", "-x", "0x3d:010203", "-F", "gateway") == told(CAROL)
        assert site.asks_for_a_name("carol", "carol.desks.example") == str(CAROL.address.ip)
        assert site.asks_for_a_name("carol", "gateway.desks.example") == "no such name"
        (pid,) = site.dnsmasq()
    assert site.dnsmasq() == []
    assert not Path(f"/proc/{pid}").exists()


async def test_nobody_else_is_told_anything_until_he_is_known(
    host: dict[str, Machine], tmp_path: Path
) -> None:
    async with daemon(host, tmp_path, [CAROL]) as site:
        await Firewall(Settings({**SETTINGS, "internal.vm.network.firewall.enable": "0"})).apply()
        assert site.asks("dave", "-t", "1") == "nothing"
        host["carol"].configure("link", "set", "eth0", "address", "54:52:00:2c:00:77")
        assert site.asks("carol", "-t", "1") == "nothing"
        await site.fences.fence(DAVE)
        assert site.asks("dave") == told(DAVE)
        await site.fences.unfence(DAVE.vm_id)
        await Firewall(Settings({**SETTINGS, "internal.vm.network.firewall.enable": "0"})).apply()
        assert site.asks("dave", "-t", "1") == "nothing"


async def test_dnsmasq_that_is_killed_comes_back(
    host: dict[str, Machine], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with daemon(host, tmp_path, [CAROL]) as site:
        assert site.asks("carol") == told(CAROL)
        for kills in (1, 2):
            (pid,) = site.dnsmasq()
            os.kill(pid, signal.SIGKILL)
            await until(lambda pid=pid: site.dnsmasq() not in ([], [pid]))  # type: ignore[misc]
            assert len([line for line in caplog.messages if line.startswith("dnsmasq ended")]) == kills
        await site.fences.fence(DAVE)
        for name, guest in (("carol", CAROL), ("carol.desks.example", CAROL), ("dave", DAVE)):
            assert site.asks_for_a_name("carol", name) == str(guest.address.ip), "who has not asked again"
        assert site.asks("dave") == told(DAVE)
        assert site.asks("carol", "-r", str(CAROL.address.ip)) == told(CAROL)


async def test_another_resolver_is_told_and_nobody_answers_names_here(
    host: dict[str, Machine], tmp_path: Path
) -> None:
    async with daemon(host, tmp_path, [CAROL], vm__network__dns_server="192.0.2.53") as site:
        assert site.asks("carol") == told(CAROL, "192.0.2.53")
        assert not preflight.names_are_answered("qvdnet", bridge.spec(Settings(SETTINGS)).address.ip)
    async with daemon(host, tmp_path, [CAROL], vm__network__dns_server="") as site:
        assert site.asks("carol") == told(CAROL, "")


@pytest.mark.parametrize("address", ["0.0.0.0", GATEWAY])
async def test_who_answers_names_already_goes_on(
    host: dict[str, Machine], tmp_path: Path, caplog: pytest.LogCaptureFixture, address: str
) -> None:
    caplog.set_level("INFO")
    with socket.socket(type=socket.SOCK_DGRAM) as resolver:
        resolver.bind((address, 53))
        async with daemon(host, tmp_path, [CAROL]) as site:
            assert site.asks("carol") == told(CAROL)
            assert "another program answers names at the gateway: left to it" in caplog.messages


class TestBefore:
    """What stands in the way is told before anything is changed."""

    @pytest.mark.parametrize("bridged", [True, False])
    @pytest.mark.parametrize("address", ["0.0.0.0", GATEWAY])
    async def test_a_server_that_hears_our_guests_is_in_the_way(
        self, network: str, tmp_path: Path, address: str, bridged: bool
    ) -> None:
        if bridged:
            await bridge.converge(bridge.spec(Settings(SETTINGS)))
        with socket.socket(type=socket.SOCK_DGRAM) as server:
            server.setsockopt(socket.IPPROTO_IP, preflight.IP_FREEBIND, 1)
            server.bind((address, 67))
            with pytest.raises(NetworkError, match="another program has UDP port 67") as refusal:
                await Dhcp(Settings(SETTINGS), tmp_path, Impatient()).check()
            assert "vm.network.use_dhcp=0" in str(refusal.value)
        await Dhcp(Settings(SETTINGS), tmp_path, Impatient()).check()

    async def test_a_server_of_another_bridge_is_not(self, network: str, tmp_path: Path) -> None:
        Machine(None).configure("link", "add", "virbr0", "type", "bridge")
        with socket.socket(type=socket.SOCK_DGRAM) as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"virbr0")
            server.bind(("0.0.0.0", 67))
            await Dhcp(Settings(SETTINGS), tmp_path, Impatient()).check()
            await bridge.converge(bridge.spec(Settings(SETTINGS)))
            await Dhcp(Settings(SETTINGS), tmp_path, Impatient()).check()

    async def test_dnsmasq_must_be_there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(MissingToolError, match="dnsmasq is missing"):
            await Dhcp(Settings(SETTINGS), tmp_path, Impatient()).check()


class Impatient(SystemClock):
    """A clock on which every wait is over at once."""

    def __init__(self) -> None:
        self._now = 0.0

    def monotonic(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        self._now += seconds
        await asyncio.sleep(0)


DAEMON = """
import asyncio, sys
from pathlib import Path
import uvloop
from appliance.clock import SystemClock
from appliance.config import Settings
from appliance.runtime.dhcp import Dhcp

async def serve():
    clock = SystemClock()
    dhcp = Dhcp(Settings(dict(word.split("=", 1) for word in sys.argv[2:])), Path(sys.argv[1]), clock)
    await dhcp.check()
    dhcp.begin([])
    await dhcp.run()

uvloop.run(serve())
"""


def program(directory: Path) -> list[str]:
    """How a daemon of its own is called, under the loop of the product."""
    settings = (f"{key}={value}" for key, value in SETTINGS.items())
    return [sys.executable, "-c", DAEMON, str(directory), *settings]


async def test_a_daemon_after_one_that_was_killed_has_the_ports_back(network: str, tmp_path: Path) -> None:
    await bridge.converge(bridge.spec(Settings(SETTINGS)))
    site = Site(None, None, tmp_path / "dhcp-hostsfile", {}, tmp_path)  # type: ignore[arg-type]
    before: list[int] = []
    for _ in range(3):
        with subprocess.Popen(program(tmp_path)) as process:
            try:
                await until(lambda before=before: site.dnsmasq() not in ([], before))  # type: ignore[misc]
                before = site.dnsmasq()
                assert len(before) == 1
            finally:
                process.kill()
    await until(lambda: not site.dnsmasq())


async def test_a_daemon_that_may_not_open_the_port_says_how_it_may(network: str, tmp_path: Path) -> None:
    words = ["setpriv", "--bounding-set=-net_bind_service", *program(tmp_path)]
    refused = await asyncio.to_thread(subprocess.run, words, capture_output=True, text=True, check=False)
    assert "port 67 may not be opened (the daemon lacks CAP_NET_BIND_SERVICE" in refused.stderr


async def test_what_the_daemon_is_allowed_is_not_what_dnsmasq_is(
    host: dict[str, Machine], tmp_path: Path
) -> None:
    async with daemon(host, tmp_path) as site:
        (pid,) = site.dnsmasq()
        status = dict(
            line.split(":\t", 1)
            for line in Path(f"/proc/{pid}/status").read_text().splitlines()
            if ":\t" in line
        )
        net_bind_service, net_admin = 1 << 10, 1 << 12
        assert int(status["CapPrm"], 16) == int(status["CapBnd"], 16) == net_bind_service | net_admin
        assert status["NoNewPrivs"] == "1"
