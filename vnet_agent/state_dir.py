"""The directory of what survives a restart: at most one agent works with it."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from vnet_agent.exceptions import ConfigError, VnetError


@contextlib.contextmanager
def locked(directory: str) -> Iterator[Path]:
    """Make the directory if need be and hold its lock; it ends with the process at the latest.

    Raises ConfigError if it cannot be used, VnetError if another agent does use it.
    """
    path = Path(directory)
    try:
        path.mkdir(mode=0o750, parents=True, exist_ok=True)
        descriptor = os.open(path / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        detail = f"state_dir {directory} cannot be used: {error.strerror}"
        raise ConfigError(detail=detail) from None
    with open(descriptor, "r+", encoding="ascii", errors="replace") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise VnetError(
                detail=f"another agent (process {file.read(20).strip() or 'unknown'}) works with "
                f"{directory}; stop it, or give this one a state_dir of its own"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield path
