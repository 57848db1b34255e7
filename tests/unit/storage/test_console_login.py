"""Whether an image has a login at its console is told from its files, for each kind of init."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.storage import console_login, image_root, systemd_login
from appliance.storage.image_root import ImageRoot, TooMuchError

ELF = "\x7fELF\x02\x01\x01"
GETTY = """\
[Unit]
Description=Getty on %I
ConditionPathExists=/dev/tty0
[Service]
ExecStart=-/sbin/agetty -o '-p -- \\\\u' --noclear - $TERM
Type=idle
StandardInput=tty
StandardOutput=tty
TTYPath=/dev/%I
"""
CONTAINER_GETTY = """\
[Unit]
ConditionPathExists=/dev/pts/%I
[Service]
ExecStart=-/sbin/agetty -o '-p -- \\\\u' --noclear - $TERM
StandardInput=tty
TTYPath=/dev/pts/%I
"""
CONSOLE_GETTY = CONTAINER_GETTY.replace("/dev/pts/%I", "/dev/console")
UNITS = "/usr/lib/systemd/system"
OWN = "/etc/systemd/system"


class Tree:
    """A root in a directory."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def file(self, inside: str, text: str = "") -> None:
        path = self.root / inside.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="latin-1")

    def link(self, inside: str, target: str) -> None:
        path = self.root / inside.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)

    @property
    def lacks(self) -> str:
        """Why there is no login; empty if there is one or nothing can be told."""
        found = console_login.missing(self.root)
        return "" if found is None else f"{found.reason} ({found.remedy})"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    (tmp_path / "root").mkdir()
    made = Tree(tmp_path / "root")
    made.file("/usr/sbin/agetty", ELF)
    made.link("/sbin", "usr/sbin")
    return made


@pytest.fixture
def systemd(tree: Tree) -> Tree:
    """What a distribution installs: a login on tty1 is enabled, and does not start in a container."""
    tree.file("/usr/lib/systemd/systemd", ELF)
    tree.link("/usr/sbin/init", "/lib/systemd/systemd")
    tree.link("/lib", "usr/lib")
    tree.link(f"{UNITS}/default.target", "graphical.target")
    tree.file(
        f"{UNITS}/graphical.target", "[Unit]\nRequires=multi-user.target\nWants=display-manager.service\n"
    )
    tree.file(f"{UNITS}/multi-user.target", "[Unit]\nRequires=basic.target\n")
    tree.file(f"{UNITS}/getty.target", "[Unit]\n")
    tree.link(f"{UNITS}/multi-user.target.wants/getty.target", "../getty.target")
    tree.file(f"{UNITS}/getty@.service", GETTY)
    tree.file(f"{UNITS}/container-getty@.service", CONTAINER_GETTY)
    tree.file(f"{UNITS}/console-getty.service", CONSOLE_GETTY)
    tree.link(f"{OWN}/getty.target.wants/getty@tty1.service", "/lib/systemd/system/getty@.service")
    return tree


def test_the_getty_of_a_distribution_waits_for_what_no_container_has(systemd: Tree) -> None:
    assert systemd.lacks == (
        "getty@tty1.service waits for /dev/tty0, which no container has "
        "(in the image: systemctl add-wants getty.target container-getty@1.service)"
    )


@pytest.mark.parametrize("name", ["getty@.service.d", "getty@tty1.service.d"])
def test_a_drop_in_lifts_the_condition(systemd: Tree, name: str) -> None:
    systemd.file(f"{OWN}/{name}/console.conf", "[Unit]\nConditionPathExists=\n")
    assert systemd.lacks == ""


def test_a_hidden_drop_in_does_not(systemd: Tree) -> None:
    systemd.file(f"{UNITS}/getty@.service.d/console.conf", "[Unit]\nConditionPathExists=\n")
    assert systemd.lacks == ""
    systemd.link(f"{OWN}/getty@.service.d/console.conf", "/dev/null")
    assert "waits for /dev/tty0" in systemd.lacks


def test_the_remedy_is_one(systemd: Tree) -> None:
    systemd.link(f"{OWN}/getty.target.wants/container-getty@1.service", f"{UNITS}/container-getty@.service")
    assert systemd.lacks == ""


