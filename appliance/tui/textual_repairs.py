"""What is wrong in Textual 8 and would hurt a TUI that runs for weeks, put right from outside."""

from __future__ import annotations

from functools import lru_cache, partial

from textual._styles_cache import StylesCache


def forget_removed_widgets() -> None:
    """Let Textual forget what widgets that are gone have drawn; again changes nothing.

    A cache of two colours has the whole `StylesCache` of a widget in its key, and so keeps the lines of a
    thousand widgets that were removed: some hundred MiB (Textual's issue 6665). The colours do not depend on
    it: without it in the key, the cache does what it is for.
    """
    kept = vars(StylesCache)["get_inner_outer"]
    if hasattr(kept, "__wrapped__") and not isinstance(kept, staticmethod):
        shared = lru_cache(1024)(partial(kept.__wrapped__, None))
        StylesCache.get_inner_outer = staticmethod(shared)  # type: ignore[method-assign, assignment]
