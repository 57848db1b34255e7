"""`qa admin reset`: what it leaves alone, and the note that it writes; more is in tests/host."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from appliance.clock import SystemClock
from appliance.errors import HostError
from appliance.model import InstallationId
from appliance.ops import reset
from appliance.ops.reset import UNFINISHED
from tests.support.qa import Installation, identity

NAME = ("name=node1", "--yes")
OURS = InstallationId("0123abcd")


@pytest.fixture
def qa(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Installation:
    """An installation whose database is not on its pool."""
    made = Installation(tmp_path, capsys).founded()
    made.write_config(database__url=f"sqlite:///{tmp_path}/qvd.db")
    for file in made.storage.glob("qvd.db*"):
        file.rename(tmp_path / file.name)
    return made


def test_nothing_goes_while_the_pool_is_away(qa: Installation) -> None:
    qa.with_vm()
    qa.storage.rename(qa.directory / "unmounted")
    qa.storage.mkdir()
    said = qa("admin", "reset", *NAME)
    assert said.status == 1
    assert (
        f"the pool at {qa.storage} is not mounted: nothing is there of 1 VMs (mount the pool first"
        in said.err
    )
    assert len(qa.listed("vm")) == 1
    qa.storage.rmdir()
    (qa.directory / "unmounted").rename(qa.storage)
    qa.ok("admin", "reset", *NAME)
    assert not (qa.directory / "qvd.db").exists()


def test_an_installation_that_has_nothing_goes_without_its_pool(qa: Installation) -> None:
    qa.storage.rename(qa.directory / "unmounted")
    qa.ok("admin", "reset", *NAME)
    assert not (qa.directory / "qvd.db").exists()


def test_names_of_others_do_nothing_at_a_terminal(qa: Installation) -> None:
    qa.with_vm()
    (qa.storage / "homefs/odd\x1b]52;c;eA==\x07").mkdir()
    assert "odd ]52;c;eA==" in qa.ok("admin", "reset", *NAME).err


async def test_a_note_that_says_who_we_are_is_not_written_anew(
    qa: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    estate = await reset.survey(qa.settings, SystemClock())
    note = qa.storage / UNFINISHED
    note.write_text(f"{estate.installation}\n")
    before = note.stat().st_ino

    def fail(volume: Path) -> None:
        raise OSError

    monkeypatch.setattr(reset, "_discard", fail)
    with pytest.raises(HostError, match=f"{qa.storage} cannot be removed"):
        await reset.remove(qa.settings, estate, lambda _: None)
    assert note.stat().st_ino == before


def test_a_note_that_cannot_be_written_leaves_all_as_it_was(
    qa: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    qa.with_vm()
    before = identity(qa)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        said = qa("admin", "reset", *NAME)
    assert said.status == 1
    assert f"{UNFINISHED} cannot be written: No space left on device (nothing was removed)" in said.err
    assert not (qa.storage / UNFINISHED).exists()
    assert identity(qa) == before


def test_a_control_group_that_changes_meanwhile_is_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        f"lxc.payload.qvd-{OURS}-1",
        f"slice/lxc.payload.qvd-{OURS}-2-1",
        f"lxc.payload.qvd-{OURS}-3",
    ):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "cgroup.procs").write_text("")
    (tmp_path / f"slice/lxc.payload.qvd-{OURS}-2-1/cgroup.procs").write_text("17\n")
    assert reset._in_groups(tmp_path, OURS) == [2]
    real = Path.rglob

    def rglob(path: Path, pattern: str) -> object:
        if path.name.endswith("-3"):
            raise FileNotFoundError
        return real(path, pattern)

    monkeypatch.setattr(Path, "rglob", rglob)
    assert sorted(reset._in_groups(tmp_path, OURS)) == [2, 3]
