"""Forms at the keys of an administrator, on a real database: what they show, and what they have done."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from textual.app import App

from appliance.clock import ManualClock, SystemClock
from appliance.model import Secret
from appliance.passwords import matches
from appliance.qa.calls import verb_of
from appliance.tui.calls import Outcome
from appliance.tui.dialogs.field import Field, Question
from appliance.tui.dialogs.form import VerbForm
from appliance.tui.dialogs.message import Message
from appliance.tui.dialogs.properties import Property
from tests.support.dialog_calls import (
    WEB_1,
    Gate,
    Recorder,
    edit,
    form,
    ready,
    users,
    vms,
)
from tests.support.dialogs import acting
from tests.support.qa import Installation


async def test_a_desktop_is_added(qa: Installation, call: Recorder) -> None:
    dialog = form(call, "vm", "add", choices={"user": ["alice"], "osf": ["desktop"]})
    async with acting(dialog) as actor:
        await actor.write("web-2")
        await actor.press("tab", "down", "tab", "down")
        assert actor.shows("$ qa vm add name=web-2 user=alice osf=desktop")
        assert len(await vms(qa)) == 1, "nothing is done before it is meant"
        await actor.press("enter")
        outcome = await actor.done()
    assert outcome.line == "VM added with id 2"
    assert [(vm.name, vm.user, vm.osf) for vm in await vms(qa)][1] == ("web-2", "alice", "desktop")


async def test_escape_does_nothing(qa: Installation, call: Recorder) -> None:
    async with acting(form(call, "vm", "add")) as actor:
        await actor.write("web-2")
        await actor.press("tab", "a", "escape")
        assert await actor.done() is None
    assert call.calls == []
    assert len(await vms(qa)) == 1


async def test_a_refusal_is_shown_and_nothing_is_lost(qa: Installation, call: Recorder) -> None:
    values = {"user": "alice", "osf": "desktop"}
    async with acting(form(call, "vm", "add", proposed=values)) as actor:
        await actor.write("web-1")
        await actor.press("enter")
        await actor.until(lambda: actor.shows("✗"))
        assert not actor.stage.is_done
        assert len(await vms(qa)) == 1
        assert (await ready(actor, "name")).text == "web-1"
        await actor.press("end", "backspace", "9", "enter")
        assert (await actor.done()).ok
    assert [vm.name for vm in await vms(qa)] == ["web-1", "web-9"]


async def test_what_is_needed_is_asked_for(call: Recorder) -> None:
    async with acting(form(call, "vm", "add")) as actor:
        await actor.press("enter")
        await actor.until(lambda: actor.shows("This is needed."))
        assert (await ready(actor, "name")).answer.has_focus
        assert call.calls == []


async def test_an_answer_is_checked_while_it_is_written(call: Recorder) -> None:
    async with acting(form(call, "vm", "add", only=("name", "bulk"))) as actor:
        await actor.press("tab")
        await actor.write("0")
        assert actor.shows("write a whole number, 1 or more")
        await actor.press("backspace", "3")
        assert not actor.shows("write a whole number")


async def test_arguments_that_exclude_one_another_are_refused(qa: Installation, call: Recorder) -> None:
    proposed = {"name": "x", "user": "alice", "osf": "desktop", "ip": "10.9.0.5", "bulk": "2"}
    async with acting(form(call, "vm", "add", proposed=proposed)) as actor:
        await actor.press("ctrl+s")
        await actor.until(lambda: actor.shows("exclude one another"))
    assert call.calls == []


async def test_only_what_was_changed_is_sent(qa: Installation, call: Recorder) -> None:
    values = {"name": "web-1", "di_tag": "default", "osf": "desktop"}
    async with acting(edit(call, values=values)) as actor:
        await actor.press("enter")
        await actor.until(lambda: actor.shows("Nothing is changed yet."))
        await actor.write("web-one")
        await actor.press("enter")
        assert (await actor.done()).ok
    assert call.calls == [("vm", "edit", "name=web-one", *WEB_1)]
    assert [vm.name for vm in await vms(qa)] == ["web-one"]


async def test_a_value_that_is_emptied_is_sent_empty(aged: Installation, call: Recorder) -> None:
    aged_call = await call(["di", "tag", "di_id=2", "tag=default", "expire-hard=now + 2 days"])
    assert aged_call.ok
    (vm,) = await vms(aged)
    stored = vm.runtime.vm_expiration_hard
    assert stored is not None
    async with acting(
        edit(call, only=("expire-hard",), values={"expire-hard": stored.strftime("%Y-%m-%dT%H:%MZ")})
    ) as actor:
        await actor.until(lambda: actor.shows("in 1 d 23 h"))
        await actor.press("backspace")
        assert actor.shows("it is lifted")
        await actor.press("enter")
        assert (await actor.done()).ok
    (vm,) = await vms(aged)
    assert vm.runtime.vm_expiration_hard is None


async def test_a_password_is_written_twice_and_seen_by_nobody(qa: Installation, call: Recorder) -> None:
    async with acting(form(call, "user", "add", only=("login", "password"))) as actor:
        await actor.write("bob")
        await actor.press("tab")
        await actor.write("open sesame")
        await actor.press("tab")
        await actor.write("open seSame")
        assert actor.shows("The two differ.")
        await actor.press("enter")
        assert len(await users(qa)) == 1
        await actor.press("end", "ctrl+u")
        await actor.write("open sesame")
        assert not actor.shows("sesame")
        assert actor.shows("$ qa user add login=bob password-file=-")
        await actor.press("enter")
        assert (await actor.done()).ok
    async with qa.store() as store, store.read() as tx:
        user = next(one for one in await tx.users.find() if one.login == "bob")
        assert matches(await tx.users.password_hash(user.id), Secret("open sesame"))


async def test_several_calls_go_on_where_they_failed(qa: Installation, call: Recorder) -> None:
    each = [{"login": "bob"}, {"login": "alice"}, {"login": "carol"}]
    async with acting(form(call, "user", "add", each=each, only=("password",))) as actor:
        assert actor.shows("and 2 more like it")
        await actor.write("x")
        await actor.press("tab", "x", "enter")
        await actor.until(lambda: actor.shows("1 of 3 are done."))
        assert actor.shows("and 1 more like it"), "what is done is no more to be done"
        assert [user.login for user in await users(qa)] == ["alice", "bob"]
        await call(["user", "edit", "login=anna", "-f", "login=alice"])
        await actor.press("enter")
        assert (await actor.done()).ok
    assert sorted(user.login for user in await users(qa)) == ["alice", "anna", "bob", "carol"]


async def test_a_form_that_ends_beneath_another_dialog_ends_itself(qa: Installation) -> None:
    gate = Gate(qa, "edit")
    dialog = VerbForm(
        gate, "vm", verb_of("vm", "edit"), title="Form", button="Do it", filter_words=WEB_1, only=("name",)
    )
    async with acting(dialog) as actor:
        await actor.write("web-one")
        await actor.press("enter")
        await actor.until(gate.begun.is_set)
        above = Message("Agent log", "what the agent says")
        actor.stage.push_screen(above)
        await actor.until(lambda: actor.screen is above)
        gate.may_go_on.set()
        await actor.until(lambda: not dialog.is_busy)
        assert actor.screen is above
        assert not actor.stage.is_done
        await actor.press("escape")
        assert (await actor.done()).ok
        await actor.until(lambda: len(actor.stage.screen_stack) == 1)
        await actor.press("escape")
    assert [vm.name for vm in await vms(qa)] == ["web-one"]


async def test_an_answer_that_nobody_touched_is_no_change() -> None:
    async with App[None]().run_test():
        for value in ("hello \n", " two\nlines", "off ", "plain"):
            field = Field(Question(name="motd", value=value))
            assert not field.is_changed, value
            field.answer.value += " "
            assert (field.text, field.is_changed) == (value.replace("\n", " ").strip(), value != "plain")
            field.answer.value += "x"
            assert field.is_changed, value


async def test_what_cannot_be_shown_is_neither_told_nor_offered() -> None:
    async with App[None]().run_test():
        field = Field(Question(name="tag", choices=("old", "o\x1b]0;owned\x07"), shape="\x1b[2J"))
        assert field.answer.fitting("o") == ["old"]
        assert field.answer.placeholder.isprintable()
        assert Property("room", "", ("1\x1b[2J", "2")).answer.placeholder.isprintable()
    failed = Outcome(words=("vm", "start"), status=1, err="no", hint="qa \x1b[2J di add")
    async with acting(Message.of("Start", failed)) as actor:
        assert actor.shows("di add")
        assert "\x1b" not in actor.text


async def test_a_time_is_understood_while_it_is_written(
    call: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "UTC")
    clock = ManualClock(datetime(2026, 11, 23, 10, 30, tzinfo=UTC))
    async with acting(edit(call, only=("expire-soft", "expire-hard"), calendar=clock)) as actor:
        await actor.write("10:00 Nov 28")
        assert actor.shows("= Sat 28 Nov 10:00, in 4 d 23 h")
        await actor.press("tab")
        await actor.write("now + 3 dayz")
        await actor.until(lambda: actor.shows("where it needs"))
        lines = actor.text.splitlines()
        (place,) = (number for number, line in enumerate(lines) if "dayz" in line and "$" not in line)
        assert lines[place + 1].index("^") == lines[place].index("z"), "the caret is below what is wrong"
        await actor.press("end", "ctrl+u")
        await actor.write("now + 3 days")
        assert actor.shows("comes before the soft limit")
        await actor.press("end", "ctrl+u")
        await actor.write("in six days")
        await actor.until(lambda: actor.shows("understood as Sun 29 Nov 10:30"))
        await actor.press("end", "ctrl+u")
        await actor.write("2020-01-01")
        assert actor.shows("which is past")


async def test_a_time_that_cannot_be_read_is_not_sent(call: Recorder) -> None:
    async with acting(edit(call, only=("expire-hard",))) as actor:
        await actor.write("foo")
        await actor.press("enter")
        await actor.until(lambda: actor.shows("where it needs"))
        assert not actor.stage.is_done
    assert call.calls == []


async def test_a_limit_is_set(aged: Installation, call: Recorder) -> None:
    assert (await call(["di", "tag", "di_id=2", "tag=default"])).ok
    async with acting(edit(call, only=("expire-soft", "expire-hard"))) as actor:
        await actor.press("tab")
        await actor.write("now + 3 days")
        await actor.press("enter")
        assert (await actor.done()).ok
    (vm,) = await vms(aged)
    hard = vm.runtime.vm_expiration_hard
    assert hard is not None
    assert abs(hard - SystemClock().now() - timedelta(days=3)) < timedelta(minutes=2)
    assert vm.runtime.vm_expiration_soft is None
