"""Draining a node: nobody new, and a wait for those who are there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from appliance.clock import ManualClock
from appliance.config import Settings
from appliance.errors import ConfigError
from appliance.model import HostId, UserState, VmId
from appliance.ops.drain import drain
from appliance.signals import Doorbell
from appliance.storage.schema import vm_runtimes
from appliance.storage.store import Store
from tests.support.store import NOW, fresh_store, furnish


@dataclass
class Node:
    """A node with one VM, and somebody who drains it."""

    store: Store
    directory: Path
    host_id: HostId
    vm_id: VmId
    name: str
    clock: ManualClock = field(default_factory=lambda: ManualClock(NOW))
    said: list[str] = field(default_factory=list)

    def settings(self, name: str | None = None) -> Settings:
        return Settings({"nodename": name or self.name, "path.run": str(self.directory)})

    async def drain(self, timeout_s: float | None = None) -> bool:
        return await drain(
            self.store, self.settings(), self.clock, by="test", timeout_s=timeout_s, say=self.said.append
        )

    async def session(self, state: UserState) -> None:
        gone = state is UserState.DISCONNECTED
        async with self.store.write() as tx:
            await tx.connection.execute(
                vm_runtimes.update().values(
                    user_state=state,
                    l7r_host_id=None if gone else self.host_id,
                    l7r_session=None if gone else "5e55104",
                )
            )

    async def is_blocked(self) -> bool:
        async with self.store.read() as tx:
            return (await tx.hosts.get(self.host_id)).blocked

    async def until_said(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.said) < count:
                await asyncio.sleep(0.01)


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with fresh_store(tmp_path) as store:
        async with store.write() as tx:
            host_id, _, _, _, vm_id = await furnish(tx)
            name = (await tx.hosts.get(host_id)).name
        with Doorbell(tmp_path / "doorbell"):
            yield Node(store, tmp_path, host_id, vm_id, name)


async def test_a_quiet_node_is_drained_at_once_and_stays_blocked(node: Node) -> None:
    assert await node.drain()

    assert node.said == ["Nobody is connected."]
    assert await node.is_blocked()


async def test_who_is_connected_is_waited_for(node: Node) -> None:
    await node.session(UserState.CONNECTED)
    draining = asyncio.create_task(node.drain())
    await node.until_said(1)
    assert await node.is_blocked()

    await node.session(UserState.DISCONNECTED)
    while not draining.done():
        await node.clock.advance(1)

    assert await draining
    assert len(node.said) == 2
    assert node.said[0].startswith("Connected: 1 (")
    assert node.said[1] == "Nobody is connected."


async def test_too_long_a_wait_leaves_the_node_as_it_was(node: Node) -> None:
    await node.session(UserState.CONNECTING)
    draining = asyncio.create_task(node.drain(timeout_s=5))
    while not draining.done():
        await node.clock.advance(1)
        await asyncio.sleep(0.01)

    assert not await draining
    assert node.said[-2].startswith("After 5 s still connected: 1 (")
    assert node.said[-1] == f"{node.name} takes clients again."
    assert not await node.is_blocked()


async def test_an_interrupted_wait_leaves_the_node_as_it_was(node: Node) -> None:
    await node.session(UserState.CONNECTED)
    draining = asyncio.create_task(node.drain())
    await node.until_said(1)

    draining.cancel()
    with pytest.raises(asyncio.CancelledError):
        await draining

    assert not await node.is_blocked()


async def test_a_node_that_was_blocked_before_stays_blocked(node: Node) -> None:
    async with node.store.write() as tx:
        await tx.hosts.block([node.host_id], blocked=True)
    await node.session(UserState.CONNECTED)
    draining = asyncio.create_task(node.drain())
    await node.until_said(1)

    draining.cancel()
    with pytest.raises(asyncio.CancelledError):
        await draining

    assert await node.is_blocked()


async def test_sessions_of_a_dead_daemon_are_not_waited_for(node: Node) -> None:
    await node.session(UserState.CONNECTED)
    (node.directory / "doorbell").unlink()

    assert await node.drain()

    assert node.said == ["The daemon does not run, so nobody is connected."]


async def test_a_strange_name_changes_nothing(node: Node) -> None:
    with pytest.raises(ConfigError, match="'elsewhere' is not a host"):
        await drain(
            node.store,
            node.settings("elsewhere"),
            node.clock,
            by="test",
            timeout_s=None,
            say=node.said.append,
        )

    assert not await node.is_blocked()
