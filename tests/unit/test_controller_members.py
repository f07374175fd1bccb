"""Members of groups over all hosts: who they are, who is told, and when."""

import asyncio
from typing import Any

from controller_support import call, make_port, run_controller, run_server

WEB = {"applies_to": ["project:acme"], "rules": []}
DB = {
    "applies_to": ["instance:db"],
    "rules": [{"direction": "ingress", "protocol": "tcp", "ports": 3306, "remote_group": "web"}],
}


def port(number: int, *addresses: str, **fields: Any) -> dict[str, Any]:
    uuid = f"0a7b6ad4-2222-4000-8000-{number:012}"
    return make_port(uuid=uuid, addresses=list(addresses), **fields)


async def put_groups(session: Any) -> None:
    db = DB | {"applies_to": [f"port:{port(9)['uuid']}"]}
    for name, group in (("web", WEB), ("db", db)):
        await call(session, "PUT", f"/v1/groups/{name}", 201, json=group)


async def put_ports(session: Any, host: str, *ports: dict[str, Any]) -> None:
    await call(session, "PUT", f"/v1/hosts/{host}/ports", json={"ports": ports})


async def test_a_host_learns_of_members_elsewhere_that_its_rules_ask_for(tmp_path: Any) -> None:
    async with run_controller(tmp_path) as session:
        await put_groups(session)
        await put_ports(session, "a", port(9, "10.0.0.9"))
        await put_ports(
            session,
            "b",
            port(1, "10.0.0.1", "2001:db8::1", project="acme"),
            port(2, "10.0.0.2", project="acme", network=7),
            port(3, "10.0.0.3", project="other"),
            port(4, "10.0.0.4", project="acme", role="moved"),
            port(5, "nonsense", project="acme"),
        )
        web = {"0": ["10.0.0.1", "2001:db8::1"], "7": ["10.0.0.2"]}
        answer = await call(session, "GET", "/v1/hosts/a/members")
        assert (answer["members"], answer["revision"]) == ({"web": web}, 2)
        policy = await call(session, "GET", "/v1/hosts/a/policy")
        assert policy["members"] == answer["members"]
        assert (await call(session, "GET", "/v1/hosts/b/members"))["members"] == {}
        assert (await call(session, "GET", "/v1/groups/web/members"))["members"] == web
        await call(session, "DELETE", "/v1/hosts/b", 404)  # it never sent a heartbeat
        assert (await call(session, "GET", "/v1/groups/web/members"))["members"] == {}


async def test_a_waiting_host_is_told_at_once_and_of_nothing_else(tmp_path: Any) -> None:
    async with run_controller(tmp_path) as session:
        await put_groups(session)
        await put_ports(session, "a", port(9, "10.0.0.9"))
        before = await call(session, "GET", "/v1/hosts/a/members")
        path = f"/v1/hosts/a/members?after={before['digest']}&wait=30"
        waiting = asyncio.create_task(call(session, "GET", path))
        await put_ports(session, "b", port(3, "10.0.0.3", project="other"))
        await asyncio.sleep(0.5)
        assert not waiting.done()
        await put_ports(session, "b", port(3, "10.0.0.3", project="acme"))
        after = await asyncio.wait_for(waiting, 20)
        assert after["members"] == {"web": {"0": ["10.0.0.3"]}}
        assert after["digest"] != before["digest"]


async def test_a_restart_knows_the_members(tmp_path: Any) -> None:
    async with run_controller(tmp_path) as session:
        await put_groups(session)
        await put_ports(session, "a", port(9, "10.0.0.9"))
        await put_ports(
            session,
            "b",
            port(1, "10.0.0.1", project="acme"),
            port(2, "10.0.0.2", project="acme", role="moved"),
        )
        before = await call(session, "GET", "/v1/hosts/a/members")
    async with run_server(tmp_path) as (_, session):
        assert await call(session, "GET", "/v1/hosts/a/members") == before


async def test_the_end_of_the_controller_ends_the_wait(tmp_path: Any) -> None:
    async with run_server(tmp_path) as (server, session):
        before = await call(session, "GET", "/v1/hosts/a/members")
        path = f"/v1/hosts/a/members?after={before['digest']}&wait=30"
        waiting = asyncio.create_task(call(session, "GET", path))
        await asyncio.sleep(0.1)
        server.services.membership.changed.close()
        assert await asyncio.wait_for(waiting, 20) == before
