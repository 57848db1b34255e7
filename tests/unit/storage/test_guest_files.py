"""Files of a guest are read from its disk as the guest would find them, and nothing else is."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from appliance.errors import ConflictError, NotFoundError
from appliance.runtime.lxc_config import MOUNT_POINTS
from appliance.storage import guest_files
from appliance.storage.guest_files import (
    HOME,
    IN_MEMORY,
    GuestFiles,
    LogFile,
    NoPlaceError,
    is_packed,
    is_text,
    last_lines,
)

SECRET = "of the host"


@pytest.fixture
def guest(tmp_path: Path) -> Path:
    """A folder with a guest's `root` and `home`, and a file of the host's beside them."""
    for folder in ("root/var/log/apt", "root/home", "root/etc", "root/usr/share", "root/tmp", "home/alice"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "root/var/log/syslog").write_text("one\ntwo\nthree\n")
    (tmp_path / "root/etc/motd").write_text("welcome\n")
    (tmp_path / "root/home/hidden").write_text("below the mount\n")
    (tmp_path / "home/alice/notes").write_text("hers\n")
    return tmp_path


@pytest.fixture
def files(guest: Path) -> GuestFiles:
    return GuestFiles(guest / "root", guest / "home")


@pytest.fixture(autouse=True)
def _nothing_stays_open(tmp_path: Path) -> Iterator[None]:
    yield
    opened = [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.exists()]
    assert [file for file in opened if file.is_relative_to(tmp_path)] == []


def read(files: GuestFiles, path: str) -> str:
    return files.tail(path).data.decode()


def test_what_a_guest_mounts_is_known() -> None:
    assert {*IN_MEMORY, HOME} == {*MOUNT_POINTS}


@pytest.mark.parametrize(
    "path",
    [
        "/etc/motd",
        "//etc/./motd",
        "/../../etc/motd",
        "/var/../etc/motd",
        "/home/../etc/motd",
        "/home/alice/../../etc/motd",
    ],
)
def test_one_file_by_many_paths(files: GuestFiles, path: str) -> None:
    assert read(files, path) == "welcome\n"


@pytest.mark.parametrize(
    ("target", "content"),
    [
        ("/etc/motd", "welcome\n"),
        ("../../etc/motd", "welcome\n"),
        ("../../../../../../etc/motd", "welcome\n"),
        ("/var/log/syslog", "one\ntwo\nthree\n"),
        ("/home/alice/notes", "hers\n"),
        ("/etc/../home/alice/notes", "hers\n"),
    ],
)
def test_a_link_leads_where_it_would_lead_the_guest(
    guest: Path, files: GuestFiles, target: str, content: str
) -> None:
    (guest / "root/usr/share/link").symlink_to(target)
    assert read(files, "/usr/share/link") == content


def test_links_of_folders_are_followed_too(guest: Path, files: GuestFiles) -> None:
    (guest / "root/logs").symlink_to("var/log")
    (guest / "root/var/log/of-alice").symlink_to("/home/alice/")
    (guest / "home/alice/back").symlink_to("/var/log")
    assert read(files, "/logs/of-alice/notes") == "hers\n"
    assert read(files, "/home/alice/back/syslog") == "one\ntwo\nthree\n"
    assert read(files, "/logs/../../etc/motd") == "welcome\n"


def test_whose_file_it_is_is_known(guest: Path, files: GuestFiles) -> None:
    (guest / "root/link").symlink_to("/home/alice/notes")
    (guest / "home/alice/out").symlink_to("/etc/motd")
    assert files.tail("/link").is_in_home
    assert not files.tail("/home/alice/out").is_in_home
    assert not files.tail("/home/../etc/motd").is_in_home


@pytest.mark.parametrize(
    ("link", "path", "target"),
    [
        ("root/etc/evil", "/etc/evil", "../../secret"),
        ("root/etc/evil", "/etc/evil", "{}/secret"),
        ("home/evil", "/home/evil", "../secret"),
        ("home/evil", "/home/evil", "{}/secret"),
        ("home/alice/evil", "/home/alice/evil", "../../home/../secret"),
    ],
)
def test_no_link_leads_to_the_host(guest: Path, files: GuestFiles, link: str, path: str, target: str) -> None:
    (guest / link).symlink_to(target.format(guest))
    assert (guest / link).read_text() == SECRET, "that is where it leads on the host"
    with pytest.raises((FileNotFoundError, NotFoundError)):
        files.tail(path)


def test_a_file_that_becomes_a_link_meanwhile_leads_nowhere(
    guest: Path, files: GuestFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    (guest / "root/etc/secret").write_text("of the guest")
    real = os.stat

    def late(*args: Any, **kwargs: Any) -> os.stat_result:
        """A guest that swaps the file just after it was looked at."""
        found = real(*args, **kwargs)
        if args[0] == "secret":
            (guest / "root/etc/secret").unlink()
            (guest / "root/etc/secret").symlink_to("../../secret")
        return found

    monkeypatch.setattr(os, "stat", late)
    with pytest.raises(OSError, match="Too many levels"):
        files.tail("/etc/secret")


def test_a_root_that_is_a_link_is_no_root(guest: Path) -> None:
    (guest / "alias").symlink_to("root")
    with pytest.raises(OSError, match=r"Not a directory|Too many"):
        GuestFiles(guest / "alias", guest / "home").tail("/etc/motd")


def test_the_home_hides_what_the_root_has_there(files: GuestFiles) -> None:
    with pytest.raises(FileNotFoundError):
        files.tail("/home/hidden")


@pytest.mark.parametrize("path", ["/tmp/x", "/run/log", "/proc/self/environ", "/etc/../dev/sda", "/link"])
def test_what_is_in_memory_is_not_on_the_disk(guest: Path, files: GuestFiles, path: str) -> None:
    (guest / "root/tmp/x").write_text("from before the mount")
    (guest / "root/link").symlink_to("/tmp/x")
    with pytest.raises(NotFoundError, match="is in the guest's memory"):
        files.tail(path)


def test_circles_and_abysses_end(guest: Path, files: GuestFiles) -> None:
    (guest / "root/a").symlink_to("b")
    (guest / "root/b").symlink_to("a")
    with pytest.raises(OSError, match="Too many levels"):
        files.tail("/a")
    (guest / "root/usr/down").symlink_to("share/down")
    (guest / "root/usr/share/down").symlink_to("../../usr/down")
    with pytest.raises(OSError, match="Too many levels"):
        files.tail("/usr/down")
    (guest / "root/deep").mkdir()
    descriptor = os.open(guest / "root/deep", os.O_RDONLY)
    for _ in range(300):
        os.mkdir("d", dir_fd=descriptor)
        below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)
    with pytest.raises(OSError, match="too long"):
        files.tail("/deep/" + "d/" * 300)


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))


@pytest.mark.parametrize(
    ("make", "kind"), [(_pipe, "a pipe"), (_socket, "a socket"), (Path.mkdir, "a directory")]
)
@pytest.mark.timeout(10)
def test_only_regular_files_are_read_and_none_is_waited_for(
    guest: Path, files: GuestFiles, make: Callable[[Path], None], kind: str
) -> None:
    make(guest / "root/odd")
    with pytest.raises(ConflictError, match=f"/odd is {kind}, and only regular files are shown"):
        files.tail("/odd")
    assert [log.path for log in files.logs()[0]] == ["/var/log/syslog"]


def test_a_file_is_no_folder(files: GuestFiles) -> None:
    with pytest.raises(NotADirectoryError):
        files.tail("/etc/motd/x")
    with pytest.raises(ConflictError, match="/ is a directory"):
        files.tail("/")


@pytest.mark.parametrize(
    ("lines", "data"),
    [(1, b"three\n"), (2, b"two\nthree\n"), (3, b"one\ntwo\nthree\n"), (9, b"one\ntwo\nthree\n")],
)
def test_the_last_lines(files: GuestFiles, lines: int, data: bytes) -> None:
    found = files.tail("/var/log/syslog", lines)
    assert (found.data, found.is_whole) == (data, lines > 2)


@pytest.mark.parametrize("data", [b"", b"\n", b"a", b"a\nb", b"\n\n", b"a\n\n"])
def test_last_lines_are_those_of_the_text(data: bytes) -> None:
    for lines in range(1, 5):
        assert last_lines(data, lines) == b"".join(data.splitlines(keepends=True)[-lines:])


def test_of_a_huge_file_only_the_end_is_read(guest: Path, files: GuestFiles) -> None:
    with (guest / "root/huge").open("wb") as stream:
        stream.truncate(1 << 42)
        stream.seek(0, os.SEEK_END)
        stream.write(b"\nbefore last\nlast\n")
    assert files.tail("/huge", 1).data == b"last\n"
    found = files.tail("/huge")
    assert (len(found.data) <= 1 << 20, found.is_whole, found.size) == (True, False, (1 << 42) + 18)
    assert files.tail("/huge", most=10).data == b"last\n", "no half lines"


def test_one_long_line_is_shown_as_far_as_it_goes(guest: Path, files: GuestFiles) -> None:
    (guest / "root/line").write_bytes(b"x" * 3000 + b"\n")
    assert files.tail("/line", most=100).data == b"x" * 99 + b"\n"


def test_logs_are_listed_the_newest_first(guest: Path, files: GuestFiles) -> None:
    (guest / "root/var/log/apt/history.log").write_text("apt")
    (guest / "root/var/log/linked").symlink_to("/etc/motd")
    os.mkfifo(guest / "root/var/log/pipe")
    os.utime(guest / "root/var/log/syslog", (1_900_000_000, 1_900_000_000))
    os.utime(guest / "root/var/log/apt/history.log", (1_800_000_000, 1_800_000_000))
    found, is_whole = files.logs()
    assert is_whole
    assert [(log.path, log.size, log.modified.timestamp()) for log in found] == [
        ("/var/log/syslog", 14, 1_900_000_000),
        ("/var/log/apt/history.log", 3, 1_800_000_000),
    ]


def test_a_folder_of_logs_that_leads_out_is_none(guest: Path, files: GuestFiles) -> None:
    (guest / "root/var/log/apt").rmdir()
    (guest / "root/var/log/apt").symlink_to(guest)
    assert [log.path for log in files.logs()[0]] == ["/var/log/syslog"]
    (guest / "root/var/log").rename(guest / "root/var/logs")
    (guest / "root/var/log").symlink_to("../../home")
    with pytest.raises(NoPlaceError) as refused:
        GuestFiles(guest / "root", guest / "nowhere").logs()
    assert refused.value.what == "home"
    assert [log.path for log in files.logs()[0]] == ["/var/log/alice/notes"], "as the guest sees it"


def test_times_that_nobody_lives_to_see_are_shown(guest: Path, files: GuestFiles) -> None:
    os.utime(guest / "root/var/log/syslog", (-5, -5))
    assert files.logs()[0][0].modified.year == 1970


def test_what_is_text() -> None:
    assert is_text(b"x")
    assert not is_text(b"x\0y")
    at = datetime(2030, 1, 1, tzinfo=UTC)
    assert not is_packed(LogFile("/var/log/syslog", 1, at))
    assert is_packed(LogFile("/var/log/syslog.2.gz", 1, at))


def test_of_many_logs_the_newest_are_kept(
    guest: Path, files: GuestFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        (guest / f"root/var/log/{number}").touch()
        os.utime(guest / f"root/var/log/{number}", (1_000_000 + number, 1_000_000 + number))
    os.utime(guest / "root/var/log/syslog", (1, 1))
    monkeypatch.setattr(guest_files, "MOST_LOGS", 3)
    found, is_whole = files.logs()
    assert ([log.path for log in found], is_whole) == (
        [f"/var/log/{number}" for number in (19, 18, 17)],
        False,
    )
    monkeypatch.setattr(guest_files, "MOST_LOGS", 21)
    assert files.logs()[1]


def test_what_is_no_log_is_counted_too(
    guest: Path, files: GuestFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        (guest / f"root/var/log/link{number}").symlink_to("nowhere")
    monkeypatch.setattr(guest_files, "MOST_ENTRIES", 21)
    found, is_whole = files.logs()
    assert not is_whole
    assert len(found) <= 1
    monkeypatch.setattr(guest_files, "MOST_ENTRIES", 22)
    assert files.logs()[1], "20 links, a folder and a file"


@pytest.mark.parametrize(
    ("most", "data"), [(6, b"three\n"), (7, b"three\n"), (10, b"two\nthree\n"), (3, b"ee\n")]
)
def test_a_line_that_begins_where_reading_begins_is_whole(files: GuestFiles, most: int, data: bytes) -> None:
    assert files.tail("/var/log/syslog", most=most).data == data
