/* What only a machine of one's own may do: reboot, power off, panic, take hot-plugged ports. */
#define _GNU_SOURCE
#include "traffic.h"

#include <fcntl.h>
#include <linux/input.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/reboot.h>
#include <termios.h>
#include <unistd.h>

bool in_guest;

/* Answers first, since nothing can be said afterwards. */
static void say_last_word(int fd, const char *reply) {
    ssize_t written = write(fd, reply, strlen(reply));
    (void)written;
    tcdrain(fd);
}

static void panic_kernel(void) {
    int fd = open("/proc/sysrq-trigger", O_WRONLY | O_CLOEXEC);
    ssize_t written = write(fd, "c", 1);
    (void)written;
}

/* NULL: not a command of this file. Empty: done and answered. Else what was wrong. */
const char *system_command(const char *command, int reply_fd, const char *reply) {
    bool known = !strcmp(command, "reboot") || !strcmp(command, "poweroff") ||
                 !strcmp(command, "panic") || !strcmp(command, "network");

    if (!known)
        return NULL;
    if (!in_guest)
        return "only a guest does that";
    if (!strcmp(command, "network")) {
        if (system("/sbin/network") != 0)
            return "setting the ports up failed; see the console";
        say_last_word(reply_fd, reply);
        return "";
    }
    say_last_word(reply_fd, reply);
    if (!strcmp(command, "reboot"))
        reboot(RB_AUTOBOOT);
    else if (!strcmp(command, "poweroff"))
        reboot(RB_POWER_OFF);
    else
        panic_kernel();
    return "";
}

static void on_input(struct source *source, uint32_t events) {
    struct input_event event;
    (void)events;
    if (read(source->fd, &event, sizeof event) != (ssize_t)sizeof event)
        return;
    if (event.type == EV_KEY && event.code == KEY_POWER && event.value == 1)
        reboot(RB_POWER_OFF);
}

void system_watch_power_button(void) {
    static struct source inputs[4];
    char path[32];

    for (int i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "/dev/input/event%d", i);
        inputs[i].fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
        if (inputs[i].fd < 0)
            continue;
        inputs[i].ready = on_input;
        loop_add(&inputs[i], EPOLLIN);
    }
}

/* The boot's id tells one boot from the next, whatever the clocks say. */
void system_stats(FILE *out) {
    char id[64] = "";
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);

    if (fd >= 0) {
        ssize_t length = read(fd, id, sizeof id - 1);
        id[length > 0 ? length : 0] = 0;
        id[strcspn(id, "\n")] = 0;
        close(fd);
    }
    fprintf(out, "\"boot_id\":\"%s\",\"guest\":%s", id, in_guest ? "true" : "false");
}
