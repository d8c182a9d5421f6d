/* Which checkpoint of a run is meant: the newest that is whole. The one rule for every command. Its
 * bytes are read once, by who loads it: only then is known whether they are what they were. */
#include "checkpoint/checkpoint.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/path.h"
#include "checkpoint/checkpoint_check.h"
#include "checkpoint/checkpoint_dir.h"

#include <errno.h>
#include <glob.h>
#include <inttypes.h>
#include <sys/stat.h>

static enum tri_status check(struct tri_checkpoint_choice *choice, int64_t step,
                             struct tri_error *error)
{
    if (choice->refuses && step == choice->refused) {
        *error = choice->why;
        return error->status;
    }
    return tri_checkpoint_check(
        choice->path, choice->moments ? TRI_CHECKPOINT_HEADERS : TRI_CHECKPOINT_WEIGHTS, error);
}

/* An entry of the folder; where a link leads does not matter. */
static bool is_there(const char *path)
{
    struct stat info;
    return lstat(path, &info) == 0 || errno != ENOENT;
}

/* The newest of the steps that may be whole into choice->path, and into newest what the newest of
 * all lacks. False with *gone: one of them went away meanwhile, as beside a run that goes on. */
static bool find_whole(struct tri_checkpoint_choice *choice, const char *dir, const int64_t *steps,
                       int count, bool *gone)
{
    *gone = false;
    for (int i = 0; i < count; i++) {
        struct tri_error one;
        if (choice->refuses && steps[i] > choice->refused) {
            continue; /* it was said of it already */
        }
        tri_path_make(choice->path, TRI_PATH_MAX, "%s/step_%" PRId64, dir, steps[i]);
        if (check(choice, steps[i], &one) == TRI_OK) {
            return true;
        }
        if (!is_there(choice->path)) {
            *gone = true;
            return false;
        }
        if (choice->newest.message[0] == '\0') {
            choice->newest = one;
        }
        if (i + 1 < count) {
            tri_log_warn("%.600s; the checkpoint before it is tried", one.message);
        }
    }
    return false;
}

enum tri_status tri_checkpoint_latest(const char *run_dir, struct tri_checkpoint_choice *choice,
                                      bool *found, struct tri_error *error)
{
    enum { TRIES = 8 };
    char dir[TRI_CHECKPOINT_PATH];
    int count = 0;
    bool gone = true;
    *found = false;
    choice->of_run = true;
    choice->again = false;
    tri_path_make(dir, sizeof(dir), "%s/checkpoints", run_dir);
    for (int i = 0; gone && i < TRIES; i++) {
        int64_t *steps;
        TRI_TRY(tri_checkpoint_steps(dir, &steps, &count, error));
        *found = find_whole(choice, dir, steps, count, &gone);
        tri_free(steps);
    }
    if (count > 0 && !*found) {
        bool said = choice->newest.message[0] != '\0';
        return tri_fail(error, said ? choice->newest.status : TRI_BAD_INPUT,
                        "%.600s; %s has no %scheckpoint that is whole",
                        said ? choice->newest.message : "its checkpoints come and go", run_dir,
                        count > 1 ? "older " : "other ");
    }
    return TRI_OK;
}

void tri_checkpoint_refuse(struct tri_checkpoint_choice *choice, const struct tri_error *why)
{
    char dir[TRI_CHECKPOINT_PATH];
    int64_t step;
    TRI_REQUIRE(choice->of_run && tri_checkpoint_split(choice->path, dir, &step));
    choice->again = true;
    if (is_there(choice->path)) {
        choice->refuses = true;
        choice->refused = step;
        choice->why = *why;
    }
}

bool tri_checkpoint_is_gone(const struct tri_checkpoint_choice *choice, struct tri_group *group)
{
    int64_t gone = choice->of_run && tri_group_rank(group) == 0 && !is_there(choice->path);
    tri_broadcast(group, (struct tri_where){TRI_PHASE_SETUP, TRI_KIND_META}, &gone, 1, TRI_I64, 0);
    return gone != 0;
}

int64_t tri_checkpoint_newest_until(const char *run_dir, int64_t step)
{
    char dir[TRI_CHECKPOINT_PATH];
    int64_t *steps;
    int64_t newest = -1;
    int count;
    tri_path_make(dir, sizeof(dir), "%s/checkpoints", run_dir);
    enum tri_status status = tri_checkpoint_steps(dir, &steps, &count, NULL);
    for (int i = 0; status == TRI_OK && i < count && newest < 0; i++) {
        newest = steps[i] <= step ? steps[i] : -1; /* newest first */
    }
    tri_free(steps);
    return newest;
}

static bool holds(const char *dir, const char *name)
{
    char path[TRI_CHECKPOINT_PATH];
    tri_path_make(path, sizeof(path), "%s/%s", dir, name);
    return tri_file_exists(path);
}

static bool holds_shards(const char *dir)
{
    char pattern[TRI_CHECKPOINT_PATH];
    glob_t found = {0};
    tri_path_make(pattern, sizeof(pattern), "%s/*.bin", dir);
    bool some = glob(pattern, GLOB_NOSORT, NULL, &found) == 0;
    globfree(&found);
    return some;
}

static bool holds_steps(const char *dir)
{
    int64_t *steps;
    int count;
    enum tri_status status = tri_checkpoint_steps(dir, &steps, &count, NULL);
    tri_free(steps);
    return status == TRI_OK && count > 0;
}

/* Whether a folder without a manifest is at least meant as a checkpoint. */
static enum tri_status refuse_others(const char *given, struct tri_error *error)
{
    if (holds(given, "config.json")) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: a Hugging Face directory: make a checkpoint of it with trident import",
                        given);
    }
    if (!tri_file_is_dir(given)) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: a file, expected the folder of a run or checkpoint", given);
    }
    if (holds_steps(given)) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: a run's checkpoints, expected one of them or the run", given);
    }
    if (holds_shards(given)) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: a folder of token shards, expected a run or checkpoint; shards are "
                        "named by a glob, as '%s/*.bin'",
                        given, given);
    }
    return TRI_OK;
}

enum tri_status tri_checkpoint_resolve(const char *given, struct tri_checkpoint_choice *choice,
                                       struct tri_error *error)
{
    choice->again = false;
    TRI_TRY(tri_file_check_access(given, error));
    if (!tri_file_exists(given)) {
        return tri_fail(error, TRI_BAD_INPUT, "%s: no such run or checkpoint", given);
    }
    bool whole = holds(given, "manifest.json");
    if (!whole && (holds(given, "checkpoints") || holds(given, "config.yaml"))) {
        bool found;
        TRI_TRY(tri_checkpoint_latest(given, choice, &found, error));
        return found ? TRI_OK
                     : tri_fail(error, TRI_BAD_INPUT, "%s: the run has no checkpoint yet", given);
    }
    if (!whole) {
        TRI_TRY(refuse_others(given, error));
    }
    choice->of_run = false;
    tri_path_make(choice->path, TRI_PATH_MAX, "%s", given);
    return TRI_OK;
}
