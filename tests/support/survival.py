"""What must become of a guest and its desktop when the daemon goes, whatever kind of guest it is."""

from __future__ import annotations

import itertools
import random
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from scripts.trial import BIN, Trial
from tests.support.desktop import Desk
from tests.support.witness import database

STARTING = ("starting/queued", "starting/cloning", "starting/launching", "starting/awaiting-vma")
STOPPING = ("stopping/shutting-down", "stopping/cleaning")
JITTER_S = 0.06
SERVED_WITHIN_S = 60
REACHED_WITHIN_S = 20


def outlives(desk: Desk, ending: Callable[[Trial], None]) -> None:
    """A desktop lives on when the daemon ends, and the next daemon's clients find it as it was left."""
    screen = desk.open_and_see()
    screen.remember("endurance")
    init, programs = desk.init(), desk.programs()
    ending(desk.trial)
    screen.ends_by_itself()
    assert desk.init() == init
    desk.trial.start()
    assert desk.row()["vm_state"] == "running"
    assert desk.row()["user_state"] == "disconnected"
    again = desk.open_and_see()
    again.recalls("endurance")
    assert desk.init() == init
    assert desk.programs() == programs
    again.leave()
    screen.leave()


def killed_at_moments(desk: Desk, starting: Sequence[str] = STARTING) -> Iterator[None]:
    """Start and stop a VM again and again, each time with a daemon that is killed on the way.

    There is a round for each of the moments of a start; it is over when the VM has stopped.
    """
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    moments = random.Random(seed)
    for starts_at, stops_at in zip(starting, itertools.cycle(STOPPING), strict=False):
        _killed_at(desk, "start", starts_at, moments.uniform(0, JITTER_S))
        desk.trial.wait_for_state(desk.vm, "running", SERVED_WITHIN_S * desk.patience)
        init = desk.init()
        _killed_at(desk, "stop", stops_at, moments.uniform(0, JITTER_S))
        desk.trial.wait_for_state(desk.vm, "stopped", SERVED_WITHIN_S * desk.patience)
        assert desk.inits() == [], f"{init} was to stop"
        yield


def phase(desk: Desk) -> str:
    """Where the row says that the VM is."""
    query = "SELECT vm_phase FROM vm_runtimes JOIN vms ON vms.id = vm_runtimes.vm_id WHERE vms.name = ?"
    with database(desk) as connection:
        ((found,),) = connection.execute(query, [desk.vm]).fetchall()
    return str(found)


@contextmanager
def on_the_way(desk: Desk, wish: str, reached: str) -> Iterator[None]:
    """Make a wish; the block begins when the row says that it is `reached` or past."""
    phases = (*STARTING, "running/monitoring") if wish == "start" else (*STOPPING, "stopped")
    awaited = phases[phases.index(reached) :]
    words = [str(BIN / "qa"), "--config", str(desk.trial.config), "vm", wish, "--force"]
    asking = subprocess.Popen([*words, "-f", f"name={desk.vm}"])
    until = time.monotonic() + REACHED_WITHIN_S * desk.patience
    while phase(desk) not in awaited and asking.poll() in (None, 0) and time.monotonic() < until:
        time.sleep(0.002)
    yield
    assert asking.wait(REACHED_WITHIN_S) == 0


def _killed_at(desk: Desk, wish: str, reached: str, later_s: float) -> None:
    """Make a wish, kill -9 the daemon when the row says that it is `reached` or past, begin again."""
    with on_the_way(desk, wish, reached):
        time.sleep(later_s)
        at = phase(desk)
        desk.trial.kill()
    print(f"{wish}: killed {later_s:.3f} s after {reached}, at {at}")
    assert len(desk.inits()) <= 1
    desk.trial.start()
    assert len(desk.inits()) <= 1
