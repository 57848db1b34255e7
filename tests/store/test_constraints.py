"""Illegal states cannot be stored, whoever writes."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from appliance.model import Secret
from tests.support.store import fresh_store, furnish

ILLEGAL = {
    "a session without an owner": "UPDATE vm_runtimes SET user_state = 'connected'",
    "an owner without a session": "UPDATE vm_runtimes SET l7r_session = 's'",
    "an abort of nobody": "UPDATE vm_runtimes SET user_cmd = 'abort'",
    "an invented state": "UPDATE vm_runtimes SET vm_state = 'asleep'",
    "an invented user state": "UPDATE vm_runtimes SET user_state = 'away', l7r_session = 's'",
    "an invented command": "UPDATE vm_runtimes SET vm_cmd = 'busy', host_id = 1",
    "a start of what runs": "UPDATE vm_runtimes SET vm_state = 'running', host_id = 1, vm_cmd = 'start'",
    "a wish without a host": "UPDATE vm_runtimes SET vm_cmd = 'start'",
    "a restart without a stop": "UPDATE vm_runtimes SET vm_state = 'running', host_id = 1, restart = 1",
    "an image under a stopped VM": "UPDATE vm_runtimes SET current_di_id = 1",
    "an address of a stopped VM": "UPDATE vm_runtimes SET vm_address = '10.9.0.6'",
    "a block without a cause": "UPDATE vm_runtimes SET blocked = 1",
    "a cause without a block": "UPDATE vm_runtimes SET block_cause = 'admin'",
    "a host that is not there": "UPDATE vm_runtimes SET host_id = 9",
    "a second runtime row": "INSERT INTO vm_runtimes (vm_id) VALUES (1)",
    "a runtime row of no VM": "INSERT INTO vm_runtimes (vm_id) VALUES (9)",
    "a tag twice in an OSF": "INSERT INTO di_tags (di_id, osf_id, tag) VALUES (1, 1, 'default')",
    "a tag on another OSF's DI": "INSERT INTO di_tags (di_id, osf_id, tag) VALUES (1, 2, 'x')",
    "a version twice in an OSF": (
        "INSERT INTO dis (osf_id, path, version, sha256, size_bytes, created)"
        " VALUES (1, '', 'one', '', 1, '2030-01-01')"
    ),
    "an address twice": (
        "INSERT INTO vms (uuid, name, user_id, osf_id, ip, subid_slot) VALUES ('u', 'w', 1, 1, '10.9.0.6', 1)"
    ),
    "a name twice": (
        "INSERT INTO vms (uuid, name, user_id, osf_id, subid_slot) VALUES ('u', 'web-1', 1, 1, 1)"
    ),
    "a range of host ids twice": (
        "INSERT INTO vms (uuid, name, user_id, osf_id, subid_slot) VALUES ('u', 'w', 1, 1, 0)"
    ),
    "a range of host ids out of bounds": (
        "INSERT INTO vms (uuid, name, user_id, osf_id, subid_slot) VALUES ('u', 'w', 1, 1, 60000)"
    ),
    "a user who is a system account": "UPDATE users SET uid = 0",
    "a user's gid that is root's": "UPDATE users SET gid = 0",
    "a login twice": "INSERT INTO users (login, uid, gid) VALUES ('alice', 30000, 30000)",
    "an OSF without memory": "UPDATE osfs SET memory = 0",
    "an OSF with no processor": "UPDATE osfs SET cpus = 0",
    "an OSF that weighs nothing": "UPDATE osfs SET io_weight = 0",
    "an OSF that weighs too much": "UPDATE osfs SET io_weight = 1001",
    "an invented backend": "UPDATE osfs SET backend = 'xen'",
    "a flag that is neither": "UPDATE vm_runtimes SET blocked = 2, block_cause = 'admin'",
    "a second installation": "INSERT INTO installation (one, id, created) VALUES (2, 'x', '2030-01-01')",
    "an operation beyond its end": (
        "INSERT INTO operations (kind, object, owner, begun, progress)"
        " VALUES ('x', '1', 'x', '2030-01-01', 2)"
    ),
    "a VM whose user is gone": "DELETE FROM users",
    "a VM whose OSF is gone": "DELETE FROM osfs WHERE id = 1",
}


@pytest.mark.parametrize("statement", ILLEGAL.values(), ids=ILLEGAL.keys())
async def test_illegal_states_are_refused(tmp_path: Path, statement: str) -> None:
    async with fresh_store(tmp_path) as store:
        async with store.write() as tx:
            await furnish(tx)
            await tx.connection.execute(text("INSERT INTO osfs (name, memory) VALUES ('other', 256)"))
        with pytest.raises(IntegrityError):
            async with store.write() as tx:
                await tx.connection.execute(text(statement))


async def test_an_error_does_not_tell_the_values_of_its_statement(tmp_path: Path) -> None:
    async with fresh_store(tmp_path) as store:
        async with store.write() as tx:
            await tx.users.add("alice", Secret("canary"))
        with pytest.raises(IntegrityError) as caught:
            async with store.write() as tx:
                await tx.users.add("alice", Secret("canary"))
        assert "canary" not in str(caught.value)


async def test_a_di_that_runs_stays(tmp_path: Path) -> None:
    async with fresh_store(tmp_path) as store:
        async with store.write() as tx:
            *_, di, vm = await furnish(tx)
            await tx.connection.execute(
                text("UPDATE vm_runtimes SET vm_state = 'running', current_di_id = :di WHERE vm_id = :vm"),
                {"di": di, "vm": vm},
            )
        with pytest.raises(IntegrityError):
            async with store.write() as tx:
                await tx.images.delete([di])


async def test_what_belongs_to_a_thing_goes_with_it(tmp_path: Path) -> None:
    async with fresh_store(tmp_path) as store:
        async with store.write() as tx:
            _, _, _, di, vm = await furnish(tx)
            await tx.vms.delete([vm])
            await tx.images.delete([di])
        async with store.read() as tx:
            for table in ("vm_runtimes", "vm_counters", "di_tags"):
                assert (await tx.connection.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one() == 0


async def test_ids_are_never_used_again(tmp_path: Path) -> None:
    async with fresh_store(tmp_path) as store, store.write() as tx:
        _, user, osf, di, vm = await furnish(tx)
        await tx.vms.delete([vm])
        again = await tx.vms.add(
            uuid="u", name="web-1", user_id=user, osf_id=osf, di_tag="default", ip="10.9.0.6", subid_slot=0
        )
        assert again == vm + 1
        await tx.images.delete([di])
        assert await tx.images.reserve_id(osf) == di + 1
