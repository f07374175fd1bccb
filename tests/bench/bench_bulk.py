"""Connections in bulk in the kernel: how fast they leave and come, and what they take.

One port holds a million of them. Another one's thousand are exported with those million there and
without: a port's table is its own, so that nobody walks through the others'.
"""

import dataclasses
import pathlib
import time
from collections.abc import Callable

import result
import sandbox
from records import make_records

from vnet_agent.datapath._flowcache import RECORD_SIZE as RECORD
from vnet_agent.datapath.ebpf import EbpfDriver
from vnet_agent.model.policy import ALLOW_ALL
from vnet_agent.model.port import Role

FEW = 1000
#: Bytes of records of one call, as migrations take them.
CHUNK = 256 * 1024
#: Kinds of kernel memory that tables are made of; see proc(5).
KINDS = ("Slab", "Percpu", "VmallocUsed")


@dataclasses.dataclass(frozen=True)
class Port:
    uuid: str
    mac: str
    address: str


FULL = Port("0a000000-0000-4000-8000-000000000001", "52:54:00:00:00:0a", "10.9.0.1")
SMALL = Port("0b000000-0000-4000-8000-000000000002", "52:54:00:00:00:0b", "10.9.0.2")


def add_port(driver: EbpfDriver, port: Port, quota: int) -> None:
    """It waits for its VM, as the destination of a migration does."""
    driver.set_port(
        port.uuid,
        instance=port.uuid,
        mac=port.mac,
        addresses=(port.address,),
        network=0,
        bridged=False,
        role=Role.STANDBY,
        generation=1,
        quota=quota,
    )
    driver.set_policy(port.uuid, ALLOW_ALL)


def kernel_memory() -> int:
    """Bytes."""
    found = {}
    for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        found[name] = value
    return sum(int(found[kind].split()[0]) * 1024 for kind in KINDS)


def timed(call: Callable[[], int]) -> tuple[int, float]:
    """What it returns, and seconds of CPU: all of it is one thread's work, here and in the kernel.

    Time on the wall would be that of whoever else is on this machine.
    """
    start = time.process_time()
    return call(), time.process_time() - start


def export(driver: EbpfDriver, port: Port) -> int:
    """Bytes."""
    return sum(map(len, driver.export(port.uuid)))


def bring(driver: EbpfDriver, port: Port, records: bytes) -> int:
    """How many were taken; all must be."""
    size = CHUNK // RECORD * RECORD
    return sum(
        driver.import_records(port.uuid, records[start : start + size]).moved
        for start in range(0, len(records), size)
    )


def check(what: str, found: int, wanted: int) -> None:
    if found != wanted:
        raise sandbox.BenchError(f"{what}: {found}, not {wanted}")


@dataclasses.dataclass
class Figures:
    exported: list[float] = dataclasses.field(default_factory=list)
    imported: list[float] = dataclasses.field(default_factory=list)
    memory: list[float] = dataclasses.field(default_factory=list)
    alone: list[float] = dataclasses.field(default_factory=list)
    among: list[float] = dataclasses.field(default_factory=list)


def measure_small(driver: EbpfDriver, into: list[float]) -> None:
    """Milliseconds; the first time warms up."""
    for number in range(6):
        size, seconds = timed(lambda: export(driver, SMALL))
        check("exported bytes", size, FEW * RECORD)
        if number:
            into.append(seconds * 1e3)


def measure(driver: EbpfDriver, records: bytes, figures: Figures) -> None:
    """A round, from no table to none."""
    count = len(records) // RECORD
    before = kernel_memory()
    add_port(driver, FULL, count)
    moved, seconds = timed(lambda: bring(driver, FULL, records))
    check("imported", moved, count)
    figures.imported.append(count / seconds / 1e6)
    figures.memory.append((kernel_memory() - before) / count)
    size, seconds = timed(lambda: export(driver, FULL))
    check("exported bytes", size, len(records))
    figures.exported.append(count / seconds / 1e6)
    measure_small(driver, figures.among)
    driver.remove_port(FULL.uuid, generation=1)
    # The kernel gives the table's memory back later.
    time.sleep(1.5)
    measure_small(driver, figures.alone)


def main() -> None:
    rounds, count = (2, 300_000) if result.is_quick() else (7, 1_000_000)
    records = make_records(count, FULL.address)
    driver = EbpfDriver(pin_dir=str(sandbox.BPFFS / "vnet"), max_ports=16)
    driver.open()
    figures = Figures()
    try:
        add_port(driver, SMALL, FEW * 2)
        check("imported", bring(driver, SMALL, make_records(FEW, SMALL.address)), FEW)
        for _ in range(rounds):
            measure(driver, records, figures)
    finally:
        driver.destroy()
    name = f"{count:,} connections of a port"
    row = result.Row
    result.write(
        "bulk",
        [
            row(
                f"{name}, exported",
                "million/s of CPU",
                figures.exported,
                goal=2.0,
                goal_is_ceiling=False,
            ),
            row(
                f"{name}, imported",
                "million/s of CPU",
                figures.imported,
                goal=1.2,
                goal_is_ceiling=False,
            ),
            row(
                f"export of another port's {FEW:,} among these",
                "ms of CPU",
                figures.among,
                "the same without them",
                figures.alone,
                goal=1.5,
            ),
            row(
                "kernel memory a connection, its cached verdict in it",
                "bytes",
                figures.memory,
                goal=192,
            ),
        ],
    )


if __name__ == "__main__":
    sandbox.run(main)
