"""What this is a version of."""

import functools
import importlib.metadata


@functools.cache
def version() -> str:
    """The installed version, or `unknown` when it runs from a tree that was never installed."""
    try:
        return importlib.metadata.version("vnet-agent")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
