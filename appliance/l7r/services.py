"""What all clients of one broker share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from appliance.clock import Clock
from appliance.config import L7R_AUTH_PLUGINS, Settings
from appliance.l7r.auth import Authenticator, Chain, LocalPasswords
from appliance.l7r.session import Action, Event
from appliance.model import HostId, SessionId, VmId
from appliance.signals import ChangeFeed, Watch
from appliance.storage.sessions import SessionRow
from appliance.storage.store import Store

Do: TypeAlias = Callable[[Action, Watch], Awaitable[Event]]
"""Carries out one action of a session; the watch tells of changes to its VM."""


class RowReader:
    """Reads rows for many sessions at once: those who ask while a query runs share the next one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._reading = asyncio.Lock()
        self._wanted: list[tuple[VmId, asyncio.Future[SessionRow | None]]] = []

    async def read(self, vm_id: VmId) -> SessionRow | None:
        """The row as it is now, or was committed since the call; None if there is no such VM."""
        answer: asyncio.Future[SessionRow | None] = asyncio.get_running_loop().create_future()
        self._wanted.append((vm_id, answer))
        async with self._reading:
            if not answer.done():
                await self._read_all()
        return answer.result()

    async def _read_all(self) -> None:
        wanted, self._wanted = self._wanted, []
        try:
            async with self._store.read() as tx:
                rows = await tx.sessions.get_all({vm_id for vm_id, _ in wanted})
        except BaseException:
            self._wanted = wanted + self._wanted  # whoever waits for the lock asks again
            raise
        for vm_id, answer in wanted:
            if not answer.done():
                answer.set_result(rows.get(vm_id))


@dataclass(frozen=True, slots=True)
class Services:
    """The broker's surroundings."""

    store: Store
    settings: Callable[[], Settings]
    host_id: HostId
    """This node."""
    feed: ChangeFeed
    bell: Callable[[], None]
    """Rung after a commit that holds a wish."""
    clock: Clock
    authenticator: Authenticator
    rows: RowReader
    around: Callable[[Do], Do]
    """Put between the actions of sessions and their effects."""
    newest: dict[VmId, SessionId] = field(default_factory=dict)
    """The last client that asked for each VM: of those who wait for one, the newest gets it."""


AUTHENTICATORS: Mapping[str, Callable[[Store, Clock], Authenticator]] = {"default": LocalPasswords}


def make_authenticator(settings: Settings, store: Store, clock: Clock) -> Authenticator:
    """The authenticators of `l7r.auth.plugins`, as one.

    :raises ConfigError: it names none, or one that there is not
    """
    return Chain([AUTHENTICATORS[name](store, clock) for name in settings[L7R_AUTH_PLUGINS]])
