"""The programs in the kernel against the same core run natively, and their maps in bulk."""

import os
import random
import socket

import frames as f
import pytest
from datapath_bench import OUT_ALL, PEER, PEER4, VM, VM4, VM6, policy
from datapath_world import ip, private
from frame_strategies import packets, policies
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from segment_strategies import conversations
from twin import EGRESS

from vnet_agent.datapath import _flowcache as c
from vnet_agent.datapath import layout
from vnet_agent.datapath.ebpf import STAMP_NS, EbpfDriver
from vnet_agent.datapath.flowcache import FlowcacheDriver
from vnet_agent.datapath.memory import MemoryDriver
from vnet_agent.exceptions import DatapathError, RecordError, StaleGeneration
from vnet_agent.model.policy import ALLOW_ALL, DENY_ALL, Direction, Policy, Rule
from vnet_agent.model.port import Role

PORT = "11111111-0000-4000-8000-000000000001"
INSTANCE = "22222222-0000-4000-8000-000000000001"

#: TC_ACT_* of <linux/pkt_cls.h>, by what the core decides.
TC = {c.PASS: -1, c.DROP: 2, c.REDIRECT: 7, c.CONSUMED: 4}


def interfaces() -> tuple[int, int]:
    """A tap's stand-in and an uplink's; what leaves them goes nowhere."""
    for name in ("tap", "uplink"):
        ip(f"link add {name} type veth peer name {name}-far")
        for end in (name, f"{name}-far"):
            # IPv6 off: only the test's own frames are there.
            with open(f"/proc/sys/net/ipv6/conf/{end}/disable_ipv6", "w") as switch:
                switch.write("1")
            ip(f"link set {end} up")
    return socket.if_nametoindex("tap"), socket.if_nametoindex("uplink")


def set_up(
    driver: FlowcacheDriver,
    tap: int,
    uplink: int,
    rules: Policy = ALLOW_ALL,
    *,
    quota: int = 1000,
    role: Role = Role.ACTIVE,
) -> None:
    driver.open()
    driver.set_port(
        PORT,
        instance=INSTANCE,
        mac=VM,
        addresses=(VM4, VM6),
        network=0,
        bridged=False,
        role=role,
        generation=1,
        quota=quota,
    )
    driver.set_policy(PORT, rules)
    driver.attach(PORT, tap)
    driver.attach_uplink(uplink, network=0)


def seen(driver: FlowcacheDriver) -> list[tuple]:
    return sorted(
        (
            item.protocol,
            item.local,
            item.local_port,
            item.remote,
            item.remote_port,
            item.state,
            item.origin,
            item.assured,
            item.egress_packets,
            item.ingress_packets,
            item.egress_bytes,
            item.ingress_bytes,
        )
        for item in driver.connections(PORT)
    )


