"""Lists all settings, from their declarations: docs/settings.md.

`python -m scripts.settings_page` rewrites it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from appliance.config import FILE_ONLY, NODENAME, REGISTRY, Key, is_hidden
from appliance.ops.explain import AT_START

FILE = Path(__file__).resolve().parent.parent / "docs" / "settings.md"
OF_THIS_HOST = {NODENAME.name: "the host's name"}
"""Defaults that differ from host to host."""


PAGE = """\
# Settings

In `/etc/qvd/node.conf` as `key = value`, or in the database by `qa config set key=value`. The database wins,
but for {file_only}, which only the file may say. A value may hold another:
`${{other.key}}`. `qa config explain KEY` tells who says what, and which wins.

A change of what is marked *restart* holds when the daemon is started again, of all else from the next use on.

{usual}

## For experts

`qa config get` shows these only by name, and `qa config set` asks before it changes them.

{hidden}

Other keys of QVD are accepted and have no effect; unknown ones are kept with a warning; slips are refused.

Listed from `appliance/config.py` by `python -m scripts.settings_page`.
"""


def listed() -> str:
    """The page."""
    keys = sorted(REGISTRY.values(), key=lambda key: key.name)
    return PAGE.format(
        file_only=", ".join(f"`{name}*`" if name.endswith(".") else f"`{name}`" for name in FILE_ONLY),
        usual="\n".join(table(key for key in keys if not is_hidden(key.name))),
        hidden="\n".join(table(key for key in keys if is_hidden(key.name))),
    )


def table(keys: Iterable[Key[object]]) -> list[str]:
    """The rows of a table of keys."""
    return ["| Key | Default | | Meaning |", "|---|---|---|---|", *map(row, keys)]


def row(key: Key[object]) -> str:
    """One key."""
    default = OF_THIS_HOST.get(key.name) or (f"`{key.default}`" if key.default else "")
    shown = default if key.default is not None else "must be set"
    restart = "restart" if key.name.startswith(AT_START) else ""
    return f"| `{key.name}` | {shown} | {restart} | {key.doc.replace('|', chr(92) + '|')} |"


if __name__ == "__main__":
    FILE.write_text(listed())
