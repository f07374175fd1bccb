/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Limits of bytes and frames a second, by the generic cell rate algorithm (ITU-T I.371): one word
 * says when all that has passed would have been sent at the rate. It is a token bucket that needs
 * no lock: several CPUs share it by compare and swap. A frame passes while any of the burst is
 * left, and may overdraw it: else no GSO frame would ever pass a burst that is smaller than it.
 */
#ifndef VNET_METER_H
#define VNET_METER_H

#include "mark.h"

/* Time is in ticks of 1/64 ns: whole ns would make small frames at 100 Gbit/s wrong by percents. */
#define VNET_METER_TICKS 64ULL

#define VNET_METER_TRIES 8

/* Ticks for `units`. units < 2^20 and mult < 2^43, so it cannot overflow. */
VNET_INLINE __u64 vnet_rate_cost(const struct vnet_rate *rate, __u32 units)
{
	return units * rate->mult >> rate->shift;
}

VNET_INLINE __u64 vnet_meter_start(__u64 due, __u64 now)
{
	return due > now ? due : now;
}

/* Whether a frame may pass, with nothing taken yet. */
VNET_INLINE int vnet_rate_has_room(const struct vnet_rate *rate, __u64 now)
{
	__u64 due = *(const volatile __u64 *)&rate->due;

	return !rate->mult || vnet_meter_start(due, now) - now <= rate->burst;
}

/* Takes `units`, or nothing and says so. */
VNET_INLINE int vnet_rate_take(struct vnet_rate *rate, __u64 now, __u32 units)
{
	__u64 cost = vnet_rate_cost(rate, units), due, start;

	if (!rate->mult)
		return 1;
	for (int i = 0; i < VNET_METER_TRIES; i++) {
		due = *(volatile __u64 *)&rate->due;
		start = vnet_meter_start(due, now);
		if (start - now > rate->burst)
			return 0;
		if (__sync_val_compare_and_swap(&rate->due, due, start + cost) == due)
			return 1;
	}
	/* Others were quicker each time, so it is not behind now: nothing is lost. */
	__sync_fetch_and_add(&rate->due, cost);
	return 1;
}

/* Bytes that every segment of a GSO frame repeats; IPv6 extension headers are left out. */
VNET_INLINE __u32 vnet_gso_headers(struct vnet_ctx *ctx)
{
	__u32 l4 = VNET_ETH_LEN + 40;
	__u8 header[10], offset = 0, proto;

	if (vnet_load(ctx, VNET_ETH_LEN, header, sizeof(header)))
		return 0;
	proto = header[6];
	if (header[0] >> 4 == 4) {
		l4 = VNET_ETH_LEN + (header[0] & 15) * 4;
		proto = header[9];
	}
	if (proto != VNET_TCP)
		return l4 + 8;
	return vnet_load(ctx, l4 + 12, &offset, 1) ? 0 : l4 + (offset >> 4) * 4;
}

/* Bytes and frames on the wire: what a GSO frame becomes when it is cut. */
VNET_INLINE void vnet_wire_size(struct vnet_ctx *ctx, __u32 *frames, __u32 *bytes)
{
	__u32 mss = vnet_gso_size(ctx), headers;

	*frames = 1;
	*bytes = vnet_length(ctx);
	if (!mss)
		return;
	headers = vnet_gso_headers(ctx);
	if (*bytes <= headers)
		return;
	*frames = (*bytes - headers + mss - 1) / mss;
	*bytes += (*frames - 1) * headers;
	/* Only what a driver made up is as large: the arithmetic needs a bound. */
	if (*bytes >= VNET_METER_UNITS)
		*bytes = VNET_METER_UNITS - 1;
	if (*frames >= VNET_METER_UNITS)
		*frames = VNET_METER_UNITS - 1;
}

/*
 * A frame that would pass otherwise: NONE, and it has the port's mark, or RATE when the port has
 * sent its share. It takes numbers, not the parsed packet: were that needed after the guard, the verifier of Linux 6.1 would
 * have to tell all of the guard's ways apart, and gives up. For the same reason it is a function
 * of its own.
 */
VNET_OUTLINE __u32 vnet_meter(struct vnet_ctx *ctx, __u32 local_id, __u32 direction)
{
	struct vnet_meters *meters = vnet_meters_of(ctx, local_id);
	struct vnet_meter *meter;
	__u32 frames, bytes, mark;
	__u64 now;

	if (!meters)
		return VNET_REASON_NONE;
	meter = direction == VNET_EGRESS ? &meters->meter[VNET_EGRESS]
					 : &meters->meter[VNET_INGRESS];
	now = vnet_now_exact(ctx) * VNET_METER_TICKS;
	vnet_wire_size(ctx, &frames, &bytes);
	/* What one limit refuses costs nothing of the other. */
	if (!vnet_rate_has_room(&meter->frames, now) || !vnet_rate_take(&meter->bytes, now, bytes))
		return VNET_REASON_RATE;
	vnet_rate_take(&meter->frames, now, frames);
	mark = direction == VNET_EGRESS ? meters->mark[VNET_EGRESS] : meters->mark[VNET_INGRESS];
	if (mark)
		vnet_mark(ctx, mark & 63);
	return VNET_REASON_NONE;
}

#endif
