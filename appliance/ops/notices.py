"""What the host tells others of: notices that its hooks deliver, and what becomes of them.

A notice is written in the transaction that makes it true, so that there is one for what happened, and none
for what did not. The daemon delivers it (`runtime/hooks.py`); where no hook is set, it drops it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias

from appliance.model import AlarmKind, DiId, HookEvent, Notice, NoticeState, OsfId, Vm
from appliance.storage.store import Tx

Concerned: TypeAlias = Mapping[str, Any]
"""What a notice is about, by name: texts, numbers, and objects with their ids and names."""

RESERVED = frozenset({"event", "id", "at", "installation"})
"""What every notice says by itself."""
ERROR_CHARS = 1000


async def put(tx: Tx, event: HookEvent, concerned: Concerned) -> None:
    """Let the hook of an event be told of it, once this transaction is committed."""
    await put_all(tx, event, [concerned])


async def put_all(tx: Tx, event: HookEvent, concerned: Sequence[Concerned]) -> None:
    """As `put`, of many at once."""
    assert all(RESERVED.isdisjoint(one) for one in concerned)
    await tx.notices.put(event, [json.dumps(one, ensure_ascii=False) for one in concerned])


async def tag_moved(
    tx: Tx, osf_id: OsfId, osf: str, tag: str, was: DiId | None, now: DiId | None, *, by: str
) -> None:
    """A tag points elsewhere; to be called while both images are there."""
    if was == now:
        return
    versions = await tx.images.versions([di_id for di_id in (was, now) if di_id is not None])

    def end(di_id: DiId | None) -> Concerned | None:
        return None if di_id is None else {"id": di_id, "version": versions.get(di_id)}

    concerned = {"by": by, "osf": {"id": osf_id, "name": osf}, "tag": tag, "from": end(was), "to": end(now)}
    await put(tx, HookEvent.TAG_MOVED, concerned)


def of_vm(vm: Vm) -> Concerned:
    """Who and what a desktop is, as every notice about one says it."""
    runs = vm.runtime.current_di_id
    return {
        "vm": {"id": vm.id, "name": vm.name},
        "user": {"id": vm.user_id, "login": vm.user},
        "osf": {"id": vm.osf_id, "name": vm.osf},
        "di": None if runs is None else {"id": runs, "version": vm.di},
    }


async def again(tx: Tx, notices: Sequence[Notice], *, by: str) -> int:
    """Tell these anew, with all attempts before them; returns how many had not been delivered."""
    for notice in notices:
        if notice.state is not NoticeState.DELIVERED:
            await tx.log.append(
                by=by,
                what="hook retry",
                object=f"notice {notice.id}",
                was=notice.last_error,
                now=notice.event,
            )
    number = await tx.notices.again([notice.id for notice in notices])
    for event in {notice.event for notice in notices}:
        await _end_alarm(tx, event)
    return number


async def test(tx: Tx, event: HookEvent, *, by: str) -> None:
    """Let a hook be told of something that did not happen."""
    await put(tx, event, {"by": by, "test": True})
    await tx.log.append(by=by, what="hook test", object=f"hook {event}")


async def delivered(tx: Tx, notice: Notice) -> None:
    """A hook has taken a notice."""
    await tx.notices.delivered(notice.id)
    await _end_alarm(tx, notice.event)


async def failed(tx: Tx, notice: Notice, error: str, *, next_try: datetime | None) -> None:
    """A hook has not taken a notice; without `next_try` it is given up, and somebody must look."""
    said = "".join(char if char.isprintable() else " " for char in error)[:ERROR_CHARS]
    await tx.notices.failed(notice.id, said, next_try=next_try)
    if next_try is None:
        number = await tx.notices.given_up(notice.event)
        text = (
            f"hook.{notice.event} fails, and {number} of its notices were given up: {said}"
            f" (mend it, then qa hook retry -f event={notice.event},state={NoticeState.GIVEN_UP})"
        )
        await tx.alarms.raise_(AlarmKind.HOOK, notice.event, text)


async def _end_alarm(tx: Tx, event: HookEvent) -> None:
    if not await tx.notices.given_up(event):
        await tx.alarms.clear(AlarmKind.HOOK, event)
