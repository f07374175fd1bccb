"""The kernel's programs, the same core natively and the plain Python twin, side by side.

Each frame is judged by all three at the same time of day: verdict, reason of a drop, and what its
connection is afterwards.
"""

import ipaddress
import struct
from typing import NamedTuple

import twin as t
from datapath_bench import VM4, VM6

from vnet_agent.datapath import _flowcache as c
from vnet_agent.datapath import layout
from vnet_agent.datapath.ebpf import EbpfDriver
from vnet_agent.datapath.memory import MemoryDriver
from vnet_agent.model.policy import Policy

#: TC_ACT_* of <linux/pkt_cls.h>, by what the core decides.
TC = {c.PASS: -1, c.DROP: 2, c.REDIRECT: 7, c.CONSUMED: 4}
#: Generations that no port comes to in a test are those from here on.
ASIDE = 1 << 31
_KEY = struct.Struct("=16s16sHHBB")
_NAMES = {number: name for name, number in t.NAMES.items()}


class Held(NamedTuple):
    """A connection, as far as all three have it."""

    state: str
    egress: bool
    assured: bool
    packets: tuple[int, int]


class Judges:
    """One port in each. `set_up` makes the drivers' port `port` behind interface `tap`."""

    def __init__(self, kernel: EbpfDriver, native: MemoryDriver, port: str, tap: int) -> None:
        self.drivers = (kernel, native)
        self.kernel, self.native = kernel.kernel, native.native
        self.port, self.tap = port, tap
        self.aside = ASIDE
        self.members: dict[str, list[str]] = {}
        self.meet((VM4, VM6))

    def meet(self, addresses: tuple[str, ...]) -> None:
        """The drivers' port is new, and has these addresses."""
        self.local_id, other = (driver.ports()[0].local_id for driver in self.drivers)
        assert self.local_id == other
        mac = self.drivers[0].ports()[0].mac
        self.twin = t.Twin(mac, addresses, Policy(), self.members)
        self.drops = self.kernel.counters(self.local_id)[4]

    # -- what changes

    def set_policy(self, policy: Policy) -> None:
        for driver in self.drivers:
            driver.set_policy(self.port, policy)
        # An equal one changes nothing; and a policy is known by its object, see the twin.
        if policy != self.twin.policy:
            self.twin.set_policy(t.Policy(rules=policy.rules, established=policy.established))

    def set_members(self, group: str, members: list[str]) -> None:
        for driver in self.drivers:
            driver.set_members(group, {0: members})
        self.members = {**self.members, group: members}
        self.twin.set_members(group, members)

    def restart(self, addresses: tuple[str, ...], *, strict: bool = False) -> None:
        """The port anew: no connections, and no fragments, of which the kernel forgets others
        first than the core does natively when it remembers many. `strict`: about TCP windows."""
        for driver in self.drivers:
            (entry,) = driver.ports()
            driver.remove_port(self.port, generation=entry.generation)
            driver.set_port(
                self.port,
                instance=entry.instance,
                mac=entry.mac,
                addresses=addresses,
                network=entry.network,
                bridged=entry.bridged,
                role=entry.role,
                generation=entry.generation,
                quota=entry.quota,
            )
            driver.attach(self.port, self.tap)
            driver.collect()
        for handle in (self.kernel, self.native):
            data = bytearray(handle.settings_get())
            offset, size = c.LAYOUT["settings"]["flags"]
            flags = layout.raw(
                "settings", "flags", layout.pack("settings", flags=c.SETTINGS_STRICT * strict)
            )
            data[offset : offset + size] = flags
            handle.settings_put(bytes(data))
        self.meet(addresses)
        self.twin.strict = strict

    # -- what is compared

    def judge(self, direction: t.Direction, frame: bytes) -> str:
        """Why the frame is dropped, or "none"; AssertionError where the three disagree."""
        hook = c.FROM_PORT if direction is t.EGRESS else c.TO_PORT
        now = self.kernel.now()
        told, _ = self.kernel.test_run(hook, self.tap, frame)
        action, number, _ = self.native.process(hook, self.tap, frame, now)
        said = self.twin.process(direction, frame, now)
        reason = c.REASONS[number]
        assert reason == said, ("native and twin", reason, said)
        assert told == TC[action], ("kernel and native", told, reason)
        drops = self.kernel.counters(self.local_id)[4]
        assert sum(drops) - sum(self.drops) == (number != 0), ("drops counted", reason)
        assert drops[number] - self.drops[number] == (number != 0), ("reason counted", reason)
        self.drops = drops
        self._compare_connection(hook, frame, now)
        return reason

    def judge_stale(self, direction: t.Direction, frame: bytes) -> str:
        """The same, where the entry's verdict is made again; the others' stay as they are."""
        policy = self.twin.policy
        offset, size = c.LAYOUT["port"]["policy"]
        words = []
        # Never the same again: an entry that has it would be fresh.
        self.aside += 1
        for handle in (self.kernel, self.native):
            word = layout.number("port", "policy", handle.port_get(self.local_id))
            words.append(word)
            handle.port_store(self.local_id, offset, size, word >> 32 << 32 | self.aside)
        self.twin.policy = t.Policy(rules=policy.rules, established=policy.established)
        try:
            return self.judge(direction, frame)
        finally:
            self.twin.policy = policy
            for handle, word in zip((self.kernel, self.native), words, strict=True):
                handle.port_store(self.local_id, offset, size, word)

    def _compare_connection(self, hook: int, frame: bytes, now: int) -> None:
        traced = self.kernel.trace(hook, self.local_id, frame)
        other = self.native.trace(hook, self.local_id, frame)
        assert traced["key"] == other["key"]
        if traced["key"] is None:
            return
        ours, natives = self._entry(traced), self._entry(other)
        assert ours == natives, ("entries of kernel and native", ours, natives)
        twins = self._twins(traced["key"], now)
        assert natives == twins, ("entries of native and twin", natives, twins)

    @staticmethod
    def _entry(traced: dict) -> Held | None:
        """What expired is not there."""
        conn = traced["before"]
        if conn is None or layout.number("conn", "expires_ns", conn) <= traced["now"]:
            return None
        flags = layout.number("conn", "flags", conn)
        counted = layout.raw("conn", "packets", conn)
        return Held(
            c.STATES[layout.number("conn", "state", conn)],
            bool(flags & c.CONN_EGRESS),
            bool(flags & c.CONN_ASSURED),
            struct.unpack("=2Q", counted),
        )

    def _twins(self, key: bytes, now: int) -> Held | None:
        local, remote, local_port, remote_port, proto, family = _KEY.unpack_from(key)
        ends = (ipaddress.ip_address(layout.unpack_address(item)) for item in (local, remote))
        conn = self.twin.conns.get((family, proto, *ends, local_port, remote_port))
        if conn is None or conn.expires <= now:
            return None
        return Held(
            conn.state,
            conn.origin is t.EGRESS,
            conn.assured,
            (conn.packets[t.INGRESS], conn.packets[t.EGRESS]),
        )
