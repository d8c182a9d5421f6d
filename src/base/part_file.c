/* Files of which each process writes or reads its own parts. */
#include "base/file.h"

#include "base/file_hook.h"
#include "base/memory.h"
#include "base/system.h"
#include "base/work.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* What one call of the system is given: a sign of work in between. */
enum { MOST = 16 << 20 };

struct tri_part_file {
    int fd;
    bool written;
    uint64_t size;
    char *path;
};

static struct tri_part_file *make(const char *path, int fd, bool written, uint64_t size)
{
    struct tri_part_file *file = tri_alloc(TRI_MEMORY_OTHER, sizeof(*file));
    *file = (struct tri_part_file){fd, written, size, tri_strdup(path)};
    return file;
}

enum tri_status tri_part_file_create(const char *path, struct tri_part_file **file,
                                     struct tri_error *error)
{
    *file = NULL;
    tri_work_file_begin(path);
    int code = tri_file_fault("open", path, 0);
    int fd = code ? -1 : open(path, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666);
    code = code == 0 && fd < 0 ? errno : code;
    tri_work_file_end();
    if (code) {
        return tri_system_error(error, "create", path, code);
    }
    *file = make(path, fd, true, 0);
    return TRI_OK;
}

enum tri_status tri_part_file_open(const char *path, struct tri_part_file **file,
                                   struct tri_error *error)
{
    int fd = -1;
    struct stat info = {0};
    *file = NULL;
    tri_work_file_begin(path);
    enum tri_status status = tri_system_open(path, &fd, &info, error);
    tri_work_file_end();
    TRI_TRY(status);
    if (!S_ISREG(info.st_mode)) {
        (void)close(fd);
        return tri_fail(error, TRI_BAD_INPUT, "%s: cannot read: %s", path,
                        tri_system_kind(info.st_mode));
    }
    *file = make(path, fd, false, (uint64_t)info.st_size);
    return TRI_OK;
}

static int write_at(const struct tri_part_file *file, uint64_t offset, const char *data,
                    size_t bytes)
{
    while (bytes > 0) {
        tri_work_file_begin(file->path);
        ssize_t done = pwrite(file->fd, data, bytes < MOST ? bytes : MOST, (off_t)offset);
        int code = errno;
        tri_work_file_end();
        if (done <= 0 && (done == 0 || code != EINTR)) {
            return done == 0 ? EIO : code;
        }
        if (done > 0) {
            data += done;
            offset += (uint64_t)done;
            bytes -= (size_t)done;
        }
    }
    return 0;
}

enum tri_status tri_part_file_write(struct tri_part_file *file, uint64_t offset, const void *data,
                                    size_t bytes, struct tri_error *error)
{
    int code = tri_file_fault("write", file->path, offset + bytes);
    if (code == 0) {
        code = write_at(file, offset, data, bytes);
    }
    if (code) {
        return tri_system_error(error, "write", file->path, code);
    }
#ifdef SYNC_FILE_RANGE_WRITE
    /* The disk begins now, not at the sync. No harm where a system can't. */
    tri_work_file_begin(file->path);
    (void)sync_file_range(file->fd, (off_t)offset, (off_t)bytes, SYNC_FILE_RANGE_WRITE);
    tri_work_file_end();
#endif
    return TRI_OK;
}

enum tri_status tri_part_file_read(struct tri_part_file *file, uint64_t offset, void *data,
                                   size_t bytes, struct tri_error *error)
{
    int code = tri_file_fault("read", file->path, offset + bytes);
    char *to = data;
    bool ends = false;
    while (code == 0 && bytes > 0 && !ends) {
        tri_work_file_begin(file->path);
        ssize_t done = pread(file->fd, to, bytes < MOST ? bytes : MOST, (off_t)offset);
        code = done < 0 && errno != EINTR ? errno : 0;
        tri_work_file_end();
        ends = done == 0;
        if (done > 0) {
            to += done;
            offset += (uint64_t)done;
            bytes -= (size_t)done;
        }
    }
    if (code || ends) {
        return tri_fail(error, TRI_BAD_INPUT, "%s: cannot read: %s", file->path,
                        code ? strerror(code) : "it was cut short");
    }
    return TRI_OK;
}

void tri_part_file_expect(const struct tri_part_file *file, uint64_t offset, size_t bytes)
{
    (void)posix_fadvise(file->fd, (off_t)offset, (off_t)bytes, POSIX_FADV_WILLNEED);
}

uint64_t tri_part_file_size(const struct tri_part_file *file)
{
    return file->size;
}

enum tri_status tri_part_file_close(struct tri_part_file **file, struct tri_error *error)
{
    struct tri_part_file *f = *file;
    *file = NULL;
    int code = f->written ? tri_system_sync_part(f->fd, f->path) : 0;
    tri_work_file_begin(f->path);
    if (close(f->fd) != 0 && code == 0) {
        code = errno;
    }
    f->fd = -1;
    tri_work_file_end();
    enum tri_status status = code ? tri_system_error(error, "finish", f->path, code) : TRI_OK;
    tri_part_file_destroy(f);
    return status;
}

enum tri_status tri_part_file_expect_size(const char *path, uint64_t bytes, struct tri_error *error)
{
    struct tri_part_file *file;
    TRI_TRY(tri_part_file_open(path, &file, error));
    assert(file);
    uint64_t found = file->size;
    tri_part_file_destroy(file);
    if (found != bytes) {
        return tri_fail(error, TRI_FAILED,
                        "%s: has %" PRIu64 " bytes when all ranks have written it, expected "
                        "%" PRIu64 ": not all of them write to this folder",
                        path, found, bytes);
    }
    return TRI_OK;
}

void tri_part_file_destroy(struct tri_part_file *file)
{
    if (file) {
        if (file->fd >= 0) {
            (void)close(file->fd);
        }
        tri_free(file->path);
        tri_free(file);
    }
}
