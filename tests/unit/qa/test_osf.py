"""`qa osf`: what VMs get."""

from __future__ import annotations

import asyncio
import os

import pytest

from appliance.model import HostId
from appliance.scalars import mib
from tests.support.qa import Installation

MIB = 1024 * 1024

PLAIN_AGEING = {
    "expire_idle": False,
    "expire_on_disconnect": False,
    "postpone_times": None,
    "postpone_s": None,
    "expire_warn_s": 900,
    "idle_limit_s": None,
    "session_limit_s": None,
}


def test_defaults_come_from_the_settings(qa: Installation) -> None:
    qa.ok("osf", "add", "name=plain")
    (osf,) = qa.listed("osf")
    assert osf == {
        "id": 1,
        "name": "plain",
        "memory_bytes": 256 * MIB,
        "cpus": None,
        "use_overlay": True,
        "user_storage_size_bytes": None,
        "backend": "nothing",
        "processes": None,
        "root_size_bytes": None,
        "io_weight": None,
        **PLAIN_AGEING,
    }


def test_sizes_take_suffixes(qa: Installation) -> None:
    qa.ok("osf", "add", "name=big", "memory=2g", "user_storage_size=1.5g", "cpus=0.5", "use_overlay=no")
    (osf,) = qa.listed("osf")
    assert (osf["memory_bytes"], osf["user_storage_size_bytes"]) == (2048 * MIB, 1536 * MIB)
    assert (osf["cpus"], osf["use_overlay"]) == (0.5, False)


@pytest.mark.parametrize(
    ("text", "mib"), [("4t", 4 << 20), ("5000000", 5_000_000), ("64k", None), ("4096k", 4)]
)
def test_a_home_is_counted_in_mib_whatever_the_suffix(qa: Installation, text: str, mib: int | None) -> None:
    """QVD took the same number for bytes or MiB, and lost what did not fit into 32 bits (trap T22)."""
    said = qa("osf", "add", "name=big", f"user_storage_size={text}", "backend=kvm", "memory=1")
    assert (said.status == 0) is (mib is not None)
    if mib is not None:
        assert qa.listed("osf", "name=big")[0]["user_storage_size_bytes"] == mib * MIB


def test_who_gets_no_home_disk_is_told(qa: Installation) -> None:
    assert "VMs of big get no home disk" in qa.ok("osf", "add", "name=big", "backend=kvm", "memory=1").err


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("qemu:///system?socket=/nowhere", True),
        ("qemu:///system?socket=/", False),
        ("qemu+ssh://far/system", False),
    ],
)
def test_machines_without_a_libvirtd_are_warned_of(qa: Installation, uri: str, told: bool) -> None:
    qa.ok("config", "set", f"vm.kvm.uri={uri}")
    said = qa.ok("osf", "add", "name=big", "backend=kvm", "memory=1").err
    assert ("no libvirtd is seen on this host" in said) is told


