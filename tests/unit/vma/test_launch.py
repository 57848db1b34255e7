"""What nxagent is given and what it says, the user's environment, and who may call: the pure parts."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from appliance.vma import files, login
from appliance.vma.conf import Conf
from appliance.vma.launch import LaunchError, nx_options, write_files
from appliance.vma.nxagent import pid_in, word_in
from appliance.vma.rpc import gateways, may_call

CLIENT = {
    "qvd.client.keyboard": "pc105/es",
    "qvd.client.os": "linux",
    "qvd.client.link": "adsl",
    "qvd.client.geometry": "1024x768",
    "qvd.client.fullscreen": "",
}


def test_the_options_of_protocol_4_4() -> None:
    conf = Conf({"vma.audio.enable": "1", "vma.slave.enable": "1", "vma.printing.enable": "1"})
    params = {**CLIENT, "qvd.client.printing.enabled": "1"}
    assert nx_options(conf, params) == (
        "nx/nx,keyboard=pc105/es,client=linux,link=adsl,geometry=1024x768,media=1,slave=1,cups=2100:100\n"
    )
    assert "smb=2100" in nx_options(conf, {**params, "qvd.client.os": "windows"})


def test_defaults_fill_what_the_client_leaves_out() -> None:
    conf = Conf({"vma.default.client.keyboard": "pc105/fr", "internal.nxagent.display": "77"})
    assert nx_options(conf, {}) == "nx/nx,keyboard=pc105/fr,link=adsl:77\n"
    assert "cups" not in nx_options(conf, {"qvd.client.printing.enabled": "1"})


def test_extra_options_are_appended_verbatim() -> None:
    conf = Conf({})
    assert ",a=b,c=d:100" in nx_options(conf, {**CLIENT, "qvd.client.nxagent.extra_args": "a=b,c=d"})
    assert nx_options(conf, {**CLIENT, "qvd.client.nxagent.extra_args": "0"}) == nx_options(conf, CLIENT)


@pytest.mark.parametrize("value", ["a,b=c", "a:1", "a b", "a\nb", "é", "a;b", "a\0"])
def test_values_that_could_be_more_are_refused(value: str) -> None:
    for key in CLIENT:
        with pytest.raises(LaunchError, match=key):
            nx_options(Conf({}), {**CLIENT, key: value})
    if value not in ("a,b=c", "a;b"):
        with pytest.raises(LaunchError, match="extra_args"):
            nx_options(Conf({}), {**CLIENT, "qvd.client.nxagent.extra_args": value})


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("Session: Starting session at 'Sat Nov 21 03:46:43 2026'.", "starting"),
        ("Session: Session started at 'Sat Nov 21 03:46:44 2026'.", "started"),
        ("unfinished line Session: Session suspended at 'now'.", "suspended"),
        ("Session: Dancing session at 'now'.", "dancing"),
        ("Session: Display failure detected at 'Sat Nov 21 03:46:47 2026'.", None),
        ("Info: Using session at", None),
    ],
)
def test_words_of_nxagent(line: str, word: str | None) -> None:
    assert word_in(line) == word


def test_its_pid() -> None:
    assert pid_in("Info: Agent running with pid '26981'.") == 26981
    assert pid_in("Info: Proxy running in client mode with pid '26981'.") is None
    assert pid_in("Info: Agent running with pid '-1'.") is None


def test_files_for_the_session_are_replaced_whole(tmp_path: Path) -> None:
    conf = Conf({"path.run": str(tmp_path), "vma.printing.enable": "1"})
    params = {**CLIENT, "qvd.slave.key": "secret", "qvd.client.printing.enabled": "1"}
    for _ in range(2):
        write_files(conf, params, os.getgid())
    assert (tmp_path / "slave.conf").read_text() == "secret"
    assert stat.S_IMODE((tmp_path / "slave.conf").stat().st_mode) == 0o640
    assert (
        tmp_path / "printing.conf"
    ).read_text() == "qvd.printing.enabled = 1\nqvd.client.os = linux\nqvd.printing.port = 2100\n"
    assert {path.name for path in tmp_path.iterdir()} == {"nxagent.conf", "slave.conf", "printing.conf"}


def test_secrets_are_masked() -> None:
    params = {"qvd.slave.key": "s1", "user.password": "s2", "ldap.PASSWD": "s3", "auth_token": "s4", "a": "b"}
    text = files.masked(params)
    assert "a=b" in text
    assert not [secret for secret in ("s1", "s2", "s3", "s4") if secret in text]


def test_a_log_is_bounded(tmp_path: Path) -> None:
    log = files.BoundedLog(str(tmp_path / "log/x"), 1000)
    for _ in range(100):
        log.write(b"x" * 100)
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "log").iterdir()}
    assert set(sizes) == {"x", "x.1"}
    assert max(sizes.values()) <= 1100


def test_the_users_environment(tmp_path: Path) -> None:
    account = login.Account("alice", 2001, 2001, "/home/alice", "/bin/bash", (2001,))
    (tmp_path / "env").write_text(
        "# comment\nLANG=\"de_DE.UTF-8\"\nexport EDITOR='vi'\nHOME=/root\nbad name=1\nCOLOR=#fff\nnothing\n"
    )
    env = login.environment(account, "C.UTF-8", [str(tmp_path / "none"), str(tmp_path / "env")])
    assert env["LANG"] == "de_DE.UTF-8"
    assert (env["EDITOR"], env["COLOR"]) == ("vi", "#fff")
    assert (env["HOME"], env["USER"], env["LOGNAME"], env["SHELL"]) == (
        "/home/alice", "alice", "alice", "/bin/bash",
    )  # fmt: skip
    assert login.environment(account, "C.UTF-8", [])["LANG"] == "C.UTF-8"


ROUTES = (
    "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
    "eth0\t00000000\t01004D0A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
    "eth0\t00004D0A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
    "eth0\t0000000A\t02004D0A\t0003\t0\t0\t0\t000000FF\t0\t0\t0\n"
)


def test_only_the_default_gateway_may_call(tmp_path: Path) -> None:
    table = tmp_path / "route"
    table.write_text(ROUTES)
    assert gateways(ROUTES) == {"10.77.0.1"}
    assert may_call("10.77.0.1", [], str(table))
    for address in ("127.0.0.1", "10.77.0.2", "0.0.0.0"):
        assert not may_call(address, [], str(table))
    assert not may_call("10.77.0.1", [], str(tmp_path / "none"))


def test_listed_addresses_take_the_gateways_place(tmp_path: Path) -> None:
    table = tmp_path / "route"
    table.write_text(ROUTES)
    assert may_call("192.0.2.1", ["192.0.2.1"], str(table))
    assert not may_call("10.77.0.1", ["192.0.2.1"], str(table))
