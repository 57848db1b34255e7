"""An import that was killed goes on where it ended, and never with another file."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from appliance.ops.image_part import PART_KEPT
from appliance.storage import intake
from appliance.storage.intake import Intake, Origin
from appliance.storage.schema import operations
from scripts.trial import ROOT
from tests.support.qa import Installation

MIB = 1 << 20
SIZE = 10 * MIB


@pytest.fixture
def osf(qa: Installation) -> Installation:
    """An installation with an OSF."""
    qa.ok("osf", "add", "name=desktop")
    return qa


@pytest.fixture
def source(osf: Installation) -> Path:
    file = osf.directory / "large.img"
    file.write_bytes(random.Random(1).randbytes(SIZE))
    return file


def killed(qa: Installation, source: Path, *, at: float) -> Path:
    """An import that is killed; its copy."""
    words = ["-m", "tests.support.mortal_import", str(qa.config), str(source), "desktop", str(at)]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, check=False, timeout=60)
    assert done.returncode == -9
    (part,) = qa.storage.glob("images/.*.part")
    return part


def left(qa: Installation) -> list[str]:
    return sorted(file.name for file in (qa.storage / "images").iterdir())


def sound(qa: Installation, source: Path, di: dict[str, Any]) -> bool:
    """Whether an image is the file, and says so."""
    content = (qa.storage / "images" / di["path"]).read_bytes()
    return (source.read_bytes(), di["sha256"]) == (content, hashlib.sha256(content).hexdigest())


def test_it_goes_on_where_it_was_killed(osf: Installation, source: Path) -> None:
    part = killed(osf, source, at=0.6)
    assert part.stat().st_size in (6 * MIB, SIZE), "cloned where files can be"
    said = osf.ok("di", "add", f"path={source}", "osf=desktop", "-o", "json")
    assert re.search(r"The import of large\.img goes on at (60|100)%\.", said.err)
    assert sound(osf, source, said.json)
    assert left(osf) == [said.json["path"]]
    assert osf.listed("operation") == []


def test_what_was_copied_is_not_read_again(osf: Installation, source: Path, tmp_path: Path) -> None:
    part = tmp_path / "part"
    origin = Origin.of(source)
    begun = source.read_bytes()[: 6 * MIB]
    part.write_bytes(begun[:-1] + bytes([begun[-1] ^ 1]))
    if intake._cloned(os.open(source, os.O_RDONLY), os.open(tmp_path / "clone", os.O_RDWR | os.O_CREAT)):
        pytest.skip("this file system clones files, and reads none")
    Intake(source, part, origin).run(lambda _: None)
    assert part.read_bytes() == begun[:-1] + bytes([begun[-1] ^ 1]) + source.read_bytes()[6 * MIB :]


def rewritten(source: Path) -> None:
    """Other content, the same size and time."""
    times = source.stat()
    source.write_bytes(random.Random(2).randbytes(SIZE))
    os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))


def replaced(source: Path) -> None:
    """Another file of that name, size and time."""
    times = source.stat()
    fresh = source.with_suffix(".new")
    fresh.write_bytes(random.Random(2).randbytes(SIZE))
    os.utime(fresh, ns=(times.st_atime_ns, times.st_mtime_ns))
    fresh.rename(source)


def grown(source: Path) -> None:
    with source.open("ab") as stream:
        stream.write(b"more")


@pytest.mark.parametrize("change", [rewritten, replaced, grown])
def test_another_file_is_begun_anew(osf: Installation, source: Path, change: Callable[[Path], None]) -> None:
    killed(osf, source, at=0.6)
    change(source)
    said = osf.ok("di", "add", f"path={source}", "osf=desktop", "-o", "json")
    assert "goes on" not in said.err
    assert sound(osf, source, said.json)
    assert left(osf) == [said.json["path"]]


def test_another_osf_begins_anew(osf: Installation, source: Path) -> None:
    osf.ok("osf", "add", "name=other")
    part = killed(osf, source, at=0.6)
    said = osf.ok("di", "add", f"path={source}", "osf=other", "-o", "json")
    assert "goes on" not in said.err
    assert sound(osf, source, said.json)
    assert left(osf) == [part.name, said.json["path"]]


def test_the_copy_waits_in_the_list_of_operations_until_it_is_cancelled(
    osf: Installation, source: Path
) -> None:
    part = killed(osf, source, at=0.6)
    osf.ok("di", "add", f"path={osf.archive()}", "osf=desktop")
    assert left(osf) == [part.name, "2-desktop.tar"]
    (waiting,) = osf.listed("operation")
    assert (waiting["object_id"], waiting["kind"]) == (1, "di add")
    assert waiting["progress"] >= 0.6
    osf.ok("operation", "cancel", "--yes")
    assert left(osf) == ["2-desktop.tar"]
    assert osf.listed("operation") == []


def test_after_a_day_it_goes_by_itself(osf: Installation, source: Path) -> None:
    killed(osf, source, at=0.6)

    async def age() -> None:
        async with osf.write() as tx:
            early = tx.at - PART_KEPT - timedelta(minutes=1)
            await tx.connection.execute(update(operations).values(begun=early))

    asyncio.run(age())
    osf.ok("di", "add", f"path={osf.archive()}", "osf=desktop")
    assert left(osf) == ["2-desktop.tar"]
    assert osf.listed("operation") == []


def test_it_may_be_killed_again_and_again(osf: Installation, source: Path) -> None:
    for share in (0.2, 0.5, 0.5, 0.9):
        killed(osf, source, at=share)
    said = osf.ok("di", "add", f"path={source}", "osf=desktop", "-o", "json")
    assert sound(osf, source, said.json)
    assert left(osf) == ["1-large.img"]


def test_a_file_that_changes_while_it_is_read_is_refused(osf: Installation, source: Path) -> None:
    origin = Origin.of(source)
    grown(source)
    part = osf.directory / "part"
    with pytest.raises(Exception, match=r"large\.img changed while it was being imported"):
        Intake(source, part, origin).run(lambda _: None)
