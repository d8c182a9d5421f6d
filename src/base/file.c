#include "base/file.h"

#include "base/file_hook.h"
#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

/* ---- the fault hook -------------------------------------------------------------------------- */

static tri_file_hook *hook;

void tri_file_set_hook(tri_file_hook *wanted)
{
    hook = wanted;
}

int tri_file_fault(const char *operation, const char *path, uint64_t done)
{
    return hook ? hook(operation, path, done) : 0;
}

static enum tri_status file_error(struct tri_error *error, const char *what, const char *path,
                                  int code)
{
    enum tri_status status =
        code == ENOENT || code == EISDIR || code == ENOTDIR ? TRI_BAD_INPUT : TRI_FAILED;
    return tri_fail(error, status, "%s: cannot %s: %s", path, what, strerror(code));
}

/* ---- reading --------------------------------------------------------------------------------- */

enum tri_status tri_file_map(const char *path, struct tri_mapping *mapping, struct tri_error *error)
{
    *mapping = (struct tri_mapping){0};
    int injected = tri_file_fault("open", path, 0);
    int fd = injected ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        int code = injected ? injected : errno;
        return tri_fail(error, TRI_BAD_INPUT, "%s: cannot open: %s", path, strerror(code));
    }
    struct stat info;
    int code = tri_file_fault("read", path, 0);
    if (code == 0 && fstat(fd, &info) != 0) {
        code = errno;
    }
    if (code == 0 && !S_ISREG(info.st_mode)) {
        code = S_ISDIR(info.st_mode) ? EISDIR : EINVAL;
    }
    if (code == 0 && info.st_size > 0) {
        void *data = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED) {
            code = errno;
        } else {
            mapping->data = data;
            mapping->size = (size_t)info.st_size;
        }
    }
    (void)close(fd);
    if (code) {
        return tri_fail(error, TRI_BAD_INPUT, "%s: cannot read: %s", path, strerror(code));
    }
    return TRI_OK;
}

void tri_file_unmap(struct tri_mapping *mapping)
{
    if (mapping->data) {
        (void)munmap((void *)(uintptr_t)mapping->data, mapping->size);
    }
    *mapping = (struct tri_mapping){0};
}

/* ---- writing --------------------------------------------------------------------------------- */

struct tri_writer {
    int fd;
    uint64_t bytes;
    XXH3_state_t *hash;
    char *path, *temporary;
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
    (void)XXH3_freeState(writer->hash);
    tri_free(writer->path);
    tri_free(writer->temporary);
    tri_free(writer);
}

enum tri_status tri_writer_create(const char *path, struct tri_writer **writer,
                                  struct tri_error *error)
{
    *writer = NULL;
    struct tri_writer *w = tri_alloc(TRI_MEMORY_OTHER, sizeof(*w));
    w->path = tri_strdup(path);
    w->temporary = tri_alloc(TRI_MEMORY_OTHER, strlen(path) + 5);
    (void)snprintf(w->temporary, strlen(path) + 5, "%s.tmp", path);
    w->hash = XXH3_createState();
    TRI_REQUIRE(w->hash);
    (void)XXH3_64bits_reset(w->hash);
    int injected = tri_file_fault("open", path, 0);
    w->fd = injected ? -1 : open(w->temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (w->fd < 0) {
        int code = injected ? injected : errno;
        tri_writer_destroy(w);
        return file_error(error, "create", path, code);
    }
    *writer = w;
    return TRI_OK;
}

static int write_fully(int fd, const char *data, size_t bytes)
{
    while (bytes > 0) {
        size_t part = bytes < (size_t)1 << 30 ? bytes : (size_t)1 << 30;
        ssize_t written = write(fd, data, part);
        if (written < 0 && errno != EINTR) {
            return errno;
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
        code = write_fully(writer->fd, data, bytes);
    }
    if (code) {
        return file_error(error, "write", writer->path, code);
    }
    (void)XXH3_64bits_update(writer->hash, data, bytes);
    writer->bytes += bytes;
    return TRI_OK;
}

enum tri_status tri_writer_close(struct tri_writer **writer, struct tri_error *error)
{
    struct tri_writer *w = *writer;
    *writer = NULL;
    int code = tri_file_fault("sync", w->path, 0);
    if (code == 0 && fsync(w->fd) != 0) {
        code = errno;
    }
    if (code == 0) {
        code = tri_file_fault("rename", w->path, 0);
    }
    if (code == 0 && rename(w->temporary, w->path) != 0) {
        code = errno;
    }
    if (code == 0) {
        (void)close(w->fd);
        w->fd = -1;
    }
    enum tri_status status = code ? file_error(error, "finish", w->path, code) : TRI_OK;
    tri_writer_destroy(w);
    return status;
}

uint64_t tri_writer_hash(const struct tri_writer *writer)
{
    return XXH3_64bits_digest(writer->hash);
}

uint64_t tri_writer_bytes(const struct tri_writer *writer)
{
    return writer->bytes;
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

enum tri_status tri_file_append_line(const char *path, const char *line, struct tri_error *error)
{
    size_t length = strlen(line);
    int code = tri_file_fault("write", path, length + 1);
    int fd = code ? -1 : open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (fd < 0) {
        return file_error(error, "append to", path, code ? code : errno);
    }
    char *text = tri_alloc(TRI_MEMORY_OTHER, length + 1);
    memcpy(text, line, length);
    text[length] = '\n';
    code = write_fully(fd, text, length + 1);
    tri_free(text);
    if (close(fd) != 0 && code == 0) {
        code = errno;
    }
    return code ? file_error(error, "append to", path, code) : TRI_OK;
}

/* ---- folders --------------------------------------------------------------------------------- */

enum tri_status tri_file_make_dirs(const char *path, struct tri_error *error)
{
    char *part = tri_strdup(path);
    int code = tri_file_fault("open", path, 0);
    for (char *at = part + 1; code == 0; at++) {
        if (*at != '/' && *at != '\0') {
            continue;
        }
        char kept = *at;
        *at = '\0';
        if (mkdir(part, 0777) != 0 && errno != EEXIST) {
            code = errno;
        }
        *at = kept;
        if (kept == '\0') {
            break;
        }
    }
    tri_free(part);
    if (code == 0 && !tri_file_is_dir(path)) {
        code = ENOTDIR;
    }
    return code ? file_error(error, "create the folder", path, code) : TRI_OK;
}

enum tri_status tri_file_sync_dir(const char *path, struct tri_error *error)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return file_error(error, "open the folder", path, errno);
    }
    int code = fsync(fd) == 0 ? 0 : errno;
    (void)close(fd);
    return code ? file_error(error, "sync the folder", path, code) : TRI_OK;
}

enum tri_status tri_file_rename(const char *from, const char *to, struct tri_error *error)
{
    int code = tri_file_fault("rename", to, 0);
    if (code == 0 && rename(from, to) != 0) {
        code = errno;
    }
    return code ? file_error(error, "rename to", to, code) : TRI_OK;
}

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *where)
{
    (void)info;
    (void)kind;
    (void)where;
    return remove(path);
}

enum tri_status tri_file_remove_tree(const char *path, struct tri_error *error)
{
    if (nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) != 0 && errno != ENOENT) {
        return file_error(error, "remove", path, errno);
    }
    return TRI_OK;
}

bool tri_file_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

bool tri_file_is_dir(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}
