"""The error matrix of protocol.md 1.5 to 1.10, row by row and byte by byte.

Each row is refused with its status, in two TLS records with the headers spelled as the clients look them up,
by one line for a person; the connection stays usable, and in the database nothing has changed but what the
row names.
"""

from __future__ import annotations

import asyncio
import base64
import re
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, select

from appliance.l7r.wire import REASONS
from appliance.model import BlockCause, FailureCause, HostState, UserState, VmCmd, VmState
from appliance.storage import schema
from tests.support.broker import BOB, Installation, connect_request, installation, request

UPGRADE = ("Connection: Upgrade", "Upgrade: QVD/1.0")
CALLS = {
    "ping": request("/qvd/ping"),
    "list": request("/qvd/list_of_vm?"),
    "connect": connect_request(7),
    "stop": request("/qvd/stop_vm?id=7"),
}
SESSION = frozenset({"real_user_id", "user_state_ts"})
"""What a session leaves behind in the row of its VM, however short it was."""
WISH = SESSION | {"vm_cmd", "host_id", "started_by"}
OWNED = frozenset({"user_state", "l7r_session", "l7r_host_id", "l7r_pid", "user_ip"})
LEAD = "The desktop vm7 cannot be shown now: "
INVITATION = ". Please try again in a moment."

Arrange = Callable[[Installation], Awaitable[Any]]


async def as_it_is(node: Installation) -> None:
    """Change nothing."""


@dataclass(frozen=True)
class Row:
    """One way to be refused."""

    name: str
    data: bytes
    status: int
    says: str
    arrange: Arrange = as_it_is
    meanwhile: Arrange = as_it_is
    """What happens while the client waits."""
    leaves: frozenset[str] = frozenset()
    """The columns of VM 7 that may differ afterwards."""
    settings: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


def connect(query: str, *lines: str, login: str = "alice", password: str = "secret") -> bytes:
    return request(f"/qvd/connect_to_vm?{query}", login, password, *lines)


def authorized(header: str) -> bytes:
    return f"GET /qvd/list_of_vm? HTTP/1.1\r\n{header}\r\n".encode()


def basic(text: str) -> str:
    return f"Authorization: Basic {base64.b64encode(text.encode()).decode()}\r\n"


def changed(table: Any, **values: Any) -> Arrange:
    return lambda node: node.change(table, **values)


def vm(**values: Any) -> Arrange:
    return lambda node: node.set_row(7, **values)


async def unregistered(node: Installation) -> None:
    async with node.store.write() as tx:
        await tx.connection.execute(delete(schema.hosts))


def guest(**habits: Any) -> Arrange:
    async def arrange(node: Installation) -> None:
        made = await node.guest(7)
        for habit, value in habits.items():
            setattr(made, habit, value)

    return arrange


async def x_port_closed(node: Installation) -> None:
    await node.guest(7)
    await node.set_row(7, vm_x_port=1)


async def agent_gone(node: Installation) -> None:
    await (await node.guest(7)).__aexit__()


async def start_fails(node: Installation) -> None:
    await node.until_wished(7, VmCmd.START)
    await node.set_row(7, vm_state=VmState.STARTING, vm_cmd=None)
    await asyncio.sleep(0.05)
    await node.stops(7, failure="the image has no VMA", failure_cause=FailureCause.IMAGE)


async def start_called_off(node: Installation) -> None:
    await node.until_wished(7, VmCmd.START)
    await node.stops(7)


async def host_hinders(node: Installation) -> None:
    await node.until_wished(7, VmCmd.START)
    await node.set_row(
        7, vm_state=VmState.STARTING, vm_cmd=None, failure="the pool is full", failure_cause=FailureCause.HOST
    )


async def newer_client(node: Installation) -> None:
    await node.until_user_state(7, UserState.CONNECTING)
    second = await node.client()
    await second.send(connect_request(7))


async def tables_lost(node: Installation) -> None:
    async with node.store.write() as tx:
        await tx.connection.exec_driver_sql("ALTER TABLE host_counters RENAME TO lost")