def test_a_getty_elsewhere_is_none_on_tty1(systemd: Tree) -> None:
    (systemd.root / "etc/systemd/system/getty.target.wants/getty@tty1.service").unlink()
    for name in ("console-getty.service", "container-getty@2.service", "getty@tty2.service"):
        systemd.link(f"{OWN}/getty.target.wants/{name}", "/nowhere")
    assert systemd.lacks.startswith(
        "systemd starts none there (in the image: systemctl add-wants getty.target"
    )


def test_what_is_enabled_beside_a_target_that_is_not_reached_does_not_start(systemd: Tree) -> None:
    systemd.link(f"{OWN}/rescue.target.wants/container-getty@1.service", f"{UNITS}/container-getty@.service")
    assert "waits for /dev/tty0" in systemd.lacks
    systemd.link(f"{OWN}/default.target", f"{UNITS}/rescue.target")
    systemd.file(f"{UNITS}/rescue.target", "[Unit]\n")
    assert systemd.lacks == ""


@pytest.mark.parametrize("mask", ["/dev/null", "empty", "../../../dev/null"])
def test_what_is_masked_does_not_start(systemd: Tree, mask: str) -> None:
    (systemd.root / "etc/systemd/system/getty.target.wants/getty@tty1.service").unlink()
    systemd.link(f"{OWN}/getty.target.wants/container-getty@1.service", f"{UNITS}/container-getty@.service")
    if mask == "empty":
        systemd.file(f"{OWN}/container-getty@1.service")
    else:
        systemd.link(f"{OWN}/container-getty@1.service", mask)
    assert systemd.lacks.startswith(
        "container-getty@1.service is masked (give the image a getty@tty1.service"
    )


def test_a_masked_target_takes_its_gettys_with_it(systemd: Tree) -> None:
    systemd.file(f"{OWN}/getty@tty1.service", GETTY.replace("ConditionPathExists", "#"))
    assert systemd.lacks == ""
    systemd.link(f"{OWN}/getty.target", "/dev/null")
    assert systemd.lacks == (
        "getty.target is masked (in the image: systemctl add-wants default.target container-getty@1.service)"
    )


def test_a_login_whose_program_is_not_there_is_none(systemd: Tree) -> None:
    systemd.file(f"{OWN}/getty@tty1.service", GETTY.replace("ConditionPathExists", "#"))
    (systemd.root / "usr/sbin/agetty").unlink()
    assert systemd.lacks == (
        "getty@tty1.service needs /sbin/agetty, which is not in it (add that program to the image)"
    )


@pytest.mark.parametrize(
    ("service", "is_one"),
    [
        ("ExecStart=/sbin/agetty --autologin root tty1 \\\n linux", True),
        ("ExecStart=/bin/bash\nStandardInput=tty-force\nTTYPath=/dev/tty1", True),
        ("ExecStart=/bin/bash\nTTYPath=/dev/tty1", False),
        ("ExecStart=/sbin/agetty tty1\nExecStart=\nExecStart=/sbin/agetty tty3", False),
        ("Type=oneshot\nExecStart=/bin/stty -F /dev/tty1", False),
        ("ExecStart=/sbin/agetty tty1\n[Unit]\nConditionVirtualization=!container", False),
        ("ExecStart=/sbin/agetty tty1\n[Unit]\nConditionVirtualization=container", True),
        ("# ExecStart=/sbin/agetty tty1", False),
    ],
)
def test_a_unit_of_ones_own(systemd: Tree, service: str, is_one: bool) -> None:
    systemd.file("/usr/bin/bash", ELF)
    systemd.link("/bin", "usr/bin")
    systemd.file(f"{OWN}/desk.service", f"[Service]\n{service}\n")
    assert systemd.lacks, "it is not enabled"
    systemd.link(f"{OWN}/sysinit.target.wants/desk.service", "../desk.service")
    assert (systemd.lacks == "") is is_one


