"""How desktops and what belongs to them read on a screen: words, glyphs and colours of cells. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from itertools import cycle

from appliance.model import VmState
from appliance.storage.live import VmLine
from appliance.tui.columns import Cell, Column, Scene

LATE = "9"
"""Sorts after every time."""
STATE_STYLES = {
    VmState.STOPPED: "dim",
    VmState.STARTING: "busy",
    VmState.RUNNING: "good",
    VmState.STOPPING: "busy",
    VmState.ZOMBIE: "bad",
    VmState.DEBUGGING: "warn",
}
STATE_ORDER = {
    VmState.ZOMBIE: 0,
    VmState.STARTING: 1,
    VmState.STOPPING: 2,
    VmState.DEBUGGING: 3,
    VmState.RUNNING: 4,
    VmState.STOPPED: 5,
}
STEPS = {
    "starting/queued": "queue",
    "starting/cloning": "clone",
    "starting/launching": "launch",
    "starting/awaiting-vma": "boot",
    "starting/clearing": "clear",
    "starting/waiting": "wait",
    "stopping/shutting-down": "end",
    "stopping/cleaning": "clean",
}
"""The sub-steps of a desktop on its way, in one word."""
DIGITS = re.compile(r"([0-9]+)")
HOUR_S = 3600
DAY_S = 86_400
MIB = 2**20


def instant(stored: str | None) -> datetime | None:
    """A time as the database holds it, as an aware instant."""
    return None if stored is None else datetime.fromisoformat(stored).replace(tzinfo=UTC)


def seconds_until(stored: str, now: datetime) -> float:
    """How long until a stored time; less than nothing: it is over."""
    return (datetime.fromisoformat(stored).replace(tzinfo=UTC) - now).total_seconds()


def clock(seconds: float) -> str:
    """A span that ticks: `4d 23h` from a day on, else `23:59:59`."""
    whole = max(0, int(seconds))
    if whole >= DAY_S:
        return f"{whole // DAY_S}d {whole % DAY_S // HOUR_S:02}h"
    return f"{whole // HOUR_S:02}:{whole // 60 % 60:02}:{whole % 60:02}"


def countdown(stored: str | None, now: datetime, *, hard: bool) -> Cell:
    """How long until a limit, redder as it comes nearer."""
    if stored is None:
        return "", "plain"
    left = seconds_until(stored, now)
    if left <= 0:
        return "due", "bad" if hard else "warn"
    if hard:
        style = "bad" if left < HOUR_S else "warn" if left < DAY_S else "plain"
    else:
        style = "warn" if left < HOUR_S else "plain"
    return clock(left), style


def amount(size: float) -> str:
    """Bytes, in the unit that fits: `512M`, `1.5G`."""
    mib = size / MIB
    if mib < 1000:
        return f"{mib:.0f}M"
    gib = mib / 1024
    return f"{gib:.1f}G" if gib < 100 else f"{gib:.0f}G"


def state(vm: VmLine, scene: Scene) -> Cell:
    """Glyph, word and colour of what a desktop does, with its sub-step while that changes."""
    signs = scene.glyphs
    word, style, sign = vm.state, STATE_STYLES.get(VmState(vm.state), "plain"), signs.states[vm.state]
    if vm.cmd == "start":
        return f"{sign} start wished", "busy"
    if vm.cmd == "stop":
        return f"{sign} {'restart' if vm.restart else 'stop'} wished", "busy"
    if vm.waits_for is not None:
        return f"{sign} waits: {vm.waits_for}", "warn"
    if vm.failure is not None and vm.state == VmState.STOPPED:
        return f"{signs.failed} failed", "bad"
    if step := STEPS.get(vm.phase):
        word = f"{'restarting' if vm.restart and vm.state == VmState.STOPPING else word}: {step}"
    return f"{sign} {word}", style


def user_state(vm: VmLine, scene: Scene) -> Cell:
    """Who is at a desktop."""
    if vm.user_state == "disconnected":
        return "", "plain"
    word = "leaving" if vm.user_cmd else vm.user_state
    return f"{scene.glyphs.person} {word}", "busy" if vm.user_cmd or word == "connecting" else "info"


def outdated(vm: VmLine, scene: Scene) -> Cell:
    """The badge of a desktop that runs an old image."""
    return (f"{scene.glyphs.outdated} old", "warn") if vm.outdated else ("", "plain")


def next_image(vm: VmLine) -> Cell:
    """What the next start boots."""
    if vm.next_di is None:
        return "no image", "bad"
    return vm.next_di, "bad" if vm.next_blocked else "warn" if vm.outdated else "dim"


def blocked(vm: VmLine, scene: Scene) -> Cell:
    """Whether users are kept out, and why."""
    if not vm.blocked:
        return "", "plain"
    why = "by hand" if vm.block_cause == "admin" else "bad image"
    return f"{scene.glyphs.blocked} {why}", "bad"


def up_time(vm: VmLine, now: datetime) -> str:
    """How long a desktop has been running."""
    if vm.state != VmState.RUNNING or vm.state_ts is None:
        return ""
    return clock(-seconds_until(vm.state_ts, now))


def cpu(vm: VmLine, scene: Scene) -> Cell:
    """Processor use in percent of one core."""
    used, _ = scene.usage.get(vm.id, (None, 0))
    if used is None or not vm.runs:
        return "", "plain"
    return f"{used:.0%}", "warn" if used >= 0.9 else "plain"


def memory(vm: VmLine, scene: Scene) -> Cell:
    """Memory in use."""
    if vm.id not in scene.usage or not vm.runs:
        return "", "plain"
    return amount(scene.usage[vm.id][1]), "plain"


def failure_style(vm: VmLine) -> str:
    """How the name of a desktop is drawn."""
    if vm.state == VmState.ZOMBIE or vm.failure is not None:
        return "bad"
    return "strong" if vm.runs else "plain"


VM_COLUMNS: tuple[Column[VmLine], ...] = (
    Column(
        key="name",
        title="Name",
        cell=lambda vm, scene: (vm.name, failure_style(vm)),
        sort=lambda vm: natural(vm.name),
        least=13,
        most=32,
    ),
    Column(
        key="user",
        title="User",
        cell=lambda vm, scene: (vm.user, "plain"),
        sort=lambda vm: natural(vm.user),
        least=7,
        most=20,
        rank=1,
    ),
    Column(
        key="state",
        title="State",
        cell=state,
        sort=lambda vm: (STATE_ORDER[VmState(vm.state)], vm.failure is None, vm.phase),
        least=18,
        most=22,
    ),
    Column(
        key="session",
        title="Session",
        cell=user_state,
        sort=lambda vm: (vm.user_state == "disconnected", vm.user_state),
        least=12,
        most=14,
        rank=2,
    ),
    Column(
        key="ip",
        title="Address",
        cell=lambda vm, scene: (vm.ip or "", "dim"),
        sort=lambda vm: tuple(map(int, vm.ip.split("."))) if vm.ip else (),
        least=12,
        most=15,
        rank=7,
    ),
    Column(
        key="osf",
        title="OSF",
        cell=lambda vm, scene: (vm.osf, "plain"),
        sort=lambda vm: vm.osf.casefold(),
        least=6,
        most=16,
        rank=6,
    ),
    Column(
        key="tag",
        title="Tag",
        cell=lambda vm, scene: (vm.tag, "dim"),
        sort=lambda vm: vm.tag,
        least=7,
        most=14,
        rank=9,
    ),
    Column(
        key="di",
        title="Running",
        cell=lambda vm, scene: (vm.di or "", "plain"),
        sort=lambda vm: vm.di or "",
        least=8,
        most=16,
        ends=True,
        rank=5,
    ),
    Column(
        key="next_di",
        title="Next",
        cell=lambda vm, scene: next_image(vm),
        sort=lambda vm: vm.next_di or "",
        least=8,
        most=16,
        ends=True,
        rank=6,
    ),
    Column(
        key="outdated",
        title="Age",
        cell=outdated,
        sort=lambda vm: not vm.outdated,
        least=5,
        most=5,
        rank=3,
    ),
    Column(
        key="soft",
        title="Soft",
        cell=lambda vm, scene: countdown(vm.soft, scene.now, hard=False),
        sort=lambda vm: vm.soft or LATE,
        least=8,
        most=8,
        rank=3,
        right=True,
    ),
    Column(
        key="hard",
        title="Hard",
        cell=lambda vm, scene: countdown(vm.hard, scene.now, hard=True),
        sort=lambda vm: vm.hard or LATE,
        least=8,
        most=8,
        rank=2,
        right=True,
    ),
    Column(key="cpu", title="CPU", cell=cpu, least=4, most=5, rank=4, right=True),
    Column(key="memory", title="Mem", cell=memory, least=5, most=6, rank=4, right=True),
    Column(
        key="up",
        title="Up",
        cell=lambda vm, scene: (up_time(vm, scene.now), "dim"),
        sort=lambda vm: (vm.state != VmState.RUNNING, vm.state_ts or LATE),
        least=8,
        most=8,
        rank=8,
        right=True,
    ),
    Column(
        key="blocked",
        title="Blocked",
        cell=blocked,
        sort=lambda vm: (not vm.blocked, vm.block_cause or ""),
        least=9,
        most=13,
        rank=4,
    ),
    Column(
        key="host",
        title="Host",
        cell=lambda vm, scene: (vm.host or "", "dim"),
        sort=lambda vm: vm.host or "",
        least=6,
        most=16,
        rank=10,
        optional=True,
    ),
    Column(
        key="backend",
        title="Kind",
        cell=lambda vm, scene: (vm.backend, "dim"),
        sort=lambda vm: vm.backend,
        least=4,
        most=7,
        rank=11,
        optional=True,
    ),
    Column(
        key="id",
        title="Id",
        cell=lambda vm, scene: (str(vm.id), "dim"),
        sort=lambda vm: vm.id,
        least=4,
        most=7,
        rank=12,
        right=True,
        optional=True,
    ),
    Column(
        key="user_ip",
        title="From",
        cell=lambda vm, scene: (vm.user_ip or "", "dim"),
        sort=lambda vm: vm.user_ip or "",
        least=9,
        most=24,
        rank=12,
        optional=True,
    ),
)


def natural(text: str) -> tuple[str | int, ...]:
    """By what names are put in order, so that `desk-2` comes before `desk-10`."""
    parts = DIGITS.split(text.casefold())
    return tuple(int(part) if odd else part for odd, part in zip(cycle((False, True)), parts, strict=False))


def texts(vm: VmLine) -> str:
    """What plain search looks through."""
    parts = [vm.name, vm.user, vm.real_user, vm.ip, vm.osf, vm.tag, vm.di, vm.next_di, vm.host, vm.state]
    if vm.failure is not None:
        parts.append("failed")
    if vm.has_user:
        parts.append(vm.user_state)
    if vm.outdated:
        parts.append("outdated")
    return "\0".join(part for part in parts if part).casefold()