NODE = [
    Row(f"{call} on a node that is {what}", data, 503, says, arrange)
    for what, says, arrange in (
        ("blocked", "under maintenance", changed(schema.host_runtimes, blocked=True)),
        *(
            (state, state, changed(schema.host_runtimes, blocked=False, state=state))
            for state in HostState
            if state is not HostState.RUNNING
        ),
        ("not registered", "not registered", unregistered),
    )
    for call, data in CALLS.items()
]

CREDENTIALS = [
    Row(f"{what}", data, 401, "login or password are wrong", arrange)
    for what, data, arrange in (
        ("wrong password", connect("id=7", *UPGRADE, password="bad"), as_it_is),
        ("empty password", connect("id=7", *UPGRADE, password=""), as_it_is),
        ("unknown login", connect("id=7", *UPGRADE, login="nobody"), as_it_is),
        ("empty login", connect("id=7", *UPGRADE, login=""), as_it_is),
        ("no credentials", authorized(""), as_it_is),
        ("another scheme", authorized("Authorization: Bearer YTpi\r\n"), as_it_is),
        ("no base64", authorized("Authorization: Basic !\r\n"), as_it_is),
        ("no colon", authorized(basic("alice")), as_it_is),
        ("disabled user", CALLS["connect"], changed(schema.users, enabled=False)),
        ("user without a password", CALLS["list"], changed(schema.users, password=None)),
        ("stop with a wrong password", request("/qvd/stop_vm?id=7", password="bad"), as_it_is),
    )
]

REQUESTS = [
    Row("no upgrade", connect("id=7"), 426, "newer client"),
    Row("upgrade to another protocol", connect("id=7", UPGRADE[0], "Upgrade: QVD/2.0"), 426, "newer client"),
    Row("connection is kept", connect("id=7", "Connection: keep-alive", UPGRADE[1]), 426, "newer client"),
    *(
        Row(f"id {written!r} of {call}", data, 422, "parameter id")
        for written in ("", "id=", "id=x", "id=-7", "id=7.0", "id=" + "9" * 30, "id=%D9%A7")
        for call, data in (
            ("connect", connect(written, *UPGRADE)),
            ("stop", request(f"/qvd/stop_vm?{written}")),
        )
    ),
    Row("a parameter of no namespace", connect("id=7&shell=1", *UPGRADE), 403, "parameter shell"),
    Row("a parameter of the server's", connect("id=7&qvd.vm.user.name=root", *UPGRADE), 403, "qvd.vm.user"),
    Row("unknown VM", connect("id=99", *UPGRADE), 404, "does not exist"),
    Row("stop of an unknown VM", request("/qvd/stop_vm?id=99"), 404, "does not exist"),
    Row("foreign VM", connect("id=2", *UPGRADE), 403, "somebody else"),
    Row("stop of a foreign VM", request("/qvd/stop_vm?id=2"), 403, "somebody else"),
    Row("unknown path", request("/qvd/authenticate_user?store_auth=1"), 404, "nothing here"),
    Row("path with a slash at its end", request("/qvd/ping/"), 404, "nothing here"),
    Row("method", b"POST /qvd/ping HTTP/1.1\r\n\r\n", 404, "nothing here"),
]

BLOCKED = [
    *(
        Row(
            f"VM blocked by {cause}",
            CALLS["connect"],
            403,
            "under maintenance",
            vm(blocked=True, block_cause=cause),
        )
        for cause in BlockCause
    ),
    Row(
        "a foreign VM's block is not told",
        connect_request(7, BOB),
        403,
        "somebody else",
        vm(blocked=True, block_cause=BlockCause.ADMIN),
    ),
]

ORDER = [
    Row("node before credentials", connect("id=7", password="bad"), 503, "registered", unregistered),
    Row(
        "credentials before the block of the node",
        connect("id=7", *UPGRADE, password="bad"),
        401,
        "wrong",
        changed(schema.host_runtimes, blocked=True),
    ),
    Row(
        "block of the node before its state",
        CALLS["connect"],
        503,
        "maintenance",
        changed(schema.host_runtimes, blocked=True, state=HostState.STOPPING),
    ),
    Row(
        "node before upgrade",
        connect("id=7"),
        503,
        "maintenance",
        changed(schema.host_runtimes, blocked=True),
    ),
    Row("upgrade before id", connect(""), 426, "newer client"),
    Row("id before namespace", connect("shell=1", *UPGRADE), 422, "parameter id"),
    Row("namespace before VM", connect("id=99&shell=1", *UPGRADE), 403, "parameter shell"),
]

