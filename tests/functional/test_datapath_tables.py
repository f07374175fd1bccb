"""The operator's tables in the kernel: what rules do with frames of real taps."""

import select
import threading
import time
from types import SimpleNamespace

import frames as f
import pytest
from datapath_world import private
from network_bench import A4, B4, FAR, A, B, arp, datagram
from tables_world import PORT_A, PORT_B, Tables
from test_datapath_traffic import PORT_A as VM_A
from test_datapath_traffic import PORT_B as VM_B
from test_datapath_traffic import World
from twin_sums import seal

from vnet_agent.datapath.handlers import compile_handler
from vnet_agent.exceptions import DatapathError
from vnet_agent.handlers.document import table_from_json
from vnet_agent.model.policy import ALLOW_ALL

UDP = {"ip_proto": "udp", "eth_type": "ipv4"}


def packet(source: str, target: str, port: int = 2, **head) -> bytes:
    """A UDP datagram between two MACs with right checksums."""
    ends = {A: A4, B: B4}
    body = f.udp(1, port, b"payload")
    packed = f.ipv4(ends.get(source, "10.0.0.9"), ends.get(target, "10.0.0.9"), f.UDP, body)
    return seal(f.ether(source, target, f.IPV4, packed))


@private
def test_datapath_tables_drop_goto_and_miss(bpffs: str) -> None:
    world = Tables(bpffs)
    frame = packet(A, B)
    world.a.send(frame)
    assert world.arrived() == {"b": [frame]}
    world.load(0, {"match": {**UDP, "udp_dst": "2-3", "direction": "egress"}, "actions": ["drop"]})
    world.a.send(frame)
    world.a.send(packet(A, B, 4))
    assert world.arrived() == {"b": [packet(A, B, 4)]}
    assert world.drops() == {"handler": 1}
    # Table 2 is passed over; 3 lets one frame through, and drops what it misses.
    world.load(0, {"match": {"direction": "egress"}, "actions": [{"goto": 3}]})
    world.load(2, {"actions": ["drop"]})
    world.load(3, {"match": {**UDP, "udp_dst": 2}, "actions": ["normal"]}, miss="drop")
    world.load(2)
    world.a.send(frame)
    world.a.send(packet(A, B, 4))
    # What goes to b goes through the tables there, too.
    assert world.arrived() == {"b": [frame]}
    assert world.drops() == {"handler": 2}
    for table in (0, 3):
        world.load(table)
    assert world.driver.tables() == []
    world.a.send(packet(A, B, 4))
    assert world.arrived() == {"b": [packet(A, B, 4)]}
    world.driver.destroy()


@private
def test_datapath_tables_of_the_receiver_see_frames_from_here(bpffs: str) -> None:
    world = Tables(bpffs)
    world.load(0, {"match": {"direction": "ingress", "in_port": PORT_B}, "actions": ["drop"]})
    world.a.send(packet(A, B))
    world.b.send(packet(B, A))
    world.a.send(arp(A4, B4))
    assert world.arrived() == {"a": [packet(B, A)], "far": [arp(A4, B4)]}
    assert world.drops(PORT_B) == {"handler": 2}
    world.driver.destroy()


@private
def test_datapath_tables_check_sources_before_them(bpffs: str) -> None:
    world = Tables(bpffs)
    world.load(0, {"actions": [{"output": "uplink"}]})
    world.a.send(datagram("52:54:00:00:00:66", B))
    world.a.send(seal(f.ether(A, B, f.IPV4, f.ipv4("10.0.0.66", B4, f.UDP, f.udp(1, 2)))))
    assert world.arrived() == {}
    assert world.drops() == {"mac-spoof": 1, "ip-spoof": 1}
    world.a.send(packet(A, B))
    assert world.arrived() == {"far": [packet(A, B)]}
    assert world.driver.counters(PORT_A).tx_frames == 1
    world.driver.destroy()


