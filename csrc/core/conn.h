/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * States of connections and how long each lasts without a frame. TCP's are RFC 793's as a
 * watcher in the middle sees them; everything else is unreplied or replied. Of a translation there
 * are entries too (nat.h), which last as long as its connection does.
 */
#ifndef VNET_CONN_H
#define VNET_CONN_H

#include "abi.h"

/* (name, text, seconds, progress): progress orders the states of one connection in time. */
#define VNET_STATES(X)                                                                             \
	X(NONE, "none", 0, 0)                                                                      \
	X(SYN_SENT, "syn-sent", 120, 1)                                                            \
	X(SYN_RECEIVED, "syn-received", 60, 2)                                                     \
	X(ESTABLISHED, "established", 432000, 3)                                                   \
	X(FIN_WAIT, "fin-wait", 120, 4)                                                            \
	X(CLOSE_WAIT, "close-wait", 60, 5)                                                         \
	X(LAST_ACK, "last-ack", 30, 6)                                                             \
	X(TIME_WAIT, "time-wait", 120, 7)                                                          \
	X(CLOSE, "close", 10, 8)                                                                   \
	X(UNREPLIED, "unreplied", 30, 1)                                                           \
	X(REPLIED, "replied", 180, 3)                                                              \
	X(NAT, "nat", 0, 0)

enum vnet_state {
#define VNET_STATE_ENUM(name, text, seconds, progress) VNET_STATE_##name,
	VNET_STATES(VNET_STATE_ENUM)
#undef VNET_STATE_ENUM
	VNET_STATE_COUNT,
};

enum vnet_conn_flags {
	VNET_CONN_EGRESS = 1,   /* the VM began it */
	VNET_CONN_REPLIED = 2,  /* frames were seen both ways */
	VNET_CONN_ASSURED = 4,  /* past its opening: a policy with `keep` keeps it */
	VNET_CONN_IMPORTED = 8, /* came from another host */
};
#define VNET_CONN_FLAGS_ALL 15

/* Per direction, shifted by vnet_direction. */
enum vnet_closing { VNET_FIN = 1, VNET_RST = 4 };
#define VNET_CLOSING_ALL 15

/* Of one end's window; see window.h. */
enum vnet_window_flags {
	VNET_WINDOW_SENT = 1,   /* `end` is known */
	VNET_WINDOW_ACKED = 2,  /* `max_ack` and `max_end` are */
	VNET_WINDOW_SCALED = 4, /* its SYN offered a scale, or it is not known */
	VNET_WINDOW_OLD = 0x30, /* the first two, of numbers that may lie behind by now */
};
#define VNET_WINDOW_KNOWN 3
#define VNET_WINDOW_OLD_SHIFT 4
#define VNET_SCALE_MAX 14

#define VNET_TCP_FIN 0x01
#define VNET_TCP_SYN 0x02
#define VNET_TCP_RST 0x04
#define VNET_TCP_ACK 0x10
#define VNET_TCP_OPENING_OR_CLOSING (VNET_TCP_FIN | VNET_TCP_SYN | VNET_TCP_RST | VNET_TCP_ACK)

/* The combinations that TCP uses; the others are probes and attacks. */
VNET_INLINE int vnet_tcp_flags_valid(__u8 flags)
{
	switch (flags & (VNET_TCP_FIN | VNET_TCP_SYN | VNET_TCP_RST | VNET_TCP_ACK)) {
	case VNET_TCP_SYN:
	case VNET_TCP_SYN | VNET_TCP_ACK:
	case VNET_TCP_RST:
	case VNET_TCP_RST | VNET_TCP_ACK:
	case VNET_TCP_FIN | VNET_TCP_ACK:
	case VNET_TCP_ACK:
		return 1;
	}
	return 0;
}

_Static_assert(VNET_STATE_COUNT <= VNET_MAX_STATES, "the settings have no room for the states");

/* How long a connection in this state lasts without a frame. */
VNET_INLINE __u64 vnet_state_life(const struct vnet_settings *settings, __u8 state)
{
	return settings->life_ns[state & (VNET_MAX_STATES - 1)];
}

