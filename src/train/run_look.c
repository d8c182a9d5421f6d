#include "train/run_look.h"

#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/path.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MEMBER_PATH_MAX = TRI_PATH_MAX + 64 };

static const char *const seen_names[] = {"starting", "running", "finished", "stopped",
                                         "failed",   "died",    "unknown"};

const char *tri_run_seen_name(enum tri_run_seen seen)
{
    return seen_names[seen];
}

void tri_run_seen_say(const struct tri_run_look *look, char *text, size_t bytes)
{
    const struct tri_run_status *status = &look->status;
    switch (look->seen) {
    case TRI_SEEN_RUNNING:
        (void)snprintf(text, bytes, "running on %s, pid %lld", status->host,
                       (long long)status->pid);
        return;
    case TRI_SEEN_STOPPED:
    case TRI_SEEN_FAILED:
        (void)snprintf(text, bytes, "%s: %s", seen_names[look->seen], status->reason);
        return;
    case TRI_SEEN_DIED:
        (void)snprintf(text, bytes, "died on %s: nobody holds its lock", status->host);
        return;
    default:
        (void)snprintf(text, bytes, "%s%s%s", seen_names[look->seen], look->problem[0] ? ": " : "",
                       look->problem);
    }
}

static void member(const char *run, const char *name, char path[MEMBER_PATH_MAX])
{
    tri_path_make(path, MEMBER_PATH_MAX, "%s/%s", run, name);
}

static int64_t changed(const char *run, const char *name)
{
    char path[MEMBER_PATH_MAX];
    struct stat info;
    member(run, name, path);
    return stat(path, &info) == 0 ? (int64_t)info.st_mtime : 0;
}

bool tri_run_is(const char *path)
{
    return changed(path, "status.json") || changed(path, "metrics.jsonl") ||
           changed(path, "environment.json");
}

/* ---- the end of metrics.jsonl ---------------------------------------------------------------- */

enum { TAIL = 4 << 20, RATES = 15 };

struct tail {
    int64_t step;
    double loss;
    double rate[RATES];
    int rates;
};

static double number_of(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : (double)NAN;
}

static void take_line(const char *text, size_t bytes, struct tail *tail)
{
    json_t *object = tri_json_find_excess(text, bytes) ? NULL : json_loadb(text, bytes, 0, NULL);
    if (json_is_integer(json_object_get(object, "step"))) {
        int64_t step = json_integer_value(json_object_get(object, "step"));
        tail->step = tail->step >= 0 ? tail->step : step;
        if (json_object_get(object, "loss")) {
            double rate = number_of(object, "tokens_per_second");
            tail->loss = tail->rates == 0 ? number_of(object, "loss") : tail->loss;
            tail->rate[tail->rates++] = isfinite(rate) ? rate : 0.0;
        }
    }
    json_decref(object);
}

/* The last lines of so many bytes, backwards; what is behind the last newline is being written. */
static void take_lines(const char *text, size_t bytes, bool from_begin, struct tail *tail)
{
    size_t end = bytes;
    while (end > 0 && text[end - 1] != '\n') {
        end--;
    }
    while (end > 0 && tail->rates < RATES) {
        size_t begin = end - 1;
        while (begin > 0 && text[begin - 1] != '\n') {
            begin--;
        }
        if (begin > 0 || from_begin) {
            take_line(text + begin, end - 1 - begin, tail);
        }
        end = begin;
    }
}

static int compare_rates(const void *a, const void *b)
{
    double left = *(const double *)a;
    double right = *(const double *)b;
    return (left > right) - (left < right);
}

