"""What is remembered comes back; a file that is absent, damaged or not ours is done without."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.tui.remembered import MOST_BYTES, Remembered, SavedView, usual_file

VIEW = SavedView(
    pane="vms", name="mine", filter="state=running", sort="hard", reverse=True, columns=("name", "hard")
)
DAMAGED = (
    b"",
    b"{",
    b"[]",
    b"null",
    b'"text"',
    b"\xff\xfe\x00",
    b'{"columns": 5, "views": 7, "theme": []}',
    b'{"columns": {"vms": "name"}, "views": {"a": 1}}',
    b'{"columns": {"vms": [1, null, "name"]}, "views": [1, null, "x", [], {}]}',
    b'{"views": [{"pane": "vms"}, {"pane": "vms", "name": 5}, {"pane": "vms", "name": "x", "more": 1}]}',
    b'{"views": [{"pane": "vms", "name": "x", "filter": 5, "sort": [], "reverse": "no", "columns": 9}]}',
    b'{"views": [{"pane": "vms", "name": "x", "columns": [1, {}]}]}',
    b"[" * 100_000,
    b" " * (MOST_BYTES + 1),
)


def test_what_was_kept_comes_back(tmp_path: Path) -> None:
    file = tmp_path / "new" / "kept.json"
    kept = Remembered.read(file)
    assert kept.set_text("theme", "qvd-light") is None
    assert kept.set_columns("vms", ("name", "id")) is None
    assert kept.save_view(VIEW) is None
    again = Remembered.read(file)
    assert again.text("theme") == "qvd-light"
    assert again.columns("vms") == ("name", "id")
    assert again.columns("users") == ()
    assert again.views("vms") == [VIEW]
    assert again.views("users") == []
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert [one.name for one in file.parent.iterdir()] == ["kept.json"]


def test_a_view_of_the_same_name_takes_its_place_and_can_be_forgotten(tmp_path: Path) -> None:
    kept = Remembered.read(tmp_path / "kept.json")
    other = SavedView(pane="users", name="mine")
    changed = SavedView(pane="vms", name="mine", filter="osf=lab")
    for view in (VIEW, other, changed):
        kept.save_view(view)
    assert (kept.views("vms"), kept.views("users")) == ([changed], [other])
    kept.drop_view("vms", "mine")
    kept.drop_view("vms", "absent")
    assert (kept.views("vms"), kept.views("users")) == ([], [other])


@pytest.mark.parametrize("content", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_file_is_done_without_and_written_anew(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "kept.json"
    file.write_bytes(content)
    kept = Remembered.read(file)
    assert kept.text("theme") is None
    for view in kept.views("vms"):
        assert isinstance(view.name, str)
        assert isinstance(view.filter, str)
        assert view.sort is None or isinstance(view.sort, str)
        assert isinstance(view.reverse, bool)
        assert all(isinstance(key, str) for key in view.columns)
    assert all(isinstance(key, str) for key in kept.columns("vms"))
    assert kept.save_view(VIEW) is None
    assert kept.set_columns("vms", ("name",)) is None
    again = Remembered.read(file)
    assert VIEW in again.views("vms")
    assert again.problem is None
    if kept_aside := [one for one in tmp_path.iterdir() if one != file]:
        assert [one.read_bytes() for one in kept_aside] == [content], "nothing that somebody wrote is lost"


def test_a_damaged_file_is_said_to_be_and_put_aside(tmp_path: Path) -> None:
    file = tmp_path / "kept.json"
    file.write_text('{"theme": "qvd-light",}')
    kept = Remembered.read(file)
    assert "is damaged" in (kept.problem or "")
    assert file.read_text() == '{"theme": "qvd-light",}', "reading changes nothing"
    assert kept.set_text("theme", "qvd-dark") is None
    assert (tmp_path / "kept.json.bad").read_text() == '{"theme": "qvd-light",}'
    assert Remembered.read(file).text("theme") == "qvd-dark"


def test_what_another_tui_has_kept_meanwhile_stays(tmp_path: Path) -> None:
    ours, theirs = Remembered.read(tmp_path / "kept.json"), Remembered.read(tmp_path / "kept.json")
    ours.save_view(VIEW)
    theirs.set_text("theme", "qvd-light")
    ours.set_columns("vms", ("name",))
    again = Remembered.read(tmp_path / "kept.json")
    assert again.views("vms") == [VIEW]
    assert again.text("theme") == "qvd-light"
    assert again.columns("vms") == ("name",)


def test_what_cannot_be_written_down_is_told(tmp_path: Path) -> None:
    file = tmp_path / "kept.json"
    assert "cannot be written" in (Remembered.read(file).set_text("theme", "\ud800") or "")
    assert list(tmp_path.iterdir()) == []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["views", "columns", "theme", "vms", "pane", "name"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(json_values)
def test_no_json_breaks_it(value: object) -> None:
    kept = Remembered(None, json.loads(json.dumps(value)) if isinstance(value, dict) else {})
    kept.text("theme")
    kept.columns("vms")
    kept.views("vms")
    assert kept.save_view(VIEW) is None
    assert VIEW in kept.views("vms")
    kept.drop_view("vms", "mine")
    assert VIEW not in kept.views("vms")


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    kept = Remembered.read(tmp_path)
    assert kept.views("vms") == []
    assert "cannot be read: Is a directory" in (kept.problem or "")
    assert kept.set_text("theme", "x") == kept.problem
    assert tmp_path.is_dir()
    assert list(tmp_path.parent.glob(f".{tmp_path.name}*")) == []


def test_without_a_file_nothing_is_written() -> None:
    kept = Remembered.read(None)
    assert kept.set_text("theme", "qvd-light") is None
    assert kept.text("theme") == "qvd-light"


def test_where_it_is_kept() -> None:
    assert usual_file({"XDG_CONFIG_HOME": "/c", "HOME": "/h"}) == Path("/c/qvd-tui.json")
    assert usual_file({"HOME": "/h"}) == Path("/h/.config/qvd-tui.json")