@private
def test_datapath_kernel_and_native_agree(bpffs: str) -> None:
    tap, uplink = interfaces()
    kernel = EbpfDriver(pin_dir=os.path.join(bpffs, "vnet"), max_ports=4)
    native = MemoryDriver(max_ports=4)
    for driver in (kernel, native):
        set_up(driver, tap, uplink)
    frames_seen = 0

    @settings(
        max_examples=400,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(packet=packets, new=policies)
    def compare(packet: tuple, new: Policy) -> None:
        nonlocal frames_seen
        direction, frame = packet
        shortest = {f.IPV4: 34, f.IPV6: 54}.get(int.from_bytes(frame[12:14], "big"), 15)
        if len(frame) < shortest:  # the kernel itself refuses to run those
            return
        frames_seen += 1
        if frames_seen % 7 == 0:
            for driver in (kernel, native):
                driver.set_policy(PORT, new)
        hook = c.FROM_PORT if direction is EGRESS else c.TO_PORT
        action, reason, _ = native.native.process(hook, tap, frame)
        told, _ = kernel.kernel.test_run(hook, tap, frame)
        assert told == TC[action], (c.REASONS[reason], frame.hex())
        assert kernel.counters(PORT).drops == native.counters(PORT).drops, frame.hex()
        assert seen(kernel) == seen(native)

    compare()
    assert frames_seen > 300
    assert len(kernel.counters(PORT).drops) > 8
    kernel.destroy()


def windows(driver: FlowcacheDriver) -> list[bytes]:
    """The records' last 32 bytes; at most one connection is there."""
    return [data[-32:] for data in driver.export(PORT) if data]


@private
def test_datapath_kernel_and_native_agree_on_windows(bpffs: str) -> None:
    tap, uplink = interfaces()
    kernel = EbpfDriver(pin_dir=os.path.join(bpffs, "vnet"), max_ports=4)
    native = MemoryDriver(max_ports=4)
    for driver in (kernel, native):
        set_up(driver, tap, uplink)

    @settings(
        max_examples=100, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(sequence=conversations(), strict=st.booleans())
    def compare(sequence: list, strict: bool) -> None:
        for driver in (kernel, native):
            driver.flush(PORT, generation=1)
            data = layout.pack(
                "settings",
                life_ns=layout.raw("settings", "life_ns", driver._c.settings_get()),
                flags=c.SETTINGS_STRICT * strict,
            )
            driver._c.settings_put(data)
        for direction, frame in sequence:
            if direction == "sleep":
                continue
            hook = c.FROM_PORT if direction is EGRESS else c.TO_PORT
            action, _, _ = native.native.process(hook, tap, frame)
            assert kernel.kernel.test_run(hook, tap, frame)[0] == TC[action], frame.hex()
            assert kernel.counters(PORT).drops == native.counters(PORT).drops, frame.hex()
            assert seen(kernel) == seen(native)
            assert windows(kernel) == windows(native), frame.hex()

    compare()
    assert kernel.counters(PORT).drops["tcp-window"] > 10
    kernel.destroy()


@private
def test_datapath_openings_that_nobody_completes_are_limited(bpffs: str) -> None:
    tap, uplink = interfaces()
    kernel = EbpfDriver(pin_dir=os.path.join(bpffs, "vnet"), max_ports=4)
    set_up(kernel, tap, uplink)
    hour = 3600 * 10**9
    kernel.kernel.settings_put(
        layout.pack(
            "settings",
            life_ns=layout.raw("settings", "life_ns", kernel.kernel.settings_get()),
            opening_ns=hour,
            openings_ns=20 * hour,
        )
    )

    def send(source: int, flags: int) -> None:
        segment = f.tcp(source, 80, flags, seq=7, ack=9)
        frame = f.ether(VM, PEER, f.IPV4, f.ipv4(VM4, PEER4, f.TCP, segment))
        kernel.kernel.test_run(c.FROM_PORT, tap, frame)

    for source in range(1000, 1050):
        send(source, f.SYN)
    counters = kernel.counters(PORT)
    assert (counters.connections, counters.drops["half-open"]) == (20, 30)
    answer = f.ipv4(PEER4, VM4, f.TCP, f.tcp(80, 1000, f.SYN | f.ACK, seq=8, ack=8))
    kernel.kernel.test_run(c.TO_PORT, tap, f.ether(PEER, VM, f.IPV4, answer))
    send(1000, f.ACK)
    send(2000, f.SYN)
    send(2001, f.SYN)
    counters = kernel.counters(PORT)
    assert (counters.connections, counters.drops["half-open"]) == (21, 31)
    kernel.destroy()


@private
def test_datapath_settings_outlive_the_agent_until_it_has_others(bpffs: str) -> None:
    tap, uplink = interfaces()
    pin_dir = os.path.join(bpffs, "vnet")
    first = EbpfDriver(pin_dir=pin_dir, max_ports=4)
    set_up(first, tap, uplink)
    short = layout.pack("settings", life_ns=(7 * 10**9).to_bytes(8, "little") * 16)
    first.kernel.settings_put(short)
    fill(first, tap, 1)
    assert 6_000 < first.connections(PORT)[0].remaining_ms <= 7_000
    first.close()
    raw = c.Kernel(pin_dir, 4)
    assert raw.settings_get() == short
    raw.close()
    second = EbpfDriver(pin_dir=pin_dir, max_ports=4)
    second.open()
    assert second.kernel.settings_get() != short
    second.destroy()


def fill(driver: FlowcacheDriver, tap: int, count: int) -> None:
    """`count` UDP connections that the VM began; quotas of test runs are the kernel's."""
    generator = random.Random(1)
    for number in range(count):
        packet = f.ipv4(VM4, PEER4, f.UDP, f.udp(number % 65536, generator.randrange(65536)))
        frame = f.ether(VM, "52:54:00:00:00:02", f.IPV4, packet)
        assert isinstance(driver, EbpfDriver)
        driver.kernel.test_run(c.FROM_PORT, tap, frame)


@private
def test_datapath_records_between_kernel_and_memory(bpffs: str) -> None:
    tap, uplink = interfaces()
    kernel = EbpfDriver(pin_dir=os.path.join(bpffs, "vnet"), max_ports=4)
    set_up(kernel, tap, uplink, quota=20_000)
    fill(kernel, tap, 10_000)
    chunks = list(kernel.export(PORT))
    assert len(chunks) > 1
    assert all(0 < len(chunk) <= 256 * 1024 for chunk in chunks)
    held = seen(kernel)
    assert len(held) == 10_000
    memory = MemoryDriver()
    set_up(memory, tap, uplink, quota=20_000, role=Role.STANDBY)
    assert memory.import_records(PORT, b"".join(chunks)).moved == 10_000
    assert seen(memory) == held
    assert kernel.flush(PORT, generation=1) == 10_000
    assert seen(kernel) == []
    # Into a port that waits (in batches), and again into one that runs (one by one).
    for role in (Role.STANDBY, Role.ACTIVE):
        set_up_role(kernel, role)
        result = kernel.import_records(PORT, b"".join(memory.export(PORT)))
        assert (result.moved, result.refused) == (10_000, {})
        assert seen(kernel) == held
    kernel.set_policy(PORT, DENY_ALL)
    result = kernel.import_records(PORT, chunks[0])
    assert (result.moved, result.refused) == (0, {"policy": len(chunks[0]) // c.RECORD_SIZE})
    with pytest.raises(RecordError):
        kernel.import_records(PORT, chunks[0][:-1])
    kernel.destroy()


def set_up_role(driver: FlowcacheDriver, role: Role) -> None:
    driver.set_port(
        PORT,
        instance=INSTANCE,
        mac=VM,
        addresses=(VM4, VM6),
        network=0,
        bridged=False,
        role=role,
        generation=1,
        quota=1,
    )


@private
def test_datapath_quota_holds_in_the_kernel(bpffs: str) -> None:
    tap, uplink = interfaces()
    kernel = EbpfDriver(pin_dir=os.path.join(bpffs, "vnet"), max_ports=4)
    set_up(kernel, tap, uplink, quota=200)
    memory = MemoryDriver()
    set_up(memory, tap, uplink, quota=1000)
    answered = [
        f.ether(VM, "52:54:00:00:00:02", f.IPV4, f.ipv4(VM4, PEER4, f.UDP, f.udp(port, 7)))
        for port in range(100)
    ]
    for port, frame in enumerate(answered):
        kernel.kernel.test_run(c.FROM_PORT, tap, frame)
        reply = f.ipv4(PEER4, VM4, f.UDP, f.udp(7, port))
        kernel.kernel.test_run(c.TO_PORT, tap, f.ether("52:54:00:00:00:02", VM, f.IPV4, reply))
    fill(kernel, tap, 3000)
    held = kernel.connections(PORT)
    assert len(held) <= 200
    assert sum(item.assured for item in held) == 100
    assert kernel.counters(PORT).drops["quota"] > 0
    records = b"".join(memory.export(PORT))
    assert records == b""
    set_up_role(memory, Role.STANDBY)
    memory.import_records(PORT, b"".join(kernel.export(PORT)))
    kernel.flush(PORT, generation=1)
    fill(kernel, tap, 150)
    set_up_role(kernel, Role.STANDBY)
    result = kernel.import_records(PORT, b"".join(memory.export(PORT)))
    assert result.moved + result.refused.get("quota", 0) == len(held)
    assert result.refused["quota"] >= 50
    kernel.destroy()


@private
def test_datapath_is_adopted_as_it_was(bpffs: str) -> None:
    tap, uplink = interfaces()
    pin_dir = os.path.join(bpffs, "vnet")
    first = EbpfDriver(pin_dir=pin_dir, max_ports=4)
    set_up(first, tap, uplink, policy(OUT_ALL))
    fill(first, tap, 10)
    ports, held = first.ports(), seen(first)
    counters = first.counters(PORT)
    first.close()
    second = EbpfDriver(pin_dir=pin_dir, max_ports=400)
    second.open()
    assert second.kernel.max_ports == 4
    assert second.ports() == ports
    assert seen(second) == held
    assert second.counters(PORT) == counters
    with pytest.raises(StaleGeneration):
        second.remove_port(PORT, generation=0)
    # Its policies' ids go on where the first one's ended.
    allow_in = Policy(rules=(Rule(direction=Direction.INGRESS),))
    second.set_policy(PORT, allow_in)
    packet = f.ipv4(PEER4, VM4, f.UDP, f.udp(9, 9999))
    frame = f.ether("52:54:00:00:00:02", VM, f.IPV4, packet)
    assert second.kernel.test_run(c.TO_PORT, tap, frame)[0] == TC[c.PASS]
    second.close()
    # An interface that went meanwhile is forgotten, its port is not.
    ip("link del tap")
    third = EbpfDriver(pin_dir=pin_dir, max_ports=4)
    third.open()
    assert [entry.ifindex for entry in third.ports()] == [None]
    third.remove_port(PORT, generation=1)
    assert third.ports() == []
    third.destroy()
    assert not os.path.exists(pin_dir)


@private
def test_datapath_needs_a_bpf_file_system(bpffs: str) -> None:
    driver = EbpfDriver(pin_dir=os.path.join(os.path.dirname(bpffs), "elsewhere", "vnet"))
    with pytest.raises(DatapathError, match="mount -t bpf"):
        driver.open()


@private
def test_datapath_leaves_other_filters_alone(bpffs: str) -> None:
    tap, uplink = interfaces()
    driver = EbpfDriver(pin_dir=os.path.join(bpffs, "vnet"), max_ports=4)
    set_up(driver, tap, uplink)
    driver.detach(PORT)
    driver.attach(PORT, tap)
    driver.attach(PORT, tap)
    ip("link del tap")
    driver.detach(PORT)
    with pytest.raises(DatapathError, match="attach"):
        driver.attach(PORT, tap)
    assert driver.ports()[0].ifindex is None
    driver.destroy()


@private
def test_datapath_deltas_miss_nothing_that_is_under_way(bpffs: str) -> None:
    """A program on another CPU may write late what it stamped before the cursor."""
    tap, uplink = interfaces()
    driver = EbpfDriver(pin_dir=os.path.join(bpffs, "vnet"), max_ports=4)
    set_up(driver, tap, uplink)
    before = driver.kernel.now()
    cursor = driver.cursor()
    assert driver.kernel.now() - cursor >= STAMP_NS
    assert before - cursor <= STAMP_NS
    fill(driver, tap, 10)
    assert sum(map(len, driver.export(PORT, since=cursor))) == 10 * c.RECORD_SIZE
    assert list(driver.export(PORT, since=driver.kernel.now() + STAMP_NS)) in ([], [b""])
    driver.destroy()


@private
def test_datapath_refused_policy_takes_no_room(bpffs: str) -> None:
    """The rules of all ports share a table; what does not fit whole leaves nothing in it."""
    tap, uplink = interfaces()
    driver = EbpfDriver(pin_dir=os.path.join(bpffs, "vnet"), max_ports=4)
    set_up(driver, tap, uplink)
    kernel = driver.kernel
    room, size = 100, 1 << 20
    held = len(list(kernel.table_items(c.TABLE_RULES)))
    foreign = [
        layout.pack("rule_key", policy=1 << 31, remote=number.to_bytes(16, "little"))
        for number in range(size - room - held)
    ]
    kernel.table_put(
        c.TABLE_RULES, b"".join(foreign), bytes(len(layout.pack("rule")) * len(foreign))
    )
    wide = Policy(
        rules=tuple(
            Rule(direction=Direction.INGRESS, protocol="tcp", ports=(port, port))
            for port in range(room + 10)
        )
    )
    for _ in range(2):
        with pytest.raises(DatapathError, match=r"set_policy.*the table is full: 'rules'"):
            driver.set_policy(PORT, wide)
    kernel.table_remove(c.TABLE_RULES, b"".join(foreign[:10]))
    driver.set_policy(PORT, wide)
    driver.destroy()