@private
def test_datapath_tables_set_fields_with_right_checksums(bpffs: str) -> None:
    world = Tables(bpffs)
    actions = [
        {"set": {"ip_dst": "192.0.2.77", "ip_dscp": 46, "ip_ttl": 3}},
        {"set": {"udp_dst": 5353, "eth_dst": FAR}},
        {"output": "uplink"},
    ]
    world.load(0, {"match": {**UDP, "direction": "egress"}, "actions": actions})
    world.a.send(packet(A, B))
    frame = bytearray(packet(A, B))
    frame[0:6] = f.mac(FAR)
    frame[15], frame[22], frame[30:34] = 46 << 2, 3, f.address("192.0.2.77")
    frame[36:38] = (5353).to_bytes(2, "big")
    assert world.arrived() == {"far": [seal(bytes(frame))]}
    match = {"ip_proto": "tcp", "eth_type": "ipv6", "direction": "egress"}
    sets = {"ip_dst": "2001:db8:7::8", "ip_dscp": 10, "ip_ttl": 9}
    world.load(0, {"match": match, "actions": [{"set": sets}, {"output": "uplink"}]})
    body = f.tcp(4000, 80, f.SYN)
    sent = f.ether(A, B, f.IPV6, f.ipv6("2001:db8::a", "2001:db8::b", f.TCP, body))
    world.a.send(seal(sent))
    frame = bytearray(sent)
    frame[14:16] = (0x6000 | 10 << 6).to_bytes(2, "big")
    frame[21], frame[38:54] = 9, f.address("2001:db8:7::8")
    assert world.arrived() == {"far": [seal(bytes(frame))]}
    world.driver.destroy()


@private
def test_datapath_tables_output_mirror_and_tags(bpffs: str) -> None:
    world = Tables(bpffs)
    frame = packet(A, FAR)
    # The receiver's own policy still judges: the frame must be for its MAC.
    output = [{"set": {"eth_dst": B, "ip_dst": B4}}, {"output": PORT_B}]
    world.load(0, {"match": {**UDP, "direction": "egress"}, "actions": output})
    world.a.send(frame)
    assert world.arrived() == {"b": [packet(A, B)]}
    world.load(0, {"match": UDP, "actions": [{"mirror": PORT_B}, "normal"]})
    world.a.send(frame)
    assert world.arrived() == {"far": [frame]}
    assert world.drops(PORT_B) == {"other-mac": 1}
    world.a.send(packet(A, B))
    assert world.arrived() == {"b": [packet(A, B)] * 2}
    # To several: each copy is judged where it comes, and goes through the tables there.
    actions = [{"output": [PORT_B, "uplink"]}]
    world.load(0, {"match": {**UDP, "direction": "egress"}, "actions": actions})
    world.a.send(packet(A, B))
    assert world.arrived() == {"b": [packet(A, B)], "far": [packet(A, B)]}
    refuse = {"match": {**UDP, "in_port": PORT_B, "direction": "ingress"}, "actions": ["drop"]}
    world.load(0, {"match": {**UDP, "direction": "egress"}, "actions": actions}, refuse)
    world.a.send(packet(A, B))
    assert world.arrived() == {"far": [packet(A, B)]}
    assert world.drops(PORT_B) == {"other-mac": 1, "handler": 1}
    push = [{"push_vlan": {"vid": 100, "pcp": 3}}, {"output": "uplink"}]
    pop = ["pop_vlan", {"output": "uplink"}]
    world.load(
        0,
        {"match": {**UDP, "vlan_vid": "none"}, "actions": push},
        {"match": {**UDP, "vlan_vid": 7, "vlan_pcp": 0}, "actions": pop},
    )
    world.a.send(frame)
    assert world.arrived() == {"far": [f.tagged(frame, 0x6000 | 100)]}
    world.a.send(f.tagged(frame, 7))
    assert world.arrived() == {"far": [frame]}
    world.a.send(f.tagged(frame, 8))
    assert world.arrived() == {}
    assert world.drops() == {"vlan": 1}
    world.driver.destroy()


@private
def test_datapath_tables_meter(bpffs: str) -> None:
    world = Tables(bpffs)
    frame = packet(A, B)
    actions = [{"meter": {"kbps": 1, "burst_kbits": 1}}, "normal"]
    world.load(0, {"match": {**UDP, "direction": "egress"}, "actions": actions})
    for _ in range(20):
        world.a.send(frame)
    # 125 bytes of burst, which the last frame may overdraw; the next byte takes 8 ms.
    passed = len(world.arrived()["b"])
    assert 3 <= passed < 20
    assert world.drops() == {"rate": 20 - passed}
    world.driver.destroy()


