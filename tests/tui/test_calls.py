"""The verbs of `qa`, called by the TUI in its own process: what is done, told, logged and printed."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from appliance.errors import UsageError
from appliance.model import Secret
from appliance.passwords import matches
from appliance.tui.calls import Caller, Outcome, twin
from tests.support.qa import Installation


@pytest.fixture
def qa(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Installation:
    """An installation with a user, an OSF and a desktop."""
    return Installation(tmp_path, capsys).founded().with_vm()


@pytest.fixture
def call(qa: Installation) -> Caller:
    return Caller(qa.config)


async def blocked(qa: Installation) -> list[bool]:
    async with qa.store() as store, store.read() as tx:
        return [vm.runtime.blocked for vm in await tx.vms.find()]


async def test_a_call_changes_the_database_is_logged_as_ours_and_prints_nothing(
    qa: Installation, call: Caller, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    outcome = await call(["vm", "block", "-f", "name=web-1"])
    assert outcome == Outcome(words=("vm", "block", "-f", "name=web-1"), status=0)
    assert outcome.ok
    assert await blocked(qa) == [True]
    async with qa.store() as store, store.read() as tx:
        newest = (await tx.log.find())[-1]
    assert newest.by.startswith("tui:")
    assert capsys.readouterr() == ("", "")


async def test_what_concerns_everything_is_not_asked_about(qa: Installation, call: Caller) -> None:
    assert (await call(["vm", "block"])).ok
    assert await blocked(qa) == [True]


async def test_what_a_verb_finds_can_be_read(call: Caller) -> None:
    outcome = await call(["vm", "list", "-o", "json"])
    assert [vm["name"] for vm in outcome.json] == ["web-1"]


async def test_a_rehearsal_changes_nothing(qa: Installation, call: Caller) -> None:
    outcome = await call(["vm", "block", "--dry-run", "-o", "json"])
    assert [change["name"] for change in outcome.json] == ["web-1"]
    assert await blocked(qa) == [False]


async def test_a_refusal_is_an_outcome_with_its_remedy(call: Caller) -> None:
    outcome = await call(["user", "del", "-f", "login=alice"])
    assert (outcome.ok, outcome.status) == (False, 1)
    assert "alice" in outcome.line
    assert "\n" not in outcome.line


async def test_wrong_words_are_an_outcome(call: Caller) -> None:
    assert (await call(["vm", "shake"])).status == 2
    assert (await call(["vm", "list", "-f", "("])).status != 0
    outcome = await call(["vm", "add", "name=x", "bulk=none"])
    assert outcome.status == 2
    assert "bulk='none'" in outcome.err
    assert "user or user_id is missing" in outcome.err


async def test_a_time_that_cannot_be_read_is_pointed_at(call: Caller) -> None:
    outcome = await call(["vm", "edit", "expire-hard=now + 3 dayz"])
    assert outcome.status == 2
    assert outcome.pointer == "now + 3 dayz\n           ^"
    assert outcome.hint


async def test_no_installation_is_an_outcome(tmp_path: Path) -> None:
    outcome = await Caller(tmp_path / "absent.conf")(["vm", "list"])
    assert not outcome.ok
    assert "absent.conf" in outcome.line


async def test_a_password_goes_by_standard_input(qa: Installation, call: Caller) -> None:
    outcome = await call(["user", "passwd", "user=alice", "password-file=-"], stdin="open sesame\n")
    assert outcome.ok
    assert outcome.line == "The password of alice is changed."
    async with qa.store() as store, store.read() as tx:
        (user,) = await tx.users.find()
        stored = await tx.users.password_hash(user.id)
    assert matches(stored, Secret("open sesame"))


async def test_progress_is_told_in_the_event_loop(qa: Installation, call: Caller) -> None:
    told: list[tuple[str, float, bool]] = []

    def progress(step: str, share: float) -> None:
        told.append((step, share, threading.current_thread() is threading.main_thread()))

    outcome = await call(["di", "add", f"path={qa.archive()}", "osf=desktop"], progress=progress)
    await asyncio.sleep(0)
    assert outcome.ok, outcome.err
    assert told[-1][:2] == ("copying", 1.0)
    assert all(in_loop for _, _, in_loop in told)


async def test_calls_may_be_made_side_by_side(qa: Installation, call: Caller) -> None:
    outcomes = await asyncio.gather(
        *(call(["user", "add", f"login=user{number}", "password-file=-"], stdin="x\n") for number in range(4))
    )
    assert [outcome.line for outcome in outcomes if not outcome.ok] == []
    async with qa.store() as store, store.read() as tx:
        assert len(await tx.users.find()) == 5


async def test_a_verb_can_be_had_for_a_form(call: Caller) -> None:
    assert [argument.name for argument in (await call.verb("di", "tag")).arguments][:2] == ["di_id", "tag"]
    with pytest.raises(UsageError, match="no verb 'shake'"):
        await call.verb("vm", "shake")


def test_a_twin_can_be_pasted_and_tells_no_secret() -> None:
    assert twin(["vm", "stop", "-f", "name in (a,b)"]) == "qa vm stop -f 'name in (a,b)'"
    assert "sesame" not in twin(["user", "add", "login=bob", "password=open sesame"])
    assert "hunter2" not in twin(["vm", "propset", "db_password=hunter2", "-f", "id=1"])
    assert "hunter2" not in twin(["config", "set", "site.secret=hunter2"])
    assert twin(["user", "add", "password-file=-"]) == "qa user add password-file=-"


def test_what_is_told_cannot_talk_to_the_terminal() -> None:
    outcome = Outcome(words=(), status=0, out="web\x1b]0;title\x07 is there\n")
    assert "\x1b" not in outcome.line
    assert "\x07" not in outcome.line
