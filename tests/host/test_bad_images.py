"""Whose fault it is when a container does not start: what its image holds, or what this host lacks."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from appliance.errors import HostError, ImageError
from appliance.runtime.backend import Departure
from appliance.runtime.blame import HOST, IMAGE, Blame, blame_of
from tests.support.contract import ONE, Rig
from tests.support.lxc_rig import Site
from tests.support.machines import NOW
from tests.support.traces import traces

pytestmark = pytest.mark.host

LONGEST_S = 20.0
Spoil = Callable[[Path], object]


@pytest.fixture(autouse=True)
def nothing_is_left(site: Site) -> Iterator[None]:
    yield
    asyncio.run(site.rig().remove(ONE))
    assert traces(site.installation) == []


def init(content: bytes, mode: int = 0o755) -> Spoil:
    """Another init."""

    def spoil(root: Path) -> None:
        file = root / "sbin" / "init"
        file.unlink()
        file.write_bytes(content)
        file.chmod(mode)

    return spoil


def file_at(point: str) -> Spoil:
    """A file where a directory should be."""

    def spoil(root: Path) -> None:
        shutil.rmtree(root / point)
        (root / point).write_text("")

    return spoil


def circle_at(point: str) -> Spoil:
    """A link to itself where a directory should be."""

    def spoil(root: Path) -> None:
        shutil.rmtree(root / point)
        (root / point).symlink_to(f"/{point}")

    return spoil


async def failure(rig: Rig, spoil: Spoil) -> Exception | None:
    """Why a guest on a spoiled root does not start; None if it departed before anybody could look."""
    guest = rig.guest()
    spoil(await rig.disks.clone_root(guest.mark, keep=False))
    await rig.disks.ensure_home(guest.mark, size_mib=None)
    try:
        await rig.backend.define(guest)
        await rig.fences.fence(guest)
        await rig.backend.launch(ONE)
    except (ImageError, HostError) as exc:
        return exc
    async with asyncio.timeout(LONGEST_S):
        assert await anext(aiter(rig.backend.departures())) == Departure(vm_id=ONE)
    return None


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda root: (root / "sbin" / "init").unlink(), "no /sbin/init: No such file"),
        (init(b"#!/bin/sh\n", 0o644), "cannot be executed: Permission denied"),
        (init(b"#!/no/such/shell\n"), "cannot be executed: No such file"),
        (file_at("proc"), "/proc in the image of VM 1 is unusable: Not a directory"),
        (file_at("dev"), "/dev in the image"),
        (file_at("home"), "/home in the image"),
        (circle_at("tmp"), "/tmp in the image of VM 1 is unusable: Too many levels"),
        (lambda root: shutil.rmtree(root / "etc"), "/etc in the image"),
    ],
)
async def test_what_the_image_holds_is_the_images_fault(site: Site, spoil: Spoil, reason: str) -> None:
    await site.connect()
    found = await failure(site.rig(), spoil)
    assert found is not None
    assert blame_of(found) is IMAGE, found
    assert reason in str(found)


@pytest.mark.parametrize("content", [b"\0\1 no program", b"#!/bin/sh\nexit 3\n"])
async def test_an_init_that_ends_at_once_departs_or_is_the_images_fault(site: Site, content: bytes) -> None:
    await site.connect()
    found = await failure(site.rig(), init(content))
    assert found is None or (blame_of(found) is IMAGE and "ended at once" in str(found)), found


async def test_an_empty_mount_point_need_not_be_there(site: Site) -> None:
    await site.connect()
    rig = site.rig()
    guest = rig.guest()
    root = await rig.disks.clone_root(guest.mark, keep=True)
    for point in ("dev", "proc", "sys", "tmp", "run", "home"):
        shutil.rmtree(root / point)
    await rig.start(rig.guest(keep_root=True))
    assert set(await rig.backend.survey()) == {ONE}


async def test_a_bridge_that_is_not_there_is_the_hosts_fault(site: Site) -> None:
    rig = site.rig()
    with pytest.raises(HostError) as caught:
        await rig.start(rig.guest(bridge="nobridge"))
    assert blame_of(caught.value) == Blame(HOST.cause, "backend")


async def test_a_root_that_did_not_boot_can_be_put_aside(site: Site) -> None:
    rig = site.rig()
    guest = rig.guest()
    root = await rig.disks.clone_root(guest.mark, keep=False)
    (root / "var" / "evidence").write_text("here")
    aside = rig.disks.aside(ONE, NOW)
    assert aside is not None
    assert await rig.disks.put_aside(ONE, aside)
    assert (aside / "var" / "evidence").read_text() == "here"
    assert not root.exists()
    assert not await rig.disks.put_aside(ONE, aside)
    assert rig.disks.aside(ONE, NOW) != aside, "what is kept is never covered"
