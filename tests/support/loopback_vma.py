"""The VMA's zipapp as one process on loopback: enough for everything that needs neither root nor X."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from appliance.vma_client import VmaClient
from images.build_vma import zipapp


class LoopbackVma:
    """A VMA that anybody on this machine may call. Restart it with `kill` and `boot`."""

    def __init__(self, work: Path) -> None:
        self.work, self.port = work, _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        (work / "qvd-vma.pyz").write_bytes(zipapp())

    @property
    def client(self) -> VmaClient:
        return VmaClient("127.0.0.1", self.port)

    def settings(self, **values: str) -> None:
        """Write vma.conf; `__` stands for a dot in a key."""
        lines = {
            "path.run": str(self.work / "run"),
            "path.log": str(self.work / "log"),
            "vma.rpc.allow": "127.0.0.1",
            "vma.rpc.port": str(self.port),
            **{key.replace("__", "."): value for key, value in values.items()},
        }
        (self.work / "vma.conf").write_text("".join(f"{key} = {value}\n" for key, value in lines.items()))

    def script(self, name: str, body: str) -> str:
        """An executable shell script; where it is. `$WORK` in it is the VMA's directory."""
        path = self.work / name
        path.write_text(f"#!/bin/sh\nWORK={self.work}\n{body}\n")
        path.chmod(0o755)
        return str(path)

    def boot(self) -> None:
        with (self.work / "vma.log").open("ab") as output:
            self._process = subprocess.Popen(
                ["/usr/bin/python3", "-S", "-I", str(self.work / "qvd-vma.pyz"), str(self.work / "vma.conf")],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        wait_for(self._answers, self.logs)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    def logs(self) -> str:
        paths = [self.work / "vma.log", *sorted((self.work / "log").glob("*"))]
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')}" for path in paths)

    def close(self) -> None:
        """End the VMA and every hook that it has started: all of them name its directory."""
        if self._process is not None:
            self.kill()
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdecimal() and str(self.work).encode() in (entry / "cmdline").read_bytes():
                    os.kill(int(entry.name), signal.SIGKILL)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 5) as sock:
            sock.sendall(b"GET /vma/ping HTTP/1.1\r\n\r\n")
            return sock.recv(100).startswith(b"HTTP/1.1 200")
        return False


@contextlib.contextmanager
def loopback_vma(work: Path) -> Iterator[LoopbackVma]:
    """A VMA that is about to boot; nothing of it runs afterwards."""
    vma = LoopbackVma(work)
    vma.settings()
    try:
        yield vma
    finally:
        vma.close()


def wait_for(true: Callable[[], bool], evidence: Callable[[], str], within_s: float = 30.0) -> None:
    """Wait for something that must come; fail with evidence."""
    deadline = time.monotonic() + within_s
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError(evidence())
        time.sleep(0.02)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
