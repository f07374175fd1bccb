"""The tenants' policy in the words of nftables, iptables and OVS. Pure text."""

from collections.abc import Sequence

from tenants import Guest

from vnet_agent.model.policy import Direction, Rule


def _ingress(rules: Sequence[Rule]) -> list[Rule]:
    """The rules for ingress; the only one for egress that the texts below say is `anything`."""
    egress = [rule for rule in rules if rule.direction is Direction.EGRESS]
    if len(egress) != 1 or egress[0].protocol or egress[0].ports or egress[0].remote:
        raise ValueError("the rules for egress are not one that allows anything")
    return [rule for rule in rules if rule.direction is Direction.INGRESS]


def _ports(rule: Rule, dash: str) -> str:
    if rule.ports is None:
        return ""
    low, high = rule.ports
    return str(low) if low == high else f"{low}{dash}{high}"


# -- nftables


def nftables_rules(guests: Sequence[Guest], rules: Sequence[Rule], family: str) -> str:
    """A chain a guest for what it sends, and one for what it receives, in order.

    In the inet family the taps are not visible: guests are told apart by address there.
    """
    bridge = family == "bridge"
    lines = [f"table {family} tenants {{"]
    for guest in guests:
        lines += [
            f"chain from_{guest.name} {{",
            f"ether saddr != {guest.mac} drop",
            f"ip saddr != {guest.address} drop",
            "}",
            f"chain to_{guest.name} {{",
            "ct state established,related accept",
            *(f"{_nftables_match(rule)} accept" for rule in _ingress(rules)),
            "drop",
            "}",
        ]
    names = [(guest.name, f'"{guest.tap}"' if bridge else guest.address) for guest in guests]
    senders = ", ".join(f"{key} : jump from_{name}" for name, key in names)
    takers = ", ".join(f"{key} : jump to_{name}" for name, key in names)
    return "\n".join(
        [
            *lines,
            "chain forward { type filter hook forward priority 0; policy drop;",
            *(["ether type arp accept"] if bridge else []),
            "ct state invalid drop",
            f"{'iifname' if bridge else 'ip saddr'} vmap {{ {senders} }}",
            f"{'oifname' if bridge else 'ip daddr'} vmap {{ {takers} }}",
            "}",
            "}",
            "",
        ]
    )


def _nftables_match(rule: Rule) -> str:
    words = [f"ip saddr {rule.remote}"] if rule.remote else []
    if rule.ports:
        words.append(f"{rule.protocol} dport {_ports(rule, '-')}")
    elif rule.protocol:
        words.append(f"ip protocol {rule.protocol}")
    return " ".join(words)


# -- iptables, as Neutron's hybrid driver lays them (neutron/agent/linux/iptables_firewall.py)

_WRAP = "neutron-openvswi"
_BRIDGED = "-m physdev --physdev-is-bridged"


def iptables_rules(guests: Sequence[Guest], rules: Sequence[Rule]) -> str:
    """Input of iptables-restore: tables raw (connection zones) and filter."""
    chains = [f"{_WRAP}-{name}" for name in ("FORWARD", "sg-chain", "sg-fallback")]
    lines = [
        f"-A FORWARD -j {_WRAP}-FORWARD",
        f"-A {_WRAP}-sg-fallback -j DROP",
    ]
    for guest in guests:
        into, out, spoof = (f"{_WRAP}-{kind}{guest.uuid[:10]}" for kind in "ios")
        chains += [into, out, spoof]
        lines += [
            f"-A {_WRAP}-FORWARD {_BRIDGED} --physdev-out {guest.tap} -j {_WRAP}-sg-chain",
            f"-A {_WRAP}-FORWARD {_BRIDGED} --physdev-in {guest.tap} -j {_WRAP}-sg-chain",
            f"-A {_WRAP}-sg-chain {_BRIDGED} --physdev-out {guest.tap} -j {into}",
            f"-A {_WRAP}-sg-chain {_BRIDGED} --physdev-in {guest.tap} -j {out}",
            *_iptables_into(into, rules),
            *_iptables_out(guest, out, spoof),
        ]
    lines.append(f"-A {_WRAP}-sg-chain -j ACCEPT")
    raw = [
        f"-A {_WRAP}-PREROUTING -m physdev --physdev-in {guest.tap} -j CT --zone 4097"
        for guest in guests
    ]
    return "\n".join(
        [
            *("*raw", f":{_WRAP}-PREROUTING - [0:0]", f"-A PREROUTING -j {_WRAP}-PREROUTING"),
            *(*raw, "COMMIT"),
            *("*filter", *(f":{chain} - [0:0]" for chain in chains), *lines, "COMMIT", ""),
        ]
    )


