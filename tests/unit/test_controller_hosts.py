"""Hosts, their health, the policy that they wait for, and the groups it is made of."""

import asyncio
from typing import Any

import pytest
from controller_support import (
    VM,
    call,
    make_event,
    make_port,
    post_events,
    run_controller,
    run_server,
    wait_until,
)

BEAT = {
    "version": "1.0",
    "epoch": 3,
    "migration_url": "http://10.0.0.1:7471",
    "started": "2026-03-01T00:00:00Z",
    "datapath": {"driver": "ebpf"},
}
GROUP = {
    "established": "keep",
    "applies_to": ["*"],
    "rules": [{"direction": "ingress", "protocol": "tcp", "ports": "80-443"}],
}


async def test_a_heartbeat_makes_a_host(tmp_path: Any) -> None:
    async with run_controller(tmp_path) as session:
        answer = await call(session, "PUT", "/v1/hosts/alpha", json=BEAT)
        assert answer == {"policy_revision": 0}
        await call(session, "PUT", "/v1/hosts/alpha", json=BEAT | {"version": "1.1"})
        await call(session, "PUT", "/v1/hosts/alpha/ports", json={"ports": [make_port()]})
        [host] = (await call(session, "GET", "/v1/hosts"))["hosts"]
        assert (host["name"], host["state"], host["version"]) == ("alpha", "up", "1.1")
        assert (host["instances"], host["ports"]) == (1, 1)
        assert host["datapath"] == BEAT["datapath"]
        instance = await call(session, "GET", f"/v1/instances/{VM}")
        assert instance["migration_url"] == BEAT["migration_url"]
        assert instance["host_state"] == "up"


async def test_a_silent_host_is_down(tmp_path: Any) -> None:
    async with run_controller(tmp_path, host_timeout=0.5) as session:
        await call(session, "PUT", "/v1/hosts/alpha", json=BEAT)

        async def is_down() -> bool:
            return (await call(session, "GET", "/v1/hosts/alpha"))["state"] == "down"

        await wait_until(is_down)
        await call(session, "PUT", "/v1/hosts/alpha", json=BEAT)
        assert (await call(session, "GET", "/v1/hosts/alpha"))["state"] == "up"


async def test_a_host_can_be_forgotten(tmp_path: Any) -> None:
    async with run_controller(tmp_path) as session:
        await call(session, "PUT", "/v1/hosts/alpha", json=BEAT)
        await call(session, "PUT", "/v1/hosts/alpha/ports", json={"ports": [make_port()]})
        await call(session, "DELETE", "/v1/hosts/alpha", 204)
        await call(session, "GET", "/v1/hosts/alpha", 404)
        await call(session, "DELETE", "/v1/hosts/alpha", 404)
        assert (await call(session, "GET", "/v1/ports"))["ports"] == []


async def test_a_bad_heartbeat_is_refused_by_field(tmp_path: Any) -> None:
    async with run_controller(tmp_path) as session:
        for field, value in (
            ("epoch", -1),
            ("epoch", 2**64),
            ("started", "now"),
            ("version", "\0"),
            ("datapath", 5),
        ):
            body = BEAT | {field: value}
            problem = await call(session, "PUT", "/v1/hosts/alpha", 400, json=body)
            assert problem["field"] == field
        await call(session, "PUT", "/v1/hosts/..%2Fx", 400, json=BEAT)
        assert (await call(session, "GET", "/v1/hosts"))["hosts"] == []


async def test_groups_come_and_go_with_revisions(tmp_path: Any) -> None:
    async with run_controller(tmp_path) as session:
        made = await call(session, "PUT", "/v1/groups/web", 201, json=GROUP)
        assert made["revision"] == 1
        assert made["group"]["rules"][0]["ports"] == [80, 443]
        assert (await call(session, "PUT", "/v1/groups/web", json=GROUP))["revision"] == 1
        changed = GROUP | {"established": "recheck"}
        assert (await call(session, "PUT", "/v1/groups/web", json=changed))["revision"] == 2
        got = await call(session, "GET", "/v1/groups/web")
        assert got["group"]["established"] == "recheck"
        assert await call(session, "GET", "/v1/groups") == {
            "revision": 2,
            "groups": [got["group"]],
        }
        assert await call(session, "DELETE", "/v1/groups/web") == {"revision": 3}
        await call(session, "DELETE", "/v1/groups/web", 404)
        await call(session, "GET", "/v1/groups/web", 404)


