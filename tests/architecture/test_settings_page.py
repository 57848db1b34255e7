"""The page of settings is the one that the declarations make."""

from __future__ import annotations

from appliance.config import REGISTRY
from scripts.settings_page import FILE, listed


def test_the_page_is_up_to_date() -> None:
    assert FILE.read_text() == listed(), "run .venv/bin/python -m scripts.settings_page"


def test_it_names_every_setting_and_nothing_of_this_host() -> None:
    page = FILE.read_text()
    assert all(f"| `{name}` |" in page for name in REGISTRY)
    assert REGISTRY["nodename"].default is not None
    assert f"`{REGISTRY['nodename'].default}`" not in page
