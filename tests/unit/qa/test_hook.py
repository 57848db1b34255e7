"""`qa hook`: what is put into the outbox, what is shown of it, and telling it again."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from appliance.model import FailureCause, HookEvent, Notice, VmId
from appliance.ops import failures, notices
from tests.support.qa import Installation


def told(qa: Installation, event: HookEvent) -> list[dict[str, Any]]:
    """What the hook of an event is to be told, without who did it."""
    rows = qa.listed("hook", f"event={event}")
    return [
        {key: value for key, value in json.loads(row["concerned"]).items() if key != "by"} for row in rows
    ]


@pytest.fixture
def office(qa: Installation) -> Installation:
    """An installation with a VM and two images."""
    qa.with_vm()
    for version in ("one", "two"):
        qa.ok("di", "add", f"path={qa.archive()}", "osf=desktop", f"version={version}")
    return qa


def test_an_image_is_told_when_it_is_registered(office: Installation) -> None:
    one, two = told(office, HookEvent.IMAGE_READY)
    assert one["osf"] == {"id": 1, "name": "desktop"}
    assert (one["di"]["id"], one["di"]["version"], two["di"]["version"]) == (1, "one", "two")
    assert one["di"].keys() == {"id", "version", "path", "sha256", "size_bytes"}


def test_every_move_of_a_tag_is_told_and_a_version_is_none(office: Installation) -> None:
    office.ok("di", "tag", "di_id=2", "tag=default")
    office.ok("di", "tag", "di_id=2", "tag=default")
    office.ok("di", "tag", "di_id=1", "tag=pilot")
    office.ok("di", "untag", "di_id=1", "tag=pilot")
    office.ok("vm", "edit", "di_tag=head", "-f", "osf=desktop")
    office.ok("di", "del", "-f", "id=2")
    one, two = {"id": 1, "version": "one"}, {"id": 2, "version": "two"}
    moves = [(move["tag"], move["from"], move["to"]) for move in told(office, HookEvent.TAG_MOVED)]
    assert moves[:6] == [
        ("head", None, one),
        ("default", None, one),
        ("head", one, two),
        ("default", one, two),
        ("pilot", None, one),
        ("pilot", one, None),
    ]
    assert sorted(moves[6:]) == [("default", two, one), ("head", two, one)]
    assert all(move["osf"] == {"id": 1, "name": "desktop"} for move in told(office, HookEvent.TAG_MOVED))


def test_a_refused_move_is_not_told(office: Installation) -> None:
    before = told(office, HookEvent.TAG_MOVED)
    assert office("di", "tag", "di_id=2", "tag=one").status == 1
    assert told(office, HookEvent.TAG_MOVED) == before


async def fail(qa: Installation, cause: FailureCause, lacks: str | None = None) -> None:
    """VM 1 does not start."""
    async with qa.write() as tx:
        await failures.record(tx, VmId(1), reason="no\ninit", console="", cause=cause, lacks=lacks)


def test_a_start_that_fails_is_told_with_its_reason(office: Installation) -> None:
    asyncio.run(fail(office, FailureCause.IMAGE))
    (failure,) = told(office, HookEvent.START_FAILED)
    assert failure == {
        "vm": {"id": 1, "name": "web-1"},
        "user": {"id": 1, "login": "alice"},
        "osf": {"id": 1, "name": "desktop"},
        "di": None,
        "cause": "image",
        "reason": "no init",
        "waits_for": None,
    }


def test_a_start_that_waits_is_told_once_and_a_guest_that_ends_is_none(office: Installation) -> None:
    for lacks in ("pool", "pool", "network"):
        asyncio.run(fail(office, FailureCause.HOST, lacks))
    asyncio.run(fail(office, FailureCause.GUEST))
    assert [failure["waits_for"] for failure in told(office, HookEvent.START_FAILED)] == ["pool", "network"]


def give_up(qa: Installation, event: HookEvent) -> None:
    """Be the daemon: the first notice of an event has failed for the last time."""

    async def write() -> None:
        async with qa.write() as tx:
            (notice, *_) = [one for one in await tx.notices.find() if one.event is event]
            await notices.failed(tx, notice, "no route", next_try=None)

    asyncio.run(write())


def test_what_was_given_up_is_an_alarm_and_told_again(office: Installation) -> None:
    give_up(office, HookEvent.IMAGE_READY)
    (alarm,) = office.listed("alarm", "kind=hook")
    assert alarm["object"] == "image_ready"
    assert "qa hook retry -f event=image_ready,state=given-up" in alarm["text"]
    (row,) = office.listed("hook", "state=given-up")
    assert (row["attempts"], row["last_error"], row["next_try"]) == (1, "no route", None)
    said = office.ok("hook", "retry", "-f", "event=image_ready,state=given-up")
    assert "Telling 1 notices again." in said.out
    assert office.listed("hook", "state=given-up") == []
    assert office.listed("alarm", "kind=hook") == []
    (event,) = office.listed("event", "what=hook retry")
    assert (event["was"], event["now"]) == ("no route", "image_ready")


def test_what_was_delivered_stays_so(office: Installation) -> None:
    async def deliver() -> Notice:
        async with office.write() as tx:
            (notice, *_) = await tx.notices.find()
            await notices.delivered(tx, notice)
            return notice

    notice = asyncio.run(deliver())
    assert "Telling 0 notices again." in office.ok("hook", "retry", "-f", f"id={notice.id}").out
    assert [row["id"] for row in office.listed("hook", "state=delivered")] == [notice.id]


def test_a_trial_says_that_it_is_one(qa: Installation) -> None:
    qa.ok("hook", "test", "event=limit_reached")
    assert told(qa, HookEvent.LIMIT_REACHED) == [{"test": True}]
    said = qa("hook", "test", "event=limits")
    assert said.status == 2
    assert "one of image_ready, tag_moved" in said.err


@pytest.mark.parametrize(
    "value",
    [
        "hooks/told",
        "ftp://example.org",
        "https://",
        "https://example.org:0/",
        "http://a b/",
        "http://u:pw@[::",
    ],
)
def test_what_is_no_hook_is_refused(qa: Installation, value: str) -> None:
    said = qa("config", "set", f"hook.tag_moved={value}")
    assert said.status == 1
    assert "hook.tag_moved" in said.err
    assert "pw" not in said.err


def test_the_password_in_an_address_is_shown_nowhere(qa: Installation) -> None:
    address = "https://me:s3cret@example.org/hook"
    qa.ok("config", "set", f"hook.tag_moved={address}")
    assert "s3cret" not in qa.ok("config", "get", "hook.tag_moved").out
    assert "https://***@example.org/hook" in qa.ok("config", "get", "hook.tag_moved").out
    qa.ok("config", "del", "hook.tag_moved")
    assert "s3cret" not in qa.ok("events", "-o", "json").out
