"""The session part of the runtime rows, on real SQLite."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from appliance.clock import SystemClock
from appliance.errors import ConflictError
from appliance.model import HostId, SessionId, UserCmd, UserId, UserState, VmId, VmState
from appliance.ops.sessions import Claimant, end_of_users, take_over
from appliance.storage import schema
from appliance.storage.store import Store
from tests.support.broker import Installation, installation

VM = VmId(7)
ONE, TWO = SessionId("one"), SessionId("two")


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Installation]:
    async with installation(tmp_path) as made:
        yield made


async def take(store: Store, session: SessionId) -> bool:
    async with store.write() as tx:
        return await tx.sessions.take(
            VM, session, host_id=HostId(1), pid=1, user_id=UserId(1), user_ip="10.0.0.1"
        )


async def test_a_free_row_is_taken_once(node: Installation) -> None:
    assert await take(node.store, ONE)
    assert not await take(node.store, TWO)
    row = await node.row(VM)
    assert (row.l7r_session, row.user_state, row.real_user_id) == (ONE, UserState.CONNECTING, 1)
    assert row.user_state_ts is not None


async def test_only_the_owner_gives_the_row_back(node: Installation) -> None:
    await take(node.store, ONE)
    async with node.store.write() as tx:
        assert not await tx.sessions.release(VM, TWO)
        assert await tx.sessions.release(VM, ONE)
        assert not await tx.sessions.release(VM, ONE)
    assert (await node.row(VM)).user_state is UserState.DISCONNECTED


async def test_an_order_to_leave_is_given_once_and_forgotten_with_the_session(node: Installation) -> None:
    async with node.store.write() as tx:
        assert not await tx.sessions.abort(VM)
    await take(node.store, ONE)
    async with node.store.write() as tx:
        assert await tx.sessions.abort(VM)
        assert not await tx.sessions.abort(VM)
        row = await tx.sessions.get(VM)
        assert row is not None
        assert (row.user_cmd, row.held_by(ONE)) == (UserCmd.ABORT, False)
        await tx.sessions.release(VM, ONE)
    assert await take(node.store, TWO)
    assert (await node.row(VM)).user_cmd is None


@pytest.mark.parametrize("spoilt", ["aborted", "another's", "stopped", "already"])
async def test_connected_is_written_only_while_all_is_well(node: Installation, spoilt: str) -> None:
    await node.set_row(VM, vm_state=VmState.RUNNING, host_id=1)
    await take(node.store, ONE)
    match spoilt:
        case "aborted":
            await node.set_row(VM, user_cmd=UserCmd.ABORT)
        case "another's":
            await node.set_row(VM, l7r_session=TWO)
        case "stopped":
            await node.stops(VM)
        case "already":
            await node.set_row(VM, user_state=UserState.CONNECTED)
    async with node.store.write() as tx:
        assert not await tx.sessions.connected(VM, ONE)


async def test_connected_is_written(node: Installation) -> None:
    await node.set_row(VM, vm_state=VmState.RUNNING, host_id=1)
    await take(node.store, ONE)
    async with node.store.write() as tx:
        assert await tx.sessions.connected(VM, ONE)
    assert (await node.row(VM)).user_state is UserState.CONNECTED


async def test_two_processes_cannot_both_take_a_row(node: Installation) -> None:
    """Two stores are two writers that share nothing but the file."""
    other = await Store.open(node.settings["database.url"], SystemClock())
    try:
        for _ in range(20):
            taken = await asyncio.gather(take(node.store, ONE), take(other, TWO))
            assert sorted(taken) == [False, True]
            async with node.store.write() as tx:
                await tx.sessions.release(VM, ONE)
                await tx.sessions.release(VM, TWO)
    finally:
        await other.close()


async def test_taking_over_a_stopped_vm_wishes_its_start_in_the_same_commit(node: Installation) -> None:
    async with node.store.write() as tx:
        user = await tx.users.get(UserId(1))
        claim = Claimant(session=ONE, vm_id=VM, user=user, user_ip="10.0.0.1", host_id=HostId(1), pid=1)
        row = await take_over(tx, claim)
        assert row is not None
        assert (row.vm_cmd, row.session) == ("start", ONE)
        before = await tx.connection.exec_driver_sql("SELECT count(*) FROM events WHERE what = 'vm start'")
        assert before.scalar_one() == 1


async def test_rows_that_do_not_exist_are_left_out(node: Installation) -> None:
    async with node.store.read() as tx:
        assert set(await tx.sessions.get_all([VM, VmId(99)])) == {VM}
        assert await tx.sessions.get(VmId(99)) is None


async def test_the_sessions_of_a_user_are_ordered_to_end(node: Installation) -> None:
    """Those of the user's own desktops and those in which the user looks at another's; no others."""
    alice, bob = UserId(1), UserId(2)
    for vm_id, user in ((1, alice), (2, bob), (8, bob)):
        await node.set_row(
            vm_id, user_state=UserState.CONNECTED, l7r_session=f"s{vm_id}", l7r_host_id=1, real_user_id=user
        )
    async with node.store.write() as tx:
        assert await end_of_users(tx, [alice], by="test") == 2
    commands = [(await node.row(vm_id)).user_cmd for vm_id in (1, 2, 7, 8)]
    assert commands == [UserCmd.ABORT, None, None, UserCmd.ABORT]


async def test_a_user_disabled_since_the_log_in_takes_no_row(node: Installation) -> None:
    async with node.store.read() as tx:
        user = await tx.users.get(UserId(1))
    claimant = Claimant(session=ONE, vm_id=VM, user=user, user_ip="10.0.0.1", host_id=HostId(1), pid=1)
    await node.change(schema.users, enabled=False)
    with pytest.raises(ConflictError, match="disabled"):
        async with node.store.write() as tx:
            await take_over(tx, claimant)
    assert (await node.row(VM)).user_state is UserState.DISCONNECTED


async def test_a_desktop_given_away_since_the_log_in_is_not_taken(node: Installation) -> None:
    async with node.store.write() as tx:
        user = await tx.users.get(UserId(1))
        await tx.vms.edit([VM], {"user_id": UserId(2)})
    claimant = Claimant(session=ONE, vm_id=VM, user=user, user_ip="10.0.0.1", host_id=HostId(1), pid=1)
    with pytest.raises(ConflictError, match="somebody else"):
        async with node.store.write() as tx:
            await take_over(tx, claimant)
    assert (await node.row(VM)).user_state is UserState.DISCONNECTED
