"""`qa hook`: what the hooks of the host are told, and have been told."""

from __future__ import annotations

from collections.abc import Mapping

from appliance.model import HookEvent, Notice
from appliance.ops import notices
from appliance.qa.context import Context
from appliance.qa.output import Column, Json, instant, local_time
from appliance.qa.verbs import Argument, Given, Verb

COLUMNS: tuple[Column[Notice], ...] = (
    Column("Id", lambda notice: notice.id),
    Column("Event", lambda notice: notice.event),
    Column("At", lambda notice: local_time(notice.at)),
    Column("State", lambda notice: notice.state),
    Column("Attempts", lambda notice: notice.attempts),
    Column("Next try", lambda notice: None if notice.ended else local_time(notice.next_try)),
    Column("Ended", lambda notice: local_time(notice.ended)),
    Column("Last error", lambda notice: notice.last_error),
)


def plain(notice: Notice) -> Mapping[str, Json]:
    """A notice for programs; what it is about is JSON in a text, as the hook was told."""
    return {
        "id": notice.id,
        "uid": notice.uid,
        "event": notice.event,
        "at": instant(notice.at),
        "state": notice.state,
        "attempts": notice.attempts,
        "next_try": None if notice.ended else instant(notice.next_try),
        "last_error": notice.last_error,
        "ended": instant(notice.ended),
        "concerned": notice.concerned,
    }


def event(text: str) -> HookEvent:
    """An event that has a hook.

    :raises ValueError: there is none of this name
    """
    try:
        return HookEvent(text)
    except ValueError:
        raise ValueError(f"one of {', '.join(HookEvent)}") from None


async def list_(context: Context, given: Given) -> None:
    """`qa hook list`."""
    async with context.database() as store, store.read() as tx:
        found = await tx.notices.find(context.filter)
    context.show(COLUMNS, found, plain)


async def retry(context: Context, given: Given) -> None:
    """`qa hook retry`."""
    async with context.database() as store, store.write() as tx:
        number = await notices.again(tx, await tx.notices.find(context.filter), by=context.by)
    context.say(f"Telling {number} notices again.")
    context.note_if_nothing(number)


async def test(context: Context, given: Given) -> None:
    """`qa hook test`."""
    async with context.database() as store, store.write() as tx:
        await notices.test(tx, given["event"], by=context.by)
    context.say(f"The daemon tells hook.{given['event']} (see qa hook list).")


VERBS = (
    Verb(
        "list",
        "Lists what hooks are to be told, and for a week what they were told; the oldest first.",
        list_,
        filters=True,
        examples=("qa hook list", "qa hook list -f state=given-up -o json"),
    ),
    Verb(
        "retry",
        "Tells notices again at once, with all attempts before them; those that were delivered stay so.",
        retry,
        filters=True,
        rehearsable=True,
        confirm="tell all notices again",
        examples=("qa hook retry -f event=tag_moved,state=given-up",),
    ),
    Verb(
        "test",
        "Lets a hook be told of something that did not happen: it says test.",
        test,
        arguments=(
            Argument("event", f"the hook: {', '.join(HookEvent)}", event, required=True, shape="EVENT"),
        ),
        examples=("qa hook test event=tag_moved",),
    ),
)
