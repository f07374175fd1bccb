/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The part of env.h that XDP programs have of their own: they only read frames. */
#ifndef VNET_XDP_ENV_H
#define VNET_XDP_ENV_H

VNET_INLINE int vnet_load(struct xdp_md *xdp, __u32 offset, void *to, __u32 length)
{
	return (int)bpf_xdp_load_bytes(xdp, offset, to, length);
}

VNET_INLINE const __u8 *vnet_peek(struct xdp_md *xdp, __u32 offset, __u32 length)
{
	const __u8 *data = vnet_frame_data(xdp);

	return data + offset + length <= vnet_frame_data_end(xdp) ? data + offset : NULL;
}

VNET_INLINE __u32 vnet_length(struct xdp_md *xdp)
{
	return vnet_frame_data_end(xdp) - vnet_frame_data(xdp);
}

VNET_INLINE __u32 vnet_ifindex(struct xdp_md *xdp)
{
	return xdp->ingress_ifindex;
}

/* Tags are still in the frame. */
VNET_INLINE int vnet_tagged(struct xdp_md *xdp)
{
	return 0;
}

/* RFC 791: an interface takes that much, whatever its MTU. */
#define VNET_FITS_ALL 576

/* Whether the interface takes a frame as long as this one: the kernel drops what it does not. */
/* No program of XDP holds frames: a held port takes the long way. */
VNET_INLINE int vnet_is_replayed(struct xdp_md *xdp)
{
	return 0;
}

VNET_INLINE int vnet_is_from_outside(struct xdp_md *xdp)
{
	return 0;
}

VNET_INLINE int vnet_fits(struct xdp_md *xdp, __u32 ifindex)
{
	__u32 mtu = 0;

	return vnet_length(xdp) <= VNET_FITS_ALL || !bpf_check_mtu(xdp, ifindex, &mtu, 0, 0);
}

#endif
