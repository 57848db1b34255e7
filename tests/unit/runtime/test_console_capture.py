from __future__ import annotations

import logging
from pathlib import Path

import pytest

from appliance.runtime.console_capture import Capture


def test_the_pair_of_files_stays_within_its_limit_and_loses_only_the_oldest(tmp_path: Path) -> None:
    capture = Capture(tmp_path / "deep" / "7.tty", limit=1000)
    written = b"".join(b"line %04d\n" % number for number in range(500))
    for start in range(0, len(written), 50):
        capture.append(written[start : start + 50])
        assert sum(file.stat().st_size for file in (tmp_path / "deep").iterdir()) <= 1000
    assert capture.tail(450) == written[-450:]
    assert 500 <= len(capture.tail(10_000)) <= 1000
    assert written.endswith(capture.tail(10_000))
    capture.close()


def test_what_a_former_daemon_kept_is_found_and_continued(tmp_path: Path) -> None:
    former = Capture(tmp_path / "7.tty")
    former.append(b"before ")
    former.close()
    capture = Capture(tmp_path / "7.tty")
    assert capture.tail(100) == b"before "
    capture.append(b"after")
    assert capture.tail(100) == b"before after"
    assert (tmp_path / "7.tty").stat().st_mode & 0o777 == 0o600
    capture.close()


def test_a_capture_that_cannot_be_written_is_reported_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "7.tty").mkdir()
    capture = Capture(tmp_path / "7.tty")
    with caplog.at_level(logging.WARNING):
        capture.append(b"one")
        capture.append(b"two")
    assert [record.getMessage() for record in caplog.records] == ["the console cannot be captured"]
    assert capture.tail(10) == b""
