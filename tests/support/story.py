"""The story that ageing is for: from now on this image; ask people; by Saturday everybody is on it.

A whole appliance with real containers and real NX sessions, under a calendar that the story moves. Of those
who are connected the first restarts when asked, the second puts it off, the last leaves, and all others
ignore the question. The desktops at which nobody is move by themselves, but for one that is stopped meanwhile
and one that follows another tag.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from scripts.trial import Trial, end
from tests.support.clicking import Place, click, places
from tests.support.desktop import Desk, Screen, leftovers
from tests.support.images import Variants
from tests.support.inside import root
from tests.support.moved import DAYS

POLICY = ("expire-idle=yes", "expire-on-disconnect=yes", "postpone=2x2h", "expire-warn=15m")
MARKER = "opt/version"
OLD, NEW = "old", "new"
BYSTANDER = "bystander"
HOUR, MINUTE, SECOND = timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1)
MOMENT_S = 2.5
"""How long nothing must happen where nothing is to happen: several looks of the daemon."""
PATIENCE_S = 240


@dataclass
class Story:
    """The appliance, its people and their desktops, and what day it is there."""

    trial: Trial
    desk: Desk
    days: Path
    connected: list[str]
    idle: list[str]
    ahead: timedelta = timedelta(0)
    screens: dict[str, Screen] = field(default_factory=dict)

    @property
    def restarts(self) -> str:
        """The desktop whose user restarts when asked."""
        return self.connected[0]

    @property
    def puts_off(self) -> str:
        """The desktop whose user says *later* as often as that is possible."""
        return self.connected[1]

    @property
    def ignore(self) -> list[str]:
        """The desktops whose users do not answer."""
        return self.connected[2:-1]

    @property
    def leaves(self) -> str:
        """The desktop whose user goes home."""
        return self.connected[-1]

    @property
    def sleeps(self) -> str:
        """The desktop that is stopped while the tag moves."""
        return self.idle[-1]

    @property
    def everybody(self) -> list[str]:
        """All who are to run the new image in the end."""
        return [*self.connected, *self.idle]

    # -- the calendar

    def now(self) -> datetime:
        """What the daemon takes for now."""
        return datetime.now(UTC) + self.ahead

    def move_to(self, instant: datetime) -> None:
        """Let it be then; time goes on from there."""
        self.ahead = instant - datetime.now(UTC)
        fresh = self.days.with_suffix(".new")
        fresh.write_text(str(self.ahead.total_seconds()))
        fresh.rename(self.days)

    # -- what is

    def row(self, vm: str) -> dict[str, Any]:
        """A desktop as `qa vm list` has it."""
        return self.trial.vm(vm)

    def runs(self, vm: str) -> str:
        """What the running root of a desktop says of its image."""
        return (root(self.desk.init(vm)) / MARKER).read_text().strip()

    def events(self, *what: str) -> list[dict[str, Any]]:
        """What was done, of these kinds, as `qa events` tells it."""
        found = json.loads(self.trial.qa("events", "limit=all", "-o", "json").stdout)
        return [event for event in found if event["what"] in what]

    def by_desktop(self, *what: str) -> dict[str, list[dict[str, Any]]]:
        """The same of each desktop."""
        names = {f"vm {row['id']}": str(row["name"]) for row in self.trial.listed("vm")}
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in names.values()}
        for event in self.events(*what):
            found[names[event["object"]]].append(event)
        return found

    def of(self, vm: str, *what: str) -> list[dict[str, Any]]:
        """The same of one desktop."""
        return self.by_desktop(*what)[vm]

    def asks(self) -> dict[str, int]:
        """How often each desktop was asked; those never asked are left out."""
        asked = self.by_desktop("expire ask")
        return {vm: len(events) for vm, events in asked.items() if events}

    def attempts(self) -> dict[str, int]:
        """How often each desktop was started."""
        counted = json.loads(self.trial.qa("vm", "counters", "-o", "json").stdout)
        return {row["name"]: row["run_attempts"] for row in counted}

    def until(self, what: str, condition: Callable[[], object]) -> None:
        """Wait until something is so."""
        self.trial.wait_for(what, condition, PATIENCE_S)

    def until_on(self, di_id: int, vms: Sequence[str]) -> None:
        """Wait until these desktops run an image."""

        def all_there() -> bool:
            rows = {row["name"]: row for row in self.trial.listed("vm")}
            return all((rows[vm]["vm_state"], rows[vm]["current_di_id"]) == ("running", di_id) for vm in vms)

        self.until(f"DI {di_id} on {', '.join(vms)}", all_there)

    def dialogs(self, vm: str) -> int:
        """How many windows ask in a desktop."""
        group = f"lxc.payload.{self.desk.guest(vm)}"
        number = 0
        for process in Path("/proc").iterdir():
            with suppress(OSError):
                if process.name.isdigit() and group in (process / "cgroup").read_text():
                    words = (process / "cmdline").read_bytes().split(b"\0")
                    # the one that was started as root waits for nobody: it became the user's
                    number += any(word.endswith(b"/notifier") for word in words[:3])
        return number

    # -- what people see and do

    def sees(self, vm: str, *words: str) -> dict[str, Place]:
        """Wait until all these words stand on somebody's display; where."""
        screen = self.screens[vm]
        found: dict[str, Place] = {}

        def readable() -> bool:
            screen.text()
            found.clear()
            found.update(places(screen.log.with_suffix(".png")))
            return set(words) <= found.keys()

        try:
            self.until(f"{words} on the display of {vm}", readable)
        except Exception as exc:
            raise AssertionError(f"{exc}\nread: {sorted(found)}\nwindows: {screen.windows()}") from exc
        return found

    def press(self, vm: str, word: str) -> None:
        """Somebody reads the question and presses one of its buttons."""
        click(self.screens[vm].display.name, self.sees(vm, "Restart", "now", "Later")[word])

    def desktop_is_there(self, vm: str) -> None:
        """Somebody's display shows the desktop."""
        self.screens[vm].appears(owner(vm), vm)