def test_units_that_lead_in_circles_or_out_end(systemd: Tree, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "desk.service").write_text("[Service]\nExecStart=/sbin/agetty tty1\n")
    systemd.link(f"{OWN}/basic.target", "basic.target")
    systemd.link(f"{OWN}/a.service", "b.service")
    systemd.link(f"{OWN}/b.service", "a.service")
    systemd.link(f"{OWN}/desk.service", str(outside / "desk.service"))
    systemd.file(
        f"{OWN}/multi-user.target.d/x.conf", "[Unit]\nWants=a.service desk.service multi-user.target\n"
    )
    systemd.link(f"{OWN}/sysinit.target.wants", str(outside))
    assert "waits for /dev/tty0" in systemd.lacks


def test_huge_and_odd_files_end(systemd: Tree) -> None:
    wants = "".join(f"Wants=x{number}.service\n" for number in range(200_000))
    systemd.file(f"{OWN}/multi-user.target.d/many.conf", wants)
    os.mkfifo(systemd.root / "etc/systemd/system/pipe.service")
    systemd.link(f"{OWN}/sysinit.target.wants/pipe.service", "/x")
    (systemd.root / "etc/systemd/system/folder.service").mkdir()
    systemd.link(f"{OWN}/sysinit.target.wants/folder.service", "/x")
    systemd.file(f"{OWN}/sysinit.target.wants/odd\x9b2J\n.service")
    systemd.file(f"{OWN}/odd\x9b2J\n.service", "[Service]\nExecStart=/no/program tty1\n")
    assert "waits for /dev/tty0" in systemd.lacks or "odd" in systemd.lacks
    assert systemd.lacks.isprintable()


@pytest.fixture
def busybox(tree: Tree) -> Tree:
    tree.file("/usr/bin/busybox", ELF)
    tree.link("/usr/sbin/init", "../bin/busybox")
    tree.link("/usr/sbin/getty", "../bin/busybox")
    return tree


@pytest.mark.parametrize(
    ("line", "is_one"),
    [
        ("tty1::respawn:/sbin/agetty --autologin root -L tty1 115200 xterm", True),
        ("tty1::askfirst:-/sbin/getty", True),
        ("::respawn:/sbin/getty 38400 tty1", True),
        ("::respawn:sh -c 'exec getty 38400 /dev/tty1'", True),
        ("# tty1::respawn:/sbin/getty 38400 tty1", False),
        ("tty1::sysinit:/sbin/getty 38400 tty1", False),
        ("tty1::respawn:/sbin/mingetty tty1", False),
        ("tty10::respawn:/sbin/getty 38400 tty10", False),
        ("console::respawn:/sbin/getty 38400 console", False),
        ("garbage", False),
        ("", False),
    ],
)
def test_inittab_of_busybox(busybox: Tree, line: str, is_one: bool) -> None:
    busybox.file("/etc/inittab", f"::sysinit:/bin/true\n{line}\n")
    assert (busybox.lacks == "") is is_one


def test_what_an_inittab_lacks_is_said(busybox: Tree) -> None:
    assert busybox.lacks == (
        "its /etc/inittab starts none there (add the line tty1::respawn:/sbin/getty -L tty1 115200 xterm)"
    )
    busybox.file("/etc/inittab", "tty1::respawn:/sbin/mingetty tty1\n")
    assert busybox.lacks == (
        "/etc/inittab starts /sbin/mingetty there, which is not in it (add that program to the image)"
    )


def test_an_inittab_that_is_a_link_out_is_none(busybox: Tree, tmp_path: Path) -> None:
    (tmp_path / "inittab").write_text("tty1::respawn:/sbin/getty tty1\n")
    busybox.link("/etc/inittab", str(tmp_path / "inittab"))
    assert "starts none there" in busybox.lacks


def test_services_of_openrc_below_busybox(busybox: Tree) -> None:
    busybox.file("/etc/inittab", "::sysinit:/sbin/openrc sysinit\n::wait:/sbin/openrc default\n")
    assert busybox.lacks
    busybox.link("/etc/runlevels/default/agetty.tty1", "/etc/init.d/agetty.tty1")
    assert busybox.lacks, "the link leads nowhere"
    busybox.file("/etc/init.d/agetty", "#!/sbin/openrc-run\n")
    busybox.link("/etc/init.d/agetty.tty1", "agetty")
    assert busybox.lacks == ""


