"""Witnesses of sessions: every owner that a VM's row ever had, and every connection to its nxagent."""

from __future__ import annotations

import contextlib
import itertools
import json
import sqlite3
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tests.support.desktop import Desk, Init, inits_of

X_PORT = 4100
LISTENING = "0A"
GONE = {"06", "07", LISTENING}
"""TCP states that are no connection: TIME_WAIT, CLOSE, LISTEN."""

HISTORY = """
CREATE TABLE witnessed (n INTEGER PRIMARY KEY, user_state TEXT, session TEXT);
CREATE TRIGGER witness AFTER UPDATE OF user_state, l7r_session ON vm_runtimes
WHEN old.user_state IS NOT new.user_state OR old.l7r_session IS NOT new.l7r_session
BEGIN INSERT INTO witnessed (user_state, session) VALUES (new.user_state, new.l7r_session); END;
"""
SYNS = f"""
table inet witness {{
    chain out {{
        type filter hook output priority raw;
        tcp dport {X_PORT} tcp flags & (syn | ack) == syn counter
    }}
}}
"""


class Owner(NamedTuple):
    """Who has the desktop, and how far that session is."""

    state: str
    session: str | None


FREE = Owner("disconnected", None)


def database(desk: Desk) -> contextlib.closing[sqlite3.Connection]:
    """The installation's database, beside the daemon."""
    return contextlib.closing(
        sqlite3.connect(desk.trial.storage / "qvd.db", timeout=10, isolation_level=None)
    )


@dataclass(slots=True)
class Ownership:
    """Every owner that the one VM's row has had since `witness`; the database itself keeps the list."""

    desk: Desk

    def owners(self) -> list[Owner]:
        """All of them, from nobody on."""
        with database(self.desk) as connection:
            rows = connection.execute("SELECT user_state, session FROM witnessed ORDER BY n").fetchall()
        return [FREE, *(Owner(*row) for row in rows)]

    def sessions(self) -> int:
        """How many sessions have got as far as being connected."""
        return sum(owner.state == "connected" for owner in self.owners())


def illegal_steps(owners: Sequence[Owner]) -> list[str]:
    """What breaks the rule free -> connecting -> connected -> free, each round with a new session."""
    broken = []
    ended: set[str | None] = set()
    for was, now in itertools.pairwise(owners):
        match was.state, now.state:
            case "disconnected", "connecting":
                legal = now.session is not None and now.session not in ended
            case "connecting", "connected":
                legal = now.session == was.session
            case "connecting" | "connected", "disconnected":
                legal = now.session is None
                ended.add(was.session)
            case _:
                legal = False
        if not legal:
            broken.append(f"{was} -> {now}")
    return broken


class XPort:
    """Port 4100 of a guest: how many connections at once, and how many attempts at all."""

    def __init__(self, desk: Desk) -> None:
        self.most = 0
        self._container = desk.guest()
        self._netns = desk.trial.netns
        self._over = threading.Event()
        self._looking = threading.Thread(target=self._look, name="port 4100")

    def __enter__(self) -> XPort:
        self._nft("-f", "-", text=SYNS)
        self._looking.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._looking.join()

    def attempts(self) -> int:
        """How often this host has begun to connect: SYNs counted by the kernel."""
        rules = json.loads(self._nft("-j", "list", "table", "inet", "witness"))["nftables"]
        (packets,) = (
            expression["counter"]["packets"]
            for rule in rules
            for expression in rule.get("rule", {}).get("expr", [])
            if "counter" in expression
        )
        return int(packets)

    def _look(self) -> None:
        """Count connections all the time, in the network namespace of whichever init runs."""
        init: Init | None = None
        while not self._over.wait(0.003):
            if init is None or not Path(f"/proc/{init.pid}").exists():
                found = inits_of(self._container)
                init = found[0] if found else None
            if init is not None:
                self.most = max(self.most, sum(state not in GONE for state in states(init)))

    def _nft(self, *words: str, text: str | None = None) -> str:
        done = subprocess.run(
            ["ip", "netns", "exec", self._netns, "nft", *words],
            input=text,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
        return done.stdout


def states(init: Init) -> list[str]:
    """The TCP states of every socket on port 4100 in a guest, as the kernel writes them."""
    try:
        lines = Path(f"/proc/{init.pid}/net/tcp").read_text().splitlines()[1:]
    except OSError:
        return []
    fields = [line.split() for line in lines]
    return [field[3] for field in fields if int(field[1].rpartition(":")[2], 16) == X_PORT]


@contextlib.contextmanager
def witness(desk: Desk) -> Iterator[tuple[Ownership, XPort]]:
    """Watch the desktop's row and port; at the end, no step was illegal and no two connections met."""
    with database(desk) as connection:
        connection.executescript(HISTORY)
    ownership = Ownership(desk)
    with XPort(desk) as port:
        yield ownership, port
    broken = illegal_steps(ownership.owners())
    assert not broken, broken
    assert port.most == 1, f"{port.most} connections to nxagent at once"
