"""Live migration over plain bridges keeps every connection: the lab itself loses none."""

import asyncio
from collections.abc import Callable

import libvirt
import pytest

from devstack.lab import Guest, Host, Peer, wait_until
from vnet_agent.virt.lookup import Lookup

CONNECTIONS = 30


def wire(guest: Guest, host: Host) -> None:
    """What an agent would do: connects the guest's taps to the host's uplink."""
    guest.plug(host)
    host.bridge_taps(*(nic.tap for nic in guest.spec.nics))


def assert_unhurt(counters: dict[str, int]) -> None:
    hurt = ("failed", "reset", "timed_out", "closed", "out_of_order", "corrupt", "stalled")
    assert {name: counters[name] for name in hurt} == dict.fromkeys(hurt, 0)
    assert counters["open"] == CONNECTIONS


def wait_for_news(peer: Peer, guest: Guest) -> None:
    """Waits until every connection has carried messages that were not there before."""
    before = {(c, g): c.group(g)["received"] for c, g in pairs(peer, guest)}
    wait_until(
        lambda: all(c.group(g)["received"] > n + CONNECTIONS for (c, g), n in before.items()),
        "the connections carry nothing",
    )


def pairs(peer: Peer, guest: Guest):
    return [(peer.control, "in"), (guest.control, "out")]


@pytest.fixture
def talking(
    host_a: Host, make_guest: Callable[..., Guest], make_peer: Callable[..., Peer]
) -> tuple[Guest, Peer]:
    """A guest on host a and a peer, with connections that either of them opened."""
    peer = make_peer("peer", "10.0.0.9/24")
    guest = make_guest("moving", host_a, "10.0.0.5/24")
    guest.wait_ready()
    guest.control.dial("out", peer.address, CONNECTIONS)
    peer.control.dial("in", guest.address, CONNECTIONS)
    for control, group in pairs(peer, guest):
        wait_until(
            lambda c=control, g=group: c.group(g)["open"] == CONNECTIONS, f"{group} did not open"
        )
    return guest, peer


def test_connections_survive_there_and_back(
    host_a: Host, host_b: Host, talking: tuple[Guest, Peer]
) -> None:
    guest, peer = talking
    boot = guest.control.boot_id()

    for source, destination in ((host_a, host_b), (host_b, host_a)):
        wire(guest, destination)
        guest.migrate(destination)
        assert guest.host is destination
        assert guest.active
        with pytest.raises(libvirt.libvirtError, match="not found"):
            source.connect().lookupByUUIDString(guest.uuid)
        wait_for_news(peer, guest)
        for control, group in (*pairs(peer, guest), (peer.control, "listen")):
            assert_unhurt(control.group(group))
    assert guest.control.boot_id() == boot


def test_failed_migration_leaves_the_guest_where_it_was(
    host_a: Host, host_b: Host, talking: tuple[Guest, Peer]
) -> None:
    guest, peer = talking

    with pytest.raises(libvirt.libvirtError, match="specified dev doesn't exist"):
        guest.migrate(host_b, plug=False)

    assert guest.host is host_a
    assert guest.active
    wait_for_news(peer, guest)
    for control, group in pairs(peer, guest):
        assert_unhurt(control.group(group))


def test_a_cut_cable_shows_as_stalled_connections(
    host_a: Host, talking: tuple[Guest, Peer]
) -> None:
    """The counters that prove that nothing broke must be able to say that something did."""
    guest, peer = talking
    host_a.namespace.ip(f"link set {guest.spec.nics[0].tap} nomaster")
    wait_until(
        lambda: all(c.group(g)["stalled"] == CONNECTIONS for c, g in pairs(peer, guest)),
        "nobody noticed",
    )
    host_a.bridge_taps(guest.spec.nics[0].tap)
    wait_until(
        lambda: all(c.group(g)["stalled"] == 0 for c, g in pairs(peer, guest)), "it stays cut"
    )
    assert peer.control.group("in")["stalls"] == CONNECTIONS


def test_libvirt_says_that_a_guest_is_leaving(
    host_a: Host, host_b: Host, make_guest: Callable[..., Guest]
) -> None:
    """From before the destination has heard of it until it has gone."""
    guest = make_guest("moving", host_a, "10.0.0.5/24")
    guest.wait_ready()
    states = asyncio.run(watch_departure(guest, host_a, host_b))
    assert states[0] == ("running", "")
    assert states[1] == ("running", "MIGRATION_OUT")
    assert ("paused", "MIGRATION_OUT") in states[2:]
    assert ("running", "") not in states[1:]
    assert states[-1] is None


async def watch_departure(
    guest: Guest, source: Host, destination: Host
) -> list[tuple[str, str] | None]:
    """Every state that the guest has on its source in the course of a migration."""
    lookup = Lookup(source.uri, timeout=10.0)
    states: list[tuple[str, str] | None] = []

    async def look() -> bool:
        domain = await lookup.domain(guest.uuid)
        state = (domain.state, domain.job) if domain else None
        if not states or states[-1] != state:
            states.append(state)
        return domain is not None

    await look()
    migration = asyncio.create_task(asyncio.to_thread(guest.migrate, destination))
    while await look() and not migration.done():  # noqa: ASYNC110 - libvirt must be asked
        await asyncio.sleep(0.005)
    await migration
    await look()
    await lookup.close()
    return states
