"""Words, glyphs and countdowns of desktops."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model import VmState
from appliance.runtime.machine import Phase
from appliance.storage.live import VmLine
from appliance.tui import view
from appliance.tui.columns import STYLES, Scene
from appliance.tui.glyphs import ASCII, FULL, Glyphs
from tests.support.tui_lines import line

NOW = datetime(2026, 11, 23, 11, 0, tzinfo=UTC)


def stored(away: timedelta) -> str:
    return f"{(NOW + away).replace(tzinfo=None)}"


@pytest.mark.parametrize(
    ("vm", "word", "style"),
    [
        (line(), "○ stopped", "dim"),
        (line(cmd="start"), "○ start wished", "busy"),
        (line(state="running", phase="running/monitoring"), "● running", "good"),
        (line(state="running", cmd="stop"), "● stop wished", "busy"),
        (line(state="running", cmd="stop", restart=1), "● restart wished", "busy"),
        (line(state="starting", phase="starting/cloning"), "◐ starting: clone", "busy"),
        (line(state="stopping", phase="stopping/cleaning"), "◑ stopping: clean", "busy"),
        (line(state="stopping", phase="stopping/shutting-down", restart=1), "◑ restarting: end", "busy"),
        (
            line(state="starting", phase="starting/waiting", waits_for="an address"),
            "◐ waits: an address",
            "warn",
        ),
        (line(failure="no init", failures=2), "✗ failed", "bad"),
        (line(failure="no init", state="starting", phase="starting/cloning"), "◐ starting: clone", "busy"),
        (line(state="zombie", phase="zombie/reaping"), "✖ zombie", "bad"),
        (line(state="debugging"), "◆ debugging", "warn"),
    ],
)
def test_a_state_is_a_glyph_a_word_and_a_colour(vm: VmLine, word: str, style: str) -> None:
    assert view.state(vm, Scene(NOW)) == (word, style)


@pytest.mark.parametrize("glyphs", [FULL, ASCII])
@pytest.mark.parametrize("phase", Phase)
def test_every_phase_has_a_word_on_every_terminal(phase: Phase, glyphs: Glyphs) -> None:
    text, style = view.state(line(state=phase.vm_state, phase=phase), Scene(NOW, glyphs))
    assert style in STYLES
    assert text.split()[1].startswith((phase.vm_state, "restart"))
    assert glyphs is FULL or text.isascii()
    if phase.vm_state in {VmState.STARTING, VmState.STOPPING}:
        assert ": " in text, "a sub-state while it changes"


@pytest.mark.parametrize(
    ("away", "hard", "expected"),
    [
        (timedelta(days=4, hours=23, minutes=59), True, ("4d 23h", "plain")),
        (timedelta(hours=23, minutes=59, seconds=59), True, ("23:59:59", "warn")),
        (timedelta(days=1), True, ("1d 00h", "plain")),
        (timedelta(minutes=59, seconds=59), True, ("00:59:59", "bad")),
        (timedelta(minutes=59, seconds=59), False, ("00:59:59", "warn")),
        (timedelta(hours=1), False, ("01:00:00", "plain")),
        (timedelta(seconds=0.4), True, ("00:00:00", "bad")),
        (timedelta(0), True, ("due", "bad")),
        (timedelta(days=-3), False, ("due", "warn")),
    ],
)
def test_a_countdown_reddens(away: timedelta, hard: bool, expected: tuple[str, str]) -> None:
    assert view.countdown(stored(away), NOW, hard=hard) == expected


def test_no_limit_is_no_countdown() -> None:
    assert view.countdown(None, NOW, hard=True) == ("", "plain")


@given(st.floats(0, 400 * 86_400), st.floats(0, 86_400))
def test_countdowns_only_fall(left: float, passes: float) -> None:
    def seconds(text: str) -> int:
        if "d" in text:
            days, hours = text.split()
            return int(days[:-1]) * 86_400 + int(hours[:-1]) * 3600
        hour, minute, second = map(int, text.split(":"))
        return hour * 3600 + minute * 60 + second

    now, later = view.clock(left), view.clock(left - passes)
    assert seconds(later) <= seconds(now)
    assert left - 3600 < seconds(now) <= left
    assert len(now) <= 8


def test_what_kept_users_out_is_told() -> None:
    scene = Scene(NOW)
    assert view.blocked(line(), scene) == ("", "plain")
    assert view.blocked(line(blocked=1, block_cause="admin"), scene) == ("⊘ by hand", "bad")
    assert view.blocked(line(blocked=1, block_cause="image"), scene) == ("⊘ bad image", "bad")


def test_who_is_there_is_told() -> None:
    scene = Scene(NOW)
    assert view.user_state(line(), scene) == ("", "plain")
    assert view.user_state(line(user_state="connected"), scene) == ("◉ connected", "info")
    assert view.user_state(line(user_state="connecting"), scene) == ("◉ connecting", "busy")
    assert view.user_state(line(user_state="connected", user_cmd="abort"), scene) == ("◉ leaving", "busy")


def test_outdated_is_who_runs_another_image_than_the_next() -> None:
    assert not line(next_di_id=2).outdated
    assert not line(di_id=2, next_di_id=2).outdated
    assert not line(di_id=2, next_di_id=None).outdated
    assert line(di_id=1, next_di_id=2).outdated
    assert view.next_image(line(next_di_id=2, next_di="v2")) == ("v2", "dim")
    assert view.next_image(line(di_id=1, next_di_id=2, next_di="v2")) == ("v2", "warn")
    assert view.next_image(line(next_di_id=2, next_di="v2", next_blocked=1)) == ("v2", "bad")
    assert view.next_image(line()) == ("no image", "bad")


def test_use_is_told_of_those_that_run() -> None:
    scene = Scene(NOW, usage={1: (0.256, 300 << 20), 2: (None, 5 << 30)})
    running = line(id=1, state="running")
    assert (view.cpu(running, scene)[0], view.memory(running, scene)[0]) == ("26%", "300M")
    first = line(id=2, state="running")
    assert (view.cpu(first, scene)[0], view.memory(first, scene)[0]) == ("", "5.0G")
    stopped = line(id=1)
    assert (view.cpu(stopped, scene)[0], view.memory(stopped, scene)[0]) == ("", "")
    assert view.cpu(line(id=3, state="running"), scene)[0] == ""


@given(st.lists(st.text(), min_size=2, max_size=8))
def test_any_names_can_be_put_in_order(found: list[str]) -> None:
    ordered = sorted(found, key=view.natural)
    assert all(view.natural(one) <= view.natural(next_) for one, next_ in pairwise(ordered))


@given(st.lists(st.integers(0, 10_000), min_size=1))
def test_numbers_in_names_count(numbers: list[int]) -> None:
    ordered = sorted((f"desk-{number}" for number in numbers), key=view.natural)
    assert ordered == [f"desk-{number}" for number in sorted(numbers)]


@given(
    st.builds(
        line,
        state=st.sampled_from([state.value for state in VmState]),
        ip=st.none() | st.ip_addresses(v=4).map(str),
        soft=st.none() | st.just("2026-11-24 10:00:00"),
        di=st.none() | st.text(max_size=5),
        blocked=st.sampled_from([0, 1]),
        failure=st.none() | st.just("x"),
        block_cause=st.none() | st.sampled_from(["admin", "image"]),
    ),
    st.builds(line, ip=st.none() | st.just("10.0.0.1"), host=st.none() | st.just("node1")),
)
def test_every_column_draws_and_orders_every_desktop(one: VmLine, other: VmLine) -> None:
    for column in view.VM_COLUMNS:
        text, style = column.cell(one, Scene(NOW))
        assert isinstance(text, str)
        assert style in STYLES
        if column.sort is not None:
            assert column.sort(one) <= column.sort(other) or column.sort(one) > column.sort(other)