@pytest.mark.parametrize(
    ("text", "size"), [("512", 512), ("512m", 512), ("2G", 2048), ("1t", 2**20), ("2048k", 2), ("1GiB", 1024)]
)
def test_a_number_means_mib(text: str, size: int) -> None:
    assert mib(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1", "x", "1p", "512k"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="size"):
        mib(text)


def test_edits_what_is_named_and_nothing_else(qa: Installation) -> None:
    qa.ok("osf", "add", "name=a", "memory=1g")
    qa.ok("osf", "add", "name=b", "memory=1g", "user_storage_size=1g")
    assert qa.ok("osf", "edit", "user_storage_size=no", "memory=3g", "-f", "name=b").out == "Edited 1 OSFs.\n"
    a, b = qa.listed("osf")
    assert (a["memory_bytes"], b["memory_bytes"]) == (1024 * MIB, 3072 * MIB)
    assert b["user_storage_size_bytes"] is None


def test_a_weight_is_given_changed_found_and_taken_back(qa: Installation) -> None:
    qa.ok("osf", "add", "name=a", "io_weight=1")
    qa.ok("osf", "edit", "io_weight=1000", "-f", "io_weight=1")
    assert [osf["io_weight"] for osf in qa.listed("osf", "io_weight=1000")] == [1000]
    assert "1000" in qa.ok("osf", "show", "-f", "name=a").out
    qa.ok("osf", "edit", "io_weight=no", "-f", "name=a")
    assert [osf["io_weight"] for osf in qa.listed("osf")] == [None]


def ageing(osf: dict[str, object]) -> dict[str, object]:
    """What an OSF says of ageing."""
    return {key: osf[key] for key in PLAIN_AGEING}


def test_a_policy_of_ageing_is_given_and_taken_back(qa: Installation) -> None:
    qa.ok("osf", "add", "name=a", "expire-idle=yes", "postpone=3x2h", "expire_warn=1h30m", "idle-limit=8h")
    told = {"expire_idle": True, "postpone_times": 3, "postpone_s": 7200}
    told |= {"expire_warn_s": 5400, "idle_limit_s": 8 * 3600}
    assert ageing(qa.listed("osf")[0]) == PLAIN_AGEING | told
    qa.ok("osf", "edit", "-f", "postpone_times=3", "expire-on-disconnect=yes", "session-limit=3d")
    told |= {"expire_on_disconnect": True, "session_limit_s": 3 * 86400}
    assert ageing(qa.listed("osf")[0]) == PLAIN_AGEING | told
    nothing = ("expire-idle=no", "expire-on-disconnect=no", "postpone=no", "expire-warn=15m", "idle-limit=no")
    qa.ok("osf", "edit", "-f", "name=a", *nothing, "session-limit=")
    assert ageing(qa.listed("osf")[0]) == PLAIN_AGEING
    qa.ok("osf", "edit", "-f", "name=a", "expire-warn=no")
    assert qa.listed("osf")[0]["expire_warn_s"] == 0


def test_policies_of_later_versions_are_refused_by_name(qa: Installation) -> None:
    said = qa("osf", "add", "name=a", "printing=yes", "memory=none")
    assert said.status == 2
    assert "there is no argument printing" in said.err
    assert "argument memory='none'" in said.err
    assert qa.listed("osf") == []


def test_names_are_unique(qa: Installation) -> None:
    qa.ok("osf", "add", "name=a")
    qa.ok("osf", "add", "name=b")
    assert qa("osf", "add", "name=a").status == 1
    assert qa("osf", "edit", "name=b", "-f", "id=1").status == 1
    assert qa("osf", "edit", "name=c", "--yes").status == 1
    assert [osf["name"] for osf in qa.listed("osf")] == ["a", "b"]


def test_what_is_used_is_not_deleted(qa: Installation) -> None:
    qa.with_vm()
    said = qa("osf", "del", "--yes")
    assert said.status == 1
    assert "web-1" in said.err
    qa.ok("vm", "del", "--yes")
    qa.ok("osf", "del", "--yes")
    assert qa.listed("osf") == []


def test_help_lists_the_defaults(qa: Installation) -> None:
    text = qa.ok("osf", "add", "--help").out
    for name, default in (("memory", "256"), ("overlay", "1"), ("processes", "4096"), ("root_size", "4g")):
        assert f"default osf.default.{name} ({default} unless set)" in text
    assert "default vm.hypervisor (lxc unless set)" in text
    assert text.count("default no limit") == 2
    assert "1 to 1000; default 100" in text


def test_what_may_not_have_been_meant_is_told(qa: Installation) -> None:
    async def measure() -> None:
        async with qa.write() as tx:
            await tx.hosts.measure(HostId(1), usable_cpu=1.0, usable_ram=8192.0)

    asyncio.run(measure())
    assert "no limit" in qa.ok("osf", "add", "name=a", "backend=lxc").err
    assert qa.ok("osf", "add", "name=b", "backend=lxc", "user_storage_size=1g", "memory=7g").err == ""
    assert "no host has more than 8000" in qa.ok("osf", "edit", "memory=16g", "-f", "name=b").err


def test_a_virtual_machine_that_no_host_can_carry_is_refused_with_numbers(qa: Installation) -> None:
    async def measure() -> None:
        async with qa.write() as tx:
            await tx.hosts.measure(HostId(1), usable_cpu=1.0, usable_ram=8192.0)

    asyncio.run(measure())
    most = os.cpu_count()
    said = qa("osf", "add", "name=a", "backend=kvm", "memory=8001")
    assert said.status == 1
    assert "a VM of a takes 8001 MiB of memory, of 8000 that a host has" in said.err
    assert qa.listed("osf") == []
    qa.ok("osf", "add", "name=a", "backend=kvm", "memory=8000", f"cpus={most}")
    said = qa("osf", "edit", f"cpus={most}.5", "-f", "name=a")
    assert f"a VM of a takes {most}.5 processors, of {most} that a host has" in said.err
    qa.ok("osf", "add", "name=b", "backend=lxc", "memory=16g")
    assert qa("osf", "edit", "backend=kvm", "-f", "name=b").status == 1
    assert [(osf["memory_bytes"], osf["backend"]) for osf in qa.listed("osf")] == [
        (8000 * MIB, "kvm"),
        (16 * 1024 * MIB, "lxc"),
    ]


def test_what_the_host_has_may_shrink_without_anything_else_being_refused(qa: Installation) -> None:
    qa.ok("osf", "add", "name=a", "backend=kvm", "memory=8g")

    async def measure() -> None:
        async with qa.write() as tx:
            await tx.hosts.measure(HostId(1), usable_cpu=1.0, usable_ram=4096.0)

    asyncio.run(measure())
    qa.ok("osf", "edit", "name=b", "-f", "name=a")
    assert qa("osf", "edit", "memory=6g", "-f", "name=b").status == 1
