/* UDP streams: numbered datagrams at a steady rate, and the receiver that misses none. */
#define _GNU_SOURCE
#include "traffic.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define MAGIC 0x564e4c55u /* "VNLU" */
#define WINDOW 4096       /* numbers back that a late datagram is told from a doubled one */
#define MAX_STREAMS 256
#define PACE_NS 2000000         /* between two of a sender's bursts */
/* From the first datagram to the second. What waits until the receiver's MAC is known, the kernel
 * sends from the processor that hears the answer, in no order with what others send then. */
#define LEAD_NS 200000000
#define RECEIVE_BUFFER (16 << 20) /* a burst after a pause is not the tool's to lose */

struct datagram {
    uint32_t magic, stream;
    uint64_t number;
};
_Static_assert(sizeof(struct datagram) == 16, "the wire format has no padding");

struct sender {
    struct source source;
    struct sender *next;
    char name[32];
    uint32_t stream;
    uint64_t rate, started_ns, number, errors;
};

struct stream {
    uint32_t id;
    struct sockaddr_storage from;
    uint64_t first, expected, received, lost, late, doubled;
    struct gap gap;
    uint8_t seen[WINDOW];
};

static struct sender *senders;
static struct stream streams[MAX_STREAMS];
static unsigned stream_count;
static struct source listener = {.fd = -1};
static struct source pacer = {.fd = -1};

static struct stream *stream_of(uint32_t id, const struct sockaddr_storage *from, uint64_t first) {
    for (unsigned i = 0; i < stream_count; i++)
        if (streams[i].id == id)
            return &streams[i];
    if (stream_count == MAX_STREAMS)
        return NULL;
    struct stream *stream = &streams[stream_count++];
    *stream = (struct stream){.id = id, .from = *from, .first = first, .expected = first};
    return stream;
}

static void take_datagram(struct stream *stream, uint64_t number, uint64_t now) {
    if (number >= stream->expected) {
        if (number - stream->expected >= WINDOW)
            memset(stream->seen, 0, sizeof stream->seen);
        else
            for (uint64_t missing = stream->expected; missing < number; missing++)
                stream->seen[missing % WINDOW] = 0;
        stream->lost += number - stream->expected;
        stream->expected = number + 1;
    } else if (number < stream->first || stream->expected - number > WINDOW) {
        stream->late++; /* too old to tell; it was counted as lost or was before the first */
        return;
    } else if (stream->seen[number % WINDOW]) {
        stream->doubled++;
        return;
    } else {
        stream->late++;
        stream->lost--;
    }
    stream->seen[number % WINDOW] = 1;
    stream->received++;
    gap_seen(&stream->gap, now);
}

static void on_datagrams(struct source *source, uint32_t events) {
    struct datagram datagram;
    struct sockaddr_storage from;
    (void)events;
    for (int i = 0; i < 64; i++) {
        socklen_t size = sizeof from;
        ssize_t length = recvfrom(source->fd, &datagram, sizeof datagram, MSG_DONTWAIT,
                                  (struct sockaddr *)&from, &size);
        if (length < 0)
            return;
        if (length != sizeof datagram || be32toh(datagram.magic) != MAGIC)
            continue;
        uint64_t number = be64toh(datagram.number);
        struct stream *stream = stream_of(be32toh(datagram.stream), &from, number);
        if (stream)
            take_datagram(stream, number, now_ns());
    }
}

const char *udp_listen(const char *port) {
    struct address address;

    if (listener.fd >= 0)
        return NULL;
    if (!address_parse(&address, "::", port))
        return "the port must be a number from 1 to 65535";
    int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int room = RECEIVE_BUFFER;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
    if (bind(fd, (struct sockaddr *)&address.storage, address.length) < 0) {
        const char *problem = strerrordesc_np(errno);
        close(fd);
        return problem;
    }
    listener = (struct source){.fd = fd, .ready = on_datagrams};
    loop_add(&listener, EPOLLIN);
    return NULL;
}

static void sender_release(struct source *source) {
    free(source);
}

static void on_sender(struct source *source, uint32_t events) {
    int error;
    socklen_t size = sizeof error;
    (void)events;
    ((struct sender *)source)->errors++;
    getsockopt(source->fd, SOL_SOCKET, SO_ERROR, &error, &size);
}

