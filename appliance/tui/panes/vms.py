"""The desktops."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from textual.binding import Binding, BindingType

from appliance import console_log
from appliance.model import VmId
from appliance.storage.live import Delta, VmLine
from appliance.storage.paths import Paths
from appliance.threads import in_thread
from appliance.tui import facts
from appliance.tui.actions import Action
from appliance.tui.columns import Column
from appliance.tui.offers.vms import SESSION_ACTIONS, VM_ACTIONS
from appliance.tui.panes.base import TablePane, bindings
from appliance.tui.view import VM_COLUMNS, texts
from appliance.tui.widgets.details import Section

LOG_LINES = 12


class VmsPane(TablePane[VmLine]):
    """All desktops, live."""

    name_ = "vms"
    title = "VMs"
    short = "VMs"
    help_ = (
        "Every desktop with its state, who is at it, the image it runs and the one it would boot next, "
        "and how long until it is asked (soft) or made (hard) to move there."
    )
    noun = "vm"
    columns: ClassVar[tuple[Column[Any], ...]] = VM_COLUMNS
    actions: ClassVar[tuple[Action, ...]] = VM_ACTIONS
    empty = "There are no desktops yet: a adds one."
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("w", "soonest", "Soonest deadline first", show=False),
        *bindings(VM_ACTIONS),
    ]

    def take(self, delta: Delta) -> None:
        """Show what changed."""
        if delta.whole:
            self.replace(self.all_records())
        elif delta.vms or delta.gone:
            self.apply(delta.vms, delta.gone)

    def all_records(self) -> Mapping[int, VmLine]:
        """Every desktop."""
        return self.site.tally.vms

    def searched(self, record: VmLine) -> str:
        """Names, addresses and images."""
        return texts(record)

    def noun_of(self, row: Any) -> str:
        """Desktops all."""
        return "vm"

    def action_soonest(self) -> None:
        """Put those first that are moved soonest."""
        self.table.sort_by("hard")

    def sections(self, record: VmLine) -> list[Section]:
        """What its row tells."""
        return facts.of_vm(record, self.site.scene())

    async def more(self, record: VmLine) -> list[Section]:
        """Its history, its properties and the end of its console."""
        path = Paths(self.site.settings).console_capture(VmId(record.id))
        parts = (path.with_name(f"{path.name}.1"), path)  # the newest is empty after each turn of the ring
        shown = await in_thread(console_log.tail, parts, LOG_LINES)
        properties = await self.site.database.properties("vm", record.id)
        history = await self.site.database.history("vm", record.id)
        return [
            facts.history(history),
            facts.properties(properties),
            facts.log("Console, last lines", shown.splitlines()),
        ]


class SessionsPane(VmsPane):
    """The desktops at which somebody is."""

    name_ = "sessions"
    title = "Sessions"
    short = "Sess"
    help_ = "Who is connected, to which desktop, from where and since when."
    empty = "Nobody is connected."
    columns: ClassVar[tuple[Column[Any], ...]] = facts.SESSION_COLUMNS
    sort: ClassVar[str] = "person"
    actions = SESSION_ACTIONS

    def take(self, delta: Delta) -> None:
        """Show who came and went."""
        if delta.whole:
            self.replace(self.all_records())
            return
        present = {vm_id: vm for vm_id, vm in delta.vms.items() if vm.has_user}
        left = frozenset(delta.gone | (delta.vms.keys() - present.keys()))
        if present or left:
            self.apply(present, left)

    def all_records(self) -> Mapping[int, VmLine]:
        """Those with a session."""
        return {vm_id: vm for vm_id, vm in self.site.tally.vms.items() if vm.has_user}
