#include "train/run_folder.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/path.h"
#include "base/work.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct tri_run_folder {
    char path[TRI_PATH_MAX];
    int self, lock; /* the folder itself and RUN/lock, open; -1: not */
    bool self_locked, file_locked;
    bool tried; /* what was tried is still there, for the others to see */
    /* What this start has made; it goes again where no run begins. */
    char made[TRI_PATH_MAX]; /* the highest of the folders on the path; "": none */
    bool made_lock, made_checkpoints;
    bool busy, begun;
};

#define TRYING "checkpoints/trident.try"
#define TRIED  "checkpoints/trident.tried"

enum { MEMBER_PATH_MAX = TRI_PATH_MAX + 64 };

static void member(const struct tri_run_folder *folder, const char *name,
                   char path[MEMBER_PATH_MAX])
{
    tri_path_make(path, MEMBER_PATH_MAX, "%s/%s", folder->path, name);
}

/* ---- the lock -------------------------------------------------------------------------------- */

static enum tri_status say_busy(struct tri_run_folder *folder, struct tri_error *error)
{
    folder->busy = true;
    return tri_fail(error, TRI_FAILED, "%s: another job is working in this run folder",
                    folder->path);
}

/* Two locks: a file's, which every system with locks has, and the folder's own, which no removed
 * file and no new name of the folder undoes. */
static enum tri_status take_lock(struct tri_run_folder *folder, struct tri_error *error)
{
    char path[MEMBER_PATH_MAX];
    int code = 0;
    folder->self = open(folder->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder->self >= 0) {
        enum tri_lock self = tri_file_lock(folder->self, folder->path, true, &code);
        if (self == TRI_LOCK_BUSY) {
            return say_busy(folder, error);
        }
        folder->self_locked = self == TRI_LOCK_TAKEN;
    }
    member(folder, "lock", path);
    folder->lock = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    folder->made_lock = folder->lock >= 0;
    if (folder->lock < 0) {
        folder->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0666);
    }
    if (folder->lock < 0) {
        return tri_fail(error, TRI_FAILED, "%s: cannot open: %s", path, strerror(errno));
    }
    enum tri_lock file = tri_file_lock(folder->lock, path, false, &code);
    if (file == TRI_LOCK_BUSY) {
        return say_busy(folder, error);
    }
    if (file == TRI_LOCK_FAILED) {
        return tri_fail(error, TRI_FAILED, "%s: cannot lock: %s", path, strerror(code));
    }
    folder->file_locked = file == TRI_LOCK_TAKEN;
    if (!folder->file_locked && !folder->self_locked) {
        tri_log_warn("%s: this file system has no locks (%s): nothing keeps a second job out of "
                     "this run folder",
                     folder->path, strerror(code));
    }
    return TRI_OK;
}

static bool is_still(const char *path, int fd)
{
    struct stat now, held;
    return fd < 0 || (stat(path, &now) == 0 && fstat(fd, &held) == 0 && now.st_dev == held.st_dev &&
                      now.st_ino == held.st_ino);
}

/* Whether the path still leads to the folder that was locked. */
static enum tri_status check_held(const struct tri_run_folder *folder, struct tri_error *error)
{
    char path[MEMBER_PATH_MAX];
    if (!is_still(folder->path, folder->self)) {
        return tri_fail(error, TRI_FAILED,
                        "%s: the run folder was renamed, removed or replaced while this run worked "
                        "in it",
                        folder->path);
    }
    member(folder, "lock", path);
    if (folder->file_locked && !folder->self_locked && !is_still(path, folder->lock)) {
        return tri_fail(error, TRI_FAILED,
                        "%s: the lock was removed while this run worked: another may have begun",
                        path);
    }
    return TRI_OK;
}

/* What became of a file in it: where the folder was taken away meanwhile, that. */
static enum tri_status held_still(const struct tri_run_folder *folder, enum tri_status status,
                                  struct tri_error *error)
{
    struct tri_error why;
    enum tri_status held = status == TRI_OK ? TRI_OK : check_held(folder, &why);
    if (held != TRI_OK) {
        *error = why;
        status = held;
    }
    return status;
}

/* ---- a start that is refused ----------------------------------------------------------------- */

