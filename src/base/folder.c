/* Folders: made, renamed, removed, locked. What a file system does not have (locks on Lustre
 * without -o flock, fsync of a folder on some FUSE and network ones) is warned of and done
 * without. */
#include "base/file.h"

#include "base/file_hook.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/path.h"
#include "base/runtime.h"
#include "base/system.h"
#include "base/work.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { PATH_BYTES = 4096 };

enum tri_status tri_system_error(struct tri_error *error, const char *what, const char *path,
                                 int code)
{
    enum tri_status status =
        code == ENOENT || code == EISDIR || code == ENOTDIR || code == ENAMETOOLONG ? TRI_BAD_INPUT
                                                                                    : TRI_FAILED;
    return tri_fail(error, status, "%s: cannot %s: %s", path, what, strerror(code));
}

const char *tri_system_kind(mode_t mode)
{
    if (S_ISDIR(mode)) {
        return "Is a directory"; /* in the words of the system */
    }
    if (S_ISFIFO(mode)) {
        return "a pipe, expected a file";
    }
    return S_ISSOCK(mode) ? "a socket, expected a file" : "a device, expected a file";
}

/* ---- what need not be there ------------------------------------------------------------------ */

static bool is_unsupported(int code)
{
    return code == EINVAL || code == ENOSYS || code == EOPNOTSUPP;
}

static int sync_or_say(int fd, const char *path, bool folder, bool *unsupported)
{
    tri_work_file_begin(path);
    int code = tri_file_fault(folder ? "syncdir" : "sync", path, 0);
    if (code == 0 && fsync(fd) != 0) {
        code = errno;
    }
    tri_work_file_end();
    *unsupported = is_unsupported(code) || (folder && (code == EBADF || code == EACCES));
    return code;
}

int tri_system_sync_part(int fd, const char *path)
{
    bool unsupported;
    int code = sync_or_say(fd, path, false, &unsupported);
    return unsupported ? 0 : code;
}

int tri_system_sync(int fd, const char *path, bool folder)
{
    bool unsupported;
    int code = sync_or_say(fd, path, folder, &unsupported);
    if (!unsupported) {
        return code;
    }
    bool *told = &tri_runtime_get()->log.told_unsynced[folder];
    if (!*told) {
        *told = true;
        tri_log_warn("%s: this file system cannot sync a %s (%s): what is written may be lost if "
                     "the machine dies",
                     path, folder ? "folder" : "file", strerror(code));
    }
    return 0;
}

/* 0 or an errno. */
static int lock_now(int fd, int kind)
{
    int code = 0;
    while (code == 0 && flock(fd, kind | LOCK_NB) != 0) {
        code = errno == EINTR ? 0 : errno;
    }
    return code;
}

enum tri_lock tri_file_lock(int fd, const char *path, bool folder, int *code)
{
    enum { LOOKS = 20, LOOK_NANOSECONDS = 10000000 }; /* who only looks is gone sooner */
    const struct timespec pause = {.tv_nsec = LOOK_NANOSECONDS};
    tri_work_file_begin(path);
    *code = tri_file_fault(folder ? "lockdir" : "lock", path, 0);
    if (*code == 0) {
        *code = lock_now(fd, LOCK_EX);
        for (int i = 0; i < LOOKS && *code == EWOULDBLOCK; i++) {
            (void)nanosleep(&pause, NULL);
            *code = lock_now(fd, LOCK_EX);
        }
    }
    tri_work_file_end();
    if (*code == 0) {
        return TRI_LOCK_TAKEN;
    }
    if (*code == EWOULDBLOCK) {
        return TRI_LOCK_BUSY;
    }
    return is_unsupported(*code) || *code == ENOLCK || *code == EBADF ? TRI_LOCK_UNSUPPORTED
                                                                      : TRI_LOCK_FAILED;
}

enum tri_lock tri_file_look_locked(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    int code = fd < 0 ? errno : lock_now(fd, LOCK_SH);
    if (fd >= 0) {
        (void)close(fd);
    }
    return code == 0 ? TRI_LOCK_TAKEN : code == EWOULDBLOCK ? TRI_LOCK_BUSY : TRI_LOCK_FAILED;
}

