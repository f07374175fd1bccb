/* What tcp.c (connections) and tcp_group.c (groups, their commands and counters) share. */
#ifndef LAB_TCP_H
#define LAB_TCP_H

#include "traffic.h"

#define MESSAGE_SIZE 16

enum state { WAITING, CONNECTING, OPEN, GONE };

struct counters {
    uint64_t sent, received, out_of_order, corrupt;
    uint64_t accepted, failed, reset, timed_out, closed;
};

struct group;

struct connection {
    struct source source; /* first: a source is cast back to its connection */
    struct group *group;
    struct connection *next;
    enum state state;
    bool blocked; /* the other end takes nothing, so nothing is read from it */
    uint64_t next_send_ns, number_out, number_in;
    struct counters counters;
    struct gap gap;
    uint32_t in_length, out_length;
    uint8_t in[MESSAGE_SIZE];
    uint8_t out[512];
};

struct group {
    struct group *next;
    char name[32];
    bool dials;
    struct address address;
    uint64_t interval_ns;
    uint64_t wanted;
    char last_error[64];
    struct connection *connections;
    struct counters gone; /* of connections that are no more */
    struct gap gone_gap;
    struct source listener;
};

extern struct group *groups;

/* A connection of the group on a connected socket, or one that waits to be dialled (fd -1). */
struct connection *connection_new(struct group *group, int fd);
void connection_dial(struct connection *connection);
void connection_opened(struct connection *connection);
/* Sends the next number when its time has come. */
void connection_send_due(struct connection *connection, uint64_t now);
/* Counts how the connection ended (an errno, or 0 when it was closed) and forgets it. */
void connection_fail(struct connection *connection, int error);
void counters_add(struct counters *into, const struct counters *from);

#endif
