"""The demo with a virtual machine: the same desktop and time line, and nothing left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.demo import assert_seen, making_demos, soon
from tests.support.footprint import footprint

pytestmark = [pytest.mark.kvm, pytest.mark.alone, pytest.mark.timeout(900)]

ENDS_WITHIN_S = 600


def test_a_desktop_in_a_virtual_machine_from_nothing(kvm_image: Path, tmp_path: Path) -> None:
    with making_demos(tmp_path) as demos:
        demo = demos("demo")
        before = footprint()
        said = demo.once("--backend", "kvm", limit_s=ENDS_WITHIN_S)
        assert_seen(demo, said)
        assert demo.remains() == []
        assert sorted(path.name for path in demo.directory.iterdir()) == [
            "appliance.log",
            "client.log",
            "desktop.png",
        ]
        assert soon(lambda: footprint().network == before.network, 5), f"{footprint()}\n{before}"
        assert footprint().displays <= before.displays
