"""Posts a notice to an address: one request, no redirect, an answer of which little is read."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ssl
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit, urlunsplit

import httpx

from appliance.errors import HostError
from appliance.threads import in_thread
from appliance.values import Webhook, without_passwords

ANSWER_BYTES = 1024
"""So much of an answer is read, and told if it is a refusal."""
SIGNATURE = "X-QVD-Signature-256"


def signature(secret: bytes, body: bytes) -> str:
    """The header's value that proves who wrote `body`: HMAC-SHA256, as GitHub writes it."""
    return f"sha256={hmac.new(secret, body, hashlib.sha256).hexdigest()}"


async def post(hook: Webhook, body: bytes, headers: Mapping[str, str], *, timeout_s: float) -> None:
    """Post a JSON object; return when it was taken.

    :raises HostError: it was not, within `timeout_s`
    """
    parts = urlsplit(hook.url)
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    who = (unquote(parts.username or ""), unquote(parts.password or "")) if "@" in parts.netloc else None
    try:
        async with asyncio.timeout(timeout_s):
            trust = await in_thread(ssl.create_default_context) if parts.scheme == "https" else False
            client = httpx.AsyncClient(
                verify=trust, auth=who, timeout=timeout_s, trust_env=False, follow_redirects=False
            )
            async with client, client.stream("POST", bare, content=body, headers=dict(headers)) as response:
                if not response.is_success:
                    raise HostError(f"{parts.hostname} answers {await _refusal(response)}")
    except TimeoutError as exc:
        raise HostError(f"{parts.hostname} gives no answer within {timeout_s:g} s") from exc
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as exc:
        reason = without_passwords(str(exc)) or type(exc).__name__
        raise HostError(f"{parts.hostname} cannot be told: {reason}") from exc


async def _refusal(response: httpx.Response) -> str:
    said = b""
    async for piece in response.aiter_raw(ANSWER_BYTES):
        said += piece
        if len(said) >= ANSWER_BYTES:
            break
    words = said[:ANSWER_BYTES].decode(errors="replace").strip()
    return f"{response.status_code}: {words}" if words else str(response.status_code)
