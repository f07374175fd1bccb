"""Time-outs and strictness from the configuration, at start and on SIGHUP."""

from pathlib import Path

import frames as f
import pytest
from datapath_bench import PEER4, PORT, VM4, Bench
from oslo_config import cfg

from vnet_agent import config
from vnet_agent.datapath import _flowcache as c
from vnet_agent.datapath.base import FlowFilter
from vnet_agent.datapath.memory import MemoryDriver
from vnet_agent.datapath.settings import option_name
from vnet_agent.exceptions import DatapathError


def configured(**options: int | str) -> cfg.ConfigOpts:
    conf = config.load([])
    for name, value in options.items():
        conf.set_override(name, value, group="datapath")
    return conf


def configure(bench: Bench, **options: int | str) -> None:
    bench.driver._conf = configured(**options)
    bench.driver.configure()


def test_each_state_has_an_option_with_the_default_of_the_core() -> None:
    conf = configured()
    lasting = [(state, s) for state, s in zip(c.STATES, c.STATE_SECONDS, strict=True) if s]
    assert len(lasting) == 10
    for state, seconds in lasting:
        assert conf.datapath[option_name(state)] == seconds
    driver, plain = MemoryDriver(configured(half_open_limit=0)), MemoryDriver()
    driver.open()
    plain.open()
    assert driver.native.settings_get() == plain.native.settings_get()


@pytest.mark.parametrize("value", [0, 432_001, "soon"])
def test_values_outside_of_the_bounds_are_refused(value: object, tmp_path: Path) -> None:
    file = tmp_path / "agent.conf"
    file.write_text(f"[datapath]\ntimeout_established = {value}\n")
    with pytest.raises(cfg.Error, match="timeout_established"):
        config.load(["--config-file", str(file)])


def test_a_connection_lasts_as_long_as_the_option_says() -> None:
    bench = Bench()
    configure(bench, timeout_unreplied=7, timeout_established=100)
    bench.out(f.ipv4(VM4, PEER4, f.UDP, f.udp(4000, 53)))
    bench.handshake_out()
    lives = {item.state: item.remaining_ms for item in bench.driver.connections(PORT)}
    assert lives == {"unreplied": 7_000, "established": 100_000}
    bench.sleep(7)
    assert bench.states() == ["established"]
    bench.sleep(93)
    assert bench.states() == []


def test_a_change_counts_from_the_next_frame_on() -> None:
    bench = Bench()
    bench.handshake_out()
    configure(bench, timeout_established=50)
    assert bench.driver.connections(PORT)[0].remaining_ms == 432_000_000
    bench.tcp_out(5000, 443, f.ACK)
    assert bench.driver.connections(PORT)[0].remaining_ms == 50_000
    bench.sleep(20)
    (flow,) = bench.driver.flows(PORT, match=FlowFilter(), limit=5).flows
    assert flow.idle_ms == 20_000
    # Nor does a record bring a longer life along than the option here gives.
    records = bench.records()
    there = Bench()
    configure(there, timeout_established=5)
    there.driver.import_records(PORT, records)
    assert there.driver.connections(PORT)[0].remaining_ms == 5_000


def test_strictness_is_an_option() -> None:
    for choice, reason in (("liberal", ""), ("strict", "tcp-window"), ("liberal", "")):
        bench = Bench()
        configure(bench, tcp_window=choice)
        bench.handshake_out()
        far = f.tcp(443, 5000, f.ACK, seq=1 << 31)
        assert bench.into(f.ipv4(PEER4, VM4, f.TCP, far)) == reason


def test_settings_that_mean_nothing_change_nothing() -> None:
    bench = Bench()
    before = bench.native.settings_get()
    for bad in (b"", before[:-1], bytes(len(before))):
        with pytest.raises(ValueError, match=r"settings have|lasts 0"):
            bench.native.settings_put(bad)
    assert bench.native.settings_get() == before
    bench.driver.close()
    with pytest.raises(DatapathError, match="not open"):
        bench.driver.configure()
