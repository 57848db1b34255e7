from __future__ import annotations

from datetime import UTC, datetime

import pytest

from appliance.tui.console.link import Company, Standing, company_of
from appliance.tui.console.words import ASCII, PRETTY, glyph, place, trouble, who_is_there

AT = datetime(2026, 11, 28, 10, 42, 7, tzinfo=UTC)
BOB, EVE = "bob on pts/2 (pid 12)", "eve (pid 13)"


@pytest.mark.parametrize(
    ("company", "words"),
    [
        (Company(), "nobody writes"),
        (Company(writer="me", you_write=True), "you write"),
        (Company(writer="me", you_write=True, others=(BOB,)), "you write · bob on pts/2 watches"),
        (Company(writer=BOB, others=(BOB, EVE)), "bob on pts/2 writes, you watch · eve watches"),
        (Company(others=(BOB, EVE)), "nobody writes · bob on pts/2, eve watch"),
        (Company(waiting_for="the line ended"), "nobody writes · waiting: the line ended"),
    ],
)
def test_who_is_there(company: Company, words: str) -> None:
    assert who_is_there(Standing.OPEN, company) == words


def test_without_a_link_nobody_is_said_to_be_there() -> None:
    assert who_is_there(Standing.DAEMON_DOWN, Company()) == "the daemon is down"


def test_trouble_says_since_when() -> None:
    assert trouble(Standing.OPEN, "", AT) == trouble(Standing.CONNECTING, "", AT) == ""
    assert trouble(Standing.DAEMON_DOWN, "x", AT).startswith("The daemon is down since 10:42:07.")
    assert trouble(Standing.NOT_RUNNING, "the VM has stopped", AT).startswith(
        "The VM has stopped (since 10:42:07)."
    )
    assert "x" in trouble(Standing.REFUSED, "x", AT)


def test_each_state_has_a_glyph_of_one_place() -> None:
    for glyphs in (PRETTY, ASCII):
        for standing in Standing:
            for company in (
                Company(),
                Company(you_write=True),
                Company(writer=BOB),
                Company(waiting_for="x"),
            ):
                assert len(glyph(glyphs, standing, company)[0]) == 1
    assert "".join(ASCII.__getattribute__(name) for name in ASCII.__slots__).isascii()


def test_where_the_view_is() -> None:
    ours = (24, 80)
    assert place(0, 0, ours, ours) == place(0, 0, (10, 40), ours) == ""
    assert place(1200, 3_000_000, ours, ours) == "1,200 lines back · 3,000,000 bytes skipped"
    assert place(0, 0, (50, 132), ours) == "its screen is larger: 132x50"


def test_what_the_hub_tells() -> None:
    event = {"writer": BOB, "you_write": False, "others": [BOB], "waiting_for": None, "size": [24, 80]}
    assert company_of(event) == Company(writer=BOB, others=(BOB,), size=(24, 80))
    assert company_of({"size": [0, "x"], "others": None}) == Company()
