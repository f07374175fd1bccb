"""A port without port security on real interfaces, beside one that is guarded."""

import os

from datapath_world import Place, eventually, private

from vnet_agent.datapath.ebpf import EbpfDriver
from vnet_agent.model.policy import ALLOW_ALL, DENY_ALL, Direction, Policy, Rule
from vnet_agent.model.port import Role

OPEN = "11111111-0000-4000-8000-000000000001"
GUARDED = "11111111-0000-4000-8000-000000000002"


@private
def test_datapath_open_port_speaks_for_anybody_and_others_stay_guarded(bpffs: str) -> None:
    driver = EbpfDriver(pin_dir=os.path.join(bpffs, "vnet"), max_ports=16)
    driver.open()
    router = Place("a", "52:54:00:00:00:0a", "10.9.0.1/24", "192.0.2.1/24")
    vm = Place("b", "52:54:00:00:00:0b", "10.9.0.2/24", "192.0.2.2/24")
    for port, place, security in ((OPEN, router, False), (GUARDED, vm, True)):
        driver.set_port(
            port,
            instance=port,
            mac=place.mac,
            addresses=("10.9.0.1",) if port == OPEN else (),
            network=0,
            bridged=False,
            role=Role.ACTIVE,
            generation=1,
            quota=100,
            port_security=security,
        )
        driver.set_policy(port, DENY_ALL if port == OPEN else ALLOW_ALL)
        driver.attach(port, place.ifindex)
    assert router.ping("10.9.0.2")
    assert router.ping("192.0.2.2")  # from an address that is not the port's
    assert vm.ping("192.0.2.1")  # and to it
    assert driver.counters(OPEN).drops == {}
    assert driver.connections(OPEN) == []
    only_out = Policy(rules=(Rule(direction=Direction.EGRESS),))
    driver.set_policy(GUARDED, only_out)
    assert not router.ping("10.9.0.2")
    eventually(lambda: driver.counters(GUARDED).drops.get("policy", 0) > 0, "the VM is guarded")
    driver.destroy()
