"""Where the database is that the TUI follows."""

from __future__ import annotations

from pathlib import Path

from appliance import config
from appliance.config import Settings
from appliance.errors import StoreError

SQLITE = "sqlite:///"


def database_path(settings: Settings) -> Path:
    """The file of the database.

    :raises StoreError: it is in none
    """
    url = settings[config.DATABASE_URL]
    if not url.startswith(SQLITE):
        raise StoreError(f"database.url = {url}: the TUI reads SQLite alone", hint="write sqlite:///PATH")
    return Path(url.removeprefix(SQLITE))
