"""The whole appliance as its users have it: the real image, the real daemon, real NX clients."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.trial import ROOT, Trial
from tests.support.desktop import Desk, leftovers
from tests.support.images import Variants

IMAGE = ROOT / "build" / "desktop.tar.zst"


@pytest.fixture(scope="session")
def image() -> Path:
    """The small desktop image; built if its inputs have changed."""
    built = [sys.executable, str(ROOT / "images" / "build_lxc.py"), str(IMAGE)]
    subprocess.run(built, check=True, timeout=1800)
    return IMAGE


@pytest.fixture(scope="session")
def variants(image: Path) -> Iterator[Variants]:
    """Makes images that differ from the desktop image in a few files."""
    with tempfile.TemporaryDirectory(prefix="qvd-variants-") as directory:
        yield Variants(image, Path(directory))


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[Trial]:
    """An installation laid out, without image or daemon; nothing of it is left afterwards."""
    with Trial(tmp_path / "trial") as made:
        made.lay_out()
        installation = made.marker.read_text()
        yield made
    assert leftovers(made, installation) == []


@pytest.fixture
def desk(trial: Trial, image: Path) -> Desk:
    """A running appliance with one user, one image and one stopped desktop."""
    trial.start()
    trial.furnish(image)
    trial.save_certificate()
    return Desk(trial, "desk1")
