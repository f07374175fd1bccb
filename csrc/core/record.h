/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A connection as it travels between hosts and drivers: little-endian, 128 bytes, no clocks.
 * The bytes come from another host, so everything is checked before it is believed.
 */
#ifndef VNET_RECORD_H
#define VNET_RECORD_H

#include <endian.h>
#include <string.h>

#include "conn.h"

#define VNET_RECORD_VERSION 1
/* Of an entry of a translation (nat.h): windows and mark are the other name, as they lie there. */
#define VNET_RECORD_NAT 2
#define VNET_RECORD_WAYS 2

struct vnet_conn_record {
	__u16 version;
	__u8 proto;
	__u8 family;
	__u16 local_port;
	__u16 remote_port;
	__u8 local[16];
	__u8 remote[16];
	__u8 state;
	__u8 flags;
	__u8 closing;
	__u8 way; /* as in struct vnet_conn_key */
	__u32 mark;
	__u64 remaining_ms; /* until it expires if no further frame comes */
	__u64 age_ms;       /* since it was created, to about a second */
	__u64 packets[2];
	__u64 bytes[2];
	struct vnet_window window[2];
} __attribute__((packed));
_Static_assert(sizeof(struct vnet_conn_record) == 128, "vnet_conn_record");
_Static_assert(offsetof(struct vnet_conn_record, state) == 40, "vnet_conn_record.state");
_Static_assert(offsetof(struct vnet_conn_record, packets) == 64, "vnet_conn_record.packets");

/* A multiplication of a hostile `remaining_ms` must not wrap: no state lasts longer than this. */
#define VNET_REMAINING_MS_MAX (432000ULL * 1000ULL)
#define VNET_AGE_MS_MAX (1ULL << 42)

static inline __u8 vnet_window_flags_sent(__u8 flags)
{
	return (flags | flags >> VNET_WINDOW_OLD_SHIFT) & (VNET_WINDOW_KNOWN | VNET_WINDOW_SCALED);
}

/* Segments have passed since a record was made: its numbers are those of an earlier time. */
static inline __u8 vnet_window_flags_old(__u8 flags)
{
	return (flags & VNET_WINDOW_SCALED) | (flags & VNET_WINDOW_KNOWN) << VNET_WINDOW_OLD_SHIFT;
}

static inline void vnet_record_encode(struct vnet_conn_record *record,
				      const struct vnet_conn_key *key, const struct vnet_conn *conn,
				      __u64 now)
{
	memset(record, 0, sizeof(*record));
	record->version = htole16(key->way ? VNET_RECORD_NAT : VNET_RECORD_VERSION);
	record->way = key->way;
	record->proto = key->proto;
	record->family = key->family;
	record->local_port = htole16(key->local_port);
	record->remote_port = htole16(key->remote_port);
	memcpy(record->local, key->local, 16);
	memcpy(record->remote, key->remote, 16);
	record->state = conn->state;
	record->flags = conn->flags & (VNET_CONN_FLAGS_ALL & ~VNET_CONN_IMPORTED);
	record->closing = conn->closing;
	record->mark = htole32(conn->mark);
	record->remaining_ms =
		htole64(conn->expires_ns > now ? (conn->expires_ns - now + 999999) / 1000000 : 0);
	record->age_ms = htole64(vnet_conn_age_ns(conn, now) / 1000000);
	for (int i = 0; i < 2; i++) {
		record->packets[i] = htole64(conn->packets[i]);
		record->bytes[i] = htole64(conn->bytes[i]);
		if (key->way) {
			memcpy(&record->window[i], &conn->window[i], sizeof(record->window[i]));
			continue;
		}
		record->window[i].end = htole32(conn->window[i].end);
		record->window[i].max_end = htole32(conn->window[i].max_end);
		record->window[i].max_ack = htole32(conn->window[i].max_ack);
		record->window[i].max_window = htole16(conn->window[i].max_window);
		record->window[i].scale = conn->window[i].scale;
		record->window[i].flags = vnet_window_flags_sent(conn->window[i].flags);
	}
}

static inline int vnet_record_is_mapped(const void *address)
{
	static const __u8 mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

	return !memcmp(address, mapped, sizeof(mapped));
}

