"""Sessions over a real connection: start, resume, takeover, and every way in which one ends.

The invariants, checked again and again: a row has one owner at every commit, nxagent never has two
connections and never a probe, and a row is free once nobody uses it.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from appliance.config import Settings
from appliance.errors import ConfigError, NetworkError
from appliance.l7r.server import L7r
from appliance.l7r.session import ENDING_OTHER, ESTABLISHED, STARTING, STARTING_X, WAITING
from appliance.model import BlockCause, FailureCause, StartedBy, UserCmd, UserState, VmCmd, VmState
from appliance.storage import schema
from appliance.vma.wire import XState
from tests.support.broker import Client, Installation, Reply, connect_request, installation, request
from tests.support.guests import Guest

NX = b"NXPROXY-3.5.0 "


async def attached(node: Installation, vm_id: int = 7) -> Client:
    """A client in a session that works."""
    client = await node.client()
    reply, _ = await client.connect(vm_id)
    assert reply.status == 101
    await talks(client)
    return client


async def talks(client: Client) -> None:
    await client.send(NX)
    assert await client.reader.readexactly(len(NX)) == NX


async def freed(node: Installation, vm_id: int = 7) -> Any:
    row = await node.until_user_state(vm_id, UserState.DISCONNECTED)
    assert (row.user_cmd, row.l7r_session, row.l7r_host_id, row.l7r_pid) == (None, None, None, None)
    return row


def untouched(guest: Guest) -> bool:
    """Whether nxagent saw no probe and never two connections."""
    return guest.strays == 0 and guest.most_connected <= 1


async def test_a_session_of_a_running_vm(tmp_path: Path) -> None:
    async with installation(tmp_path) as node:
        guest = await node.guest(7)
        client = await node.client()
        reply, interim = await client.connect(7, query="&qvd.client.keyboard=pc105%2Fes")
        assert [one.info for one in interim] == [STARTING_X, ESTABLISHED]
        key = reply.headers["X-QVD-Slave-Key"]
        assert len(key) == 64
        assert key == guest.starts_with["qvd.slave.key"]
        assert guest.starts_with["qvd.client.keyboard"] == "pc105/es"
        assert guest.starts_with["qvd.vm.user.name"] == "alice"
        await talks(client)
        row = await node.row(7)
        assert (row.user_state, row.user_ip, row.real_user_id) == (UserState.CONNECTED, "127.0.0.1", 1)
        assert (row.l7r_host_id, row.vm_cmd) == (1, None)
        await client.close()
        assert (await freed(node)).real_user_id == 1
        assert await node.counters() == {
            "http_requests": 1,
            "auth_attempts": 1,
            "auth_ok": 1,
            "nx_attempts": 1,
            "nx_ok": 1,
            "short_sessions": 1,
        }
        assert untouched(guest)


async def test_the_same_in_clear(tmp_path: Path) -> None:
    async with installation(tmp_path, l7r__use_ssl="0") as node:
        await node.guest(7)
        client = await attached(node)
        await client.close()
        await freed(node)


async def test_properties_reach_the_agent(tmp_path: Path) -> None:
    async with installation(tmp_path) as node:
        guest = await node.guest(1)
        await node.properties(schema.osf_properties, "osf_id", qvd__client__link="modem", custom__a="osf")
        await node.properties(schema.di_properties, "di_id", custom__a="di", custom__b="di")
        await node.properties(schema.user_properties, "user_id", custom__b="user", custom__c="user")
        await node.properties(schema.vm_properties, "vm_id", custom__c="vm", qvd__vm__user__uid="0")
        client = await node.client()
        reply, _ = await client.connect(
            1, query="&qvd.client.link=lan&custom.d=x&qvd.client.nxagent.extra_args=listen=1"
        )
        assert reply.status == 101
        sent = guest.starts_with
        assert [sent[f"custom.{name}"] for name in "abcd"] == ["di", "user", "vm", "x"]
        assert (sent["qvd.client.link"], sent["qvd.vm.user.uid"]) == ("modem", "20001")
        assert sent["qvd.client.nxagent.extra_args"] == ""


async def test_what_the_client_sends_too_early_is_not_lost(tmp_path: Path) -> None:
    async with installation(tmp_path) as node:
        guest = await node.guest(7)
        client = await node.client()
        await client.send(connect_request(7) + b"NXPROXY-")
        await client.send(b"3.5.0 ")
        assert (await client.final())[0].status == 101
        await client.send(b"stream=default ")
        expected = b"NXPROXY-3.5.0 stream=default "
        assert await client.reader.readexactly(len(expected)) == expected
        assert guest.received == expected


async def test_a_stopped_vm_is_started(tmp_path: Path) -> None:
    async with installation(tmp_path) as node:
        client = await node.client()
        await client.send(connect_request(7))
        row = await node.until_wished(7, VmCmd.START)
        assert (row.host_id, row.started_by, row.user_state) == (1, StartedBy.CLIENT, UserState.CONNECTING)
        assert len(node.rings) == 1
        await node.set_row(7, vm_state=VmState.STARTING, vm_cmd=None)
        for phase in ("starting/cloning", "starting/launching", "starting/awaiting-vma"):
            await node.set_row(7, vm_phase=phase)
            await asyncio.sleep(0.02)
        guest = await node.guest(7)
        reply, interim = await client.final()
        assert reply.status == 101
        assert [one.info for one in interim] == [STARTING, STARTING_X, ESTABLISHED]
        assert guest.calls[0] == "x_start"
        await talks(client)


async def test_a_start_that_the_host_hinders_is_told_and_waited_for(tmp_path: Path) -> None:
    async with installation(tmp_path) as node:
        client = await node.client()
        await client.send(connect_request(7))
        await node.until_wished(7, VmCmd.START)
        assert (await client.reply()).info == STARTING
        await node.set_row(
            7,
            vm_state=VmState.STARTING,
            vm_cmd=None,
            failure="the pool is full",
            failure_cause=FailureCause.HOST,
        )
        assert (await client.reply()).info == f"{WAITING}: the pool is full"
        await node.set_row(7, failure=None, failure_cause=None)
        await node.guest(7)
        assert (await client.final())[0].status == 101


async def test_a_vm_that_is_stopping_is_started_again(tmp_path: Path) -> None:
    async with installation(tmp_path) as node:
        await node.set_row(7, vm_state=VmState.STOPPING, host_id=1)
        client = await node.client()
        await client.send(connect_request(7))
        await node.until_user_state(7, UserState.CONNECTING)
        await node.stops(7)
        await node.until_wished(7, VmCmd.START)
        await node.guest(7)
        assert (await client.final())[0].status == 101


async def test_a_change_is_noticed_though_nobody_announces_it(tmp_path: Path) -> None:
    async with installation(tmp_path) as node:
        client = await node.client()
        await client.send(connect_request(7))
        await node.until_wished(7, VmCmd.START)
        guest = await node.stack.enter_async_context(Guest())
        announce, node.feed.announce = node.feed.announce, lambda vm_id: None  # type: ignore[method-assign]
        await node.runs(7, guest)
        assert (await client.final())[0].status == 101
        node.feed.announce = announce  # type: ignore[method-assign]


async def test_x_start_is_tried_until_it_works(tmp_path: Path) -> None:
    async with installation(tmp_path) as node:
        guest = await node.guest(7)
        guest.refuse_starts = 3
        await attached(node)
        assert guest.calls.count("x_start") == 4
        assert untouched(guest)


async def test_provisioning_may_take_longer_than_starting(tmp_path: Path) -> None:
    async with installation(tmp_path) as node:
        guest = await node.guest(7)
        guest.provisioning_looks = 15
        await attached(node)


async def test_leaving_and_coming_back_resumes(tmp_path: Path) -> None:
    async with installation(tmp_path) as node:
        guest = await node.guest(7)
        guest.settle_s = 0.3
        for _ in range(3):
            client = await attached(node)
            await client.close()
            await freed(node)
        assert guest.connections == 3
        assert untouched(guest)
        assert guest.calls.count("x_start") == 3


async def test_after_a_refusal_the_connection_can_be_used_again(tmp_path: Path) -> None:
    async with installation(tmp_path) as node:
        guest = await node.guest(7)
        guest.refuse_starts = 5
        client = await node.client()
        assert (await client.connect(7))[0].status == 503
        await freed(node)
        assert (await client.connect(7))[0].status == 101
        await talks(client)


# -- takeover


async def test_the_second_client_takes_over(tmp_path: Path) -> None:
    async with installation(tmp_path) as node:
        guest = await node.guest(7)
        guest.settle_s = 0.2
        first = await attached(node)
        owner = (await node.row(7)).l7r_session
        second = await node.client()
        reply, interim = await second.connect(7)
        assert reply.status == 101
        assert ENDING_OTHER in [one.info for one in interim]
        assert await asyncio.wait_for(first.ended(), 5)
        await talks(second)
        row = await node.row(7)
        assert (row.user_state, row.user_cmd) == (UserState.CONNECTED, None)
        assert row.l7r_session not in (None, owner)
        assert untouched(guest)
        await second.close()
        await freed(node)


async def test_a_client_that_is_still_connecting_is_taken_over_too(tmp_path: Path) -> None:
    async with installation(tmp_path) as node:
        first = await node.client()
        await first.send(connect_request(7))
        await node.until_wished(7, VmCmd.START)
        second = await node.client()
        await second.send(connect_request(7))
        reply, _ = await first.final()
        assert (reply.status, b"newer client" in reply.body) == (503, True)
        guest = await node.guest(7)
        assert (await second.final())[0].status == 101
        assert untouched(guest)
        assert (await first.ask("/qvd/ping")).status == 200


async def test_a_row_that_is_not_let_go_is_given_up(tmp_path: Path) -> None:
    async with installation(tmp_path, internal__l7r__timeout__takeover="0.3") as node:
        guest = await node.guest(7)
        await node.set_row(7, user_state=UserState.CONNECTED, l7r_session="of another node", l7r_host_id=1)
        client = await node.client()
        reply, _ = await client.connect(7)
        assert reply.status == 503
        row = await node.row(7)
        assert (row.l7r_session, row.user_cmd) == ("of another node", UserCmd.ABORT)
        assert guest.calls == []


async def test_ten_contenders_at_once_leave_one_winner(tmp_path: Path) -> None:
    async with installation(tmp_path) as node:
        guest = await node.guest(7)
        guest.settle_s = 0.05
        first = await attached(node)
        await record_owners(node)
        clients = [await node.client() for _ in range(10)]
        async with asyncio.timeout(20):
            answers = await asyncio.gather(*(one.connect(7) for one in clients))
        won = [client for client, (reply, _) in zip(clients, answers, strict=True) if reply.status == 101]
        assert {reply.status for reply, _ in answers} <= {101, 503}
        alive = [client for client in won if await still_talks(client)]
        assert len(alive) == 1
        assert await first.ended()
        assert untouched(guest)
        assert (await node.row(7)).user_state is UserState.CONNECTED
        await alive[0].close()
        await freed(node)
        changes = await recorded_owners(node)
        assert len(changes) >= 3
        assert all((before is None) != (after is None) for before, after in changes)


async def still_talks(client: Client) -> bool:
    try:
        async with asyncio.timeout(10):
            await talks(client)
    except (OSError, asyncio.IncompleteReadError, TimeoutError):
        return False
    return True


async def record_owners(node: Installation) -> None:
    """Have the database itself write down every change of the row's owner."""
    async with node.store.write() as tx:
        for statement in (
            "CREATE TABLE owners (before TEXT, after TEXT)",
            "CREATE TRIGGER owner_changes AFTER UPDATE OF l7r_session ON vm_runtimes WHEN OLD.vm_id = 7"
            " BEGIN INSERT INTO owners VALUES (OLD.l7r_session, NEW.l7r_session); END",
        ):
            await tx.connection.exec_driver_sql(statement)


