"""What runs the processors of virtual machines is decided by a guest that really runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.errors import BackendError
from appliance.runtime import kvm_accel
from appliance.runtime.kvm_accel import SECTOR
from tests.support.boot_sector import assembled

pytestmark = pytest.mark.kvm


def test_the_trial_is_what_its_source_says(tmp_path: Path) -> None:
    source = (Path(__file__).parent / "trial.S").read_text()
    assert assembled(source, tmp_path) == SECTOR


async def test_software_passes_the_trial() -> None:
    assert await kvm_accel.trial("tcg") is None


async def test_what_is_not_there_fails_it() -> None:
    assert "failed" in str(await kvm_accel.trial("nothing-of-that-name"))


async def test_each_setting_comes_to_what_the_trial_says() -> None:
    failure = await kvm_accel.trial("kvm")
    assert (await kvm_accel.choose("tcg")).accel == "tcg"
    assert (await kvm_accel.choose("auto")).accel == ("kvm" if failure is None else "tcg")
    if failure is None:
        assert (await kvm_accel.choose("kvm")).accel == "kvm"
    else:
        with pytest.raises(BackendError, match=r"vm\.kvm\.accel is kvm"):
            await kvm_accel.choose("kvm")
