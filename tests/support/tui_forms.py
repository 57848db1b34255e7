"""Every action of the TUI that opens a form, as data: what is written, what is wrong, and what it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from appliance.tui.actions import Action
from tests.support.tui_deeds import action_of
from tests.support.tui_office import Office

Answers = dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class FormDeed:
    """One action with a form, on one row or on marked ones.

    `found` is a query; what it finds is `expected` once the form was sent with `answers`, and not before.
    `wrong` are answers that the form must not send, with words about why.
    """

    pane: str
    action: str
    rows: tuple[str, ...] = ()
    answers: Answers
    wrong: Answers = field(default_factory=dict)
    says: str = ""
    found: str
    expected: list[tuple[object, ...]]
    has_twin: bool = True
    """Whether the log has all that the same command needs."""
    prepare: Callable[[Office], object] = field(default=lambda office: None)

    @property
    def what(self) -> Action:
        """The action itself."""
        return action_of(self.pane, self.action)


LIMITS = (
    "SELECT name, vm_expiration_soft IS NOT NULL, "
    "round((julianday(vm_expiration_hard) - julianday('now')) * 24) "
    "FROM vms JOIN vm_runtimes ON vm_id = id WHERE vm_expiration_hard IS NOT NULL ORDER BY name"
)
TAGS = "SELECT name FROM vms WHERE di_tag = 'old' ORDER BY name"
POINTS = "SELECT osf_id, di_id FROM di_tags WHERE tag = '{}' ORDER BY osf_id"

FORMS = (
    FormDeed(
        pane="vms",
        action="vm.expire",
        rows=("desk-2",),
        answers={"expire-soft": "now + 1 hour", "expire-hard": "now + 2 days"},
        wrong={"expire-hard": "now + 2 dayz"},
        says="has 'z' where",
        found=LIMITS,
        expected=[("desk-2", 1, 48.0)],
    ),
    FormDeed(
        pane="vms",
        action="vm.expire",
        rows=("desk-2", "desk-4"),
        answers={"expire-hard": "now + 5 hours"},
        wrong={"expire-soft": "now + 2 hours", "expire-hard": "now + 1 hour"},
        says="comes before the soft limit",
        found=LIMITS,
        expected=[("desk-2", 0, 5.0), ("desk-4", 0, 5.0)],
    ),
    FormDeed(
        pane="vms",
        action="vm.tag",
        rows=("desk-1",),
        answers={"di_tag": "old"},
        found=TAGS,
        expected=[("desk-1",)],
    ),
    FormDeed(
        pane="vms",
        action="vm.tag",
        rows=("desk-0", "desk-1", "desk-2"),
        answers={"di_tag": "old"},
        found=TAGS,
        expected=[("desk-0",), ("desk-1",), ("desk-2",)],
    ),
    FormDeed(
        pane="vms",
        action="vm.add",
        answers={"name": "fresh", "user": "chiara", "osf": "lab"},
        wrong={"name": "fresh", "user": "nobody", "osf": "lab"},
        says="nobody",
        found="SELECT v.name, u.login FROM vms v JOIN users u ON u.id = v.user_id WHERE v.id > 11",
        expected=[("fresh", "chiara")],
    ),
    FormDeed(
        pane="vms",
        action="vm.edit",
        rows=("desk-1",),
        answers={"name": "desk-one"},
        wrong={"name": "desk-2"},
        says="desk-2",
        found="SELECT name FROM vms WHERE id = 2",
        expected=[("desk-one",)],
    ),
    FormDeed(
        pane="vms",
        action="vm.edit",
        rows=("desk-0", "lab-0"),
        answers={"di_tag": "old"},
        found=TAGS,
        expected=[("desk-0",), ("lab-0",)],
    ),
    FormDeed(
        pane="users",
        action="user.add",
        answers={"login": "gina", "password": "open sesame", "password-again": "open sesame"},
        wrong={"login": "gina", "password": "open sesame", "password-again": "open sesamo"},
        says="The two differ",
        found="SELECT login FROM users WHERE id > 6",
        expected=[("gina",)],
        has_twin=False,
    ),
    FormDeed(
        pane="users",
        action="user.password",
        rows=("alice",),
        answers={"password": "open sesame", "password-again": "open sesame"},
        wrong={"password": "open sesame"},
        says="The two differ",
        found="SELECT what, object FROM events ORDER BY id DESC LIMIT 1",
        expected=[("user passwd", "user 1")],
        has_twin=False,
    ),
    FormDeed(
        pane="users",
        action="user.edit",
        rows=("chiara",),
        answers={"login": "clara"},
        wrong={"login": "alice"},
        says="alice",
        found="SELECT login FROM users WHERE id = 3",
        expected=[("clara",)],
    ),
    FormDeed(
        pane="images",
        action="osf.add",
        answers={"name": "kiosk", "memory": "512m"},
        wrong={"name": "kiosk", "memory": "much"},
        says="write a size",
        found="SELECT name, memory FROM osfs WHERE id > 3",
        expected=[("kiosk", 512)],
    ),
    FormDeed(
        pane="images",
        action="di.tag",
        rows=("office v3",),
        answers={"tag": "default", "expire-hard": "now + 3 hours"},
        wrong={"tag": "default", "expire-hard": "3 o'clock and a half"},
        says="has 'o' where",
        found=POINTS.format("default"),
        expected=[(1, 6), (2, 3)],
    ),
    FormDeed(
        pane="images",
        action="di.tag",
        rows=("office v3", "lab v1"),
        answers={"tag": "trial"},
        found=POINTS.format("trial"),
        expected=[(1, 6), (2, 3)],
    ),
    FormDeed(
        pane="images",
        action="di.untag",
        rows=("office v1",),
        answers={"tag": "old"},
        wrong={"tag": "absent"},
        says="absent",
        found=POINTS.format("old"),
        expected=[],
    ),
    FormDeed(
        pane="images",
        action="di.undo",
        rows=("office",),
        answers={"tag": "default"},
        wrong={"tag": "absent"},
        says="absent",
        found=POINTS.format("default"),
        expected=[(1, 1), (2, 3)],
    ),
    FormDeed(
        pane="images",
        action="image.edit",
        rows=("office v3",),
        answers={"notes": "for the new machines"},
        found="SELECT id, notes FROM dis WHERE notes IS NOT NULL",
        expected=[(6, "for the new machines")],
    ),
    FormDeed(
        pane="images",
        action="image.edit",
        rows=("lab",),
        answers={"memory": "2g"},
        wrong={"memory": "-1"},
        says="write a size",
        found="SELECT name, memory FROM osfs ORDER BY id",
        expected=[("office", 1024), ("lab", 2048), ("empty", 1024)],
    ),
    FormDeed(
        pane="images",
        action="di.duplicate",
        rows=("office v3",),
        answers={"osf": "empty"},
        wrong={"osf": "absent"},
        says="absent",
        found="SELECT osf_id, version FROM dis WHERE osf_id = 3",
        expected=[(3, "v3")],
    ),
    FormDeed(
        pane="hosts",
        action="host.add",
        answers={"name": "node9", "address": "node9.example"},
        wrong={"name": "spare", "address": "node9.example"},
        says="spare",
        found="SELECT name, address FROM hosts WHERE id > 4",
        expected=[("node9", "node9.example")],
    ),
    FormDeed(
        pane="settings",
        action="config.set",
        rows=("l7r.greeting",),
        answers={"l7r.greeting": "welcome"},
        found="SELECT value FROM configs WHERE key = 'l7r.greeting'",
        expected=[("welcome",)],
    ),
)
