"""`qa user`: logins, passwords, and who may not be deleted."""

from __future__ import annotations

import io

import pytest

from appliance.model import FIRST_USER_UID, Secret
from appliance.passwords import matches
from tests.support.qa import Installation, stored_password


def test_a_user_gets_a_uid_of_their_own_that_is_never_used_again(qa: Installation) -> None:
    password = f"password-file={qa.password('x')}"
    qa.ok("user", "add", "login=alice", password)
    qa.ok("user", "add", "login=bob", password)
    qa.ok("user", "del", "-f", "login=bob")
    assert qa.ok("user", "add", "login=carol", password).out == "User added with id 3\n"
    assert [(user["uid"], user["gid"]) for user in qa.listed("user")] == [
        (FIRST_USER_UID + 1, FIRST_USER_UID + 1),
        (FIRST_USER_UID + 3, FIRST_USER_UID + 3),
    ]


def test_the_password_is_kept_as_a_hash(qa: Installation) -> None:
    qa.ok("user", "add", "login=alice", f"password-file={qa.password('secret')}")
    stored = stored_password(qa, 1)
    assert stored is not None
    assert stored.reveal().startswith("$argon2id$")
    assert matches(stored, Secret("secret"))


def test_the_password_comes_from_standard_input(qa: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("from stdin\nnot this"))
    qa.ok("user", "add", "login=alice", "password-file=-")
    assert matches(stored_password(qa, 1), Secret("from stdin"))


def test_a_password_among_the_arguments_is_warned_about(qa: Installation) -> None:
    said = qa.ok("user", "add", "login=alice", "password=seen")
    assert "Warning" in said.err
    assert "seen" not in said.out + said.err
    assert matches(stored_password(qa, 1), Secret("seen"))


def test_a_password_in_the_place_of_its_file_is_not_told(qa: Installation) -> None:
    said = qa("user", "add", "login=alice", "password-file=canary-77")
    assert said.status == 1
    assert "No such file" in said.err
    assert "canary" not in said.err


@pytest.mark.parametrize(
    "words", [["user", "passwd", "user=alice"], ["user", "add", "login=bob"]], ids=["passwd", "add"]
)
def test_without_terminal_and_password_nothing_happens(
    qa: Installation, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    qa.ok("user", "add", "login=alice", "password=x")
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    said = qa(*words)
    assert said.status == 2
    assert "password-file" in said.err
    assert len(qa.listed("user")) == 1


def test_a_password_can_be_changed(qa: Installation) -> None:
    qa.ok("user", "add", "login=alice", "password=old")
    qa.ok("user", "passwd", "user=ALICE", f"password-file={qa.password('new')}")
    assert matches(stored_password(qa, 1), Secret("new"))


def test_an_empty_password_is_refused(qa: Installation) -> None:
    assert qa("user", "add", "login=alice", f"password-file={qa.password('')}").status == 2
    assert qa.listed("user") == []


def test_logins_are_trimmed_and_lower_case(qa: Installation) -> None:
    qa.ok("user", "add", "login= Alice ", "password=x")
    assert [user["login"] for user in qa.listed("user")] == ["alice"]
    assert "there is a user of this login" in qa("user", "add", "login=ALICE", "password=x").err


def test_case_can_matter(bare: Installation) -> None:
    bare.write_config(**{"model__user__login__case-sensitive": "yes"})
    bare.ok("admin", "init")
    bare.ok("user", "add", "login=Alice", "password=x")
    bare.ok("user", "add", "login=alice", "password=x")
    assert [user["login"] for user in bare.listed("user")] == ["Alice", "alice"]


@pytest.mark.parametrize("login", ["root", "Root", "0day", "a b", "", "a:b", "x" * 33, "-a", "a/b", "ä"])
def test_what_cannot_be_an_account_is_refused(qa: Installation, login: str) -> None:
    said = qa("user", "add", f"login={login}", "password=x")
    assert said.status == 2
    assert said.err.count("\n") <= 2
    assert qa.listed("user") == []


def test_a_user_with_vms_is_not_deleted(qa: Installation) -> None:
    qa.with_vm().ok("user", "add", "login=bob", "password=x")
    said = qa("user", "del", "--yes")
    assert said.status == 1
    assert "web-1" in said.err
    assert len(qa.listed("user")) == 2


def test_deletion_asks(qa: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    qa.ok("user", "add", "login=alice", "password=x")
    monkeypatch.setattr("sys.stdin", Terminal("\n"))
    said = qa.ok("user", "del")
    assert "Are you sure you want to delete all users? [y/N]" in said.err
    assert len(qa.listed("user")) == 1
    monkeypatch.setattr("sys.stdin", Terminal("Yes\n"))
    qa.ok("user", "del")
    assert qa.listed("user") == []


def test_an_empty_filter_is_no_filter(qa: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    qa.ok("user", "add", "login=alice", "password=x")
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert qa("user", "del", "-f", " ").status == 1
    assert len(qa.listed("user")) == 1


def test_whoever_gives_no_password_at_the_prompt_changes_nothing(
    qa: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at Ctrl-D."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def ended(prompt: str, stream: object) -> str:
        raise EOFError

    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("getpass.getpass", ended)
    said = qa("user", "add", "login=alice")
    assert said.status == 1
    assert said.err == "Error: no password was given (nothing was changed)\n"
    assert qa.listed("user") == []
