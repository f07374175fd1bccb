/* SPDX-License-Identifier: Apache-2.0 */
/* The lattice of masks that subtables are chosen from. */
#ifndef VNET_CLASSIFIER_RELAX_H
#define VNET_CLASSIFIER_RELAX_H

#include "fields.h"

enum vnet_lattice_flags {
	VNET_LATTICE_SOURCE_PORT = 1,      /* where it is exact */
	VNET_LATTICE_DESTINATION_PORT = 2, /* where it is exact */
	VNET_LATTICE_REST = 4,             /* everything that is neither address nor port */
	VNET_LATTICE_FLAGS = 8,
};
#define VNET_LATTICE_LENGTHS 21

/* What of a rule's mask: so many leading bits of the addresses, and more. */
struct vnet_lattice {
	__u8 source;
	__u8 destination;
	__u8 flags;
};

/* The lengths, ascending from 0, that are within a mask of 16 bytes. Returns how many. */
__u32 vnet_lattice_lengths(const __u64 *mask, __u8 *found);
/* The largest point of the lattice within a mask. */
void vnet_lattice_floor(const struct vnet_fields *whole, struct vnet_fields *mask);
void vnet_lattice_mask(const struct vnet_fields *whole, const struct vnet_lattice *point,
		       struct vnet_fields *mask);

#endif
