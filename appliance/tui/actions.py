"""What an administrator can do, as data: keys, palette, help, confirmation and the `qa` twin come from here.

Every action is a verb of `qa` on the rows that are marked, or on the one at the cursor. Pure: nothing here
acts, asks or draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from appliance.filters import Filter
from appliance.model import VmState
from appliance.storage.live import VmLine
from appliance.tui.tally import people


class Ask(Enum):
    """When an action is confirmed before it is done."""

    NEVER = "never"
    SEVERAL = "for several rows"
    ALWAYS = "always"
    TYPED = "always, by typing"
    """It cannot be undone."""


class How(Enum):
    """What an action opens before it is done."""

    CALL = "nothing but its confirmation"
    FORM = "a form of the verb's arguments"
    TAG = "the form for tags"
    IMPORT = "the form for images, and their progress"
    PROPERTIES = "the editor of properties"
    RESTORE = "the choice of a snapshot"
    CONSOLE = "a console"
    LOG = "what the verb says, to read"


def _any(_: Any) -> bool:
    return True


def _no_costs(_: Sequence[Any]) -> list[str]:
    return []


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One thing to do with rows of a pane."""

    name: str
    """Its own name, unique: `vm.stop`."""
    key: str
    title: str
    doc: str
    """What it does, for the help."""
    noun: str
    verb: str
    how: How = How.CALL
    ask: Ask = Ask.NEVER
    fits: Callable[[Any], bool] = _any
    """With which rows it can be done; the others are left out, and said to be."""
    unfit: str = "cannot be changed like that now"
    """What is told of rows with which it cannot be done."""
    about_rows: bool = True
    """Whether it is about rows at all; else it makes something new."""
    single: bool = False
    """Whether it takes one row only."""
    costs: Callable[[Sequence[Any]], list[str]] = _no_costs
    """What it costs the people concerned, a sentence each."""
    fields: tuple[str, ...] = ()
    """The arguments that its form has; none: all that the verb takes."""
    changes: bool = True
    """Whether it changes anything: such are not for `--readonly`."""


def _sessions(vms: Sequence[VmLine]) -> list[str]:
    present = people(vms)
    if not present:
        return ["Nobody is connected."]
    verb = (
        "is connected and loses the session" if len(present) == 1 else "are connected and lose their sessions"
    )
    return [f"{few(present)} {verb}; unsaved work in open programs goes with it."]


def _stop_costs(vms: Sequence[VmLine]) -> list[str]:
    return _sessions(vms)


def _restart_costs(vms: Sequence[VmLine]) -> list[str]:
    moved = [vm for vm in vms if vm.outdated]
    new = [f"{count(len(moved), 'desktop')} will boot another image than now."] if moved else []
    return [*_sessions(vms), *new]


def _disconnect_costs(vms: Sequence[VmLine]) -> list[str]:
    return [f"{few(people(vms))} will be thrown out; the desktops go on, and programs with them."]


def _delete_costs(vms: Sequence[VmLine]) -> list[str]:
    return ["Their roots go for good. Their homes are kept for a while (qa kept list)."]


def few(names: Sequence[str], most: int = 6) -> str:
    """The names, as far as a line has room for them."""
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {len(names) - most} more"


def count(number: int, noun: str) -> str:
    """`1 desktop`, `12 desktops`."""
    return f"{number} {noun}" if number == 1 else f"{number:,} {noun}s"


def _stopped(vm: VmLine) -> bool:
    return vm.state == VmState.STOPPED


def _startable(vm: VmLine) -> bool:
    return vm.state == VmState.STOPPED and vm.cmd is None


def _stoppable(vm: VmLine) -> bool:
    return vm.state in {VmState.STARTING, VmState.RUNNING, VmState.DEBUGGING} or vm.cmd == "start"


