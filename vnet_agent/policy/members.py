"""Members of groups on other hosts, as the controller told them last: kept over restarts."""

import ipaddress
import logging
from pathlib import Path
from typing import Any

import msgspec

from vnet_agent.exceptions import PolicyError
from vnet_agent.files import replace_file

LOG = logging.getLogger(__name__)

#: Group -> network -> addresses.
Members = dict[str, dict[int, tuple[str, ...]]]


def members_from_json(value: Any) -> Members:
    """Check decoded JSON, in which networks are text; PolicyError."""
    try:
        members: Members = msgspec.convert(value, Members, str_keys=True)
        for networks in members.values():
            for addresses in networks.values():
                for address in addresses:
                    ipaddress.ip_address(address)
    except ValueError as error:  # of msgspec, too
        raise PolicyError(where="members of groups", detail=str(error)) from None
    return members


class MemberFile:
    """`members.json` in the state directory. A damaged one is as good as none: nobody comes in."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Members:
        try:
            return members_from_json(msgspec.json.decode(self._path.read_bytes()))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, PolicyError) as error:
            LOG.error("%s cannot be read, the controller is asked again: %s", self._path, error)
            return {}

    def write(self, members: Members) -> None:
        """Raises PolicyError."""
        try:
            replace_file(self._path, msgspec.json.encode(members))
        except OSError as error:
            detail = f"cannot be written: {error}"
            raise PolicyError(where=str(self._path), detail=detail) from None
