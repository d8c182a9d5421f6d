/* Reading. Whole files are mapped; where a system cannot map, and of a pipe, they are read. A
 * mapped file that is cut short while it is used, or whose disk fails, sends SIGBUS to who touches
 * it: the handler here says so in one line and ends the job like any failure inside a step. */
#include "base/file.h"

#include "base/file_hook.h"
#include "base/memory.h"
#include "base/runtime.h"
#include "base/system.h"
#include "base/work.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- files that shrink ----------------------------------------------------------------------- */

/* What is mapped now, under lock. */
struct place {
    const unsigned char *data;
    size_t size;
    char *path;
    struct place *next;
};

static struct place *places;
static pthread_mutex_t places_lock = PTHREAD_MUTEX_INITIALIZER;
static struct sigaction before;

static bool find_place(const unsigned char *at, char *path, size_t size)
{
    bool found = false;
    (void)pthread_mutex_lock(&places_lock);
    for (const struct place *p = places; p && !found; p = p->next) {
        found = at >= p->data && at < p->data + p->size;
        if (found) {
            (void)snprintf(path, size, "%s", p->path);
        }
    }
    (void)pthread_mutex_unlock(&places_lock);
    return found;
}

/* What the kernel sends comes where the file was touched, which is in no library and under no lock,
 * ours neither; another thread soon gives that back. What somebody else sends may come anywhere. */
static void on_bus_error(int number, siginfo_t *info, void *context)
{
    char path[PATH_MAX];
    bool touched = info->si_code > 0;
    (void)context;
    if (touched && find_place(info->si_addr, path, sizeof(path))) {
        tri_panic(TRI_FAILED, "%s: was cut short, or its disk failed, while it was in use", path);
    }
    (void)sigaction(number, &before, NULL); /* not ours: once more, for whoever it is */
    if (!touched) {
        (void)raise(number);
    }
}

static void watch_place(const char *path, const struct tri_mapping *mapping)
{
    static bool watching;
    struct place *place = tri_alloc(TRI_MEMORY_OTHER, sizeof(*place));
    *place = (struct place){mapping->data, mapping->size, tri_strdup(path), NULL};
    (void)pthread_mutex_lock(&places_lock);
    if (!watching && !tri_runtime_get()->embedded) {
        struct sigaction action = {.sa_sigaction = on_bus_error};
        (void)sigemptyset(&action.sa_mask);
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        watching = sigaction(SIGBUS, &action, &before) == 0;
    }
    place->next = places;
    places = place;
    (void)pthread_mutex_unlock(&places_lock);
}

static void forget_place(const struct tri_mapping *mapping)
{
    (void)pthread_mutex_lock(&places_lock);
    for (struct place **at = &places; *at; at = &(*at)->next) {
        struct place *place = *at;
        if (place->data == mapping->data) {
            *at = place->next;
            tri_free(place->path);
            tri_free(place);
            break;
        }
    }
    (void)pthread_mutex_unlock(&places_lock);
}

/* ---- opening --------------------------------------------------------------------------------- */

enum tri_status tri_system_open(const char *path, int *fd, struct stat *info,
                                struct tri_error *error)
{
    int code = tri_file_fault("open", path, 0);
    *fd = code ? -1 : open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (*fd < 0 && code == 0 && errno == EWOULDBLOCK && stat(path, info) == 0 &&
        S_ISREG(info->st_mode)) {
        *fd = open(path, O_RDONLY | O_CLOEXEC); /* another has a lease on it: it is asked */
    }
    if (*fd < 0) {
        code = code ? code : errno;
        /* A socket answers so. */
        return tri_fail(error, TRI_BAD_INPUT, "%s: cannot open: %s", path,
                        code == ENXIO ? "a socket or device, expected a file" : strerror(code));
    }
    code = tri_file_fault("read", path, 0);
    if (code == 0 && fstat(*fd, info) != 0) {
        code = errno;
    }
    if (code) {
        (void)close(*fd);
        return tri_fail(error, TRI_BAD_INPUT, "%s: cannot read: %s", path, strerror(code));
    }
    return TRI_OK;
}

/* ---- reading --------------------------------------------------------------------------------- */

/* Up to room bytes of what may come slowly; *got is their number, also when it fails. */
static int read_all(int fd, unsigned char *data, size_t room, size_t *got)
{
    enum { PATIENCE_MS = 10000 };
    *got = 0;
    while (*got < room) {
        ssize_t part = read(fd, data + *got, room - *got);
        if (part == 0) {
            return 0;
        }
        if (part > 0) {
            *got += (size_t)part;
        } else if (errno == EAGAIN) {
            struct pollfd end = {.fd = fd, .events = POLLIN};
            if (poll(&end, 1, PATIENCE_MS) == 0) {
                return ETIMEDOUT;
            }
        } else if (errno != EINTR) {
            return errno;
        }
    }
    return 0;
}

