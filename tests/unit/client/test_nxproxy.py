"""What the client makes of the display, its keyboard, nxproxy's words; whose connections it takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.client.failures import ClientError
from appliance.client.loopback import owner
from appliance.client.nxproxy import display, last_words, parse_keyboard, surroundings

QUERY = """rules:      evdev
model:      pc105
layout:     es,us
variant:    ,
"""


def test_keyboard_of_the_display() -> None:
    assert parse_keyboard(QUERY) == "pc105/es"


@pytest.mark.parametrize("query", ["", "model: \nlayout: \n", "model: a b\nlayout: $(x)\n"])
def test_a_keyboard_that_is_not_told_is_a_common_one(query: str) -> None:
    assert parse_keyboard(query) == "pc105/us"


@pytest.mark.parametrize("environment", [{}, {"DISPLAY": ""}])
def test_no_display(environment: dict[str, str]) -> None:
    with pytest.raises(ClientError, match="DISPLAY is not set") as failure:
        display(environment)
    assert failure.value.exit_status == 1


def test_nxproxy_has_a_home_of_its_own_and_no_password() -> None:
    ours = {"HOME": "/home/a", "DISPLAY": ":0", "QVDPASSWORD": "canary"}
    its = surroundings(ours, "/tmp/x")
    assert (its["HOME"], its["DISPLAY"], its["XAUTHORITY"]) == ("/tmp/x", ":0", "/home/a/.Xauthority")
    assert "canary" not in its.values()


def test_words_of_the_far_side_do_not_reach_the_terminal_as_they_are(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("Error: \x1b[2Jbad\n")
    assert last_words(log) == "Error: ?[2Jbad"


def test_errors_are_the_last_words(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("NXPROXY - Version 3\nError: Failed to open display ':9'.\nInfo: bye\n\n")
    assert last_words(log) == "Error: Failed to open display ':9'."
    log.write_text("one\ntwo\n")
    assert last_words(log) == "two"
    log.write_text("")
    assert last_words(log) == "it said nothing"


TABLE = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:9C41 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0000
   1: 0100007F:8000 0100007F:9C41 01 00000000:00000000 00:00000000 00000000  1000        0 222 1 0000
   2: 0100007F:9C41 0100007F:8000 01 00000000:00000000 00:00000000 00000000     0        0 333 1 0000
"""


def test_the_owner_of_a_connection_is_that_of_its_own_end() -> None:
    assert owner(TABLE, 0x8000, 0x9C41) == 1000
    assert owner(TABLE, 0x9C41, 0x8000) == 0
    assert owner(TABLE, 1, 2) is None
