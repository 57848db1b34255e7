"""Secrets pass through the broker, and stay nowhere: not in logs, not in the database.

Each canary is looked for as it is, and as it travels (Base64).
"""

from __future__ import annotations

import base64
import logging
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from appliance.log import set_up
from appliance.model import Secret, UserState
from tests.support.broker import ALICE, CHEAP, Installation, installation, request

GOOD, WRONG, TOKEN, ODD = "canary-good-7f3a", "canary-wrong-91c2", "canary-token-55d0", "canary-odd-e04b"


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    """The log of everything, as a daemon with `log.level = ALL` writes it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    set_up("ALL", tmp_path / "appliance.log")
    yield tmp_path / "appliance.log"
    for handler in root.handlers:
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
async def node(tmp_path: Path, log: Path) -> AsyncIterator[Installation]:
    """A node on which alice has the good canary for a password."""
    async with installation(tmp_path, path__log=str(tmp_path)) as made:
        async with made.store.write() as tx:
            (alice,) = [user for user in await tx.users.find() if user.login == ALICE]
            await tx.users.set_password_hash(alice.id, Secret(CHEAP.hash(GOOD)))
        yield made


def traces(secret: str, text: str) -> list[str]:
    """The lines in which a secret can be read, whatever stood before it when it was encoded."""
    forms = {secret}
    for shift in range(3):
        encoded = base64.b64encode(b"x" * shift + secret.encode()).decode()
        forms.add(encoded[4:-4])
    return [line for line in text.splitlines() if any(form in line for form in forms)]


def dump(directory: Path) -> str:
    """The whole database as text."""
    with closing(sqlite3.connect(directory / "qvd.db")) as database:
        return "\n".join(database.iterdump())


async def test_nothing_of_a_secret_stays(
    node: Installation, log: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    guest = await node.guest(1)
    client = await node.client()
    assert (await client.ask("/qvd/list_of_vm?", ALICE, WRONG)).status == 401
    client = await node.client()
    await client.send(f"GET /qvd/list_of_vm? HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
    assert (await client.final())[0].status == 401
    client = await node.client()
    await client.send(f"GET /qvd/list_of_vm? HTTP/1.1\r\nAuthorization: Basic {ODD}\r\n\r\n".encode())
    assert (await client.final())[0].status in (400, 401)
    client = await node.client()
    await client.send(f"GET /qvd/list_of_vm? HTTP/1.1\r\nAuthorization {ODD}\r\n\r\n".encode())
    assert (await client.final())[0].status == 400

    client = await node.client()
    wanted = "/qvd/connect_to_vm?id=1&qvd.client.os=linux&qvd.client.geometry=1024x768"
    await client.send(request(wanted, ALICE, GOOD, "Connection: Upgrade", "Upgrade: QVD/1.0"))
    reply, _ = await client.final()
    assert reply.status == 101
    slave_key = reply.headers["X-QVD-Slave-Key"]
    assert slave_key in str(guest.starts_with)
    await node.until_user_state(1, UserState.CONNECTED)
    client.vanish()
    await node.until_user_state(1, UserState.DISCONNECTED)

    written = log.read_text() + "".join(capfd.readouterr())
    assert "log-in refused" in written
    assert "session begins" in written
    for secret in (GOOD, WRONG, TOKEN, ODD, slave_key):
        assert traces(secret, written) == []
        assert traces(secret, dump(tmp_path)) == []


async def test_a_fault_tells_no_secret(
    node: Installation, log: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with node.store.write() as tx:
        await tx.connection.exec_driver_sql("ALTER TABLE users RENAME COLUMN password TO gone")
    client = await node.client()

    assert (await client.ask("/qvd/list_of_vm?", ALICE, GOOD)).status >= 500

    written = log.read_text() + "".join(capfd.readouterr())
    assert "ERROR" in written
    assert traces(GOOD, written) == []
