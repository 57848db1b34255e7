"""The owners of desktops."""

from __future__ import annotations

from typing import Any, ClassVar

from textual.binding import BindingType

from appliance.storage.live import UserLine
from appliance.tui import facts
from appliance.tui.actions import count
from appliance.tui.columns import Column
from appliance.tui.offers.users import USER_ACTIONS
from appliance.tui.panes.base import bindings
from appliance.tui.panes.fetched import FetchedPane
from appliance.tui.view import natural, state
from appliance.tui.widgets.details import Section

COLUMNS: tuple[Column[UserLine], ...] = (
    Column(
        key="name",
        title="Login",
        cell=lambda user, scene: (user.login, "strong" if user.connected else "plain"),
        sort=lambda user: natural(user.login),
        least=12,
        most=40,
    ),
    Column(
        key="enabled",
        title="Login is",
        cell=lambda user, scene: (
            ("open", "good") if user.enabled else (f"{scene.glyphs.blocked} closed", "bad")
        ),
        sort=lambda user: user.enabled,
        least=9,
        most=10,
    ),
    Column(
        key="sess",
        title="Sess",
        cell=lambda user, scene: (f"{user.connected}/{user.vms}", "info" if user.connected else "dim"),
        sort=lambda user: (user.connected, user.vms),
        least=7,
        most=9,
        right=True,
    ),
    Column(
        key="vms",
        title="VMs",
        cell=lambda user, scene: (str(user.vms), "plain"),
        sort=lambda user: user.vms,
        least=5,
        most=6,
        right=True,
    ),
    Column(
        key="running",
        title="Running",
        cell=lambda user, scene: (str(user.running), "good" if user.running else "dim"),
        sort=lambda user: user.running,
        least=8,
        most=8,
        right=True,
    ),
    Column(
        key="uid",
        title="Uid",
        cell=lambda user, scene: (str(user.uid), "dim"),
        sort=lambda user: user.uid,
        least=6,
        most=8,
        rank=2,
        right=True,
    ),
    Column(
        key="id",
        title="Id",
        cell=lambda user, scene: (str(user.id), "dim"),
        sort=lambda user: user.id,
        least=4,
        most=7,
        rank=3,
        right=True,
    ),
)


class UsersPane(FetchedPane[UserLine]):
    """All users."""

    name_ = "users"
    title = "Users"
    short = "Users"
    help_ = "Who owns desktops: whether they may log in, and at how many of their desktops they are."
    noun = "user"
    nouns = frozenset({"user", "vm"})
    columns: ClassVar[tuple[Column[Any], ...]] = COLUMNS
    actions = USER_ACTIONS
    BINDINGS: ClassVar[list[BindingType]] = bindings(USER_ACTIONS)
    empty = "There are no users yet: a adds one."

    async def fetch(self) -> dict[int, UserLine]:
        """All users, with what their desktops do."""
        return {user.id: user for user in await self.site.read(lambda reader: reader.users())}

    def name_of(self, row: Any) -> object:
        """A login."""
        return row.login

    def noun_of(self, row: Any) -> str:
        """Users all."""
        return "user"

    def sections(self, record: UserLine) -> list[Section]:
        """The account and its desktops."""
        owned = [vm for vm in self.site.tally.vms.values() if vm.user == record.login]
        scene = self.site.scene()
        return [
            Section(
                "Account",
                [
                    ("Login is", ("open", "good") if record.enabled else ("closed", "bad")),
                    ("Uid", (str(record.uid), "plain")),
                    ("Id", (str(record.id), "dim")),
                ],
            ),
            Section(
                count(len(owned), "desktop").capitalize(),
                [(vm.name[:12], state(vm, scene)) for vm in owned[:20]],
            ),
        ]

    async def more(self, record: UserLine) -> list[Section]:
        """Their properties and history."""
        return [
            facts.properties(await self.site.database.properties("user", record.id)),
            facts.history(await self.site.database.history("user", record.id)),
        ]
