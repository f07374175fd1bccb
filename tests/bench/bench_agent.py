"""What an agent takes with many ports, and what a listing of a million connections does to it.

The agent is a process of its own with the ebpf driver. The longest that it keeps somebody waiting
is seen from outside: its status is asked for again and again while it lists.
"""

import subprocess
import sys
import threading
import time

import agent
import result
import sandbox
from records import make_records

from vnet_agent.datapath._flowcache import RECORD_SIZE
from vnet_agent.migration import wire

MIB = 1 << 20
CHUNK = 256 * 1024 // RECORD_SIZE * RECORD_SIZE
PART = 100 * CHUNK
#: A number that none of the many ports has.
ALONE = 5000
#: Seconds between two questions for the status.
PAUSE = 0.005


class Watch(threading.Thread):
    """Asks for the agent's status until it is left; `waits` has the milliseconds of each, `memory`
    the agent's bytes then."""

    def __init__(self, of: agent.Agent) -> None:
        super().__init__()
        self.agent, self.ended = of, threading.Event()
        self.waits: list[float] = []
        self.memory: list[int] = []

    def run(self) -> None:
        while not self.ended.wait(PAUSE):
            start = time.perf_counter()
            self.agent.get("/v1/status")
            self.waits.append((time.perf_counter() - start) * 1e3)
            self.memory.append(self.agent.memory())

    def __enter__(self) -> "Watch":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.join()


def fill(of: agent.Agent, machine: agent.VirtualMachine, count: int) -> None:
    """With `vnetctl conn import`, a part at a time: the agent takes only so much at once."""
    records = make_records(count, machine.address)
    port = wire.StreamPort(uuid=machine.port, mac=machine.mac, generation=1)
    hello = wire.Hello(session="", instance=machine.instance, host="bench", ports=(port,))
    path = of.directory / "records"
    for start in range(0, len(records), PART):
        part = records[start : start + PART]
        chunks = (part[at : at + CHUNK] for at in range(0, len(part), CHUNK))
        path.write_bytes(b"".join(wire.encode_stream(chunks, hello)))
        of.control("conn", "import", machine.port, str(path))
    path.unlink()


def list_all(of: agent.Agent, *words: str) -> tuple[int, float, float]:
    """Bytes that vnetctl prints, its greatest memory in MiB, and seconds."""
    program = (
        "import sys; from vnet_agent.cli.shell import main; code = main();"
        "lines = open('/proc/self/status').read().splitlines();"
        "print(*(line for line in lines if line.startswith('VmHWM')), file=sys.stderr);"
        "sys.exit(code)"
    )
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", program, "--socket", of.socket, *words],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise sandbox.BenchError(f"vnetctl {' '.join(words)}: {done.stderr.decode()[-500:]}")
    memory = int(done.stderr.split()[-2]) / 1024
    return len(done.stdout), memory, time.perf_counter() - start


def measure_ports(count: int) -> list[result.Row]:
    machines = [agent.VirtualMachine(number) for number in range(1, count + 1)]
    with agent.running(machines, quota=4096) as one:
        time.sleep(2)
        return [
            result.Row(
                f"agent's memory with {count:,} ports, libvirt's test driver in it",
                "MiB",
                [one.memory() / MIB],
                goal=80,
            )
        ]


def measure_listings(count: int) -> list[result.Row]:
    machine = agent.VirtualMachine(ALONE)
    rows: list[result.Row] = []
    with agent.running([machine], quota=count + 1000) as one:
        fill(one, machine, count)
        every, most = ("--limit", str(count)), 0
        with Watch(one) as idle:
            time.sleep(2)
        rows.append(result.Row("longest wait for an idle agent", "ms", [max(idle.waits)]))
        for name, words in (
            ("conn list, a page", ("conn", "list", machine.port)),
            ("conn list, all", ("conn", "list", machine.port, *every, "-f", "csv")),
            ("flow list, all", ("flow", "list", *every, "-f", "json", "--noindent")),
            ("flow list, one peer's", ("flow", "list", "--remote", "10.128.0.1", "--limit", "10")),
            ("flow list, nobody's", ("flow", "list", "--remote", "192.0.2.1")),
        ):
            with Watch(one) as watch:
                size, memory, seconds = list_all(one, *words)
            most = max(most, *watch.memory)
            print(f"{name}: {size:,} bytes", file=sys.stderr)
            rows += [
                result.Row(f"{name}: all in all", "s", [seconds]),
                result.Row(
                    f"{name}: longest wait for the agent", "ms", [max(watch.waits)], goal=100
                ),
                result.Row(f"{name}: memory of vnetctl", "MiB", [memory], goal=150),
            ]
        grown = (most - max(idle.memory)) / MIB
        rows.append(result.Row("what the agent's memory grew by", "MiB", [grown], goal=20))
    return rows


def main() -> None:
    ports, count = (100, 100_000) if result.is_quick() else (1000, 1_000_000)
    result.write("agent", [*measure_ports(ports), *measure_listings(count)])


if __name__ == "__main__":
    sandbox.run(main)
