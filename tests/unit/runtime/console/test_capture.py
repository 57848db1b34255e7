from __future__ import annotations

import logging
from pathlib import Path

import pytest

from appliance.runtime.console_capture import LOST, UNWRITTEN_BYTES, Capture


def test_the_pair_of_files_stays_within_its_limit_and_loses_only_the_oldest(tmp_path: Path) -> None:
    capture = Capture(tmp_path / "deep" / "7.tty", limit=1000)
    written = b"".join(b"line %04d\n" % number for number in range(500))
    for start in range(0, len(written), 50):
        capture.append(written[start : start + 50])
        assert sum(file.stat().st_size for file in (tmp_path / "deep").iterdir()) <= 1000
    assert capture.tail(450) == written[-450:]
    assert 800 <= len(capture.tail(10_000)) <= 1000
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
    assert capture.tail(10) == b"onetwo"


def test_what_could_not_be_written_is_written_later_and_a_line_says_what_is_lost(tmp_path: Path) -> None:
    file = tmp_path / "7.tty"
    capture = Capture(file)
    capture.append(b"before ")
    capture.close()
    file.rename(tmp_path / "aside")
    file.mkdir()
    capture.append(b"kept ")
    file.rmdir()
    (tmp_path / "aside").rename(file)
    capture.append(b"after ")
    assert file.read_bytes() == capture.tail(1000) == b"before kept after "
    capture.close()
    file.rename(tmp_path / "aside")
    file.mkdir()
    for _ in range(20):
        capture.append(b"x" * 10_000)
    assert capture.tail(10**6) == LOST + b"x" * UNWRITTEN_BYTES
    file.rmdir()
    (tmp_path / "aside").rename(file)
    capture.append(b"end")
    assert capture.tail(10**6) == b"before kept after " + LOST + b"x" * UNWRITTEN_BYTES + b"end"
    capture.close()


def test_a_reader_goes_on_where_it_was_while_files_change_places(tmp_path: Path) -> None:
    capture = Capture(tmp_path / "7.tty", limit=1000)
    position, read, written = 0, b"", b""
    for number in range(500):
        piece = b"%03d " % number
        capture.append(piece)
        written += piece
        if number % 7 == 0:
            got, position = capture.read(position, 1000)
            read += got
    assert position == capture.end - 4 * (499 % 7)
    assert written.startswith(read)
    assert capture.read(position, 3)[0] == written[position : position + 3]
    assert capture.read(0, 2)[1] == capture.first + 2
    capture.close()


def test_files_that_somebody_has_removed_are_left_out(tmp_path: Path) -> None:
    capture = Capture(tmp_path / "7.tty", limit=1000)
    for number in range(300):
        capture.append(b"%03d " % number)
    (tmp_path / "7.tty.2").unlink()
    assert 200 <= len(capture.tail(1000)) < 1000
    assert capture.tail(1000).endswith(b"298 299 ")
    capture.close()


def test_a_reader_goes_on_where_it_was_over_what_was_lost(tmp_path: Path) -> None:
    file = tmp_path / "7.tty"
    capture = Capture(file, limit=1_000_000)
    said = [b"%05d\n" % number for number in range(50_000)]
    capture.append(b"".join(said[:10_000]))
    within_the_file = capture.read(0, 30_000)
    for round_ in range(2):
        capture.close()
        file.rename(tmp_path / "aside")
        file.mkdir()
        for number in range(10_000 + 15_000 * round_, 25_000 + 15_000 * round_, 1000):
            capture.append(b"".join(said[number : number + 1000]))
        after_the_loss = capture.read(capture.end - 6000, 3000)
        file.rmdir()
        (tmp_path / "aside").rename(file)
        capture.append(said[40_000 + round_])
        assert capture.read(after_the_loss[1], 10**6)[0].startswith(
            b"".join(said[24_500 + 15_000 * round_ : 25_000 + 15_000 * round_])
        )
    rest, end = capture.read(within_the_file[1], 10**6)
    assert end == capture.end
    assert (within_the_file[0] + rest).startswith(b"".join(said[:10_000]) + LOST)
    assert (within_the_file[0] + rest).count(LOST) == 2
    whole = [word for word in (within_the_file[0] + rest).replace(LOST, b"").split() if len(word) == 5]
    assert len(whole) == len(set(whole)) > 31_000
    assert (capture.first, capture.read(capture.first, 6)[0]) == (0, said[0])
    capture.close()