/* The highest folder of the path that is not there; "": all are. */
static void find_missing(const char *path, char missing[TRI_PATH_MAX])
{
    char at[TRI_PATH_MAX], above[TRI_PATH_MAX];
    missing[0] = '\0';
    tri_path_make(at, sizeof(at), "%s", path);
    for (tri_path_trim(at); !tri_file_is_named(at); tri_path_trim(at)) {
        tri_path_make(missing, TRI_PATH_MAX, "%s", at);
        tri_path_parent(at, above, sizeof(above));
        tri_path_make(at, sizeof(at), "%s", above);
    }
}

/* Leaves nothing that was not there, and whatever somebody else has put there meanwhile. */
static void take_back(const struct tri_run_folder *folder)
{
    char path[MEMBER_PATH_MAX], above[TRI_PATH_MAX];
    struct tri_error ignored;
    if (folder->busy || check_held(folder, &ignored) != TRI_OK) {
        return; /* what is there is another's */
    }
    member(folder, TRYING, path);
    enum tri_status gone = tri_file_remove_tree(path, &ignored);
    if (gone == TRI_OK && folder->made_checkpoints) {
        member(folder, "checkpoints", path);
        (void)rmdir(path);
    }
    if (folder->made_lock) {
        member(folder, "lock", path);
        (void)unlink(path);
    }
    tri_path_make(path, sizeof(path), "%s", folder->path);
    tri_path_trim(path); /* rmdir takes no "x/." */
    bool more = folder->made[0] != '\0';
    while (more && (rmdir(path) == 0 || errno == ENOENT)) {
        more = strcmp(path, folder->made) != 0;
        tri_path_parent(path, above, sizeof(above));
        tri_path_make(path, sizeof(path), "%s", above);
        tri_path_trim(path);
    }
}

/* ---- opening --------------------------------------------------------------------------------- */

/* What the end of a run asks of the file system, once, before there is work to lose. */
static enum tri_status try_saving(struct tri_run_folder *folder, struct tri_error *error)
{
    char checkpoints[MEMBER_PATH_MAX], from[MEMBER_PATH_MAX], to[MEMBER_PATH_MAX],
        file[MEMBER_PATH_MAX];
    member(folder, "checkpoints", checkpoints);
    member(folder, TRYING, from);
    member(folder, TRYING "/file", file);
    member(folder, TRIED, to);
    folder->made_checkpoints = !tri_file_is_named(checkpoints);
    TRI_TRY(tri_file_remove_tree(to, error));
    TRI_TRY(tri_file_make_dirs(from, error));
    TRI_TRY(tri_file_save(file, "\n", 1, error));
    TRI_TRY(tri_file_sync_dir(from, error));
    TRI_TRY(tri_file_rename(from, to, error));
    folder->tried = true;
    TRI_TRY(tri_file_sync_dir(checkpoints, error));
    /* The other thing that is written when all is done. */
    struct tri_writer *ledger;
    member(folder, "ledger.json", file);
    enum tri_status status = tri_writer_create(file, &ledger, error);
    tri_writer_destroy(ledger);
    return status;
}

struct removal {
    const struct tri_run_folder *folder;
    bool all;
    struct tri_error *error;
};

/* The half of a trace that a killed start has left; of all starts traces and events. Somebody may
 * have a trace-notes.txt there. */
static bool is_of_run(const char *name, bool all)
{
    static const char form[] = TRI_TRACE_STEM "[0-9]*-[0-9]*.json";
    static const char half[] = TRI_TRACE_STEM "[0-9]*-[0-9]*.json" TRI_TEMPORARY;
    return fnmatch(half, name, 0) == 0 ||
           (all && (strncmp(name, TRI_EVENTS_STEM, strlen(TRI_EVENTS_STEM)) == 0 ||
                    fnmatch(form, name, 0) == 0));
}

static enum tri_status remove_of_run(const char *name, void *data)
{
    const struct removal *removal = data;
    char path[MEMBER_PATH_MAX];
    if (!is_of_run(name, removal->all) || strlen(name) > 255) {
        return TRI_OK;
    }
    TRI_TRY(
        tri_path_format(path, sizeof(path), removal->error, "%s/%s", removal->folder->path, name));
    return tri_file_clear(path, removal->error);
}

static enum tri_status remove_old(const struct tri_run_folder *folder, bool fresh,
                                  struct tri_error *error)
{
    static const char *const names[] = {"checkpoints",      "metrics.jsonl", "config.yaml",
                                        "environment.json", "plan.json",     "ledger.json",
                                        "tokenizer",        "status.json"};
    for (size_t i = 0; fresh && i < sizeof(names) / sizeof(*names); i++) {
        char path[MEMBER_PATH_MAX];
        member(folder, names[i], path);
        TRI_TRY(tri_file_clear(path, error));
    }
    struct removal removal = {folder, fresh, error};
    return tri_file_list(folder->path, remove_of_run, &removal, error);
}

