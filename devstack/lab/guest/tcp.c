/* TCP connections that carry numbered messages.
 *
 * The dialling end sends one numbered message per interval and connection and expects each back
 * as an echo, in order; the listening end expects the numbers in order and echoes them. Either
 * end counts what was not in order, what broke, and the longest silence.
 */
#define _GNU_SOURCE
#include "tcp.h"

#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#define MAGIC 0x564e4c42u /* "VNLB" */

struct message {
    uint32_t magic, reserved;
    uint64_t number;
};
_Static_assert(sizeof(struct message) == MESSAGE_SIZE, "the wire format has no padding");

void counters_add(struct counters *into, const struct counters *from) {
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

void connection_fail(struct connection *connection, int error) {
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
    bool blocked = connection->out_length > 0;
    if (blocked != connection->blocked)
        loop_change(&connection->source, blocked ? EPOLLOUT : EPOLLIN);
    connection->blocked = blocked;
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

void connection_opened(struct connection *connection) {
    setsockopt(connection->source.fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
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

struct connection *connection_new(struct group *group, int fd) {
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

void connection_dial(struct connection *connection) {
    const struct address *address = &connection->group->address;
    int fd = socket(address->storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0) {
        connection_fail(connection, errno);
        return;
    }
    connection->source.fd = fd;
    connection->state = CONNECTING;
    loop_add(&connection->source, EPOLLOUT);
    if (connect(fd, (const struct sockaddr *)&address->storage, address->length) < 0 &&
        errno != EINPROGRESS)
        connection_fail(connection, errno);
}

/* A connection that was due more than once (the machine stood still) sends once: no burst. */
void connection_send_due(struct connection *connection, uint64_t now) {
    uint64_t interval = connection->group->interval_ns;

    if (now < connection->next_send_ns)
        return;
    connection->next_send_ns += interval * ((now - connection->next_send_ns) / interval + 1);
    if (connection->out_length)
        return;
    queue_message(connection, connection->number_out++);
    connection_flush(connection);
}