/* As VNET_STATES has them. */
VNET_INLINE void vnet_settings_default(struct vnet_settings *settings)
{
	__builtin_memset(settings, 0, sizeof(*settings));
#define VNET_STATE_LIFE(name, text, seconds, progress)                                             \
	settings->life_ns[VNET_STATE_##name] = seconds * 1000000000ULL;
	VNET_STATES(VNET_STATE_LIFE)
#undef VNET_STATE_LIFE
}

VNET_INLINE __u8 vnet_state_progress(__u8 state)
{
	switch (state) {
#define VNET_STATE_CASE(name, text, life, progress)                                                \
	case VNET_STATE_##name:                                                                    \
		return progress;
		VNET_STATES(VNET_STATE_CASE)
#undef VNET_STATE_CASE
	default:
		return 0;
	}
}

#ifdef VNET_AS_V1
VNET_INLINE void vnet_conn_set_age(struct vnet_conn *conn, __u64 now, __u64 age_ns)
{
	conn->created_ns = now - age_ns;
}

VNET_INLINE __u64 vnet_conn_age_ns(const struct vnet_conn *conn, __u64 now)
{
	return now - conn->created_ns;
}
#else
/* About a second, in ns: `created` counts them, and comes round again after 146 years. */
#define VNET_CREATED_SHIFT 30

/* Rounded, so that the age comes out again as it came in. */
VNET_INLINE void vnet_conn_set_age(struct vnet_conn *conn, __u64 now, __u64 age_ns)
{
	__u64 age = (age_ns + (1ULL << (VNET_CREATED_SHIFT - 1))) >> VNET_CREATED_SHIFT;

	conn->created = (__u32)(now >> VNET_CREATED_SHIFT) - (__u32)age;
}

/* Modulo their range: of what was created before this host's clock began `created` is beyond now. */
VNET_INLINE __u64 vnet_conn_age_ns(const struct vnet_conn *conn, __u64 now)
{
	__u32 age = (__u32)(now >> VNET_CREATED_SHIFT) - conn->created;

	return (__u64)age << VNET_CREATED_SHIFT;
}
#endif

/* Who began it. */
VNET_INLINE __u8 vnet_conn_origin(const struct vnet_conn *conn)
{
	return conn->flags & VNET_CONN_EGRESS ? VNET_EGRESS : VNET_INGRESS;
}

/*
 * What goes to make room in a full table: what expired, then openings that nobody has answered
 * (the stuff of floods), a few at a time. Connections that are past their opening stay.
 */
#define VNET_SWEEP_ENTRIES 8192
#define VNET_SWEEP_UNREPLIED 32
#define VNET_SWEEP_PAUSE_NS (100ULL * 1000000ULL)
#define VNET_SWEEP_WINDOWS 8

/*
 * The entry at which a sweep begins to work: the kernel visits a table always from its front, and
 * were only that looked at, what is long dead behind many living would never go. It takes another
 * window each time, by the clock, multiplied so that no rhythm of retries meets the same for ever.
 */
VNET_INLINE __u32 vnet_sweep_from(__u32 quota, __u64 now)
{
	__u32 windows = (quota + VNET_SWEEP_ENTRIES - 1) / VNET_SWEEP_ENTRIES;
	__u32 turn = (__u32)(now / VNET_SWEEP_PAUSE_NS) * 2654435761U >> 16;

	if (windows > VNET_SWEEP_WINDOWS)
		windows = VNET_SWEEP_WINDOWS;
	return windows > 1 ? turn % windows * VNET_SWEEP_ENTRIES : 0;
}

/* Whether the next sweep may begin: the longer the last one's way, the longer the pause. */
VNET_INLINE int vnet_sweep_due(__u32 quota, __u64 last, __u64 now)
{
	__u64 windows = 1 + vnet_sweep_from(quota, last) / VNET_SWEEP_ENTRIES;

	return !last || now - last >= windows * VNET_SWEEP_PAUSE_NS;
}

VNET_INLINE int vnet_sweep_one(const struct vnet_conn *conn, __u64 now, __u32 *unreplied)
{
	if (conn->expires_ns <= now)
		return 1;
	if (conn->flags & (VNET_CONN_REPLIED | VNET_CONN_ASSURED | VNET_CONN_IMPORTED) ||
	    *unreplied >= VNET_SWEEP_UNREPLIED)
		return 0;
	*unreplied += 1;
	return 1;
}

#endif