/* What each version has of its own. */
static inline const char *vnet_record_check_kind(const struct vnet_conn_record *record)
{
	int tcp_state = record->state >= VNET_STATE_SYN_SENT && record->state <= VNET_STATE_CLOSE;

	if (le16toh(record->version) == VNET_RECORD_NAT) {
		if (record->state != VNET_STATE_NAT || !record->way ||
		    record->way > VNET_RECORD_WAYS)
			return "it is no translation's";
		if (record->family == 4 && (!vnet_record_is_mapped(&record->window[0]) ||
					    !vnet_record_is_mapped(&record->window[1])))
			return "an IPv4 address is not in its mapped form";
		return NULL;
	}
	if (le16toh(record->version) != VNET_RECORD_VERSION)
		return "unknown version";
	if (record->state == VNET_STATE_NONE || record->state >= VNET_STATE_NAT)
		return "unknown state";
	return tcp_state == (record->proto == 6) ? NULL : "the state is none of the protocol's";
}

/* NULL, or what is wrong with the bytes. */
static inline const char *vnet_record_check(const struct vnet_conn_record *record)
{
	const char *wrong = vnet_record_check_kind(record);

	if (wrong)
		return wrong;
	if (record->family != 4 && record->family != 6)
		return "unknown address family";
	if (record->family == 4 && (!vnet_record_is_mapped(record->local) ||
				    !vnet_record_is_mapped(record->remote)))
		return "an IPv4 address is not in its mapped form";
	if (record->flags & ~VNET_CONN_FLAGS_ALL || record->closing & ~VNET_CLOSING_ALL)
		return "unknown flags";
	return NULL;
}

/* A translation lasts as its connection, which may be in any state. */
static inline __u8 vnet_record_lasts_as(const struct vnet_conn_record *record)
{
	if (record->state != VNET_STATE_NAT)
		return record->state;
	return record->proto == 6 ? VNET_STATE_ESTABLISHED : VNET_STATE_REPLIED;
}

/* Only after vnet_record_check. The entry's generation is 0: its first frame is re-checked. */
static inline void vnet_record_decode(const struct vnet_conn_record *record,
				      const struct vnet_settings *settings,
				      struct vnet_conn_key *key, struct vnet_conn *conn, __u64 now)
{
	__u64 remaining = le64toh(record->remaining_ms);
	__u64 age = le64toh(record->age_ms);
	__u64 life = vnet_state_life(settings, vnet_record_lasts_as(record));

	memset(key, 0, sizeof(*key));
	memset(conn, 0, sizeof(*conn));
	key->proto = record->proto;
	key->family = record->family;
	key->local_port = le16toh(record->local_port);
	key->remote_port = le16toh(record->remote_port);
	memcpy(key->local, record->local, 16);
	memcpy(key->remote, record->remote, 16);
	key->way = record->state == VNET_STATE_NAT ? record->way : 0;
	conn->state = record->state;
	conn->flags = record->flags | VNET_CONN_IMPORTED;
	conn->closing = record->closing;
	conn->mark = le32toh(record->mark);
	if (remaining > VNET_REMAINING_MS_MAX)
		remaining = VNET_REMAINING_MS_MAX;
	remaining *= 1000000;
	/* A record cannot outlive what a frame at this moment would give the connection. */
	conn->expires_ns = now + (remaining < life ? remaining : life);
	if (age > VNET_AGE_MS_MAX)
		age = VNET_AGE_MS_MAX;
	vnet_conn_set_age(conn, now, age * 1000000);
	conn->changed_ns = now;
	for (int i = 0; i < 2; i++) {
		conn->packets[i] = le64toh(record->packets[i]);
		conn->bytes[i] = le64toh(record->bytes[i]);
		if (key->way) {
			memcpy(&conn->window[i], &record->window[i], sizeof(conn->window[i]));
			continue;
		}
		conn->window[i].end = le32toh(record->window[i].end);
		conn->window[i].max_end = le32toh(record->window[i].max_end);
		conn->window[i].max_ack = le32toh(record->window[i].max_ack);
		conn->window[i].max_window = le16toh(record->window[i].max_window);
		conn->window[i].scale = record->window[i].scale;
		conn->window[i].flags = vnet_window_flags_old(record->window[i].flags);
		if (conn->window[i].scale > VNET_SCALE_MAX)
			conn->window[i].scale = VNET_SCALE_MAX;
	}
}

#endif
