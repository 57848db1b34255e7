"""Speaks to nftables by its library, as nft(8) does: one transaction, in its JSON (libnftables-json(5)).

A program for each change of a fence would be most of what the change costs: the kernel takes its time
when the program's socket closes. So a context is kept. It notices by itself what others have changed.
"""

from __future__ import annotations

import ctypes
import json
import logging
import threading

from appliance.errors import MissingToolError, NetworkError
from appliance.runtime.ruleset import Json
from appliance.threads import in_thread

logger = logging.getLogger(__name__)

LIBRARY = "libnftables.so.1"
OUTPUT_JSON = 1 << 4


class Nftables:
    """The rules of the network namespace in which it is first asked."""

    def __init__(self) -> None:
        self._library: ctypes.CDLL | None = None
        self._context: int | None = None
        self._turn = threading.Lock()

    async def run(self, commands: Json) -> Json:
        """Carry out `commands`, all or none; what they list, if they list anything.

        :raises NetworkError: the kernel refuses
        :raises MissingToolError: the library is missing
        """
        said = await in_thread(self._run, json.dumps(commands))
        listed: Json = json.loads(said) if said else {}
        return listed

    def _run(self, commands: str) -> str:
        with self._turn:
            library = self._loaded()
            context = self._context or self._begin(library)
            refused = library.nft_run_cmd_from_buffer(context, commands.encode())
            said = library.nft_ctx_get_output_buffer(context).decode(errors="replace")
            complaints = library.nft_ctx_get_error_buffer(context).decode(errors="replace").split("\n")
            if not refused:
                return str(said)
            library.nft_ctx_free(context)
            self._context = None
        logger.error("nftables refuses %s: %s", commands, " / ".join(filter(None, complaints)))
        reason = complaints[0].removeprefix("Error: ") or "no reason is given"
        raise NetworkError(f"nftables refuses: {reason}")

    def _begin(self, library: ctypes.CDLL) -> int:
        context = library.nft_ctx_new(0)
        if not context:
            raise NetworkError("nftables cannot be spoken to")
        library.nft_ctx_output_set_flags(context, OUTPUT_JSON)
        library.nft_ctx_buffer_output(context)
        library.nft_ctx_buffer_error(context)
        self._context = context
        return int(context)

    def _loaded(self) -> ctypes.CDLL:
        if self._library is None:
            self._library = _load()
        return self._library


def _load() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as exc:
        raise MissingToolError(f"the library {LIBRARY} is missing", hint="run scripts/setup") from exc
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    library.nft_ctx_new.argtypes, library.nft_ctx_new.restype = [ctypes.c_uint32], pointer
    library.nft_ctx_output_set_flags.argtypes = [pointer, ctypes.c_uint]
    library.nft_run_cmd_from_buffer.argtypes = [pointer, text]
    for name in ("nft_ctx_free", "nft_ctx_buffer_output", "nft_ctx_buffer_error"):
        getattr(library, name).argtypes = [pointer]
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(library, name).argtypes, getattr(library, name).restype = [pointer], text
    return library
