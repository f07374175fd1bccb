"""The lab with the product on it: a controller, and an agent with its hook on every host.

The demo and the functional tests share it.
"""

from .api import Api, ApiError
from .cloud import Cloud, wait_for

__all__ = ["Api", "ApiError", "Cloud", "wait_for"]
