"""What is wrong in Textual 8 and would hurt a TUI that runs for weeks, put right from outside."""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache, partial

from textual._styles_cache import StylesCache
from textual.drivers import linux_driver
from textual.drivers._writer_thread import WriterThread


class LastingWriter(WriterThread):
    """Goes on taking what is written when its terminal is gone.

    Textual's own ends at the first write that fails. What is written then waits in a queue that is soon full,
    and whoever writes waits for ever: a TUI whose connection was lost would not end.
    """

    def run(self) -> None:
        """Write until told to stop, as long as that is possible."""
        while (text := self._queue.get()) is not None:
            with suppress(OSError):
                self._file.write(text)
                if self._queue.qsize() == 0:
                    self._file.flush()
        with suppress(OSError):
            self._file.flush()


def write_on_without_terminal() -> None:
    """Let the drivers that are made from now on do so; they take their writer by this name and no other."""
    setattr(linux_driver, "WriterThread", LastingWriter)  # noqa: B010


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
