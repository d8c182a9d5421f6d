/* Which checkpoint of a run is meant: the newest that is whole. The one rule for every command. */
#include "checkpoint/checkpoint.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/path.h"
#include "checkpoint/checkpoint_dir.h"

#include <inttypes.h>

enum tri_status tri_checkpoint_latest(const char *run_dir, char path[TRI_PATH_MAX], bool *found,
                                      struct tri_error *error)
{
    char dir[TRI_CHECKPOINT_PATH];
    int64_t *steps;
    int count, damaged = 0;
    struct tri_error newest, one;
    *found = false;
    tri_path_make(dir, sizeof(dir), "%s/checkpoints", run_dir);
    enum tri_status status = tri_checkpoint_steps(dir, &steps, &count, error);
    for (int i = 0; status == TRI_OK && !*found && i < count; i++) {
        tri_path_make(path, TRI_PATH_MAX, "%s/step_%" PRId64, dir, steps[i]);
        *found = tri_checkpoint_verify(path, &one) == TRI_OK;
        if (*found) {
            continue;
        }
        if (damaged++ == 0) {
            newest = one;
        }
        if (i + 1 < count) {
            tri_log_warn("%.600s; the checkpoint before it is tried", one.message);
        }
    }
    tri_free(steps);
    if (status == TRI_OK && damaged > 0 && !*found) {
        return tri_fail(error, newest.status, "%.600s; %s has no %scheckpoint that is whole",
                        newest.message, run_dir, damaged > 1 ? "older " : "other ");
    }
    return status;
}

static bool holds(const char *dir, const char *name)
{
    char path[TRI_CHECKPOINT_PATH];
    tri_path_make(path, sizeof(path), "%s/%s", dir, name);
    return tri_file_exists(path);
}

enum tri_status tri_checkpoint_resolve(const char *given, char path[TRI_PATH_MAX],
                                       struct tri_error *error)
{
    if (!tri_file_exists(given)) {
        return tri_fail(error, TRI_BAD_INPUT, "%s: no such run or checkpoint", given);
    }
    bool whole = holds(given, "manifest.json");
    if (!whole && (holds(given, "checkpoints") || holds(given, "config.yaml"))) {
        bool found;
        TRI_TRY(tri_checkpoint_latest(given, path, &found, error));
        return found ? TRI_OK
                     : tri_fail(error, TRI_BAD_INPUT, "%s: the run has no checkpoint yet", given);
    }
    if (!whole && holds(given, "config.json")) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: a Hugging Face directory: make a checkpoint of it with trident import",
                        given);
    }
    if (!tri_file_is_dir(given)) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: a file, expected the folder of a run or checkpoint", given);
    }
    tri_path_make(path, TRI_PATH_MAX, "%s", given);
    return TRI_OK;
}
