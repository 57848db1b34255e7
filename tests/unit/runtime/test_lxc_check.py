"""Whether root may use the guests' ids."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.errors import BackendError
from appliance.runtime.lxc import check_range


@pytest.mark.parametrize(
    "line", ["root:1000000:65536", "0:100000:4000000", "other:1:5\nroot:1000000:4293900000\n"]
)
def test_a_range_that_holds_the_first_guest_is_enough(tmp_path: Path, line: str) -> None:
    (tmp_path / "subuid").write_text(line)
    check_range(tmp_path / "subuid")


@pytest.mark.parametrize(
    "line",
    ["", "alice:1000000:65536", "root:100000:65536", "root:1000000:100", "root:nothing", "root:1000000"],
)
def test_less_is_refused_with_the_remedy(tmp_path: Path, line: str) -> None:
    (tmp_path / "subuid").write_text(line)
    with pytest.raises(BackendError, match=r"no range from 1000000 \(run scripts/setup\)"):
        check_range(tmp_path / "subuid")


def test_a_missing_file_is_refused_too(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="run scripts/setup"):
        check_range(tmp_path / "subuid")
