"""What /proc tells about processes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from appliance.runtime import processes

WORDS = ["cat", "-", *("x" * 5000 for _ in range(20)), "", "a\r\nb", "\udcff"]
"""Longer than any one read of the kernel's, with what text files would change."""


@contextmanager
def running(words: list[str]) -> Iterator[int]:
    """A program that passes on what it reads. It has no words before its first: while it is loaded."""
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(b".")
        assert process.stdout.read(1) == b"."
        yield process.pid
    finally:
        process.kill()
        process.communicate()


def test_a_command_is_told_word_by_word_and_whole() -> None:
    with running(WORDS) as pid:
        assert processes.command(pid) == [*WORDS[:-1], "\ufffd"]
        assert pid in processes.pids()


def test_who_is_gone_has_no_words() -> None:
    with running(["cat"]) as pid:
        assert os.getpid() in processes.pids()
    assert processes.command(pid) == []
    assert pid not in processes.pids()
