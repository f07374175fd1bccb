"""The proof that the state transfer is what keeps connections alive: the same run without it."""

import pytest

from devstack.cloud import Cloud, wait_for
from devstack.demo.traffic import OUTGOING, Traffic
from devstack.lab import Lab
from devstack.lab.cache import LOGS

#: Segments without a known connection are taken up where policy admits both ends' beginning it.
#: With this rule that holds for what the VM began, and not for what the peer began.
BOTH_WAYS = (OUTGOING, {"direction": "ingress", "protocol": "tcp", "ports": "32768-60999"})


@pytest.mark.parametrize("transfer_state", [True, False])
def test_connections_that_policy_would_refuse_afresh(transfer_state: bool) -> None:
    with Lab(wait=60, logs=LOGS) as lab:
        cloud = Cloud(lab, {"migration": {"transfer_state": transfer_state}})
        cloud.start()
        a, b = lab.hosts
        web = lab.guest("web", a, ("10.0.0.5/24", "fd00::5/64"))
        cloud.boot(web)
        peer = lab.peer("peer", ("10.0.0.100/24", "fd00::100/64"))
        traffic = Traffic(cloud, web, peer, count=40, rules=BOTH_WAYS)
        traffic.open()
        traffic.close_door()

        web.migrate(b)
        moved_at = {bundle.name: traffic.received(bundle) for bundle in traffic.bundles}
        # What policy admits afresh lives either way; by the time all of it has moved on, the rest
        # has moved on too, or is dead.
        traffic.wait_progress(traffic.outgoing)
        completed = cloud.wait_event("vnet.instance.migration.completed", web.uuid)

        if transfer_state:
            traffic.wait_progress(traffic.incoming)
            assert traffic.broken() == {}
            assert completed["data"]["connections_moved"] >= 40
        else:
            assert not completed["data"]["connections_moved"]
            for bundle in traffic.incoming:
                assert traffic.stalled(bundle, moved_at[bundle.name]), bundle.name
            drops = wait_for(
                lambda: cloud.vnetctl(b, "port", "show", web.spec.nics[0].uuid)["drops"],
                "no drop was counted on the destination",
            )
            assert drops.get("no-connection"), drops
