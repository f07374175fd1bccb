"""A machine room in namespaces: compute hosts with real libvirtd, guests, plain peers.

`make demo` and the functional tests share it. Import it from the repository's root as
`devstack.lab`; it is not installed with the product. `Lab` is the way in.
"""

from .control import Control
from .domain import Nic, Spec
from .errors import LabError
from .guest_vm import LIVE_MIGRATION, Guest
from .host import Host
from .lab import CONTROLLER_ADDRESS, Lab, check_machine, in_parallel
from .peer import Peer
from .process import Process
from .waiting import wait_until

__all__ = [
    "CONTROLLER_ADDRESS",
    "LIVE_MIGRATION",
    "Control",
    "Guest",
    "Host",
    "Lab",
    "LabError",
    "Nic",
    "Peer",
    "Process",
    "Spec",
    "check_machine",
    "in_parallel",
    "wait_until",
]
