"""What a trial takes for its own: it removes and kills nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.trial import Trial, TrialError, is_tool


@pytest.mark.parametrize(
    "line",
    [
        "lxc-start -P /d/run/lxc -n qvd-1-1",
        "[lxc monitor] /d/run/lxc qvd-1-1",
        "/r/.venv/bin/python /r/.venv/bin/qvd-appliance run --config /d/node.conf",
        "nxproxy -S localhost:40",
        "/usr/bin/qemu-system-x86_64 -name guest=qvd-1-1 -blockdev file:/d/storage/1.qcow2",
        "dnsmasq --keep-in-foreground --dhcp-hostsfile=/d/run/dhcp-hostsfile",
    ],
)
def test_tools(line: str) -> None:
    assert is_tool([line] if line.startswith("[") else line.split(" "))


@pytest.mark.parametrize(
    "line",
    [
        "vim /d/run/lxc/qvd-1-1/config",
        "tail -f /d/lxc-start.log",
        "grep -r qvd-appliance /d/",
        "/usr/bin/python3 -m pytest tests/host/lxc/test_limits.py --basetemp /d/",
        "bash -c qvd-client -h 127.0.0.1 --ca /d/server.pem",
        "",
    ],
)
def test_what_only_names_a_tool_is_left_alone(line: str) -> None:
    assert not is_tool(line.split(" "))


def test_a_new_directory_is_claimed_once_and_again(tmp_path: Path) -> None:
    for _ in range(2):
        Trial(tmp_path / "new").claim()
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    (tmp_path / "new" / "run").mkdir()
    Trial(tmp_path / "new").claim()


def test_a_log_may_be_there_already(tmp_path: Path) -> None:
    (tmp_path / "output.txt").touch()
    Trial(tmp_path).claim()


@pytest.mark.parametrize("name", ["run/", "etc/", "password", "node.conf"])
def test_a_directory_with_other_things_stays_as_it_is(tmp_path: Path, name: str) -> None:
    found = tmp_path / name
    found.mkdir() if name.endswith("/") else found.touch()
    tmp_path.chmod(0o755)
    with pytest.raises(TrialError, match="made by no trial"):
        Trial(tmp_path).lay_out()
    Trial(tmp_path).tear_down()
    assert found.exists()
    assert tmp_path.stat().st_mode & 0o777 == 0o755


def test_what_stays_does_not_keep_the_directory(tmp_path: Path) -> None:
    trial = Trial(tmp_path / "new")
    trial.claim()
    trial.log.touch()
    trial.tear_down()
    assert [entry.name for entry in trial.directory.iterdir()] == [trial.log.name]
    Trial(trial.directory).claim()