/* ---- folders --------------------------------------------------------------------------------- */

bool tri_file_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

bool tri_file_is_named(const char *path)
{
    struct stat info;
    return lstat(path, &info) == 0;
}

bool tri_file_is_dir(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

enum tri_status tri_file_check_access(const char *path, struct tri_error *error)
{
    struct stat info;
    int code = tri_file_fault("look", path, 0);
    if (code == 0 && stat(path, &info) != 0) {
        code = errno;
    } else if (code == 0 && S_ISDIR(info.st_mode) && access(path, R_OK | X_OK) != 0) {
        code = errno;
    }
    return code == 0 || code == ENOENT || code == ENOTDIR
               ? TRI_OK
               : tri_fail(error, TRI_BAD_INPUT, "%s: cannot open: %s", path, strerror(code));
}

enum tri_status tri_file_size(const char *path, uint64_t *bytes, struct tri_error *error)
{
    struct stat info;
    *bytes = 0;
    if (stat(path, &info) != 0) {
        return tri_fail(error, TRI_BAD_INPUT, "%s: cannot open: %s", path, strerror(errno));
    }
    *bytes = (uint64_t)info.st_size;
    return TRI_OK;
}

/* The next name, NULL at the end; 0 or an errno. */
static int next_name(DIR *stream, const char *folder, const char **name)
{
    tri_work_file_begin(folder);
    errno = tri_file_fault("list", folder, 0);
    const struct dirent *entry = errno ? NULL : readdir(stream);
    int code = entry ? 0 : errno;
    tri_work_file_end();
    *name = entry ? entry->d_name : NULL;
    return code;
}

enum tri_status tri_file_list(const char *folder, tri_file_visit *visit, void *data,
                              struct tri_error *error)
{
    DIR *stream = opendir(folder);
    int code = stream ? 0 : errno;
    enum tri_status status = TRI_OK;
    for (const char *name; stream && status == TRI_OK;) {
        code = next_name(stream, folder, &name);
        if (!name) {
            break;
        }
        status = visit(name, data);
    }
    if (stream) {
        (void)closedir(stream);
    }
    return code && code != ENOENT
               ? tri_fail(error, TRI_BAD_INPUT, "%s: cannot list: %s", folder, strerror(code))
               : status;
}

static bool is_link(const char *path)
{
    struct stat info;
    return lstat(path, &info) == 0 && S_ISLNK(info.st_mode);
}

enum tri_status tri_file_sync_dir(const char *path, struct tri_error *error)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int code = fd < 0 ? errno : tri_system_sync(fd, path, true);
    if (fd >= 0) {
        (void)close(fd);
    } else if (code == EACCES) {
        return TRI_OK; /* one may write in a folder and not read it */
    }
    return code ? tri_system_error(error, "sync the folder", path, code) : TRI_OK;
}

enum tri_status tri_file_sync_parent(const char *path, struct tri_error *error)
{
    char parent[PATH_BYTES];
    tri_path_parent(path, parent, sizeof(parent));
    return tri_file_sync_dir(parent, error);
}

/* One folder, and its name in the folder above. */
static enum tri_status make_dir(const char *part, const char *path, struct tri_error *error)
{
    tri_work_file_begin(part);
    int code = mkdir(part, 0777) == 0 ? 0 : errno;
    tri_work_file_end();
    if (code == 0) {
        return tri_file_sync_parent(part, error);
    }
    /* A folder that is there may refuse for another reason first, as a read-only system does. */
    return code == EEXIST || tri_file_is_dir(part)
               ? TRI_OK
               : tri_system_error(error, "create the folder", path, code);
}

