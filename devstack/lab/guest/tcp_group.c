/* TCP groups: a listener with what it accepted, or N connections dialled to one place. */
#define _GNU_SOURCE
#include "tcp.h"

#include <errno.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define MAX_DIALLED 20000

static const char NO_GROUP[] = "a group's name has at most 31 characters, or memory is short";
static const char *const STATE_NAMES[] = {"waiting", "connecting", "open", "gone"};

struct group *groups;

static struct group *group_find(const char *name) {
    for (struct group *group = groups; group; group = group->next)
        if (!strcmp(group->name, name))
            return group;
    return NULL;
}

static struct group *group_new(const char *name) {
    struct group *group = strlen(name) < sizeof group->name ? calloc(1, sizeof *group) : NULL;
    if (!group)
        return NULL;
    snprintf(group->name, sizeof group->name, "%s", name);
    group->next = groups;
    groups = group;
    return group;
}

void tcp_tick(uint64_t now) {
    for (struct group *group = groups; group; group = group->next) {
        if (!group->dials)
            continue;
        for (struct connection *connection = group->connections, *next; connection;
             connection = next) {
            next = connection->next;
            if (connection->state == WAITING && now >= connection->next_send_ns)
                connection_dial(connection);
            else if (connection->state == OPEN)
                connection_send_due(connection, now);
        }
    }
}

static void on_accept(struct source *source, uint32_t events) {
    struct group *group = (struct group *)((char *)source - offsetof(struct group, listener));
    (void)events;
    for (;;) {
        int fd = accept4(source->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        struct connection *connection = connection_new(group, fd);
        if (!connection) {
            close(fd);
            return;
        }
        connection->counters.accepted = 1;
        loop_add(&connection->source, EPOLLIN);
        connection_opened(connection);
    }
}

const char *tcp_listen(const char *name, const char *port) {
    struct address address;

    if (group_find(name))
        return NULL;
    if (!address_parse(&address, "::", port))
        return "the port must be a number from 1 to 65535";
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &(int){0}, sizeof(int));
    if (bind(fd, (struct sockaddr *)&address.storage, address.length) < 0 ||
        listen(fd, 4096) < 0) {
        const char *problem = strerrordesc_np(errno);
        close(fd);
        return problem;
    }
    struct group *group = group_new(name);
    if (!group) {
        close(fd);
        return NO_GROUP;
    }
    group->address = address;
    group->listener = (struct source){.fd = fd, .ready = on_accept};
    loop_add(&group->listener, EPOLLIN);
    return NULL;
}

const char *tcp_dial(const char *name, const char *host, const char *port, const char *count,
                     const char *interval_ms) {
    struct address address;
    char *end_count, *end_interval;
    unsigned long wanted = strtoul(count, &end_count, 10);
    unsigned long interval = strtoul(interval_ms, &end_interval, 10);

    if (group_find(name))
        return NULL; /* asked again because the answer was lost */
    if (!address_parse(&address, host, port))
        return "HOST must be a numeric address and PORT a number from 1 to 65535";
    if (*end_count || wanted == 0 || wanted > MAX_DIALLED)
        return "N must be a number from 1 to 20000";
    if (*end_interval || interval < TICK_MS || interval > 60000)
        return "INTERVAL_MS must be a number from 50 to 60000";
    struct group *group = group_new(name);
    if (!group)
        return NO_GROUP;
    group->dials = true;
    group->address = address;
    group->wanted = wanted;
    group->interval_ns = interval * NS_PER_MS;
    uint64_t now = now_ns();
    for (unsigned long i = 0; i < wanted; i++) {
        struct connection *connection = connection_new(group, -1);
        if (!connection)
            return "out of memory";
        /* Spread over one interval, so that a slow guest never faces them all at once. */
        connection->next_send_ns = now + group->interval_ns * i / wanted;
    }
    return NULL;
}

const char *tcp_close(const char *name) {
    struct group *group = group_find(name), **link = &groups;

    if (!group || !group->dials)
        return "there is no such dialled group";
    while (group->connections) {
        group->connections->state = OPEN;
        connection_fail(group->connections, 0);
    }
    while (*link != group)
        link = &(*link)->next;
    *link = group->next;
    free(group);
    return NULL;
}

