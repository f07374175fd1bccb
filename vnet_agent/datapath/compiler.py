"""From a Policy to the tuples and rules that csrc/core/classify.h probes."""

import hashlib
import ipaddress
from collections.abc import Callable, Iterator

import msgspec

from vnet_agent.datapath import layout
from vnet_agent.datapath._flowcache import (
    MAX_TUPLES,
    POLICY_KEEP,
    TUPLE_FAMILY,
    TUPLE_GROUP,
    TUPLE_PROTO,
)
from vnet_agent.exceptions import PolicyError
from vnet_agent.model.policy import Direction, Established, Policy, Rule
from vnet_agent.model.protocols import NAMES, PROTOCOLS, WITH_PORTS

DIRECTIONS = {Direction.INGRESS: 0, Direction.EGRESS: 1}
FAMILIES = {"ipv4": 4, "ipv6": 6}

#: Entries of one policy in the table of rules: a bound on what one port can take from all.
MAX_ENTRIES = 16384

#: Groups that one policy's rules name: each costs look-ups of its own.
MAX_GROUPS = 16


class Tuple(msgspec.Struct, frozen=True, order=True):
    """One way of masking a frame; `family` 0 and `proto` False are wild.

    `group` is the id of the one that the peer must be a member of, 0: of none.
    """

    direction: int
    family: int
    proto: bool
    dport_mask: int
    remote_mask: bytes
    group: int = 0


class Compiled(msgspec.Struct, frozen=True):
    """`tuples` in the order of their index; `rules` by (tuple, proto, dport, remote)."""

    flags: int
    digest: bytes
    tuples: tuple[Tuple, ...]
    rules: dict[tuple[int, int, int, bytes], int]

    def policy_bytes(self) -> bytes:
        tuples = b"".join(
            layout.pack(
                "tuple",
                remote=item.remote_mask,
                dport=item.dport_mask,
                direction=item.direction | TUPLE_GROUP * (item.group > 0),
                group=item.group,
                flags=TUPLE_FAMILY * (item.family > 0) | TUPLE_PROTO * item.proto,
                family=item.family,
            )
            for item in self.tuples
        )
        room = MAX_TUPLES * len(layout.pack("tuple"))
        return layout.pack(
            "policy",
            flags=self.flags,
            tuples=len(self.tuples),
            digest=self.digest,
            tuple=tuples.ljust(room, b"\0"),
        )

    def rule_bytes(self, policy_id: int) -> tuple[bytes, bytes]:
        """Keys and values for the table of rules."""
        keys = b"".join(
            layout.pack(
                "rule_key", policy=policy_id, tuple=index, proto=proto, dport=dport, remote=remote
            )
            for index, proto, dport, remote in self.rules
        )
        values = b"".join(layout.pack("rule", number=number) for number in self.rules.values())
        return keys, values


def groups_of(policy: Policy) -> tuple[str, ...]:
    """The names of the groups that peers must be members of, in the rules' order."""
    return tuple(dict.fromkeys(rule.remote_group for rule in policy.rules if rule.remote_group))


def compile_policy(policy: Policy, group_id: Callable[[str], int] | None = None) -> Compiled:
    """`group_id` gives a group's id by its name; it is asked once all else is known to be right.

    Raises PolicyError whose `where` is the rule's position (`rules[3]`).
    """
    names = groups_of(policy)
    if len(names) > MAX_GROUPS:
        raise PolicyError(
            where=f"{len(policy.rules)} rules",
            detail=f"remote_group names {len(names)} groups; a port may have {MAX_GROUPS}",
        )
    compiled = _compile(policy, {name: number for number, name in enumerate(names, 1)})
    if not names or group_id is None:
        return compiled
    # Tuples keep their order and so their number.
    ids = [0, *(group_id(name) for name in names)]
    return msgspec.structs.replace(
        compiled,
        tuples=tuple(
            msgspec.structs.replace(item, group=ids[item.group]) for item in compiled.tuples
        ),
    )


def _compile(policy: Policy, groups: dict[str, int]) -> Compiled:
    entries: dict[tuple[Tuple, int, int, bytes], int] = {}
    for position, rule in enumerate(policy.rules):
        for entry in _expand(rule, groups, f"rules[{position}]"):
            entries.setdefault(entry, position)
        if len(entries) > MAX_ENTRIES:
            raise PolicyError(
                where=f"rules[{position}]",
                detail=f"the rules take more than {MAX_ENTRIES} entries; use wider ranges",
            )
    tuples = sorted({entry[0] for entry in entries})
    if len(tuples) > MAX_TUPLES:
        raise PolicyError(
            where=f"{len(policy.rules)} rules",
            detail=f"they mix {len(tuples)} combinations of direction, protocol, prefix length "
            f"(or group) and port range; a port may have {MAX_TUPLES}: align ranges to powers of "
            "two, or use fewer prefix lengths",
        )
    index = {item: number for number, item in enumerate(tuples)}
    return Compiled(
        flags=POLICY_KEEP if policy.established is Established.KEEP else 0,
        digest=digest(policy),
        tuples=tuple(tuples),
        rules={
            (index[item], proto, dport, remote): number
            for (item, proto, dport, remote), number in entries.items()
        },
    )