def owner(vm: str) -> str:
    """Whose desktop it is."""
    return f"user{vm.removeprefix('desk')}"


@contextmanager
def story(directory: Path, variants: Variants, *, desktops: int, connected: int) -> Iterator[Story]:
    """People at work on the old image; the new one is there, and nobody follows it."""
    with Trial(directory) as trial:
        trial.lay_out(pool_size="12G")
        installation = trial.marker.read_text()
        days = trial.directory / "days.log"
        trial.environment[DAYS] = str(days)
        trial.around = [sys.executable, "-m", "tests.support.calendar_daemon"]
        trial.start()
        names = [f"desk{first}{second}" for second in "aeuo" for first in "bdfkmprstw"][:desktops]
        made = Story(trial, Desk(trial, names[0]), days, names[:connected], names[connected:])
        trial.furnish(variants.make("old", {MARKER: f"{OLD}\n"}), vm=BYSTANDER, policy=POLICY)
        new = variants.make("new", {MARKER: f"{NEW}\n"})
        trial.qa("di", "add", f"path={new}", "osf=small")
        version = trial.listed("di", "id=1")[0]["version"]
        trial.qa("vm", "edit", f"di_tag={version}", "-f", f"name={BYSTANDER}")
        password = trial.password_file.read_text().strip()
        for vm in names:
            trial.add_user(owner(vm), password)
            trial.qa("vm", "add", f"name={vm}", f"user={owner(vm)}", "osf=small")
        trial.save_certificate()
        awake = [BYSTANDER, *made.idle[:-1]]
        trial.qa("vm", "start", "-f", f"name in ({','.join(awake)})")
        for vm in made.connected:
            made.screens[vm] = made.desk.open(vm, login=owner(vm))
        for vm in made.connected:
            made.desktop_is_there(vm)
        made.until_on(1, [*awake, *made.connected])
        yield made
    assert leftovers(trial, installation) == []


def tell(on: Story, say: Callable[[str], None] = lambda _: None) -> None:
    """The story from beginning to end."""
    before = on.attempts()
    begun = time.monotonic()
    hard = _tagged(on)
    tagged = on.now()
    say(f"tagged; the hard limit is {hard:%a %d %b %H:%M}")

    awake = on.idle[:-1]
    on.until("questions", lambda: set(on.asks()) == set(on.connected))
    on.until_on(2, awake)
    say(f"{len(awake)} idle desktops moved, {len(on.connected)} people are asked")
    for vm in on.connected:
        words = " ".join(on.sees(vm, "Restart", "now", "Later", "restarts", "itself"))
        assert re.search(r"\b(days|hours)\b", words), words
    assert on.dialogs(on.restarts) == 1
    on.trial.qa("vm", "start", "-f", f"name={on.sleeps}")

    on.press(on.restarts, "Restart")
    on.press(on.puts_off, "Later")
    on.until_on(2, [on.restarts, on.sleeps])
    on.desktop_is_there(on.restarts)
    assert on.runs(on.restarts) == NEW
    on.until("the answer", lambda: on.of(on.puts_off, "expire later"))
    put_off = datetime.fromisoformat(on.of(on.puts_off, "expire later")[0]["now"])
    say("one has restarted and is back, one has put it off")

    on.screens.pop(on.leaves).leave()
    on.until("the user's leaving", lambda: on.row(on.leaves)["user_state"] == "disconnected")
    on.move_to(on.now() + MINUTE + SECOND)
    on.until("the end of a desktop that was left", lambda: on.row(on.leaves)["vm_state"] == "stopped")
    say("one has left, and the desktop with them")

    stay = [on.puts_off, *on.ignore]
    _nobody_is_asked_at(on, tagged + HOUR - MINUTE)
    on.move_to(tagged + HOUR + SECOND)
    on.until("questions of the next hour", lambda: all(on.asks()[vm] == 2 for vm in on.ignore))
    assert on.asks()[on.puts_off] == 1
    assert [on.dialogs(vm) for vm in on.ignore] == [1] * len(on.ignore), "questions pile up"
    _nobody_is_asked_at(on, put_off - MINUTE, but=on.ignore)
    on.move_to(put_off + SECOND)
    on.until("the question that was put off", lambda: on.asks()[on.puts_off] == 2)
    on.press(on.puts_off, "Later")
    on.until("the second answer", lambda: len(on.of(on.puts_off, "expire later")) == 2)
    assert on.row(on.puts_off)["expire_postponed"] == 2
    say("an hour later those who did not answer were asked again, and after two hours the one who put it off")

    on.move_to(hard - 15 * MINUTE + SECOND)
    for vm in stay:
        on.sees(vm, "soon", "Save", "minutes")
        assert on.dialogs(vm) == 1
    moved = on.events("expire restart", "expire stop")
    on.move_to(hard - MINUTE)
    time.sleep(MOMENT_S)
    assert [on.runs(vm) for vm in stay] == [OLD] * len(stay), "the hard limit acted early"
    assert on.events("expire restart", "expire stop") == moved
    assert on.now() < hard
    say("all were warned, and nobody was restarted before their time")

    on.move_to(hard + SECOND)
    on.screens[on.leaves] = on.desk.open(on.leaves, login=owner(on.leaves))
    on.until_on(2, on.everybody)
    assert {vm: on.runs(vm) for vm in on.everybody} == dict.fromkeys(on.everybody, NEW)
    for vm in on.connected:
        on.desktop_is_there(vm)
        assert on.screens[vm].client.poll() is None
    say("everybody is on the new image, and who was connected is back")
    _accounted(on, before, hard)
    say(f"told in {time.monotonic() - begun:.0f} s")
    for screen in on.screens.values():
        end(screen.client)


