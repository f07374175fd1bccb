"""Captures where frames change as they leave: what is kept is what the VM sent, and gets."""

import frames as f
import network_bench as n
import pytest
from network_bench import A4, A6, B4, B6, BLUE, BROADCAST, FAR, GREEN, RED, A, B

from vnet_agent.capture.pcapng import TaggedPort, Writer
from vnet_agent.datapath import _flowcache as c
from vnet_agent.datapath.captured import CaptureRequest


@pytest.fixture
def driver():
    return n.make_driver(answers=True)


def capture(driver, network: int, mac: str = A):
    return driver.capture([n.port_name(network, mac)], CaptureRequest(), size=1 << 16)


@pytest.mark.parametrize("question", [n.arp(A4, B4), n.solicit(A6, B6)])
def test_an_answer_is_told_from_what_is_forwarded(driver, question) -> None:
    running = capture(driver, RED)
    ((ifindex, reply),) = n.run(driver, n.tap(RED, A), question)
    assert driver.native.process(c.TO_PORT, ifindex, reply)[0] == c.PASS
    asked, told = running.read()
    assert (asked.egress, asked.verdict, asked.reason, asked.data) == (
        True,
        "answer",
        None,
        question,
    )
    assert (told.egress, told.verdict, told.data) == (False, "deliver", reply)
    port = TaggedPort(uuid=asked.port, instance="vm", tap="tap1", mac=A)
    written = Writer([port], host="h", snap=0).packet(asked)
    assert b"verdict=pass action=answer" in written


@pytest.mark.parametrize("target", [FAR, BROADCAST])
@pytest.mark.parametrize("network", [RED, BLUE, GREEN])
def test_a_frame_is_kept_without_the_tag_of_its_network(driver, network, target) -> None:
    running = capture(driver, network)
    frame = n.datagram(A, target)
    *_, (_, left) = n.run(driver, n.tap(network, A), frame)
    assert left[12:14] == b"\x81\0"
    (sent,) = running.read()
    assert (sent.verdict, sent.reason, sent.data) == ("forward", None, frame)


def test_what_comes_in_is_kept_without_it_too(driver) -> None:
    running = capture(driver, RED)
    frame = n.datagram(B, A)
    ((ifindex, left),) = n.run(driver, n.TRUNK, f.tagged(frame, 100))
    driver.native.process(c.TO_PORT, ifindex, left)
    (got,) = running.read()
    assert (got.egress, got.data) == (False, frame)
