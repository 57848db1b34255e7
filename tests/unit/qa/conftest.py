"""`qa` on a fresh installation."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.qa import Installation


@pytest.fixture
def bare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Installation:
    """A node.conf and nothing else."""
    return Installation(tmp_path, capsys)


@pytest.fixture
def qa(bare: Installation) -> Installation:
    """An installation."""
    return bare.founded()
