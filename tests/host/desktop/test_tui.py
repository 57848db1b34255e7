"""An administrator at `qvd-tui`, in a real terminal, with a real appliance and real containers behind it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from scripts.trial import BIN, Trial
from tests.support.login_guest import LOGIN, PASSWORD, login_image
from tests.support.tmux import Pane, Tmux, tmux

pytestmark = [pytest.mark.host, pytest.mark.timeout(300)]

DESKTOPS = ("desk1", "desk2", "desk3", "desk4")
CHORD = "C-]"
PROMPT = "~ #"
HARD = re.compile(r"\b(\d\d):(\d\d):(\d\d)\b")


@dataclass
class Office:
    """A running appliance with desktops and two images, and terminals to look after them."""

    trial: Trial
    terminals: Tmux

    def tui(self, columns: int = 120, rows: int = 40) -> Pane:
        """Somebody sits down at the TUI, with the size of another terminal in the environment."""
        words = ("env", "COLUMNS=80", "LINES=24", str(BIN / "qvd-tui"), "--config", str(self.trial.config))
        return self.terminals.open(*words, columns=columns, rows=rows)

    def qa(self, *words: str, columns: int = 100, rows: int = 30) -> Pane:
        """Somebody uses `qa` in another terminal."""
        return self.terminals.open(
            str(BIN / "qa"), "--config", str(self.trial.config), *words, columns=columns, rows=rows
        )

    def rows(self) -> dict[str, dict[str, Any]]:
        """Every desktop, as the database has it."""
        return {row["name"]: row for row in self.trial.listed("vm")}

    def states(self) -> dict[str, str]:
        """What every desktop does."""
        return {name: row["vm_state"] for name, row in self.rows().items()}


@pytest.fixture
def office(trial: Trial, tmp_path: Path) -> Iterator[Office]:
    trial.start()
    trial.furnish(login_image(tmp_path / "first.tar.gz", version="first"), memory=64)
    trial.qa("di", "add", f"path={login_image(tmp_path / 'second.tar.gz', version='second')}", "osf=small")
    trial.qa("di", "tag", "di_id=1", "tag=ring")
    for name in DESKTOPS[1:]:
        trial.qa("vm", "add", f"name={name}", "user=alice", "osf=small")
    trial.qa("vm", "edit", "di_tag=ring", "--yes")
    with tmux({**trial.environment, "XDG_CONFIG_HOME": str(tmp_path)}) as terminals:
        yield Office(trial, terminals)


def line(screen: str, word: str) -> str:
    """The first line that has a word as a whole."""
    return next((one for one in screen.split("\n") if re.search(rf"\b{word}\b", one)), "")


def state(screen: str, name: str) -> str:
    """What the row of a desktop says that it does."""
    found = re.search(rf"\b{name}\b.*?\b(stopped|starting|running|stopping|zombie)\b", line(screen, name))
    return found[1] if found else ""


def until_it_is(tui: Pane, name: str, word: str) -> None:
    """Wait until the row of a desktop says that it does this."""
    tui.until(lambda screen: state(screen, name) == word)


def left_s(screen: str, name: str) -> int | None:
    """The last countdown in the row of a desktop, in seconds: the hard limit's."""
    found = HARD.findall(line(screen, name))
    if not found:
        return None
    hours, minutes, seconds = map(int, found[-1])
    return 3600 * hours + 60 * minutes + seconds


def go_to(tui: Pane, number: int, shown: str) -> None:
    """Switch to another pane."""
    tui.press(str(number))
    tui.until(shown)


def log_in(console: Pane) -> None:
    """At the login of a guest, until its shell asks what to do."""
    console.until("login:")
    console.enter(LOGIN)
    console.until("Password:")
    console.enter(PASSWORD)
    console.until(PROMPT)


def take_the_keys_back(tui: Pane) -> None:
    """Leave the guest alone; the console stays in view."""
    tui.press(CHORD)
    tui.until("esc leave")


def text_rows(screen: str) -> int:
    """How many rows vi has for an empty text: its first, those beyond its end, and then vi's own line."""
    block = re.search(r"((?:^~ *\n)+).*/tmp/letter", screen, re.MULTILINE)
    return 1 + block[1].count("\n") if block else 0


def until_vi_has(tui: Pane, least: int) -> str:
    """Wait until vi has more rows than that for the text; the screen then."""
    return tui.until(lambda screen: text_rows(screen) > least)


def test_a_day_at_the_tui(office: Office) -> None:
    tui = office.tui()
    starts_and_watches(tui, office)
    uses_a_console(tui, office)
    shares_the_console(tui, office)
    moves_a_tag(tui, office)
    loses_the_connection(office)
    marks_and_stops(tui, office)
    before = office.states()
    tui.press("q")
    assert tui.ended() == 0
    assert not tui.screen().strip(), "the terminal is as it was before"
    assert office.states() == before


def starts_and_watches(tui: Pane, office: Office) -> None:
    """A desktop is started, and its row becomes running; the others stay."""
    tui.until("desk4")
    assert {name: state(tui.screen(), name) for name in DESKTOPS} == dict.fromkeys(DESKTOPS, "stopped")
    tui.press("s")
    until_it_is(tui, "desk1", "running")
    assert "qa vm start -f name=desk1" in tui.screen(), "its twin is shown"
    assert office.states() == dict.fromkeys(DESKTOPS, "stopped") | {"desk1": "running"}