static enum tri_status read_tail(const char *path, struct tail *tail, struct tri_error *error)
{
    struct tri_part_file *file;
    TRI_TRY(tri_part_file_open(path, &file, error));
    uint64_t size = tri_part_file_size(file);
    size_t bytes = size < TAIL ? (size_t)size : TAIL;
    char *text = tri_alloc(TRI_MEMORY_OTHER, bytes + 1);
    enum tri_status status = tri_part_file_read(file, size - bytes, text, bytes, error);
    if (status == TRI_OK) {
        take_lines(text, bytes, bytes == size, tail);
    }
    if (status == TRI_OK && bytes > 0 && tail->step < 0) {
        status = tri_fail(error, TRI_BAD_INPUT, "%s: found no whole line at its end", path);
    }
    tri_free(text);
    tri_part_file_destroy(file);
    return status;
}

static void note(struct tri_run_look *look, const struct tri_error *error)
{
    if (!look->problem[0]) {
        (void)snprintf(look->problem, sizeof(look->problem), "%.500s", error->message);
    }
}

static void look_at_metrics(struct tri_run_look *look)
{
    char path[MEMBER_PATH_MAX];
    struct tail tail = {.step = -1, .loss = (double)NAN};
    struct tri_error error;
    member(look->path, "metrics.jsonl", path);
    if (!tri_file_exists(path)) {
        return;
    }
    if (read_tail(path, &tail, &error) != TRI_OK) {
        note(look, &error);
    }
    look->step = tail.step > look->step ? tail.step : look->step;
    look->loss = tail.loss;
    if (tail.rates > 0) {
        qsort(tail.rate, (size_t)tail.rates, sizeof(*tail.rate), compare_rates);
        look->tokens_per_second = tail.rate[tail.rates / 2];
    }
}

/* ---- the state ------------------------------------------------------------------------------- */

/* BUSY where either of a run's two locks is held. */
static enum tri_lock look_at_lock(const char *run)
{
    char path[MEMBER_PATH_MAX];
    enum tri_lock folder = tri_file_look_locked(run);
    member(run, "lock", path);
    enum tri_lock file = tri_file_look_locked(path);
    return folder == TRI_LOCK_BUSY || file == TRI_LOCK_BUSY     ? TRI_LOCK_BUSY
           : folder == TRI_LOCK_TAKEN || file == TRI_LOCK_TAKEN ? TRI_LOCK_TAKEN
                                                                : TRI_LOCK_FAILED;
}

/* Whether the run is this host's, or does not say whose. */
static bool is_here(const struct tri_run_status *status)
{
    char host[sizeof(status->host)] = "";
    (void)gethostname(host, sizeof(host) - 1);
    return !status->host[0] || strcmp(status->host, host) == 0;
}

static enum tri_run_seen see(enum tri_lock lock, const struct tri_run_status *status)
{
    const enum tri_run_state state = status->state;
    static const enum tri_run_seen ended[] = {TRI_SEEN_DIED, TRI_SEEN_FINISHED, TRI_SEEN_STOPPED,
                                              TRI_SEEN_FAILED};
    if (lock == TRI_LOCK_BUSY) {
        return state == TRI_RUN_RUNNING ? TRI_SEEN_RUNNING : TRI_SEEN_STARTING;
    }
    /* Where nothing can be locked its own word stands. */
    if (lock == TRI_LOCK_FAILED && state == TRI_RUN_RUNNING) {
        return TRI_SEEN_RUNNING;
    }
    /* Not all file systems show one host what another has locked. */
    return state == TRI_RUN_RUNNING && !is_here(status) ? TRI_SEEN_UNKNOWN : ended[state];
}

/* The lock first: a run that ends in between has written its status before it lets go. One that
 * begins in between has taken the lock and written that it runs: then nobody holds the lock of a
 * run that is there, so that is looked at again before it is called dead. */
