"""What a guest wrote to its console, made harmless."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from appliance.runtime import lxc_config
from appliance.runtime.lxc_command import REPLY, REQUEST
from appliance.runtime.lxc_console import Line, tail


async def test_a_line_that_opens_after_its_opener_has_left_is_closed() -> None:
    name = f"qvdt-{os.getpid()}"
    reader, writer = os.pipe()
    with socket.socket(socket.AF_UNIX) as monitor:
        monitor.bind(f"\0{lxc_config.VIEW}/{name}/command")
        monitor.listen()
        opening = asyncio.ensure_future(Line(name, os.getpid).open())
        connection, _ = await asyncio.to_thread(monitor.accept)
        with connection:
            await asyncio.to_thread(connection.recv, REQUEST.size)
            opening.cancel()
            await asyncio.sleep(0)
            socket.send_fds(connection, [REPLY.pack(0, 0, 0)], [reader])
            os.close(reader)
            with pytest.raises(asyncio.CancelledError):
                await opening
            with pytest.raises(BrokenPipeError):
                os.write(writer, b".")
    os.close(writer)


def test_the_last_lines_without_the_empty_ones(tmp_path: Path) -> None:
    log = tmp_path / "1.log"
    log.write_bytes(b"one\r\n\r\ntwo\r\nthree\n\n")
    assert tail(log, 2) == "two\nthree"


def test_a_log_that_was_just_begun_is_preceded_by_the_one_before(tmp_path: Path) -> None:
    log = tmp_path / "1.log"
    (tmp_path / "1.log.1").write_bytes(b"".join(b"line %d\n" % number for number in range(20_000)))
    log.write_bytes(b"the end\n")
    lines = tail(log, 200).splitlines()
    assert (len(lines), lines[0], lines[-1]) == (200, "line 19801", "the end")
    log.unlink()
    assert tail(log, 1) == "line 19999"


def test_a_log_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert tail(tmp_path / "none.log", 5) == ""


@pytest.mark.parametrize(
    "evil",
    [
        "\x1b[31m",
        "\x1b[6n",
        "\x1b]0;title\x07",
        "\x1b]52;c;cm0gLXJm\x1b\\",
        "\x1bP1;2q\x1b\\",
        "\x1bc",
        "\x1b(B",
        "\x07",
        "\x08",
        "\x9b",
        "\x00",
        "\u202e",
    ],
)
def test_nothing_reaches_the_readers_terminal(tmp_path: Path, evil: str) -> None:
    log = tmp_path / "1.log"
    log.write_text(f"before{evil}after\n", encoding="utf-8")
    assert tail(log, 1) == "beforeafter"


def test_an_escape_cut_in_two_is_harmless(tmp_path: Path) -> None:
    log = tmp_path / "1.log"
    log.write_bytes(b"start \x1b[3")
    assert "\x1b" not in tail(log, 1)
    log.write_bytes(b"\xff\xfe\xf0 bytes that are no text")
    assert tail(log, 1).endswith("bytes that are no text")


def test_only_the_end_of_a_long_log_is_read(tmp_path: Path) -> None:
    log = tmp_path / "1.log"
    log.write_text("x" * 1_000_000 + "\nend\n")
    assert tail(log, 1) == "end"
    assert len(tail(log, 2)) < 70_000
