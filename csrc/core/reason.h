/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Why a frame was dropped. The enum is the index of the counters, the names are what operators
 * read. New reasons go to the end: the numbers live in pinned maps.
 */
#ifndef VNET_REASON_H
#define VNET_REASON_H

#define VNET_REASONS(X)                                                                            \
	X(NONE, "none")                      /* not dropped */                                     \
	X(MALFORMED, "malformed")            /* headers cut short or contradictory */              \
	X(ETHERTYPE, "ethertype")            /* neither IPv4, IPv6, ARP nor RARP */                \
	X(VLAN, "vlan")                      /* tagged frame from a VM, or to one */               \
	X(MAC_SPOOF, "mac-spoof")            /* source MAC is not the port's */                    \
	X(IP_SPOOF, "ip-spoof")              /* source address is not the port's */                \
	X(ARP_SPOOF, "arp-spoof")            /* ARP or RARP speaks for somebody else */            \
	X(ND_SPOOF, "nd-spoof")              /* neighbour discovery speaks for somebody else */    \
	X(ROUTER_ADVERT, "router-advert")    /* router advertisement or redirect from a VM */      \
	X(DHCP_SERVER, "dhcp-server")        /* DHCP server's answer from a VM */                  \
	X(NO_POLICY, "no-policy")            /* the port has no policy yet */                      \
	X(POLICY, "policy")                  /* no rule allows it */                               \
	X(NO_CONNECTION, "no-connection")    /* mid-stream TCP that belongs to no connection */    \
	X(TCP_FLAGS, "tcp-flags")            /* impossible combination of TCP flags */             \
	X(FRAGMENT, "fragment")              /* later fragment whose first was not seen */         \
	X(QUOTA, "quota")                    /* the port holds as many connections as it may */    \
	X(NO_DESTINATION, "no-destination")  /* no local port has the MAC, and no uplink */        \
	X(OTHER_MAC, "other-mac")            /* unicast frame that is not for this port's MAC */   \
	X(NO_PORT, "no-port")                /* the interface is guarded, but by no port */        \
	X(EXTENSION, "extension")            /* more IPv6 extension headers than are followed */   \
	X(OTHER_ADDRESS, "other-address")    /* it would begin a connection with a foreign address */ \
	X(RATE, "rate")                      /* more than the port's limits let through */         \
	X(HANDLER, "handler")                /* a rule or a miss of the operator's tables says so */     \
	X(CONTROLLER_RATE, "controller-rate") /* more for the controller than it takes of the port */ \
	X(TCP_WINDOW, "tcp-window")          /* TCP sequence numbers are not the connection's */   \
	X(HALF_OPEN, "half-open")            /* too many openings that nobody completes */         \
	X(NAT, "nat")                        /* no port is free for its translation */

enum vnet_reason {
#define VNET_REASON_ENUM(name, text) VNET_REASON_##name,
	VNET_REASONS(VNET_REASON_ENUM)
#undef VNET_REASON_ENUM
	VNET_REASON_COUNT,
};

#define VNET_REASONS_MAX 32
_Static_assert(VNET_REASON_COUNT <= VNET_REASONS_MAX, "counters have no room for the reasons");

#endif
