"""The `-f` grammar."""

from __future__ import annotations

import pytest

from appliance.errors import UsageError
from appliance.filters import Choice, Condition, Filter, Op, Pattern, Wild


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
    assert isinstance(condition, Condition)
    assert condition.value == Pattern(("x=y,z*\\", Wild.ONE))
    assert condition.value.literal is None


def test_one_of_several() -> None:
    a, b = Pattern(("a",)), Pattern(("b", Wild.ANY))
    assert Filter.parse("name in (a, b*),id=1,x NOT in(a)").conditions == (
        Choice("name", (a, b)),
        Condition("id", Op.EQUAL, Pattern(("1",))),
        Choice("x", (a,), among=False),
    )
    assert Filter.parse(r"in in (\(a\),x\,y)").conditions == (
        Choice("in", (Pattern(("(a)",)), Pattern(("x,y",)))),
    )


def test_parentheses_in_values_are_themselves() -> None:
    assert Filter.parse("name=a in (b,id=1").conditions == (
        Condition("name", Op.EQUAL, Pattern(("a in (b",))),
        Condition("id", Op.EQUAL, Pattern(("1",))),
    )


@pytest.mark.parametrize(
    "text", ["a in (", "a in ()", "a in (b,)", "a in (b) c", " in (b)", "a in b", "a in (b)c=1"]
)
def test_a_list_is_whole_or_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Filter.parse(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("text", ["a", "a=1,", "=1", ",", "a!1", "a=1\\"])
def test_what_does_not_follow_the_grammar_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Filter.parse(text)
    assert repr(text) in str(caught.value)
    assert "\n" not in str(caught.value)
