"""Where the lab keeps what is slow to make: the guest's kernel, its image, the traffic tool."""

import contextlib
import fcntl
import hashlib
import os
import pathlib
from collections.abc import Iterable, Iterator

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
#: Where the logs of a test's lab go when it ends: they tell why a test failed.
LOGS = REPOSITORY / "build" / "lab" / "logs"


def cache_directory() -> pathlib.Path:
    """`$VNET_CACHE`, or build/lab in this checkout; made when it is missing."""
    path = pathlib.Path(os.environ.get("VNET_CACHE") or REPOSITORY / "build" / "lab")
    path.mkdir(parents=True, exist_ok=True)
    return path.resolve()


@contextlib.contextmanager
def cache_lock(cache: pathlib.Path) -> Iterator[None]:
    """One builder at a time; a second one waits and then finds everything made."""
    with open(cache / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def content_hash(parts: Iterable[bytes]) -> str:
    """A short name for what is made of `parts`, the same for the same content."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:16]
