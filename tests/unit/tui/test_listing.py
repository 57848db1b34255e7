"""Rows in their order against the naive way: sort all that pass, each time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.tui.listing import Listing

Record = tuple[str, int]
SORTS: tuple[Callable[[Record], object], ...] = (
    lambda record: record[0],
    lambda record: record[1],
    lambda record: (record[1] % 2, record[0]),
    lambda record: 0,
)
FILTERS: tuple[Callable[[Record], bool] | None, ...] = (
    None,
    lambda record: record[1] % 2 == 0,
    lambda record: "a" in record[0],
    lambda record: False,
)
keys = st.integers(0, 12)
records = st.tuples(st.text("ab", max_size=3), st.integers(0, 5))
steps = st.one_of(
    st.tuples(st.just("apply"), st.dictionaries(keys, records, max_size=4), st.sets(keys, max_size=3)),
    st.tuples(st.just("replace"), st.dictionaries(keys, records, max_size=12), st.none()),
    st.tuples(st.just("sort"), st.sampled_from(SORTS), st.booleans()),
    st.tuples(st.just("show"), st.sampled_from(FILTERS), st.none()),
)


@given(st.lists(steps, max_size=12))
def test_rows_are_those_that_pass_in_their_order(story: list[tuple[str, object, object]]) -> None:
    listing: Listing[Record] = Listing(SORTS[0])
    everything: dict[int, Record] = {}
    sort, reverse = SORTS[0], False
    passes = FILTERS[0]
    for what, first, second in story:
        before = listing.ordered()
        moved: bool | None = None
        if what == "apply":
            changed = {key: record for key, record in first.items() if key not in second}  # type: ignore[attr-defined, operator]
            everything = {key: one for key, one in (everything | changed).items() if key not in second}  # type: ignore[operator]
            moved = listing.apply(changed, second)  # type: ignore[arg-type]
        elif what == "replace":
            everything = dict(first)  # type: ignore[call-overload]
            listing.replace(everything)
        elif what == "sort":
            sort, reverse = first, bool(second)  # type: ignore[assignment]
            listing.sort_by(sort, reverse=reverse)
        else:
            passes = first  # type: ignore[assignment]
            listing.show(passes)
        shown = [key for key, record in everything.items() if passes is None or passes(record)]
        expected = sorted(shown, key=lambda key: (sort(everything[key]), key), reverse=reverse)
        assert listing.ordered() == expected
        assert listing.records == everything
        assert len(listing) == len(expected)
        assert [listing.key_at(index) for index in range(len(listing))] == expected
        assert [listing.index_of(key) for key in expected] == list(range(len(expected)))
        assert all(listing.index_of(key) is None for key in range(13) if key not in expected)
        if moved is False:
            assert listing.ordered() == before


@pytest.mark.parametrize("index", [-1, 1, 7])
def test_there_is_no_row_beyond_the_last_nor_before_the_first(index: int) -> None:
    listing: Listing[Record] = Listing(SORTS[0])
    listing.replace({1: ("a", 1)})
    with pytest.raises(IndexError):
        listing.key_at(index)


def test_a_record_that_has_gone_already_is_no_move() -> None:
    listing: Listing[Record] = Listing(SORTS[0])
    listing.replace({1: ("a", 1)})
    assert not listing.apply({}, [2])
    assert not listing.apply({1: ("a", 5)})
    assert listing.apply({1: ("b", 5)})
    assert listing.apply({}, [1])
