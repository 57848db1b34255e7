"""Filters meet rows: what passes, and what is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from sqlalchemy import insert, update

from appliance.errors import UsageError
from appliance.filters import Filter
from appliance.model import VmState
from appliance.storage.schema import vm_properties, vm_runtimes
from appliance.storage.store import Tx
from tests.support.store import NOW, fresh_store, furnish

NAMES = ["web-1", "Web-2", "50%", "a_b", "a?c", "x*y", "[z]", "a,b"]


@pytest.fixture
async def tx(tmp_path: Path) -> AsyncIterator[Tx]:
    """VMs 1 to 8 with the names above; 2 runs, 1 has properties."""
    async with fresh_store(tmp_path) as store, store.write() as tx:
        _, user, osf, di, _ = await furnish(tx)
        for number, name in enumerate(NAMES[1:], start=2):
            await tx.vms.add(
                uuid=f"uuid-{number}",
                name=name,
                user_id=user,
                osf_id=osf,
                di_tag="nowhere" if number == 3 else "default",
                ip=f"10.9.1.{number}",
                subid_slot=number,
            )
        await tx.connection.execute(
            update(vm_runtimes)
            .where(vm_runtimes.c.vm_id == 2)
            .values(vm_state=VmState.RUNNING, host_id=1, current_di_id=di, vm_expiration_soft=NOW)
        )
        await tx.connection.execute(
            insert(vm_properties),
            [{"vm_id": 1, "key": "color", "value": "red"}, {"vm_id": 1, "key": "floor", "value": "3"}],
        )
        yield tx


@pytest.mark.parametrize(
    ("expression", "ids"),
    [
        ("", [1, 2, 3, 4, 5, 6, 7, 8]),
        ("id=2", [2]),
        ("id>6", [7, 8]),
        ("id>=3,id<=4", [3, 4]),
        ("id=1*", [1]),
        ("name=web-1", [1]),
        ("name=web*", [1]),
        ("name=*eb-?", [1, 2]),
        ("name!=web*", [2, 3, 4, 5, 6, 7, 8]),
        ("name=50%", [3]),
        ("name=5%", []),
        ("name=a_b", [4]),
        (r"name=a\?c", [5]),
        ("name=a?c", [5]),
        (r"name=x\*y", [6]),
        ("name=[z]", [7]),
        ("name=[z*", [7]),
        (r"name=a\,b", [8]),
        ("user=alice", [1, 2, 3, 4, 5, 6, 7, 8]),
        ("user!=alice", []),
        ("osf=desktop,state=running", [2]),
        ("state!=running", [1, 3, 4, 5, 6, 7, 8]),
        ("state=run*", [2]),
        ("host=node1", [2]),
        ("host=", [1, 3, 4, 5, 6, 7, 8]),
        ("host!=", [2]),
        ("host!=node2", [1, 2, 3, 4, 5, 6, 7, 8]),
        ("blocked=no", [1, 2, 3, 4, 5, 6, 7, 8]),
        ("blocked=yes", []),
        ("di=one", [2]),
        ("next_di=", [3]),
        ("di_tag=nowhere", [3]),
        ("vm_expiration_soft<=2030-01-31T18:00:00Z", [2]),
        ("vm_expiration_soft>2030-01-31T18:00:00+00:00", []),
        ("property.color=red", [1]),
        ("property.color=red,property.floor=3", [1]),
        ("property.color=red,property.floor=4", []),
        ("property.color=r*", [1]),
        ("property.color!=red", [2, 3, 4, 5, 6, 7, 8]),
        ("property.floor=red", []),
        ("property.floor=", [2, 3, 4, 5, 6, 7, 8]),
        ("property.floor!=", [1]),
        ("id in (2,3,99)", [2, 3]),
        ("id not in (2, 3)", [1, 4, 5, 6, 7, 8]),
        (r"name in (web*,a\,b)", [1, 8]),
        ("state in (running,starting),id<9", [2]),
        ("host not in (node1)", [1, 3, 4, 5, 6, 7, 8]),
        ("property.color in (red,blue)", [1]),
        ("property.color not in (red,blue)", [2, 3, 4, 5, 6, 7, 8]),
        ("vm_expiration_soft<2030-02-02", [2]),
        ("vm_expiration_soft<=2030-01-29", []),
        ("vm_expiration_soft>=2030-01-30,vm_expiration_soft<=2030-02-01", [2]),
    ],
)
async def test_what_passes(tx: Tx, expression: str, ids: list[int]) -> None:
    assert [vm.id for vm in await tx.vms.find(Filter.parse(expression))] == ids


@pytest.mark.parametrize(
    "expression",
    [
        "nmae=x",
        "id=x",
        "state=asleep",
        "blocked=perhaps",
        "vm_expiration_soft<soon",
        "name<=a*",
        "id<",
        "password=x",
        "id=99999999999999999999999",
        "id=1_000",
        "id in (1,x)",
        "blocked<yes",
        "blocked in (perhaps)",
        "vm_expiration_soft=2030-02-30",
        "vm_expiration_soft=0001-01-01T00:00+14:00",
        "vm_expiration_soft>9999-12-31",
        "vm_expiration_soft=2030-01-31T25:00",
        "vm_expiration_soft>9999-12-31T23:59:59Z",
        "vm_expiration_soft>3",
        "id>2030-01-31",
        "id=2030-01-31T18:00Z",
        "name>2030-01-31",
        "name<=2030-01-31T18:00:00Z",
        "state>running",
        "blocked>2030-01-31",
    ],
)
async def test_what_cannot_be_is_refused(tx: Tx, expression: str) -> None:
    with pytest.raises(UsageError):
        await tx.vms.find(Filter.parse(expression))


async def test_a_date_where_there_is_none_is_told_where_there_are(tx: Tx) -> None:
    with pytest.raises(UsageError, match=r"name is a text.*vm_expiration_soft, vm_expiration_hard"):
        await tx.vms.find(Filter.parse("name<2030-01-31"))
    assert await tx.vms.find(Filter.parse("name=2030-01-31")) == []
    assert [vm.id for vm in await tx.vms.find(Filter.parse("property.floor<2030-01-31"))] == []


@pytest.mark.parametrize(
    ("expression", "passes"),
    [
        ("=2030-01-31T18:00:30Z", True),
        ("=2030-01-31T18:00Z", True),
        ("=2030-01-31T18:00:29Z", False),
        ("=2030-01-31T18:00:30.5Z", True),
        ("=2030-01-31T18:00:30.4Z", False),
        ("!=2030-01-31T18:00:30Z", False),
        ("<2030-01-31T18:00:30Z", False),
        ("<=2030-01-31T18:00:30Z", True),
        ("<=2030-01-31T18:00:30.4Z", False),
        (">2030-01-31T18:00:30Z", False),
        (">2030-01-31T18:00Z", False),
        (">2030-01-31T18:00:29Z", True),
        (">=2030-01-31T18:00Z", True),
        (" in (2030-01-30T18:00Z,2030-01-31T19:00:30+01:00)", True),
        (" not in (2030-01-31T18:00Z)", False),
    ],
)
async def test_a_time_is_the_whole_of_what_it_names(tx: Tx, expression: str, passes: bool) -> None:
    odd = NOW + timedelta(seconds=30.5)
    await tx.connection.execute(
        update(vm_runtimes).where(vm_runtimes.c.vm_id == 2).values(vm_expiration_soft=odd)
    )
    found = await tx.vms.find(Filter.parse(f"vm_expiration_soft{expression},id=2"))
    assert [vm.id for vm in found] == ([2] if passes else [])


async def test_a_list_may_be_long(tx: Tx) -> None:
    numbers = ",".join(map(str, range(5, 2500)))
    assert [vm.id for vm in await tx.vms.find(Filter.parse(f"id in ({numbers})"))] == [5, 6, 7, 8]
    assert [vm.id for vm in await tx.vms.find(Filter.parse(f"id not in ({numbers})"))] == [1, 2, 3, 4]


async def test_a_date_is_the_whole_local_day(tx: Tx) -> None:
    day = NOW.astimezone().date()
    for expression, ids in [
        (f"vm_expiration_soft={day}", [2]),
        (f"vm_expiration_soft<={day}", [2]),
        (f"vm_expiration_soft>={day}", [2]),
        (f"vm_expiration_soft<{day}", []),
        (f"vm_expiration_soft>{day}", []),
        (f"vm_expiration_soft!={day}", [1, 3, 4, 5, 6, 7, 8]),
    ]:
        assert [vm.id for vm in await tx.vms.find(Filter.parse(expression))] == ids, expression


@pytest.mark.parametrize("pattern", ["*", "w*", "*1", "?eb-?", "W*", "*e*b*", "????", "", "*a*", "x?y"])
async def test_wildcards_are_those_of_the_shell(tx: Tx, pattern: str) -> None:
    found = {vm.name for vm in await tx.vms.find(Filter.parse(f"name={pattern}"))}
    assert found == {name for name in NAMES if pattern and fnmatchcase(name, pattern)}


async def test_the_password_is_no_key_of_users(tx: Tx) -> None:
    with pytest.raises(UsageError, match="password"):
        await tx.users.find(Filter.parse("password=$argon2*"))


@pytest.mark.parametrize(
    ("expression", "ids"),
    [
        ("tag=default", [1]),
        ("tag=def*", [1]),
        ("tag!=default", []),
        ("osf=desktop,version=o*", [1]),
        ("id=2", []),
    ],
)
async def test_filters_of_images(tx: Tx, expression: str, ids: list[int]) -> None:
    assert [di.id for di in await tx.images.find(Filter.parse(expression))] == ids
