#include "support/process.h"

#include "base/clock.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST_PROCESSES = 8192, MOST_IN_TREE = 64 };

static void require(bool good, const char *what)
{
    if (!good) {
        perror(what);
        abort();
    }
}

/* ---- start ----------------------------------------------------------------------------------- */

static _Noreturn void child(const char *const *argv, const char *const *changes, int out, int err)
{
    int nothing = open("/dev/null", O_RDONLY);
    (void)dup2(nothing, STDIN_FILENO);
    (void)dup2(out, STDOUT_FILENO);
    (void)dup2(err, STDERR_FILENO);
    for (const char *const *change = changes; change && *change; change++) {
        char name[64];
        const char *value = strchr(*change, '=') + 1;
        (void)snprintf(name, sizeof(name), "%.*s", (int)(value - 1 - *change), *change);
        (void)setenv(name, value, 1);
    }
    (void)execvp(argv[0], (char *const *)(const void *)argv);
    perror(argv[0]);
    _exit(127);
}

void process_start(struct process *process, const char *const *argv, const char *const *changes)
{
    int out[2];
    int err[2];
    require(prctl(PR_SET_CHILD_SUBREAPER, 1L, 0L, 0L, 0L) == 0, "prctl");
    require(pipe2(out, O_CLOEXEC) == 0 && pipe2(err, O_CLOEXEC) == 0, "pipe");
    (void)fflush(NULL);
    process->began = tri_clock_now();
    process->pid = fork();
    require(process->pid >= 0, "fork");
    if (process->pid == 0) {
        child(argv, changes, out[1], err[1]);
    }
    (void)close(out[1]);
    (void)close(err[1]);
    process->out = out[0];
    process->err = err[0];
}

/* ---- wait ------------------------------------------------------------------------------------ */

struct text {
    char *bytes;
    size_t used, room;
};

/* False at the end of the stream. */
static bool read_some(int descriptor, struct text *text)
{
    if (text->room - text->used < 4096) {
        text->room = 2 * text->room + 8192;
        text->bytes = realloc(text->bytes, text->room);
        require(text->bytes != NULL, "realloc");
    }
    ssize_t got = read(descriptor, text->bytes + text->used, text->room - text->used - 1);
    text->used += got > 0 ? (size_t)got : 0;
    text->bytes[text->used] = '\0';
    return got > 0 || (got < 0 && errno == EINTR);
}

void process_wait(struct process *process, double limit, struct process_result *result)
{
    struct text texts[2] = {{0}};
    struct pollfd ends[2] = {{.fd = process->out, .events = POLLIN},
                             {.fd = process->err, .events = POLLIN}};
    *result = (struct process_result){0};
    while (ends[0].fd >= 0 || ends[1].fd >= 0) {
        double left = process->began + limit - tri_clock_now();
        if (left <= 0 && !result->late) {
            result->late = true;
            process_kill_tree(process->pid);
        }
        (void)poll(ends, 2, result->late ? 1000 : (int)(left * 1e3) + 1);
        for (int i = 0; i < 2; i++) {
            if (ends[i].fd >= 0 && ends[i].revents && !read_some(ends[i].fd, &texts[i])) {
                (void)close(ends[i].fd);
                ends[i].fd = -1;
            }
        }
    }
    int status = 0;
    struct rusage usage;
    while (wait4(process->pid, &status, 0, &usage) < 0) {
        require(errno == EINTR, "wait4");
    }
    result->seconds = tri_clock_now() - process->began;
    result->status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    result->max_rss_kib = usage.ru_maxrss;
    result->out = texts[0].bytes;
    result->err = texts[1].bytes;
}

void process_result_fini(struct process_result *result)
{
    free(result->out);
    free(result->err);
    *result = (struct process_result){0};
}

void process_reap_all(void)
{
    (void)alarm(30);
    while (waitpid(-1, NULL, 0) > 0 || errno == EINTR) {
    }
    (void)alarm(0);
}

/* ---- trees ----------------------------------------------------------------------------------- */

/* Reads "PID (COMMAND) STATE PARENT" of one process; false when it has gone. */
static bool read_stat(const char *pid, char command[64], char *state, pid_t *parent)
{
    char path[300];
    char line[512] = "";
    (void)snprintf(path, sizeof(path), "/proc/%s/stat", pid);
    FILE *file = fopen(path, "re");
    bool read = file && fgets(line, sizeof(line), file);
    if (file) {
        (void)fclose(file);
    }
    const char *open = strchr(line, '(');
    const char *close = strrchr(line, ')');
    if (!read || !open || !close || strlen(close) < 5) {
        return false;
    }
    (void)snprintf(command, 64, "%.*s", (int)(close - open - 1), open + 1);
    *state = close[2];
    *parent = (pid_t)strtol(close + 4, NULL, 10);
    return true;
}

struct entry {
    pid_t pid, parent;
    bool named;
};

/* All processes there are, at most `room`; those whose command is `name` are marked. */
static int read_processes(const char *name, struct entry *entries, int room)
{
    DIR *processes = opendir("/proc");
    require(processes != NULL, "/proc");
    int count = 0;
    for (struct dirent *found; count < room && (found = readdir(processes));) {
        char command[64];
        char state;
        pid_t parent;
        if (isdigit((unsigned char)found->d_name[0]) &&
            read_stat(found->d_name, command, &state, &parent)) {
            entries[count++] = (struct entry){(pid_t)strtol(found->d_name, NULL, 10), parent,
                                              !name || strcmp(name, command) == 0};
        }
    }
    (void)closedir(processes);
    return count;
}

int process_tree(pid_t root, const char *name, pid_t *found, int room)
{
    static struct entry all[MOST_PROCESSES];
    pid_t tree[MOST_IN_TREE] = {root};
    int in_tree = 1;
    int used = 0;
    int count = read_processes(name, all, MOST_PROCESSES);
    for (int i = 0; i < in_tree; i++) {
        for (int e = 0; e < count; e++) {
            if (all[e].parent == tree[i] && in_tree < MOST_IN_TREE) {
                tree[in_tree++] = all[e].pid;
            }
            if (all[e].pid == tree[i] && all[e].named && used < room) {
                found[used++] = tree[i];
            }
        }
    }
    return used;
}

bool process_lives(pid_t pid)
{
    char name[32];
    char command[64];
    char state = 'Z';
    pid_t parent;
    (void)snprintf(name, sizeof(name), "%d", (int)pid);
    return read_stat(name, command, &state, &parent) && state != 'Z' && state != 'X';
}

void process_kill_tree(pid_t root)
{
    pid_t tree[MOST_IN_TREE];
    int count = process_tree(root, NULL, tree, MOST_IN_TREE);
    for (int i = 0; i < count; i++) {
        (void)kill(tree[i], SIGKILL);
    }
}

int process_number_in_environment(pid_t pid, const char *name)
{
    char path[64];
    char text[1 << 16];
    (void)snprintf(path, sizeof(path), "/proc/%d/environ", (int)pid);
    FILE *file = fopen(path, "re");
    size_t bytes = file ? fread(text, 1, sizeof(text) - 1, file) : 0;
    if (file) {
        (void)fclose(file);
    }
    text[bytes] = '\0';
    size_t length = strlen(name);
    for (size_t at = 0; at < bytes; at += strlen(text + at) + 1) {
        if (strncmp(text + at, name, length) == 0 && text[at + length] == '=') {
            return (int)strtol(text + at + length + 1, NULL, 10);
        }
    }
    return -1;
}