async def recorded_owners(node: Installation) -> list[tuple[str | None, str | None]]:
    async with node.store.read() as tx:
        rows = await tx.connection.exec_driver_sql("SELECT before, after FROM owners ORDER BY rowid")
        return [(row[0], row[1]) for row in rows]


async def test_an_administrator_ends_a_session(tmp_path: Path) -> None:
    async with installation(tmp_path) as node:
        guest = await node.guest(7)
        client = await attached(node)
        await node.set_row(7, user_cmd=UserCmd.ABORT)
        assert await asyncio.wait_for(client.ended(), 10)
        await freed(node)
        async with asyncio.timeout(10):
            while guest.state is not XState.SUSPENDED:
                await asyncio.sleep(0.01)
        assert "short_sessions" not in await node.counters()


# -- the ways in which a session ends


@pytest.mark.parametrize("step", ["starting", "x refused", "x not listening", "takeover"])
async def test_a_client_that_vanishes_while_it_waits_frees_the_row(tmp_path: Path, step: str) -> None:
    async with installation(tmp_path) as node:
        guest = None if step == "starting" else await node.guest(7)
        client = await node.client()
        if guest is not None:
            guest.never_listens = step == "x not listening"
            guest.refuse_starts = 99 if step == "x refused" else 0
        if step == "takeover":
            await node.set_row(7, user_state=UserState.CONNECTED, l7r_session="another's", l7r_host_id=1)
        await client.send(connect_request(7))
        while step == "takeover" and (await node.row(7)).user_cmd is None:
            await asyncio.sleep(0.01)
        if step != "takeover":
            await node.until_user_state(7, UserState.CONNECTING)
        await asyncio.sleep(0.05)
        client.vanish()
        await asyncio.sleep(0.2)
        row = await node.row(7)
        assert row.l7r_session == ("another's" if step == "takeover" else None)
        assert guest is None or guest.connections + guest.strays == 0