static void look_at_state(struct tri_run_look *look)
{
    struct tri_error error;
    for (int tries = 0; tries < 2; tries++) {
        enum tri_lock lock = look_at_lock(look->path);
        if (tri_run_status_load(look->path, &look->status, &error) != TRI_OK) {
            look->seen = lock == TRI_LOCK_BUSY ? TRI_SEEN_STARTING : TRI_SEEN_UNKNOWN;
            look->status = (struct tri_run_status){0};
            note(look, &error);
            return;
        }
        look->seen = see(lock, &look->status);
        look->step = look->status.step;
        if (look->seen != TRI_SEEN_DIED) {
            break;
        }
    }
    if (look->seen == TRI_SEEN_UNKNOWN) {
        (void)snprintf(look->problem, sizeof(look->problem),
                       "runs on %s by its status, and no lock of it is seen on this host",
                       look->status.host);
    }
}

void tri_run_look(const char *path, struct tri_run_look *look)
{
    struct tri_error error;
    *look = (struct tri_run_look){
        .seen = TRI_SEEN_UNKNOWN, .loss = (double)NAN, .tokens_per_second = (double)NAN};
    if (tri_path_format(look->path, sizeof(look->path), &error, "%s", path) != TRI_OK) {
        note(look, &error);
        return;
    }
    look_at_state(look);
    look_at_metrics(look);
    int64_t status = changed(path, "status.json");
    int64_t metrics = changed(path, "metrics.jsonl");
    look->changed = status > metrics ? status : metrics;
}

/* ---- finding them ---------------------------------------------------------------------------- */

enum { LEVELS = 4 };

struct folder {
    dev_t device;
    ino_t inode;
};

struct search {
    struct tri_run_look *looks;
    int64_t count, room;
    struct folder *visited;
    int64_t visits, visit_room;
};

/* The list of names of a folder: what one says is added while another is looked into. */
struct names {
    char **name;
    int64_t count, room;
};

static void *more(void *list, int64_t count, int64_t *room, size_t bytes)
{
    if (count < *room) {
        return list;
    }
    *room = *room ? 2 * *room : 16;
    size_t size = (size_t)*room * bytes;
    return list ? tri_resize(list, size) : tri_alloc(TRI_MEMORY_OTHER, size);
}

static struct tri_run_look *add(struct search *search)
{
    search->looks = more(search->looks, search->count, &search->room, sizeof(*search->looks));
    return &search->looks[search->count++];
}

static bool visit_first(struct search *search, const struct stat *info)
{
    for (int64_t i = 0; i < search->visits; i++) {
        if (search->visited[i].device == info->st_dev && search->visited[i].inode == info->st_ino) {
            return false;
        }
    }
    search->visited =
        more(search->visited, search->visits, &search->visit_room, sizeof(*search->visited));
    search->visited[search->visits++] = (struct folder){info->st_dev, info->st_ino};
    return true;
}

static enum tri_status add_name(const char *name, void *data)
{
    struct names *names = data;
    if (name[0] != '.') {
        names->name = more(names->name, names->count, &names->room, sizeof(*names->name));
        names->name[names->count++] = tri_strdup(name);
    }
    return TRI_OK;
}

static void find(struct search *search, const char *path, int level)
{
    struct stat info;
    struct tri_error error;
    struct names names = {0};
    if (stat(path, &info) != 0 || !S_ISDIR(info.st_mode) || !visit_first(search, &info)) {
        return;
    }
    if (tri_run_is(path)) {
        tri_run_look(path, add(search));
        return;
    }
    if (tri_file_list(path, add_name, &names, &error) != TRI_OK) {
        struct tri_run_look *look = add(search);
        tri_run_look(path, look);
        look->problem[0] = '\0';
        note(look, &error);
    }
    for (int64_t i = 0; i < names.count; i++) {
        char below[TRI_PATH_MAX];
        if (level < LEVELS &&
            tri_path_format(below, sizeof(below), &error, "%s/%s", path, names.name[i]) == TRI_OK) {
            find(search, below, level + 1);
        }
        tri_free(names.name[i]);
    }
    tri_free(names.name);
}

void tri_runs_find(const char *path, struct tri_run_look **looks, int64_t *count)
{
    struct search search = {0};
    find(&search, path, 0);
    tri_free(search.visited);
    *looks = search.looks;
    *count = search.count;
}
