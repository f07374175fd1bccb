"""Documents of handlers as hypothesis draws them: every field, in many spellings."""

import ipaddress

from hypothesis import strategies as st

PORTS = {3: "6ba7b810-9dad-11d1-80b4-00c04fd430c8", 4: "6ba7b811-9dad-11d1-80b4-00c04fd430c8"}
VMS = {"1b4e28ba-2fa1-11d2-883f-0016d3cca427": [3, 4]}
GROUPS = {"web": [3, 4], "db": [4]}


class Places:
    """Both ports are here, and so is their VM."""

    def local_id(self, port):
        return next((number for number, uuid in PORTS.items() if uuid == port), None)

    def ids_of(self, instance):
        return VMS.get(instance, [])

    def ids_in(self, group):
        return GROUPS.get(group, [])


def masked(draw, bits, template="{:#x}/{:#x}"):
    mask = draw(st.integers(1, (1 << bits) - 1))
    return template.format(draw(st.integers(0, (1 << bits) - 1)) & mask, mask)


@st.composite
def macs(draw, *, mask=True):
    bits = (1 << 48) - 1
    if mask and draw(st.booleans()):
        bits = draw(st.integers(1, bits))
    value = draw(st.integers(0, (1 << 48) - 1)) & bits
    text = value.to_bytes(6, "big").hex(":")
    return text if not mask or bits == (1 << 48) - 1 else f"{text}/{bits.to_bytes(6).hex(':')}"


@st.composite
def prefixes(draw, version):
    size = 32 if version == 4 else 128
    length = draw(st.integers(0, size))
    shift = size - length
    address = draw(st.integers(0, (1 << size) - 1)) >> shift << shift
    kind = ipaddress.IPv4Network if version == 4 else ipaddress.IPv6Network
    return str(kind((address, length)))


@st.composite
def transport_ports(draw):
    kind = draw(st.sampled_from(["number", "range", "mask"]))
    if kind == "number":
        return draw(st.integers(0, 0xFFFF))
    if kind == "range":
        low, high = sorted((draw(st.integers(0, 0xFFFF)), draw(st.integers(0, 0xFFFF))))
        return f"{low}-{high}"
    mask = 0xFFFF & ~draw(st.integers(0, 15))
    return f"{draw(st.integers(0, 0xFFFF)) & mask:#x}/{mask:#x}"


def flags(names):
    return st.lists(
        st.tuples(st.sampled_from("+-"), st.sampled_from(names)),
        min_size=1,
        max_size=4,
        unique_by=lambda item: item[1],
    ).map(lambda items: "".join(sign + name for sign, name in items))


@st.composite
def link(draw):
    fields = {
        "in_port": st.sampled_from(sorted(PORTS.values())),
        "direction": st.sampled_from(["ingress", "egress"]),
        "network": st.integers(0, 0xFFFFFFFF),
        "eth_src": macs(),
        "eth_dst": macs(),
        "conn_state": flags(["trk", "new", "est", "rel", "rpl", "inv"]),
    }
    chosen = draw(st.lists(st.sampled_from(sorted(fields)), unique=True))
    match = {name: draw(fields[name]) for name in chosen}
    for name, bits in (("conn_mark", 32), ("metadata", 64)):
        if draw(st.booleans()):
            match[name] = masked(draw, bits)
    if draw(st.booleans()):
        match["vlan_vid"] = draw(st.sampled_from(["any", "none", 0, 7, 4095]))
        if match["vlan_vid"] != "none" and draw(st.booleans()):
            match["vlan_pcp"] = draw(st.integers(0, 7))
    return match


