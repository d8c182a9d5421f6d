#include "base/file.h"

#include "base/file_hook.h"
#include "base/memory.h"
#include "base/path.h"
#include "base/runtime.h"
#include "base/system.h"
#include "base/work.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- the fault hook -------------------------------------------------------------------------- */

void tri_file_set_hook(tri_file_hook *wanted)
{
    tri_runtime_get()->file_hook = wanted;
}

int tri_file_fault(const char *operation, const char *path, uint64_t done)
{
    tri_file_hook *hook = tri_runtime_get()->file_hook;
    return hook ? hook(operation, path, done) : 0;
}

/* ---- writing --------------------------------------------------------------------------------- */

struct tri_writer {
    int fd;
    uint64_t bytes;  /* so far */
    char *path;      /* as it was given: for messages */
    char *place;     /* what a link at path leads to, or path: links stay */
    char *temporary; /* beside place */
};

void tri_writer_destroy(struct tri_writer *writer)
{
    if (!writer) {
        return;
    }
    if (writer->fd >= 0) {
        (void)close(writer->fd);
        (void)unlink(writer->temporary);
    }
    tri_free(writer->path);
    tri_free(writer->place);
    tri_free(writer->temporary);
    tri_free(writer);
}

static char *behind_links(const char *path)
{
    struct stat info;
    char *real = lstat(path, &info) == 0 && S_ISLNK(info.st_mode) ? realpath(path, NULL) : NULL;
    char *place = tri_strdup(real ? real : path);
    free(real);
    return place;
}

enum tri_status tri_writer_create(const char *path, struct tri_writer **writer,
                                  struct tri_error *error)
{
    *writer = NULL;
    /* A rename would put a file in the place of a device that a link leads to. */
    struct stat info;
    if (stat(path, &info) == 0 && !S_ISREG(info.st_mode)) {
        return tri_fail(error, TRI_BAD_INPUT, "%s: cannot write: %s", path,
                        tri_system_kind(info.st_mode));
    }
    struct tri_writer *w = tri_alloc(TRI_MEMORY_OTHER, sizeof(*w));
    w->path = tri_strdup(path);
    w->place = behind_links(path);
    size_t room = strlen(w->place) + sizeof(TRI_TEMPORARY);
    w->temporary = tri_alloc(TRI_MEMORY_OTHER, room);
    tri_path_make(w->temporary, room, "%s" TRI_TEMPORARY, w->place);
    tri_work_file_begin(path);
    int code = tri_file_fault("open", path, 0);
    /* A leftover by that name goes first, for it need not be a file: never written through. */
    (void)unlink(w->temporary);
    w->fd = code ? -1 : open(w->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    code = code == 0 && w->fd < 0 ? errno : code;
    tri_work_file_end();
    if (code) {
        tri_writer_destroy(w);
        return tri_system_error(error, "create", path, code);
    }
    *writer = w;
    return TRI_OK;
}

static int write_fully(int fd, const char *path, const char *data, size_t bytes)
{
    enum { PART = 64 << 20 };
    while (bytes > 0) {
        size_t part = bytes < PART ? bytes : PART;
        tri_work_file_begin(path);
        ssize_t written = write(fd, data, part);
        int code = errno;
        tri_work_file_end();
        errno = code;
        if (written <= 0 && (written == 0 || errno != EINTR)) {
            return written == 0 ? EIO : errno;
        }
        if (written > 0) {
            data += written;
            bytes -= (size_t)written;
        }
    }
    return 0;
}

enum tri_status tri_writer_write(struct tri_writer *writer, const void *data, size_t bytes,
                                 struct tri_error *error)
{
    int code = tri_file_fault("write", writer->path, writer->bytes + bytes);
    if (code == 0) {
        code = write_fully(writer->fd, writer->path, data, bytes);
    }
    if (code) {
        return tri_system_error(error, "write", writer->path, code);
    }
    writer->bytes += bytes;
    return TRI_OK;
}

enum tri_status tri_writer_rewrite(struct tri_writer *writer, uint64_t offset, const void *data,
                                   size_t bytes, struct tri_error *error)
{
    TRI_REQUIRE(offset + bytes <= writer->bytes);
    int code = tri_file_fault("write", writer->path, writer->bytes);
    const char *at = data;
    while (code == 0 && bytes > 0) {
        tri_work_file_begin(writer->path);
        ssize_t written = pwrite(writer->fd, at, bytes, (off_t)offset);
        code = written < 0 && errno != EINTR ? errno : written == 0 ? EIO : 0;
        tri_work_file_end();
        if (written > 0) {
            at += written;
            offset += (uint64_t)written;
            bytes -= (size_t)written;
        }
    }
    return code ? tri_system_error(error, "write", writer->path, code) : TRI_OK;
}

enum tri_status tri_writer_close(struct tri_writer **writer, struct tri_error *error)
{
    struct tri_writer *w = *writer;
    *writer = NULL;
    int code = tri_system_sync(w->fd, w->path, false);
    tri_work_file_begin(w->path);
    if (close(w->fd) != 0 && code == 0) {
        code = errno;
    }
    w->fd = -1;
    if (code == 0) {
        code = tri_file_fault("rename", w->path, 0);
    }
    if (code == 0 && rename(w->temporary, w->place) != 0) {
        code = errno;
    }
    tri_work_file_end();
    if (code) {
        (void)unlink(w->temporary);
    }
    enum tri_status status = code ? tri_system_error(error, "finish", w->path, code) : TRI_OK;
    tri_writer_destroy(w);
    return status;
}

enum tri_status tri_file_save(const char *path, const void *data, size_t bytes,
                              struct tri_error *error)
{
    struct tri_writer *writer;
    TRI_TRY(tri_writer_create(path, &writer, error));
    TRI_REQUIRE(writer);
    enum tri_status status = tri_writer_write(writer, data, bytes, error);
    if (status != TRI_OK) {
        tri_writer_destroy(writer);
        return status;
    }
    return tri_writer_close(&writer, error);
}

enum tri_status tri_file_append(const char *path, const void *data, size_t bytes,
                                struct tri_error *error)
{
    tri_work_file_begin(path);
    int code = tri_file_fault("write", path, bytes);
    /* Without waiting: a pipe that nobody reads in the file's place is an error, not a hang. */
    int fd = code ? -1 : open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK, 0666);
    code = code == 0 && fd < 0 ? errno : code;
    tri_work_file_end();
    if (code) {
        return tri_system_error(error, "append to", path, code);
    }
    code = write_fully(fd, path, data, bytes);
    if (close(fd) != 0 && code == 0) {
        code = errno;
    }
    return code ? tri_system_error(error, "append to", path, code) : TRI_OK;
}

enum tri_status tri_file_append_line(const char *path, const char *line, struct tri_error *error)
{
    size_t length = strlen(line);
    char *text = tri_alloc(TRI_MEMORY_OTHER, length + 1);
    memcpy(text, line, length);
    text[length] = '\n';
    enum tri_status status = tri_file_append(path, text, length + 1, error);
    tri_free(text);
    return status;
}
