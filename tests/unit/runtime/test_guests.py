"""What a guest is to be, from its rows and the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from appliance.config import Settings
from appliance.errors import ConfigError
from appliance.model import SUBID_COUNT, BackendKind, DiId, InstallationId, Osf, OsfId
from appliance.runtime.backend import GuestSpec
from appliance.runtime.guests import describe
from appliance.runtime.machine import Phase
from tests.support.machines import machine
from tests.support.rows import vm_row

OURS = InstallationId("0a1b2c3d")
PLAIN = Osf(
    id=OsfId(1),
    name="desktop",
    memory_mib=256,
    cpus=None,
    use_overlay=True,
    user_storage_mib=None,
    backend=BackendKind.LXC,
)
NETWORK = {"vm.network.gateway": "10.44.0.1", "vm.network.netmask": "24"}
VM = vm_row(machine(Phase.STOPPED))


def described(osf: Osf = PLAIN, settings: Mapping[str, str] = NETWORK) -> GuestSpec:
    return describe(VM, osf, DiId(3), Settings({**NETWORK, **settings}), OURS)


def test_an_osf_that_names_no_limits_gets_those_of_the_settings() -> None:
    guest = described(settings={"osf.default.processes": "77", "osf.default.root_size": "2g"})
    assert (guest.processes, guest.root_mib, guest.home_mib) == (77, 2048, None)
    assert described(settings={"osf.default.root_size": "no"}).root_mib is None


def test_an_osf_that_names_limits_gets_them() -> None:
    guest = described(replace(PLAIN, processes=12, root_mib=34, user_storage_mib=56, io_weight=78))
    assert (guest.processes, guest.root_mib, guest.home_mib, guest.io_weight) == (12, 34, 56, 78)
    assert described().io_weight is None


def test_two_vms_have_no_host_id_in_common() -> None:
    first = described().subid_first
    second = describe(replace(VM, subid_slot=1), PLAIN, DiId(3), Settings(NETWORK), OURS).subid_first
    assert set(range(first, first + SUBID_COUNT)).isdisjoint(range(second, second + SUBID_COUNT))


def test_a_vm_without_an_address_is_told_how_to_get_one() -> None:
    with pytest.raises(ConfigError, match="desk7 has no address"):
        describe(replace(VM, ip=None), PLAIN, DiId(3), Settings(NETWORK), OURS)


def test_only_virtual_machines_ask_for_their_address() -> None:
    machine = replace(VM, backend=BackendKind.KVM)
    guest = describe(machine, PLAIN, DiId(3), Settings(NETWORK), OURS)
    assert (guest.asks_dhcp, described().asks_dhcp) == (True, False)
    without = Settings({**NETWORK, "vm.network.use_dhcp": "0"})
    assert not describe(machine, PLAIN, DiId(3), without, OURS).asks_dhcp
