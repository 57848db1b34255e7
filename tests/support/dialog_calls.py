"""What dialogs call and what has come of it; and dialogs to call it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from appliance.model import User, Vm
from appliance.qa.calls import verb_of
from appliance.storage.properties import Owner
from appliance.tui.calls import Caller, Outcome, Told
from appliance.tui.dialogs.confirm import Confirm
from appliance.tui.dialogs.field import Field
from appliance.tui.dialogs.form import VerbForm
from appliance.tui.dialogs.importing import Importing
from appliance.tui.dialogs.tagging import Tagging
from tests.support.dialogs import Actor
from tests.support.qa import Installation

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


async def vms(qa: Installation) -> list[Vm]:
    """All desktops."""
    async with qa.store() as store, store.read() as tx:
        return await tx.vms.find()


async def users(qa: Installation) -> list[User]:
    """All users."""
    async with qa.store() as store, store.read() as tx:
        return await tx.users.find()


async def tags(qa: Installation) -> dict[int, set[str]]:
    """The tags of each image."""
    async with qa.store() as store, store.read() as tx:
        return {di.id: set(di.tags) for di in await tx.images.find()}


async def properties(qa: Installation) -> dict[str, str]:
    """The properties of the first desktop."""
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
    """The form of a verb."""
    return VerbForm(call, noun, verb_of(noun, verb), title="Form", button="Do it", **changes)


def edit(call: Recorder, **changes: Any) -> VerbForm:
    """The form that edits web-1."""
    return form(call, "vm", "edit", filter_words=WEB_1, whom=["web-1"], **changes)


async def ready(actor: Actor, name: str) -> Field:
    """The field of an argument."""
    dialog = actor.screen
    assert isinstance(dialog, VerbForm)
    field = dialog.field(name)
    assert field is not None
    return field


def tagging(call: Recorder, **changes: Any) -> Tagging:
    """The dialog that tags image 2."""
    return Tagging(
        call, "di", verb_of("di", "tag"), title="Tag two", button="Tag", each=[{"di_id": "2"}], **changes
    )


def importing(qa: Installation, call: Any, **changes: Any) -> Importing:
    """The dialog that imports an image."""
    return Importing(call, verb_of("di", "add"), settings=qa.settings, **changes)


def staged(qa: Installation, name: str, text: bytes = b"image " * 1000) -> Path:
    """A file in the staging directory."""
    file = qa.storage / "staging" / name
    file.write_bytes(text)
    return file
