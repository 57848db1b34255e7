"""The whole appliance with virtual machines: the real daemon, a libvirtd of its own, emulated guests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.kvm_desktop import Site, kvm_site
from tests.support.tiny_vm import tiny_image

PATIENCE = {"internal__hkd__start__delay__first": "0.5", "internal__hkd__start__delay__max": "2"}


@pytest.fixture(scope="session")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """An appliance for guests that boot in seconds, impatient to try again; the one called desk1 answers."""
    with kvm_site(tmp_path_factory.mktemp("quick") / "trial", pool_size="1G", **PATIENCE) as made:
        made.trial.furnish(tiny_image(), memory=96, policy=("backend=kvm",))
        yield made
