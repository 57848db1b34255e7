"""Passwords that pass through `qa` stay in it: no output, no row of the log, no message tells them (MO04)."""

from __future__ import annotations

import io
import sqlite3

import pytest

from tests.support.qa import Installation, Said

CANARY = "canary-3f9ab2"


def told(qa: Installation, said: Said) -> list[str]:
    """Where the password can be read: what was said, and every row of the database."""
    places = [name for name, text in (("stdout", said.out), ("stderr", said.err)) if CANARY in text]
    with sqlite3.connect(qa.storage / "qvd.db") as database:
        places += [line for line in database.iterdump() if CANARY in line]
    return places


@pytest.fixture
def typed(qa: Installation, monkeypatch: pytest.MonkeyPatch) -> Installation:
    """An installation with alice; whoever reads standard input gets the password."""
    qa.with_vm()
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{CANARY}\n"))
    return qa


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["user", "add", "login=bob", "password-file=-"], 0),
        (["user", "add", "login=bob", f"password={CANARY}"], 0),
        (["user", "add", "login=bob", f"password={CANARY}", "-o", "json"], 0),
        (["user", "add", "login=alice", f"password={CANARY}"], 1),
        (["user", "add", "login=bob", f"password-file={CANARY}"], 1),
        (["user", "add", "login=bob", f"password-file=/{CANARY}/x"], 1),
        (["user", "add", "login=bob", f"password={CANARY}", "password-file=-"], 2),
        (["user", "add", "login=bob", f"password={CANARY}", f"password={CANARY}"], 2),
        (["user", "add", "login=bob", f"pasword={CANARY}"], 2),
        (["user", "add", f"password={CANARY}"], 2),
        (["user", "add", "csv=-", f"password={CANARY}"], 2),
        (["user", "add", "csv=-"], 2),
        (["user", "passwd", "user=alice", "password-file=-"], 0),
        (["user", "passwd", "user=alice", f"password={CANARY}"], 0),
        (["user", "passwd", "user=nobody", f"password={CANARY}"], 1),
        (["user", "list", f"password={CANARY}"], 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_password_is_told_nowhere(typed: Installation, words: list[str], status: int) -> None:
    said = typed(*words)
    assert said.status == status, said.err
    assert told(typed, said) == []


@pytest.mark.parametrize(
    "line",
    [
        f"bob,{CANARY},nowhere",
        f"bob,{CANARY},,more",
        f"alice,{CANARY},",
        f'bob,"{CANARY}',
        f"root,{CANARY},",
        f"bob,{CANARY},desktop",
    ],
)
def test_a_file_of_users_tells_no_password(typed: Installation, line: str) -> None:
    roster = typed.directory / "users.csv"
    roster.write_text(f"login,password,osf\n{line}\n")
    assert told(typed, typed("user", "add", f"csv={roster}")) == []


def test_a_setting_with_a_password_is_stored_and_never_told(typed: Installation) -> None:
    typed.ok("config", "set", f"site.password={CANARY}")
    for words in (("get",), ("get", "site.password"), ("list",), ("explain", "site.password")):
        for form in ("table", "json", "yaml", "csv"):
            said = typed.ok("config", *words, "-o", form)
            assert CANARY not in said.out + said.err
    with sqlite3.connect(typed.storage / "qvd.db") as database:
        holders = [line.split("(")[0] for line in database.iterdump() if CANARY in line]
    assert holders == ['INSERT INTO "configs" VALUES']
