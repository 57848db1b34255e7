"""An attacker who is root inside a guest, and one at a third machine: nothing succeeds, and nobody suffers.

Each probe has its control: the same one succeeds for a process that nobody confines, or without rules.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support import attack
from tests.support.arena import PORT, VMA_PORT, WORLD, Arena, arena, succeeded
from tests.support.desktop import leftovers
from tests.support.images import Variants
from tests.support.inside import inside

pytestmark = [pytest.mark.host, pytest.mark.timeout(300)]

EXHAUSTING = ("fork-bomb", "memory-hog")
OPTIONAL = {"sysrq": errno.ENOENT, "kexec": errno.ENOSYS, "module": errno.ENOSYS}
"""What a kernel may be built without, and how it then answers everybody."""
X_PORT = 4100
ROUNDS = 3
PUT_BACK = "the guests' firewall was removed by somebody else: put back"
ENOUGH = "/run/attack/enough"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, variants: Variants) -> Iterator[Arena]:
    """Two running guests of a kind that attacks when told to."""
    with arena(tmp_path_factory.mktemp("arena") / "trial", variants) as made:
        installation = made.trial.marker.read_text()
        yield made
    assert leftovers(made.trial, installation) == []


@contextmanager
def everybody_listens(place: Arena) -> Iterator[None]:
    """Services at the neighbour, at this host and in the world."""
    with ExitStack() as stack:
        for machine in (place.guest("desk2"), place.host, place.world):
            stack.enter_context(machine.echoing(PORT))
        yield


def test_root_in_a_guest_achieves_nothing(place: Arena) -> None:
    results = place.attacked(attack.PROBES)
    assert set(results) == set(attack.PROBES)
    assert succeeded(results) == {}
    assert "Resource temporarily unavailable" in results["fork-bomb"]["how"]
    assert results["memory-hog"]["how"] == "ended by signal 9"


def test_a_process_that_nobody_confines_achieves_all_of_it(place: Arena) -> None:
    results = place.unconfined(attack.PROBES)
    failed = {name: results[name]["errno"] for name in set(attack.PROBES) - set(succeeded(results))}
    assert failed.items() <= OPTIONAL.items(), {name: results[name]["how"] for name in failed}


def test_a_guest_reaches_the_world_and_nothing_nearer(place: Arena) -> None:
    outward = [f"tcp {WORLD} {PORT}", f"udp {WORLD} {PORT}"]
    near = place.inward()
    with everybody_listens(place):
        assert set(succeeded(place.attacked([*near, *outward]))) == set(outward)
        with place.unruled():
            reached = succeeded(place.attacked(near))
            assert set(reached) == set(near)
        assert set(succeeded(place.attacked([*near, *outward]))) == set(outward)


@pytest.mark.parametrize("port", [VMA_PORT, X_PORT])
def test_a_third_machine_reaches_no_guest(place: Arena, port: int) -> None:
    address = place.node("desk1").address
    with ExitStack() as stack:
        if port == X_PORT:
            stack.enter_context(place.guest("desk1").echoing(port))
        assert not place.world.connects(address, port)
        place.trial.wait_for("a way for the host", lambda: place.host.connects(address, port))
        with place.unruled():
            place.trial.wait_for("a way for others", lambda: place.world.connects(address, port))


def test_rules_that_others_flush_come_back(place: Arena) -> None:
    address = place.node("desk1").address
    with place.guest("desk1").echoing(X_PORT):
        told = place.trial.log.read_text().count(PUT_BACK)
        place.flush()
        place.trial.wait_for("the rules", lambda: place.trial.log.read_text().count(PUT_BACK) > told)
        place.trial.wait_for("the way in", lambda: place.host.connects(address, X_PORT))
        assert not place.world.connects(address, X_PORT)


def test_neighbours_and_database_go_on_while_a_guest_exhausts_itself(place: Arena) -> None:
    trial = place.trial
    results = place.order(EXHAUSTING, until=ENOUGH)
    for number in range(ROUNDS):
        trial.qa("config", "set", f"site.round={number}")
        assert f"{number}" in trial.qa("config", "get", "site.round").stdout
        trial.wait_for("the neighbour's next writes", beats_after(place, place.beat() + 1))
        assert not results.exists()
    inside(place.desk.init("desk1"), "touch", ENOUGH)
    assert succeeded(place.results(results)) == {}
    assert trial.vm("desk2")["vm_state"] == "running"


def beats_after(place: Arena, count: int) -> Callable[[], bool]:
    return lambda: place.beat() > count


def test_two_guests_have_no_host_id_in_common(place: Arena) -> None:
    owned = []
    for vm in ("desk1", "desk2"):
        for kind in ("uid_map", "gid_map"):
            lines = Path(f"/proc/{place.desk.init(vm).pid}/{kind}").read_text().splitlines()
            ((first, host, count),) = (map(int, line.split()) for line in lines)
            assert (first, count) == (0, 65536)
            owned.append((vm, range(host, host + count)))
    for vm, ids in owned:
        assert 0 not in ids
        assert all(set(ids).isdisjoint(others) for other, others in owned if other != vm)
