"""What was left behind, from rows and sightings alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from appliance.model import DiId, InstallationId, Kept, KeptKind, Mark, VmId
from appliance.runtime.survey import Found, Plan, Rows, plan

OURS, THEIRS = InstallationId("0a1b2c3d"), InstallationId("ffffffff")
ONE, TWO, GONE = VmId(1), VmId(2), VmId(9)
ROWS = Rows(vms={ONE: "u-1", TWO: "u-2"}, dis={DiId(1)}, given={DiId(1), DiId(4)}, kept=())
AT = datetime(2030, 1, 31, tzinfo=UTC)


def mark(vm_id: VmId, uuid: str = "", installation: InstallationId = OURS) -> Mark:
    return Mark(installation=installation, vm_id=vm_id, vm_uuid=uuid or f"u-{vm_id}", di_id=DiId(1))


def kept(path: str, vm_id: VmId, kind: KeptKind = KeptKind.ROOT) -> Kept:
    return Kept(id=5, kind=kind, path=path, vm_id=vm_id, vm="x", owner="alice", reason="", at=AT, until=AT)


def planned(found: Found, rows: Rows = ROWS, *, busy: tuple[VmId, ...] = (), keeps: bool = False) -> Plan:
    return plan(rows, found, installation=OURS, busy=busy, keeps_roots=keeps)


def test_a_host_without_traces_has_no_leaks() -> None:
    homes = {ONE: mark(ONE), TWO: mark(TWO)}
    assert planned(Found(homes=homes, consoles=(ONE,), images=(DiId(1),))).is_empty


def test_traces_of_vms_at_rest_are_tidied_and_those_of_others_are_theirs() -> None:
    found = Found(
        traces={ONE: ["lock", "control groups"], TWO: ["link"], GONE: ["configuration"]},
        roots={ONE: mark(ONE), TWO: mark(TWO)},
    )
    assert planned(found, busy=(TWO,)).tidy == {
        ONE: ("lock", "control groups", "root"),
        GONE: ("configuration",),
    }
    assert planned(found, busy=(ONE, TWO, GONE)).is_empty


@pytest.mark.parametrize(("vm_id", "tidied"), [(ONE, False), (GONE, True)])
def test_a_root_that_survives_a_stop_is_left_to_its_vm(vm_id: VmId, tidied: bool) -> None:
    found = Found(roots={vm_id: mark(vm_id)})
    assert (vm_id in planned(found, keeps=True).tidy) is tidied
    assert vm_id in planned(found, keeps=False).tidy


@pytest.mark.parametrize("strange", [None, mark(ONE, installation=THEIRS)])
def test_what_does_not_carry_our_mark_is_told_of_and_left_alone(strange: Mark | None) -> None:
    found = Found(roots={ONE: strange}, homes={ONE: strange, GONE: strange}, kept={Path("/k/1"): strange})
    left = planned(found)
    assert left.is_empty
    assert len(left.strangers) == 4


def test_a_home_without_a_vm_is_kept_and_not_removed() -> None:
    found = Found(homes={GONE: mark(GONE)})
    assert planned(found).homes == (mark(GONE),)
    known = replace(ROWS, kept=[kept("/h/9-fs", GONE, KeptKind.HOME)])
    assert planned(found, known).is_empty


def test_a_home_of_another_vm_under_this_number_is_a_strangers() -> None:
    left = planned(Found(homes={ONE: mark(ONE, "another")}))
    assert left.is_empty
    assert left.strangers == ("the home of number 1 belonged to another VM of this number",)


def test_roots_put_aside_get_rows_and_rows_of_nothing_go() -> None:
    aside = Path("/kept/1-x")
    assert planned(Found(kept={aside: mark(ONE)})).kept == {aside: mark(ONE)}
    rows = replace(ROWS, kept=[kept(str(aside), ONE)])
    assert planned(Found(kept={aside: mark(ONE)}), rows).is_empty
    assert planned(Found(missing=[5]), rows).gone == (5,)


def test_what_is_being_put_aside_is_not_touched() -> None:
    """Its row comes first, so for a moment there is no thing to it; then the thing is there."""
    rows = replace(ROWS, kept=[kept("/kept/1-x", ONE)])
    assert planned(Found(missing=[5]), rows, busy=(ONE,)).is_empty
    assert planned(Found(kept={Path("/kept/1-y"): mark(ONE)}), rows, busy=(ONE,)).kept == {}


def test_consoles_of_deleted_vms_and_images_without_rows_go() -> None:
    left = planned(Found(consoles=(ONE, GONE), images=(DiId(1), DiId(4))))
    assert left.consoles == (GONE,)
    assert left.images == (DiId(4),)
    assert left.strangers == ()


def test_an_image_of_which_this_database_never_heard_is_left_alone() -> None:
    """So after another database was begun, or an older one restored: nobody of ours has left it behind."""
    left = planned(Found(images=(DiId(1), DiId(7))))
    assert left.is_empty
    assert left.strangers == ("the image of number 7 was never given this number by this database",)
