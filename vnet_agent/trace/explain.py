"""A run of the datapath in the operator's words: groups, numbers, and what to look at."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from vnet_agent.datapath import _flowcache as c
from vnet_agent.datapath.base import Exit, Flow, Run
from vnet_agent.datapath.compiler import digest
from vnet_agent.model.policy import Established, Group, Policy
from vnet_agent.model.port import Role

_SPOOF = (
    "mac-spoof",
    "ip-spoof",
    "arp-spoof",
    "nd-spoof",
    "router-advert",
    "dhcp-server",
    "other-mac",
    "other-address",
)
#: Reasons of a frame that never came to the check of its source.
_EARLIER = ("malformed", "vlan", "ethertype", "fragment", "extension", "tcp-flags", "no-policy")


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of Run, with rules and exits by name; see there.

    Each of `tables` is one of the operator's that the frame came to: its `rule` there, as
    `vnetctl table show` names it, or what a `miss` does. `spoof` is `passed`, `not reached`, or
    the reason for which the frame is refused. Each of `rules` names `group` and `number` as
    `vnetctl rule list` does (both null for a port that no group applies to), and the rule itself.
    """

    port: str
    direction: str
    verdict: str
    reason: str | None
    parsed: str
    packet: dict[str, str | int]
    spoof: str
    cache: str
    connection: Flow | None
    then: str
    tables: list[dict[str, Any]]
    rules: list[dict[str, Any]]
    out: tuple[Exit, ...]
    notes: list[str]
    frame: str


def explain(
    run: Run,
    *,
    port: str,
    egress: bool,
    frame: bytes,
    policy: Policy,
    groups: Sequence[Group],
    rule_of: Callable[[int, int], int | None] = lambda table, driver_id: None,
) -> Trace:
    """`policy` and `groups` are what should be in force on the port: the store's. `rule_of` names
    a rule of the operator's by its table and the driver's id."""
    notes = _notes(run, egress=egress, policy=policy)
    known = run.digest == digest(policy)
    if run.digest is not None and not known:
        notes.append("the datapath has another policy than the agent; rules cannot be named")
    return Trace(
        port=port,
        direction="egress" if egress else "ingress",
        verdict=run.verdict,
        reason=run.reason,
        parsed=run.parsed or "whole",
        packet=run.packet,
        spoof=_spoof(run, egress=egress),
        cache=run.cache,
        connection=run.connection,
        then=run.then,
        tables=[
            {
                "table": step.table,
                "rule": None if step.rule is None else rule_of(step.table, step.rule),
                "miss": step.miss,
            }
            for step in run.tables
        ],
        rules=[place for number in run.rules for place in _places(number, policy, groups)]
        if known
        else [],
        out=run.out,
        notes=notes,
        frame=frame[:128].hex(),
    )


def _spoof(run: Run, *, egress: bool) -> str:
    if run.reason in _SPOOF:
        return run.reason
    if run.reason in _EARLIER:
        return "not reached"
    return "passed"


def _places(number: int, policy: Policy, groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Everywhere the rule stands: a port's policy holds equal rules of several groups once."""
    rule = policy.rules[number]
    shown = msgspec.to_builtins(rule)
    places = [
        {"group": group.name, "number": index, **shown}
        for group in groups
        for index, other in enumerate(group.rules, 1)
        if other == rule
    ]
    return places or [{"group": None, "number": None, **shown}]


def _notes(run: Run, *, egress: bool, policy: Policy) -> list[str]:
    notes = []
    if not run.port_security:
        return ["port security is off: neither sources nor policy are checked"]
    if egress and not run.addresses_known:
        notes.append("the port's addresses are not known: only MACs are checked")
    if egress and run.cache == "hit":
        notes.append("the source address was checked when the connection was admitted")
    if not egress and run.role is not Role.ACTIVE:
        notes.append(
            f"the port is {run.role}: frames for its MAC go to the uplink, not to its tap"
        )
    if run.reason == "no-connection" and run.rules:
        notes.append("a rule admits it as begun by one end, but TCP in mid-stream needs both")
    unruled = run.reason is None and not run.rules
    if run.cache == "stale" and unruled and policy.established is Established.KEEP:
        notes.append("no rule admits it any more; `established: keep` lets it live")
    if run.then.startswith("begins") and run.connections >= run.quota:
        notes.append(
            f"the table is full ({run.connections} of {run.quota}): unless the kernel finds room "
            "in it, the frame is dropped as quota"
        )
    if unruled and run.cache in ("none", "miss"):
        notes.append("it needs no rule: ARP, discovery, DHCP or the like; see doc/policy.md")
    if len(run.out) >= c.MAX_OUT:
        notes.append(f"only the first {c.MAX_OUT} copies are listed")
    return notes
