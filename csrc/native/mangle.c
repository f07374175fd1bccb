/* SPDX-License-Identifier: Apache-2.0 */
/* Fields of a frame, and the checksums over them. */
#include "handler_env.h"

/* RFC 1624, equation 3: HC' = ~(~HC + ~m + m'). */
static __u16 fixed(__u16 sum, __u32 from, __u32 to)
{
	__u32 total = (__u16)~sum;

	total += (~from & 0xffff) + (~from >> 16) + (to & 0xffff) + (to >> 16);
	total = (total & 0xffff) + (total >> 16);
	total = (total & 0xffff) + (total >> 16);
	return ~total;
}

int vnet_fix_sum(struct vnet_ctx *ctx, __u32 offset, __u32 from, __u32 to, __u32 size)
{
	__u16 sum;

	(void)size;
	if (vnet_load(ctx, offset, &sum, sizeof(sum)))
		return -1;
	sum = fixed(sum, from, to);
	return vnet_store(ctx, offset, &sum, sizeof(sum));
}

int vnet_fix_transport_sum(struct vnet_ctx *ctx, __u32 offset, __u32 from, __u32 to, __u64 flags)
{
	__u16 sum;

	if (vnet_load(ctx, offset, &sum, sizeof(sum)))
		return -1;
	if (flags & VNET_SUM_ZERO_IS_NONE && !sum)
		return 0;
	sum = fixed(sum, from, to);
	if (flags & VNET_SUM_ZERO_IS_NONE && !sum)
		sum = 0xffff;
	return vnet_store(ctx, offset, &sum, sizeof(sum));
}
