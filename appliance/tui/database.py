"""What the TUI reads by the repositories, when it is asked for: filters, images, hosts, settings, details.

The store, and SQLAlchemy with it, is imported and opened by the first question, in a thread.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from appliance import config
from appliance.clock import SystemClock
from appliance.config import Settings
from appliance.filters import Filter
from appliance.threads import in_thread

if TYPE_CHECKING:
    from appliance.model import ArrivingDi, Di, Host, LogEntry, Osf
    from appliance.ops.explain import Explanation
    from appliance.storage.store import Store


class Database:
    """The store, opened when it is needed first."""

    def __init__(self, file_settings: Settings) -> None:
        self._file_settings = file_settings
        self._store: Store | None = None
        self._former: list[Store] = []

    async def close(self) -> None:
        """Close the store, if it was opened."""
        self.renew()
        while self._former:
            await self._former.pop().close()

    def renew(self) -> None:
        """Open the store anew when it is needed next: another file is in its place.

        Who is reading in the former one reads on.
        """
        if self._store is not None:
            self._former.append(self._store)
            self._store = None

    async def store(self) -> Store:
        """The store.

        :raises StoreError: it cannot be opened
        """
        if self._store is None:
            store_module = await in_thread(_import_store)
            opened = await store_module.Store.open(self._file_settings[config.DATABASE_URL], SystemClock())
            if self._store is None:
                self._store = opened
            else:
                await opened.close()
        assert self._store is not None
        return self._store

    async def settings(self) -> Settings:
        """The settings in force."""
        from appliance.ops import settings

        return await settings.in_force(await self.store(), self._file_settings)

    async def passing(self, noun: str, filter_: Filter, among: Collection[int] | None = None) -> set[int]:
        """The ids of a noun's objects that pass a filter; `among` these only, if it is given.

        :raises UsageError: the noun has no such key, or a key no such value
        """
        async with (await self.store()).read() as tx:
            if noun == "vm":
                return await tx.vms.ids(filter_, among)
            found: list[Any]
            if noun == "user":
                found = list(await tx.users.find(filter_))
            elif noun == "host":
                found = list(await tx.hosts.find(filter_))
            elif noun == "event":
                found = list(await tx.log.find(filter_, most=2000))
            else:
                found = [*await tx.images.find(filter_, trash=True), *await tx.images.arriving(filter_)]
        return {one.id for one in found}

    async def images(self) -> tuple[list[Osf], list[Di], list[ArrivingDi]]:
        """All flavours; all images, those in the trash too; and those on their way."""
        from appliance.ops import image_progress

        settings = await self.settings()
        async with (await self.store()).read() as tx:
            osfs = await tx.osfs.find()
            dis = await tx.images.find(trash=True)
            arriving = await image_progress.under_way(tx, settings, Filter())
        return osfs, dis, arriving

    async def choices(self) -> dict[str, list[str]]:
        """What can be answered where a form asks for a user, an OSF or a tag."""
        async with (await self.store()).read() as tx:
            users = [user.login for user in await tx.users.find()]
            osfs = [osf.name for osf in await tx.osfs.find()]
            dis = await tx.images.find()
        tags = sorted({tag for di in dis for tag in di.tags if tag != di.version})
        return {"user": users, "to": users, "osf": osfs, "di_tag": tags, "tag": tags}

    async def hosts(self) -> list[Host]:
        """All nodes."""
        async with (await self.store()).read() as tx:
            return await tx.hosts.find()

    async def explained_settings(self) -> list[Explanation]:
        """Every setting that is declared or set, with what is in force and why."""
        from appliance.ops import explain

        settings = await self.settings()
        return await in_thread(lambda: explain.everything(settings, hidden=False))

    async def history(self, noun: str, object_id: int, most: int = 50) -> list[LogEntry]:
        """What happened to one object, the newest first."""
        filter_ = Filter.where(object=f"{noun} {object_id}")
        async with (await self.store()).read() as tx:
            return (await tx.log.find(filter_, most=most))[::-1]

    async def properties(self, noun: str, object_id: int) -> dict[str, str]:
        """The properties of one object."""
        from appliance.storage.properties import Owner

        async with (await self.store()).read() as tx:
            found = await tx.properties.of(Owner(noun), [object_id])
        return {one.key: one.value for one in found}


def _import_store() -> Any:
    from appliance.storage import store

    return store
