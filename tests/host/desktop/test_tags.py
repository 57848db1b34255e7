"""Moving a tag changes what the next start boots, and nothing else of the desktop."""

from __future__ import annotations

import pytest

from scripts.trial import Trial
from tests.support.desktop import Desk
from tests.support.images import Variants
from tests.support.inside import identity, restart, root

pytestmark = [pytest.mark.host, pytest.mark.timeout(300)]

MARKER = "opt/version"


@pytest.fixture
def ring(trial: Trial, variants: Variants) -> Desk:
    """A running appliance with two images, the tag `ring` on the first, and a desktop that follows it."""
    trial.start()
    trial.furnish(variants.make("first", {MARKER: "first\n"}))
    second = variants.make("second", {MARKER: "second\n"})
    trial.qa("di", "add", f"path={second}", "osf=small")
    trial.qa("di", "tag", "di_id=1", "tag=ring")
    trial.qa("vm", "edit", "di_tag=ring", "-f", "name=desk1")
    return Desk(trial, "desk1")


def test_a_moved_tag_changes_what_the_next_start_boots(ring: Desk) -> None:
    trial = ring.trial
    trial.qa("vm", "start", "-f", "name=desk1")
    trial.wait_for_state("desk1", "running")
    assert booted(ring) == "first"
    was = identity(ring.init())
    assert was.host_name == "desk1"

    trial.qa("di", "tag", "di_id=2", "tag=ring")
    init = ring.init()
    row = trial.vm("desk1")
    assert (row["current_di_id"], row["next_di_id"], row["outdated"]) == (1, 2, True)
    assert booted(ring) == "first"
    assert ring.init() == init

    for di_id, version in ((2, "second"), (1, "first")):
        trial.qa("di", "tag", f"di_id={di_id}", "tag=ring")
        restart(ring)
        row = trial.vm("desk1")
        assert (row["current_di_id"], row["next_di_id"], row["outdated"]) == (di_id, di_id, False)
        assert booted(ring) == version
        assert identity(ring.init()) == was


def booted(desk: Desk) -> str:
    """What the running root says of its image."""
    return (root(desk.init()) / MARKER).read_text().strip()
