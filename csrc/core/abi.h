/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the programs in the kernel, the native datapath and the extension share: the layout of
 * every map. Numbers are in host order unless said otherwise; addresses are 16 bytes in network
 * order, IPv4 as ::ffff:a.b.c.d. Any change to a struct here raises VNET_ABI_VERSION, and with it
 * the directory of the pins.
 */
#ifndef VNET_ABI_H
#define VNET_ABI_H

#include <linux/types.h>
#include <stddef.h>

#include "reason.h"

#define VNET_INLINE static inline __attribute__((always_inline))

/* Seen from the VM, as in OpenStack. */
enum vnet_direction { VNET_INGRESS = 0, VNET_EGRESS = 1 };

/* What becomes of a frame. */
enum vnet_action {
	VNET_PASS = 0,     /* go on as without the datapath */
	VNET_DROP = 1,     /* counted under its reason */
	VNET_REDIRECT = 2, /* transmit on `ifindex`; above it may be a tag, see vlan.h */
	VNET_CONSUMED = 3, /* copies have been sent, the frame itself goes nowhere */
	VNET_ANSWERED = 4, /* it asks for a known neighbour: back on `ifindex` as the answer */
	VNET_TABLED = 5,   /* the operator's tables come first: see tables.h */
	VNET_HANDED = 6,   /* to the controller, and nowhere else */
};

enum vnet_role { VNET_NO_ROLE = 0, VNET_STANDBY = 1, VNET_ACTIVE = 2, VNET_MOVED = 3 };

enum vnet_port_flags {
	VNET_PORT_BRIDGED = 1,   /* a Linux bridge forwards; only guard */
	VNET_PORT_ADDRESSES = 2, /* its addresses are known: check sources */
	VNET_PORT_OPEN = 4,      /* neither its sources are checked, nor its frames by a policy */
	VNET_PORT_ANSWERED = 32, /* it is told of known neighbours: see neighbour.h */
	VNET_PORT_METERED = 64,  /* it has limits or marks: see meter.h */
	VNET_PORT_CAPTURED = 128, /* somebody looks on: see capture.h */
	VNET_PORT_TABLES = 256,   /* the operator has tables: see tables.h */
	VNET_PORT_SHORT = 512,    /* its interface knows the short way: see shortcut.h */
	VNET_PORT_PAIRS = 1024,   /* it has allowed address pairs: see spoof.h */
	VNET_PORT_PEER = 2048,    /* its interface's other end is in another namespace: see act.h */
	VNET_PORT_NAT = 4096,     /* a rule of the operator's tables translates: see nat.h */
	VNET_PORT_HELD = 8192,    /* frames for its VM wait for earlier ones: see hold.h */
	VNET_PORT_DRAINING = 16384, /* until all that wait have gone on */
	VNET_PORT_RELAYED = 32768,  /* moved, and the agent takes late frames after it: see hold.h */
};

/*
 * A port, in an array by its local id (0 is no port). User space maps the array into its memory:
 * each word that a program reads is changed with one store.
 */
struct vnet_port {
	__u64 policy;       /* policy id << 32 | policy generation; id 0: no policy yet */
	__u64 mac;          /* see vnet_mac() */
	__u64 owner;        /* generation of the owner (migration token); user space only */
	__u64 sweep_ns;     /* when its full table was last searched for room */
	__u32 role;
	__u32 flags;
	__u32 ifindex;      /* of the tap, 0 when not attached */
	__u32 network;
	__u32 local_id;     /* its own index; 0: free */
	__u32 quota;
	__u8 port[16];      /* UUIDs */
	__u8 instance[16];
	__u64 openings_ns;  /* see opening.h */
	/* See hold.h. */
	__u64 hold_until_ns;
	__u64 held;         /* frames that went to `hold_ifindex` */
	__u64 sent_on;      /* how many of those have left it */
	__u32 hold_ifindex;
	__u32 seen_outside; /* a held unicast came from outside, or the port's MAC spoke there */
};
_Static_assert(sizeof(struct vnet_port) == 128, "vnet_port");
_Static_assert(offsetof(struct vnet_port, role) == 32, "vnet_port.role");
_Static_assert(offsetof(struct vnet_port, port) == 56, "vnet_port.port");

enum vnet_settings_flags { VNET_SETTINGS_STRICT = 1 };

#define VNET_MAX_STATES 16

/* What holds for all ports: one entry, 0. */
struct vnet_settings {
	__u64 life_ns[VNET_MAX_STATES]; /* by enum vnet_state: how long each lasts without a frame */
	__u64 flags;
	__u64 opening_ns;  /* see opening.h; 0: no limit */
	__u64 openings_ns;
};
_Static_assert(sizeof(struct vnet_settings) == 152, "vnet_settings");

enum vnet_iface_kind { VNET_IFACE_PORT = 1, VNET_IFACE_UPLINK = 2 };

