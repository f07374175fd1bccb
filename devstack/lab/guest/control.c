/* The control channel: lines `ID COMMAND ARGUMENT... ID` in, one line `ID JSON` out for each.
 *
 * The ID at the end shows that the line is whole: a serial port that is just being opened loses
 * characters, and what is left of two lines must not pass for a command.
 *
 * It is a guest's second serial port, or a Unix socket that serves a handful of clients. Whoever
 * asks may ask again when an answer is lost: what has a name is made only once.
 */
#define _GNU_SOURCE
#include "traffic.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#define MAX_WORDS 10

struct client {
    struct source source;
    bool serial;
    size_t length;
    char line[512];
};

/* Blocking on purpose: the answer is short, and who asked is reading. */
static void write_all(int fd, const char *text, size_t length) {
    while (length) {
        ssize_t written = write(fd, text, length);
        if (written < 0 && errno == EAGAIN) {
            usleep(1000);
            continue;
        }
        if (written < 0)
            return;
        text += written;
        length -= (size_t)written;
    }
}

static void answer(int fd, const char *id, const char *json) {
    char *line;
    int length = asprintf(&line, "%s %s\n", id, json);
    if (length < 0)
        return;
    write_all(fd, line, (size_t)length);
    free(line);
}

static void answer_stats(int fd, const char *id, const char *group) {
    char *text = NULL;
    size_t size;
    uint64_t now = now_ns();
    FILE *out = open_memstream(&text, &size);

    if (!out)
        return;
    if (group) {
        if (!tcp_connections(out, group, now))
            fputs("{\"error\":\"there is no such group\"}", out);
    } else {
        fprintf(out, "{\"uptime_ms\":%ju,", now / NS_PER_MS);
        system_stats(out);
        fputs(",\"tcp\":", out);
        tcp_stats(out, now);
        fputs(",\"udp\":", out);
        udp_stats(out, now);
        fputc('}', out);
    }
    fclose(out);
    answer(fd, id, text);
    free(text);
}

/* Returns what was wrong, or NULL when done and the answer is a plain "ok". */
static const char *execute(int count, char **words) {
    const char *command = words[0];

    if (!strcmp(command, "hello"))
        return NULL;
    if (!strcmp(command, "listen") && count == 3)
        return tcp_listen(words[1], words[2]);
    if (!strcmp(command, "dial") && (count == 5 || count == 6))
        return tcp_dial(words[1], words[2], words[3], words[4], count == 6 ? words[5] : "500");
    if (!strcmp(command, "close") && count == 2)
        return tcp_close(words[1]);
    if (!strcmp(command, "udp-listen") && count == 2)
        return udp_listen(words[1]);
    if (!strcmp(command, "udp-send") && count == 5)
        return udp_send(words[1], words[2], words[3], words[4]);
    if (!strcmp(command, "udp-close") && count == 2)
        return udp_close(words[1]);
    if (!strcmp(command, "reset-counters")) {
        tcp_reset_counters(now_ns());
        return NULL;
    }
    return "no such command, or not its number of arguments";
}

/* What was done last: who saw no answer asks again, and it must not be done twice. */
static struct {
    char id[16];
    const char *problem;
} done;

static void serve_line(struct client *client, char *line) {
    char *words[MAX_WORDS], *rest = NULL, ok[128], *json;
    int count = 0;
    const char *id = strtok_r(line, " \r", &rest);
    int fd = client->source.fd;

    if (!id)
        return;
    while (count < MAX_WORDS && (words[count] = strtok_r(NULL, " \r", &rest)))
        count++;
    if (count < 2 || strcmp(words[--count], id))
        return;
    if (!strcmp(words[0], "stats")) {
        answer_stats(fd, id, NULL);
        return;
    }
    if (!strcmp(words[0], "connections") && count == 2) {
        answer_stats(fd, id, words[1]);
        return;
    }
    snprintf(ok, sizeof ok, "%.100s {\"ok\":true}\n", id);
    const char *problem = done.problem;
    if (strcmp(done.id, id)) {
        problem = system_command(words[0], fd, ok);
        if (problem && !*problem)
            return; /* done and answered */
        if (!problem)
            problem = execute(count, words);
        snprintf(done.id, sizeof done.id, "%s", id);
        done.problem = problem;
    }
    if (!problem) {
        write_all(fd, ok, strlen(ok));
    } else if (asprintf(&json, "{\"error\":\"%s\"}", problem) >= 0) {
        answer(fd, id, json);
        free(json);
    }
}

static void on_client(struct source *source, uint32_t events) {
    struct client *client = (struct client *)source;
    char bytes[256];
    ssize_t length = read(source->fd, bytes, sizeof bytes);

    if (length < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (length <= 0) {
        if (!client->serial)
            loop_forget(source);
        else if (events & (EPOLLHUP | EPOLLERR))
            exit(1); /* the caller starts it again */
        return;
    }
    for (ssize_t i = 0; i < length && !source->dead; i++) {
        if (bytes[i] == '\n') {
            client->line[client->length] = 0;
            client->length = 0;
            serve_line(client, client->line);
        } else if (client->length < sizeof client->line - 1) {
            client->line[client->length++] = bytes[i];
        }
    }
}

static void client_release(struct source *source) {
    free(source);
}

static void add_client(int fd, bool serial) {
    struct client *client = calloc(1, sizeof *client);
    if (!client) {
        close(fd);
        return;
    }
    client->source = (struct source){.fd = fd, .ready = on_client, .release = client_release};
    client->serial = serial;
    loop_add(&client->source, EPOLLIN);
}

static void on_accept(struct source *source, uint32_t events) {
    (void)events;
    int fd = accept4(source->fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd >= 0)
        add_client(fd, false);
}

static void open_serial(const char *path) {
    struct termios mode;
    int fd = open(path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);

    if (fd < 0) {
        perror(path);
        exit(1);
    }
    if (tcgetattr(fd, &mode) == 0) {
        cfmakeraw(&mode);
        mode.c_cflag |= CLOCAL;
        cfsetspeed(&mode, B115200);
        tcsetattr(fd, TCSANOW, &mode);
    }
    tcflush(fd, TCIOFLUSH);
    add_client(fd, true);
}

static void open_socket(const char *path) {
    static struct source acceptor = {.ready = on_accept};
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof address.sun_path) {
        fprintf(stderr, "traffic: %s: longer than a Unix socket's path may be\n", path);
        exit(2);
    }
    strcpy(address.sun_path, path);
    unlink(path);
    acceptor.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (bind(acceptor.fd, (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(acceptor.fd, 8) < 0) {
        perror(path);
        exit(1);
    }
    loop_add(&acceptor, EPOLLIN);
}

void control_open(const char *path) {
    struct stat status;
    if (stat(path, &status) == 0 && S_ISCHR(status.st_mode))
        open_serial(path);
    else
        open_socket(path);
}