VM_ACTIONS = (
    Action(
        name="vm.start",
        key="s",
        title="Start",
        doc="Starts stopped desktops.",
        noun="vm",
        verb="start",
        ask=Ask.SEVERAL,
        fits=_startable,
        unfit="not stopped",
    ),
    Action(
        name="vm.stop",
        key="x",
        title="Stop",
        doc="Stops desktops in good order.",
        noun="vm",
        verb="stop",
        ask=Ask.ALWAYS,
        fits=_stoppable,
        unfit="not running",
        costs=_stop_costs,
    ),
    Action(
        name="vm.restart",
        key="r",
        title="Restart",
        doc="Stops desktops and starts them again, with the image that is theirs by then.",
        noun="vm",
        verb="restart",
        ask=Ask.ALWAYS,
        fits=_stoppable,
        unfit="not running",
        costs=_restart_costs,
    ),
    Action(
        name="vm.console",
        key="c",
        title="Console",
        doc="Opens the console of a desktop.",
        noun="vm",
        verb="console",
        how=How.CONSOLE,
        single=True,
        fits=lambda vm: vm.runs,
        unfit="not running: it has no console",
        changes=False,
    ),
    Action(
        name="vm.expire",
        key="e",
        title="Expire",
        doc="Limits old images: users are asked from the soft limit on, and restarted at the hard one.",
        noun="vm",
        verb="edit",
        how=How.FORM,
        fields=("expire-soft", "expire-hard"),
    ),
    Action(
        name="vm.tag",
        key="t",
        title="Tag",
        doc="Lets desktops follow another tag, from their next start.",
        noun="vm",
        verb="edit",
        how=How.FORM,
        fields=("di_tag",),
    ),
    Action(
        name="vm.disconnect",
        key="d",
        title="Disconnect",
        doc="Ends the sessions of desktops, which go on.",
        noun="vm",
        verb="disconnect_user",
        ask=Ask.ALWAYS,
        fits=lambda vm: vm.has_user,
        unfit="nobody is connected",
        costs=_disconnect_costs,
    ),
    Action(
        name="vm.block",
        key="b",
        title="Block",
        doc="Keeps users out of desktops; what runs goes on.",
        noun="vm",
        verb="block",
        ask=Ask.SEVERAL,
        fits=lambda vm: not vm.blocked or vm.block_cause != "admin",
        unfit="blocked already",
    ),
    Action(
        name="vm.unblock",
        key="u",
        title="Unblock",
        doc="Lets users in again, whoever or whatever blocked the desktops.",
        noun="vm",
        verb="unblock",
        ask=Ask.SEVERAL,
        fits=lambda vm: bool(vm.blocked),
        unfit="not blocked",
    ),
    Action(
        name="vm.add",
        key="a",
        title="Add",
        doc="Adds a desktop, or several at once.",
        noun="vm",
        verb="add",
        how=How.FORM,
        about_rows=False,
    ),
    Action(
        name="vm.edit",
        key="E",
        title="Edit",
        doc="Changes name, tag, address, OSF or limits.",
        noun="vm",
        verb="edit",
        how=How.FORM,
    ),
    Action(
        name="vm.properties",
        key="p",
        title="Properties",
        doc="Shows and changes the properties of desktops.",
        noun="vm",
        verb="propset",
        how=How.PROPERTIES,
    ),
    Action(
        name="vm.message",
        key="m",
        title="Message",
        doc="Tells the people at desktops something, in a dialog there.",
        noun="vm",
        verb="message",
        how=How.FORM,
        fits=lambda vm: vm.state == VmState.RUNNING,
        unfit="not running",
    ),
    Action(
        name="vm.log",
        key="o",
        title="Agent log",
        doc="Shows what the hooks and the agent of a desktop have said last.",
        noun="vm",
        verb="log",
        how=How.LOG,
        single=True,
        fits=lambda vm: vm.state == VmState.RUNNING,
        unfit="not running",
        changes=False,
    ),
    Action(
        name="vm.restore",
        key="R",
        title="Restore home",
        doc="Puts the home of a stopped desktop back as it was in one of its snapshots.",
        noun="home",
        verb="restore",
        how=How.RESTORE,
        single=True,
        fits=_stopped,
        unfit="not stopped",
    ),
    Action(
        name="vm.snapshot",
        key="H",
        title="Snapshot home",
        doc="Keeps the homes of stopped desktops as they are now.",
        noun="home",
        verb="snapshot",
        ask=Ask.SEVERAL,
        fits=_stopped,
        unfit="not stopped",
    ),
    Action(
        name="vm.delete",
        key="D",
        title="Delete",
        doc="Deletes stopped desktops; their homes are kept for a while.",
        noun="vm",
        verb="del",
        ask=Ask.TYPED,
        fits=_stopped,
        unfit="not stopped",
        costs=_delete_costs,
    ),
)

