"""`vnetctl capture` on real taps, read with tshark: who sent a frame, and what became of it."""

import json
import signal
import subprocess
import sys

import frames as f
from capture_world import B4, MAC_B, A, B, CaptureWorld, Taps, dissect, finish, words
from datapath_bench import INSTANCE, VM, VM4
from datapath_world import eventually, private

from vnet_agent.datapath import _flowcache as c
from vnet_agent.datapath import layout
from vnet_agent.datapath.captured import CaptureRequest
from vnet_agent.datapath.ebpf import EbpfDriver
from vnet_agent.model.policy import DENY_ALL


def udp(number: int, *, source: str = VM4, mac: str = VM, payload: bytes = b"") -> bytes:
    packet = f.ipv4(source, B4, f.UDP, f.udp(1000 + number, 7, payload))
    return f.ether(mac, MAC_B, f.IPV4, packet)


@private
def test_capture_names_the_vm_and_the_verdict(bpffs: str) -> None:
    world = CaptureWorld(bpffs)
    process, path = world.begin()
    world.taps.a.send(udp(1))
    assert world.taps.b.receive() == udp(1)
    world.taps.a.send(udp(2, source="10.0.0.77"))
    process.send_signal(signal.SIGINT)
    assert finish(process) == "3 frames captured, 0 lost\n"
    sent, delivered, spoofed = dissect(path)
    assert sent[:3] == spoofed[:3] == ["tap1", "42", "42"]
    assert words(sent[3]) == {
        "instance": INSTANCE,
        "port": A,
        "direction": "egress",
        "verdict": "pass",
        "action": "forward",
    }
    assert delivered[0] == "tap2"
    assert words(delivered[3]) == {
        "instance": INSTANCE,
        "port": B,
        "direction": "ingress",
        "verdict": "pass",
        "action": "deliver",
    }
    assert words(spoofed[3]) == {
        "instance": INSTANCE,
        "port": A,
        "direction": "egress",
        "verdict": "drop",
        "action": "drop",
        "reason": "ip-spoof",
    }
    found = dissect(path, "-Y", 'frame.comment contains "reason=ip-spoof"', fields=("ip.src",))
    assert found == [["10.0.0.77"]]
    assert world.is_quiet()
    world.stop()


@private
def test_capture_tells_what_the_receiver_refuses(bpffs: str) -> None:
    """The sender's program judges for both ports here; each has a frame of its own to show."""
    taps = Taps(bpffs)
    taps.driver.set_policy(B, DENY_ALL)
    running = taps.driver.capture([A, B], CaptureRequest(), size=1 << 18)
    taps.a.send(udp(1))
    assert taps.b.drain() == []
    seen = [(x.port, x.egress, x.verdict, x.reason, x.data) for x in running.read()]
    assert seen == [
        (A, True, "forward", None, udp(1)),
        (B, False, "drop", "policy", udp(1)),
    ]
    running.close()
    running = taps.driver.capture([B], CaptureRequest(drops_only=True), size=1 << 18)
    taps.a.send(udp(2))
    assert [frame.data for frame in running.read()] == [udp(2)]
    running.close()
    taps.driver.destroy()