@pytest.mark.parametrize(
    ("line", "is_one"),
    [
        ("1:2345:respawn:/sbin/agetty 38400 tty1", True),
        ("1::respawn:/sbin/agetty 38400 tty1", True),
        ("1:345:respawn:/sbin/agetty 38400 tty1", False),
        ("1:2345:off:/sbin/agetty 38400 tty1", False),
        ("1:2345:respawn:/sbin/agetty 38400 console", False),
    ],
)
def test_inittab_of_sysvinit_counts_in_its_runlevel(tree: Tree, line: str, is_one: bool) -> None:
    tree.file("/usr/sbin/init", ELF)
    tree.file("/etc/inittab", f"id:2:initdefault:\n{line}\n")
    assert (tree.lacks == "") is is_one


def test_upstart(tree: Tree) -> None:
    tree.file("/usr/sbin/init", ELF)
    tree.file("/etc/init/tty2.conf", "start on runlevel [23]\nrespawn\nexec /sbin/getty -8 38400 tty2\n")
    assert "upstart" in tree.lacks
    tree.file("/etc/init/tty1.conf", "start on stopped rc\nrespawn\nexec /sbin/getty -8 38400 tty1\n")
    assert tree.lacks == ""
    tree.file("/etc/init/tty1.override", "manual\n")
    assert "upstart" in tree.lacks


def test_openrc(tree: Tree) -> None:
    tree.file("/usr/sbin/openrc-init", ELF)
    tree.link("/usr/sbin/init", "openrc-init")
    tree.file("/etc/init.d/agetty", "#!/sbin/openrc-run\n")
    assert "OpenRC" in tree.lacks
    tree.link("/etc/runlevels/default/agetty.tty1", "/etc/init.d/agetty")
    assert tree.lacks == ""


def test_runit(tree: Tree) -> None:
    tree.file("/usr/sbin/runit-init", ELF)
    tree.link("/usr/sbin/init", "runit-init")
    assert "runit" in tree.lacks
    tree.file("/etc/sv/agetty-tty1/run", "#!/bin/sh\nexec agetty tty1\n")
    tree.link("/etc/runit/runsvdir/default/agetty-tty1", "/etc/sv/agetty-tty1")
    assert tree.lacks == ""
    tree.file("/etc/sv/agetty-tty1/down")
    assert "runit" in tree.lacks


@pytest.mark.parametrize("init", ["#!/bin/sh\nexec getty\n", ELF])
def test_of_an_unknown_init_nothing_is_said(tree: Tree, init: str) -> None:
    tree.file("/usr/sbin/init", init)
    assert tree.lacks == ""


def test_of_no_init_nothing_is_said(tree: Tree) -> None:
    assert tree.lacks == ""
    tree.link("/usr/sbin/init", "init")
    assert tree.lacks == ""


def test_our_own_image_has_one(busybox: Tree) -> None:
    ours = Path(__file__).parents[3] / "images" / "overlay-lxc" / "etc" / "inittab"
    busybox.file("/etc/inittab", ours.read_text())
    assert busybox.lacks == ""
    (busybox.root / "usr/sbin/agetty").unlink()
    assert busybox.lacks, "it is this line that makes it one"


LONG = "a" * 60_000


def test_words_of_the_image_are_few_and_do_nothing_at_a_terminal(busybox: Tree) -> None:
    busybox.file("/etc/inittab", f"tty1::respawn:/\x1b]52;c;eA==\x07{LONG}\x1b\n")
    found = console_login.missing(busybox.root)
    assert found is not None
    assert found.reason.startswith("/etc/inittab starts /?]52;c;eA==?aaa")
    assert found.reason.endswith("aaa? there, which is not in it")
    assert len(found.reason) == console_login.LONGEST_REASON
    assert found.reason.isprintable()


@pytest.mark.parametrize("setting", [f"ConditionPathExists=/dev/tty{LONG}", f"ExecStart=/{LONG}\x1b tty1"])
def test_words_of_units_are_few_as_well(systemd: Tree, setting: str) -> None:
    systemd.file(f"{OWN}/getty@tty1.service", f"[Service]\nExecStart=x tty1\n{setting}\n")
    found = console_login.missing(systemd.root)
    assert found is not None
    assert found.reason.startswith("getty@tty1.service ")
    assert (found.reason.isprintable(), len(found.reason)) == (True, console_login.LONGEST_REASON)


