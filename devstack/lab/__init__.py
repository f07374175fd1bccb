"""A machine room in namespaces: compute hosts with real libvirtd, guests, plain peers.

`make demo` and the functional tests share it. Import it from the repository's root as
`devstack.lab`; it is not installed with the product. `Lab` is the way in:

    with Lab(hook=["/usr/bin/vnet-libvirt-hook"]) as lab:
        a, b = lab.hosts
        a.path("/etc/vnet/agent.conf").write_text("...")
        agent = a.spawn(["vnet-agent", "--config-file", "/etc/vnet/agent.conf"], name="agent")
        peer = lab.peer("peer", ["10.0.0.9/24"])
        guest = lab.guest("vm1", a, ["10.0.0.5/24"])
        guest.start()
        guest.wait_ready()
        guest.control.dial("out", peer.address, 100)
        guest.migrate(b)
        print(guest.control.group("out"), lab.expose(7470))

`python -m devstack.lab image` builds what guests boot, `down` takes a lab away that was kept.
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