void tcp_reset_counters(uint64_t now) {
    for (struct group *group = groups; group; group = group->next) {
        memset(&group->gone, 0, sizeof group->gone);
        memset(&group->gone_gap, 0, sizeof group->gone_gap);
        group->last_error[0] = 0;
        for (struct connection *connection = group->connections; connection;
             connection = connection->next) {
            memset(&connection->counters, 0, sizeof connection->counters);
            connection->gap = (struct gap){.last_ns = connection->gap.last_ns ? now : 0};
        }
    }
}

static void group_stats(FILE *out, const struct group *group, uint64_t now) {
    struct counters total = group->gone;
    uint64_t in_state[4] = {0}, stalled = 0, stalls = group->gone_gap.stalls;
    uint64_t longest = group->gone_gap.longest_ns / NS_PER_MS;

    for (const struct connection *connection = group->connections; connection;
         connection = connection->next) {
        bool open = connection->state == OPEN;
        uint64_t gap = gap_longest_ms(&connection->gap, now, open);
        counters_add(&total, &connection->counters);
        in_state[connection->state]++;
        stalled += open && gap_is_stalled(&connection->gap, now);
        stalls += connection->gap.stalls;
        longest = gap > longest ? gap : longest;
    }
    fprintf(out, "{\"name\":\"%s\",\"role\":\"%s\",\"address\":", group->name,
            group->dials ? "dial" : "listen");
    address_print(out, &group->address.storage);
    fprintf(out,
            ",\"wanted\":%ju,\"accepted\":%ju,\"connecting\":%ju,\"open\":%ju,\"stalled\":%ju,"
            "\"failed\":%ju,\"reset\":%ju,\"timed_out\":%ju,\"closed\":%ju,\"sent\":%ju,"
            "\"received\":%ju,\"out_of_order\":%ju,\"corrupt\":%ju,\"stalls\":%ju,"
            "\"longest_gap_ms\":%ju,\"last_error\":\"%s\"}",
            group->wanted, total.accepted, in_state[WAITING] + in_state[CONNECTING],
            in_state[OPEN], stalled, total.failed, total.reset, total.timed_out, total.closed,
            total.sent, total.received, total.out_of_order, total.corrupt, stalls, longest,
            group->last_error);
}

void tcp_stats(FILE *out, uint64_t now) {
    fputc('[', out);
    for (const struct group *group = groups; group; group = group->next) {
        group_stats(out, group, now);
        if (group->next)
            fputc(',', out);
    }
    fputc(']', out);
}

static void connection_stats(FILE *out, const struct connection *connection, uint64_t now) {
    struct sockaddr_storage local = {0}, remote = connection->group->address.storage;
    socklen_t size = sizeof local;

    if (connection->source.fd >= 0) {
        getsockname(connection->source.fd, (struct sockaddr *)&local, &size);
        size = sizeof remote;
        getpeername(connection->source.fd, (struct sockaddr *)&remote, &size);
    } else {
        local.ss_family = remote.ss_family;
    }
    fprintf(out, "{\"state\":\"%s\",\"local\":", STATE_NAMES[connection->state]);
    address_print(out, &local);
    fputs(",\"remote\":", out);
    address_print(out, &remote);
    fprintf(out,
            ",\"sent\":%ju,\"received\":%ju,\"out_of_order\":%ju,\"stalls\":%ju,"
            "\"longest_gap_ms\":%ju}",
            connection->counters.sent, connection->counters.received,
            connection->counters.out_of_order, connection->gap.stalls,
            gap_longest_ms(&connection->gap, now, connection->state == OPEN));
}

bool tcp_connections(FILE *out, const char *name, uint64_t now) {
    const struct group *group = group_find(name);

    if (!group)
        return false;
    fputc('[', out);
    for (const struct connection *connection = group->connections; connection;
         connection = connection->next) {
        connection_stats(out, connection, now);
        if (connection->next)
            fputc(',', out);
    }
    fputc(']', out);
    return true;
}