async def test_a_client_that_vanishes_in_a_session_frees_the_row(tmp_path: Path) -> None:
    async with installation(tmp_path) as node:
        guest = await node.guest(7)
        client = await attached(node)
        client.vanish()
        await freed(node)
        assert guest.connected == 0


async def test_a_desktop_that_ends_its_session(tmp_path: Path) -> None:
    async with installation(tmp_path) as node:
        guest = await node.guest(7)
        client = await attached(node)
        guest.hang_up()
        assert await asyncio.wait_for(client.ended(), 5)
        await client.close()
        await freed(node)


async def test_a_vm_that_stops_while_x_starts(tmp_path: Path) -> None:
    async with installation(tmp_path, internal__l7r__timeout__x_start="5") as node:
        guest = await node.guest(7)
        guest.never_listens = True
        client = await node.client()
        await client.send(connect_request(7))
        while "x_start" not in guest.calls:
            await asyncio.sleep(0.01)
        await node.set_row(7, vm_state=VmState.STOPPING)
        reply, _ = await asyncio.wait_for(client.final(), 10)
        assert (reply.status, b"stopping" in reply.body) == (503, True)
        await freed(node)


async def test_a_vm_that_stops_under_a_session(tmp_path: Path) -> None:
    async with installation(tmp_path) as node:
        await node.guest(7)
        client = await attached(node)
        await node.set_row(7, vm_state=VmState.STOPPING)
        await talks(client)
        await node.stops(7)
        assert await asyncio.wait_for(client.ended(), 10)
        await freed(node)


