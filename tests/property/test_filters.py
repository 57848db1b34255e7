"""Filters: what is written can be read back, and nothing but a usage error comes of nonsense."""

from __future__ import annotations

import contextlib

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.errors import UsageError
from appliance.filters import Choice, Condition, Filter, Op, Pattern, Wild

awkward = (
    st.text(alphabet=st.sampled_from("ab \\,=!<>*?()é\n"))
    | st.sampled_from(["a in (", "a not in (b"])
    | st.text()
)
patterns = st.builds(lambda parts: Pattern(tuple(parts)), st.lists(awkward | st.sampled_from(Wild)))
conditions = st.builds(Condition, awkward.filter(bool), st.sampled_from(Op), patterns)
choices = st.builds(
    lambda key, values, among: Choice(key, tuple(values), among),
    awkward.filter(bool),
    st.lists(patterns.filter(lambda pattern: bool(pattern.parts)), min_size=1),
    st.booleans(),
)
filters = st.builds(lambda found: Filter(tuple(found)), st.lists(conditions | choices))


@given(filters)
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # CI is busy
def test_what_is_written_can_be_read_back(written: Filter) -> None:
    assert Filter.parse(str(written)) == written


@given(awkward)
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_text_is_a_filter_or_a_usage_error(text: str) -> None:
    with contextlib.suppress(UsageError):
        parsed = Filter.parse(text)
        assert Filter.parse(str(parsed)) == parsed
