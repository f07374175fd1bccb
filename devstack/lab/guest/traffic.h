/* Traffic that can be counted: what the lab's guests and plain peers run.
 *
 * One process, one epoll loop. TCP groups (tcp.c) and UDP streams (udp.c) carry numbered messages,
 * a control channel (control.c) starts them and asks for counters, and in a guest system.c
 * reboots, powers off or panics the machine. Times are CLOCK_MONOTONIC in nanoseconds; a guest's
 * clock stands still while it is paused, so the pause of a migration shows at the other end only.
 */
#ifndef LAB_TRAFFIC_H
#define LAB_TRAFFIC_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>

#define NS_PER_MS UINT64_C(1000000)
#define TICK_MS 50

/* One file descriptor in the loop. Whoever embeds it frees itself through loop_forget(). */
struct source {
    int fd;
    bool dead;
    struct source *next_dead;
    void (*ready)(struct source *source, uint32_t events);
    void (*release)(struct source *source);
};

/* Watches `source` for `events`; exits with a message when the kernel refuses. */
void loop_add(struct source *source, uint32_t events);
void loop_change(struct source *source, uint32_t events);
/* Closes the descriptor at once and calls `release` when no event of this round can name it. */
void loop_forget(struct source *source);
uint64_t now_ns(void);

struct address {
    struct sockaddr_storage storage;
    socklen_t length;
};

/* Numeric IPv4 or IPv6 address and port; false when the text is neither. */
bool address_parse(struct address *address, const char *host, const char *port);
void address_print(FILE *out, const struct sockaddr_storage *storage);

/* The time between two messages received, and what of it counts as a stall. */
struct gap {
    uint64_t last_ns, longest_ns, stalls;
};
void gap_seen(struct gap *gap, uint64_t now);
bool gap_is_stalled(const struct gap *gap, uint64_t now);
uint64_t gap_longest_ms(const struct gap *gap, uint64_t now, bool open);
extern uint64_t stall_ms;

/* Each returns NULL, or what was wrong. */
const char *tcp_listen(const char *name, const char *port);
const char *tcp_dial(const char *name, const char *host, const char *port, const char *count,
                     const char *interval_ms);
const char *tcp_close(const char *name);
void tcp_tick(uint64_t now);
void tcp_stats(FILE *out, uint64_t now);
/* One JSON object per connection of the group; false when there is no such group. */
bool tcp_connections(FILE *out, const char *name, uint64_t now);
void tcp_reset_counters(uint64_t now);

const char *udp_listen(const char *port);
const char *udp_send(const char *name, const char *host, const char *port, const char *rate);
const char *udp_close(const char *name);
void udp_tick(uint64_t now);
void udp_stats(FILE *out, uint64_t now);

/* Serves commands on a serial device, or on a Unix socket made at `path`. */
void control_open(const char *path);

/* Commands that need a machine of one's own; `done` flushes the answer before it dies. */
extern bool in_guest;
const char *system_command(const char *command, int reply_fd, const char *reply);
void system_watch_power_button(void);
void system_stats(FILE *out);

#endif
