/* traffic: the loop, the clock and the options. See traffic.h. */
#define _GNU_SOURCE
#include "traffic.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

uint64_t stall_ms = 2000;
static int epoll_fd = -1;
static struct source *dead_sources;

uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static void control_epoll(int operation, struct source *source, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = source};
    if (epoll_ctl(epoll_fd, operation, source->fd, &event) < 0) {
        perror("traffic: epoll_ctl");
        exit(1);
    }
}

void loop_add(struct source *source, uint32_t events) {
    control_epoll(EPOLL_CTL_ADD, source, events);
}

void loop_change(struct source *source, uint32_t events) {
    control_epoll(EPOLL_CTL_MOD, source, events);
}

void loop_forget(struct source *source) {
    if (source->dead)
        return;
    close(source->fd);
    source->fd = -1;
    source->dead = true;
    source->next_dead = dead_sources;
    dead_sources = source;
}

static void release_dead_sources(void) {
    while (dead_sources) {
        struct source *source = dead_sources;
        dead_sources = source->next_dead;
        if (source->release)
            source->release(source);
    }
}

bool address_parse(struct address *address, const char *host, const char *port) {
    struct sockaddr_in *four = (struct sockaddr_in *)&address->storage;
    struct sockaddr_in6 *six = (struct sockaddr_in6 *)&address->storage;
    char *end;
    unsigned long number = strtoul(port, &end, 10);

    memset(address, 0, sizeof *address);
    if (*end || number == 0 || number > 65535)
        return false;
    if (inet_pton(AF_INET, host, &four->sin_addr) == 1) {
        four->sin_family = AF_INET;
        four->sin_port = htons((uint16_t)number);
        address->length = sizeof *four;
        return true;
    }
    if (inet_pton(AF_INET6, host, &six->sin6_addr) == 1) {
        six->sin6_family = AF_INET6;
        six->sin6_port = htons((uint16_t)number);
        address->length = sizeof *six;
        return true;
    }
    return false;
}

void address_print(FILE *out, const struct sockaddr_storage *storage) {
    char text[INET6_ADDRSTRLEN] = "";
    const struct sockaddr_in *four = (const struct sockaddr_in *)storage;
    const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)storage;

    if (storage->ss_family == AF_INET) {
        inet_ntop(AF_INET, &four->sin_addr, text, sizeof text);
        fprintf(out, "\"%s:%u\"", text, ntohs(four->sin_port));
    } else if (IN6_IS_ADDR_V4MAPPED(&six->sin6_addr)) {
        inet_ntop(AF_INET, &six->sin6_addr.s6_addr[12], text, sizeof text);
        fprintf(out, "\"%s:%u\"", text, ntohs(six->sin6_port));
    } else {
        inet_ntop(AF_INET6, &six->sin6_addr, text, sizeof text);
        fprintf(out, "\"[%s]:%u\"", text, ntohs(six->sin6_port));
    }
}

void gap_seen(struct gap *gap, uint64_t now) {
    uint64_t length = now - gap->last_ns;
    if (gap->last_ns) {
        if (length > gap->longest_ns)
            gap->longest_ns = length;
        if (length > stall_ms * NS_PER_MS)
            gap->stalls++;
    }
    gap->last_ns = now;
}

bool gap_is_stalled(const struct gap *gap, uint64_t now) {
    return gap->last_ns && now - gap->last_ns > stall_ms * NS_PER_MS;
}

uint64_t gap_longest_ms(const struct gap *gap, uint64_t now, bool open) {
    uint64_t longest = gap->longest_ns;
    if (open && gap->last_ns && now - gap->last_ns > longest)
        longest = now - gap->last_ns;
    return longest / NS_PER_MS;
}

static void on_tick(struct source *source, uint32_t events) {
    uint64_t expirations;
    (void)events;
    if (read(source->fd, &expirations, sizeof expirations) < 0)
        return;
    uint64_t now = now_ns();
    tcp_tick(now);
    udp_tick(now);
}

static void start_ticking(void) {
    static struct source ticker = {.ready = on_tick};
    const struct itimerspec every = {.it_interval.tv_nsec = TICK_MS * 1000000,
                                     .it_value.tv_nsec = TICK_MS * 1000000};
    ticker.fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (ticker.fd < 0 || timerfd_settime(ticker.fd, 0, &every, NULL) < 0) {
        perror("traffic: timerfd");
        exit(1);
    }
    loop_add(&ticker, EPOLLIN);
}

static void run(void) {
    struct epoll_event events[128];
    for (;;) {
        int count = epoll_wait(epoll_fd, events, 128, -1);
        if (count < 0 && errno != EINTR) {
            perror("traffic: epoll_wait");
            exit(1);
        }
        for (int i = 0; i < count; i++) {
            struct source *source = events[i].data.ptr;
            if (!source->dead)
                source->ready(source, events[i].events);
        }
        release_dead_sources();
    }
}

static void fail_if(const char *problem, const char *what) {
    if (problem) {
        fprintf(stderr, "traffic: %s: %s\n", what, problem);
        exit(2);
    }
}

int main(int argc, char **argv) {
    static const struct option options[] = {
        {"control", required_argument, NULL, 'c'},  {"guest", no_argument, NULL, 'g'},
        {"listen", required_argument, NULL, 'l'},   {"udp-listen", required_argument, NULL, 'u'},
        {"stall-ms", required_argument, NULL, 's'}, {NULL, 0, NULL, 0},
    };
    int option;

    signal(SIGPIPE, SIG_IGN);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    start_ticking();
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'c':
            control_open(optarg);
            break;
        case 'g':
            in_guest = true;
            system_watch_power_button();
            break;
        case 'l':
            fail_if(tcp_listen("listen", optarg), optarg);
            break;
        case 'u':
            fail_if(udp_listen(optarg), optarg);
            break;
        case 's':
            stall_ms = strtoull(optarg, NULL, 10);
            break;
        default:
            return 2;
        }
    }
    run();
    return 0;
}
