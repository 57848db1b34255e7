"""The nodes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, ClassVar

from textual.binding import BindingType

from appliance.model import Host, HostState
from appliance.tui import facts
from appliance.tui.columns import Cell, Column, Scene
from appliance.tui.offers.installation import HOST_ACTIONS
from appliance.tui.panes.base import bindings
from appliance.tui.panes.fetched import FetchedPane
from appliance.tui.view import amount, clock
from appliance.tui.widgets.details import Section

STYLES = {
    HostState.RUNNING: "good",
    HostState.STARTING: "busy",
    HostState.STOPPING: "busy",
    HostState.STOPPED: "bad",
    HostState.LOST: "bad",
}


SILENT = timedelta(minutes=5)
"""Daemons give signs of life every two minutes."""


def seen(host: Host, scene: Scene) -> Cell:
    """When its daemon gave a sign of life."""
    if host.ok_ts is None:
        return "never", "dim"
    passed = (scene.now - host.ok_ts).total_seconds()
    return f"{clock(passed)} ago", "plain" if passed < 60 else "warn"


def is_silent(host: Host, scene: Scene) -> bool:
    """Whether its daemon has not said that it ends, and nothing tells that it lives."""
    if host.state in (HostState.STOPPED, HostState.LOST):
        return False
    return host.name == scene.silent_node or host.ok_ts is None or scene.now - host.ok_ts > SILENT


def state(host: Host, scene: Scene) -> Cell:
    """What its daemon said last, and what an administrator has."""
    signs = scene.glyphs
    if is_silent(host, scene):
        return f"{signs.failed} silent", "bad"
    if host.blocked:
        return f"{signs.blocked} {host.state}, blocked", "bad"
    return host.state, STYLES[host.state]


COLUMNS: tuple[Column[Host], ...] = (
    Column(
        key="name",
        title="Host",
        cell=lambda host, scene: (host.name, "strong"),
        sort=lambda host: host.name.casefold(),
        least=12,
        most=40,
    ),
    Column(
        key="state",
        title="State",
        cell=state,
        sort=lambda host: host.state,
        least=10,
        most=20,
    ),
    Column(
        key="address",
        title="Address",
        cell=lambda host, scene: (host.address, "plain"),
        sort=lambda host: host.address,
        least=10,
        most=24,
    ),
    Column(
        key="seen",
        title="Seen",
        cell=seen,
        sort=lambda host: str(host.ok_ts),
        least=12,
        most=14,
    ),
    Column(
        key="vms",
        title="VMs",
        cell=lambda host, scene: (f"{host.vms:,}", "plain"),
        sort=lambda host: host.vms,
        least=6,
        most=7,
        right=True,
    ),
    Column(
        key="ram",
        title="RAM",
        cell=lambda host, scene: (amount(host.usable_ram * 1e6) if host.usable_ram else "", "dim"),
        sort=lambda host: host.usable_ram or 0,
        least=7,
        most=8,
        rank=2,
        right=True,
    ),
    Column(
        key="cpu",
        title="CPU",
        cell=lambda host, scene: (f"{host.usable_cpu:g}" if host.usable_cpu else "", "dim"),
        sort=lambda host: host.usable_cpu or 0,
        least=5,
        most=7,
        rank=2,
        right=True,
    ),
)


class HostsPane(FetchedPane[Host]):
    """All nodes."""

    name_ = "hosts"
    title = "Hosts"
    short = "Hosts"
    help_ = "The nodes of this installation, whether their daemons live, and how many desktops they have."
    noun = "host"
    nouns = frozenset({"host", "vm"})
    columns: ClassVar[tuple[Column[Any], ...]] = COLUMNS
    actions = HOST_ACTIONS
    BINDINGS: ClassVar[list[BindingType]] = bindings(HOST_ACTIONS)

    async def fetch(self) -> dict[int, Host]:
        """All nodes."""
        return {host.id: host for host in await self.site.database.hosts()}

    def tick(self) -> None:
        """Signs of life are no changes that a look reports, so look every second while somebody does."""
        self.read_anew()
        super().tick()

    def noun_of(self, row: Any) -> str:
        """Hosts all."""
        return "host"

    def sections(self, record: Host) -> list[Section]:
        """The node, and what it uses if it is this one."""
        lines: list[tuple[str, Cell]] = [
            ("State", (record.state, STYLES[record.state])),
            ("Address", (record.address, "plain")),
            ("Serves", (", ".join(self._roles(record)), "plain")),
            ("Daemon", self._daemon(record)),
            ("Desktops", (f"{record.vms:,}", "plain")),
            ("Id", (str(record.id), "dim")),
        ]
        found = [Section("Node", lines)]
        if (use := self.site.host) is not None and record.name == self.site.node:
            memory = f"{amount(use.memory_bytes)} of {amount(use.memory_total_bytes)}"
            now: list[tuple[str, Cell]] = [
                ("CPU", (f"{use.cpu:.0%} of {use.cores} cores" if use.cpu is not None else "", "plain")),
                ("Memory", (memory, "plain")),
                ("Load", (f"{use.load:.2f}", "plain")),
            ]
            if use.pool_bytes is not None and use.pool_total_bytes:
                now.append(("Pool", (f"{amount(use.pool_bytes)} of {amount(use.pool_total_bytes)}", "plain")))
            found.append(Section("Uses now", now))
        return found

    def _daemon(self, host: Host) -> Cell:
        if is_silent(host, self.site.scene()):
            return f"gives no sign of life; was pid {host.pid}", "bad"
        return f"pid {host.pid}" if host.pid else "none", "plain"

    @staticmethod
    def _roles(host: Host) -> list[str]:
        roles = {"clients": host.frontend, "desktops": host.backend}
        return [role for role, has in roles.items() if has] or ["nothing"]

    async def more(self, record: Host) -> list[Section]:
        """Its properties and history."""
        return [
            facts.properties(await self.site.database.properties("host", record.id)),
            facts.history(await self.site.database.history("host", record.id)),
        ]