static bool has(const char *path, const char *name)
{
    char file[MEMBER_PATH_MAX];
    tri_path_make(file, sizeof(file), "%s/%s", path, name);
    return tri_file_exists(file);
}

static enum tri_status see(const char *name, void *seen)
{
    bool *found = seen;
    *found = *found || (strcmp(name, ".") != 0 && strcmp(name, "..") != 0);
    return TRI_OK;
}

/* A text, and no link, that says where one is to be. */
static bool has_text(const char *path, const char *name)
{
    char file[MEMBER_PATH_MAX];
    struct stat info;
    tri_path_make(file, sizeof(file), "%s/%s", path, name);
    return lstat(file, &info) == 0 && S_ISREG(info.st_mode) && info.st_size > 0;
}

/* What is there of a run's names and no run has made is somebody's, and is not replaced; nor does a
 * run begin in a model's folder, which would mean the run from then on. An empty folder of
 * checkpoints, or a link to one, says where they are wanted; only starting over would remove what
 * is in it. */
static enum tri_status check_is_ours(const char *path, bool fresh, struct tri_error *error)
{
    char checkpoints[MEMBER_PATH_MAX];
    bool filled = false;
    if (has(path, "lock") || has(path, "environment.json")) {
        return TRI_OK;
    }
    tri_path_make(checkpoints, sizeof(checkpoints), "%s/checkpoints", path);
    if (fresh && tri_file_is_dir(checkpoints)) {
        TRI_TRY(tri_file_list(checkpoints, see, &filled, error));
    }
    const char *theirs = has_text(path, "config.yaml")   ? "config.yaml"
                         : has_text(path, "config.json") ? "config.json"
                         : filled                        ? "checkpoints"
                                                         : NULL;
    return theirs ? tri_fail(error, TRI_BAD_INPUT,
                             "%s/%s: is there already and no run has made it: not replaced; choose "
                             "another run_dir",
                             path, theirs)
                  : TRI_OK;
}

enum tri_status tri_run_folder_open(const char *path, bool fresh, struct tri_run_folder **folder,
                                    struct tri_error *error)
{
    *folder = NULL;
    TRI_TRY(check_is_ours(path, fresh, error));
    struct tri_run_folder *f = tri_alloc(TRI_MEMORY_OTHER, sizeof(*f));
    f->self = f->lock = -1;
    tri_path_make(f->path, sizeof(f->path), "%s", path);
    find_missing(path, f->made);
    enum tri_status status = tri_file_make_dirs(path, error);
    if (status == TRI_OK) {
        status = take_lock(f, error);
    }
    if (status == TRI_OK) {
        status = remove_old(f, fresh, error);
    }
    if (status == TRI_OK) {
        status = try_saving(f, error);
    }
    if (status != TRI_OK) {
        tri_run_folder_close(f);
        return status;
    }
    *folder = f;
    return TRI_OK;
}

/* ---- all ranks ------------------------------------------------------------------------------- */

enum tri_status tri_run_folder_look(const char *path, int rank, struct tri_error *error)
{
    char host[64] = "", file[MEMBER_PATH_MAX];
    struct tri_part_file *part;
    struct tri_error why;
    tri_path_make(file, sizeof(file), "%s/" TRIED "/file", path);
    enum tri_status status = tri_part_file_open(file, &part, &why);
    if (status == TRI_OK) {
        tri_part_file_destroy(part);
        status = tri_part_file_create(file, &part, &why);
    }
    if (status == TRI_OK) {
        tri_part_file_destroy(part);
        return TRI_OK;
    }
    (void)gethostname(host, sizeof(host) - 1);
    return tri_fail(error, status,
                    "%.600s; rank %d, on %s, saves its part of checkpoints there too: run_dir must "
                    "be the same folder on all nodes",
                    why.message, rank, host);
}

void tri_run_folder_seen(struct tri_run_folder *folder)
{
    char tried[MEMBER_PATH_MAX];
    struct tri_error error;
    member(folder, TRIED, tried);
    if (folder->tried && tri_file_remove_tree(tried, &error) != TRI_OK) {
        tri_log_warn("%s", error.message);
    }
    folder->tried = false;
}