/* Until the end or one byte more than most: what a file's size says need not be all of it. */
static int read_to_end(int fd, size_t most, struct tri_mapping *mapping)
{
    enum { FIRST = 1 << 16 };
    size_t room = FIRST, used = 0;
    unsigned char *data = tri_alloc(TRI_MEMORY_OTHER, room);
    for (;;) {
        size_t part;
        int code = read_all(fd, data + used, room - used, &part);
        used += part;
        if (code || used < room || used > most) {
            *mapping = (struct tri_mapping){.data = data, .size = used, .owned = true};
            return code;
        }
        room = 2 * room <= most ? 2 * room : most + 1;
        unsigned char *more = tri_alloc(TRI_MEMORY_OTHER, room);
        memcpy(more, data, used);
        tri_free(data);
        data = more;
    }
}

/* Where a system has no mappings. */
static int read_instead(int fd, struct tri_mapping *mapping)
{
    unsigned char *data = tri_alloc(TRI_MEMORY_OTHER, mapping->size);
    size_t got;
    int code = read_all(fd, data, mapping->size, &got);
    code = code == 0 && got < mapping->size ? EIO : code;
    if (code) {
        tri_free(data);
    } else {
        mapping->data = data;
        mapping->owned = true;
    }
    return code;
}

static int map_or_read(int fd, const char *path, struct tri_mapping *mapping)
{
    int code = tri_file_fault("map", path, 0);
    void *data = MAP_FAILED;
    if (code == 0) {
        data = mmap(NULL, mapping->size, PROT_READ, MAP_PRIVATE, fd, 0);
        code = data == MAP_FAILED ? errno : 0;
    }
    if (code == ENODEV || code == EINVAL || code == ENOSYS || code == EOPNOTSUPP) {
        return read_instead(fd, mapping);
    }
    if (code == 0) {
        mapping->data = data;
        watch_place(path, mapping);
    }
    return code;
}

static enum tri_status map_file(const char *path, struct tri_mapping *mapping,
                                struct tri_error *error)
{
    *mapping = (struct tri_mapping){0};
    int fd = -1;
    struct stat info = {0};
    TRI_TRY(tri_system_open(path, &fd, &info, error));
    if (!S_ISREG(info.st_mode)) {
        (void)close(fd);
        return tri_fail(error, TRI_BAD_INPUT, "%s: cannot read: %s", path,
                        tri_system_kind(info.st_mode));
    }
    mapping->size = (size_t)info.st_size;
    mapping->inode = info.st_ino;
    mapping->data = (const unsigned char *)""; /* of an empty file: nothing, but no null pointer */
    int code = mapping->size > 0 ? map_or_read(fd, path, mapping) : 0;
    (void)close(fd);
    if (code) {
        *mapping = (struct tri_mapping){0};
        return tri_fail(error, TRI_BAD_INPUT, "%s: cannot read: %s", path, strerror(code));
    }
    return TRI_OK;
}

enum tri_status tri_file_map(const char *path, struct tri_mapping *mapping, struct tri_error *error)
{
    tri_work_file_begin(path);
    enum tri_status status = map_file(path, mapping, error);
    tri_work_file_end();
    return status;
}

enum tri_status tri_file_read(const char *path, size_t most, struct tri_mapping *mapping,
                              struct tri_error *error)
{
    *mapping = (struct tri_mapping){0};
    int fd = -1;
    struct stat info = {0};
    TRI_TRY(tri_system_open(path, &fd, &info, error));
    if (!S_ISREG(info.st_mode) && !S_ISFIFO(info.st_mode) && !S_ISCHR(info.st_mode)) {
        (void)close(fd);
        return tri_fail(error, TRI_BAD_INPUT, "%s: cannot read: %s", path,
                        tri_system_kind(info.st_mode));
    }
    int code = read_to_end(fd, most, mapping);
    (void)close(fd);
    if (code == 0 && mapping->size <= most) {
        return TRI_OK;
    }
    tri_file_unmap(mapping);
    return code ? tri_fail(error, TRI_BAD_INPUT, "%s: cannot read: %s", path, strerror(code))
                : tri_fail(error, TRI_BAD_INPUT, "%s: more than %zu bytes", path, most);
}

bool tri_file_is_cut_short(const char *path, const struct tri_mapping *mapping)
{
    struct stat info;
    return !mapping->owned && stat(path, &info) == 0 && info.st_ino == mapping->inode &&
           (size_t)info.st_size < mapping->size;
}

void tri_file_unmap(struct tri_mapping *mapping)
{
    if (mapping->owned) {
        tri_free((void *)(uintptr_t)mapping->data);
    } else if (mapping->data && mapping->size > 0) {
        forget_place(mapping);
        (void)munmap((void *)(uintptr_t)mapping->data, mapping->size);
    }
    *mapping = (struct tri_mapping){0};
}
