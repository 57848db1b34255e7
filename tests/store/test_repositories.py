"""Repositories: what others rely on beyond what `qa` shows."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import event, insert, select

from appliance.errors import NotFoundError
from appliance.model import DiId, InstallationId, OsfId, Secret, StartedBy, UserId, VmId
from appliance.storage.schema import (
    di_properties,
    host_counters,
    osf_properties,
    user_properties,
    vm_properties,
)
from tests.support.store import NOW, fresh_store, furnish


async def test_vms_are_read_in_one_query_however_many(tmp_path: Path) -> None:
    async with fresh_store(tmp_path) as store, store.write() as tx:
        _, user, osf, *_ = await furnish(tx)
        for number in range(2, 50):
            await tx.vms.add(
                uuid=f"u{number}",
                name=f"n{number}",
                user_id=user,
                osf_id=osf,
                di_tag=f"t{number}",
                ip=f"10.9.1.{number}",
                subid_slot=number,
            )
        asked: list[str] = []
        connection = tx.connection._connection
        event.listen(connection, "before_cursor_execute", lambda *args: asked.append(args[2]))
        assert len(await tx.vms.find()) == 49
        assert len(asked) == 1


async def test_properties_merge_and_the_nearest_wins(tmp_path: Path) -> None:
    async with fresh_store(tmp_path) as store, store.write() as tx:
        _, user, osf, di, vm = await furnish(tx)
        for table, column, owner, keys in (
            (osf_properties, "osf_id", osf, "abcd"),
            (di_properties, "di_id", di, "bcd"),
            (user_properties, "user_id", user, "cd"),
            (vm_properties, "vm_id", vm, "d"),
        ):
            rows = [{column: owner, "key": key, "value": table.name} for key in keys]
            await tx.connection.execute(insert(table), rows)
        assert await tx.properties.merged(osf_id=osf, di_id=di, user_id=user, vm_id=vm) == {
            "a": "osf_properties",
            "b": "di_properties",
            "c": "user_properties",
            "d": "vm_properties",
        }
        merged = await tx.properties.merged(osf_id=osf, di_id=None, user_id=user, vm_id=vm)
        assert merged["b"] == "osf_properties"


async def test_counters_only_count(tmp_path: Path) -> None:
    async with fresh_store(tmp_path) as store, store.write() as tx:
        host, *_ = await furnish(tx)
        for _ in range(3):
            await tx.hosts.count(host, "nx_ok")
        row = (await tx.connection.execute(select(host_counters))).one()
        assert (row.nx_ok, row.nx_attempts) == (3, 0)


async def test_an_installation_has_one_identity_for_good(tmp_path: Path) -> None:
    async with fresh_store(tmp_path) as store, store.write() as tx:
        assert await tx.settings.found_installation(InstallationId("aaaaaaaa"), NOW)
        assert not await tx.settings.found_installation(InstallationId("bbbbbbbb"), NOW)
        assert await tx.settings.installation() == "aaaaaaaa"


async def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    async with fresh_store(tmp_path) as store, store.read() as tx:
        for missing in (
            tx.vms.get(VmId(7)),
            tx.images.get(DiId(7)),
            tx.osfs.get(OsfId(7)),
            tx.users.get(UserId(7)),
        ):
            with pytest.raises(NotFoundError, match="id 7"):
                await missing
        assert await tx.users.by_login("nobody") is None


async def test_starts_go_to_a_host_that_was_up_before_one_that_never_was(tmp_path: Path) -> None:
    async with fresh_store(tmp_path) as store, store.write() as tx:
        _, _, _, _, vm = await furnish(tx)
        seen = await tx.hosts.add("node2", "127.0.0.2")
        await tx.hosts.tick(seen)
        await tx.vms.wish_start([vm], StartedBy.CLIENT)
        assert (await tx.vms.get(vm)).runtime.host_id == seen


async def test_starts_go_to_the_emptiest_host_that_is_up(tmp_path: Path) -> None:
    async with fresh_store(tmp_path) as store, store.write() as tx:
        _, user, osf, _, first = await furnish(tx)
        spare = await tx.hosts.add("node2", "127.0.0.2")
        assert await tx.vms.wish_start([first], StartedBy.CLIENT) == [first]
        second = await tx.vms.add(
            uuid="u2", name="n2", user_id=user, osf_id=osf, di_tag="default", ip="10.9.1.2", subid_slot=1
        )
        await tx.vms.wish_start([second], StartedBy.CLIENT)
        assert (await tx.vms.get(second)).runtime.host_id == spare
        assert await tx.vms.wish_start([first, second], StartedBy.CLIENT) == []
        await tx.connection.exec_driver_sql("UPDATE host_runtimes SET state = 'running' WHERE host_id = 1")
        await tx.vms.wish_stop([second], restart=False)
        await tx.vms.wish_start([second], StartedBy.CLIENT)
        assert (await tx.vms.get(second)).runtime.host_id == 1


async def test_a_password_hash_does_not_show_itself(tmp_path: Path) -> None:
    async with fresh_store(tmp_path) as store, store.write() as tx:
        user = await tx.users.add("bob", Secret("$argon2id$x"))
        stored = await tx.users.password_hash(user.id)
        assert "argon2" not in repr(stored) + repr(user)


async def test_a_transaction_that_raises_leaves_nothing(tmp_path: Path) -> None:
    async with fresh_store(tmp_path) as store:

        async def fail() -> None:
            async with store.write() as tx:
                await furnish(tx)
                raise RuntimeError

        with pytest.raises(RuntimeError):
            await fail()
        async with store.read() as tx:
            assert await tx.users.find() == []
