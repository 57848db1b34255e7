"""Who may be the desktop user: the decisions, without an account database of this machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from appliance.vma.conf import Conf
from appliance.vma.provision import (
    Accounts,
    Group,
    Plan,
    ProvisionError,
    User,
    decide,
    make_home,
    owner_of,
    wanted,
)


class Image(Accounts):
    """Accounts of an imagined image."""

    users = (
        *(User("root", 0, 0), User("toor", 0, 0), User("daemon", 1, 1), User("nobody", 65534, 65534)),
        *(User("image", 1000, 1000), User("grouped", 1500, 0)),
    )
    groups = (
        Group("root", 0),
        Group("sudo", 27),
        Group("users", 100),
        Group("image", 1000),
        Group("docker", 1001),
    )

    def user(self, key: str | int) -> User | None:
        return next((user for user in self.users if key in (user.name, user.uid)), None)

    def group(self, key: str | int) -> Group | None:
        return next((group for group in self.groups if key in (group.name, group.gid)), None)


def plan(home: tuple[int, int] | None = None, **params: str) -> Plan:
    named = {f"qvd.vm.user.{key}": value for key, value in params.items()}
    return decide(wanted(Conf({}), named), Image(), home)


@pytest.mark.parametrize(
    ("params", "home", "expected"),
    [
        ({"name": "alice"}, None, Plan(True, True, None, None)),
        ({"name": "alice", "uid": "2001", "gid": "2002"}, None, Plan(True, True, 2001, 2002)),
        ({"name": "alice", "uid": "2001", "gid": "2001"}, (2001, 2001), Plan(True, True, 2001, 2001)),
        ({"name": "alice"}, (2001, 2005), Plan(True, True, 2001, 2005)),
        ({"name": "alice"}, (0, 0), Plan(True, True, None, None)),
        ({"name": "alice", "group": "users"}, None, Plan(True, False, None, 100)),
        ({"name": "image"}, None, Plan(False, False, 1000, 1000)),
        ({"name": "image", "uid": "1000"}, (1000, 1000), Plan(False, False, 1000, 1000)),
        ({}, None, Plan(True, True, None, None)),
    ],
)
def test_what_is_made(params: dict[str, str], home: tuple[int, int] | None, expected: Plan) -> None:
    assert plan(home, **params) == expected


@pytest.mark.parametrize(
    ("params", "home", "reason"),
    [
        ({"name": "root"}, None, "'root' is a system account"),
        ({"name": "toor"}, None, "'toor' is a system account"),
        ({"name": "daemon", "uid": "2001"}, None, "'daemon' is a system account"),
        ({"name": "nobody"}, None, "'nobody' is a system account"),
        ({"name": "grouped"}, None, "'grouped' is a system account"),
        ({"name": "alice", "uid": "0"}, None, "numbers from 1000"),
        ({"name": "alice", "uid": "65534"}, None, "numbers from 1000"),
        ({"name": "alice", "uid": "4294967295"}, None, "numbers from 1000"),
        ({"name": "alice", "uid": "-1"}, None, "numbers from 1000"),
        ({"name": "alice", "uid": "٢٠٠١"}, None, "numbers from 1000"),
        ({"name": "alice", "gid": "27"}, None, "numbers from 1000"),
        ({"name": "alice", "uid": "1000"}, None, "uid 1000 of 'alice' belongs to account 'image'"),
        ({"name": "alice", "gid": "1001"}, None, "gid 1001 of 'alice' belongs to group 'docker'"),
        ({"name": "alice", "group": "root"}, None, "'root' is a system group"),
        ({"name": "sudo"}, None, "'sudo' is a system group"),
        ({"name": "docker", "gid": "2001"}, None, "group 'docker' with gid 1001, the server says 2001"),
        ({"name": "image", "uid": "2001"}, None, "account 'image' with uid 1000, the server says 2001"),
        ({"name": "alice", "uid": "2001"}, (2002, 2002), "/home/alice belongs to uid 2002"),
        ({"name": "alice"}, (33, 33), "/home/alice belongs to uid 33"),
        ({"name": "alice"}, (65534, 65534), "/home/alice belongs to uid 65534"),
        ({"name": "image"}, (2001, 2001), "/home/image belongs to uid 2001"),
    ],
)
def test_what_is_refused(params: dict[str, str], home: tuple[int, int] | None, reason: str) -> None:
    with pytest.raises(ProvisionError, match=reason):
        plan(home, **params)


@pytest.mark.parametrize(
    "name", ["-x", ".", "..", "a/b", "a b", "a:b", "a\n", "a\0", "1000", "x" * 33, "é", "$(id)"]
)
def test_unsafe_names_are_refused(name: str) -> None:
    with pytest.raises(ProvisionError, match="cannot be a login name"):
        wanted(Conf({}), {"qvd.vm.user.name": name})
    with pytest.raises(ProvisionError, match="cannot be a group name"):
        wanted(Conf({}), {"qvd.vm.user.name": "alice", "qvd.vm.user.group": name})


@pytest.mark.parametrize("home", ["/", "home", "/home/../etc", "/home//x", "/home/a\nb", "/home/x/"])
def test_unsafe_homes_are_refused(home: str) -> None:
    with pytest.raises(ProvisionError, match="cannot be a home"):
        wanted(Conf({}), {"qvd.vm.user.name": "alice", "qvd.vm.user.home": home})


@pytest.fixture
def skeleton(tmp_path: Path) -> str:
    place = tmp_path / "skel"
    (place / ".config").mkdir(parents=True)
    (place / ".config/app").write_text("setting")
    (place / ".bashrc").write_text("hello")
    (place / ".link").symlink_to(".bashrc")
    return str(place)


def me() -> tuple[int, int]:
    return os.getuid(), os.getgid()


def test_a_missing_home_is_made_from_the_skeleton(tmp_path: Path, skeleton: str) -> None:
    home = tmp_path / "homes/alice"
    make_home(str(home), *me(), skeleton)
    assert (home / ".config/app").read_text() == "setting"
    assert (home / ".link").is_symlink()
    assert home.stat().st_mode & 0o777 == 0o700


def test_an_existing_home_is_left_alone(tmp_path: Path, skeleton: str) -> None:
    home = tmp_path / "alice"
    home.mkdir(0o755)
    make_home(str(home), *me(), skeleton)
    assert not list(home.iterdir())


def test_a_link_or_file_is_no_home(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "file").touch()
    for name in ("link", "file"):
        with pytest.raises(ProvisionError, match="is not a directory"):
            owner_of(str(tmp_path / name))