@private
def test_capture_as_a_pipe_into_tshark(bpffs: str) -> None:
    world = CaptureWorld(bpffs)
    process = world.ctl("capture", "tap1", "--drops-only", "--count", "2", stdout=subprocess.PIPE)
    shark = subprocess.Popen(
        ["tshark", "-n", "-r", "-", "-T", "fields", "-e", "frame.comment"],
        stdin=process.stdout,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    world.wait_running()
    for number in range(5):
        world.taps.a.send(udp(number))
        world.taps.a.send(udp(number, mac="52:54:00:00:00:99"))
    seen, errors = shark.communicate(timeout=60)
    assert shark.returncode == 0, errors
    assert [words(line)["reason"] for line in seen.splitlines()] == ["mac-spoof"] * 2
    assert finish(process).startswith("2 frames captured, 0 lost")
    world.stop()


@private
def test_capture_ends_when_its_reader_goes(bpffs: str) -> None:
    """A closed pipe between two frames, and a vnetctl that is killed."""
    world = CaptureWorld(bpffs)
    process = world.ctl("capture", stdout=subprocess.PIPE)
    world.wait_running()
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    assert finish(process) == ""
    eventually(world.is_quiet, "the capture has ended")
    process, path = world.begin("tap1")
    second = world.ctl("capture", stdout=subprocess.PIPE)
    assert b"one at a time" in second.communicate(timeout=20)[1]
    assert second.returncode == 1
    process.kill()
    process.wait()
    eventually(world.is_quiet, "the capture has ended")
    assert dissect(path) == []
    world.stop()


@private
def test_capture_of_tagged_cut_and_unfinished_frames(bpffs: str) -> None:
    world = CaptureWorld(bpffs)
    process, path = world.begin("tap1", "--snap", "0")
    tagged = f.ether(VM, MAC_B, f.VLAN, b"\0\5\x08\0" + f.ipv4(VM4, B4, f.UDP, f.udp(1, 2)))
    world.taps.a.send(tagged)
    opening = f.ether(VM, MAC_B, f.IPV4, f.ipv4(VM4, B4, f.TCP, f.tcp(999, 80, f.SYN)))
    world.taps.a.send(opening)
    segment = f.ether(
        VM, MAC_B, f.IPV4, f.ipv4(VM4, B4, f.TCP, f.tcp(999, 80, f.ACK, bytes(60000)))
    )
    # As a guest leaves it: the sum of the pseudo-header, to be finished by whoever cuts.
    total = sum(int.from_bytes(segment[at : at + 2], "big") for at in range(26, 34, 2))
    total += 6 + 20 + 60000
    total = (total & 0xFFFF) + (total >> 16)
    segment = segment[:50] + total.to_bytes(2, "big") + segment[52:]
    world.taps.a.send_gso(segment, header=54, mss=1448, csum_start=34)
    process.send_signal(signal.SIGINT)
    finish(process)
    first, second, large = dissect(path, fields=("frame.comment", "vlan.id", "frame.cap_len"))
    assert (first[1], words(first[0])["reason"]) == ("5", "vlan")
    assert first[2] == str(len(tagged))
    assert "gso" not in words(second[0])
    assert large[2] == str(len(segment))
    assert words(large[0])["gso"] == "1448"
    assert words(large[0])["checksum"] == "unfinished"
    process, path = world.begin("tap1", "--direction", "egress", "--snap", "60", "--count", "1")
    world.taps.a.send(udp(1, payload=bytes(range(200))))
    finish(process)
    assert [row[1:3] for row in dissect(path)] == [["242", "60"]]
    world.stop()


@private
def test_capture_counts_what_it_loses(bpffs: str) -> None:
    world = CaptureWorld(bpffs, rate=100)
    process, path = world.begin("tap1")
    for number in range(1000):
        world.taps.a.send(udp(number))
    counts = world.taps.driver.counters(A)
    process.send_signal(signal.SIGINT)
    errors = finish(process)
    frames = len(dissect(path))
    assert 26 <= frames < 1000
    assert f"{frames} frames captured, {1000 - frames} lost" in errors
    assert f"over-rate {1000 - frames}" in errors
    # The frames themselves have not suffered.
    assert counts.tx_frames == 1000
    told = subprocess.run(
        ["capinfos", "-M", str(path)], capture_output=True, text=True, check=True
    ).stdout
    assert "Number of stat entries = 1" in told, told
    world.stop()


@private
def test_capture_loses_what_its_reader_leaves(bpffs: str) -> None:
    """In the driver: a ring that nobody reads fills up, and no frame waits for it."""
    taps = Taps(bpffs)
    running = taps.driver.capture([A], CaptureRequest(rate=1_000_000_000), size=1 << 18)
    for number in range(2000):
        taps.a.send(udp(number % 500))
    assert taps.driver.counters(A).tx_frames == 2000
    frames = []
    while batch := running.read():
        frames += batch
    counts = running.counts()[A]
    assert (counts.matched, counts.over) == (2000, 0)
    assert 0 < len(frames) == 2000 - counts.full < 2000
    assert [frame.data for frame in frames] == [udp(number % 500) for number in range(len(frames))]
    running.close()
    taps.driver.destroy()


CRASH = """
import os, signal, sys
from vnet_agent.datapath.captured import CaptureRequest
from vnet_agent.datapath.ebpf import EbpfDriver
driver = EbpfDriver(pin_dir=sys.argv[1], max_ports=8)
driver.open()
driver.capture([sys.argv[2]], CaptureRequest(), size=1 << 18)
os.kill(os.getpid(), signal.SIGKILL)
"""


@private
def test_capture_of_an_agent_that_died_ends_with_the_next(bpffs: str) -> None:
    taps = Taps(bpffs)
    taps.driver.close()
    subprocess.run([sys.executable, "-c", CRASH, taps.pin_dir, A], check=False)
    # Nobody runs: frames go on, and what is captured finds its bounds.
    for number in range(50):
        taps.a.send(udp(number))
    assert len(taps.b.drain()) == 50
    driver = taps.driver = EbpfDriver(pin_dir=taps.pin_dir, max_ports=8)
    driver.open()
    assert driver.counters(A).tx_frames == 50
    flags = [layout.number("port", "flags", data) for data in driver.kernel.ports()]
    assert not any(each & c.PORT_CAPTURED for each in flags)
    assert driver.kernel.table_items(c.TABLE_CAPTURES) == []
    assert "vnet_ring" not in maps_of(taps.pin_dir)
    running = driver.capture([A], CaptureRequest(), size=1 << 18)
    assert maps_of(taps.pin_dir).count("vnet_ring") == 1
    assert running.read() == []
    taps.a.send(udp(1))
    assert [frame.verdict for frame in running.read()] == ["forward"]
    running.close()
    assert "vnet_ring" not in maps_of(taps.pin_dir)
    driver.destroy()


def maps_of(pin_dir: str) -> list[str]:
    """Names of what the array of rings holds; an entry of it is the number of a map."""
    path = f"{pin_dir}/v{c.ABI_VERSION}/vnet_rings"
    told = subprocess.run(
        ["/usr/sbin/bpftool", "-j", "map", "dump", "pinned", path],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    names = []
    for entry in json.loads(told):
        value = entry.get("value")
        if isinstance(value, list):
            number = int.from_bytes(bytes(int(byte, 16) for byte in value), sys.byteorder)
            shown = subprocess.run(
                ["/usr/sbin/bpftool", "-j", "map", "show", "id", str(number)],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            names.append(json.loads(shown)["name"])
    return names