@st.composite
def matches(draw):
    match = draw(link())
    kind = draw(st.sampled_from(["none", "arp", "other", "ipv4", "ipv6", "ip"]))
    if kind == "arp":
        match |= {"eth_type": "arp", "arp_op": draw(st.sampled_from(["request", "reply", 2, 9]))}
        match |= {"arp_spa": draw(prefixes(4)), "arp_tpa": draw(prefixes(4))}
    if kind == "other":
        match["eth_type"] = draw(st.sampled_from([0x0806, 0x0800, 0x88CC, 0xFFFF]))
    if kind not in ("ipv4", "ipv6", "ip"):
        return match
    if kind != "ip":
        match["eth_type"] = kind
        for name in ("ip_src", "ip_dst"):
            if draw(st.booleans()):
                match[name] = draw(prefixes(4 if kind == "ipv4" else 6))
    protos = ["tcp", "udp", "sctp", 6, 47, 0]
    protos += ["icmp"] * (kind != "ipv6") + ["icmpv6"] * (kind != "ipv4")
    proto = match["ip_proto"] = draw(st.sampled_from(protos))
    if draw(st.booleans()):
        match["ip_dscp"] = draw(st.integers(0, 63))
    if draw(st.booleans()):
        match["fragment"] = draw(st.sampled_from(["no", "first", "later", "not_later"]))
    if proto in ("tcp", "udp", "sctp"):
        for name in ("src", "dst"):
            if draw(st.booleans()):
                match[f"{proto}_{name}"] = draw(transport_ports())
    if proto == "tcp" and draw(st.booleans()):
        match["tcp_flags"] = draw(flags(["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"]))
    if proto in ("icmp", "icmpv6"):
        match |= {"icmp_type": draw(st.integers(0, 255)), "icmp_code": draw(st.integers(0, 255))}
    return match


@st.composite
def sets(draw, match):
    fields = {
        "eth_src": macs(mask=False),
        "eth_dst": macs(mask=False),
        "metadata": st.integers(0, (1 << 64) - 1),
        "conn_mark": st.integers(0, (1 << 32) - 1),
    }
    if match.get("eth_type") in ("ipv4", "ipv6"):
        fields |= {"ip_dscp": st.integers(0, 63), "ip_ttl": st.integers(0, 255)}
        address = st.ip_addresses(v=4 if match["eth_type"] == "ipv4" else 6).map(str)
        fields |= {"ip_src": address, "ip_dst": address}
    if match.get("ip_proto") in ("tcp", "udp"):
        fields |= {f"{match['ip_proto']}_dst": st.integers(0, 0xFFFF)}
    name = draw(st.sampled_from(sorted(fields)))
    return {"set": {name: draw(fields[name])}}


@st.composite
def translations(draw, match):
    """None, one or both ends; with ports where the match has some."""
    version = {"ipv4": 4, "ipv6": 6}.get(match.get("eth_type"))
    found = []
    for kind in ("snat", "dnat"):
        if version is None or draw(st.booleans()):
            continue
        hosts = st.ip_addresses(v=version).filter(
            lambda item: not item.is_multicast and not item.is_unspecified
        )
        to = address = str(draw(hosts))
        if match.get("ip_proto") in ("tcp", "udp") and draw(st.booleans()):
            first = draw(st.integers(1, 0xFFFF))
            last = draw(st.integers(first, 0xFFFF)) if kind == "snat" else first
            to = {"address": address, "port": first if first == last else f"{first}-{last}"}
        found.append({kind: to})
    return found


@st.composite
def rules(draw, table=3):
    """A rule that is right, for a table before the last one."""
    match = draw(matches())
    port = st.sampled_from(sorted(PORTS.values()))
    before = st.one_of(
        sets(match),
        port.map(lambda uuid: {"mirror": uuid}),
        port.map(lambda uuid: {"copy": uuid}),
        st.just("pop_vlan"),
        st.fixed_dictionaries({"push_vlan": st.integers(0, 4095)}),
        st.fixed_dictionaries(
            {"push_vlan": st.fixed_dictionaries({"vid": st.just(9), "pcp": st.integers(0, 7)})}
        ),
    )
    last = st.one_of(
        st.sampled_from(["normal", "drop", "controller", {"output": "uplink"}]),
        port.map(lambda uuid: {"output": uuid}),
        st.integers(table + 1, 15).map(lambda number: {"goto": number}),
        st.integers(0, 65535).map(lambda length: {"controller": {"max_len": length}}),
    )
    end = draw(last)
    tracked = end == "normal" or "goto" in end
    return {
        "priority": draw(st.integers(0, 65535)),
        "match": match,
        "actions": [
            *draw(st.lists(before, max_size=2)),
            *(draw(translations(match)) if tracked else []),
            end,
        ],
        "cookie": draw(st.integers(0, 0xFFFFFFFF)),
    }
