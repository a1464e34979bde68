/* peak_memory FILE COMMAND...: runs the command and writes "peak resident KiB, peak anonymous KiB" to FILE; exits as
 * the command does. The kernel keeps the first (VmHWM); the second, which leaves mapped files out, is sampled every
 * half millisecond. SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long anonymous_kib(pid_t pid) {
    char path[64], line[256];
    long kib = 0;
    snprintf(path, sizeof path, "/proc/%ld/status", (long)pid);
    FILE *status = fopen(path, "r");
    if (status == NULL) return 0;
    while (fgets(line, sizeof line, status) != NULL)
        if (strncmp(line, "RssAnon:", 8) == 0) kib = strtol(line + 8, NULL, 10);
    fclose(status);
    return kib;
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    pid_t pid = fork();
    if (pid < 0) return 2;
    if (pid == 0) {
        execvp(argv[2], argv + 2);
        _exit(127);
    }
    const struct timespec pause = {.tv_nsec = 500000};
    long peak_anonymous = 0;
    int status = 0;
    struct rusage usage;
    while (wait4(pid, &status, WNOHANG, &usage) == 0) {
        long kib = anonymous_kib(pid);
        if (kib > peak_anonymous) peak_anonymous = kib;
        nanosleep(&pause, NULL);
    }
    FILE *out = fopen(argv[1], "w");
    if (out == NULL) return 2;
    fprintf(out, "%ld %ld\n", usage.ru_maxrss, peak_anonymous);
    fclose(out);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}
