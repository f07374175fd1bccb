"""Functional tests need root, a real kernel and real libvirt; each leaves nothing behind."""

import os
from collections.abc import Callable, Iterator

import pytest

from devstack.lab import Guest, Host, Lab, Peer
from devstack.lab.cache import LOGS


@pytest.fixture(scope="session", autouse=True)
def need_root() -> None:
    """Without root the tests fail: a skipped one would look like a good one."""
    if os.geteuid() != 0:
        pytest.fail("functional tests need root: run `sudo make test`", pytrace=False)


@pytest.fixture(scope="module")
def lab(need_root: None) -> Iterator[Lab]:
    """Two hosts, `a` and `b`, each with its libvirtd. No agent runs on them.

    One for each module, since there can be only one at a time and some tests are about that. It
    takes half a second. VNET_LAB_WAIT says how many seconds another lab may take to end.
    """
    with Lab(logs=LOGS) as made:
        yield made


@pytest.fixture
def host_a(lab: Lab) -> Host:
    return lab.host("a")


@pytest.fixture
def host_b(lab: Lab) -> Host:
    return lab.host("b")


@pytest.fixture
def make_guest(lab: Lab) -> Iterator[Callable[..., Guest]]:
    """`Lab.guest`, started and wired to the uplink by a plain bridge; gone after the test.

    It returns while the guest boots, so that several boot at once; `wait_ready` waits.
    """
    guests: list[Guest] = []

    def make(name: str, host: Host, *addresses: str, **settings: object) -> Guest:
        guest = lab.guest(name, host, addresses, **settings)
        guests.append(guest)
        guest.plug(host)
        host.bridge_taps(*(nic.tap for nic in guest.spec.nics))
        guest.start()
        return guest

    yield make
    for guest in guests:
        guest.destroy()


@pytest.fixture
def make_peer(lab: Lab) -> Iterator[Callable[..., Peer]]:
    """`Lab.peer`; gone after the test."""
    peers: list[Peer] = []

    def make(name: str, *addresses: str, **settings: object) -> Peer:
        peers.append(lab.peer(name, addresses, **settings))
        return peers[-1]

    yield make
    for peer in peers:
        peer.stop()