enum vnet_iface_flags { VNET_IFACE_TAGGED = 1 /* no network leaves untagged */ };

/* By ifindex: what an interface is to the datapath. */
struct vnet_iface {
	__u32 kind;
	__u32 local_id; /* of the port */
	__u32 network;  /* of the uplink's untagged frames */
	__u32 flags;
};
_Static_assert(sizeof(struct vnet_iface) == 16, "vnet_iface");

/* Who has this MAC: -> local id. Whether it is reached here is the port's role. */
struct vnet_mac_key {
	__u64 mac;
	__u32 network;
	__u32 zero;
};
_Static_assert(sizeof(struct vnet_mac_key) == 16, "vnet_mac_key");

/* Where a port was found last, by a hash of what was looked for: -> local id. See find.h. */
#define VNET_HINTS 8192

/* The ports of a network, numbered from 0 without holes: -> local id. */
struct vnet_member_key {
	__u32 network;
	__u32 index;
};
_Static_assert(sizeof(struct vnet_member_key) == 8, "vnet_member_key");

/* The addresses that a port may use: -> their order in the port's description. */
struct vnet_address_key {
	__u32 local_id;
	__u32 zero;
	__u8 address[16];
};
_Static_assert(sizeof(struct vnet_address_key) == 24, "vnet_address_key");

/*
 * The allowed address pairs of ports, each once with its MAC and once with 0, for any of the port's.
 * The key of a trie of longest prefixes; `prefix` counts from `local_id`, of which and of the MAC all
 * bits are whole.
 */
struct vnet_pair_key {
	__u32 prefix;
	__u32 local_id;
	__u64 mac;
	__u8 address[16];
};
_Static_assert(sizeof(struct vnet_pair_key) == 32, "vnet_pair_key");

#define VNET_PAIR_WHOLE_BITS 96
#define VNET_PAIR_PREFIX (VNET_PAIR_WHOLE_BITS + 128)

#define VNET_MAX_TUPLES 64

enum vnet_tuple_flags { VNET_TUPLE_FAMILY = 1, VNET_TUPLE_PROTO = 2 };

/*
 * In a tuple's direction, so that a program from before there were groups takes it for neither
 * direction's, and does not let everybody in.
 */
#define VNET_TUPLE_GROUP 2

/* One way of masking a frame's fields; all rules of a policy with the same masks share it. */
struct vnet_tuple {
	__u8 remote[16]; /* mask */
	__u16 dport;     /* mask; for ICMP of type << 8 | code */
	__u8 direction; /* | VNET_TUPLE_GROUP */
	__u8 flags;
	__u8 family; /* 4 or 6, with VNET_TUPLE_FAMILY */
	__u8 reserved;
	__u16 group; /* the peer must be a member of it, with VNET_TUPLE_GROUP */
};
_Static_assert(sizeof(struct vnet_tuple) == 24, "vnet_tuple");

enum vnet_policy_flags { VNET_POLICY_KEEP = 1 };

/* A compiled policy by its id; ports with the same rules share it. */
struct vnet_policy {
	__u32 flags;
	__u32 tuples;
	__u8 digest[32]; /* of its source, to find it again */
	struct vnet_tuple tuple[VNET_MAX_TUPLES];
};
_Static_assert(sizeof(struct vnet_policy) == 40 + 24 * VNET_MAX_TUPLES, "vnet_policy");

struct vnet_rule_key {
	__u32 policy;
	__u8 tuple;
	__u8 proto; /* 0 unless the tuple has VNET_TUPLE_PROTO */
	__u16 dport;
	__u8 remote[16];
};
_Static_assert(sizeof(struct vnet_rule_key) == 24, "vnet_rule_key");

struct vnet_rule {
	__u32 number; /* position in the policy's source */
	__u32 action;
};
_Static_assert(sizeof(struct vnet_rule) == 8, "vnet_rule");

/*
 * A group in one network, by its id; for user space, which knows groups by name. 1 to 65535 are
 * given in turn, so that an id comes back long after nobody remembers what it was.
 */
struct vnet_group {
	__u32 network;
	__u32 zero;
	char name[64];
};
_Static_assert(sizeof(struct vnet_group) == 72, "vnet_group");

#define VNET_MAX_GROUP 65535

/*
 * Who is a member of a group: addresses and prefixes of them, of any number of hosts. The key of a
 * trie of longest prefixes; `prefix` counts from `group`, whose bits are always whole.
 */
struct vnet_peer_key {
	__u32 prefix;
	__u32 group;
	__u8 address[16];
};
_Static_assert(sizeof(struct vnet_peer_key) == 24, "vnet_peer_key");

#define VNET_PEER_GROUP_BITS 32
#define VNET_PEER_PREFIX (VNET_PEER_GROUP_BITS + 128)

