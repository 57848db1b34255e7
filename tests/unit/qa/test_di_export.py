"""`qa di export` and `import`: an image goes to another box whole, or not at all."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from appliance.model import DiId
from appliance.ops import image_archive, image_export
from appliance.storage.paths import Paths
from tests.support.qa import Installation

POLICY = ("memory=3g", "cpus=1.5", "user_storage_size=9g", "postpone=3x2h", "expire-warn=no")


@pytest.fixture
def boxes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[Installation, Installation]:
    """Two installations, the first with an image and a policy."""
    made = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        box = Installation(tmp_path / name, capsys)
        box.ok("admin", "init", "--yes")
        made.append(box)
    here, there = made
    here.ok("osf", "add", "name=office", *POLICY)
    here.ok("di", "add", f"path={here.archive()}", "osf=office", "version=7", "notes=New browser")
    return here, there


def exported(box: Installation) -> Path:
    said = box.ok("di", "export", "di_id=1", f"path={box.directory}", "-o", "json").json
    return Path(said["path"])


def inside(box: Installation) -> list[str]:
    paths = Paths(box.settings)
    return sorted(file.name for folder in (paths.images, paths.staging) for file in folder.iterdir())


def test_an_image_comes_over_with_all_that_is_said_of_it(
    boxes: tuple[Installation, Installation],
) -> None:
    here, there = boxes
    archive = exported(here)
    assert archive == here.directory / "office-7.image.tar"
    assert archive.stat().st_mode & 0o777 == 0o600
    said = there("di", "import", f"path={archive}")
    assert (said.status, "make_osf=yes" in said.err) == (1, True)
    there.ok("di", "import", f"path={archive}", "make_osf=yes")
    (sent,), (come,) = here.listed("di"), there.listed("di")
    changing = {"created"}
    assert {key: come[key] for key in come.keys() - changing} == {
        key: sent[key] for key in sent.keys() - changing
    }
    assert here.listed("osf") == there.listed("osf")
    file = Paths(there.settings).images / "1-desktop.tar"
    assert file.read_bytes() == here.archive().read_bytes()
    assert inside(there) == ["1-desktop.tar"]

    there.ok("osf", "add", "name=branch")
    there.ok("di", "import", f"path={archive}", "osf=branch", "version=8")
    assert [(di["osf"], di["version"]) for di in there.listed("di")] == [("office", "7"), ("branch", "8")]
    said = there("di", "import", f"path={archive}")
    assert (said.status, "version=7: the OSF has a version" in said.err) == (1, True)


def test_what_is_refused_leaves_nothing_not_even_its_osf(boxes: tuple[Installation, Installation]) -> None:
    here, there = boxes
    archive = exported(here)
    spoilt = bytearray(archive.read_bytes())
    spoilt[-2000] ^= 1
    damaged = there.directory / "damaged.tar"
    damaged.write_bytes(bytes(spoilt))
    said = there("di", "import", f"path={damaged}", "make_osf=yes")
    assert (said.status, "damaged.tar is damaged" in said.err) == (1, True)
    there.ok("osf", "add", "name=containers", "backend=lxc")
    said = there("di", "import", f"path={archive}", "osf=containers")
    assert (said.status, "the image is for nothing" in said.err) == (1, True)
    there.ok("config", "set", "storage.import.max_size=1m", "--yes")
    with archive.open("rb") as stream:
        large = replace(image_archive.read(stream).manifest, size=2 << 20)
    (there.directory / "large.tar").write_bytes(
        image_archive.head(large, datetime(2030, 1, 31, tzinfo=UTC)) + bytes(2 << 20)
    )
    said = there("di", "import", f"path={there.directory}/large.tar", "make_osf=yes")
    assert (said.status, "2 MiB, more than the 1 MiB of storage.import.max_size" in said.err) == (1, True)
    assert [osf["name"] for osf in there.listed("osf")] == ["containers"]
    assert there.listed("di") == []
    assert inside(there) == []


def test_an_image_that_is_not_what_it_was_is_not_exported(boxes: tuple[Installation, Installation]) -> None:
    here, _ = boxes
    file = Paths(here.settings).images / "1-desktop.tar"
    file.chmod(0o600)
    for content in (b"other " * 1000, b"shorter"):
        file.write_bytes(content)
        said = here("di", "export", "di_id=1", f"path={here.directory}/x.tar")
        assert (said.status, "DI 1 is damaged" in said.err) == (1, True)
    assert not list(here.directory.glob("*.tar.*")) + list(here.directory.glob("x*"))


def test_nothing_is_overwritten(boxes: tuple[Installation, Installation]) -> None:
    here, _ = boxes
    archive = exported(here)
    before = archive.read_bytes()
    said = here("di", "export", "di_id=1", f"path={archive}")
    assert (said.status, "already" in said.err) == (1, True)
    link = here.directory / "link"
    link.symlink_to(here.directory / "nowhere")
    assert here("di", "export", "di_id=1", f"path={link}").status == 1
    assert archive.read_bytes() == before
    assert not (here.directory / "nowhere").exists()


def test_an_export_that_is_interrupted_leaves_nothing(boxes: tuple[Installation, Installation]) -> None:
    """Its archive has no name before it is whole: killed or cancelled, it is the same."""
    here, _ = boxes
    before, seen = names(here), list[list[str]]()

    async def interrupted() -> None:
        loop, begun, over = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

        def report(step: str, share: float) -> None:
            seen.append(names(here))
            loop.call_soon_threadsafe(begun.set)
            over.wait(20)

        async with here.store() as store:
            target = here.directory / "x.tar"
            exporting = asyncio.ensure_future(
                image_export.export(store, here.settings, DiId(1), target, by="test", report=report)
            )
            await begun.wait()
            exporting.cancel()
            for _ in range(10):
                await asyncio.sleep(0)
            over.set()
            with pytest.raises(asyncio.CancelledError):
                await exporting

    asyncio.run(interrupted())
    assert seen == [before]
    assert names(here) == before


def names(box: Installation) -> list[str]:
    return sorted(file.name for file in box.directory.iterdir())
