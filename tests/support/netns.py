"""Network namespaces for tests that start real guests: made, entered by the running thread, and removed."""

from __future__ import annotations

import ctypes
import os
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

IN_NETNS = Path(__file__).resolve().parents[2] / "scripts" / "in-netns"
CLONE_FS = 0x200
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def namespace(prefix: str = "qvdt") -> Iterator[str]:
    """A fresh network namespace with a loopback; its processes are killed at the end, then it goes."""
    name = f"{prefix}{secrets.token_hex(4)}"
    _tool("ip", "netns", "add", name)
    try:
        _tool("ip", "-n", name, "link", "set", "lo", "up")
        yield name
    finally:
        for pid in subprocess.run(
            ["ip", "netns", "pids", name], capture_output=True, text=True, check=False
        ).stdout.split():
            with suppress(FileNotFoundError, ProcessLookupError):  # it may end meanwhile
                print(f"left running in {name}: {pid} {Path(f'/proc/{pid}/comm').read_text().strip()}")
                os.kill(int(pid), 9)
        _tool("ip", "netns", "del", name)


@contextmanager
def entered(name: str) -> Iterator[None]:
    """Take this thread, and the threads and processes that it starts, into a namespace and its /sys."""
    where = Path.cwd()
    holder = subprocess.Popen(
        [IN_NETNS, name, "sh", "-c", "echo ready; exec sleep infinity"], stdout=subprocess.PIPE
    )
    home = [os.open(f"/proc/thread-self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in ("mnt", "net")]
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"ready\n", "scripts/in-netns failed"
        there = [
            os.open(f"/proc/{holder.pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in ("mnt", "net")
        ]
        # Threads share their idea of / and cannot move between mount namespaces until they stop that.
        _call(_libc.unshare, CLONE_FS)
        _move(there)
        os.chdir(where)
        try:
            yield
        finally:
            _call(_libc.unshare, CLONE_FS)
            _move(home)
            os.chdir(where)
            for descriptor in there:
                os.close(descriptor)
    finally:
        for descriptor in home:
            os.close(descriptor)
        holder.kill()
        holder.communicate()


def _move(namespaces: list[int]) -> None:
    for descriptor in namespaces:
        _call(_libc.setns, descriptor, 0)


def _call(function: ctypes._NamedFuncPointer, *arguments: int) -> None:
    if function(*arguments) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _tool(*words: str) -> None:
    subprocess.run(words, check=True)