def digest(policy: Policy) -> bytes:
    """Policies with equal rules, and only they, have equal ones (32 bytes).

    Limits are not in it: another limit makes no verdict stale.
    """
    judged = {"rules": policy.rules, "established": policy.established}
    return hashlib.sha256(msgspec.json.encode(judged)).digest()


def _expand(
    rule: Rule, groups: dict[str, int], where: str
) -> Iterator[tuple[Tuple, int, int, bytes]]:
    family, mask, remote = _remote(rule, where)
    proto = _protocol(rule, family, where)
    if proto in (1, 58):
        family = _icmp_family(proto, family, where)
    for dport, dport_mask in _dports(rule, proto, where):
        item = Tuple(
            direction=DIRECTIONS[rule.direction],
            family=family,
            proto=proto is not None,
            dport_mask=dport_mask,
            remote_mask=mask,
            group=groups.get(rule.remote_group or "", 0),
        )
        yield item, proto or 0, dport, remote


def _remote(rule: Rule, where: str) -> tuple[int, bytes, bytes]:
    """Family (0: both), mask and masked address."""
    if rule.ethertype is not None and rule.ethertype not in FAMILIES:
        raise PolicyError(where=where, detail=f"ethertype {rule.ethertype!r}: ipv4 or ipv6")
    family = FAMILIES.get(rule.ethertype or "", 0)
    if rule.remote is None:
        return family, bytes(16), bytes(16)
    if rule.remote_group is not None:
        raise PolicyError(where=where, detail="remote or remote_group, not both")
    try:
        network = ipaddress.ip_network(rule.remote)
    except ValueError as error:
        raise PolicyError(where=where, detail=f"remote: {error}") from None
    if family and family != network.version:
        raise PolicyError(where=where, detail=f"remote {rule.remote} is not {rule.ethertype}")
    if network.prefixlen == 0:
        return network.version, bytes(16), bytes(16)
    length = network.prefixlen + (96 if network.version == 4 else 0)
    mask = ((1 << 128) - (1 << (128 - length))).to_bytes(16, "big")
    return network.version, mask, layout.pack_address(str(network.network_address))


def _protocol(rule: Rule, family: int, where: str) -> int | None:
    if rule.protocol is None:
        return None
    name = rule.protocol.lower()
    if name == "icmp" and family == 6:
        name = "icmpv6"
    proto = PROTOCOLS.get(name)
    if proto is None and name.isascii() and name.isdigit():
        proto = int(name)
    if proto is None or proto > 255:
        known = ", ".join(PROTOCOLS)
        raise PolicyError(
            where=where, detail=f"protocol {rule.protocol!r}: {known}, or a number up to 255"
        )
    return proto


def _icmp_family(proto: int, family: int, where: str) -> int:
    own = 4 if proto == 1 else 6
    if family not in (0, own):
        raise PolicyError(where=where, detail=f"protocol {proto} is none of ipv{family}")
    return own


def _dports(rule: Rule, proto: int | None, where: str) -> Iterator[tuple[int, int]]:
    """(value, mask) pairs that together cover the rule's ports, or ICMP types and codes."""
    if rule.icmp_type is not None or rule.icmp_code is not None:
        if proto not in (1, 58):
            raise PolicyError(where=where, detail="icmp_type and icmp_code need an ICMP protocol")
        if rule.ports is not None:
            raise PolicyError(where=where, detail="ICMP has no ports")
        yield _icmp(rule, where)
    elif rule.ports is None:
        yield 0, 0
    elif NAMES.get(proto or 0) not in WITH_PORTS:
        raise PolicyError(where=where, detail=f"ports need protocol {', '.join(WITH_PORTS)}")
    else:
        low, high = rule.ports
        if not 0 <= low <= high <= 65535:
            raise PolicyError(where=where, detail=f"ports {low}-{high}: a range within 0-65535")
        yield from _prefixes(low, high)


def _icmp(rule: Rule, where: str) -> tuple[int, int]:
    if rule.icmp_type is None:
        raise PolicyError(where=where, detail="icmp_code without icmp_type")
    for name, value in (("icmp_type", rule.icmp_type), ("icmp_code", rule.icmp_code or 0)):
        if not 0 <= value <= 255:
            raise PolicyError(where=where, detail=f"{name} {value}: 0 to 255")
    if rule.icmp_code is None:
        return rule.icmp_type << 8, 0xFF00
    return rule.icmp_type << 8 | rule.icmp_code, 0xFFFF


def _prefixes(low: int, high: int) -> Iterator[tuple[int, int]]:
    """The fewest aligned power-of-two blocks that make up the range."""
    while low <= high:
        size = low & -low or 65536
        while low + size - 1 > high:
            size //= 2
        yield low, 0xFFFF & ~(size - 1)
        low += size
