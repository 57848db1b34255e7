"""A real database in a file, with or without the first rows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from appliance.model import BackendKind, DiId, HostId, OsfId, UserId, VmId
from appliance.storage.migrate import upgrade
from appliance.storage.store import Store, Tx

NOW = datetime(2030, 1, 31, 18, 0, tzinfo=UTC)


class StillCalendar:
    """A calendar on which it is always the same moment."""

    def now(self) -> datetime:
        return NOW


def url(directory: Path) -> str:
    """Where the database of a test is."""
    return f"sqlite:///{directory}/qvd.db"


@asynccontextmanager
async def fresh_store(directory: Path) -> AsyncIterator[Store]:
    """An empty database with the present schema."""
    upgrade(url(directory))
    store = await Store.open(url(directory), StillCalendar())
    try:
        yield store
    finally:
        await store.close()


async def furnish(tx: Tx) -> tuple[HostId, UserId, OsfId, DiId, VmId]:
    """One of each: host node1, user alice, OSF desktop, its DI `one` tagged default, VM web-1."""
    host = await tx.hosts.add("node1", "127.0.0.1")
    user = (await tx.users.add("alice", None)).id
    osf = await tx.osfs.add(
        name="desktop",
        memory_mib=256,
        cpus=None,
        use_overlay=True,
        user_storage_mib=None,
        backend=BackendKind.LXC,
    )
    di = await tx.images.reserve_id(osf)
    await tx.images.add(di, osf, version="one", path=f"{di}-one.tar", sha256="0" * 64, size_bytes=1)
    await tx.images.point(osf, "default", di, by="test")
    vm = await tx.vms.add(
        uuid="uuid-1", name="web-1", user_id=user, osf_id=osf, di_tag="default", ip="10.9.0.6", subid_slot=0
    )
    return host, user, osf, di, vm
