"""Tells the hooks of the host what is in the outbox: at least once each, and nobody waits for it.

A notice is a row from the commit of what it tells of until a hook has taken it. So a killed daemon loses
none: the next one tells those anew that were under way, and their `id` shows whoever cares. Each event has
a hook of its own and is told in order; one that fails comes again after a pause that doubles, while those
behind it go on.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from appliance import proc
from appliance.clock import Clock
from appliance.config import (
    HOOK_DELAY_FIRST,
    HOOK_DELAY_LONGEST,
    HOOK_RETRIES,
    HOOK_SECRET_FILE,
    HOOK_TIMEOUT,
    HOOKS,
    Settings,
)
from appliance.errors import ApplianceError, HostError, MissingToolError
from appliance.log import facts
from appliance.model import HookEvent, InstallationId, Notice
from appliance.ops import notices
from appliance.storage.store import Store
from appliance.threads import in_thread
from appliance.values import Webhook

logger = logging.getLogger(__name__)

LOOK_S = 1.0
"""Pause between looks for new notices; one costs next to nothing while nobody commits."""
KEPT = timedelta(days=7)
"""How long a notice that has ended can be looked at."""
OUTPUT_BYTES = 4096
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/",
}
"""All that an executable inherits: there is no secret in it."""


def body(notice: Notice, installation: InstallationId) -> bytes:
    """What a hook is told: a JSON object, on one line."""
    told = {
        "event": notice.event,
        "id": notice.uid,
        "at": notice.at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "installation": installation,
        **json.loads(notice.concerned),
    }
    return json.dumps(told, ensure_ascii=False).encode() + b"\n"


def next_try(attempts: int, now: datetime, settings: Settings) -> datetime | None:
    """When a notice is told again that has now failed so many times; None if no more."""
    if attempts > settings[HOOK_RETRIES]:
        return None
    longest = settings[HOOK_DELAY_LONGEST]
    doubled = settings[HOOK_DELAY_FIRST] * 2.0 ** min(attempts - 1, 60)
    return now + timedelta(seconds=min(longest, doubled))


class Hooks:
    """The hooks of this host, and the notices on their way to them."""

    def __init__(
        self,
        store: Store,
        settings: Callable[[], Settings],
        installation: InstallationId,
        clock: Clock,
        look_s: float = LOOK_S,
    ) -> None:
        self._store = store
        self._settings = settings
        self._installation = installation
        self._clock = clock
        self._look_s = look_s
        self._busy: set[HookEvent] = set()
        self._tries: dict[HookEvent, datetime] = {}
        self._cleaned: float | None = None

    async def run(self) -> None:
        """Deliver for ever."""
        commits = await self._store.watch_commits()
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    try:
                        if await commits.changed():
                            await self._look()
                    except ApplianceError as exc:
                        logger.error("notices cannot be looked for", extra=facts(error=exc))
                    for event in self._due():
                        self._busy.add(event)
                        tasks.create_task(self._serve(event), name=f"hook {event}")
                    await self._clock.sleep(self._look_s)
        finally:
            await commits.close()

    def _due(self) -> list[HookEvent]:
        now = self._clock.now()
        return [event for event, at in self._tries.items() if at <= now and event not in self._busy]

    async def _look(self) -> None:
        async with self._store.read() as tx:
            self._tries = dict(await tx.notices.next_tries())
        now = self._clock.monotonic()
        if self._cleaned is None or now - self._cleaned > KEPT.total_seconds() / 100:
            async with self._store.write(lasting=False) as tx:
                await tx.notices.forget(tx.at - KEPT)
            self._cleaned = now

    async def _serve(self, event: HookEvent) -> None:
        """Tell a hook all that is due."""
        try:
            while await self._tell_next(event):
                pass
            await self._look()
        except ApplianceError as exc:
            logger.error("a hook cannot be served", extra=facts(hook=event, error=exc))
        finally:
            self._busy.discard(event)

    async def _tell_next(self, event: HookEvent) -> bool:
        """Tell a hook the oldest notice that is due; false if there is none."""
        settings = self._settings()
        hook = settings[HOOKS[event]]
        if hook is None:
            async with self._store.write(lasting=False) as tx:
                await tx.notices.drop_waiting(event)
            return False
        async with self._store.read() as tx:
            notice = await tx.notices.due(event)
        if notice is None:
            return False
        try:
            await self._tell(hook, notice, settings)
        except ApplianceError as exc:
            await self._failed(notice, str(exc), settings)
        else:
            async with self._store.write(lasting=False) as tx:
                await notices.delivered(tx, notice)
            logger.info("hook told", extra=facts(hook=event, notice=notice.id))
        return True

    async def _failed(self, notice: Notice, error: str, settings: Settings) -> None:
        async with self._store.write() as tx:
            again = next_try(notice.attempts + 1, tx.at, settings)
            await notices.failed(tx, notice, error, next_try=again)
        told = facts(hook=notice.event, notice=notice.id, attempt=notice.attempts + 1, error=error)
        if again is None:
            logger.error("a notice is given up", extra=told)
        else:
            logger.warning("a hook failed", extra=told)

    async def _tell(self, hook: Path | Webhook, notice: Notice, settings: Settings) -> None:
        told, timeout_s = body(notice, self._installation), settings[HOOK_TIMEOUT]
        if isinstance(hook, Path):
            await _execute(hook, notice, told, timeout_s)
            return
        from appliance.runtime import webhook

        headers = {
            "Content-Type": "application/json",
            "User-Agent": "qvd-appliance",
            "X-QVD-Event": notice.event,
            "X-QVD-Delivery": notice.uid,
        }
        if (file := settings[HOOK_SECRET_FILE]) is not None:
            headers[webhook.SIGNATURE] = webhook.signature(await in_thread(_secret, file), told)
        await webhook.post(hook, told, headers, timeout_s=timeout_s)


async def _execute(program: Path, notice: Notice, told: bytes, timeout_s: float) -> None:
    """Run a hook with a notice on its standard input.

    :raises HostError: it cannot be run, did not end in time, or ended with another status than 0
    """
    try:
        status, said = await proc.hear(
            [program], stdin=told, timeout_s=timeout_s, env=ENVIRONMENT, most=OUTPUT_BYTES
        )
    except MissingToolError as exc:
        raise HostError(f"there is no {program}, or nothing that runs it") from exc
    words = said.decode(errors="replace").strip()
    if words:
        logger.info(
            "a hook says", extra=facts(hook=notice.event, notice=notice.id, status=status, said=words)
        )
    if status != 0:
        last = words.splitlines()[-1] if words else "it said nothing"
        raise HostError(f"{program} ended with status {status}: {last}")


def _secret(file: Path) -> bytes:
    try:
        secret = file.read_bytes().rstrip(b"\r\n")
    except OSError as exc:
        raise HostError(f"the file of hook.secret.file cannot be read: {exc.strerror}") from exc
    if not secret:
        raise HostError("the file of hook.secret.file is empty")
    return secret
