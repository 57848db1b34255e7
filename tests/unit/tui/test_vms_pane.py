"""What the pane of desktops tells about one of them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast
from unittest.mock import AsyncMock

from appliance.config import Settings
from appliance.model import VmId
from appliance.runtime.console_capture import CAPTURE_BYTES, PARTS, Capture
from appliance.storage.live import VmLine
from appliance.storage.paths import Paths
from appliance.tui.panes.vms import LOG_LINES, VmsPane


async def test_the_last_lines_of_a_console_are_there_when_its_ring_has_just_turned(tmp_path: Path) -> None:
    settings = Settings({"path.run": str(tmp_path)})
    capture = Capture(Paths(settings).console_capture(VmId(7)))
    for number in range(CAPTURE_BYTES // PARTS // 64):
        capture.append(b"%062d\r\n" % number)
    capture.append(b"the last line\r\n")
    capture.close()
    database = SimpleNamespace(properties=AsyncMock(return_value={}), history=AsyncMock(return_value=[]))
    pane = SimpleNamespace(site=SimpleNamespace(settings=settings, database=database))
    sections = await VmsPane.more(cast("VmsPane", pane), cast("VmLine", SimpleNamespace(id=7)))
    lines = [text for _, (text, _) in sections[-1].lines]
    assert len(lines) == LOG_LINES
    assert lines[-1] == "the last line"