@private
def test_datapath_tables_mark_connections(bpffs: str) -> None:
    world = Tables(bpffs)
    match = {**UDP, "direction": "egress", "udp_dst": 2}
    world.load(0, {"match": match, "actions": [{"set": {"conn_mark": 0x77}}, "normal"]})
    world.a.send(packet(A, B))
    world.a.send(packet(A, B, 3))
    assert world.arrived() == {"b": [packet(A, B), packet(A, B, 3)]}
    marks = {item.remote_port: item.mark for item in world.driver.connections(PORT_A)}
    assert marks == {2: 0x77, 3: 0}
    world.load(0, {"match": {**UDP, "conn_mark": "0x77"}, "actions": ["drop"]})
    world.a.send(packet(A, B))
    world.a.send(packet(A, B, 3))
    assert world.arrived() == {"b": [packet(A, B, 3)]}
    world.driver.destroy()


@private
def test_datapath_tables_give_frames_to_the_controller(bpffs: str) -> None:
    world = Tables(bpffs, rate=10)
    fd = world.driver.packet_in_fileno()
    assert not select.select([fd], [], [], 0)[0]
    frame = packet(A, FAR)
    actions = [{"set": {"metadata": 0x1F}}, {"controller": {"max_len": 30}}]
    world.load(3, {"match": UDP, "actions": actions, "cookie": 77})
    world.a.send(frame)
    assert select.select([fd], [], [], 5)[0]
    (first,) = world.packet_ins()
    assert first[:1] + first[2:] == (PORT_A, True, 3, "rule", 77, 0x1F, len(frame), frame[:30])
    assert not select.select([fd], [], [], 0)[0]
    assert world.arrived() == {}
    # A quarter of a second's frames at once, at most; the others are dropped and counted.
    for _ in range(50):
        world.a.send(frame)
    assert len(world.packet_ins()) + world.drops()["controller-rate"] == 50
    assert world.drops()["controller-rate"] >= 20
    world.load(3, miss="controller")
    world.far.send(packet(FAR, B))
    (second,) = world.packet_ins()
    assert second[:1] + second[2:6] == (PORT_B, False, 3, "miss", 0)
    assert second.data == packet(FAR, B)
    world.driver.destroy()


@private
def test_datapath_tables_let_packets_out(bpffs: str) -> None:
    world = Tables(bpffs)
    frame = packet(A, B)

    def send(port: str, egress: bool, tables: bool) -> None:
        world.driver.send_packet(port, egress=egress, frame=frame, through_tables=tables)

    send(PORT_A, True, True)
    assert world.arrived() == {"b": [frame]}
    world.load(0, {"match": {"direction": "egress"}, "actions": ["drop"]})
    send(PORT_A, True, True)
    assert world.arrived() == {}
    send(PORT_A, True, False)
    assert world.arrived() == {"b": [frame]}
    world.load(0, {"match": {"direction": "ingress"}, "actions": ["drop"]})
    send(PORT_B, False, True)
    assert world.arrived() == {}
    send(PORT_B, False, False)
    assert world.arrived() == {"b": [frame]}
    world.driver.destroy()


@private
def test_datapath_tables_let_out_what_fits(bpffs: str) -> None:
    world = Tables(bpffs)
    with pytest.raises(DatapathError, match="no frame of 9000 bytes"):
        world.driver.send_packet(PORT_A, egress=True, frame=bytes(9000), through_tables=False)
    assert world.arrived() == {}
    world.driver.destroy()


