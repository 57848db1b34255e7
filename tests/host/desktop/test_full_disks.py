"""Guests that fill whatever they can write to: neighbours, database and host go on writing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator

import pytest

from tests.support.arena import Arena, arena, succeeded
from tests.support.desktop import leftovers
from tests.support.images import Variants
from tests.support.inside import inside, restart

pytestmark = [pytest.mark.host, pytest.mark.timeout(300)]

LIMIT, MORE, ALL = 48, 96, 4000
"""MiB: of root and home; more than that; and more than the pool has."""
DISKS = (f"fill /home {MORE}", f"fill /opt {MORE}")
MEMORY = (f"burst /run {MORE}", "burst /tmp 600", "burst /dev/shm 300")
RESERVE_MIB = 256
QUOTA = "Disk quota exceeded"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, variants: Variants) -> Iterator[Arena]:
    """Two guests on a small pool."""
    with arena(tmp_path_factory.mktemp("full") / "trial", variants, pool="2G") as made:
        installation = made.trial.marker.read_text()
        yield made
    assert leftovers(made.trial, installation) == []


def others_go_on(place: Arena, word: str) -> None:
    """The neighbour writes and the database commits, several times."""
    trial = place.trial
    for number in range(3):
        trial.qa("config", "set", f"site.round={word}-{number}")
        assert f"{word}-{number}" in trial.qa("config", "get", "site.round").stdout
        before = place.beat()
        trial.wait_for("the neighbour's next writes", lambda: place.beat() > before + 1)  # noqa: B023, used at once


def empty(place: Arena) -> None:
    inside(place.desk.init("desk1"), "rm", "-f", "/home/filling", "/opt/filling")


def pool_alarms(place: Arena) -> list[str]:
    listed = place.trial.qa("alarm", "list", "-f", "kind=pool", "-o", "json").stdout
    return [alarm["text"] for alarm in json.loads(listed)]


def limit(place: Arena, size: str) -> None:
    """Limit root and home of the OSF's guests, from the next start on, which comes at once."""
    place.trial.qa("osf", "edit", f"user_storage_size={size}", f"root_size={size}", "-f", "name=small")
    restart(place.desk)


def test_a_guest_fills_its_own_and_no_more_unless_nobody_limits_it(place: Arena) -> None:
    limit(place, f"{LIMIT}")
    results = place.attacked([*DISKS, *MEMORY])
    assert succeeded(results) == {}
    for name in DISKS:
        assert QUOTA in results[name]["how"]
    assert "No space left" in results[MEMORY[0]]["how"]
    others_go_on(place, "filled")
    assert place.trial.vm("desk1")["vm_state"] == "running"
    empty(place)
    little = f"burst /home {LIMIT // 2}"
    assert set(succeeded(place.attacked([little]))) == {little}
    assert set(succeeded(place.unconfined([*DISKS, *MEMORY]))) == {*DISKS, *MEMORY}


def test_without_limits_of_its_own_a_guest_leaves_the_host_its_reserve(place: Arena) -> None:
    """The positive control of a guest's own limits, and then the limit of all guests together."""
    trial = place.trial
    limit(place, "no")
    assert set(succeeded(place.attacked(DISKS))) == set(DISKS)
    everything = f"fill /home {ALL}"

    def filled() -> bool:
        """Up to the limit as it is now: it moves at each look, and what is deleted gives room back late."""
        empty(place)
        assert QUOTA in place.attacked([everything])[everything]["how"]
        return RESERVE_MIB // 2 < shutil.disk_usage(trial.storage).free >> 20 < RESERVE_MIB

    trial.wait_for("a guest that has all but the host's reserve", filled, limit_s=120)
    for number in range(3):
        trial.qa("config", "set", f"site.round=reserve-{number}")
    (trial.storage / "staging" / "upload").write_bytes(os.urandom(32 << 20))
    trial.wait_for("the alarm", lambda: any("nearly full" in text for text in pool_alarms(place)))
    empty(place)
    trial.wait_for("the end of the alarm", lambda: pool_alarms(place) == [])
    others_go_on(place, "emptied")
