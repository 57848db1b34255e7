"""Empties the trash of images: what lay there long enough goes for good, however often that must be tried."""

from __future__ import annotations

import logging
from collections.abc import Callable

from appliance.clock import Clock
from appliance.config import Settings
from appliance.errors import ApplianceError
from appliance.log import facts
from appliance.model import AlarmKind, Di, DiId
from appliance.ops import image_trash
from appliance.storage.store import Store

logger = logging.getLogger(__name__)

BY = "hkd"
SURE_S = 3600.0
"""For how long the calendar must say that a time is over before we believe it."""


class Trash:
    """The images in the trash, looked at now and then."""

    def __init__(self, store: Store, settings: Callable[[], Settings], clock: Clock) -> None:
        self._store = store
        self._settings = settings
        self._clock = clock
        self._due: dict[DiId, float] = {}
        """Since when we have known that an image's time is over, by the monotonic clock."""
        self._told: dict[DiId, str] = {}
        """Why images cannot be removed, as the alarms say."""

    async def empty(self) -> None:
        """Remove the images whose time is over; one that cannot be removed is an alarm until it is gone.

        :raises StoreError: the database cannot be read or written
        """
        async with self._store.read() as tx:
            due = await tx.images.due()
        now = self._clock.monotonic()
        self._due = {di.id: self._due.get(di.id, now) for di in due}
        for di in due:
            if is_given_up(di) or now - self._due[di.id] >= SURE_S:
                await self._remove(di)

    async def _remove(self, di: Di) -> None:
        what = f"image {di.id} in the trash"
        try:
            await image_trash.purge(self._store, self._settings(), [di.id], by=BY)
        except (ApplianceError, OSError) as exc:
            said = f"{what} cannot be removed: {exc}"
            if self._told.get(di.id) != said:
                async with self._store.write() as tx:
                    await tx.alarms.raise_(AlarmKind.POOL, what, said)
                self._told[di.id] = said
                logger.error("alarm", extra=facts(text=said))
            return
        self._told.pop(di.id, None)
        async with self._store.write() as tx:
            await tx.alarms.clear(AlarmKind.POOL, what)
        logger.info(
            "in the trash long enough, removed", extra=facts(di=di.id, osf=di.osf, version=di.version)
        )


def is_given_up(di: Di) -> bool:
    """Whether an image was to lie in the trash for no time at all, so that no calendar is asked."""
    return di.until is not None and di.retired is not None and di.until <= di.retired