@private
def test_datapath_tables_satisfy_a_real_receiver(bpffs: str) -> None:
    """Both stacks leave checksums to the device, whose frames' headers are rewritten twice."""
    world = World(bpffs)
    driver = world.driver()
    driver.set_policy(VM_B, ALLOW_ALL)
    ids = {entry.port: entry.local_id for entry in driver.ports()}

    def load(*rules: dict) -> None:
        places = SimpleNamespace(
            local_id=ids.get, ids_of=lambda instance: [], ids_in=lambda group: []
        )
        document = table_from_json({"rules": list(rules)}, 0)
        flat = [item for rule in document.rules for item in compile_handler(rule, places)]
        driver.replace_table(0, flat, document.miss)

    def rewrite(port: str, protocol: str, **sets: object) -> dict:
        old = {f"{protocol}_{end}": number for end, number in (("dst", 7000), ("src", 7001))}
        name = "dst" if f"{protocol}_dst" in sets else "src"
        match = {"direction": "ingress", "in_port": port, "eth_type": "ipv4"}
        match |= {"ip_proto": protocol, f"{protocol}_{name}": old[f"{protocol}_{name}"]}
        return {"match": match, "actions": [{"set": sets}, "normal"]}

    load(
        rewrite(VM_B, "udp", udp_dst=7001, ip_dscp=10, ip_ttl=7),
        rewrite(VM_A, "udp", udp_src=7000),
        rewrite(VM_B, "tcp", tcp_dst=7001),
        rewrite(VM_A, "tcp", tcp_src=7000),
    )
    server, client = world.b.udp(port=7001), world.a.udp()
    client.connect(("10.9.0.2", 7000))
    client.send(b"x" * 1000)
    data, peer = server.recvfrom(2000)
    assert (data, peer[0]) == (b"x" * 1000, "10.9.0.1")
    server.sendto(b"back", peer)
    assert client.recv(10) == b"back"
    # TCP, whose long segments are cut behind the tables.
    listener = world.b.listen(7001)
    sent = world.a.connect("10.9.0.2", 7000)
    taken, _ = listener.accept()
    sender = threading.Thread(target=lambda: (sent.sendall(bytes(1 << 20)), sent.close()))
    sender.start()
    assert sum(iter(lambda: len(taken.recv(1 << 16)), 0)) == 1 << 20
    sender.join()
    driver.destroy()


@private
def test_datapath_tables_lose_nothing_while_they_change(bpffs: str) -> None:
    world = Tables(bpffs)
    frame, count = packet(A, B), 4000
    others = [
        {"match": {**UDP, "udp_dst": port}, "actions": ["drop"]} for port in range(1000, 1200)
    ]
    let = {"match": {**UDP, "udp_dst": 2}, "actions": ["normal"], "priority": 50000}
    world.load(0, let, *others, miss="drop")
    received = []

    def receive() -> None:
        while len(received) < count and (got := world.b.receive(5.0)):
            received.append(got)

    reader = threading.Thread(target=receive)
    reader.start()
    is_done = threading.Event()

    def change() -> None:
        turn = 0
        while not is_done.is_set():
            turn += 1
            world.load(0, let, *others[turn % 100 :], miss="drop")

    writer = threading.Thread(target=change)
    writer.start()
    for number in range(count):
        world.a.send(frame)
        while number - len(received) > 200 and reader.is_alive():
            time.sleep(0.001)
    reader.join()
    is_done.set()
    writer.join()
    assert received == [frame] * count
    assert world.drops() == world.drops(PORT_B) == {}
    world.driver.destroy()


@private
def test_datapath_tables_outlive_the_agent(bpffs: str) -> None:
    world = Tables(bpffs)
    first = {"match": {**UDP, "udp_dst": 2}, "actions": ["drop"], "cookie": 5, "priority": 40000}
    ids = world.load(4, first, {"match": UDP, "actions": ["normal"]}, miss="drop")
    (before,) = world.driver.tables()
    assert sorted(before.rules) == sorted(ids)
    world.driver.close()
    world.a.send(packet(A, B))
    world.a.send(packet(A, B, 4))
    assert world.arrived() == {"b": [packet(A, B, 4)]}
    for _ in range(2):
        world.open()
        (after,) = world.driver.tables()
        assert (after.table, after.miss) == (4, before.miss)
        assert sorted(after.rules.values()) == sorted(before.rules.values())
        world.a.send(packet(A, B))
        world.a.send(packet(A, B, 4))
        assert world.arrived() == {"b": [packet(A, B, 4)]}
        world.driver.close()
    world.open()
    (held,) = world.driver.tables()
    (drop,) = (entry for entry, rule in held.rules.items() if rule.cookie == 5)
    world.driver.delete_rule(4, drop)
    world.a.send(packet(A, B))
    assert world.arrived() == {"b": [packet(A, B)]}
    world.driver.insert_rule(4, held.rules[drop])
    world.a.send(packet(A, B))
    assert world.arrived() == {}
    world.driver.destroy()
