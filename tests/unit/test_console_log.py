"""What a guest has printed is shown whole, but for what a terminal would obey."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.console_log import TAIL_BYTES, bound, harmless, tail


@pytest.mark.parametrize("begin", ["]", "P", "X", "^", "_"])
def test_a_string_that_does_not_end_on_its_line_takes_nothing_with_it(begin: str, tmp_path: Path) -> None:
    printed = f"first\n\x1b{begin}x\nsecret line 2\r\nline 3\rline 4\n".encode()
    assert harmless(printed) == "first\nx\nsecret line 2\nline 3\nline 4\n"
    (tmp_path / "log").write_bytes(printed)
    assert tail((tmp_path / "log",), 3) == "secret line 2\nline 3\nline 4"
    assert harmless(f"a\x1b{begin}x\x07b\x1b{begin}y\x1b\\c\x1b{begin}".encode()) == "abc"


@pytest.mark.parametrize(
    "act",
    [
        "\x1b[2J",
        "\x1b[?1049h",
        "\x1b(B",
        "\x1b7",
        "\x1bc",
        "\x1b",
        "\x07",
        "\x08",
        "\x9b",
        "\u202e",
        "\u200f",
    ],
)
def test_what_acts_is_taken_out(act: str) -> None:
    assert harmless(f"before{act}".encode()) == "before"


def test_no_lines_are_none(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"one\ntwo\n")
    assert tail((tmp_path / "log",), 0) == ""
    assert tail((tmp_path / "log",), 9) == "one\ntwo"


def test_a_log_that_has_outgrown_its_bound_is_cut_and_its_end_kept(tmp_path: Path) -> None:
    log, before = tmp_path / "log", tmp_path / "before"
    log.write_bytes(b"x" * 200_000 + b"the end\n")
    assert not bound(log, before, 300_000)
    assert bound(log, before, 100_000)
    assert log.read_bytes() == b""
    assert (before.stat().st_size, tail((before,), 1)[-7:]) == (TAIL_BYTES, "the end")


def test_a_log_is_cut_also_if_its_end_cannot_be_kept(tmp_path: Path) -> None:
    log, before = tmp_path / "log", tmp_path / "before"
    log.write_bytes(b"x" * 200_000)
    before.symlink_to("/dev/full")
    assert bound(log, before, 100_000)
    assert log.read_bytes() == b""
    assert not before.is_symlink()