HELD = vm(user_state=UserState.CONNECTED, l7r_session="another's", l7r_host_id=1)
QUICK_START = {"internal__l7r__timeout__vm_start": "0.4"}

LONG_PART = [
    Row(
        "takeover timed out",
        CALLS["connect"],
        503,
        "another client holds the desktop",
        HELD,
        leaves=frozenset({"user_cmd"}),
        settings={"internal__l7r__timeout__takeover": "0.3"},
    ),
    Row("no host", CALLS["connect"], 503, "no host may start", changed(schema.hosts, backend=False)),
    Row("zombie", CALLS["connect"], 503, "could not be stopped", vm(vm_state=VmState.ZOMBIE, host_id=1),
        leaves=SESSION),
    Row("stopped while starting", CALLS["connect"], 503, "did not start: the image has no VMA",
        meanwhile=start_fails, leaves=SESSION | {"started_by", "failure", "failure_cause"}),
    Row("start called off", CALLS["connect"], 503, "its start was called off",
        meanwhile=start_called_off, leaves=SESSION | {"started_by"}),
    Row("start timed out", CALLS["connect"], 503, "not ready within 0.4 s",
        settings=QUICK_START, leaves=WISH),
    Row("host hinders the start", CALLS["connect"], 503, "not ready within 0.4 s: the pool is full",
        meanwhile=host_hinders, settings=QUICK_START,
        leaves=WISH | {"vm_state", "failure", "failure_cause"}),
    Row("stop of a zombie", CALLS["stop"], 503, "administrator", vm(vm_state=VmState.ZOMBIE, host_id=1)),
    Row("stop that takes too long", CALLS["stop"], 408, "did not stop within 0.3 s", guest(),
        leaves=frozenset({"vm_cmd"}), settings={"internal__l7r__timeout__vm_stop": "0.3"}),
    Row("X refused", CALLS["connect"], 503, "x_start failed: try again", guest(refuse_starts=99),
        leaves=SESSION),
    Row("X never listens", CALLS["connect"], 503, "did not listen within 0.4 s", guest(never_listens=True),
        leaves=SESSION, settings={"internal__l7r__timeout__x_start": "0.4"}),
    Row("X port closed", CALLS["connect"], 503, "cannot be reached", x_port_closed, leaves=SESSION),
    Row("agent gone", CALLS["connect"], 503, "cannot be started", agent_gone, leaves=SESSION),
    Row("aborted by a newer client", CALLS["connect"], 503, "newer client",
        meanwhile=newer_client, leaves=WISH | OWNED),
    Row("our own fault", CALLS["list"], 500, "its log says more", tables_lost),
]  # fmt: skip

ALONE = [row for row in (*CREDENTIALS, *BLOCKED, *ORDER) if row.arrange is not as_it_is] + LONG_PART
TOGETHER = [row for row in (*REQUESTS, *CREDENTIALS, *ORDER) if row.arrange is as_it_is]


@pytest.mark.parametrize("row", ALONE, ids=str)
async def test_a_row_of_the_matrix(tmp_path: Path, row: Row) -> None:
    async with installation(tmp_path, **row.settings) as node:
        await check(node, row)


@pytest.mark.parametrize("rows", [NODE, TOGETHER], ids=["the node", "the request"])
async def test_rows_that_one_world_will_do_for(tmp_path: Path, rows: list[Row]) -> None:
    async with installation(tmp_path) as node:
        for row in rows:
            try:
                await check(node, row)
            except BaseException as exc:
                exc.add_note(f"in the row: {row.name}")
                raise