USER_ACTIONS = (
    Action(
        name="user.add",
        key="a",
        title="Add",
        doc="Adds a user.",
        noun="user",
        verb="add",
        how=How.FORM,
        about_rows=False,
        fields=("login", "password"),
    ),
    Action(
        name="user.password",
        key="P",
        title="Password",
        doc="Gives a user another password.",
        noun="user",
        verb="passwd",
        how=How.FORM,
        single=True,
    ),
    Action(
        name="user.disable",
        key="x",
        title="Disable",
        doc="Lets users log in no more and ends their sessions; their desktops go on.",
        noun="user",
        verb="disable",
        ask=Ask.ALWAYS,
        fits=lambda user: bool(user.enabled),
        unfit="disabled already",
        costs=lambda users: [
            f"{count(sum(user.connected for user in users), 'session')} will end; the desktops go on."
        ],
    ),
    Action(
        name="user.enable",
        key="s",
        title="Enable",
        doc="Lets users log in again.",
        noun="user",
        verb="enable",
        ask=Ask.SEVERAL,
        fits=lambda user: not user.enabled,
        unfit="enabled already",
    ),
    Action(
        name="user.edit",
        key="E",
        title="Rename",
        doc="Gives a user another login; the homes of their stopped desktops follow.",
        noun="user",
        verb="edit",
        how=How.FORM,
        single=True,
    ),
    Action(
        name="user.properties",
        key="p",
        title="Properties",
        doc="Shows and changes the properties of users.",
        noun="user",
        verb="propset",
        how=How.PROPERTIES,
    ),
    Action(
        name="user.delete",
        key="D",
        title="Delete",
        doc="Deletes users without desktops.",
        noun="user",
        verb="del",
        ask=Ask.TYPED,
        fits=lambda user: not user.vms,
        unfit="owns desktops",
        costs=lambda users: ["Their logins and passwords go for good."],
    ),
)

IMAGE_ACTIONS = (
    Action(
        name="di.add",
        key="a",
        title="Import image",
        doc="Imports a disk image from the staging directory or any path.",
        noun="di",
        verb="add",
        how=How.IMPORT,
        about_rows=False,
    ),
    Action(
        name="osf.add",
        key="A",
        title="Add OSF",
        doc="Adds an operating system flavour.",
        noun="osf",
        verb="add",
        how=How.FORM,
        about_rows=False,
    ),
    Action(
        name="di.tag",
        key="t",
        title="Tag",
        doc="Lets a tag point at images, each in its OSF, and gives the desktops concerned limits.",
        noun="di",
        verb="tag",
        how=How.TAG,
        fits=lambda row: row.is_image,
        unfit="no image",
    ),
    Action(
        name="di.untag",
        key="T",
        title="Untag",
        doc="Takes a tag from an image.",
        noun="di",
        verb="untag",
        how=How.TAG,
        single=True,
        fits=lambda row: row.is_image and bool(row.tags),
        unfit="no image with tags",
    ),
    Action(
        name="di.undo",
        key="R",
        title="Roll back",
        doc="Takes the newest move of a tag of this OSF back; desktops that still run what they had keep it.",
        noun="di",
        verb="tag --undo",
        how=How.TAG,
        single=True,
    ),
    Action(
        name="image.edit",
        key="E",
        title="Edit",
        doc="Changes the notes of an image, or the resources and policies of an OSF.",
        noun="di",
        verb="edit",
        how=How.FORM,
        single=True,
    ),
    Action(
        name="di.block",
        key="b",
        title="Block",
        doc="Lets nothing boot images; what runs goes on.",
        noun="di",
        verb="block",
        ask=Ask.ALWAYS,
        fits=lambda row: row.is_image and not row.blocked,
        unfit="no image, or blocked already",
        costs=lambda rows: [
            f"{count(sum(row.followers for row in rows), 'desktop')} would boot them next and will not start."
        ],
    ),
    Action(
        name="di.unblock",
        key="u",
        title="Unblock",
        doc="Lets images be booted again.",
        noun="di",
        verb="unblock",
        ask=Ask.SEVERAL,
        fits=lambda row: row.is_image and bool(row.blocked),
        unfit="not blocked",
    ),
    Action(
        name="di.duplicate",
        key="y",
        title="Duplicate",
        doc="Makes an image from another one, for another OSF: it takes no room.",
        noun="di",
        verb="duplicate",
        how=How.FORM,
        single=True,
        fits=lambda row: row.is_image,
        unfit="no image",
    ),
    Action(
        name="image.properties",
        key="p",
        title="Properties",
        doc="Shows and changes the properties of images or OSFs.",
        noun="di",
        verb="propset",
        how=How.PROPERTIES,
    ),
    Action(
        name="image.delete",
        key="D",
        title="Delete",
        doc="Puts images into the trash, from where they come back for a while; or deletes an empty OSF.",
        noun="di",
        verb="del",
        ask=Ask.ALWAYS,
        fits=lambda row: not row.retired and not row.running and not row.arriving,
        unfit="in the trash already, or desktops run it",
        costs=lambda rows: (
            ["Images are in the trash for a while, and come back with U."]
            if any(row.is_image for row in rows)
            else ["The OSF goes for good, if it has neither images nor desktops."]
        ),
    ),
    Action(
        name="di.undelete",
        key="U",
        title="Undelete",
        doc="Takes images out of the trash.",
        noun="di",
        verb="undelete",
        ask=Ask.SEVERAL,
        fits=lambda row: row.is_image and row.retired,
        unfit="not in the trash",
    ),
    Action(
        name="di.purge",
        key="Z",
        title="Purge",
        doc="Removes images in the trash for good.",
        noun="di",
        verb="purge",
        ask=Ask.TYPED,
        fits=lambda row: row.is_image and row.retired,
        unfit="not in the trash",
        costs=lambda rows: ["They do not come back."],
    ),
    Action(
        name="operation.cancel",
        key="C",
        title="Cancel import",
        doc="Gives up an import that is under way.",
        noun="operation",
        verb="cancel",
        ask=Ask.ALWAYS,
        fits=lambda row: row.arriving,
        unfit="not on its way",
        costs=lambda rows: ["What was copied is removed."],
    ),
)

