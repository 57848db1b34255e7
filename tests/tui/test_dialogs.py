"""Dialogs at the keys of an administrator, on a real database: what they show, and what they have done."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from textual.app import App

from appliance.clock import ManualClock, SystemClock
from appliance.model import Secret, User, Vm, VmState
from appliance.passwords import matches
from appliance.qa.calls import verb_of
from appliance.storage.properties import Owner
from appliance.storage.schema import vm_runtimes
from appliance.tui.calls import Caller, Outcome, Told
from appliance.tui.dialogs.choices import Views
from appliance.tui.dialogs.confirm import Confirm
from appliance.tui.dialogs.dialog import Dialog, Push
from appliance.tui.dialogs.field import Field, Question
from appliance.tui.dialogs.form import VerbForm
from appliance.tui.dialogs.importing import Importing
from appliance.tui.dialogs.message import Message
from appliance.tui.dialogs.properties import Properties, Property, by_key
from appliance.tui.dialogs.tagging import Tagging
from appliance.tui.glyphs import ASCII
from appliance.tui.remembered import SavedView
from tests.support.dialogs import Actor, acting
from tests.support.qa import Installation

SIZES = ((80, 24), (120, 40), (200, 60))
WEB_1 = ("-f", "name=web-1")


class Gate:
    """Calls verbs, but those with a certain word not before they may go on."""

    def __init__(self, qa: Installation, word: str) -> None:
        self._caller = Caller(qa.config)
        self._word = word
        self.begun = asyncio.Event()
        self.may_go_on = asyncio.Event()
        self.given_up = False

    async def __call__(
        self, words: Sequence[str], *, stdin: str = "", progress: Told | None = None
    ) -> Outcome:
        if self._word in words:
            self.begun.set()
            try:
                await self.may_go_on.wait()
            except asyncio.CancelledError:
                self.given_up = True
                raise
        return await self._caller(words, stdin=stdin, progress=progress)


class Recorder:
    """Calls verbs, and remembers which."""

    def __init__(self, qa: Installation) -> None:
        self._caller = Caller(qa.config)
        self.calls: list[tuple[str, ...]] = []

    async def __call__(
        self, words: Sequence[str], *, stdin: str = "", progress: Told | None = None
    ) -> Outcome:
        self.calls.append(tuple(words))
        return await self._caller(words, stdin=stdin, progress=progress)

    @property
    def changes(self) -> list[tuple[str, ...]]:
        """Those that were meant to change something."""
        return [words for words in self.calls if "-o" not in words]


@pytest.fixture
def qa(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Installation:
    """An installation with a user, an OSF and a desktop."""
    return Installation(tmp_path, capsys).founded().with_vm()


@pytest.fixture
def call(qa: Installation) -> Recorder:
    return Recorder(qa)


@pytest.fixture
def aged(qa: Installation) -> Installation:
    """web-1 runs image 1, which is `default`; image 2 is there."""
    for version in ("one", "two"):
        qa.ok("di", "add", f"path={qa.archive(f'{version}.tar')}", "osf=desktop", f"version={version}")

    async def run() -> None:
        async with qa.write() as tx:
            (host,) = await tx.hosts.find()
            await tx.connection.execute(
                update(vm_runtimes).values(
                    vm_state=VmState.RUNNING,
                    current_di_id=1,
                    host_id=host.id,
                    user_state="connected",
                    l7r_session="s",
                )
            )

    asyncio.run(run())
    return qa


async def vms(qa: Installation) -> list[Vm]:
    async with qa.store() as store, store.read() as tx:
        return await tx.vms.find()


async def users(qa: Installation) -> list[User]:
    async with qa.store() as store, store.read() as tx:
        return await tx.users.find()


async def tags(qa: Installation) -> dict[int, set[str]]:
    async with qa.store() as store, store.read() as tx:
        return {di.id: set(di.tags) for di in await tx.images.find()}


async def properties(qa: Installation) -> dict[str, str]:
    async with qa.store() as store, store.read() as tx:
        return {one.key: one.value for one in await tx.properties.of(Owner.VM, [1], None)}


def stop(**changes: Any) -> Confirm:
    """A question before desktops are stopped."""
    given: dict[str, Any] = {
        "button": "Stop 3 desktops",
        "whom": ["web-1", "web-2", "web-3"],
        "costs": ["alice is connected and loses the session."],
        "calls": [["vm", "stop", "-f", "name in (web-1,web-2,web-3)"]],
    }
    return Confirm("Stop 3 desktops?", **given | changes)


def form(call: Recorder, noun: str, verb: str, **changes: Any) -> VerbForm:
    return VerbForm(call, noun, verb_of(noun, verb), title="Form", button="Do it", **changes)


def edit(call: Recorder, **changes: Any) -> VerbForm:
    return form(call, "vm", "edit", filter_words=WEB_1, whom=["web-1"], **changes)


async def ready(actor: Actor, name: str) -> Field:
    """The field of an argument."""
    dialog = actor.screen
    assert isinstance(dialog, VerbForm)
    field = dialog.field(name)
    assert field is not None
    return field


# Questions


async def test_a_question_says_whom_what_it_costs_and_the_command() -> None:
    async with acting(stop()) as actor:
        for text in (
            "web-1, web-2, web-3",
            "alice is connected",
            "$ qa vm stop -f 'name in (",
            "Stop 3 desktops",
        ):
            assert actor.shows(text)
        await actor.press("enter")
        assert await actor.done() is True


async def test_a_dangerous_question_is_not_answered_by_a_hasty_enter() -> None:
    async with acting(stop(dangerous=True)) as actor:
        await actor.press("enter")
        assert await actor.done() is False
    async with acting(stop(dangerous=True)) as actor:
        await actor.press("right", "enter")
        assert await actor.done() is True


@pytest.mark.parametrize(("key", "answer"), [("y", True), ("n", False), ("escape", False)])
async def test_a_question_is_answered_by_a_key(key: str, answer: bool) -> None:
    async with acting(stop(dangerous=True)) as actor:
        await actor.press(key)
        assert await actor.done() is answer


async def test_what_cannot_be_undone_is_typed() -> None:
    async with acting(stop(typed="39")) as actor:
        await actor.write("3")
        await actor.press("enter")
        await actor.press("tab", "y")
        assert not actor.stage.is_done, "neither Enter nor y is enough"
        await actor.press("shift+tab", "end")
        await actor.write("9")
        await actor.press("enter")
        assert await actor.done() is True


async def test_many_are_counted() -> None:
    async with acting(stop(whom=[f"web-{number}" for number in range(2000)])) as actor:
        assert actor.shows("and 1,976 more")
        assert actor.shows("Cancel")


# Forms of verbs


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


# Times


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


# Tags


def tagging(call: Recorder, **changes: Any) -> Tagging:
    return Tagging(
        call, "di", verb_of("di", "tag"), title="Tag two", button="Tag", each=[{"di_id": "2"}], **changes
    )


async def test_a_tag_shows_whom_it_concerns_before_it_moves(aged: Installation, call: Recorder) -> None:
    async with acting(tagging(call, choices={"tag": ["default"]})) as actor:
        assert actor.shows("Whom it concerns is told here.")
        await actor.press("down")
        await actor.until(lambda: actor.shows("1 desktop of 1 person, 1 in use, would boot two"))
        assert actor.shows("web-1")
        assert actor.shows("◉ connected")
        assert "default" in (await tags(aged))[1], "nothing has moved yet"
        assert call.changes == []
        await actor.press("tab", "tab")
        await actor.write("now + 2 days")
        await actor.press("enter")
        outcome = await actor.done()
    assert outcome.line == "DI tagged"
    assert "default" in (await tags(aged))[2]
    (vm,) = await vms(aged)
    assert vm.runtime.vm_expiration_hard is not None


async def test_a_tag_that_concerns_nobody_says_so(aged: Installation, call: Recorder) -> None:
    async with acting(tagging(call)) as actor:
        await actor.write("pilot")
        await actor.until(lambda: actor.shows("No desktop is concerned."))


async def test_a_tag_that_is_refused_says_why_before_it_is_tried(aged: Installation, call: Recorder) -> None:
    async with acting(tagging(call)) as actor:
        await actor.write("head")
        await actor.until(lambda: actor.shows("ead "))
        await actor.until(lambda: "Whom it concerns" not in actor.text)
        assert not actor.shows("desktops of")
    assert call.changes == []


async def test_a_rehearsal_of_what_is_written_no_more_is_given_up(aged: Installation) -> None:
    gate = Gate(aged, "--dry-run")
    dialog = Tagging(gate, "di", verb_of("di", "tag"), title="Tag", button="Tag", each=[{"di_id": "2"}])
    async with acting(dialog) as actor:
        await actor.write("default")
        await actor.until(gate.begun.is_set)
        await actor.press("end", "ctrl+u")
        await actor.until(lambda: gate.given_up)
        assert actor.shows("Whom it concerns is told here.")


async def test_the_newest_move_is_taken_back(aged: Installation, call: Recorder) -> None:
    assert (await call(["di", "tag", "di_id=2", "tag=default"])).ok
    undo = Tagging(
        call,
        "di",
        verb_of("di", "tag --undo"),
        title="Roll back",
        button="Roll back",
        fixed={"osf": "desktop"},
    )
    async with acting(undo) as actor:
        assert actor.shows("$ qa di tag --undo osf=desktop")
        await actor.press("enter")
        assert (await actor.done()).ok
    assert "default" in (await tags(aged))[1]


# Images


def importing(qa: Installation, call: Any, **changes: Any) -> Importing:
    return Importing(call, verb_of("di", "add"), settings=qa.settings, **changes)


def staged(qa: Installation, name: str, text: bytes = b"image " * 1000) -> Path:
    """A file in the staging directory."""
    file = qa.storage / "staging" / name
    file.write_bytes(text)
    return file


async def test_an_image_is_imported_from_the_staging_directory(qa: Installation, call: Recorder) -> None:
    staged(qa, "office.tar")
    staged(qa, ".hidden")
    async with acting(importing(qa, call, proposed={"osf": "desktop"})) as actor:
        await actor.until(lambda: actor.shows("office.tar"))
        assert not actor.shows(".hidden")
        await actor.press("down")
        assert actor.shows("$ qa di add path=office.tar osf=desktop")
        await actor.press("enter")
        assert (await actor.done()).ok
    assert (await tags(qa)).keys() == {1}


async def test_an_image_that_is_none_is_refused_in_the_form(qa: Installation, call: Recorder) -> None:
    proposed = {"path": "/nowhere/x.tar", "osf": "desktop"}
    async with acting(importing(qa, call, proposed=proposed)) as actor:
        await actor.press("enter")
        await actor.until(lambda: actor.shows("There is no file /nowhere/x.tar"))
        assert (await ready(actor, "path")).text == "/nowhere/x.tar"
        assert actor.shows("Path"), "the form is back"
    assert await tags(qa) == {}


class Slow:
    """An import that waits in its middle until it may go on; all else is as ever."""

    def __init__(self, qa: Installation) -> None:
        self._caller = Caller(qa.config)
        self.may_go_on = asyncio.Event()
        self.cancelled = False

    async def __call__(
        self, words: Sequence[str], *, stdin: str = "", progress: Told | None = None
    ) -> Outcome:
        if progress is not None and "add" in words:
            progress("copying", 0.42)
            try:
                await self.may_go_on.wait()
            except asyncio.CancelledError:
                self.cancelled = True
                raise
        return await self._caller(words, stdin=stdin, progress=progress)


async def test_an_import_shows_how_far_it_is_and_can_be_cancelled(qa: Installation) -> None:
    staged(qa, "office.tar")
    slow = Slow(qa)
    async with acting(importing(qa, slow, proposed={"path": "office.tar", "osf": "desktop"})) as actor:
        await actor.press("enter")
        await actor.until(lambda: actor.shows("42%"))
        assert actor.shows("copying: 2 KiB of 6 KiB")
        await actor.press("shift+tab", "enter")
        await actor.until(lambda: actor.shows("The import was cancelled."))
        assert slow.cancelled
        assert not actor.stage.is_done
    assert await tags(qa) == {}


async def test_an_import_goes_on_without_its_dialog(qa: Installation) -> None:
    staged(qa, "office.tar")
    slow = Slow(qa)
    async with acting(importing(qa, slow, proposed={"path": "office.tar", "osf": "desktop"})) as actor:
        await actor.press("enter")
        await actor.until(lambda: actor.shows("42%"))
        await actor.press("escape")
        assert await actor.done() is None
        assert await tags(qa) == {}
        slow.may_go_on.set()
        await actor.until(lambda: bool(actor.stage.notices))
        assert actor.stage.notices == ["DI added with id 1"]
    assert (await tags(qa)).keys() == {1}


# Properties


async def test_properties_are_set_and_deleted(qa: Installation, call: Recorder) -> None:
    assert (await call(["vm", "propset", "room=12", "floor=3", *WEB_1])).ok
    call.calls.clear()
    dialog = Properties(call, "vm", title="Properties", whom=["web-1"], filter_words=WEB_1)
    async with acting(dialog) as actor:
        await actor.until(lambda: actor.shows("floor"))
        await actor.press("ctrl+d", "tab")
        await actor.write("14")
        await actor.press("tab")
        await actor.write("color=red = warm")
        await actor.press("enter")
        await actor.until(lambda: actor.shows("color"))
        assert call.changes == []
        await actor.press("ctrl+s")
        assert (await actor.done()).ok
    assert await properties(qa) == {"room": "14", "color": "red = warm"}


def editor(call: Any) -> Properties:
    """The properties of web-1."""
    return Properties(call, "vm", title="Properties", whom=["web-1"], filter_words=WEB_1)


async def test_properties_that_are_being_saved_cannot_be_left(qa: Installation) -> None:
    gate = Gate(qa, "propset")
    async with acting(editor(gate)) as actor:
        await actor.until(lambda: actor.shows("No property is set yet."))
        await actor.write("room=12")
        await actor.press("ctrl+s")
        await actor.until(gate.begun.is_set)
        await actor.press("escape")
        await actor.until(lambda: actor.shows("It is under way"))
        assert actor.shows("working")
        gate.may_go_on.set()
        assert (await actor.done()).ok
    assert await properties(qa) == {"room": "12"}


async def test_a_property_that_is_written_anew_is_not_deleted(qa: Installation, call: Recorder) -> None:
    assert (await call(["vm", "propset", "room=12", *WEB_1])).ok
    dialog = editor(call)
    async with acting(dialog) as actor:
        await actor.until(lambda: actor.shows("room"))
        await actor.press("ctrl+d", "tab")
        await actor.write("room=14")
        await actor.press("enter")
        await actor.until(lambda: not dialog._new.text)
        await actor.press("ctrl+s")
        assert (await actor.done()).ok
    assert await properties(qa) == {"room": "14"}


async def test_a_new_property_is_taken_out_again(qa: Installation, call: Recorder) -> None:
    async with acting(editor(call)) as actor:
        await actor.until(lambda: actor.shows("No property is set yet."))
        await actor.write("-x=1")
        await actor.press("enter")
        await actor.until(lambda: actor.shows("Write it as key=value"))
        await actor.press("home", "delete", "enter")
        await actor.until(lambda: bool(actor.screen.query(Property)))
        await actor.press("shift+tab", "ctrl+d")
        await actor.until(lambda: not actor.screen.query(Property))
        await actor.press("ctrl+s")
        await actor.until(lambda: actor.shows("Nothing is changed yet."))
    assert call.changes == []


async def test_a_secret_property_can_be_changed_and_is_never_shown(qa: Installation, call: Recorder) -> None:
    assert (await call(["vm", "propset", "db_password=hunter2", *WEB_1])).ok
    async with acting(editor(call)) as actor:
        await actor.until(lambda: actor.shows("db_password"))
        assert actor.shows("***")
        assert not actor.shows("hunter2")
        await actor.press("ctrl+s")
        await actor.until(lambda: actor.shows("Nothing is changed yet."))
        await actor.write("xyzzy")
        assert actor.shows("db_password=…")
        assert not actor.shows("xyzzy")
        await actor.press("ctrl+s")
        assert (await actor.done()).ok
    assert await properties(qa) == {"db_password": "xyzzy"}


async def test_leaving_properties_changes_none(qa: Installation, call: Recorder) -> None:
    assert (await call(["vm", "propset", "room=12", *WEB_1])).ok
    dialog = Properties(call, "vm", title="Properties", whom=["web-1"], filter_words=WEB_1)
    async with acting(dialog) as actor:
        await actor.until(lambda: actor.shows("room"))
        await actor.write("14")
        await actor.press("escape")
        assert await actor.done() is None
    assert await properties(qa) == {"room": "12"}


def test_values_that_differ_are_not_taken_for_one() -> None:
    rows = [
        {"id": 1, "key": "room", "value": "12"},
        {"id": 2, "key": "room", "value": "14"},
        {"id": 1, "key": "floor", "value": "3"},
        {"id": 2, "key": "floor", "value": "3"},
        {"id": 1, "key": "color", "value": "red"},
    ]
    assert by_key(rows, 2) == {
        "room": ("", ("12", "14")),
        "floor": ("3", ()),
        "color": ("", ("red", "(none)")),
    }


# Views


async def test_a_view_that_replaces_another_is_said_to() -> None:
    mine = SavedView(pane="vms", name="mine")
    async with acting(Views([mine], mine)) as actor:
        await actor.press("tab")
        await actor.write("min")
        assert not actor.shows("it is replaced")
        await actor.write("e")
        await actor.until(lambda: actor.shows("There is a view of this name: it is replaced."))


# Texts


async def test_a_failure_tells_what_helps() -> None:
    failed = Outcome(words=("vm", "start"), status=1, err="there is no image", hint="qa di add")
    async with acting(Message.of("Start", failed)) as actor:
        for text in ("there is no image", "qa di add", "$ qa vm start"):
            assert actor.shows(text)
        await actor.press("q")
        assert await actor.done() is None


async def test_a_long_text_scrolls() -> None:
    async with acting(Message("Log", "\n".join(f"line {number}" for number in range(500)))) as actor:
        assert actor.shows("line 3")
        assert actor.shows("Close")
        await actor.press("end")
        assert actor.shows("line 499")
        assert not actor.shows("line 3\n")


# Looks


def every(qa: Installation, call: Recorder) -> list[Dialog[Any]]:
    """One of each, as full as they get."""
    names = [f"a-desktop-with-a-rather-long-name-{number}" for number in range(100)]
    return [
        stop(
            whom=names,
            costs=["It costs a lot. " * 8] * 4,
            typed="100",
            calls=[["vm", "del", "-f", str(names)]],
        ),
        form(call, "osf", "add"),
        form(call, "vm", "edit", whom=names, filter_words=["-f", f"name in ({','.join(names)})"]),
        tagging(call, proposed={"tag": "default", "expire-soft": "now", "expire-hard": "now + 1 day"}),
        importing(qa, call, proposed={"expire-soft": "now", "expire-hard": "foo"}),
        Properties(call, "vm", title="Properties", whom=names, filter_words=WEB_1),
        Message("Long", "\n".join(names), hint="Do something. " * 10, call=("vm", "list")),
    ]


@pytest.mark.parametrize("size", SIZES)
async def test_buttons_can_be_seen_on_every_screen(
    qa: Installation, call: Recorder, size: tuple[int, int]
) -> None:
    for name in range(12):
        staged(qa, f"{name}.tar")
    for dialog in every(qa, call):
        async with acting(dialog, size=size) as actor:
            await asyncio.sleep(0.6)
            await actor.pilot.pause()
            screen = actor.screen.region
            assert screen.contains_region(actor.screen.query_one("#box").region), dialog
            for push in actor.screen.query(Push):
                if push.display:
                    assert push.region.height == 1, dialog
                    assert screen.contains_region(push.region), dialog
                    assert actor.shows(push.label)


async def test_a_poor_terminal_gets_ascii_alone(call: Recorder) -> None:
    async with acting(stop(dangerous=True), glyphs=ASCII) as actor:
        box = actor.screen.query_one("#box").region
        lines = actor.text.splitlines()[box.y : box.bottom]
        assert "".join(lines).isascii()
