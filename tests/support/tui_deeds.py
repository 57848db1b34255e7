"""Every action of the TUI that needs but a confirmation, as data: on which rows, and what it does."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from appliance.storage.paths import Paths
from appliance.tui.actions import Action
from appliance.tui.app import PANES
from tests.support.tui_office import RUNNING, Office

VMS = "SELECT name FROM vms JOIN vm_runtimes ON vm_id = id WHERE {}"
USERS = "SELECT login FROM users WHERE {}"
IMAGES = "SELECT o.name || ' ' || d.version FROM dis d JOIN osfs o ON o.id = d.osf_id WHERE {}"
HOSTS = "SELECT name FROM hosts JOIN host_runtimes ON host_id = id WHERE {}"
ABSENT = "{} is gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """One action, done on one row and on several.

    `state` is the query for the names of the rows that are as the action leaves them; `gone`: those that are
    not in it are. `rows` are marked, of which only `fit` can be done.
    """

    pane: str
    action: str
    one: str
    rows: tuple[str, ...]
    fit: tuple[str, ...]
    state: str
    gone: bool = False
    prepare: Callable[[Office], object] = field(default=lambda office: None)

    @property
    def what(self) -> Action:
        """The action itself."""
        return action_of(self.pane, self.action)

    def reached(self, office: Office, names: set[str]) -> set[str]:
        """Of these names, those that are as the action leaves them."""
        found = {str(row[0]) for row in office.sql(self.state)}
        return names - found if self.gone else names & found


def action_of(pane: str, name: str) -> Action:
    """An action of a pane, by its name."""
    (kind,) = (kind for kind in PANES if kind.name_ == pane)
    (action,) = (action for action in kind.actions if action.name == name)
    return action


DEEDS = (
    Deed(
        pane="vms",
        action="vm.start",
        one="desk-1",
        rows=("desk-0", "desk-2", "lab-0"),
        fit=("desk-0", "lab-0"),
        state=VMS.format("vm_cmd = 'start'"),
    ),
    Deed(
        pane="vms",
        action="vm.stop",
        one="desk-2",
        rows=("desk-4", "desk-6", "desk-1", "desk-5"),
        fit=("desk-4", "desk-6"),
        state=VMS.format("vm_cmd = 'stop' AND NOT restart"),
    ),
    Deed(
        pane="vms",
        action="vm.restart",
        one="desk-2",
        rows=("desk-4", "desk-8", "desk-1"),
        fit=("desk-4", "desk-8"),
        state=VMS.format("vm_cmd = 'stop' AND restart"),
    ),
    Deed(
        pane="vms",
        action="vm.disconnect",
        one="desk-2",
        rows=("desk-8", "desk-4", "desk-1"),
        fit=("desk-8",),
        state=VMS.format("user_cmd = 'abort'"),
    ),
    Deed(
        pane="vms",
        action="vm.block",
        one="desk-1",
        rows=("desk-2", "desk-3", "desk-4"),
        fit=("desk-2", "desk-3"),
        state=VMS.format("blocked AND block_cause = 'admin'"),
    ),
    Deed(
        pane="vms",
        action="vm.unblock",
        one="desk-3",
        rows=("desk-4", "desk-1", "lab-0"),
        fit=("desk-4", "lab-0"),
        state=VMS.format("NOT blocked"),
        prepare=lambda office: office.set_vm("lab-0", "blocked = 1, block_cause = 'image'"),
    ),
    Deed(
        pane="vms",
        action="vm.delete",
        one="desk-1",
        rows=("desk-0", "desk-2", "lab-0"),
        fit=("desk-0", "lab-0"),
        state=VMS.format("true"),
        gone=True,
    ),
    Deed(
        pane="sessions",
        action="vm.stop",
        one="desk-2",
        rows=("desk-8", "lab-0"),
        fit=("desk-8", "lab-0"),
        state=VMS.format("vm_cmd = 'stop'"),
        prepare=lambda office: office.set_vm(
            "lab-0", f"{RUNNING}, user_state = 'connected', l7r_session = 'x'"
        ),
    ),
    Deed(
        pane="sessions",
        action="vm.disconnect",
        one="desk-2",
        rows=("desk-8", "lab-0"),
        fit=("desk-8", "lab-0"),
        state=VMS.format("user_cmd = 'abort'"),
        prepare=lambda office: office.set_vm(
            "lab-0", f"{RUNNING}, user_state = 'connecting', l7r_session = 'x'"
        ),
    ),
    Deed(
        pane="sessions",
        action="vm.block",
        one="desk-2",
        rows=("desk-8", "lab-0"),
        fit=("desk-8",),
        state=VMS.format("blocked AND block_cause = 'admin'"),
        prepare=lambda office: office.set_vm(
            "lab-0",
            f"{RUNNING}, user_state = 'connected', l7r_session = 'x', blocked = 1, block_cause = 'admin'",
        ),
    ),
    Deed(
        pane="users",
        action="user.disable",
        one="alice",
        rows=("bruno", "chiara", "dmitri"),
        fit=("bruno", "chiara"),
        state=USERS.format("NOT enabled"),
    ),
    Deed(
        pane="users",
        action="user.enable",
        one="dmitri",
        rows=("eva", "chiara", "bruno"),
        fit=("eva", "bruno"),
        state=USERS.format("enabled"),
        prepare=lambda office: office.sql("UPDATE users SET enabled = 0 WHERE login = 'bruno'"),
    ),
    Deed(
        pane="users",
        action="user.delete",
        one="chiara",
        rows=("eva", "fritz", "alice"),
        fit=("eva", "fritz"),
        state=USERS.format("true"),
        gone=True,
    ),
    Deed(
        pane="images",
        action="di.block",
        one="lab v1",
        rows=("office v2", "office v3", "office v4", "office"),
        fit=("office v2", "office v3"),
        state=IMAGES.format("d.blocked"),
    ),
    Deed(
        pane="images",
        action="di.unblock",
        one="office v4",
        rows=("lab v2", "office v2", "office v3"),
        fit=("lab v2", "office v3"),
        state=IMAGES.format("NOT d.blocked"),
        prepare=lambda office: office.sql("UPDATE dis SET blocked = 1 WHERE id = 6"),
    ),
    Deed(
        pane="images",
        action="image.delete",
        one="office v3",
        rows=("office v4", "lab v2", "lab v0", "office v1"),
        fit=("office v4", "lab v2"),
        state=IMAGES.format("d.retired IS NOT NULL"),
    ),
    Deed(
        pane="images",
        action="di.undelete",
        one="lab v0",
        rows=("lab v3", "office v1", "lab"),
        fit=("lab v3",),
        state=IMAGES.format("d.retired IS NULL"),
    ),
    Deed(
        pane="images",
        action="di.purge",
        one="lab v0",
        rows=("lab v3", "office v2"),
        fit=("lab v3",),
        state=IMAGES.format("true"),
        gone=True,
    ),
    Deed(
        pane="hosts",
        action="host.block",
        one="node1",
        rows=("spare", "spare2", "spare3"),
        fit=("spare", "spare2"),
        state=HOSTS.format("blocked"),
    ),
    Deed(
        pane="hosts",
        action="host.unblock",
        one="spare3",
        rows=("spare", "node1", "spare2"),
        fit=("spare", "node1"),
        state=HOSTS.format("NOT blocked"),
        prepare=lambda office: office.sql("UPDATE host_runtimes SET blocked = 1 WHERE host_id < 3"),
    ),
    Deed(
        pane="hosts",
        action="host.delete",
        one="spare",
        rows=("spare2", "spare3"),
        fit=("spare2", "spare3"),
        state=HOSTS.format("true"),
        gone=True,
    ),
    Deed(
        pane="settings",
        action="config.delete",
        one="l7r.greeting",
        rows=("vm.network.dns_server", "site.room", "nodename"),
        fit=("vm.network.dns_server", "site.room"),
        state="SELECT key FROM configs",
        gone=True,
    ),
)


@contextmanager
def arriving(office: Office) -> Iterator[int]:
    """An import under way in another process, as its row and its lock tell; the number of its image."""
    paths = Paths(office.settings)
    di_id = 1000
    office.sql(
        "INSERT INTO operations (kind, object, owner, owner_pid, begun, progress, plan) "
        "VALUES ('di add', ?, 'qa:root', ?, '2026-01-02 03:04:05', 0.25, ?)",
        str(di_id),
        os.getpid(),
        json.dumps({"osf_id": 1}),
    )
    lock = paths.image_lock(di_id)  # type: ignore[arg-type]
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield di_id
