/* SPDX-License-Identifier: Apache-2.0 */
/* Changes of a frame, in a copy of it that the run owns. */
#include <stdlib.h>

#include "env.h"

#define TAG_AT 12
#define TAG_SIZE 4

/* A copy with room for `length` bytes; NULL when memory is short. */
static __u8 *make_writable(struct vnet_ctx *ctx, size_t length)
{
	size_t room = length > ctx->length ? length : ctx->length;
	__u8 *copy = malloc(room ? room : 1);

	if (!copy)
		return NULL;
	memcpy(copy, ctx->data, ctx->length);
	free(ctx->changed);
	ctx->changed = copy;
	ctx->data = copy;
	return copy;
}

int vnet_pop_tag(struct vnet_ctx *ctx)
{
	__u8 *frame;

	if (ctx->length < TAG_AT + TAG_SIZE)
		return -1;
	frame = make_writable(ctx, ctx->length);
	if (!frame)
		return -1;
	memmove(frame + TAG_AT, frame + TAG_AT + TAG_SIZE, ctx->length - TAG_AT - TAG_SIZE);
	ctx->length -= TAG_SIZE;
	return 0;
}

int vnet_push_tag(struct vnet_ctx *ctx, __u16 tci)
{
	const __u8 tag[TAG_SIZE] = {0x81, 0, tci >> 8, tci & 0xff};
	__u8 *frame;

	if (ctx->length < TAG_AT)
		return -1;
	frame = make_writable(ctx, (size_t)ctx->length + TAG_SIZE);
	if (!frame)
		return -1;
	memmove(frame + TAG_AT + TAG_SIZE, frame + TAG_AT, ctx->length - TAG_AT);
	memcpy(frame + TAG_AT, tag, TAG_SIZE);
	ctx->length += TAG_SIZE;
	return 0;
}

int vnet_rewrite(struct vnet_ctx *ctx, const __u8 *frame, __u32 length)
{
	__u8 *copy = make_writable(ctx, length);

	if (!copy)
		return -1;
	memcpy(copy, frame, length);
	ctx->length = length;
	return 0;
}

int vnet_store(struct vnet_ctx *ctx, __u32 offset, const void *from, __u32 length)
{
	__u8 *frame;

	if (offset > ctx->length || length > ctx->length - offset)
		return -1;
	frame = ctx->changed ? ctx->changed : make_writable(ctx, ctx->length);
	if (!frame)
		return -1;
	memcpy(frame + offset, from, length);
	return 0;
}
