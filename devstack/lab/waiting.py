"""Bounded waiting for a condition: the only clock that the lab and its tests look at."""

import time
from collections.abc import Callable
from typing import TypeVar

from .errors import LabError

Result = TypeVar("Result")


def wait_until(
    condition: Callable[[], Result], what: str, *, timeout: float = 30.0, pause: float = 0.05
) -> Result:
    """Calls `condition` until it returns something true, which is returned.

    Raises LabError that says `what` did not happen within `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise LabError(f"waited {timeout:g} s in vain: {what}")
        time.sleep(pause)
