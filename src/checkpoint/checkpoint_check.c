#include "checkpoint/checkpoint_check.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/path.h"
#include "checkpoint/checkpoint_dir.h"
#include "checkpoint/checkpoint_state.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void tri_checkpoint_close(struct tri_checkpoint_files *files)
{
    tri_safetensors_set_close(files->weights);
    tri_safetensors_set_close(files->moments);
    tri_manifest_destroy(files->manifest);
    *files = (struct tri_checkpoint_files){0};
}

static enum tri_status open_part(const char *path, const struct tri_checkpoint_manifest *m,
                                 enum tri_manifest_part part, bool mapped,
                                 struct tri_safetensors_set **set, struct tri_error *error)
{
    const char **names = tri_alloc(TRI_MEMORY_OTHER, (size_t)m->files * sizeof(*names));
    int count = 0;
    for (int i = 0; i < m->files; i++) {
        if (m->file[i].part == part) {
            names[count++] = m->file[i].name;
        }
    }
    enum tri_status status = tri_safetensors_set_open_files(path, count, names, mapped, set, error);
    tri_free((void *)names);
    return status;
}

/* ---- tensors --------------------------------------------------------------------------------- */

static enum tri_status expect_f32(const struct tri_safetensor *t, struct tri_error *error)
{
    if (t->dtype == TRI_ST_F32) {
        return TRI_OK;
    }
    return tri_fail(error, TRI_BAD_INPUT, "%s: tensor %s: dtype %s, expected F32", t->path, t->name,
                    tri_safetensors_dtype_name(t->dtype));
}

/* A tensor of the set by name, f32 and of this shape. */
static enum tri_status expect_tensor(const char *path, const struct tri_safetensors_set *set,
                                     const char *name, int dims, const int64_t *shape,
                                     struct tri_error *error)
{
    int64_t at = tri_safetensors_set_find(set, name);
    if (at < 0) {
        return tri_fail(error, TRI_BAD_INPUT, "%s: tensor %s is missing", path, name);
    }
    TRI_TRY(tri_safetensor_expect_shape(set->tensor[at], dims, shape, error));
    return expect_f32(set->tensor[at], error);
}

/* Files and manifest tell of the same tensors. */
static enum tri_status check_contents(const char *path, const struct tri_checkpoint_files *o,
                                      struct tri_error *error)
{
    const struct tri_checkpoint_manifest *m = o->manifest;
    char name[TRI_NAME_MAX + 2];
    int64_t moments = 0;
    for (int64_t i = 0; i < m->count; i++) {
        const struct tri_manifest_tensor *t = &m->tensor[i];
        TRI_TRY(expect_tensor(path, o->weights, t->name, t->dims, t->shape, error));
        for (int moment = 0; moment < 2 && o->moments && !t->frozen; moment++) {
            moments++;
            (void)snprintf(name, sizeof(name), "%c.%s", moment ? 'v' : 'm', t->name);
            TRI_TRY(expect_tensor(path, o->moments, name, t->dims, t->shape, error));
        }
    }
    /* All that are wanted are there: with equal numbers nothing else is. */
    if (o->weights->count != m->count || (o->moments && o->moments->count != moments)) {
        return tri_fail(
            error, TRI_BAD_INPUT,
            "%s: %" PRId64 " weights and %" PRId64 " moments, expected %" PRId64 " and %" PRId64,
            path, o->weights->count, o->moments ? o->moments->count : 0, m->count, moments);
    }
    return TRI_OK;
}

/* Moments, where they are wanted, are those of what is trained. */
static enum tri_status check_moments(const char *path, const struct tri_checkpoint_files *o,
                                     const struct tri_param *param, struct tri_error *error)
{
    char name[TRI_NAME_MAX + 2];
    (void)snprintf(name, sizeof(name), "m.%s", param->name);
    bool found = o->moments && tri_safetensors_set_find(o->moments, name) >= 0;
    if (!o->moments || found == param->trained) {
        return TRI_OK;
    }
    return tri_fail(error, TRI_BAD_INPUT,
                    "%s: tensor %s: found %s moments, expected %s: it was written with another "
                    "train.freeze",
                    path, param->name, found ? "its" : "no", found ? "none" : "them");
}

/* The first tensor that is no row of the table; all rows are there. */
static enum tri_status name_stranger(const struct tri_safetensors_set *set,
                                     const struct tri_params *params, struct tri_error *error)
{
    bool *known = tri_alloc(TRI_MEMORY_OTHER, (size_t)set->count * sizeof(*known));
    for (int p = 0; p < params->count; p++) {
        int64_t found = tri_safetensors_set_find(set, params->param[p].name);
        if (found >= 0) {
            known[found] = true;
        }
    }
    int64_t at = 0;
    while (known[at]) {
        at++;
    }
    tri_free(known);
    return tri_fail(error, TRI_BAD_INPUT,
                    "%s: tensor %s: the model of this config has no such weight",
                    set->tensor[at]->path, set->tensor[at]->name);
}

