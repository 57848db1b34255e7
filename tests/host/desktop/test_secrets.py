"""Secrets are nowhere but where they are needed, and the VMA takes no orders from inside."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.desktop import Desk
from tests.support.inside import identity, inside, root

pytestmark = [pytest.mark.host, pytest.mark.timeout(300)]

SLAVE_KEY = Path("run/qvd/slave.conf")
ASK = """
import socket, sys
try:
    vma = socket.create_connection((sys.argv[1], 3030), 2)
    vma.sendall(b"GET /vma/x_state HTTP/1.1\\r\\n\\r\\n")
    print(len(vma.recv(4096)), "bytes")
except OSError as exc:
    print("0 bytes:", exc)
"""


def holders(secret: bytes, *directories: Path) -> Iterator[Path]:
    """The files below `directories`, command lines and environments that hold `secret`."""
    files = [path for directory in directories for path in directory.rglob("*") if not path.is_symlink()]
    processes = [path for name in ("cmdline", "environ") for path in Path("/proc").glob(f"[0-9]*/{name}")]
    for path in (*filter(Path.is_file, files), *processes):
        with contextlib.suppress(OSError):
            if secret in path.read_bytes():
                yield path


def test_no_log_and_no_process_tells_a_secret(desk: Desk) -> None:
    trial, good = desk.trial, desk.trial.password_file.read_text()
    trial.password_file.write_text("wrong-canary-0123456789\n")
    refused = desk.open()
    assert refused.ends_by_itself() == 3
    refused.leave()
    trial.password_file.write_text(good)
    screen = desk.open_and_see()
    guest = root(desk.init())
    key = (guest / SLAVE_KEY).read_bytes()
    places = [trial.run, *(guest / name for name in ("run", "tmp", "var/log", "home"))]
    logs = [*trial.directory.glob("*.log"), trial.storage / "qvd.db-wal"]
    assert len(key) == 64
    assert "log-in refused" in trial.log.read_text()
    for secret, expected in ((good.strip().encode(), []), (b"wrong-canary", []), (key, [guest / SLAVE_KEY])):
        assert list(holders(secret, *places)) == expected
        assert [log for log in logs if secret in log.read_bytes()] == []
    screen.leave()


def test_nobody_inside_gives_orders_to_the_vma(desk: Desk) -> None:
    screen = desk.open_and_see()
    init = desk.init()
    inside_address = identity(init).address
    uid = int(inside(init, "id", "-u", "alice"))
    gateway = inside(init, "ip", "route", "show", "default").split()[2]
    for address in ("127.0.0.1", inside_address, gateway):
        for who in (0, uid):
            answer = inside(init, "python3", "-c", ASK, address, uid=who)
            assert answer.startswith("0 bytes"), f"the VMA answers uid {who} at {address}"
    screen.leave()
