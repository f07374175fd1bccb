"""GET /metrics of the agent: what Prometheus reads, whatever parts fail."""

import asyncio
import http.client
import socket
import threading

import datapath_bench as b
import frames as f
import msgspec
import pytest
from api_fakes import Migrations
from prometheus_client.parser import text_string_to_metric_families
from sight_agent import Agent

from vnet_agent import config
from vnet_agent.api.metrics import MetricsServer
from vnet_agent.datapath import flowcache
from vnet_agent.exceptions import DatapathError, JournalError, MetricsError
from vnet_agent.migration.totals import Totals
from vnet_agent.model.migration import Phase, Report

LABELS = {"port": b.PORT, "instance": b.INSTANCE, "tap": "tap1"}


@pytest.fixture
def agent(tmp_path, capsys):
    agent = Agent(tmp_path, capsys)
    yield agent
    agent.stop()


def scrape(agent):
    """Samples by name and labels."""
    connection = http.client.HTTPConnection("agent")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(agent.socket)
    connection.request("GET", "/metrics")
    answer = connection.getresponse()
    assert answer.status == 200
    assert answer.getheader("Content-Type") == "text/plain; version=0.0.4; charset=utf-8"
    text = answer.read().decode()
    connection.close()
    return parse(text)


def parse(text):
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(samples, name, **labels):
    return samples.get((name, frozenset(labels.items())))


def test_a_ports_figures(agent):
    packet = f.ipv4(b.VM4, b.PEER4, f.UDP, f.udp(1, 53))
    for _ in range(3):
        agent.bench.out(packet)
    agent.bench.tcp_in(1, 80, f.SYN)
    agent.bench.out(packet, source=b.PEER)
    samples = scrape(agent)
    for name, ingress, egress in (("frames", 1, 3), ("bytes", 54, 126)):
        name = f"vnet_port_{name}_total"
        assert value(samples, name, **LABELS, direction="ingress") == ingress
        assert value(samples, name, **LABELS, direction="egress") == egress
    assert value(samples, "vnet_port_drops_total", **LABELS, reason="mac-spoof") == 1
    assert value(samples, "vnet_port_connections", **LABELS) == 2
    assert value(samples, "vnet_port_connection_quota", **LABELS) == 100
    assert value(samples, "vnet_ports", role="active") == 1
    # Only what has happened: a reason costs a series for each port.
    assert sum(name == "vnet_port_drops_total" for name, _ in samples) == 1


def test_connections_are_counted_by_those_who_collect_them(agent):
    assert value(scrape(agent), "vnet_port_connections", **LABELS) == 0
    agent.bench.tcp_in(1, 80, f.SYN)
    agent.bench.out(f.ipv4(b.VM4, b.PEER4, f.UDP, f.udp(1, 53)))
    assert value(scrape(agent), "vnet_port_connections", **LABELS) == 0
    agent.bench.driver.collect()
    assert value(scrape(agent), "vnet_port_connections", **LABELS) == 2
    agent.bench.sleep(50)
    agent.bench.driver.collect()
    assert value(scrape(agent), "vnet_port_connections", **LABELS) == 1
    # A port in the place of another begins anew.
    agent.bench.driver.remove_port(b.PORT, generation=1)
    agent.bench.set_port(b.OTHER, mac=b.PEER)
    samples = scrape(agent)
    assert [v for (name, _), v in samples.items() if name == "vnet_port_connections"] == [0]


def test_the_agents_own(agent):
    samples = scrape(agent)
    (info,) = [dict(labels) for name, labels in samples if name == "vnet_agent_info"]
    assert info["host"] == "h1"
    assert value(samples, "vnet_journal_epoch") == agent.events.epoch
    assert value(samples, "vnet_journal_pending_events") == 0
    assert value(samples, "vnet_journal_last_event") == 0
    assert value(samples, "vnet_migrations", side="source", phase="done") == 1
    assert value(samples, "vnet_capture_running") == 0
    for part in ("datapath", "journal"):
        assert value(samples, "vnet_agent_part_failed", part=part) == 0
    # `status` says nothing of them here, and that is not "no".
    assert value(samples, "vnet_libvirt_connected") is None
    assert value(samples, "vnet_controller_connected") is None