/* ---- closing --------------------------------------------------------------------------------- */

void tri_run_folder_close(struct tri_run_folder *folder)
{
    if (!folder) {
        return;
    }
    tri_run_folder_seen(folder);
    if (!folder->begun) {
        take_back(folder);
    }
    if (folder->lock >= 0) {
        (void)close(folder->lock);
    }
    if (folder->self >= 0) {
        (void)close(folder->self);
    }
    tri_free(folder);
}

enum tri_status tri_run_folder_describe(struct tri_run_folder *folder,
                                        const struct tri_config *config, const char *environment,
                                        struct tri_error *error)
{
    char path[MEMBER_PATH_MAX];
    TRI_TRY(check_held(folder, error));
    char *yaml = tri_config_to_yaml(config);
    member(folder, "config.yaml", path);
    enum tri_status status = tri_file_save(path, yaml, strlen(yaml), error);
    tri_free(yaml);
    folder->begun = status == TRI_OK;
    member(folder, "environment.json", path);
    if (status == TRI_OK) {
        status = tri_file_save(path, environment, strlen(environment), error);
    }
    if (status == TRI_OK) {
        status = tri_file_sync_dir(folder->path, error);
    }
    return held_still(folder, status, error);
}

enum tri_status tri_run_folder_save(const struct tri_run_folder *folder, const char *name,
                                    const char *text, struct tri_error *error)
{
    char path[MEMBER_PATH_MAX];
    TRI_TRY(check_held(folder, error));
    member(folder, name, path);
    enum tri_status status = tri_file_save(path, text, strlen(text), error);
    if (status == TRI_OK) {
        status = tri_file_sync_dir(folder->path, error);
    }
    return held_still(folder, status, error);
}

enum tri_status tri_run_folder_append(const struct tri_run_folder *folder, const char *name,
                                      const void *data, size_t bytes, struct tri_error *error)
{
    char path[MEMBER_PATH_MAX];
    TRI_TRY(check_held(folder, error));
    member(folder, name, path);
    return held_still(folder, tri_file_append(path, data, bytes, error), error);
}

enum tri_status tri_run_folder_create_file(const struct tri_run_folder *folder, const char *name,
                                           struct tri_writer **writer, struct tri_error *error)
{
    char path[MEMBER_PATH_MAX];
    *writer = NULL;
    TRI_TRY(check_held(folder, error));
    member(folder, name, path);
    return tri_writer_create(path, writer, error);
}

enum tri_status tri_run_folder_close_file(const struct tri_run_folder *folder,
                                          struct tri_writer *writer, enum tri_status written,
                                          struct tri_error *error)
{
    if (written == TRI_OK) {
        written = tri_writer_close(&writer, error);
    }
    tri_writer_destroy(writer);
    if (written == TRI_OK) {
        written = tri_file_sync_dir(folder->path, error);
    }
    return held_still(folder, written, error);
}

const char *tri_run_folder_path(const struct tri_run_folder *folder)
{
    return folder->path;
}

/* ---- metrics --------------------------------------------------------------------------------- */

/* The object of a line; what a power cut or a full disk left before it (zeros, the torn begin of
 * another) is skipped: *from becomes where it begins. */
static json_t *object_of_line(const char *text, size_t size, size_t *from)
{
    static const char begin[] = "{\"step\"";
    json_t *object = NULL;
    for (size_t at = 0; !object && at + sizeof(begin) - 1 <= size; at++) {
        if (at == 0 || memcmp(text + at, begin, sizeof(begin) - 1) == 0) {
            object = json_loadb(text + at, size - at, 0, NULL);
            *from = at;
        }
    }
    return object;
}

struct line {
    json_t *object;   /* for json_decref; NULL when it says nothing */
    const char *text; /* of the object */
    size_t bytes;
    size_t torn; /* bytes before it */
    bool ended;
};

/* The line at *at, which becomes where the next one begins; false when there is none. Without the
 * text `with` in it (NULL: any) it is not looked into. */
static bool next_line(const struct tri_mapping *file, const char *with, size_t *at,
                      struct line *line)
{
    if (*at >= file->size) {
        return false;
    }
    const char *text = (const char *)file->data + *at;
    const char *newline = memchr(text, '\n', file->size - *at);
    size_t whole = newline ? (size_t)(newline - text) : file->size - *at;
    *line = (struct line){.ended = newline != NULL};
    if (!with || memmem(text, whole, with, strlen(with))) {
        line->object = object_of_line(text, whole, &line->torn);
    }
    line->text = text + line->torn;
    line->bytes = whole - line->torn;
    *at += whole + 1;
    tri_work_progress();
    return true;
}

