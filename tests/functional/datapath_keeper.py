"""A process that opens the driver and sets up ports, to be killed: says `ready` and waits.

Usage: datapath_keeper.py PIN_DIR JSON; the JSON is a list of ports and an uplink's ifindex.
"""

import json
import signal
import sys

from vnet_agent.datapath.ebpf import EbpfDriver
from vnet_agent.model.policy import Direction, Policy, Rule
from vnet_agent.model.port import Role

#: The VMs may open anything; to them, only TCP 7000 and UDP 7001 and ping are open.
POLICY = Policy(
    rules=(
        Rule(direction=Direction.EGRESS),
        Rule(direction=Direction.INGRESS, protocol="tcp", ports=(7000, 7000)),
        Rule(direction=Direction.INGRESS, protocol="udp", ports=(7001, 7001)),
        Rule(direction=Direction.INGRESS, protocol="icmp"),
        Rule(direction=Direction.INGRESS, protocol="icmpv6"),
    )
)


def set_up(driver: EbpfDriver, ports: list[dict], uplink: int | None) -> None:
    """What the agent does at each start: it says everything again."""
    for port in ports:
        driver.set_port(
            port["port"],
            instance=port["instance"],
            mac=port["mac"],
            addresses=tuple(port["addresses"]),
            network=0,
            bridged=False,
            role=Role.ACTIVE,
            generation=1,
            quota=port.get("quota", 1000),
        )
        driver.set_policy(port["port"], POLICY)
        driver.attach(port["port"], port["ifindex"])
    if uplink:
        driver.attach_uplink(uplink, network=0)


def main() -> None:
    driver = EbpfDriver(pin_dir=sys.argv[1], max_ports=16)
    driver.open()
    wanted = json.loads(sys.argv[2])
    set_up(driver, wanted["ports"], wanted["uplink"])
    print("ready", flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
