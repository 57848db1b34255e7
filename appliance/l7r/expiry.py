"""Tells in time that the certificate runs out: once a day in the log, and as an alarm."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from appliance.clock import Calendar
from appliance.errors import StoreError
from appliance.log import facts
from appliance.model import AlarmKind
from appliance.ops.certificate import last_day
from appliance.storage.store import Store

logger = logging.getLogger(__name__)

NOTICE = timedelta(days=30)
AGAIN = timedelta(days=1)
OBJECT = "l7r"
"""Of the alarm."""


class CertificateWatch:
    """Looks at the certificate in force."""

    def __init__(self, store: Store, calendar: Calendar) -> None:
        self._store = store
        self._calendar = calendar
        self._seen: tuple[str, datetime] | None = None

    async def look(self, certificate: str) -> None:
        """Look at a certificate, at most once a day at the same."""
        now = self._calendar.now()
        if self._seen is not None and self._seen[0] == certificate and now - self._seen[1] < AGAIN:
            return
        self._seen = (certificate, now)
        ends = last_day(certificate)
        if ends is None:
            return
        text = f"the certificate of the L7R {'expires' if ends > now else 'expired'} on {ends:%Y-%m-%d}"
        due = ends - now < NOTICE
        if due:
            logger.warning("%s: set another with qa config ssl", text)
        try:
            async with self._store.write() as tx:
                if due:
                    await tx.alarms.raise_(AlarmKind.CERTIFICATE, OBJECT, text)
                else:
                    await tx.alarms.clear(AlarmKind.CERTIFICATE, OBJECT)
        except StoreError as exc:
            logger.error("the alarm about the certificate cannot be written", extra=facts(error=exc))
