"""Counts that are kept as things change are those that one would count."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from appliance.model import VmState
from appliance.storage.live import Delta, VmLine
from appliance.tui.tally import Tally, kind, people
from tests.support.tui_lines import line

ids = st.integers(1, 9)
images = st.none() | st.integers(1, 3)
limits = st.none() | st.sampled_from(["2026-11-24 10:00:00", "2026-11-25 10:00:00", "2026-11-26 10:00:00"])


def lines(vm_id: int) -> st.SearchStrategy[VmLine]:
    return st.builds(
        line,
        id=st.just(vm_id),
        state=st.sampled_from([state.value for state in VmState]),
        user_state=st.sampled_from(["disconnected", "connecting", "connected"]),
        osf=st.sampled_from(["office", "lab"]),
        di_id=images,
        next_di_id=images,
        soft=limits,
        hard=limits,
        blocked=st.sampled_from([0, 1]),
        failure=st.none() | st.just("no init"),
    )


some_vms = st.sets(ids, max_size=5).flatmap(
    lambda found: st.fixed_dictionaries({one: lines(one) for one in sorted(found)})
)
deltas = st.builds(
    lambda vms, gone: Delta(False, vms, frozenset(gone) - vms.keys()), some_vms, st.frozensets(ids)
)


def counts(tally: Tally) -> dict[str, object]:
    """All that it tells, without what is counted as none."""
    told = {name: value for name, value in vars(tally).items() if name != "vms"}
    return {name: +value if isinstance(value, Counter) else value for name, value in told.items()}


@given(some_vms, st.lists(deltas, max_size=4))
def test_counts_kept_are_counts_made_anew(first: dict[int, VmLine], changes: list[Delta]) -> None:
    tally = Tally(first)
    vms = dict(first)
    for delta in changes:
        tally.take(delta)
        vms = {vm_id: vm for vm_id, vm in (vms | dict(delta.vms)).items() if vm_id not in delta.gone}
        assert tally.vms == vms
        assert counts(tally) == counts(Tally(vms))
        assert all(number > 0 for number in tally.osfs.values()), "a flavour of which there is no desktop"


@given(some_vms)
def test_counts_are_what_a_person_would_count(vms: dict[int, VmLine]) -> None:
    tally = Tally(vms)
    everybody = list(vms.values())
    assert sum(tally.states.values()) == len(everybody)
    assert tally.states["failed"] == sum(vm.state == "stopped" and vm.failure is not None for vm in everybody)
    assert tally.connected == sum(vm.user_state != "disconnected" for vm in everybody)
    assert tally.outdated == sum(vm.outdated for vm in everybody)
    assert tally.limited == {vm.id for vm in everybody if vm.soft or vm.hard}
    nearest = [min(filter(None, (vm.soft, vm.hard))) for vm in tally.deadlines(3)]
    assert nearest == sorted(nearest)
    assert len(nearest) == min(3, len(tally.limited))


def test_a_tally_does_not_touch_what_it_was_given() -> None:
    given_ = {1: line()}
    tally = Tally(given_)
    tally.take(Delta(False, {2: line(id=2)}, frozenset({1})))
    assert given_ == {1: line()}
    assert set(tally.vms) == {2}


def test_people_are_named_once_and_by_who_they_are() -> None:
    vms = [
        line(user_state="connected"),
        line(user_state="connected", real_user="bruno"),
        line(user_state="connecting"),
        line(user="eva"),
    ]
    assert people(vms) == ["alice", "bruno"]
    assert kind(line(failure="x", state="running")) == "running"
