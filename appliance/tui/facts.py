"""What details and smaller tables tell of records. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from appliance.config import is_secret
from appliance.model import LogEntry
from appliance.storage.live import VmLine
from appliance.tui import view
from appliance.tui.columns import Cell, Column, Scene
from appliance.tui.view import clock, instant, seconds_until
from appliance.tui.widgets.details import Section

HISTORY = 12
HIDDEN = "***"
"""In place of a value that nobody is to see."""


def local(at: datetime | None) -> str:
    """A time of day on a date, where we are."""
    return "" if at is None else at.astimezone().strftime("%a %d %b %H:%M")


def ago(stored: str | None, now: datetime) -> str:
    """How long something is past."""
    return "" if stored is None else f"{clock(-seconds_until(stored, now))} ago"


def limit(stored: str | None, now: datetime, *, hard: bool) -> Cell:
    """A limit: when, and in how long."""
    if stored is None:
        return "none", "dim"
    left, style = view.countdown(stored, now, hard=hard)
    return f"{local(instant(stored))}, {'now' if left == 'due' else f'in {left}'}", style


def of_vm(vm: VmLine, scene: Scene) -> list[Section]:
    """What the row of a desktop tells."""
    state = [("State", view.state(vm, scene))]
    if vm.state_ts is not None:
        state.append(("Since", (f"{local(instant(vm.state_ts))}, {ago(vm.state_ts, scene.now)}", "plain")))
    if vm.started_by and vm.runs:
        state.append(("Started by", (vm.started_by, "plain")))
    if vm.failure:
        state += [("Failure", (vm.failure, "bad")), ("Failures", (f"{vm.failures} in a row", "bad"))]
    if vm.waits_for:
        state.append(("Waits for", (vm.waits_for, "warn")))
    if vm.blocked:
        state.append(("Blocked", view.blocked(vm, scene)))
    if vm.id in scene.usage and vm.runs:
        used = f"{view.cpu(vm, scene)[0] or '-'} of a core, {view.memory(vm, scene)[0]}"
        state.append(("Uses", (used, "plain")))
    people = [("Owner", (vm.user, "plain"))]
    if vm.has_user:
        people.append(("Session", view.user_state(vm, scene)))
        if vm.real_user and vm.real_user != vm.user:
            people.append(("Person", (vm.real_user, "plain")))
        people.append(("From", (vm.user_ip or "unknown", "plain")))
        if vm.user_state_ts:
            people.append(("Since", (ago(vm.user_state_ts, scene.now), "plain")))
    image: list[tuple[str, Cell]] = [
        ("OSF", (f"{vm.osf} ({vm.backend})", "plain")),
        ("Tag", (vm.tag, "plain")),
        ("Runs", (vm.di or "nothing", "plain" if vm.di else "dim")),
        ("Boots next", view.next_image(vm)),
    ]
    if vm.outdated:
        image.append(("Outdated", ("runs an old image", "warn")))
    if vm.soft or vm.hard:
        image.append(("Asked from", limit(vm.soft, scene.now, hard=False)))
        image.append(("Moved at", limit(vm.hard, scene.now, hard=True)))
        if vm.asked:
            image.append(("Asked", (f"{vm.asked} times, put off {vm.postponed} times", "plain")))
    where = [("Address", (vm.ip or "none", "plain")), ("Host", (vm.host or "none", "plain"))]
    where.append(("Id", (str(vm.id), "dim")))
    return [
        Section("Now", state),
        Section("People", people),
        Section("Image", image),
        Section("Place", where),
    ]


def history(events: Sequence[LogEntry]) -> Section:
    """What happened to an object, the newest first."""
    lines: list[tuple[str, Cell]] = []
    for event in events[:HISTORY]:
        what = event.what.partition(" ")[2] or event.what
        change = " → ".join(part for part in (event.was, event.now) if part)
        lines.append((local(event.at)[4:], (f"{what} {change}".strip() + f" ({event.by})", "plain")))
    return Section("History", lines or [("", ("nothing yet", "dim"))])


def properties(found: Mapping[str, str]) -> Section:
    """The properties of an object; of those that sound secret, only that they are there."""
    lines: list[tuple[str, Cell]] = [
        (key, (HIDDEN if is_secret(key) else value, "plain")) for key, value in sorted(found.items())
    ]
    return Section("Properties", lines or [("", ("none", "dim"))])


def log(heading: str, lines: Sequence[str]) -> Section:
    """Lines of a log."""
    return Section(heading, [("", (line, "dim")) for line in lines] or [("", ("nothing yet", "dim"))])


SESSION_COLUMNS: tuple[Column[VmLine], ...] = (
    Column(
        key="person",
        title="Person",
        cell=lambda vm, scene: (vm.real_user or vm.user, "strong"),
        sort=lambda vm: (vm.real_user or vm.user).casefold(),
        least=10,
        most=24,
    ),
    Column(
        key="session",
        title="Session",
        cell=view.user_state,
        sort=lambda vm: vm.user_state,
        least=12,
        most=14,
    ),
    Column(
        key="name",
        title="Desktop",
        cell=lambda vm, scene: (vm.name, "plain"),
        sort=lambda vm: view.natural(vm.name),
        least=12,
        most=32,
    ),
    Column(
        key="from",
        title="From",
        cell=lambda vm, scene: (vm.user_ip or "", "plain"),
        sort=lambda vm: vm.user_ip or "",
        least=10,
        most=39,
        rank=1,
    ),
    Column(
        key="since",
        title="For",
        cell=lambda vm, scene: (
            clock(-seconds_until(vm.user_state_ts, scene.now)) if vm.user_state_ts else "",
            "plain",
        ),
        sort=lambda vm: vm.user_state_ts or view.LATE,
        least=8,
        most=8,
        right=True,
    ),
    Column(
        key="state",
        title="State",
        cell=view.state,
        sort=lambda vm: vm.state,
        least=13,
        most=22,
        rank=2,
    ),
    Column(
        key="di",
        title="Running",
        cell=lambda vm, scene: (vm.di or "", "warn" if vm.outdated else "plain"),
        sort=lambda vm: vm.di or "",
        least=8,
        most=16,
        ends=True,
        rank=3,
    ),
    Column(
        key="hard",
        title="Hard",
        cell=lambda vm, scene: view.countdown(vm.hard, scene.now, hard=True),
        sort=lambda vm: vm.hard or view.LATE,
        least=8,
        most=8,
        rank=2,
        right=True,
    ),
    Column(key="cpu", title="CPU", cell=view.cpu, least=4, most=5, rank=4, right=True),
    Column(key="memory", title="Mem", cell=view.memory, least=5, most=6, rank=4, right=True),
)
