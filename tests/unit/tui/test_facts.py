"""What details tell of records."""

from __future__ import annotations

from appliance.tui import facts


def test_a_property_that_sounds_secret_is_only_said_to_be_there() -> None:
    lines = facts.properties({"room": "12", "db_password": "hunter2"}).lines
    assert [(key, text) for key, (text, _) in lines] == [("db_password", "***"), ("room", "12")]
