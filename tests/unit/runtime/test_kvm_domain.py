"""What libvirt is told, compared with the expected text."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from appliance.config import Settings
from appliance.model import InstallationId, Mark
from appliance.runtime import kvm_domain
from appliance.runtime.backend import GuestSpec
from appliance.runtime.kvm_domain import Limits, Platform
from appliance.storage.paths import Paths
from tests.support.machines import GUEST

GOLDEN = Path(__file__).parents[2] / "golden"
PATHS = Paths(Settings({"path.storage.root": "/pool", "path.run": "/run/qvd"}))
SLOW, FAST = Platform("tcg", 2), Platform("kvm", 2, (64055, 64055))
UUID = "7b0d3f0e-0c4b-4a4e-9d0a-1f2e3d4c5b6a"


@dataclass(frozen=True)
class Files:
    base: Path = Path("/pool/images/3-desktop.qcow2")
    base_format: str = "qcow2"
    overlay: Path = Path("/pool/overlays/3-7-overlay.qcow2")
    home: Path | None = Path("/pool/homes/7-data.qcow2")


MARKED = replace(GUEST, mark=replace(GUEST.mark, vm_uuid=UUID))


@pytest.mark.parametrize(
    ("name", "guest", "files", "platform"),
    [
        ("kvm-share-of-processors", replace(MARKED, cpus=1.5), Files(), FAST),
        ("kvm-weight-of-disk-access", replace(MARKED, io_weight=500), Files(), FAST),
        ("kvm-tcg-without-home", MARKED, Files(base_format="raw", home=None), SLOW),
    ],
)
def test_the_domain_is_the_expected_one(
    name: str, guest: GuestSpec, files: Files, platform: Platform
) -> None:
    assert kvm_domain.render(guest, files, PATHS, platform) == (GOLDEN / f"{name}.xml").read_text()


@pytest.mark.parametrize(
    ("cpus", "expected"),
    [
        (None, Limits(256, 2, None)),
        (1.0, Limits(256, 1, None)),
        (4.0, Limits(256, 4, None)),
        (0.5, Limits(256, 1, 50_000)),
        (2.5, Limits(256, 3, 83_333)),
        (0.0001, Limits(256, 1, 1000)),
    ],
)
def test_a_share_of_processors_is_whole_ones_cut_alike(cpus: float | None, expected: Limits) -> None:
    assert kvm_domain.limits(replace(GUEST, cpus=cpus), SLOW) == expected


def test_a_weight_is_one_of_the_limits_whatever_the_processors() -> None:
    for cpus in (None, 1.0, 0.5):
        assert kvm_domain.limits(replace(GUEST, cpus=cpus, io_weight=7), SLOW).io_weight == 7


def test_the_mark_can_be_read_back() -> None:
    written = kvm_domain.kept(kvm_domain.render(MARKED, Files(), PATHS, SLOW))
    assert written is not None
    assert (written.mark, written.uuid, written.interface) == (MARKED.mark, UUID, "qvd7")


def test_a_vm_without_a_proper_uuid_has_one_of_its_installation() -> None:
    mark = GUEST.mark
    made = kvm_domain.domain_uuid(mark)
    assert str(uuid.UUID(made)) == made == kvm_domain.domain_uuid(mark)
    assert made != kvm_domain.domain_uuid(replace(mark, installation=InstallationId("ffffffff")))


@pytest.mark.parametrize(
    "metadata",
    ["", "<vm", "<vm/>", "<vm installation='a' vm='x' uuid='u' di='1'/>", "<vm installation='a'/>"],
)
def test_a_damaged_mark_is_none(metadata: str) -> None:
    assert kvm_domain.mark_of(metadata) is None
    assert kvm_domain.kept(f"<domain><metadata>{metadata}</metadata></domain>") is None


def test_what_would_be_markup_is_text() -> None:
    odd = replace(MARKED, hostname="a<b>&'c", mark=replace(MARKED.mark, vm_uuid='u"<7>'))
    written = kvm_domain.kept(kvm_domain.render(odd, Files(overlay=Path("/a&b/<x>'.qcow2")), PATHS, SLOW))
    assert written is not None
    assert written.mark == odd.mark


def test_what_cannot_be_written_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be written"):
        kvm_domain.render(replace(MARKED, hostname="a\nb"), Files(), PATHS, SLOW)


CAPABILITIES = """<capabilities><host>
<secmodel><model>apparmor</model><doi>0</doi></secmodel>
<secmodel><model>dac</model><doi>0</doi>
 <baselabel type='kvm'>+64055:+108</baselabel><baselabel type='qemu'>+64055:+109</baselabel></secmodel>
</host><guest><os_type>hvm</os_type><arch name='x86_64'><domain type='qemu'/></arch></guest></capabilities>"""


def test_capabilities_tell_who_qemu_is_and_what_it_can() -> None:
    assert kvm_domain.qemu_owner(CAPABILITIES) == (64055, 109)
    assert kvm_domain.qemu_owner("<capabilities/>") == (0, 0)
    assert kvm_domain.qemu_owner("garbage") == (0, 0)
    assert kvm_domain.can_run(CAPABILITIES, "tcg")
    assert not kvm_domain.can_run(CAPABILITIES, "kvm")
    assert not kvm_domain.can_run("garbage", "tcg")


def test_a_mark_is_compared_by_value() -> None:
    mark = kvm_domain.mark_of(
        f"<q:vm xmlns:q='{kvm_domain.METADATA}' installation='0a1b2c3d' vm='7' uuid='u-7' di='3'/>"
    )
    assert mark == Mark(
        installation=GUEST.mark.installation, vm_id=GUEST.vm_id, vm_uuid="u-7", di_id=GUEST.mark.di_id
    )
