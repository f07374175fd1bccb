"""What a port may send and receive, as the operator says it."""

import enum

import msgspec


class Direction(enum.StrEnum):
    """Seen from the VM, as in OpenStack: ingress is to the VM, egress from it."""

    INGRESS = "ingress"
    EGRESS = "egress"


class Established(enum.StrEnum):
    """What a rule change does to connections that the new rules would not admit."""

    RECHECK = "recheck"
    """They end: a withdrawn rule revokes what it allowed."""

    KEEP = "keep"
    """Established ones live on, new ones are refused: the door closes, nobody is thrown out."""


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One stateful allow rule; what no rule allows is dropped.

    `protocol` is a name of `model.protocols.PROTOCOLS` or an IP protocol number as text, None for
    any. `ports` is the inclusive destination port range: the VM's on ingress, the peer's on
    egress. `remote` is a CIDR: the peer's address. `ethertype` (ipv4, ipv6) None: both, unless
    `remote` says. `remote_group` is the name of a group that the peer must be a member of.
    """

    direction: Direction
    ethertype: str | None = None
    protocol: str | None = None
    ports: tuple[int, int] | None = None
    icmp_type: int | None = None
    icmp_code: int | None = None
    remote: str | None = None
    remote_group: str | None = None


class Limit(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """How fast a port may send or receive, and as what its packets are marked; None: as they are.

    `max_kbps` is in 1000 bit/s of whole frames without preamble and checksum, `max_pps` in frames
    a second. A burst is what passes at once after a rest: `burst_kbits` in 1000 bits,
    `burst_packets` in frames; None: what DEFAULT_BURST seconds bring. `dscp_mark` is 0-63.
    """

    direction: Direction
    max_kbps: int | None = None
    burst_kbits: int | None = None
    max_pps: int | None = None
    burst_packets: int | None = None
    dscp_mark: int | None = None


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """All that applies to one port: the union of its groups' rules, one limit a direction."""

    rules: tuple[Rule, ...] = ()
    established: Established = Established.RECHECK
    limits: tuple[Limit, ...] = ()


class Group(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A named set of rules and limits, and whom it applies to.

    `applies_to` holds selectors: `*`, `port:UUID`, `instance:UUID`, `project:ID`. The group's
    members are the addresses of these ports, and besides `members`: addresses and CIDRs.
    `limits` are unset where there are none: then a group is stored, and known again, as it was
    before there could be any.
    """

    name: str
    rules: tuple[Rule, ...] = ()
    established: Established = Established.RECHECK
    applies_to: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    limits: tuple[Limit, ...] | msgspec.UnsetType = msgspec.UNSET


#: A port on which no group applies: everything is allowed (addresses are still checked).
ALLOW_ALL = Policy(
    rules=(Rule(direction=Direction.INGRESS), Rule(direction=Direction.EGRESS)),
)
#: ... or nothing is, where the operator has chosen that default.
DENY_ALL = Policy()