static void on_pace(struct source *source, uint32_t events) {
    uint64_t expired;
    (void)events;
    if (read(source->fd, &expired, sizeof expired) == sizeof expired)
        udp_tick(now_ns());
}

/* Faster than the tool's own tick: a network does not send in bursts of a twentieth second. */
static void start_pacer(void) {
    const struct itimerspec every = {.it_interval.tv_nsec = PACE_NS, .it_value.tv_nsec = PACE_NS};

    if (pacer.fd >= 0)
        return;
    pacer = (struct source){.fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC),
                            .ready = on_pace};
    timerfd_settime(pacer.fd, 0, &every, NULL);
    loop_add(&pacer, EPOLLIN);
}

const char *udp_send(const char *name, const char *host, const char *port, const char *rate) {
    struct address address;
    char *end;
    unsigned long per_second = strtoul(rate, &end, 10);

    for (struct sender *sender = senders; sender; sender = sender->next)
        if (!strcmp(sender->name, name))
            return NULL;
    if (!address_parse(&address, host, port))
        return "HOST must be a numeric address and PORT a number from 1 to 65535";
    if (strlen(name) >= sizeof senders->name)
        return "a sender's name has at most 31 characters";
    if (*end || per_second == 0 || per_second > 100000)
        return "RATE must be a number from 1 to 100000";
    struct sender *sender = calloc(1, sizeof *sender);
    if (!sender)
        return "out of memory";
    int fd = socket(address.storage.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (connect(fd, (struct sockaddr *)&address.storage, address.length) < 0) {
        const char *problem = strerrordesc_np(errno);
        close(fd);
        free(sender);
        return problem;
    }
    sender->source = (struct source){.fd = fd, .ready = on_sender, .release = sender_release};
    snprintf(sender->name, sizeof sender->name, "%s", name);
    uint64_t now = now_ns();
    sender->started_ns = now + LEAD_NS;
    sender->stream = (uint32_t)(now ^ ((uint64_t)getpid() << 20));
    sender->rate = per_second;
    sender->next = senders;
    senders = sender;
    loop_add(&sender->source, 0);
    start_pacer();
    return NULL;
}

const char *udp_close(const char *name) {
    for (struct sender **link = &senders; *link; link = &(*link)->next) {
        struct sender *sender = *link;
        if (strcmp(sender->name, name))
            continue;
        *link = sender->next;
        loop_forget(&sender->source);
        return NULL;
    }
    return "there is no such sender";
}

void udp_tick(uint64_t now) {
    for (struct sender *sender = senders; sender; sender = sender->next) {
        uint64_t due = 1;
        if (now > sender->started_ns)
            due += (now - sender->started_ns) * sender->rate / UINT64_C(1000000000);
        while (sender->number < due) {
            struct datagram datagram = {htobe32(MAGIC), htobe32(sender->stream),
                                        htobe64(sender->number)};
            if (send(sender->source.fd, &datagram, sizeof datagram, MSG_NOSIGNAL) < 0) {
                if (errno == EAGAIN)
                    break;
                sender->errors++;
            }
            sender->number++;
        }
    }
}

void udp_stats(FILE *out, uint64_t now) {
    const char *comma = "";
    fputs("{\"senders\":[", out);
    for (const struct sender *sender = senders; sender; sender = sender->next) {
        fprintf(out, "%s{\"name\":\"%s\",\"stream\":%u,\"sent\":%ju,\"errors\":%ju}", comma,
                sender->name, sender->stream, sender->number, sender->errors);
        comma = ",";
    }
    comma = "";
    fputs("],\"streams\":[", out);
    for (unsigned i = 0; i < stream_count; i++) {
        const struct stream *stream = &streams[i];
        fprintf(out, "%s{\"stream\":%u,\"from\":", comma, stream->id);
        address_print(out, &stream->from);
        fprintf(out,
                ",\"received\":%ju,\"lost\":%ju,\"late\":%ju,\"doubled\":%ju,"
                "\"longest_gap_ms\":%ju}",
                stream->received, stream->lost, stream->late, stream->doubled,
                gap_longest_ms(&stream->gap, now, true));
        comma = ",";
    }
    fputs("]}", out);
}
