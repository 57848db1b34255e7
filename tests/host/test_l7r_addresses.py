"""The broker on IPv4 and IPv6 at once, in a network namespace of its own."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import uvloop

from appliance.model import UserState
from tests.support.broker import Client, Installation, installation, request
from tests.support.netns import entered, namespace

pytestmark = pytest.mark.host

ALIVE = b"I am alive!\r\n"
NX = b"NXPROXY-3.5.0 "


@pytest.fixture
def apart() -> Iterator[None]:
    """This thread in a fresh network with a loopback of both kinds and some more addresses."""
    with namespace() as name:
        has_ipv6 = ["sysctl", "-qw", "net.ipv6.conf.lo.disable_ipv6=0"]
        subprocess.run(["ip", "netns", "exec", name, *has_ipv6], check=True)
        for address in (["192.0.2.1/32"], ["2001:db8::1/128", "nodad"], ["2001:db8::2/128", "nodad"]):
            subprocess.run(["ip", "-n", name, "address", "add", *address, "dev", "lo"], check=True)
        with entered(name):
            yield


def run(directory: Path, address: str, scenario: Callable[[Installation], Awaitable[None]]) -> None:
    """Run `scenario` on a broker that listens on `address`, as the daemon runs it."""

    async def scene() -> None:
        async with installation(directory, l7r__address=address, l7r__use_ssl="0") as node:
            await scenario(node)

    uvloop.run(scene())


async def at(node: Installation, address: str) -> Client:
    """A client that has dialled this address, and comes from it."""
    reader, writer = await asyncio.open_connection(address, node.port, local_addr=(address, 0))
    client = Client(reader, writer)
    node.stack.push_async_callback(client.close)
    return client


async def is_heard(node: Installation, address: str) -> bool:
    try:
        client = await at(node, address)
    except ConnectionRefusedError:
        return False
    return (await client.ask("/qvd/ping")).body == ALIVE


@pytest.mark.parametrize(
    ("listening", "heard"),
    [
        ("*", ("127.0.0.1", "::1", "192.0.2.1", "2001:db8::1")),
        ("0.0.0.0", ("127.0.0.1", "192.0.2.1")),
        ("::", ("::1", "2001:db8::1")),
        ("[::1]", ("::1",)),
        ("192.0.2.1, 2001:db8::1", ("192.0.2.1", "2001:db8::1")),
    ],
)
def test_who_is_heard_where(apart: None, tmp_path: Path, listening: str, heard: tuple[str, ...]) -> None:
    async def scenario(node: Installation) -> None:
        for address in ("127.0.0.1", "::1", "192.0.2.1", "2001:db8::1"):
            assert await is_heard(node, address) is (address in heard), address

    run(tmp_path, listening, scenario)


@pytest.mark.parametrize("address", ["::1", "2001:db8::1", "192.0.2.1"])
def test_the_address_of_a_client_is_told_as_people_write_it(
    apart: None, tmp_path: Path, address: str
) -> None:
    async def scenario(node: Installation) -> None:
        await node.guest(7)
        client = await at(node, address)
        assert (await client.connect(7))[0].status == 101
        await client.send(NX)
        assert await client.reader.readexactly(len(NX)) == NX
        row = await node.until_user_state(7, UserState.CONNECTED)
        assert row.user_ip == address

    run(tmp_path, "*", scenario)


def test_all_addresses_of_an_ipv6_network_are_one_machine(apart: None, tmp_path: Path) -> None:
    async def scenario(node: Installation) -> None:
        node.settings["internal.l7r.max_strangers_per_address"] = "1"
        assert await is_heard(node, "2001:db8::1")
        other = await at(node, "2001:db8::2")
        with suppress(ConnectionError):
            await other.send(request("/qvd/ping"))
        assert await other.ended()
        assert await is_heard(node, "::1")

    run(tmp_path, "*", scenario)


def test_both_kinds_move_together(apart: None, tmp_path: Path) -> None:
    async def scenario(node: Installation) -> None:
        session = await at(node, "::1")
        assert (await session.ask("/qvd/list_of_vm?")).status == 200
        for listening, heard in (
            ("127.0.0.1", False),
            ("*", True),
            ("0.0.0.0", False),
            ("::,127.0.0.1", True),
        ):
            node.settings["l7r.address"] = listening
            node.feed.announce_all()
            async with asyncio.timeout(20):
                while (await is_heard(node, "::1"), await is_heard(node, "127.0.0.1")) != (heard, True):
                    await asyncio.sleep(0.02)
        assert (await session.ask("/qvd/list_of_vm?")).status == 200

    run(tmp_path, "*", scenario)


def test_a_port_taken_on_one_kind_only_is_not_taken_at_all(
    apart: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(node: Installation) -> None:
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as another:
            node.settings["l7r.port"] = str(another.getsockname()[1])
            node.settings["l7r.address"] = "127.0.0.1,::1"
            node.feed.announce_all()
            async with asyncio.timeout(20):
                while "the port stays as it was" not in caplog.text:
                    await asyncio.sleep(0.02)
            assert await is_heard(node, "127.0.0.1")

    run(tmp_path, "127.0.0.1", scenario)
