"""Users from a CSV file: what is read, and what is wrong with which line."""

from __future__ import annotations

import pytest

from appliance.errors import UsageError
from appliance.model import TAG_DEFAULT
from appliance.ops.roster import MOST, RosterError, parse

CANARY = "canary-5c1d"


def test_columns_come_in_any_order() -> None:
    one, two = parse("osf,login,password\noffice,alice,se;cret\n,bob,\n")
    assert (one.login, one.osf, one.vm, one.di_tag) == ("alice", "office", None, TAG_DEFAULT)
    assert one.password is not None
    assert one.password.reveal() == "se;cret"
    assert (two.login, two.password, two.osf) == ("bob", None, None)


def test_a_spreadsheet_may_write_semicolons_and_quotes() -> None:
    (line,) = parse('login;password\nalice;"a;""b"\n')
    assert line.password is not None
    assert line.password.reveal() == 'a;"b'


def test_blank_lines_are_nothing_and_numbers_are_those_of_the_file() -> None:
    lines = parse('login,password\n\nalice,"two\nlines"\n,\nbob,x\n')
    assert [(line.number, line.login) for line in lines] == [(3, "alice"), (6, "bob")]


def test_blanks_around_a_password_belong_to_it() -> None:
    (line,) = parse("login,password\n alice , x \n")
    assert line.login == "alice"
    assert line.password is not None
    assert line.password.reveal() == " x "


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no column login"),
        (f"alice,{CANARY}\n", "no column login"),
        ("login,colour\n", "there is no column 'colour'"),
        ("login,login\n", "a column twice"),
    ],
)
def test_a_heading_that_names_no_columns_is_refused(text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as refused:
        parse(text)
    assert CANARY not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"login,password\nalice,{CANARY},more\n", "line 2: there are 3 values for 2 columns"),
        (f"login,password\nalice\nbob,{CANARY}\ncarol\n", "line 2: .*; line 4: "),
        (f'login,password\nalice,"{CANARY}\n', "line 2: this is no CSV"),
        ("login,vm\nalice,desk\n", "line 2: vm without osf"),
    ],
)
def test_wrong_lines_are_told_by_their_numbers_and_no_password_is(text: str, reason: str) -> None:
    with pytest.raises(RosterError, match=reason) as refused:
        parse(text)
    assert CANARY not in str(refused.value)


def test_a_file_that_is_all_wrong_is_told_in_short() -> None:
    with pytest.raises(RosterError, match=r"line 11: [^;]*; and 15 more lines \(nothing was added\)$"):
        parse("login,password\n" + "alice\n" * 25)


def test_more_than_a_transaction_should_hold_are_refused() -> None:
    heading, users = "login\n", [f"user{number}\n" for number in range(MOST + 1)]
    assert len(parse(heading + "".join(users[:-1]))) == MOST
    with pytest.raises(UsageError, match="at most 1000"):
        parse(heading + "".join(users))
