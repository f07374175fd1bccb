"""Who may talk to an agent, and what it makes of requests that are wrong."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
from migration_hosts import (
    INSTANCE,
    PORT,
    PORTS,
    FakeController,
    Host,
    Hosts,
    migrate,
    precopy,
    two_hosts,
    until,
)

from vnet_agent import config, exceptions
from vnet_agent.migration import destination, tls, wire
from vnet_agent.model.migration import Phase
from vnet_agent.model.port import Role

OPEN = {"session": "s1", "instance": INSTANCE, "destination": "b", "versions": [1]}


@pytest.fixture
async def hosts(tmp_path: Path) -> AsyncIterator[Hosts]:
    async with two_hosts(tmp_path) as pair:
        yield pair


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def problem(response: aiohttp.ClientResponse) -> tuple[int, str]:
    assert response.content_type == "application/problem+json"
    body = await response.json(content_type=None)
    assert body["status"] == response.status
    return response.status, body["detail"]


async def test_locate(hosts: Hosts, http: aiohttp.ClientSession) -> None:
    a, b = hosts
    async with http.get(f"{a.url}/v1/locate/{INSTANCE}") as response:
        body = await response.json()
    assert body == {"instance": INSTANCE, "host": "a", "url": a.url, "generation": 1}
    async with http.get(f"{b.url}/v1/locate/{INSTANCE}") as response:
        assert (await problem(response))[0] == 404


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"versions": [4, 99]}, 406),
        ({"versions": "1"}, 400),
        ({"session": "../../etc/passwd"}, 400),
        ({"session": ""}, 400),
        ({"destination": "b\n"}, 400),
        ({"instance": "unknown"}, 404),
        ({"instance": None}, 400),
        ({"padding": "x" * 200_000}, 413),
    ],
)
async def test_wrong_requests(
    hosts: Hosts, http: aiohttp.ClientSession, change: dict[str, Any], status: int
) -> None:
    a, _ = hosts
    async with http.post(f"{a.url}/v1/sessions", json={**OPEN, **change}) as response:
        assert (await problem(response))[0] == status
    assert a.migrations.reports() == []


async def test_requests_for_no_session(hosts: Hosts, http: aiohttp.ClientSession) -> None:
    a, _ = hosts
    url = f"{a.url}/v1/sessions/nobody"
    for method, path in (
        ("GET", "/stream"),
        ("POST", "/finalize"),
        ("POST", "/imported"),
        ("POST", "/active"),
        ("DELETE", ""),
    ):
        async with http.request(method, url + path) as response:
            assert (await problem(response))[0] == 404
    async with http.get(f"{a.url}/nothing") as response:
        assert (await problem(response))[0] == 404


async def test_open_is_idempotent_but_not_for_others(
    hosts: Hosts, http: aiohttp.ClientSession
) -> None:
    a, _ = hosts
    answers = []
    for _ in range(2):
        async with http.post(f"{a.url}/v1/sessions", json=OPEN) as response:
            answers.append(await response.json())
    assert answers[0] == answers[1]
    assert answers[0]["generation"] == 1
    assert [port["uuid"] for port in answers[0]["ports"]] == [port.uuid for port in PORTS]
    async with http.post(f"{a.url}/v1/sessions", json={**OPEN, "destination": "c"}) as response:
        assert (await problem(response))[0] == 409
    assert len(a.migrations.reports()) == 1


async def test_a_newer_stream_ends_the_older_one(
    hosts: Hosts, http: aiohttp.ClientSession
) -> None:
    a, _ = hosts
    async with http.post(f"{a.url}/v1/sessions", json=OPEN):
        pass
    url = f"{a.url}/v1/sessions/s1/stream"
    async with http.get(url, params={"attempt": "x"}) as response:
        assert (await problem(response))[0] == 400
    async with http.get(url) as old, http.get(url, params={"attempt": "1"}) as new:
        decoder = wire.Decoder()
        with pytest.raises(exceptions.RecordError, match="ends before"):
            await asyncio.wait_for(read_all(old, wire.Decoder()), 5)
        while not any(isinstance(f, wire.RoundEnd) for f in await read_some(new, decoder)):
            pass
        assert decoder.hello is not None
        assert decoder.hello.attempt == 1
        assert a.phase is Phase.PRECOPY


async def read_some(response: aiohttp.ClientResponse, decoder: wire.Decoder) -> list[wire.Frame]:
    return decoder.feed(await response.content.readany())


async def read_all(response: aiohttp.ClientResponse, decoder: wire.Decoder) -> None:
    async for data in response.content.iter_any():
        decoder.feed(data)
    decoder.finish()


async def test_slow_reader_holds_the_export_back(
    monkeypatch: pytest.MonkeyPatch, hosts: Hosts, http: aiohttp.ClientSession
) -> None:
    """The source takes from the datapath only what the network takes from it."""
    a, _ = hosts
    chunks = 0

    def export(port: str, *, since: int = 0) -> Iterator[bytes]:
        nonlocal chunks
        for _ in range(400):
            chunks += 1
            yield bytes(1 << 18)

    monkeypatch.setattr(a.driver, "export", export)
    async with http.post(f"{a.url}/v1/sessions", json=OPEN):
        pass
    async with http.get(f"{a.url}/v1/sessions/s1/stream"):
        before = 0
        while before == 0 or before != chunks:
            before = chunks
            await asyncio.sleep(0.1)
        assert chunks < 100


async def test_refused_destination(monkeypatch: pytest.MonkeyPatch, hosts: Hosts) -> None:
    """The other side speaks no common version: the port is armed, without state."""
    _, b = hosts
    monkeypatch.setattr(destination.wire, "VERSIONS", (7,))
    monkeypatch.setattr("vnet_agent.migration.wire.negotiate", lambda offered: None)
    await b.hook()
    await until(lambda: b.report.error)
    assert "no common version" in str(b.report.error)
    assert b.roles == {Role.STANDBY}


# -- TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def certify(host: Host, authority: trustme.CA, directory: Path, *names: str) -> None:
    directory.mkdir(exist_ok=True)
    certificate = authority.issue_cert(*names)
    files = {"cert_file": "cert.pem", "key_file": "key.pem", "ca_file": "ca.pem"}
    paths = {option: directory / name for option, name in files.items()}
    certificate.cert_chain_pems[0].write_to_path(paths["cert_file"])
    certificate.private_key_pem.write_to_path(paths["key_file"])
    authority.cert_pem.write_to_path(paths["ca_file"])
    host.options.update({option: str(path) for option, path in paths.items()})


@pytest.fixture
async def secure(tmp_path: Path, authority: trustme.CA) -> AsyncIterator[Hosts]:
    controller = FakeController()
    hosts = [Host(name, tmp_path / name, controller) for name in ("a", "b")]
    for host in hosts:
        certify(host, authority, tmp_path / f"{host.name}-pki", host.name)
        await host.start()
    hosts[0].run_guest()
    yield hosts[0], hosts[1]
    for host in hosts:
        await host.kill()


async def test_migration_over_mutual_tls(secure: Hosts) -> None:
    a, b = secure
    assert a.url.startswith("https://")
    a.driver.change(PORT, 1)
    await migrate(a, b)
    assert b.driver.keys() == {1}


async def test_no_certificate_no_answer(secure: Hosts, http: aiohttp.ClientSession) -> None:
    a, _ = secure
    anyone = ssl.create_default_context()
    anyone.check_hostname = False
    anyone.verify_mode = ssl.CERT_NONE
    with pytest.raises((aiohttp.ClientError, OSError)):
        async with http.get(f"{a.url}/v1/locate/{INSTANCE}", ssl=anyone) as response:
            await response.read()


async def test_session_belongs_to_the_certificate(
    secure: Hosts, authority: trustme.CA, tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    """Host c, with a good certificate, cannot have what goes to b."""
    a, b = secure
    await precopy(a, b)
    c = ssl.create_default_context()
    authority.configure_trust(c)
    authority.issue_cert("c").configure_cert(c)
    asked: dict[str, Any] = {"ssl": c, "server_hostname": "a"}
    url = f"{a.url}/v1/sessions"
    async with http.post(url, json=OPEN, **asked) as response:
        assert await problem(response) == (403, "the certificate is not that of b")
    async with http.post(url, json={**OPEN, "destination": "c"}, **asked) as response:
        assert response.status == 200
    async with http.delete(f"{url}/{b.report.id}", **asked) as response:
        assert (await problem(response))[0] == 403


async def test_source_must_be_who_the_controller_says(
    secure: Hosts, authority: trustme.CA, tmp_path: Path
) -> None:
    a, b = secure
    await a.kill()
    certify(a, authority, tmp_path / "a-pki", "mallory")
    await a.start()
    b.migrations._context.conf.set_override("prepare_timeout", 0.3, group="migration")
    await b.hook()
    await until(lambda: "ertificate" in b.report.steps[-1].detail)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"listen_address": "192.0.2.1"}, "not loopback"),
        ({"listen_address": "0.0.0.0", "advertise_url": "http://h:1"}, "not loopback"),
        ({"listen_address": "0.0.0.0", "insecure": True}, "advertise_url"),
        ({"listen_address": "::", "insecure": True}, "advertise_url"),
        ({"cert_file": "/tmp/x.pem"}, "key_file, ca_file must be set"),
        ({"cert_file": "/no", "key_file": "/no", "ca_file": "/no"}, "certificates"),
        ({"listen_address": "127.0.0.1", "listen_port": 1 << 15 | 1}, None),
    ],
)
async def test_start_refused(options: dict[str, Any], said: str | None, tmp_path: Path) -> None:
    host = Host("a", tmp_path, FakeController(), **options)
    if said is None:
        await host.start()
        other = Host("b", tmp_path / "b", FakeController(), **options)
        with pytest.raises(exceptions.VnetError, match="cannot listen"):
            await other.start()
        await other.kill()
    else:
        with pytest.raises(exceptions.ConfigError, match=said):
            await host.start()
    await host.kill()


async def test_insecure_is_said_explicitly(tmp_path: Path) -> None:
    host = Host(
        "a",
        tmp_path,
        FakeController(),
        listen_address="0.0.0.0",
        advertise_url="http://compute1:7471",
        insecure=True,
    )
    await host.start()
    assert host.migrations.url == "http://compute1:7471"
    await host.kill()


@pytest.mark.parametrize(
    ("url", "fine"),
    [
        ("http://127.0.0.1:1", True),
        ("http://[::1]:1", True),
        ("http://localhost:1", True),
        ("http://192.0.2.1:7471", False),
        ("http://compute2:7471", False),
        ("https://192.0.2.1:7471", False),
        ("file:///etc/shadow", False),
        ("nonsense", False),
    ],
)
def test_urls_without_certificates(url: str, fine: bool, tmp_path: Path) -> None:
    conf = config.load([], host="a", state_dir=str(tmp_path))
    if fine:
        tls.check_url(conf, url)
    else:
        with pytest.raises(exceptions.VnetError):
            tls.check_url(conf, url)