async def test_a_bad_group_is_refused_and_the_old_one_stays(tmp_path: Any) -> None:
    async with run_controller(tmp_path) as session:
        await call(session, "PUT", "/v1/groups/web", 201, json=GROUP)
        bad: list[tuple[dict[str, Any], str]] = [
            ({"rules": [{"direction": "sideways"}]}, "$.rules[0].direction"),
            ({"rules": [{"direction": "egress", "remote": "10.0.0.0/99"}]}, "$.rules[0].remote"),
            ({"applies_to": ["everyone"]}, "$.applies_to[0]"),
            ({"name": "other"}, "$.name"),
        ]
        for change, where in bad:
            problem = await call(session, "PUT", "/v1/groups/web", 422, json=GROUP | change)
            assert problem["where"] == where
        kept = await call(session, "GET", "/v1/groups/web")
        assert (kept["revision"], kept["group"]["established"]) == (1, "keep")


async def test_groups_are_limited_to_what_hosts_take(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vnet_controller.api.groups.MAX_GROUPS", 1)
    async with run_controller(tmp_path) as session:
        await call(session, "PUT", "/v1/groups/web", 201, json=GROUP)
        await call(session, "PUT", "/v1/groups/db", 409, json=GROUP)
        await call(session, "PUT", "/v1/groups/web", json=GROUP | {"established": "recheck"})


async def test_policy_is_waited_for(tmp_path: Any) -> None:
    async with run_controller(tmp_path) as session:
        path = "/v1/hosts/alpha/policy"
        assert await call(session, "GET", path) == {
            "revision": 0,
            "groups": [],
            "members": {},
        }
        waiting = asyncio.create_task(call(session, "GET", f"{path}?after=0&wait=60"))
        await call(session, "PUT", "/v1/groups/web", 201, json=GROUP)
        answer = await asyncio.wait_for(waiting, 20)
        assert (answer["revision"], answer["groups"][0]["name"]) == (1, "web")
        assert answer["groups"][0] == {
            "name": "web",
            **GROUP,
            "rules": [{"direction": "ingress", "protocol": "tcp", "ports": [80, 443]}],
        }
        # Nothing new: the same revision again after the wait.
        again = await call(session, "GET", f"{path}?after=1&wait=0")
        assert again["revision"] == 1
        # A revision that never was comes from another database; the host must not wait for it.
        ahead = call(session, "GET", f"{path}?after=70&wait=60")
        assert (await asyncio.wait_for(ahead, 20))["revision"] == 1


async def test_a_waiting_host_is_answered_when_the_controller_stops(tmp_path: Any) -> None:
    async with run_server(tmp_path) as (server, session):
        path = "/v1/hosts/alpha/policy?after=0&wait=60"
        waiting = asyncio.create_task(call(session, "GET", path))
        await asyncio.sleep(0)
        server.services.revision.close()
        assert (await asyncio.wait_for(waiting, 20))["revision"] == 0


async def test_revisions_survive_a_restart(tmp_path: Any) -> None:
    async with run_controller(tmp_path) as session:
        await call(session, "PUT", "/v1/groups/web", 201, json=GROUP)
    async with run_controller(tmp_path) as session:
        answer = await call(session, "PUT", "/v1/hosts/alpha", json=BEAT)
        assert answer == {"policy_revision": 1}
        policy = await call(session, "GET", "/v1/hosts/alpha/policy?after=0&wait=60")
        assert policy["revision"] == 1


async def test_instances_are_paged_and_narrowed(tmp_path: Any) -> None:
    async with run_controller(tmp_path) as session:
        events = [make_event(subject=f"vm-{n}", host=f"h{n % 2}") for n in range(5)]
        await post_events(session, *events, make_event("stopped", "h0", subject="vm-0"))
        page = await call(session, "GET", "/v1/instances?limit=3")
        rest = await call(session, "GET", f"/v1/instances?limit=3&after={page['next']}")
        uuids = [i["uuid"] for i in page["instances"] + rest["instances"]]
        assert (uuids, rest["next"]) == ([f"vm-{n}" for n in range(5)], None)
        some = await call(session, "GET", "/v1/instances?host=h0&state=running")
        assert [i["uuid"] for i in some["instances"]] == ["vm-2", "vm-4"]
        await call(session, "GET", "/v1/instances?hots=h0", 400)
