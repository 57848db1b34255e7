"""Who comes in: in all, by address, and of those who have not logged in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from appliance.l7r.gate import Bounds, Gate, Place, origin_of

BOUNDS = Bounds(connections=10, per_address=5, strangers_per_address=2)


def gate() -> Gate:
    return Gate(lambda: BOUNDS)


def place(gate: Gate, address: str) -> Place:
    found = gate.enter(address)
    assert isinstance(found, Place), found
    return found


def test_strangers_of_one_address_are_few_and_others_come_in() -> None:
    one = gate()
    first, _ = place(one, "10.0.0.1"), place(one, "10.0.0.1")
    assert one.enter("10.0.0.1") == "its address has enough connections without a log-in"
    place(one, "10.0.0.2")
    first.known()
    place(one, "10.0.0.1")


def test_one_address_has_its_share_of_all_and_no_more() -> None:
    one = gate()
    for _ in range(BOUNDS.per_address):
        place(one, "10.0.0.1").known()
    assert one.enter("10.0.0.1") == "its address has enough connections"
    for number in range(2, 7):
        place(one, f"10.0.0.{number}")
    assert one.enter("10.0.0.99") == "the broker is full"


def test_a_place_is_given_back_once() -> None:
    one = gate()
    first, second = place(one, "10.0.0.1"), place(one, "10.0.0.1")
    for _ in range(3):
        first.leave()
    first.known()
    place(one, "10.0.0.1")
    assert isinstance(one.enter("10.0.0.1"), str)
    second.leave()


def test_a_machine_has_all_addresses_of_its_ipv6_network() -> None:
    assert origin_of("2001:db8::1") == origin_of("2001:db8::2:3:4:5") == "2001:db8::/64"
    assert origin_of("2001:db8:0:1::1") != origin_of("2001:db8::1")
    assert origin_of("fe80::1%eth0") == "fe80::/64"
    assert origin_of("192.0.2.1") == "192.0.2.1"
    assert origin_of("unknown") == "unknown"


@given(st.lists(st.tuples(st.sampled_from(["enter", "known", "leave"]), st.integers(0, 3)), max_size=200))
def test_whatever_happens_the_bounds_hold_and_the_gate_is_empty_in_the_end(
    steps: list[tuple[str, int]],
) -> None:
    one, inside = gate(), list[Place]()
    for what, number in steps:
        if what == "enter":
            found = one.enter(f"10.0.0.{number}")
            inside += [found] if isinstance(found, Place) else []
        elif inside and what == "known":
            inside[number % len(inside)].known()
        elif inside:
            inside.pop(number % len(inside)).leave()
        assert len(inside) <= BOUNDS.connections
        for origin in {each.origin for each in inside}:
            theirs = [each for each in inside if each.origin == origin]
            assert len(theirs) <= BOUNDS.per_address
            assert sum(each.stranger for each in theirs) <= BOUNDS.strangers_per_address
    for each in inside:
        each.leave()
    for number in range(BOUNDS.connections // 2):
        place(one, f"10.1.0.{number}")
        place(one, f"10.1.0.{number}")
    assert one.enter("10.2.0.1") == "the broker is full"