def uses_a_console(tui: Pane, office: Office) -> None:
    """Somebody logs in at the desktop and uses vi, which always has as many rows as the console."""
    tui.press("c")
    log_in(tui)
    tui.enter("cat /etc/version; tty")
    tui.until("first\n")
    tui.enter("vi /tmp/letter")
    tui.until("/tmp/letter")
    rows = {}
    for columns, height in ((120, 40), (100, 30), (140, 50)):
        tui.resize(columns, height)
        screen = until_vi_has(tui, height - 8)
        rows[height] = text_rows(screen)
    assert rows[40] - rows[30] == 10
    assert rows[50] - rows[40] == 10
    tui.type("iq, C-p and 2 are letters here")
    tui.until("\nI /tmp/letter")
    tui.press("Escape")
    tui.until("\n- /tmp/letter")
    tui.enter(":wq")
    tui.until(PROMPT)
    tui.enter("clear; cat /tmp/letter; stty size")
    tui.until("\nq, C-p and 2 are letters here\n")
    assert re.search(rf"^{rows[50] + 1} 140$", tui.screen(), re.MULTILINE)
    tui.resize(120, 40)
    take_the_keys_back(tui)
    tui.press("Escape")
    until_it_is(tui, "desk1", "running")


def shares_the_console(tui: Pane, office: Office) -> None:
    """Two at one console: one writes, the other watches; each takes the pen from the other."""
    tui.press("c")
    tui.until("you write")
    watcher = office.qa("vm", "console", "-f", "name=desk1")
    watcher.until("you watch")
    tui.enter("clear; echo from the $((40+2))nd")
    watcher.until("from the 42nd")
    watcher.type("x")
    watcher.until("not sent")

    thief = office.qa("vm", "console", "-f", "name=desk1", "write=take")
    thief.until("also here")
    watcher.until(lambda screen: screen.count("you watch") > 1)
    thief.enter("clear; echo taken $((50+1)) times")
    for pane in (tui, watcher, thief):
        pane.until("taken 51 times")
    take_the_keys_back(tui)
    tui.press("t")
    thief.until("writes here, you watch")
    tui.enter("clear; echo and $((60+1)) back")
    for pane in (tui, watcher, thief):
        pane.until("and 61 back")
    for pane in (watcher, thief):
        pane.press(CHORD)
        assert pane.ended() == 0
    take_the_keys_back(tui)
    tui.press("Escape")
    until_it_is(tui, "desk1", "running")


def moves_a_tag(tui: Pane, office: Office) -> None:
    """The tag goes to the second image; who runs the first has a limit that comes nearer each second."""
    go_to(tui, 4, "ring")
    rows = tui.lines()
    second = next(number for number, one in enumerate(rows) if "head" in one)
    at = next(number for number, one in enumerate(rows) if "▸" in one)
    tui.press(*["j"] * (second - at))
    tui.press("t")
    tui.until("Expire hard")
    tui.type("ring")
    tui.until("desk1")
    tui.press("Tab", "Tab")
    tui.until("When those that still run the old image are restarted")
    tui.type("now + 2 hours")
    tui.until("in 1 h 59 min")
    tui.press("Enter")
    tui.until(lambda screen: "Expire hard" not in screen)
    go_to(tui, 2, "desk4")
    first = left_s(tui.until(lambda screen: left_s(screen, "desk1") is not None), "desk1")
    assert first is not None
    assert 7100 < first <= 7200
    later = left_s(tui.until(lambda screen: left_s(screen, "desk1") not in {None, first}), "desk1")
    latest = left_s(tui.until(lambda screen: left_s(screen, "desk1") not in {None, first, later}), "desk1")
    assert later is not None
    assert latest is not None
    assert first > later > latest
    assert all(left_s(tui.screen(), name) is None for name in DESKTOPS[1:]), "they are stopped"
    found = office.rows()
    assert found["desk1"]["vm_expiration_hard"] is not None
    assert abs(found["desk1"]["expire_hard_s"] - latest) < 10
    assert {row["next_di_id"] for row in found.values()} == {2}
    assert (found["desk1"]["current_di_id"], found["desk1"]["outdated"]) == (1, True)


def loses_the_connection(office: Office) -> None:
    """A terminal that goes away ends its TUI, with the console in it, and nothing else."""
    before = office.rows()["desk1"]
    other = office.tui()
    until_it_is(other, "desk1", "running")
    other.press("c")
    other.until("you write")
    other.close(limit_s=10)
    after = office.rows()["desk1"]
    assert (after["vm_state"], after["run"]) == ("running", before["run"])
    free = office.qa("vm", "console", "-f", "name=desk1")
    free.enter("clear; echo still $((40+2)) here")
    free.until("still 42 here")
    assert "also here" not in free.screen(), "the console was let go"
    free.press(CHORD)
    assert free.ended() == 0


def marks_and_stops(tui: Pane, office: Office) -> None:
    """Three of four that run are marked and stopped; the fourth goes on."""
    office.trial.qa("vm", "start", "--yes")
    for name in DESKTOPS:
        until_it_is(tui, name, "running")
    fourth = office.rows()["desk4"]
    tui.press("g", "Space", "Space", "Space", "x")
    asked = tui.until("Stop 3 desktops")
    assert all(name in asked for name in DESKTOPS[:3])
    tui.press("y")
    for name in DESKTOPS[:3]:
        until_it_is(tui, name, "stopped")
    rows = office.rows()
    assert {name: row["vm_state"] for name, row in rows.items()} == {
        **dict.fromkeys(DESKTOPS[:3], "stopped"),
        "desk4": "running",
    }
    assert rows["desk4"]["run"] == fourth["run"], "nobody has touched it"
    assert rows["desk1"]["vm_expiration_hard"] is None, "it has kept its limit by stopping"