static bool stays(const struct line *line, int64_t step)
{
    const json_t *number = json_object_get(line->object, "step");
    return json_is_integer(number) && json_integer_value(number) <= step;
}

/* Bytes at the begin that stay as they are; *lost are whole lines of all that say nothing. */
static size_t count_kept(const struct tri_mapping *file, int64_t step, int64_t *lost)
{
    struct line line;
    size_t kept = 0;
    bool all = true;
    *lost = 0;
    for (size_t at = 0; next_line(file, NULL, &at, &line);) {
        all = all && stays(&line, step) && line.torn == 0 && line.ended;
        kept = all ? at : kept;
        *lost +=
            line.ended && (line.torn > 0 || !json_is_integer(json_object_get(line.object, "step")));
        json_decref(line.object);
    }
    return kept;
}

/* The first `kept` bytes, and what stays of the rest: a long run's file is not held in memory. */
static enum tri_status write_kept(const struct tri_mapping *file, int64_t step, size_t kept,
                                  struct tri_writer *writer, struct tri_error *error)
{
    struct line line;
    enum tri_status status = tri_writer_write(writer, file->data, kept, error);
    for (size_t at = kept; status == TRI_OK && next_line(file, NULL, &at, &line);) {
        if (stays(&line, step)) {
            status = tri_writer_write(writer, line.text, line.bytes, error);
            status = status == TRI_OK ? tri_writer_write(writer, "\n", 1, error) : status;
        }
        json_decref(line.object);
    }
    return status;
}

static enum tri_status replace(const char *path, const struct tri_mapping *file, int64_t step,
                               size_t kept, struct tri_error *error)
{
    struct tri_writer *writer;
    TRI_TRY(tri_writer_create(path, &writer, error));
    enum tri_status status = write_kept(file, step, kept, writer, error);
    if (status != TRI_OK) {
        tri_writer_destroy(writer);
        return status;
    }
    return tri_writer_close(&writer, error);
}

bool tri_run_folder_lacks_evaluation(const struct tri_run_folder *folder, int64_t step)
{
    char path[MEMBER_PATH_MAX], wanted[32];
    struct tri_mapping mapping;
    struct tri_error ignored;
    struct line line;
    bool trained = false;
    bool evaluated = false;
    member(folder, "metrics.jsonl", path);
    if (!tri_file_exists(path) || tri_file_map(path, &mapping, &ignored) != TRI_OK) {
        return false;
    }
    (void)snprintf(wanted, sizeof(wanted), "\"step\":%lld,", (long long)step);
    for (size_t at = 0; next_line(&mapping, wanted, &at, &line);) {
        if (json_integer_value(json_object_get(line.object, "step")) == step) {
            trained = trained || json_object_get(line.object, "loss");
            evaluated = evaluated || json_object_get(line.object, "valid_loss");
        }
        json_decref(line.object);
    }
    tri_file_unmap(&mapping);
    return trained && !evaluated;
}

enum tri_status tri_run_folder_trim_metrics(const struct tri_run_folder *folder, int64_t step,
                                            struct tri_error *error)
{
    char path[MEMBER_PATH_MAX];
    struct tri_mapping mapping;
    member(folder, "metrics.jsonl", path);
    if (!tri_file_exists(path)) {
        return TRI_OK;
    }
    TRI_TRY(tri_file_map(path, &mapping, error));
    int64_t lost;
    size_t kept = count_kept(&mapping, step, &lost);
    if (lost > 0) {
        tri_log_warn("%s: dropped %lld torn lines", path, (long long)lost);
    }
    enum tri_status status =
        kept < mapping.size ? replace(path, &mapping, step, kept, error) : TRI_OK;
    tri_file_unmap(&mapping);
    TRI_TRY(status);
    return tri_file_sync_dir(folder->path, error);
}

enum tri_status tri_run_folder_add_metrics(const struct tri_run_folder *folder, const char *line,
                                           struct tri_error *error)
{
    char path[MEMBER_PATH_MAX];
    TRI_TRY(check_held(folder, error));
    member(folder, "metrics.jsonl", path);
    return held_still(folder, tri_file_append_line(path, line, error), error);
}
