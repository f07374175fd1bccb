"""A plain peer: a namespace with addresses, in which the traffic tool runs."""

from collections.abc import Sequence

from .control import Control
from .fabric import DATA, Fabric
from .host import Host
from .image import Image
from .netns import Namespace
from .state import State

DEVICE = "eth0"


class Peer:
    """`control` commands its traffic tool, which listens on TCP 5000 and UDP 5001."""

    def __init__(self, state: State, image: Image, name: str, addresses: Sequence[str]) -> None:
        self.name = name
        self.addresses = addresses
        self.namespace = Namespace(state, name)
        self.control = Control(f"peer {name}", lambda: self._socket)
        self._socket = self.namespace.directory / "control"
        self._image = image

    @property
    def address(self) -> str:
        """Its first address, without prefix."""
        return self.addresses[0].partition("/")[0]

    @property
    def mac(self) -> str:
        result = self.namespace.run(["cat", f"/sys/class/net/{DEVICE}/address"])
        return result.stdout.strip()

    def start_on_fabric(self, fabric: Fabric) -> None:
        """Connects it to the data network, outside of all hosts, and starts its tool."""
        self.namespace.create()
        fabric.connect(self.namespace, DEVICE, DATA)
        self._start_tool()

    def start_on_host(self, host: Host, device: str, mtu: int = 1500) -> None:
        """Connects it to `device`, made on a host, where an agent may guard it as a port."""
        self.namespace.create()
        host.namespace.ip(
            f"link add {device} mtu {mtu} type veth "
            f"peer name {DEVICE} mtu {mtu} netns {self.namespace.path}",
            f"link set {device} up",
        )
        self.namespace.ip(f"link set {DEVICE} up")
        self._start_tool()

    def stop(self) -> None:
        """Ends it; a device of its on a host goes with its other end."""
        self.namespace.ip(f"link del {DEVICE}")
        self.namespace.remove()

    def _start_tool(self) -> None:
        # Without waiting for duplicate address detection it is reachable at once.
        self.namespace.run(["sysctl", "-qw", f"net.ipv6.conf.{DEVICE}.accept_dad=0"])
        self.namespace.ip(*(f"addr add {address} dev {DEVICE}" for address in self.addresses))
        argv = [str(self._image.traffic), "--listen", "5000", "--udp-listen", "5001"]
        self.namespace.spawn([*argv, "--control", str(self._socket)], name="traffic")
        self.control.ask("hello")
