"""Trying again without hammering, and saying so once."""

import asyncio
import logging
import random


class Retry:
    """Pauses that double from `low` to `high` seconds, with jitter; one log line per outage."""

    def __init__(self, log: logging.Logger, what: str, *, low: float, high: float) -> None:
        self._log = log
        self._what = what
        self._low, self._high = low, max(low, high)
        self.failures = 0

    async def failed(self, error: object) -> None:
        """Log the outage if it is new, and pause."""
        self.failures += 1
        if self.failures == 1:
            self._log.warning("%s: %s; trying again until it works", self._what, error)
        else:
            self._log.debug("%s, attempt %d: %s", self._what, self.failures, error)
        pause = min(self._high, self._low * 2 ** min(self.failures - 1, 20))
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))

    def succeeded(self) -> None:
        if self.failures:
            self._log.info("%s: works again after %d attempts", self._what, self.failures)
        self.failures = 0
