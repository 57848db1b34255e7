"""The command line of the client, and where its password comes from."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from appliance.client.failures import CredentialsError
from appliance.client.main import password
from appliance.client.options import parse

NEEDED = ["-h", "server", "-u", "alice"]


def test_defaults() -> None:
    options = parse(NEEDED, {})
    assert (options.host, options.port, options.login) == ("server", 8443, "alice")
    assert (options.geometry, options.fullscreen, options.verify, options.take_first) == (
        "1024x768",
        False,
        True,
        False,
    )


def test_all_short_options() -> None:
    options = parse([*NEEDED, *["-p", "443", "-w", "pw", "-g", "800x600", "-f", "-l", "-o", "-n", "-d"]], {})
    assert (options.port, options.geometry) == (443, "800x600")
    assert options.password is not None
    assert options.password.reveal() == "pw"
    assert options.fullscreen
    assert options.list_only
    assert options.take_first
    assert options.debug
    assert not options.verify


def test_the_environment_fills_gaps_only() -> None:
    environment = {"QVDHOST": "other", "QVDLOGIN": "bob", "QVDPASSWORD": "env"}
    bare = parse([], environment)
    assert (bare.host, bare.login) == ("other", "bob")
    assert password(bare, {}).reveal() == "env"
    given = parse([*NEEDED, "-w", "typed"], environment)
    assert (given.host, given.login) == ("server", "alice")
    assert password(given, {}).reveal() == "typed"


def test_a_password_file_comes_before_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("from a file\nsecond line\n")
    options = parse([*NEEDED, "--password-file", str(file)], {"QVDPASSWORD": "env"})
    assert password(options, {}).reveal() == "from a file"


def test_a_password_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("piped\n"))
    assert password(parse([*NEEDED, "--password-file", "-"], {}), {}).reveal() == "piped"


def test_no_password_and_nobody_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    with pytest.raises(CredentialsError, match="no password"):
        password(parse(NEEDED, {}), {})


def test_a_missing_password_file_is_named() -> None:
    with pytest.raises(CredentialsError, match="/nowhere/at/all"):
        password(parse([*NEEDED, "--password-file", "/nowhere/at/all"], {}), {})


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["-u", "alice"], "no server"),
        (["-h", "server"], "no login"),
        (["-h", "server", "-u", "a:b"], "no colon"),
        ([*NEEDED, "-p", "70000"], "is no TCP port"),
        ([*NEEDED, "-g", "big"], "is no size"),
        ([*NEEDED, "-w", "x", "--password-file", "y"], "exclude each other"),
        ([*NEEDED, "--sharp"], "unrecognized"),
    ],
)
def test_wrong_usage(argv: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(argv, {})
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


def test_json_implies_the_list() -> None:
    assert parse([*NEEDED, "--json"], {}).list_only