/* VM-centric and without direction: both directions of a connection find the same entry. */
struct vnet_conn_key {
	__u8 local[16];
	__u8 remote[16];
	__u16 local_port; /* ICMP: identifier */
	__u16 remote_port;
	__u8 proto;
	__u8 family;
	__u16 way; /* 0; of a translation's entries enum vnet_nat_way: see nat.h */
};
_Static_assert(sizeof(struct vnet_conn_key) == 40, "vnet_conn_key");

/* Where one end of a TCP connection is; see window.h. */
struct vnet_window {
	__u32 end;
	__u32 max_end;
	__u32 max_ack;
	__u8 scale;
	__u8 flags; /* enum vnet_window_flags */
	__u16 max_window;
};
_Static_assert(sizeof(struct vnet_window) == 16, "vnet_window");

#include "abi_v1.h"

#ifndef VNET_AS_V1
#define VNET_ABI_VERSION 2

/*
 * A connection. It exists only while some policy admitted it, and `generation` says which: equal
 * to the port's, the frame passes without a further look; otherwise it is classified again.
 */
struct vnet_conn {
	__u64 expires_ns;
	__u32 generation; /* of the policy; 0 never matches */
	__u8 state;       /* enum vnet_state */
	__u8 flags;       /* enum vnet_conn_flags */
	__u8 closing;     /* enum vnet_closing */
	__u8 reserved;
	__u64 packets[2]; /* by vnet_direction */
	__u64 bytes[2];
	__u64 changed_ns; /* creation or last change of state; packets alone are no change */
	__u32 created;    /* see vnet_conn_age_ns() */
	__u32 mark;
	struct vnet_window window[2]; /* TCP, by sender */
};
/* Linux keeps an entry with its key, and 56 bytes of its own, in pieces of 192 or of 256 bytes. */
_Static_assert(sizeof(struct vnet_conn) == 96, "vnet_conn");
_Static_assert(offsetof(struct vnet_conn, changed_ns) == 48, "vnet_conn.changed_ns");
#endif

/* What later fragments lack: remembered from the first, for VNET_FRAGMENT_NS. */
struct vnet_fragment_key {
	__u8 source[16];
	__u8 destination[16];
	__u32 id;
	__u8 proto; /* IPv6: the fragment header's next header */
	__u8 family;
	__u16 zero;
};
_Static_assert(sizeof(struct vnet_fragment_key) == 40, "vnet_fragment_key");

struct vnet_fragment {
	__u64 expires_ns;
	__u16 source_port;
	__u16 destination_port;
	__u8 proto; /* of the transport, behind any IPv6 extension headers */
	__u8 type;  /* of ICMP */
	__u8 code;
	__u8 zero;
};
_Static_assert(sizeof(struct vnet_fragment) == 16, "vnet_fragment");

#define VNET_FRAGMENTS 512
#define VNET_FRAGMENT_NS (30ULL * 1000000000ULL)

/* Per CPU and port. */
struct vnet_counters {
	__u64 rx_frames; /* to the VM */
	__u64 rx_bytes;
	__u64 tx_frames; /* from the VM */
	__u64 tx_bytes;
	__u64 drops[VNET_REASONS_MAX];
};
_Static_assert(sizeof(struct vnet_counters) == 32 + 8 * VNET_REASONS_MAX, "vnet_counters");

/* More bytes or frames are never taken from a meter at once. */
#define VNET_METER_UNITS (1U << 20)

/*
 * A limit. mult 0: none; else a unit takes mult / 2^shift ticks, with mult < 2^43. See meter.h.
 */
struct vnet_rate {
	__u64 due;   /* when all that has passed would have been sent, in ticks; 0 at first */
	__u64 mult;
	__u64 burst; /* ticks */
	__u32 shift;
	__u32 zero;
};
_Static_assert(sizeof(struct vnet_rate) == 32, "vnet_rate");

struct vnet_meter {
	struct vnet_rate bytes;
	struct vnet_rate frames;
};

#define VNET_MARKED 0x100U

/* By local id, for ports with VNET_PORT_METERED. */
struct vnet_meters {
	struct vnet_meter meter[2]; /* by vnet_direction */
	__u32 mark[2];              /* VNET_MARKED | the 6 bits of DSCP; 0: as they are */
};
_Static_assert(sizeof(struct vnet_meters) == 136, "vnet_meters");

/* A MAC as a number: its first octet is the lowest byte, so bit 0 is the group bit. */
VNET_INLINE __u64 vnet_mac(const __u8 *octets)
{
	return (__u64)octets[0] | (__u64)octets[1] << 8 | (__u64)octets[2] << 16 |
	       (__u64)octets[3] << 24 | (__u64)octets[4] << 32 | (__u64)octets[5] << 40;
}

/* Of the packets of an agent's socket: see vnet_is_replayed(). */
#define VNET_REPLAY_MARK 0x564e5250U

#define VNET_MAC_GROUP 1ULL

#endif
