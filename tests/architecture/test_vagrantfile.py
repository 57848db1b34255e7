"""The virtual machine that a visitor makes: what it forwards and runs is what there is."""

from __future__ import annotations

import os
import re

from appliance.config import L7R_PORT, Settings
from scripts.service import ROOT

TEXT = (ROOT / "Vagrantfile").read_text()


def quoted(pattern: str) -> str:
    match = re.search(pattern, TEXT, re.MULTILINE)
    assert match is not None, f"no {pattern}"
    return match.group(1)


def test_every_block_ends() -> None:
    code = [line.split("#")[0].strip() for line in TEXT.splitlines()]
    opened = sum(line.endswith("|") and " do " in line for line in code)

    assert opened == code.count("end") > 0


def test_clients_get_through_to_the_port_of_the_broker() -> None:
    guest, host = quoted(r"guest: (\d+)"), quoted(r"host: (\d+)")

    assert int(guest) == int(host) == Settings({})[L7R_PORT]


def test_it_is_a_debian_12_with_the_service() -> None:
    folder = quoted(r'synced_folder "\.", "([^"]+)", type')
    program, option = quoted(r'inline: "([^"]+)"').split()

    assert quoted(r'config\.vm\.box = "([^"]+)"') == "debian/bookworm64"
    assert program.startswith(f"{folder}/")
    assert os.access(ROOT / program.removeprefix(f"{folder}/"), os.X_OK)
    assert f"{option})" in (ROOT / "scripts" / "setup").read_text()
