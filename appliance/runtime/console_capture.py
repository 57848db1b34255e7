"""What a console has shown, kept in a bounded pair of files for whoever comes later.

The newer file grows to half the limit, then takes the place of the older. A capture that cannot be
written never stands in the way of the console: it is reported once and left out.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from appliance.log import facts

logger = logging.getLogger(__name__)

CAPTURE_BYTES = 1_048_576


class Capture:
    """The capture files of one console: `path`, and `path` with `.1` appended."""

    def __init__(self, path: Path, limit: int = CAPTURE_BYTES) -> None:
        self._path = path
        self._older = path.with_name(path.name + ".1")
        self._limit = limit
        self._descriptor: int | None = None
        self._size = 0
        self._failing = False

    def append(self, shown: bytes) -> None:
        """Keep what was shown."""
        try:
            if self._descriptor is None:
                self._open()
            elif self._size + len(shown) > self._limit // 2:
                self.close()
                self._path.replace(self._older)
                self._open()
            assert self._descriptor is not None
            self._size += os.write(self._descriptor, shown)
            self._failing = False
        except OSError as exc:
            self.close()
            if not self._failing:
                self._failing = True
                logger.warning(
                    "the console cannot be captured", extra=facts(file=self._path, error=exc.strerror)
                )

    def tail(self, count: int) -> bytes:
        """The last `count` bytes kept, also by a former daemon; fewer if there are fewer."""
        kept = b""
        for file in (self._path, self._older):
            if len(kept) < count:
                kept = _last_bytes(file, count - len(kept)) + kept
        return kept

    def close(self) -> None:
        """Close the file; the next `append` opens it again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(self._path, flags, 0o600)
        self._size = os.fstat(self._descriptor).st_size


def _last_bytes(file: Path, count: int) -> bytes:
    try:
        with file.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - count))
            return stream.read(count)
    except OSError:
        return b""
