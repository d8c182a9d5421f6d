#include "checkpoint/checkpoint_dir.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/path.h"
#include "checkpoint/checkpoint.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* The N of "step_N", or -1. */
static int64_t step_of(const char *name)
{
    if (strncmp(name, "step_", 5) != 0) {
        return -1;
    }
    size_t digits = strspn(name + 5, "0123456789");
    if (digits == 0 || digits > 18 || name[5 + digits] != '\0' || (name[5] == '0' && digits > 1)) {
        return -1;
    }
    return strtoll(name + 5, NULL, 10);
}

static int newest_first(const void *a, const void *b)
{
    const int64_t *x = a, *y = b;
    return *x > *y ? -1 : *x < *y;
}

struct steps {
    int64_t *step;
    int count;
    size_t room;
};

static enum tri_status collect(const char *name, void *data)
{
    struct steps *found = data;
    int64_t step = step_of(name);
    if (step < 0) {
        return TRI_OK;
    }
    if ((size_t)found->count == found->room) {
        size_t room = found->room ? 2 * found->room : 16;
        int64_t *more = tri_alloc(TRI_MEMORY_OTHER, room * sizeof(*more));
        if (found->count > 0) {
            memcpy(more, found->step, (size_t)found->count * sizeof(*more));
        }
        tri_free(found->step);
        found->step = more;
        found->room = room;
    }
    found->step[found->count++] = step;
    return TRI_OK;
}

enum tri_status tri_checkpoint_steps(const char *dir, int64_t **steps, int *count,
                                     struct tri_error *error)
{
    struct steps found = {0};
    enum tri_status status = tri_file_list(dir, collect, &found, error);
    if (found.count > 0) {
        qsort(found.step, (size_t)found.count, sizeof(*found.step), newest_first);
    }
    *steps = found.step;
    *count = found.count;
    return status;
}

bool tri_checkpoint_split(const char *path, char dir[TRI_CHECKPOINT_PATH], int64_t *step)
{
    char whole[TRI_CHECKPOINT_PATH];
    tri_path_make(whole, sizeof(whole), "%s", path);
    tri_path_trim(whole);
    const char *slash = strrchr(whole, '/');
    *step = step_of(slash ? slash + 1 : whole);
    tri_path_parent(whole, dir, TRI_CHECKPOINT_PATH);
    return *step >= 0;
}

/* ---- leftovers ------------------------------------------------------------------------------- */

enum tri_status tri_checkpoint_recover(const char *path, struct tri_error *error)
{
    char temporary[TRI_CHECKPOINT_PATH + 512], old[TRI_CHECKPOINT_PATH + 512];
    tri_path_make(temporary, sizeof(temporary), "%s" TRI_TEMPORARY, path);
    tri_path_make(old, sizeof(old), "%s.old" TRI_TEMPORARY, path);
    TRI_TRY(tri_file_remove_tree(temporary, error));
    if (tri_file_exists(old) && !tri_file_exists(path)) {
        TRI_TRY(tri_file_rename(old, path, error));
        return tri_file_sync_parent(path, error);
    }
    return tri_file_remove_tree(old, error);
}

struct cleaning {
    const char *dir;
    struct tri_error *error;
};

static enum tri_status clean_one(const char *name, void *data)
{
    const struct cleaning *c = data;
    char base[256], path[TRI_CHECKPOINT_PATH + sizeof(base)];
    const char *dot = strchr(name, '.');
    if (!dot || (strcmp(dot, TRI_TEMPORARY) != 0 && strcmp(dot, ".old" TRI_TEMPORARY) != 0)) {
        return TRI_OK;
    }
    tri_path_make(base, sizeof(base), "%.*s", (int)(dot - name), name);
    if (step_of(base) < 0) {
        return TRI_OK;
    }
    tri_path_make(path, sizeof(path), "%s/%s", c->dir, base);
    return tri_checkpoint_recover(path, c->error);
}

enum tri_status tri_checkpoint_clean(const char *run_dir, struct tri_error *error)
{
    char dir[TRI_CHECKPOINT_PATH];
    tri_path_make(dir, sizeof(dir), "%s/checkpoints", run_dir);
    struct cleaning c = {dir, error};
    return tri_file_list(dir, clean_one, &c, error);
}

enum tri_status tri_checkpoint_prune(const char *dir, int64_t step, int64_t keep,
                                     struct tri_error *error)
{
    int64_t *steps;
    int count;
    enum tri_status status = tri_checkpoint_steps(dir, &steps, &count, error);
    for (int i = 0; status == TRI_OK && i < count; i++) {
        if (steps[i] >= step || keep-- > 0) {
            continue;
        }
        /* Renamed first: a kill in the middle leaves no half checkpoint under a good name. */
        char path[TRI_CHECKPOINT_PATH + 32], doomed[TRI_CHECKPOINT_PATH + 32];
        tri_path_make(path, sizeof(path), "%s/step_%" PRId64, dir, steps[i]);
        tri_path_make(doomed, sizeof(doomed), "%s/step_%" PRId64 TRI_TEMPORARY, dir, steps[i]);
        status = tri_file_rename(path, doomed, error);
        if (status == TRI_OK) {
            status = tri_file_remove_tree(doomed, error);
        }
    }
    tri_free(steps);
    return status;
}
