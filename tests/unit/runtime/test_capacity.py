"""What a host has to give."""

from __future__ import annotations

from appliance.runtime.capacity import measured, usable_cpu, usable_ram


def test_cpu_is_four_fifths_of_all_bogomips() -> None:
    assert usable_cpu("bogomips\t: 4000.00\nflags: x\nBogoMIPS : 6000.00\n") == 8000.0


def test_ram_is_in_thousands_of_kilobytes() -> None:
    assert usable_ram("MemFree: 1 kB\nMemTotal:       24689216 kB\n") == 24689.216


def test_this_machine_has_some() -> None:
    cpu, ram = measured()
    assert cpu > 0
    assert ram > 0