async def test_closing_the_broker_ends_sessions_and_frees_rows(tmp_path: Path) -> None:
    async with installation(tmp_path) as node:
        guest = await node.guest(7)
        client = await attached(node)
        idle = await node.client()
        assert (await idle.ask("/qvd/ping")).status == 200
        waiting = await node.client()
        await waiting.send(connect_request(8))
        await node.until_wished(8, VmCmd.START)
        await node.l7r.close()
        for vm_id in (7, 8):
            assert (await node.row(vm_id)).l7r_session is None
        for one in (client, idle, waiting):
            assert await asyncio.wait_for(one.ended(), 5)
        assert guest.connected == 0
        with pytest.raises(OSError):
            await node.client()


# -- stop_vm


async def test_stop_vm_waits_until_it_has_stopped(tmp_path: Path) -> None:
    async with installation(tmp_path) as node:
        await node.guest(7)
        client = await node.client()
        await client.send(
            request("/qvd/stop_vm?id=7", "alice", "secret", "Connection: Upgrade", "Upgrade: QVD/1.0")
        )
        await node.until_wished(7, VmCmd.STOP)
        assert (await client.reply()).status == 102
        await node.set_row(7, vm_state=VmState.STOPPING, vm_cmd=None)
        await node.stops(7)
        reply, interim = await client.final()
        assert (reply.status, reply.body, interim) == (200, b"Machine stopped\r\n", [])


async def test_stop_vm_of_a_stopped_one_and_of_one_about_to_start(tmp_path: Path) -> None:
    async with installation(tmp_path) as node:
        client = await node.client()
        assert (await client.ask("/qvd/stop_vm?id=7")).status == 200
        await node.set_row(7, vm_cmd=VmCmd.START, host_id=1)
        assert (await client.ask("/qvd/stop_vm?id=7")).status == 200
        assert (await node.row(7)).vm_cmd is None


@pytest.mark.parametrize("state", [VmState.STARTING, VmState.RUNNING, VmState.DEBUGGING])
async def test_stop_vm_asks_for_it_whatever_the_vm_does(tmp_path: Path, state: VmState) -> None:
    """Even if it is blocked: that keeps people out, not in."""
    async with installation(tmp_path) as node:
        await node.set_row(7, vm_state=state, host_id=1, blocked=True, block_cause=BlockCause.ADMIN)
        client = await node.client()
        await client.send(request("/qvd/stop_vm?id=7"))
        await node.until_wished(7, VmCmd.STOP)
        assert len(node.rings) == 1
        await node.stops(7)
        reply, _ = await client.final()
        assert (reply.status, reply.body) == (200, b"Machine stopped\r\n")
        assert reply.headers == {"Content-Type": "text/plain", "Content-Length": "17"}


