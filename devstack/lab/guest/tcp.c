/* TCP groups: a listener with what it accepted, or N connections dialled to one place.
 *
 * The dialling end sends one numbered message per interval and connection and expects each back
 * as an echo, in order; the listening end expects the numbers in order and echoes them. Either
 * end counts what was not in order, what broke, and the longest silence.
 */
#define _GNU_SOURCE
#include "traffic.h"

#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define MAGIC 0x564e4c42u /* "VNLB" */
#define MAX_DIALLED 20000

struct message {
    uint32_t magic, reserved;
    uint64_t number;
};
_Static_assert(sizeof(struct message) == 16, "the wire format has no padding");

enum state { WAITING, CONNECTING, OPEN, GONE };
static const char *const STATE_NAMES[] = {"waiting", "connecting", "open", "gone"};

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
    uint64_t next_send_ns, number_out, number_in;
    struct counters counters;
    struct gap gap;
    uint32_t in_length, out_length;
    uint8_t in[sizeof(struct message)];
    uint8_t out[512];
};

struct group {
    struct group *next;
    char name[32];
    bool dials, closing;
    struct address address;
    uint64_t interval_ns;
    uint64_t wanted;
    char last_error[64];
    struct connection *connections;
    struct counters gone;  /* of connections that are no more */
    struct gap gone_gap;
    struct source listener;
};

static struct group *groups;

static struct group *group_find(const char *name) {
    for (struct group *group = groups; group; group = group->next)
        if (!strcmp(group->name, name))
            return group;
    return NULL;
}

static struct group *group_new(const char *name) {
    struct group *group = calloc(1, sizeof *group);
    if (!group)
        return NULL;
    snprintf(group->name, sizeof group->name, "%s", name);
    group->next = groups;
    groups = group;
    return group;
}

static void counters_add(struct counters *into, const struct counters *from) {
    into->sent += from->sent;
    into->received += from->received;
    into->out_of_order += from->out_of_order;
    into->corrupt += from->corrupt;
    into->accepted += from->accepted;
    into->failed += from->failed;
    into->reset += from->reset;
    into->timed_out += from->timed_out;
    into->closed += from->closed;
}

static void connection_release(struct source *source) {
    free(source);
}

/* Takes the connection out of its group, whose totals keep what it counted. */
static void connection_end(struct connection *connection) {
    struct group *group = connection->group;
    struct connection **link = &group->connections;

    while (*link != connection)
        link = &(*link)->next;
    *link = connection->next;
    counters_add(&group->gone, &connection->counters);
    group->gone_gap.stalls += connection->gap.stalls;
    if (connection->gap.longest_ns > group->gone_gap.longest_ns)
        group->gone_gap.longest_ns = connection->gap.longest_ns;
    connection->state = GONE;
    if (connection->source.fd >= 0)
        loop_forget(&connection->source);
    else
        free(connection);
}

static void connection_fail(struct connection *connection, int error) {
    struct counters *counters = &connection->counters;

    if (connection->state != OPEN)
        counters->failed++;
    else if (error == 0)
        counters->closed++;
    else if (error == ETIMEDOUT || error == EHOSTUNREACH)
        counters->timed_out++;
    else
        counters->reset++;
    snprintf(connection->group->last_error, sizeof connection->group->last_error, "%s",
             error ? strerrorname_np(error) : "closed by the other end");
    connection_end(connection);
}

/* Sends what is pending; false when the connection ended. */
static bool connection_flush(struct connection *connection) {
    while (connection->out_length) {
        ssize_t sent =
            send(connection->source.fd, connection->out, connection->out_length, MSG_NOSIGNAL);
        if (sent < 0 && (errno == EAGAIN || errno == EINTR))
            break;
        if (sent < 0) {
            connection_fail(connection, errno);
            return false;
        }
        connection->out_length -= (uint32_t)sent;
        memmove(connection->out, connection->out + sent, connection->out_length);
    }
    /* While the other end takes nothing, nothing more is read from it. */
    loop_change(&connection->source, connection->out_length ? EPOLLOUT : EPOLLIN);
    return true;
}

static void queue_message(struct connection *connection, uint64_t number) {
    struct message message = {.magic = htobe32(MAGIC), .number = htobe64(number)};
    memcpy(connection->out + connection->out_length, &message, sizeof message);
    connection->out_length += sizeof message;
    connection->counters.sent++;
}

static void take_message(struct connection *connection, uint64_t now) {
    struct message message;

    memcpy(&message, connection->in, sizeof message);
    connection->in_length = 0;
    if (be32toh(message.magic) != MAGIC) {
        connection->counters.corrupt++;
        return;
    }
    uint64_t number = be64toh(message.number);
    if (number != connection->number_in)
        connection->counters.out_of_order++;
    connection->number_in = number + 1;
    connection->counters.received++;
    gap_seen(&connection->gap, now);
    if (!connection->group->dials)
        queue_message(connection, number);
}

/* Takes one chunk: never more messages than their echoes have room for. */
static void connection_read(struct connection *connection) {
    uint8_t chunk[sizeof connection->out - sizeof(struct message)];
    ssize_t length = recv(connection->source.fd, chunk, sizeof chunk, 0);

    if (length < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (length <= 0) {
        connection_fail(connection, length < 0 ? errno : 0);
        return;
    }
    uint64_t now = now_ns();
    for (ssize_t i = 0; i < length; i++) {
        connection->in[connection->in_length++] = chunk[i];
        if (connection->in_length == sizeof connection->in)
            take_message(connection, now);
    }
    if (connection->out_length)
        connection_flush(connection);
}

static void connection_opened(struct connection *connection) {
    connection->state = OPEN;
    connection->gap.last_ns = now_ns();
    connection->next_send_ns = connection->gap.last_ns;
    loop_change(&connection->source, EPOLLIN);
}

static void on_connection(struct source *source, uint32_t events) {
    struct connection *connection = (struct connection *)source;

    if (connection->state == CONNECTING) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(source->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error)
            connection_fail(connection, error);
        else
            connection_opened(connection);
        return;
    }
    if (events & EPOLLOUT) {
        connection_flush(connection);
        return;
    }
    connection_read(connection);
}

static struct connection *connection_new(struct group *group, int fd) {
    struct connection *connection = calloc(1, sizeof *connection);
    if (!connection)
        return NULL;
    connection->source =
        (struct source){.fd = fd, .ready = on_connection, .release = connection_release};
    connection->group = group;
    connection->next = group->connections;
    group->connections = connection;
    return connection;
}

static void set_nodelay(int fd) {
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
}

static void connection_dial(struct connection *connection) {
    const struct address *address = &connection->group->address;
    int fd = socket(address->storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0) {
        connection_fail(connection, errno);
        return;
    }
    set_nodelay(fd);
    connection->source.fd = fd;
    connection->state = CONNECTING;
    loop_add(&connection->source, EPOLLOUT);
    if (connect(fd, (const struct sockaddr *)&address->storage, address->length) < 0 &&
        errno != EINPROGRESS)
        connection_fail(connection, errno);
}

/* A connection that was due more than once (the machine stood still) sends once: no burst. */
static void connection_send_due(struct connection *connection, uint64_t now) {
    uint64_t interval = connection->group->interval_ns;

    if (now < connection->next_send_ns)
        return;
    connection->next_send_ns += interval * ((now - connection->next_send_ns) / interval + 1);
    if (connection->out_length)
        return;
    queue_message(connection, connection->number_out++);
    connection_flush(connection);
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
        set_nodelay(fd);
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
        return "out of memory";
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
        return "out of memory";
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
