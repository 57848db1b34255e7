"""A virtual machine under plain QEMU: emulated, with user-mode networking on loopback, and a serial line.

There is no libvirt and no bridge here: this is for tests of images. The host's end of the guest's network is
the guest's gateway, so that its VMA answers.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from appliance.vma import wire

BOOTS_WITHIN_S = 240
ENDS_WITHIN_S = 90
_ESCAPES = re.compile(r"\x1b\[[?0-9;]*[A-Za-z]")


class QemuGuest:
    """One run of a guest from its disks; nothing of it is left when the block ends."""

    def __init__(
        self, directory: Path, root: Path, *, home: Path | None = None, host_name: str = "guest"
    ) -> None:
        self._directory = directory
        self._port = _free_port()
        self._said = bytearray()
        self._reader = threading.Thread(target=self._read_line, name="serial")
        self._monitor: socket.socket | None = None
        self._line: socket.socket | None = None
        self._argv = [
            *("qemu-system-x86_64", "-machine", "pc", "-accel", "tcg,thread=multi", "-m", "512", "-smp", "2"),
            *("-nodefaults", "-display", "none", "-no-reboot"),
            *("-chardev", f"socket,id=line,path={directory}/serial,server=on,wait=off"),
            *("-serial", "chardev:line", "-qmp", f"unix:{directory}/monitor,server=on,wait=off"),
            *("-netdev", f"user,id=net,hostname={host_name},hostfwd=tcp:127.0.0.1:{self._port}-:{wire.PORT}"),
            *("-device", "virtio-net-pci,netdev=net,romfile="),
            *_disk("os", root),
            *(_disk("home", home) if home else ()),
        ]

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(self._argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            self._monitor = self._connect("monitor")
            self._line = self._connect("serial")
            self._reader.start()
            self.order("qmp_capabilities")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, _: TracebackType | None
    ) -> None:
        if exc is not None:
            exc.add_note(f"serial line:\n{self.serial()[-4000:]}")
        self._end()

    def _end(self) -> None:
        self.process.kill()
        self.process.wait()
        if self._reader.ident is not None:
            self._reader.join()
        if self.process.stdout:
            self.process.stdout.close()
        for end in (self._monitor, self._line):
            if end is not None:
                end.close()

    def _connect(self, name: str) -> socket.socket:
        end = socket.socket(socket.AF_UNIX)

        def connected() -> bool:
            if self.process.poll() is not None:
                said = self.process.stdout.read() if self.process.stdout else b""
                raise AssertionError(f"QEMU ended: {said.decode()}")
            with contextlib.suppress(OSError):
                end.connect(str(self._directory / name))
                return True
            return False

        wait_for(f"QEMU's {name}", connected, 30)
        return end

    def order(self, command: str, **arguments: object) -> Any:
        """Give QEMU an order by its monitor; what it answers."""
        assert self._monitor is not None
        self._monitor.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        self._monitor.settimeout(30)
        buffer = b""
        while True:
            data = self._monitor.recv(65536)
            assert data, "QEMU has closed its monitor"
            buffer += data
            *lines, buffer = buffer.split(b"\n")
            for line in lines:
                answer = json.loads(line)
                assert "error" not in answer, answer
                if "return" in answer:
                    return answer["return"]

    # -- the agent

    def call(self, method: str, params: Mapping[str, str] | None = None) -> Any:
        """What the guest's VMA answers; OSError while there is none."""
        with socket.create_connection(("127.0.0.1", self._port), timeout=3) as sock:
            sock.sendall(wire.encode_call(method, params or {}))
            parser = wire.ReplyParser()
            while True:
                data = sock.recv(65536)
                if not data:
                    raise ConnectionResetError("the guest has hung up")
                reply = parser.feed(data)
                if reply is not None:
                    return reply.value()

    def answers(self) -> bool:
        """Whether the VMA answers a ping."""
        with contextlib.suppress(OSError):
            return bool(self.call(wire.PING) == 1)
        return False

    def boots(self) -> None:
        """Wait until the VMA answers."""
        self.until("the VMA answers", self.answers, BOOTS_WITHIN_S)

    def until(self, what: str, condition: Callable[[], bool], limit_s: float = 120) -> None:
        """Wait for a condition, as long as the guest runs."""

        def holds() -> bool:
            assert self.process.poll() is None, f"QEMU ended, and not yet: {what}"
            return condition()

        wait_for(what, holds, limit_s)

    # -- the serial line

    def serial(self) -> str:
        """All that the guest has written to its serial line."""
        return self._said.decode(errors="replace")

    def says(self, *words: str, since: int = 0, limit_s: float = BOOTS_WITHIN_S) -> str:
        """Wait until the serial line shows all `words` after the position `since`; what it then shows."""
        self.until(
            f"{words} on the serial line",
            lambda: all(word in self.serial()[since:] for word in words),
            limit_s,
        )
        return self.serial()[since:]

    def shell(self, command: str, limit_s: float = 120) -> str:
        """Run a command in the shell on the serial line; what it prints. AssertionError if it fails."""
        assert self._line is not None
        since = len(self.serial())
        # Computed marks: the line shows the command too, and twice if it came before the prompt.
        self._line.sendall(f"echo begin-$((40 + 2)); {command}; echo end-of-$((40 + 2))-$?.\n".encode())
        marked = re.compile(r"begin-42\r?\n(.*)end-of-42-(\d+)\.", re.DOTALL)
        self.until(f"the end of {command!r}", lambda: bool(marked.search(self.serial(), since)), limit_s)
        done = marked.search(self.serial(), since)
        assert done is not None
        text = _ESCAPES.sub("", done[1]).replace("\r", "").strip()
        assert done[2] == "0", f"{command}: {text}"
        return text

    def _read_line(self) -> None:
        """Read until the end: a line that nobody reads stops the guest's console, and its boot."""
        with contextlib.suppress(OSError):
            while self._line is not None and (data := self._line.recv(65536)):
                self._said += data

    # -- the end

    def press_power(self) -> None:
        """Ask for an orderly end by ACPI, as the host does."""
        self.order("system_powerdown")

    def has_ended(self, limit_s: float = ENDS_WITHIN_S) -> int:
        """Wait until QEMU has ended by itself; its exit status."""
        wait_for("QEMU's end", lambda: self.process.poll() is not None, limit_s)
        return self.process.wait()


def wait_for(what: str, condition: Callable[[], bool], limit_s: float) -> None:
    """Ask until it is so."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {limit_s} s: {what}"
        time.sleep(0.1)


def overlay(base: Path, path: Path, size: str | None = None) -> Path:
    """A new disk in front of `base`, which stays as it is."""
    _create("-b", str(base), "-F", "qcow2", str(path), *([size] if size else []))
    return path


def blank(path: Path, size: str) -> Path:
    """A new empty disk."""
    _create(str(path), size)
    return path


def _create(*words: str) -> None:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *words], check=True, timeout=60)


def _disk(serial: str, path: Path) -> Sequence[str]:
    return (
        *("-drive", f"if=none,id={serial},file={path},format=qcow2,discard=unmap,detect-zeroes=unmap"),
        *("-device", f"virtio-blk-pci,drive={serial},serial={serial}"),
    )


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