def _tagged(on: Story) -> datetime:
    """Show whom it would concern, then move the tag; the hard limit."""
    command = ["di", "tag", "di_id=2", "tag=default", "expire-soft=now", "expire-hard=NEXT SAT"]
    concerned = {*on.connected, *on.idle[:-1]}
    shown = json.loads(on.trial.qa(*command, "--dry-run", "-o", "json").stdout)
    assert {row["name"] for row in shown} == concerned
    assert {row["user"] for row in shown} == {owner(vm) for vm in concerned}
    assert on.row(on.restarts)["next_di_id"] == 1, "the rehearsal has moved the tag"
    said = on.trial.qa(*command).stderr
    assert said.startswith(f"{len(concerned)} VMs have had their expiration dates set"), said
    expected = datetime.fromisoformat(json.loads(on.trial.qa("when", "-o", "json", "NEXT SAT").stdout)["utc"])
    hard = datetime.fromisoformat(on.row(on.ignore[0])["vm_expiration_hard"])
    assert abs(hard - expected) <= MINUTE
    for vm in (on.sleeps, BYSTANDER):
        assert on.row(vm)["vm_expiration_hard"] is None
    return hard


def _nobody_is_asked_at(on: Story, instant: datetime, but: Sequence[str] = ()) -> None:
    """Then nobody is asked or restarted, who is not among those that may be."""
    was = on.asks()
    attempts = on.attempts()
    on.move_to(instant)
    time.sleep(MOMENT_S)
    new = {vm: number for vm, number in on.asks().items() if number != was.get(vm)}
    assert set(new) <= set(but), f"asked too early: {new}"
    assert on.attempts() == attempts


def _accounted(on: Story, before: dict[str, int], hard: datetime) -> None:
    """The counters and the history tell what happened, and nothing else."""
    grown = {vm: number - before[vm] for vm, number in on.attempts().items() if number != before[vm]}
    assert grown == dict.fromkeys(on.everybody, 1)
    ends = on.by_desktop("expire restart", "expire stop")
    asked, warned = on.by_desktop("expire ask"), on.by_desktop("expire warn")
    forced = [on.puts_off, *on.ignore]
    by_hkd = [("hkd", "expire restart")]
    assert {vm: [(event["by"], event["what"]) for event in found] for vm, found in ends.items()} == {
        **dict.fromkeys(on.idle[:-1], by_hkd),
        **dict.fromkeys(forced, by_hkd),
        on.restarts: [(f"user:{owner(on.restarts)}", "expire restart")],
        on.leaves: [("hkd", "expire stop")],
        on.sleeps: [],
        BYSTANDER: [],
    }
    for vm in forced:
        assert datetime.fromisoformat(ends[vm][0]["at"]) >= hard, f"{vm} was restarted early"
        assert [event["by"] for event in warned[vm]] == ["hkd"]
    assert not any(asked[vm] for vm in (*on.idle, BYSTANDER)), "somebody was asked who is not there"
    assert len(asked[on.restarts]) == 1
    (move,) = [
        move
        for move in json.loads(on.trial.qa("di", "history", "-f", "tag=default", "-o", "json").stdout)
        if move["from_di_id"] is not None
    ]
    assert (move["from_di_id"], move["to_di_id"]) == (1, 2)
    assert move["by"].startswith("qa:")
    rows = {row["name"]: row for row in on.trial.listed("vm")}
    for vm in on.everybody:
        row = rows[vm]
        assert (row["outdated"], row["vm_expiration_soft"], row["vm_expiration_hard"]) == (False, None, None)
