"""Names of IP protocols: those that people read, and those that rules may be written with."""

#: By the one name that is shown; all others are shown as numbers.
PROTOCOLS = {
    "icmp": 1,
    "tcp": 6,
    "udp": 17,
    "dccp": 33,
    "icmpv6": 58,
    "sctp": 132,
    "udplite": 136,
}
NAMES = {number: name for name, number in PROTOCOLS.items()}

#: Whose headers begin with a source and a destination port (RFC 4340, 9260, 3828).
WITH_PORTS = ("tcp", "udp", "dccp", "sctp", "udplite")

#: What rules may say besides, as Neutron has it (neutron_lib/constants.py, IP_PROTOCOL_MAP).
SPELLINGS = PROTOCOLS | {
    "ah": 51,
    "egp": 8,
    "esp": 50,
    "gre": 47,
    "icmp6": 58,
    "igmp": 2,
    "ipip": 4,
    "ipv6-encap": 41,
    "ipv6-frag": 44,
    "ipv6-icmp": 58,
    "ipv6-nonxt": 59,
    "ipv6-opts": 60,
    "ipv6-route": 43,
    "ospf": 89,
    "pgm": 113,
    "rsvp": 46,
    "vrrp": 112,
}
