"""How an action comes about: rows, question or form, the call, and what is told of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

from textual.app import App
from textual.notifications import SeverityLevel

from appliance.errors import ApplianceError
from appliance.tui.actions import KEYS, Action, Ask, How, chosen, count
from appliance.tui.calls import Outcome, Told, twin
from appliance.tui.panes.base import Pane
from appliance.tui.remembered import Remembered
from appliance.tui.site import Site
from appliance.tui.widgets.command_log import CommandLog
from appliance.tui.widgets.details import printable, printable_lines
from appliance.tui.workers import start

if TYPE_CHECKING:
    from appliance.qa.verbs import Verb

WORDS_OF_NOUNS = {
    "vm": "desktop",
    "home": "desktop",
    "user": "user",
    "di": "image",
    "osf": "OSF",
    "host": "host",
    "config": "setting",
    "operation": "import",
    "alarm": "alarm",
}
"""What people call the objects of a noun."""
QUIET = ("--dry-run", "-o")
"""Calls with one of these only look, and are in no log."""


class ActingApp(App[None]):
    """An app that does what its panes offer."""

    site: Site
    remembered: Remembered
    calls_under_way = 0

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
        """Do an action with the rows that are chosen."""
        if action.changes and self.site.read_only:
            self.notify("This TUI only reads (--readonly).", severity="warning")
            return
        start(self, partial(self._act, action), group="act")

    async def _act(self, action: Action) -> None:
        rows = self._rows(action)
        if rows is None:
            return
        try:
            match action.how:
                case How.CALL:
                    await self._ask_and_call(action, rows)
                case How.FORM:
                    await self._form(action, rows)
                case How.TAG:
                    await self._tag(action, rows)
                case How.IMPORT:
                    await self._import(action)
                case How.PROPERTIES:
                    await self._properties(action, rows)
                case How.RESTORE:
                    await self._restore(action, rows[0])
                case How.CONSOLE:
                    self.open_console(rows[0].id, rows[0].name)
                case How.LOG:
                    await self._read(action, rows)
        except ApplianceError as exc:
            self.notify(str(exc), title=action.title, severity="error", timeout=10)

    def _rows(self, action: Action) -> list[Any] | None:
        """With which rows it can be done; None, and why is told, if with none."""
        pane = self.pane
        if not action.about_rows or pane is None:
            return []
        rows = pane.chosen()
        fit = [row for row in rows if action.fits(row)]
        if not rows:
            self.notify("No row is chosen.", title=action.title, severity="warning")
        elif not fit:
            name = pane.name_of(rows[0]) if len(rows) == 1 else f"{len(rows)} rows"
            self.notify(f"{name}: {action.unfit}.", title=action.title, severity="warning")
        elif action.single and len(fit) > 1:
            self.notify("This takes one row; take the marks away.", title=action.title, severity="warning")
        else:
            return fit
        return None

    async def _ask_and_call(self, action: Action, rows: Sequence[Any]) -> None:
        calls = self._calls(action, rows)
        if self._is_asked(action, rows) and not await self._confirmed(action, rows, calls):
            return
        for words in calls:
            outcome = await self.call(words)
            self._told(action, outcome)
            if not outcome.ok:
                return
        self._unmark()

    def _is_asked(self, action: Action, rows: Sequence[Any]) -> bool:
        return action.ask in {Ask.ALWAYS, Ask.TYPED} or (action.ask is Ask.SEVERAL and len(rows) > 1)

    async def _confirmed(self, action: Action, rows: Sequence[Any], calls: Sequence[Sequence[str]]) -> bool:
        from appliance.tui.dialogs.confirm import Confirm

        pane = self.pane
        assert pane is not None
        names = [str(pane.name_of(row)) for row in rows]
        what = self._what(action, rows)
        typed = None
        if action.ask is Ask.TYPED:
            typed = names[0] if len(names) == 1 else str(len(names))
        left = len(pane.chosen()) - len(rows) if action.about_rows else 0
        notes = [f"{count(left, 'chosen row')} left out: {action.unfit}."] if left else []
        question = Confirm(
            f"{action.title} {what}?",
            button=f"{action.title} {what}",
            whom=names,
            costs=action.costs(rows),
            notes=notes,
            calls=calls,
            dangerous=action.ask in {Ask.ALWAYS, Ask.TYPED},
            typed=typed,
        )
        meant: bool | None = await self.push_screen_wait(question)
        return meant is True

    def _what(self, action: Action, rows: Sequence[Any]) -> str:
        """`3 desktops`; nothing if it is about no rows."""
        pane = self.pane
        if not rows or pane is None:
            return ""
        nouns = {self._noun(action, row) for row in rows}
        return count(len(rows), WORDS_OF_NOUNS[nouns.pop()] if len(nouns) == 1 else "row")

    def _noun(self, action: Action, row: Any) -> str:
        """Of which noun a row is for an action; images and OSFs share some."""
        pane = self.pane
        assert pane is not None
        return pane.noun_of(row) if action.name.startswith("image.") else action.noun

    def _calls(self, action: Action, rows: Sequence[Any]) -> list[list[str]]:
        """The calls of an action that needs no more to be known."""
        verb = action.verb.split()
        if not rows:
            return [[action.noun, *verb]]
        if action.noun == "config":
            return [["config", *verb, *(row.key for row in rows)]]
        calls = []
        for noun, group in groupby(rows, key=lambda row: self._noun(action, row)):
            calls.append([noun, *verb, *self._filter(noun, list(group), by_id=action.ask is Ask.TYPED)])
        return calls

    def _filter(self, noun: str, rows: Sequence[Any], *, by_id: bool = False) -> list[str]:
        """The words of a filter for exactly these rows."""
        if noun == "operation":
            return chosen(noun, [row.id for row in rows], key="object_id")
        key = "id" if by_id else KEYS[noun]
        return chosen(noun, [getattr(row, key) for row in rows], key=key)

    def _told(self, action: Action, outcome: Outcome) -> None:
        """Say what came of a call, where somebody should know."""
        if not outcome.ok:
            words = f"{outcome.line}\n{outcome.hint}" if outcome.hint else outcome.line
            self.notify(words, title=f"{action.title} failed", severity="error", timeout=12)
        elif outcome.notes:
            notes = "\n".join(outcome.notes[:4])
            self.notify(notes, title=outcome.line, severity="warning", timeout=8)

    def _unmark(self) -> None:
        pane = self.pane
        if (table := getattr(pane, "table", None)) is not None:
            table.clear_marks()

    # Forms

    async def _form(self, action: Action, rows: Sequence[Any]) -> None:
        from appliance.tui.dialogs.form import VerbForm

        noun = self._noun(action, rows[0]) if rows else action.noun
        verb: Verb = await self.site.caller.verb(noun, action.verb)
        shape = form_of(action, noun, rows, verb)
        by_id = noun == "vm"
        filter_words = self._filter(noun, rows, by_id=by_id) if rows and verb.filters else []
        pane = self.pane
        names = [str(pane.name_of(row)) for row in rows] if pane is not None else []
        what, word = self._what(action, rows), WORDS_OF_NOUNS[noun]
        about = what or ("" if word in action.title else word)
        outcome = await self.push_screen_wait(
            VerbForm(
                self.call,
                noun,
                verb,
                title=f"{action.title}: {what}" if what else f"{action.title} {about}".strip(),
                button=action.title if action.single else f"{action.title} {about}".strip(),
                whom=names,
                filter_words=filter_words,
                choices=await self.site.database.choices(),
                calendar=self.site.calendar,
                **shape,
            )
        )
        if outcome is not None:
            self._told(action, outcome)
            self._unmark()

    async def _tag(self, action: Action, rows: Sequence[Any]) -> None:
        from appliance.tui.dialogs.tagging import Tagging

        verb: Verb = await self.site.caller.verb("di", action.verb)
        row = rows[0]
        fixed: dict[str, str] = {}
        each: list[Mapping[str, str]] = [{}]
        if action.name == "di.undo":
            fixed = {"osf": row.osf}
            whom = [row.osf]
        else:
            each = [{"di_id": str(one.id)} for one in rows]
            whom = [f"{one.osf} {one.name}" for one in rows]
        choices = dict(await self.site.database.choices())
        choices["tag"] = list(row.tags if action.name == "di.untag" else choices["di_tag"])
        outcome = await self.push_screen_wait(
            Tagging(
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
        )
        if outcome is not None:
            self._told(action, outcome)
            self._unmark()

    async def _import(self, action: Action) -> None:
        from appliance.tui.dialogs.importing import Importing

        verb: Verb = await self.site.caller.verb("di", "add")
        choices = await self.site.database.choices()
        settings = await self.site.database.settings()
        outcome = await self.push_screen_wait(
            Importing(self.call, verb, settings=settings, choices=choices, calendar=self.site.calendar)
        )
        if outcome is not None:
            self._told(action, outcome)

    async def _properties(self, action: Action, rows: Sequence[Any]) -> None:
        from appliance.tui.dialogs.properties import Properties

        pane = self.pane
        assert pane is not None
        noun = self._noun(action, rows[0])
        rows = [row for row in rows if self._noun(action, row) == noun]
        await self.push_screen_wait(
            Properties(
                self.call,
                noun,
                title=f"Properties: {self._what(action, rows)}",
                whom=[str(pane.name_of(row)) for row in rows],
                filter_words=self._filter(noun, rows),
            )
        )

    async def _restore(self, action: Action, row: Any) -> None:
        from appliance.tui.dialogs.form import VerbForm

        found = await self.call(["home", "list", "-f", f"name={row.name}", "-o", "json"])
        snapshots = [one for one in found.json if one.get("snapshot")] if found.ok else []
        if not snapshots:
            self.notify(f"{row.name} has no snapshot of its home.", title=action.title, severity="warning")
            return
        verb: Verb = await self.site.caller.verb("home", "restore")
        outcome = await self.push_screen_wait(
            VerbForm(
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
        )
        if outcome is not None:
            self._told(action, outcome)

    async def _read(self, action: Action, rows: Sequence[Any]) -> None:
        from appliance.tui.dialogs.message import Message

        outcome = await self.call([action.noun, action.verb, *self._filter(action.noun, rows)])
        if not outcome.ok:
            self._told(action, outcome)
            return
        self.push_screen(Message.of(f"{action.title}: {rows[0].name}", outcome))

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
        return {
            "arguments": (Argument(setting.key, setting.doc or "its value", shape="VALUE"),),
            "values": {setting.key: setting.value or ""},
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
