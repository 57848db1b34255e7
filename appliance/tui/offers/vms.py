"""What can be done with desktops, and with the sessions at them."""

from __future__ import annotations

from collections.abc import Sequence

from appliance.model import VmState
from appliance.storage.live import VmLine
from appliance.tui.actions import Action, Ask, How, count, few
from appliance.tui.tally import people


def _sessions(vms: Sequence[VmLine]) -> list[str]:
    present = people(vms)
    if not present:
        return ["Nobody is connected."]
    verb = (
        "is connected and loses the session" if len(present) == 1 else "are connected and lose their sessions"
    )
    return [f"{few(present)} {verb}; unsaved work in open programs goes with it."]


def _restart_costs(vms: Sequence[VmLine]) -> list[str]:
    moved = [vm for vm in vms if vm.outdated]
    new = [f"{count(len(moved), 'desktop')} will boot another image than now."] if moved else []
    return [*_sessions(vms), *new]


def _disconnect_costs(vms: Sequence[VmLine]) -> list[str]:
    return [f"{few(people(vms))} will be thrown out; the desktops go on, and programs with them."]


def _delete_costs(vms: Sequence[VmLine]) -> list[str]:
    return ["Their roots go for good. Their homes are kept for a while (qa kept list)."]


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
        costs=_sessions,
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

SESSION_ACTIONS = tuple(
    action
    for action in VM_ACTIONS
    if action.name in {"vm.disconnect", "vm.message", "vm.console", "vm.log", "vm.block", "vm.stop"}
)