async def check(node: Installation, row: Row) -> None:
    """Be refused as the row says."""
    await row.arrange(node)
    before = await everything(node)
    asking = asyncio.create_task(asyncio.to_thread(records_of, node, row.data))
    await row.meanwhile(node)
    head, body = await asyncio.wait_for(asking, 20)
    check_bytes(head, body, row.status)
    assert row.says in body.decode()
    if row in LONG_PART and row.data == CALLS["connect"]:
        assert body.decode().startswith(LEAD)
        assert body.decode().endswith(f"{INVITATION}\r\n")
    assert set(await differences(node, before)) <= row.leaves


def check_bytes(head: bytes, body: bytes, status: int) -> None:
    """Exactly the bytes that the deployed clients were seen to accept."""
    challenge = 'WWW-Authenticate: Basic realm="QVD"\r\n' if status == 401 else ""
    assert head.decode() == (
        f"HTTP/1.1 {status} {REASONS[status]}\r\n{challenge}"
        f"Content-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    assert re.fullmatch(rb"[ -~]{10,300}\r\n", body), "one clear line"
    assert b"Traceback" not in body
    assert b"sqlite" not in body


def records_of(node: Installation, data: bytes) -> tuple[bytes, bytes]:
    """Head and body of the final reply, each the whole of a TLS record; the connection is usable after it."""
    assert node.trust is not None
    with (
        socket.create_connection(("127.0.0.1", node.port), timeout=20) as plain,
        node.trust.wrap_socket(plain, server_hostname="127.0.0.1") as tls,
    ):
        tls.sendall(data)
        while (head := tls.recv(65536)).startswith(b"HTTP/1.1 102 "):
            pass
        body = tls.recv(65536)
        tls.sendall(b"GET /qvd/nothing HTTP/1.1\r\n\r\n")
        assert tls.recv(65536).startswith(b"HTTP/1.1 404 ")
        return head, body


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n", 400),
        (b"GET  HTTP/1.1\r\n", 400),
        (b"GET /qvd/ping HTTP/1.1\r\n: no name\r\n", 400),
        (b"GET /qvd/ping HTTP/1.1\r\nno colon\r\n", 400),
        (b"GET /qvd/ping HTTP/1.1\r\n folded\r\n", 400),
        (b"GET /qvd/ping HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 400),
        (b"GET /qvd/ping HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET /" + b"x" * 20_000, 400),
        (b"GET /qvd/ping HTTP/1.1\r\n" + b"A: b\r\n" * 101, 400),
        (b"GET /qvd/ping HTTP/1.1\r\n" + (b"A: " + b"b" * 16_000 + b"\r\n") * 5, 400),
        (b"GET /qvd/ping HTTP/1.0\r\n", 505),
        (b"GET /qvd/ping HTTP/2\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ],
)
async def test_what_is_not_of_the_dialect_is_answered_and_hung_up(
    tmp_path: Path, data: bytes, status: int
) -> None:
    async with installation(tmp_path) as node:
        before = await everything(node)
        client = await node.client()
        await client.send(data)
        reply = await client.reply()
        assert (reply.status, reply.headers["Content-Length"]) == (status, str(len(reply.body)))
        assert await asyncio.wait_for(client.ended(), 5)
        assert await differences(node, before) == []
        assert await node.counters() == {}


async def everything(node: Installation) -> dict[str, list[dict[str, Any]]]:
    """All rows but counters, the audit log of wishes, the journal, and hashes, which a log-in may renew."""
    found = {}
    async with node.store.read() as tx:
        for table in schema.metadata.sorted_tables:
            if table.name not in ("host_counters", "events", "changes"):
                columns = [column for column in table.c if column is not schema.users.c.password]
                rows = await tx.connection.execute(select(*columns))
                found[table.name] = [dict(row._mapping) for row in rows]
    return found


async def differences(node: Installation, before: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Which columns of VM 7 have changed; nothing else has."""
    after = await everything(node)
    runtimes = "vm_runtimes"
    assert {name: rows for name, rows in after.items() if name != runtimes} == {
        name: rows for name, rows in before.items() if name != runtimes
    }
    (seven, was), *others = sorted(
        zip(after[runtimes], before[runtimes], strict=True), key=lambda pair: pair[0]["vm_id"] != 7
    )
    assert all(now == then for now, then in others)
    return [column for column in seven if seven[column] != was[column]]