def test_what_migrations_came_to(agent, monkeypatch):
    totals = Totals()
    monkeypatch.setattr(Migrations, "totals", totals)
    report = Report(
        id="m", instance="i", instance_name="vm", side="destination", source="a",
        destination="b", generation=2, phase=Phase.DONE, connections_moved=20,
        connections_refused={"quota": 3}, precopy_rounds=4, final_delta_ms=7.0,
        vcpu_pause_ms=150.0, network_gap_ms=None, frames_replayed=5, frames_lost=1,
    )  # fmt: skip
    totals.add(report)
    totals.add(msgspec.structs.replace(report, phase=Phase.ABORTED, vcpu_pause_ms=9000.0))
    samples = scrape(agent)
    assert value(samples, "vnet_migrations_finished_total", outcome="completed") == 1
    assert value(samples, "vnet_migrations_finished_total", outcome="failed") == 1
    assert value(samples, "vnet_migration_connections_moved_total") == 40
    assert value(samples, "vnet_migration_connections_refused_total", reason="quota") == 6
    assert value(samples, "vnet_migration_precopy_rounds_total") == 8
    assert value(samples, "vnet_migration_frames_total", outcome="replayed") == 10
    assert value(samples, "vnet_migration_frames_total", outcome="lost") == 2
    assert value(samples, "vnet_migration_frames_total", outcome="duplicated") == 0
    pause = "vnet_migration_vcpu_pause_seconds"
    assert value(samples, f"{pause}_sum") == 9.15
    for bound, count in (("0.1", 0), ("0.2", 1), ("5.0", 1), ("+Inf", 2)):
        assert value(samples, f"{pause}_bucket", le=bound) == count
    assert value(samples, "vnet_migration_network_gap_seconds_count") == 0


@pytest.mark.parametrize("is_up", [True, False])
def test_who_is_connected(agent, is_up):
    status = {"libvirt_connected": is_up, "controller": "u", "controller_reachable": is_up}
    services = agent.api._services
    object.__setattr__(services, "status", lambda: status)
    samples = scrape(agent)
    assert value(samples, "vnet_libvirt_connected") == is_up
    assert value(samples, "vnet_controller_connected") == is_up


def test_parts_that_fail_are_left_out(agent, monkeypatch):
    def fail(*_):
        raise DatapathError(operation="counters", detail="no")

    async def no_journal():
        raise JournalError(detail="no")

    monkeypatch.setattr(flowcache.FlowcacheDriver, "all_counters", fail)
    monkeypatch.setattr(agent.events, "pending", no_journal)
    samples = scrape(agent)
    for part in ("datapath", "journal"):
        assert value(samples, "vnet_agent_part_failed", part=part) == 1
    assert value(samples, "vnet_ports", role="active") == 1
    names = {name for name, _ in samples}
    assert not names & {"vnet_port_frames_total", "vnet_journal_pending_events"}


def test_scrapes_at_once_share_one_and_hold_nobody_up(agent, monkeypatch):
    driver, gate, calls = agent.bench.driver, threading.Event(), []
    real = driver.all_counters

    def slow():
        calls.append(1)
        assert gate.wait(20)
        return real()

    monkeypatch.setattr(driver, "all_counters", slow)

    async def scrape_twice():
        exporter = agent.api.exporter
        tasks = [asyncio.create_task(exporter.render()) for _ in range(5)]
        while not calls:  # noqa: ASYNC110
            await asyncio.sleep(0.001)  # the loop runs meanwhile
        tasks[0].cancel()  # whoever gives up takes nothing from the others
        await asyncio.sleep(0)
        gate.set()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        return done[1:], await exporter.render()

    shared, after = agent.run(scrape_twice())
    assert len(set(shared)) == 1
    assert len(calls) == 2
    assert parse(after.decode())


# -- on TCP


def test_metrics_on_tcp_and_nothing_else(agent):
    async def ask():
        server = MetricsServer(agent.api.exporter, "127.0.0.1:0")
        await server.start()
        address = server._runner.addresses[0]
        try:
            return await asyncio.to_thread(fetch, address)
        finally:
            await server.close()

    def fetch(address):
        answers = []
        for path in ("/metrics", "/v1/ports"):
            connection = http.client.HTTPConnection(*address)
            connection.request("GET", path)
            answer = connection.getresponse()
            answers.append((answer.status, answer.read()))
            connection.close()
        return answers

    (status, body), (other, _) = agent.run(ask())
    assert (status, other) == (200, 404)
    assert value(parse(body.decode()), "vnet_ports", role="active") == 1


def test_off_by_default_and_an_address_that_is_taken(agent):
    async def begin(listen):
        server = MetricsServer(agent.api.exporter, listen)
        try:
            await server.start()
            return server._runner
        finally:
            await server.close()

    assert agent.run(begin(config.load([]).metrics.listen)) is None
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(MetricsError, match=rf"{listen} .*in use"):
            agent.run(begin(listen))
    with pytest.raises(MetricsError, match="0-65535"):
        agent.run(begin("127.0.0.1:99999"))


@pytest.mark.parametrize("listen", ["9471", "host:9471", "::1:9471", "127.0.0.1", "*:1"])
def test_what_is_no_address_is_refused_at_start(tmp_path, listen):
    path = tmp_path / "agent.conf"
    path.write_text(f"[metrics]\nlisten = {listen}\n")
    with pytest.raises(Exception, match="listen"):
        config.load(["--config-file", str(path)])
