"""One domain's state and job: libvirt's own test driver, and one that fails or hangs."""

import threading
from collections.abc import AsyncIterator
from typing import Any

import libvirt
import pytest

from vnet_agent.exceptions import LibvirtError
from vnet_agent.virt.lookup import Lookup

URI = "test:///default"
UUID = "6695eb01-f6a4-8304-79aa-97f2502e193f"


@pytest.fixture
async def lookup() -> AsyncIterator[Lookup]:
    lookup = Lookup(URI)
    yield lookup
    await lookup.close()


async def test_a_domain_that_is_there(lookup: Lookup) -> None:
    domain = await lookup.domain(UUID)
    assert domain is not None
    assert (domain.uuid, domain.name, domain.state, domain.job) == (UUID, "test", "running", "")


async def test_a_domain_that_is_not(lookup: Lookup) -> None:
    assert await lookup.domain("00000000-0000-4000-8000-000000000000") is None


@pytest.mark.parametrize("uuid", ["", "no-uuid", "x" * 5000])
async def test_no_uuid(lookup: Lookup, uuid: str) -> None:
    with pytest.raises(LibvirtError):
        await lookup.domain(uuid)
    assert await lookup.domain(UUID) is not None


async def test_nobody_answers() -> None:
    lookup = Lookup("qemu+unix:///system?socket=/nowhere/libvirt-sock")
    with pytest.raises(LibvirtError, match="/nowhere"):
        await lookup.domain(UUID)
    await lookup.close()


class FakeConnection:
    """Calls that the test decides; `jobs` are what jobStats says, one a call."""

    def __init__(self, *jobs: dict[str, Any] | int) -> None:
        self.jobs = list(jobs)
        self.alive = True
        self.gate = threading.Event()
        self.gate.set()

    def isAlive(self) -> bool:
        return self.alive

    def setKeepAlive(self, interval: int, count: int) -> None:
        pass

    def close(self) -> None:
        pass

    def lookupByUUIDString(self, uuid: str) -> "FakeConnection":
        self.gate.wait(10)
        return self

    def name(self) -> str:
        return "vm1"

    def state(self) -> tuple[int, int]:
        return libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_MIGRATION

    def jobStats(self) -> dict[str, Any]:
        job = self.jobs.pop(0)
        if isinstance(job, dict):
            return job
        error = libvirt.libvirtError("refused")
        error.err = (job, 0, "refused", 2, None, None, None, 0, 0)
        raise error


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[FakeConnection]:
    """What `libvirt.open` gives, in order."""
    connections: list[FakeConnection] = []
    monkeypatch.setattr(libvirt, "open", lambda uri: connections.pop(0))
    return connections


async def test_jobs(opened: list[FakeConnection], lookup: Lookup) -> None:
    opened.append(
        FakeConnection(
            {
                "type": libvirt.VIR_DOMAIN_JOB_UNBOUNDED,
                "operation": libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT,
            },
            {
                "type": libvirt.VIR_DOMAIN_JOB_UNBOUNDED,
                "operation": libvirt.VIR_DOMAIN_JOB_OPERATION_SAVE,
            },
            {"type": libvirt.VIR_DOMAIN_JOB_NONE},
            libvirt.VIR_ERR_OPERATION_INVALID,
        )
    )
    said = [await lookup.domain(UUID) for _ in range(4)]
    assert [each and each.job for each in said] == ["MIGRATION_OUT", "SAVE", "", ""]
    assert {each and (each.state, each.reason) for each in said} == {("paused", "migration")}


async def test_an_error_is_said_and_the_next_question_is_asked(
    opened: list[FakeConnection], lookup: Lookup
) -> None:
    opened.append(FakeConnection(libvirt.VIR_ERR_OPERATION_TIMEOUT, {"type": 0}))
    with pytest.raises(LibvirtError, match="refused"):
        await lookup.domain(UUID)
    assert await lookup.domain(UUID) is not None


async def test_a_dead_connection_is_opened_anew(
    opened: list[FakeConnection], lookup: Lookup
) -> None:
    opened += [FakeConnection({"type": 0}), FakeConnection({"type": 0})]
    first = opened[0]
    await lookup.domain(UUID)
    first.alive = False
    assert await lookup.domain(UUID) is not None
    assert opened == []


async def test_silence_is_an_error(opened: list[FakeConnection]) -> None:
    hanging = FakeConnection({"type": 0}, {"type": 0})
    hanging.gate.clear()
    opened.append(hanging)
    lookup = Lookup(URI, timeout=0.05)
    with pytest.raises(LibvirtError, match=r"no answer within 0\.05 s"):
        await lookup.domain(UUID)
    hanging.gate.set()
    await lookup.close()
