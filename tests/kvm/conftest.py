"""One libvirtd for the run, and an installation for each test, in the event loop of the daemon."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import uvloop

from tests.support import kvm_rig, netns
from tests.support.boot_sector import sector_image
from tests.support.kvm_rig import Site
from tests.support.libvirtd import Libvirtd, libvirtd
from tests.support.tiny_vm import tiny_image

ROOT = Path(__file__).resolve().parents[2]
IMAGE = ROOT / "build" / "desktop.qcow2"


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """uvloop; for the link to libvirtd asyncio's own loop as well."""
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"uvloop": uvloop.new_event_loop}
    if item.path.name == "test_libvirt_link.py":
        loops["asyncio"] = asyncio.new_event_loop
    return loops


@pytest.fixture(scope="session")
def virtual_host() -> Iterator[tuple[str, Libvirtd]]:
    """A network namespace with a libvirtd in it."""
    with netns.namespace() as name, libvirtd(name) as daemon:
        yield name, daemon


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The smallest guests, by kind."""
    folder = tmp_path_factory.mktemp("sectors")
    return {kind: sector_image(folder, kind) for kind in ("quick", "deaf", "flood", "count")}


@pytest.fixture(scope="session")
def tiny() -> Path:
    """The smallest Linux; made outside of the network namespace, as its kernel is downloaded."""
    return tiny_image()


@pytest.fixture
def network(virtual_host: tuple[str, Libvirtd]) -> Iterator[Libvirtd]:
    """The test runs in libvirtd's network namespace."""
    name, daemon = virtual_host
    with netns.entered(name):
        yield daemon


@pytest.fixture
def site(network: Libvirtd, images: dict[str, Path]) -> Iterator[Site]:
    """An installation whose guests are quick."""
    with kvm_rig.site(network, images["quick"]) as made:
        yield made


@pytest.fixture(scope="session")
def kvm_image() -> Path:
    """The small KVM desktop image; built if its inputs have changed."""
    built = [sys.executable, str(ROOT / "images" / "build_kvm.py"), str(IMAGE)]
    subprocess.run(built, check=True, timeout=1800)
    return IMAGE