def _iptables_into(chain: str, rules: Sequence[Rule]) -> list[str]:
    return [
        f"-A {chain} -m state --state RELATED,ESTABLISHED -j RETURN",
        *(f"-A {chain} {_iptables_match(rule)} -j RETURN" for rule in _ingress(rules)),
        f"-A {chain} -m state --state INVALID -j DROP",
        f"-A {chain} -j {_WRAP}-sg-fallback",
    ]


def _iptables_out(guest: Guest, chain: str, spoof: str) -> list[str]:
    dhcp = "-s 0.0.0.0/32 -d 255.255.255.255/32 -p udp -m udp --sport 68 --dport 67 -j RETURN"
    return [
        f"-A {spoof} -s {guest.address}/32 -m mac --mac-source {guest.mac} -j RETURN",
        f"-A {spoof} -j DROP",
        f"-A {chain} {dhcp}",
        f"-A {chain} -j {spoof}",
        f"-A {chain} -p udp -m udp --sport 68 --dport 67 -j RETURN",
        f"-A {chain} -p udp -m udp --sport 67 --dport 68 -j DROP",
        f"-A {chain} -m state --state RELATED,ESTABLISHED -j RETURN",
        f"-A {chain} -j RETURN",
        f"-A {chain} -m state --state INVALID -j DROP",
        f"-A {chain} -j {_WRAP}-sg-fallback",
    ]


def _iptables_match(rule: Rule) -> str:
    words = [f"-s {rule.remote}"] if rule.remote else []
    if rule.protocol:
        words.append(f"-p {rule.protocol}")
    if rule.ports:
        words.append(f"-m {rule.protocol} --dport {_ports(rule, ':')}")
    return " ".join(words)


# -- OpenFlow


def openflow_rules(guests: Sequence[Guest], rules: Sequence[Rule]) -> str:
    """Input of `ovs-ofctl add-flows`; taps are ports 1, 2, ... in the order of the guests.

    Table 0 guards the source and asks for the connection, table 1 lets established ones pass and
    sends new ones to the receiver's rules in table 2. One look-up of the connection a frame, in
    the network's zone, as Neutron's OVS firewall does between two ports of one host.
    """
    flows = [
        "table=0,priority=0,actions=drop",
        "table=1,priority=100,ct_state=+trk+inv,actions=drop",
        "table=1,priority=0,actions=drop",
        "table=2,priority=0,actions=drop",
    ]
    for port, guest in enumerate(guests, 1):
        others = ",".join(str(other) for other in range(1, len(guests) + 1) if other != port)
        receive = f"table=2,priority=50,dl_dst={guest.mac}"
        flows += [
            f"table=0,priority=90,in_port={port},arp,dl_src={guest.mac},"
            f"arp_spa={guest.address},actions=output:{others}",
            f"table=0,priority=80,in_port={port},ip,dl_src={guest.mac},"
            f"nw_src={guest.address},actions=ct(table=1,zone=1)",
            f"table=1,priority=90,ct_state=+trk+est,dl_dst={guest.mac},actions=output:{port}",
            f"table=1,priority=90,ct_state=+trk+rel,dl_dst={guest.mac},actions=output:{port}",
            f"table=1,priority=80,ct_state=+trk+new,dl_dst={guest.mac},actions=resubmit(,2)",
        ]
        flows += [
            f"{receive},{match},actions=ct(commit,zone=1),output:{port}"
            for rule in _ingress(rules)
            for match in _openflow_matches(rule)
        ]
    return "\n".join([*flows, ""])


def _openflow_matches(rule: Rule) -> list[str]:
    words = [rule.protocol or "ip"]
    if rule.remote:
        words.append(f"nw_src={rule.remote}")
    if rule.ports is None:
        return [",".join(words)]
    return [",".join([*words, f"tp_dst={block}"]) for block in port_blocks(*rule.ports)]


def port_blocks(low: int, high: int) -> list[str]:
    """The range as VALUE/MASK blocks, the fewest."""
    blocks = []
    while low <= high:
        size = low & -low or 0x10000
        while low + size - 1 > high:
            size //= 2
        blocks.append(f"{low:#x}/{0x10000 - size:#x}")
        low += size
    return blocks
