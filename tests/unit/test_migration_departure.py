"""An agent gives the state of a VM to the host that the VM goes to, and to no other."""

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from migration_hosts import INSTANCE, PORT, Hosts, migrate, precopy, two_hosts, until

from vnet_agent.exceptions import LibvirtError
from vnet_agent.migration.departure import refusal
from vnet_agent.model.migration import Phase, Report
from vnet_agent.model.virt import DomainState


@pytest.fixture
async def hosts(tmp_path: Path) -> AsyncIterator[Hosts]:
    async with two_hosts(tmp_path) as pair:
        pair[0].driver.change(PORT, 1, 2, 3)
        yield pair


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def domain(state: str, job: str = "", reason: str = "unknown") -> DomainState:
    return DomainState(uuid=INSTANCE, name="vm1", state=state, reason=reason, job=job)


def gone_to(destination: str, phase: Phase = Phase.DONE) -> Report:
    return Report(
        id=destination,
        instance=INSTANCE,
        instance_name="vm1",
        side="source",
        source="a",
        destination=destination,
        generation=1,
        phase=phase,
    )


RUNS = domain("running")
PRECOPY = domain("running", "MIGRATION_OUT")
PAUSED = domain("paused", "MIGRATION_OUT", "user")
STOPPED = domain("paused", "MIGRATION_OUT", "migration")
SAVED = domain("paused", "SAVE")
OFF = domain("shutoff")


@pytest.mark.parametrize(
    ("now", "before", "said"),
    [
        (RUNS, [], "libvirt is not migrating it"),
        (RUNS, [gone_to("b")], "libvirt is not migrating it"),
        (SAVED, [], "libvirt is not migrating it"),
        (PRECOPY, [], ""),
        (PRECOPY, [gone_to("c", Phase.PRECOPY)], ""),
        (PAUSED, [gone_to("c", Phase.PRECOPY)], ""),
        (STOPPED, [], ""),
        (STOPPED, [gone_to("b", Phase.PRECOPY)], ""),
        (STOPPED, [gone_to("c", Phase.PRECOPY)], "is leaving for c"),
        (STOPPED, [gone_to("c", Phase.ABORTED)], ""),
        (None, [], "is not on this host"),
        (None, [gone_to("b")], ""),
        (None, [gone_to("c")], "was not seen leaving for b"),
        (None, [gone_to("b"), gone_to("c")], "was not seen leaving for b"),
        (OFF, [gone_to("b", Phase.ABORTED)], ""),
        (OFF, [], "is not on this host"),
    ],
)
def test_refusal(now: DomainState | None, before: list[Report], said: str) -> None:
    reason = refusal(now, before, "b")
    assert said in reason
    assert bool(said) == bool(reason)


async def ask(http: aiohttp.ClientSession, url: str, destination: str) -> tuple[int, int]:
    """Status of asking where the instance is, and of opening a session."""
    body = {
        "session": f"theft-{destination}",
        "instance": INSTANCE,
        "destination": destination,
        "versions": [3],
        "transfer": True,
    }
    where = f"{url}/v1/locate/{INSTANCE}?destination={destination}"
    async with http.get(where) as located, http.post(f"{url}/v1/sessions", json=body) as opened:
        return located.status, opened.status


async def test_of_a_vm_that_stays_nobody_gets_anything(
    hosts: Hosts, http: aiohttp.ClientSession
) -> None:
    a, b = hosts
    a.domains = [RUNS]
    assert await ask(http, a.url, "c") == (404, 404)
    a.domains = [PRECOPY]
    await precopy(a, b)
    a.domains = [RUNS]
    assert await ask(http, a.url, "c") == (404, 404)
    assert a.phase is Phase.PRECOPY


async def test_a_third_host_gets_nothing_once_the_guest_has_stopped(
    hosts: Hosts, http: aiohttp.ClientSession
) -> None:
    a, b = hosts
    await precopy(a, b)
    a.domains = [STOPPED]
    assert await ask(http, a.url, "c") == (404, 404)
    a.domains = []
    await migrate_on(hosts)
    assert b.driver.keys() == {1, 2, 3}


async def migrate_on(hosts: Hosts) -> None:
    a, b = hosts
    a.libvirt("SUSPENDED", "MIGRATED")
    b.guest_arrives()
    a.libvirt("STOPPED", "MIGRATED")
    await until(lambda: b.phase is Phase.DONE)


async def test_libvirt_is_silent(
    hosts: Hosts, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The destination asks again, and gets the state once libvirt is back."""
    a, b = hosts

    async def silent(uuid: str) -> None:
        raise LibvirtError(uri="test", detail="no answer within 1 s")

    with monkeypatch.context() as patch:
        patch.setattr(a.migrations._context, "find_domain", silent)
        assert await ask(http, a.url, "b") == (503, 503)
    await migrate(a, b)
    assert b.driver.keys() == {1, 2, 3}
