"""A broker on loopback with a real database, and a client that speaks to it byte by byte.

The rows are the test's to set: it plays the HKD. The guest is `tests.support.guests.Guest`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from argon2 import PasswordHasher
from sqlalchemy import insert, select, update

from appliance.clock import SystemClock
from appliance.config import Settings
from appliance.l7r.server import L7r
from appliance.model import HostId, HostState, Secret, UserState, VmCmd, VmId, VmState
from appliance.signals import ChangeFeed
from appliance.storage import schema
from appliance.storage.migrate import upgrade
from appliance.storage.settings import SSL_CERT, SSL_KEY
from appliance.storage.store import Store
from tests.support.guests import Guest
from tests.support.tls import self_signed

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
"""Tests make many log-ins; production's parameters cost 100 ms each."""

ALICE, BOB = "alice", "bob"
PASSWORD = "secret"
QUICK = {
    "internal.l7r.poll_time.x": "0.05",
    "internal.l7r.poll_time.vm": "0.2",
    "internal.l7r.timeout.vma": "2",
    "internal.l7r.retry.x_start": "4",
    "internal.l7r.timeout.x_start": "3",
    "internal.l7r.timeout.takeover": "5",
}


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply as read off the wire."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def info(self) -> str:
        return self.headers["X-QVD-VM-Info"]


class Client:
    """A client's connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes, *, piece: int | None = None) -> None:
        """Send `data`, whole or `piece` bytes at a time."""
        size = piece or len(data)
        for start in range(0, len(data), size):
            self.writer.write(data[start : start + size])
            await self.writer.drain()

    async def reply(self) -> Reply:
        """The next reply, interim or final."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("ascii")
        first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
        version, status, _ = first.split(" ", 2)
        assert version == "HTTP/1.1"
        headers = dict(line.split(": ", 1) for line in lines)
        length = int(headers.get("Content-Length", "0"))
        return Reply(int(status), headers, await self.reader.readexactly(length))

    async def final(self) -> tuple[Reply, list[Reply]]:
        """The next reply that is no 102, and the 102s before it."""
        interim = []
        while (reply := await self.reply()).status == 102:
            interim.append(reply)
        return reply, interim

    async def ask(self, path: str, login: str = ALICE, password: str = PASSWORD) -> Reply:
        """Send a request without upgrade headers; the final reply."""
        await self.send(request(path, login, password))
        return (await self.final())[0]

    async def connect(self, vm_id: int, login: str = ALICE, query: str = "") -> tuple[Reply, list[Reply]]:
        """Ask for a desktop; the final reply and the 102s."""
        await self.send(connect_request(vm_id, login, query))
        return await self.final()

    async def ended(self) -> bool:
        """Whether the server closes the connection now; bytes before that are dropped."""
        with suppress(ConnectionError, ssl.SSLError):
            while await self.reader.read(65536):
                pass
        return True

    async def close(self) -> None:
        """Leave as a client does that ends its session."""
        self.writer.close()
        with suppress(OSError, ssl.SSLError):
            await self.writer.wait_closed()

    def vanish(self) -> None:
        """Leave as a client does whose machine is switched off."""
        self.writer.transport.abort()


def request(path: str, login: str = ALICE, password: str = PASSWORD, *lines: str) -> bytes:
    """A request as the Perl client writes it."""
    token = base64.b64encode(f"{login}:{password}".encode()).decode()
    head = [f"GET {path} HTTP/1.1", f"Authorization: Basic {token}", *lines]
    return ("\r\n".join(head) + "\r\n\r\n").encode()


def connect_request(vm_id: int, login: str = ALICE, query: str = "") -> bytes:
    """The request for a desktop."""
    path = f"/qvd/connect_to_vm?id={vm_id}&qvd.client.os=linux&qvd.client.geometry=1024x768{query}"
    return request(path, login, PASSWORD, "Connection: Upgrade", "Upgrade: QVD/1.0")