async def test_stop_vm_of_one_that_is_to_restart_keeps_it_down(tmp_path: Path) -> None:
    async with installation(tmp_path) as node:
        await node.set_row(7, vm_state=VmState.STOPPING, host_id=1, restart=True)
        client = await node.client()
        await client.send(request("/qvd/stop_vm?id=7"))
        row = await node.until_wished(7, VmCmd.STOP)
        assert not row.restart
        await node.stops(7)
        assert (await client.final())[0].status == 200


async def test_stop_vm_ends_the_session_of_another_client(tmp_path: Path) -> None:
    async with installation(tmp_path) as node:
        await node.guest(7)
        first, second = await attached(node), await node.client()
        await second.send(request("/qvd/stop_vm?id=7"))
        await node.until_wished(7, VmCmd.STOP)
        await talks(first)
        await node.stops(7)
        assert (await second.final())[0].status == 200
        assert await asyncio.wait_for(first.ended(), 20)


async def test_nobody_waits_for_a_stop_whose_client_has_left(tmp_path: Path) -> None:
    async with installation(tmp_path, internal__l7r__max_connections="1") as node:
        await node.set_row(7, vm_state=VmState.RUNNING, host_id=1)
        client = await node.client()
        await client.send(request("/qvd/stop_vm?id=7"))
        await node.until_wished(7, VmCmd.STOP)
        client.vanish()
        assert (await (await node.admitted()).ask("/qvd/ping")).status == 200
        assert (await node.row(7)).vm_cmd is VmCmd.STOP


async def test_stop_vm_of_one_that_does_not_stop(tmp_path: Path) -> None:
    async with installation(tmp_path, internal__l7r__timeout__vm_stop="0.3") as node:
        await node.set_row(7, vm_state=VmState.STOPPING, host_id=1)
        client = await node.client()
        reply: Reply = await client.ask("/qvd/stop_vm?id=7")
        assert reply.status == 408


# -- the listener


async def test_a_busy_port_is_one_clear_line(tmp_path: Path) -> None:
    async with installation(tmp_path) as node:
        settings = Settings(node.settings)
        async with asyncio.TaskGroup() as tasks:
            second = L7r(
                node.store,
                lambda: settings,
                node.l7r._services.host_id,
                node.feed,
                print,
                node.l7r._services.clock,
                tasks,
            )
            with pytest.raises(NetworkError, match=rf"127\.0\.0\.1:{node.port}.*in use.*l7r\.port"):
                await second.listen()
            await second.close()


async def test_without_a_certificate_nobody_listens(tmp_path: Path) -> None:
    async with installation(tmp_path) as node:
        async with node.store.write() as tx:
            await tx.connection.execute(schema.ssl_configs.delete())
        settings = Settings(node.settings)
        async with asyncio.TaskGroup() as tasks:
            second = L7r(
                node.store,
                lambda: settings,
                node.l7r._services.host_id,
                node.feed,
                print,
                node.l7r._services.clock,
                tasks,
            )
            with pytest.raises(ConfigError, match="qa admin init"):
                await second.listen()
            await second.close()


async def test_the_key_on_disk_is_private(tmp_path: Path) -> None:
    async with installation(tmp_path):
        directory = tmp_path / "run" / "l7r" / "ssl"
        assert directory.stat().st_mode & 0o777 == 0o700
        assert {file.name: file.stat().st_mode & 0o777 for file in directory.iterdir()} == {
            "key.pem": 0o600,
            "cert.pem": 0o600,
        }


async def test_no_secret_reaches_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="appliance")
    async with installation(tmp_path) as node:
        guest = await node.guest(7)
        guest.refuse_starts = 1
        client = await attached(node)
        key = guest.starts_with["qvd.slave.key"]
        await client.close()
        await freed(node)
        assert (await (await node.client()).ask("/qvd/list_of_vm", password="hunter2")).status == 401
    said = "\n".join(
        f"{record.getMessage()} {record.__dict__}"
        for record in caplog.records
        if record.name.startswith("appliance")
    )
    assert "session begins" in said
    for secret in (key, "secret", "hunter2", "YWxpY2U6", "$argon2"):
        assert secret not in said
