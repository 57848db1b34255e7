"""The `-f` grammar."""

from __future__ import annotations

import pytest

from appliance.errors import UsageError
from appliance.filters import Condition, Filter, Op, Pattern, Wild


def test_conditions_are_joined_by_commas() -> None:
    assert Filter.parse("user=alice, name=web*").conditions == (
        Condition("user", Op.EQUAL, Pattern(("alice",))),
        Condition("name", Op.EQUAL, Pattern(("web", Wild.ANY))),
    )


@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_filter_lets_everything_pass(text: str) -> None:
    assert not Filter.parse(text)


@pytest.mark.parametrize("op", list(Op))
def test_comparisons(op: Op) -> None:
    assert Filter.parse(f"a{op}1").conditions == (Condition("a", op, Pattern(("1",))),)


def test_a_value_may_hold_what_means_something() -> None:
    (condition,) = Filter.parse(r"property.a=x=y\,z\*\\?").conditions
    assert condition.value == Pattern(("x=y,z*\\", Wild.ONE))
    assert condition.value.literal is None


@pytest.mark.parametrize("text", ["a", "a=1,", "=1", ",", "a!1", "a=1\\"])
def test_what_does_not_follow_the_grammar_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Filter.parse(text)
    assert repr(text) in str(caught.value)
    assert "\n" not in str(caught.value)