enum tri_status tri_file_make_dirs(const char *path, struct tri_error *error)
{
    int code = tri_file_fault("open", path, 0);
    if (code || strlen(path) >= PATH_BYTES) {
        return tri_system_error(error, "create the folder", path, code ? code : ENAMETOOLONG);
    }
    char *part = tri_strdup(path);
    enum tri_status status = TRI_OK;
    for (char *at = part + (*part != '\0'); status == TRI_OK; at++) {
        if (*at != '/' && *at != '\0') {
            continue;
        }
        char kept = *at;
        *at = '\0';
        status = make_dir(part, path, error);
        *at = kept;
        if (kept == '\0') {
            break;
        }
    }
    tri_free(part);
    if (status == TRI_OK && !tri_file_is_dir(path)) {
        return !tri_file_exists(path) && is_link(path)
                   ? tri_fail(error, TRI_BAD_INPUT, "%s: a link to what is not there", path)
                   : tri_fail(error, TRI_BAD_INPUT,
                              "%s: cannot create the folder: there is a file of that name", path);
    }
    return status;
}

enum tri_status tri_file_rename(const char *from, const char *to, struct tri_error *error)
{
    tri_work_file_begin(to);
    int code = tri_file_fault("rename", to, 0);
    if (code == 0 && rename(from, to) != 0) {
        code = errno;
    }
    tri_work_file_end();
    return code ? tri_system_error(error, "rename to", to, code) : TRI_OK;
}

/* A large file's pages, or a folder's entries, may take a system long to give back. */
static int remove_slowly(const char *path)
{
    tri_work_file_begin(path);
    int code = tri_file_fault("remove", path, 0);
    if (code == 0 && remove(path) != 0) {
        code = errno;
    }
    tri_work_file_end();
    errno = code;
    return code && code != ENOENT ? -1 : 0;
}

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *where)
{
    (void)info;
    (void)kind;
    (void)where;
    return remove_slowly(path);
}

enum tri_status tri_file_remove_tree(const char *path, struct tri_error *error)
{
    if (nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) != 0 && errno != ENOENT) {
        return tri_system_error(error, "remove", path, errno);
    }
    return TRI_OK;
}

static int remove_below(const char *path, const struct stat *info, int kind, struct FTW *where)
{
    (void)info;
    (void)kind;
    return where->level == 0 ? 0 : remove_slowly(path);
}

enum tri_status tri_file_clear(const char *path, struct tri_error *error)
{
    if (!is_link(path)) {
        return tri_file_remove_tree(path, error);
    }
    int code = 0;
    if (tri_file_is_dir(path)) {
        char *real = realpath(path, NULL);
        code = !real || nftw(real, remove_below, 16, FTW_DEPTH | FTW_PHYS) != 0 ? errno : 0;
        free(real);
    } else if (truncate(path, 0) != 0) {
        code = errno;
    }
    return code && code != ENOENT ? tri_system_error(error, "empty", path, code) : TRI_OK;
}

/* ---- before the work ------------------------------------------------------------------------- */

/* Nothing is above "." that could be there in its place, though it may not be ours to look at. */
static bool is_reached(const char *folder)
{
    return tri_file_exists(folder) || strcmp(folder, ".") == 0;
}

enum tri_status tri_file_check_target(const char *path, struct tri_error *error)
{
    char above[PATH_BYTES], probe[PATH_BYTES];
    if (is_link(path) && !tri_file_exists(path)) {
        return tri_fail(error, TRI_BAD_INPUT, "%s: a link to what is not there", path);
    }
    const char *name = strrchr(path, '/');
    name = name ? name + 1 : path;
    if (name[0] == '\0' || strcmp(name, "..") == 0) {
        return tri_fail(error, TRI_BAD_INPUT, "'%s': found no name for what is to be written",
                        path);
    }
    TRI_TRY(tri_path_format(probe, sizeof(probe), error, "%s.try" TRI_TEMPORARY, path));
    tri_path_parent(path, above, sizeof(above));
    bool there = is_reached(above);
    while (!is_reached(above)) {
        char below[PATH_BYTES];
        tri_path_make(below, sizeof(below), "%s", above);
        tri_path_parent(below, above, sizeof(above));
    }
    if (!there) {
        TRI_TRY(tri_path_format(probe, sizeof(probe), error, "%s/new.try" TRI_TEMPORARY, above));
    }
    int code = tri_file_fault("open", path, 0);
    if (code == 0 && mkdir(probe, 0777) != 0 && errno != EEXIST) {
        code = errno;
    }
    if (code) {
        return tri_system_error(error, "create", path, code);
    }
    (void)rmdir(probe);
    return TRI_OK;
}