SESSION_ACTIONS = tuple(
    action
    for action in VM_ACTIONS
    if action.name in {"vm.disconnect", "vm.message", "vm.console", "vm.log", "vm.block", "vm.stop"}
)

HOST_ACTIONS = (
    Action(
        name="host.block",
        key="b",
        title="Block",
        doc="Keeps new clients and new runs from hosts; what runs goes on.",
        noun="host",
        verb="block",
        ask=Ask.ALWAYS,
        fits=lambda host: not host.blocked,
        unfit="blocked already",
        costs=lambda hosts: ["Nobody can connect anew, and no desktop starts there."],
    ),
    Action(
        name="host.unblock",
        key="u",
        title="Unblock",
        doc="Lets clients and runs in again.",
        noun="host",
        verb="unblock",
        fits=lambda host: host.blocked,
        unfit="not blocked",
    ),
    Action(
        name="host.add",
        key="a",
        title="Add",
        doc="Adds a host.",
        noun="host",
        verb="add",
        how=How.FORM,
        about_rows=False,
    ),
    Action(
        name="host.properties",
        key="p",
        title="Properties",
        doc="Shows and changes the properties of hosts.",
        noun="host",
        verb="propset",
        how=How.PROPERTIES,
    ),
    Action(
        name="host.delete",
        key="D",
        title="Delete",
        doc="Deletes hosts that have neither desktops nor a daemon that runs.",
        noun="host",
        verb="del",
        ask=Ask.TYPED,
        costs=lambda hosts: ["Their rows and counters go for good."],
    ),
)

ALARM_ACTIONS = (
    Action(
        name="alarm.clear",
        key="C",
        title="Clear alarms",
        doc="Says that somebody has looked after the open alarms.",
        noun="alarm",
        verb="clear",
        ask=Ask.ALWAYS,
        about_rows=False,
    ),
)

SETTING_ACTIONS = (
    Action(
        name="config.set",
        key="E",
        title="Set",
        doc="Gives a setting another value.",
        noun="config",
        verb="set",
        how=How.FORM,
        single=True,
    ),
    Action(
        name="config.delete",
        key="D",
        title="Reset",
        doc="Removes settings from the database, so that the file or the default holds again.",
        noun="config",
        verb="del",
        ask=Ask.ALWAYS,
        fits=lambda row: row.source == "database",
        unfit="not set in the database",
    ),
)

KEYS = {
    "vm": "name",
    "user": "login",
    "di": "id",
    "osf": "name",
    "host": "name",
    "operation": "id",
    "home": "name",
}
"""By which key a filter names the objects of a noun."""


def chosen(noun: str, names: Sequence[object], *, key: str | None = None) -> list[str]:
    """The words of a filter for exactly these objects."""
    key = key or KEYS[noun]
    filter_ = Filter.where(**{key: names[0]}) if len(names) == 1 else Filter.among(key, names)
    return ["-f", str(filter_)]