/* Where weights alone are wanted, low-rank pairs may begin beside those of a model without. */
static bool begins_pairs(const struct tri_checkpoint_files *o, const struct tri_params *params)
{
    bool begins = !o->moments;
    for (int p = 0; p < params->count && begins; p++) {
        begins = !tri_role_is_low(params->param[p].role) ||
                 tri_safetensors_set_find(o->weights, params->param[p].name) < 0;
    }
    return begins;
}

enum tri_status tri_checkpoint_check_table(const char *path, const struct tri_checkpoint_files *o,
                                           const struct tri_params *params, struct tri_error *error)
{
    int64_t count = 0;
    bool begins = begins_pairs(o, params);
    for (int p = 0; p < params->count; p++) {
        const struct tri_param *param = &params->param[p];
        if (begins && tri_role_is_low(param->role)) {
            continue;
        }
        count++;
        TRI_TRY(expect_tensor(path, o->weights, param->name, param->dims, param->shape, error));
        TRI_TRY(check_moments(path, o, param, error));
    }
    return o->weights->count == count ? TRI_OK : name_stranger(o->weights, params, error);
}

/* ---- the whole ------------------------------------------------------------------------------- */

enum tri_status tri_checkpoint_open_state(const char *path,
                                          const struct tri_checkpoint_manifest *manifest,
                                          struct tri_checkpoint_state *state,
                                          struct tri_error *error)
{
    TRI_TRY(tri_checkpoint_state_load(path, state, error));
    if (state->step != manifest->step) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: its state.json is of step %" PRId64 ", its manifest.json of %" PRId64,
                        path, state->step, manifest->step);
    }
    return TRI_OK;
}

static enum tri_status check_state(const char *path, const struct tri_checkpoint_files *files,
                                   struct tri_error *error)
{
    struct tri_checkpoint_state state = {0};
    TRI_TRY(tri_manifest_verify_part(path, files->manifest, TRI_MANIFEST_STATE, error));
    TRI_TRY(tri_manifest_verify_part(path, files->manifest, TRI_MANIFEST_TOKENIZER, error));
    enum tri_status status = tri_checkpoint_open_state(path, files->manifest, &state, error);
    tri_checkpoint_state_fini(&state);
    return status;
}

enum tri_status tri_checkpoint_open(const char *path, enum tri_checkpoint_depth depth,
                                    struct tri_checkpoint_files *files, struct tri_error *error)
{
    bool mapped = depth == TRI_CHECKPOINT_BYTES;
    *files = (struct tri_checkpoint_files){0};
    TRI_TRY(tri_manifest_load(path, &files->manifest, error));
    const struct tri_checkpoint_manifest *m = files->manifest;
    TRI_TRY(mapped ? tri_manifest_verify_files(path, m, error)
                   : tri_manifest_check_sizes(path, m, error));
    TRI_TRY(check_state(path, files, error));
    TRI_TRY(open_part(path, m, TRI_MANIFEST_MODEL, mapped, &files->weights, error));
    if (depth != TRI_CHECKPOINT_WEIGHTS && m->optimizer) {
        TRI_TRY(open_part(path, m, TRI_MANIFEST_OPTIMIZER, mapped, &files->moments, error));
    }
    return check_contents(path, files, error);
}

enum tri_status tri_checkpoint_check(const char *path, enum tri_checkpoint_depth depth,
                                     struct tri_error *error)
{
    struct tri_checkpoint_files files;
    enum tri_status status = tri_checkpoint_open(path, depth, &files, error);
    tri_checkpoint_close(&files);
    return status;
}

/* ---- damage ---------------------------------------------------------------------------------- */

void tri_checkpoint_advise(const char *path, struct tri_error *error)
{
    char dir[TRI_CHECKPOINT_PATH], other[TRI_CHECKPOINT_PATH + 32], message[sizeof(error->message)];
    int64_t step, *steps = NULL;
    int count = 0;
    struct tri_error ignored;
    if (!error || !tri_checkpoint_split(path, dir, &step) ||
        tri_checkpoint_steps(dir, &steps, &count, &ignored) != TRI_OK) {
        return;
    }
    (void)snprintf(message, sizeof(message), "%s", error->message);
    bool older = false, good = false;
    for (int i = 0; i < count && !good; i++) {
        if (steps[i] >= step) {
            continue;
        }
        older = true;
        tri_path_make(other, sizeof(other), "%s/step_%" PRId64, dir, steps[i]);
        good = tri_checkpoint_check(other, TRI_CHECKPOINT_BYTES, &ignored) == TRI_OK;
    }
    tri_free(steps);
    if (good) {
        (void)tri_fail(error, error->status, "%.600s; the last good checkpoint is %s", message,
                       other);
    } else if (older) {
        (void)tri_fail(error, error->status, "%.600s; no older checkpoint is good", message);
    }
}