def bomb(tree: Tree) -> None:
    """Units that all read the same drop-ins."""
    tree.file(
        f"{UNITS}/default.target", "[Unit]\nWants=" + " ".join(f"x@{n}.service" for n in range(20)) + "\n"
    )
    tree.file(f"{UNITS}/x@.service", "[Service]\nExecStart=x\n")
    for number in range(20):
        tree.file(f"{UNITS}/x@.service.d/{number}.conf", "[Unit]\n" + "Wants=other.service\n" * 50)


def runit(tree: Tree) -> None:
    """An init with many services."""
    tree.link("/usr/sbin/init", "runit-init")
    tree.file("/usr/sbin/runit-init", ELF)
    for number in range(100):
        tree.file(f"/etc/service/{number}/run", "#!/bin/sh\n" + "# nothing\n" * 500)


def upstart(tree: Tree) -> None:
    """An init with many jobs."""
    tree.file("/usr/sbin/init", ELF)
    for number in range(100):
        tree.file(f"/etc/init/{number}.conf", "start on boot\n" + "# nothing\n" * 500)


@pytest.mark.parametrize("limit", ["MOST_BYTES", "MOST_OPENED"])
@pytest.mark.parametrize("fill", [bomb, runit, upstart])
def test_an_image_that_has_no_end_is_given_up(
    tree: Tree, fill: Callable[[Tree], None], limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fill is bomb:
        tree.link("/usr/sbin/init", "/usr/lib/systemd/systemd")
        tree.file("/usr/lib/systemd/systemd", ELF)
    fill(tree)
    assert tree.lacks, "it has no login"
    monkeypatch.setattr(image_root, limit, {"MOST_BYTES": 200_000, "MOST_OPENED": 200}[limit])
    assert tree.lacks == "", "which nobody knows who has not read it all"


def test_more_units_than_anybody_has_are_given_up(systemd: Tree) -> None:
    for number in range(3):
        wanted = " ".join(f"{number}-{unit}" for unit in range(2000))
        systemd.file(f"{UNITS}/default.target.d/{number}.conf", f"[Unit]\nWants={wanted}\n")
    (systemd.root / UNITS[1:] / "default.target").unlink()
    systemd.file(f"{UNITS}/default.target", "[Unit]\n")
    assert systemd.lacks == ""


def test_of_a_unit_only_what_decides_is_kept(tree: Tree) -> None:
    tree.file(
        f"{UNITS}/x@.service",
        "Description=x\nWants=y.service\nExecStart=x %i\nExecStop=x\nTTYPath=/dev/%I\n",
    )
    units = systemd_login.Units(ImageRoot(tree.root))
    unit = units.load("x@tty1.service")
    assert unit is not None
    assert unit.settings == [("Wants", "y.service"), ("ExecStart", "x tty1"), ("TTYPath", "/dev/tty1")]


def test_an_instance_that_stands_in_it_ten_thousand_times_is_too_much(tree: Tree) -> None:
    for number in range(10):
        tree.file(f"{UNITS}/x@.service.d/{number}.conf", f"[Unit]\nWants={'%i' * 30_000}\n")
    tree.file(f"{UNITS}/x@.service", "[Unit]\n")
    tree.link(f"{OWN}/x@{'i' * 200}.service", f"{UNITS}/x@.service")
    with pytest.raises(TooMuchError):
        systemd_login.Units(ImageRoot(tree.root)).load(f"x@{'i' * 200}.service")


def test_a_root_is_read_so_far_and_no_farther(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_root, "MOST_BYTES", 10)
    tree.file("/etc/file", "12345")
    tree.file("/etc/folder/123456")
    image = ImageRoot(tree.root)
    assert image.text("/etc/file") == "12345"
    with pytest.raises(TooMuchError):
        image.names("/etc/folder")


def test_a_path_that_cannot_be_written_is_not_there(tree: Tree) -> None:
    image = ImageRoot(tree.root)
    assert image.text("/\ud800") is None
    assert image.leads_to("/\ud800") is None
    assert image.link("/\ud800", "\ud800") is None
    assert image.names("/\ud800") == ()


def test_what_is_no_file_has_no_text(tree: Tree) -> None:
    os.mkfifo(tree.root / "pipe")
    assert ImageRoot(tree.root).text("/pipe") is None