@dataclass(slots=True)
class Installation:
    """A node with users, VMs, a listening broker, and the hands to change rows."""

    store: Store
    feed: ChangeFeed
    port: int
    trust: ssl.SSLContext | None
    l7r: L7r
    stack: AsyncExitStack
    settings: dict[str, str]
    rings: list[float] = field(default_factory=list)

    async def client(self) -> Client:
        """A new connection to the broker."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.trust)
        client = Client(reader, writer)
        self.stack.push_async_callback(client.close)
        return client

    async def admitted(self) -> Client:
        """A new connection, as soon as the broker has room for one."""
        async with asyncio.timeout(10):
            while True:
                with suppress(ConnectionError, ssl.SSLError):
                    return await self.client()
                await asyncio.sleep(0.05)

    async def guest(self, *vm_ids: int) -> Guest:
        """A guest in which the VMs run from now on."""
        guest = await self.stack.enter_async_context(Guest())
        for vm_id in vm_ids:
            await self.runs(vm_id, guest)
        return guest

    async def runs(self, vm_id: int, guest: Guest) -> None:
        """What the HKD writes when a VM's agent has answered."""
        await self.set_row(
            vm_id,
            vm_state=VmState.RUNNING,
            vm_cmd=None,
            host_id=1,
            current_di_id=1,
            vm_address="127.0.0.1",
            vm_vma_port=guest.vma_port,
            vm_x_port=guest.x_port,
        )

    async def stops(self, vm_id: int, **more: Any) -> None:
        """What the HKD writes when a VM has stopped."""
        ports = dict.fromkeys(
            ("current_di_id", "vm_address", "vm_vma_port", "vm_x_port", "host_id", "vm_cmd")
        )
        await self.set_row(vm_id, **(ports | {"vm_state": VmState.STOPPED} | more))

    async def set_row(self, vm_id: int, **values: Any) -> None:
        """Change a runtime row, and tell those who watch it."""
        async with self.store.write() as tx:
            row = update(schema.vm_runtimes).where(schema.vm_runtimes.c.vm_id == vm_id).values(**values)
            await tx.connection.execute(row)
        self.feed.announce(VmId(vm_id))

    async def row(self, vm_id: int) -> Any:
        """A runtime row as it is now."""
        async with self.store.read() as tx:
            query = select(schema.vm_runtimes).where(schema.vm_runtimes.c.vm_id == vm_id)
            return (await tx.connection.execute(query)).one()

    async def counters(self) -> dict[str, int]:
        """The node's counters that are not zero."""
        async with self.store.read() as tx:
            row = (await tx.connection.execute(select(schema.host_counters))).one()
        return {name: value for name, value in row._mapping.items() if name != "host_id" and value}

    async def change(self, table: Any, **values: Any) -> None:
        """Overwrite columns of a whole table."""
        async with self.store.write() as tx:
            await tx.connection.execute(update(table).values(**values))

    async def until_user_state(self, vm_id: int, wanted: UserState) -> Any:
        """Wait for the session of a VM to be in a state; the row."""
        async with asyncio.timeout(10):
            while (row := await self.row(vm_id)).user_state is not wanted:
                await asyncio.sleep(0.01)
        return row

    async def until_wished(self, vm_id: int, wish: VmCmd) -> Any:
        """Wait for a wish to be written; the row."""
        async with asyncio.timeout(10):
            while (row := await self.row(vm_id)).vm_cmd is not wish:
                await asyncio.sleep(0.01)
        return row

    async def properties(self, table: Any, owner: str, **values: str) -> None:
        """Attach properties to the object with id 1; `__` in a key stands for a dot."""
        rows = [{owner: 1, "key": key.replace("__", "."), "value": value} for key, value in values.items()]
        async with self.store.write() as tx:
            await tx.connection.execute(insert(table), rows)

    async def list(self, login: str = ALICE) -> Any:
        """The list of desktops as JSON."""
        client = await self.client()
        reply = await client.ask("/qvd/list_of_vm?", login)
        assert reply.status == 200
        return json.loads(reply.body)


@asynccontextmanager
async def installation(directory: Path, **settings: str) -> AsyncIterator[Installation]:
    """An installation with alice (VMs 1, 7, 8) and bob (VM 2), all stopped; the broker listens."""
    written = _written(directory, settings)
    store = await _founded(written)
    feed, clock = ChangeFeed(), SystemClock()
    rings: list[float] = []
    identity = self_signed(directory)
    async with store.write() as tx:
        await tx.settings.set_ssl({SSL_KEY: identity.key.read_text(), SSL_CERT: identity.cert.read_text()})
    trust = None if written["l7r.use_ssl"] == "0" else ssl.create_default_context(cafile=str(identity.cert))
    try:
        async with asyncio.TaskGroup() as tasks:
            l7r = L7r(
                store,
                lambda: Settings(written),
                HostId(1),
                feed,
                lambda: rings.append(clock.monotonic()),
                clock,
                tasks,
            )
            await l7r.listen()
            port = int(written["l7r.port"])
            made = Installation(store, feed, port, trust, l7r, AsyncExitStack(), written, rings)
            try:
                yield made
            finally:
                await made.stack.aclose()
                await l7r.close()
    finally:
        await store.close()


def _written(directory: Path, settings: dict[str, str]) -> dict[str, str]:
    own = {
        "nodename": "node1",
        "l7r.address": "127.0.0.1",
        "l7r.port": str(free_port()),
        "l7r.use_ssl": "1",
        "path.storage.root": str(directory / "storage"),
        "path.run": str(directory / "run"),
        "database.url": f"sqlite:///{directory / 'qvd.db'}",
    }
    return own | QUICK | {key.replace("__", "."): value for key, value in settings.items()}


async def _founded(settings: dict[str, str]) -> Store:
    url = settings["database.url"]
    await asyncio.to_thread(upgrade, url)
    store = await Store.open(url, SystemClock())
    async with store.write() as tx:
        host = await tx.hosts.add("node1", "127.0.0.1")
        await tx.connection.execute(
            update(schema.host_runtimes)
            .where(schema.host_runtimes.c.host_id == host)
            .values(state=HostState.RUNNING)
        )
        stored = Secret(CHEAP.hash(PASSWORD))
        users = {login: (await tx.users.add(login, stored)).id for login in (ALICE, BOB)}
        await tx.connection.execute(insert(schema.osfs).values(id=1, name="desktop", memory=256))
        await tx.images.add(1, 1, version="v1", path="1-a.tar", sha256="0" * 64, size_bytes=1)  # type: ignore[arg-type]
        for number, login in ((1, ALICE), (2, BOB), (7, ALICE), (8, ALICE)):
            await tx.connection.execute(
                insert(schema.vms).values(
                    id=number,
                    uuid=f"u-{number}",
                    name=f"vm{number}",
                    user_id=users[login],
                    osf_id=1,
                    ip=f"10.3.1.{number}",
                    subid_slot=number,
                )
            )
            await tx.connection.execute(insert(schema.vm_runtimes).values(vm_id=number))
    return store


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
