"""Tools of the guest, run in a known environment; what they complain about becomes one line."""

from __future__ import annotations

import subprocess
from typing import Iterator, Sequence

ENV = {"PATH": "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C"}


class ToolError(Exception):
    """A tool is missing or has failed; the message names it and tells its last word."""


def run(argv: Sequence[str], stdin: str = "", allowed: Sequence[int] = (0,)) -> "tuple[int, str]":
    """Run a tool to its end; its exit status, one of `allowed`, and what it printed. Raises ToolError."""
    try:
        done = subprocess.run(argv, input=stdin, text=True, capture_output=True, env=ENV, check=False)
    except OSError as exc:
        raise ToolError(f"{argv[0]}: {exc.strerror}") from exc
    if done.returncode not in allowed:
        raise ToolError(f"{argv[0]} failed: {_last_line(done.stderr) or f'status {done.returncode}'}")
    return done.returncode, done.stdout


def _last_line(text: str) -> str:
    lines: Iterator[str] = (line.strip() for line in reversed(text.splitlines()))
    return next((line for line in lines if line), "")
