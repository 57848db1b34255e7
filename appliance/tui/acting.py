"""How an action comes about: rows, question or form, the call, and what is told of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from textual.app import App
from textual.notifications import SeverityLevel

from appliance.clock import SystemClock
from appliance.config import is_secret
from appliance.errors import ApplianceError
from appliance.harmless import printable, printable_lines
from appliance.tui.actions import Action, Ask, How, chosen, count
from appliance.tui.calls import Outcome, Told, twin
from appliance.tui.intent import WORDS_OF_NOUNS, Intent, filter_of
from appliance.tui.panes.base import Pane
from appliance.tui.remembered import Remembered
from appliance.tui.site import Site
from appliance.tui.widgets.command_log import CommandLog
from appliance.tui.workers import start

if TYPE_CHECKING:
    from appliance.qa.verbs import Verb
    from appliance.tui.dialogs.dialog import Dialog

T = TypeVar("T")
QUIET = ("--dry-run", "-o")
"""Calls with one of these only look, and are in no log."""
MOST_ALARMS = 12
"""How many alarms a question tells of."""
PAUSE_S = 0.05
"""How often is looked whether the screen is free for a dialog."""


class ActingApp(App[None]):
    """An app that does what its panes offer."""

    site: Site
    remembered: Remembered
    calls_under_way = 0
    _prepared: Intent | None = None
    """What is being prepared, until it is asked or done: nothing else begins meanwhile."""

    @property
    def pane(self) -> Pane | None:
        """The pane that is shown."""
        raise NotImplementedError

    def open_console(self, vm_id: int, name: str) -> None:
        """Show the console of a desktop."""
        raise NotImplementedError

    def notify(
        self,
        message: str,
        *,
        title: str = "",
        severity: SeverityLevel = "information",
        timeout: float | None = None,
        markup: bool = False,
    ) -> None:
        """Tell something in a corner: as text, since names may be in it, and those may look like markup."""
        message, title = printable_lines(message), printable(title)
        super().notify(message, title=title, severity=severity, timeout=timeout, markup=markup)

    async def call(self, words: Sequence[str], *, stdin: str = "", progress: Told | None = None) -> Outcome:
        """Call a verb, and keep its command and what came of it in the log."""
        if set(QUIET) & set(words):
            return await self.site.caller(words, stdin=stdin, progress=progress)
        log = self.query_one(CommandLog)
        line = log.begin(self.site.now, twin(words))

        def told(step: str, share: float) -> None:
            log.say(line, f"{step} {share:.0%}")
            if progress is not None:
                progress(step, share)

        self.calls_under_way += 1
        try:
            outcome = await self.site.caller(words, stdin=stdin, progress=told)
        except BaseException:
            log.end(line, "given up", ok=False)
            raise
        finally:
            self.calls_under_way -= 1
        log.end(line, outcome.line, ok=outcome.ok)
        return outcome

    def act(self, action: Action) -> None:
        """Do an action with the rows that are chosen; none, while another is prepared or asks."""
        if self._prepared is not None or len(self.screen_stack) > 1:
            return
        if action.changes and self.site.read_only:
            self.notify("This TUI only reads (--readonly).", severity="warning")
            return
        if (intent := self._intent(action)) is not None:
            self._prepared = intent
            start(self, partial(self._act, intent), group="act")

    def _intent(self, action: Action) -> Intent | None:
        """With which rows it can be done; None, and why is told, if with none."""
        pane = self.pane
        if pane is None:
            return None
        if action.about_rows and pane.lost_marks:
            pane.unmark()
            self.notify(
                "The marked rows are not here any more, so nothing was done. Choose anew.",
                title=action.title,
                severity="warning",
            )
            return None
        intent = Intent.now(action, pane)
        if not action.about_rows:
            return intent
        if not intent.keys:
            self.notify("No row is chosen.", title=action.title, severity="warning")
        elif not intent.fit:
            name = pane.called(pane.chosen()[0]) if len(intent.keys) == 1 else f"{len(intent.keys)} rows"
            self.notify(f"{name}: {action.unfit}.", title=action.title, severity="warning")
        elif action.single and len(intent.fit) > 1:
            self.notify("This takes one row; take the marks away.", title=action.title, severity="warning")
        else:
            return intent
        return None

    async def _act(self, intent: Intent) -> None:
        action = intent.action
        try:
            match action.how:
                case How.CALL:
                    await self._ask_and_call(intent)
                case How.ALARMS:
                    await self._clear_alarms(intent)
                case How.FORM:
                    await self._form(intent)
                case How.TAG:
                    await self._tag(intent)
                case How.IMPORT:
                    await self._import(intent)
                case How.PROPERTIES:
                    await self._properties(intent)
                case How.RESTORE:
                    await self._restore(intent)
                case How.CONSOLE:
                    self._tell_left_out(intent)
                    self.open_console(intent.rows[0].id, intent.rows[0].name)
                case How.LOG:
                    await self._read(intent)
        except ApplianceError as exc:
            self.notify(str(exc), title=action.title, severity="error", timeout=10)
        finally:
            self._begins(intent)

    def _begins(self, intent: Intent) -> None:
        """It is prepared: others may be from now on."""
        if self._prepared is intent:
            self._prepared = None

    async def _ask(self, intent: Intent, dialog: Dialog[T]) -> T | None:
        """What a dialog ends with; it waits until no other is on the screen, so that none takes its keys."""
        while len(self.screen_stack) > 1:
            await SystemClock().sleep(PAUSE_S)
        asked = self.push_screen(dialog, wait_for_dismiss=True)
        self._begins(intent)
        return await asyncio.shield(asked)

    async def _ask_and_call(self, intent: Intent) -> None:
        """Do it once it is meant as it is: who agrees to what holds no more is asked anew."""
        if not intent.is_asked:
            self._tell_left_out(intent)
        elif (agreed := await self._agreed(intent)) is None:
            return
        else:
            intent = agreed
        self._begins(intent)
        for words in intent.calls():
            outcome = await self.call(words)
            self._told(intent.action, outcome)
            if not outcome.ok:
                return
        intent.pane.unmark(intent.keys)

    async def _agreed(self, intent: Intent) -> Intent | None:
        """What somebody agreed to, and what holds still when they do."""
        notes: list[str] = []
        while await self._confirmed(intent, notes):
            before, intent = intent, intent.again()
            if intent.stakes == before.stakes:
                return intent
            if not intent.fit:
                who = before.names[0] if len(before.fit) == 1 else before.what
                words = f"{who}: gone by now, or {intent.action.unfit}. Nothing was done."
                self.notify(words, title=intent.action.title, severity="warning")
                return None
            notes = ["It is another question than before: something changed meanwhile."]
        return None

    async def _confirmed(self, intent: Intent, notes: Sequence[str]) -> bool:
        from appliance.tui.dialogs.confirm import Confirm

        action, names, what = intent.action, intent.names, intent.what
        typed = None
        if intent.ask is Ask.TYPED:
            typed = names[0] if len(names) == 1 else str(len(names))
        left = [intent.left_out] if intent.left_out else []
        question = Confirm(
            f"{action.title} {what}?",
            button=f"{action.title} {what}",
            whom=names,
            costs=action.costs(intent.rows),
            notes=[*notes, *left],
            calls=intent.calls(),
            dangerous=intent.ask in {Ask.ALWAYS, Ask.TYPED},
            typed=typed,
        )
        return await self._ask(intent, question) is True

    async def _clear_alarms(self, intent: Intent) -> None:
        """Clear the alarms that are open now, and none that is raised while the question is."""
        from appliance.tui.dialogs.confirm import Confirm

        title = intent.action.title
        alarms = await self.site.read(lambda reader: reader.alarms())
        if not alarms:
            self.notify("No alarm is open.", title=title)
            return
        what = count(len(alarms), "alarm")
        notes = [f"{alarm.kind}: {alarm.text}" for alarm in alarms[:MOST_ALARMS]]
        if len(alarms) > MOST_ALARMS:
            notes.append(f"and {len(alarms) - MOST_ALARMS:,} more")
        words = ["alarm", "clear", *chosen("alarm", [alarm.id for alarm in alarms], key="id")]
        question = Confirm(
            f"Clear {what}?", button=f"Clear {what}", notes=notes, calls=[words], dangerous=True
        )
        if await self._ask(intent, question):
            self._told(intent.action, await self.call(words))

    def _tell_left_out(self, intent: Intent) -> None:
        """Say how many of the chosen rows are left out, where no question does."""
        if intent.left_out is not None:
            self.notify(intent.left_out, title=intent.action.title, severity="warning")

    def _told(self, action: Action, outcome: Outcome) -> None:
        """Say what came of a call, where somebody should know."""
        if not outcome.ok:
            words = f"{outcome.line}\n{outcome.hint}" if outcome.hint else outcome.line
            self.notify(words, title=f"{action.title} failed", severity="error", timeout=12)
        elif outcome.notes:
            notes = "\n".join(outcome.notes[:4])
            self.notify(notes, title=outcome.line, severity="warning", timeout=8)

    # Forms

    async def _form(self, intent: Intent) -> None:
        from appliance.tui.dialogs.form import VerbForm

        action, rows, what = intent.action, intent.rows, intent.what
        noun = intent.noun(rows[0]) if rows else action.noun
        verb: Verb = await self.site.caller.verb(noun, action.verb)
        shape = form_of(action, noun, rows, verb)
        about = what or ("" if WORDS_OF_NOUNS[noun] in action.title else WORDS_OF_NOUNS[noun])
        form = VerbForm(
            self.call,
            noun,
            verb,
            title=f"{action.title}: {what}" if what else f"{action.title} {about}".strip(),
            button=action.title if action.single else f"{action.title} {about}".strip(),
            whom=intent.names,
            filter_words=filter_of(noun, rows, by_id=noun == "vm") if rows and verb.filters else [],
            choices=await self.site.database.choices(),
            calendar=self.site.calendar,
            **shape,
        )
        await self._fill_in(intent, form)

    async def _fill_in(self, intent: Intent, form: Dialog[Outcome | None]) -> None:
        """Let somebody fill a form in, and say what came of it; the rows are done with then."""
        self._tell_left_out(intent)
        if (outcome := await self._ask(intent, form)) is not None:
            self._told(intent.action, outcome)
            intent.pane.unmark(intent.keys)

    async def _tag(self, intent: Intent) -> None:
        from appliance.tui.dialogs.tagging import Tagging

        action, row, whom = intent.action, intent.rows[0], intent.names
        verb: Verb = await self.site.caller.verb("di", action.verb)
        fixed: dict[str, str] = {}
        each: list[Mapping[str, str]] = [{}]
        if action.name == "di.undo":
            fixed, whom = {"osf": row.osf}, [row.osf]
        else:
            each = [{"di_id": str(one.id)} for one in intent.rows]
        choices = dict(await self.site.database.choices())
        choices["tag"] = list(row.tags if action.name == "di.untag" else choices["di_tag"])
        form = Tagging(
            self.call,
            "di",
            verb,
            title=f"{action.title}: {', '.join(whom)}",
            button=action.title,
            whom=whom,
            fixed=fixed,
            each=each,
            proposed={"tag": choices["tag"][0]} if action.name == "di.untag" and choices["tag"] else {},
            choices=choices,
            calendar=self.site.calendar,
        )
        await self._fill_in(intent, form)

    async def _import(self, intent: Intent) -> None:
        from appliance.tui.dialogs.importing import Importing

        verb: Verb = await self.site.caller.verb("di", "add")
        choices = await self.site.database.choices()
        settings = await self.site.database.settings()
        form = Importing(self.call, verb, settings=settings, choices=choices, calendar=self.site.calendar)
        if (outcome := await self._ask(intent, form)) is not None:
            self._told(intent.action, outcome)

    async def _properties(self, intent: Intent) -> None:
        from appliance.tui.dialogs.properties import Properties

        noun = intent.noun(intent.rows[0])
        alike = intent.only(noun)
        if (others := alike.left - intent.left) > 0:
            self.notify(
                f"{count(others, 'chosen row')} left out: of another kind.",
                title=intent.action.title,
                severity="warning",
            )
        self._tell_left_out(intent)
        editor = Properties(
            self.call,
            noun,
            title=f"Properties: {alike.what}",
            whom=alike.names,
            filter_words=filter_of(noun, alike.rows),
        )
        await self._ask(intent, editor)

    async def _restore(self, intent: Intent) -> None:
        from appliance.tui.dialogs.form import VerbForm

        action, row = intent.action, intent.rows[0]
        found = await self.call(["home", "list", *chosen("home", [row.name]), "-o", "json"])
        if not found.ok:
            self._told(action, found)
            return
        snapshots = [one for one in found.json if one.get("snapshot")]
        if not snapshots:
            self.notify(f"{row.name} has no snapshot of its home.", title=action.title, severity="warning")
            return
        verb: Verb = await self.site.caller.verb("home", "restore")
        form = VerbForm(
            self.call,
            "home",
            verb,
            title=f"Restore the home of {row.name}",
            button="Restore home",
            whom=[f"{one['snapshot']}: {one['at']}" for one in snapshots],
            fixed={"vm": row.name},
            choices={"snapshot": [str(one["snapshot"]) for one in snapshots]},
            calendar=self.site.calendar,
        )
        await self._fill_in(intent, form)

    async def _read(self, intent: Intent) -> None:
        """Show what the verb says, which may take a while: the screen is free until then."""
        from appliance.tui.dialogs.message import Message

        action, rows = intent.action, intent.rows
        self._tell_left_out(intent)
        self._begins(intent)
        outcome = await self.call([action.noun, action.verb, *filter_of(action.noun, rows)])
        if outcome.ok:
            await self._ask(intent, Message.of(f"{action.title}: {rows[0].name}", outcome))
        else:
            self._told(action, outcome)

    async def may_leave(self) -> bool:
        """Whether the TUI may end: no desktop is touched by that, but an import under way is given up."""
        from appliance.tui.dialogs.confirm import Confirm

        question = Confirm(
            "Leave while work is under way?",
            button="Leave",
            costs=["An import is given up, and nothing of it is left."],
            dangerous=True,
        )
        meant: bool | None = await self.push_screen_wait(question)
        return meant is True


def form_of(action: Action, noun: str, rows: Sequence[Any], verb: Verb) -> dict[str, Any]:
    """What a form of this action is filled with: what is fixed, what holds now, and what is asked for."""
    row = rows[0] if len(rows) == 1 else None
    if action.name in {"vm.expire", "vm.tag"} and row is not None:
        return {"only": action.fields, "values": of_vm(row)}
    if action.name == "vm.edit":
        several = ("di_tag", "osf", "expire-soft", "expire-hard")
        return {"values": of_vm(row)} if row is not None else {"only": several}
    if action.name == "user.password":
        return {"fixed": {"user": rows[0].login}, "only": ("password",)}
    if action.name == "user.edit":
        return {"values": {"login": rows[0].login}}
    if action.name == "image.edit":
        if noun == "di":
            return {"values": {"notes": rows[0].of.notes or ""}}
        return {"values": of_osf(rows[0].of)}
    if action.name == "di.duplicate":
        return {"fixed": {"di_id": str(rows[0].id)}}
    if action.name == "config.set":
        from appliance.qa.verbs import Argument

        setting = rows[0]
        hidden = setting.value if is_secret(setting.key) else None
        return {
            "arguments": (Argument(setting.key, setting.doc or "its value", shape=hidden or "VALUE"),),
            "values": {setting.key: "" if hidden else setting.value or ""},
        }
    return {"only": action.fields}


def of_vm(vm: Any) -> dict[str, str]:
    """The answers that hold for a desktop now."""
    from appliance.tui.view import instant

    values = {"name": vm.name, "di_tag": vm.tag, "ip": vm.ip or "", "osf": vm.osf}
    for name, stored in (("expire-soft", vm.soft), ("expire-hard", vm.hard)):
        at = instant(stored)
        values[name] = "" if at is None else at.astimezone().strftime("%Y-%m-%dT%H:%M")
    return values


def of_osf(osf: Any) -> dict[str, str]:
    """The answers that hold for a flavour now, as far as they are plain numbers and words."""
    values = {"name": osf.name, "memory": str(osf.memory_mib), "backend": str(osf.backend)}
    values["use_overlay"] = "yes" if osf.use_overlay else "no"
    if osf.cpus is not None:
        values["cpus"] = f"{osf.cpus:g}"
    if osf.user_storage_mib is not None:
        values["user_storage_size"] = str(osf.user_storage_mib)
    return values
