/* Loading and inspecting. Rank 0 checks everything first, so that a damaged checkpoint changes no
 * weight anywhere; then each rank maps the files and copies its slices straight out of them. */
#include "checkpoint/checkpoint.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/path.h"
#include "base/work.h"
#include "checkpoint/checkpoint_dir.h"
#include "checkpoint/checkpoint_state.h"
#include "checkpoint/manifest.h"
#include "checkpoint/safetensors.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

/* The open files of a checkpoint. */
struct opened {
    struct tri_checkpoint_manifest *manifest;
    struct tri_safetensors_set *weights, *moments; /* moments: NULL when not wanted */
};

static void close_all(struct opened *o)
{
    tri_safetensors_set_close(o->weights);
    tri_safetensors_set_close(o->moments);
    tri_manifest_destroy(o->manifest);
    *o = (struct opened){0};
}

static enum tri_status open_part(const char *path, const struct tri_checkpoint_manifest *m,
                                 enum tri_manifest_part part, struct tri_safetensors_set **set,
                                 struct tri_error *error)
{
    const char **names = tri_alloc(TRI_MEMORY_OTHER, (size_t)m->files * sizeof(*names));
    int count = 0;
    for (int i = 0; i < m->files; i++) {
        if (m->file[i].part == part) {
            names[count++] = m->file[i].name;
        }
    }
    enum tri_status status = tri_safetensors_set_open_files(path, count, names, set, error);
    tri_free((void *)names);
    return status;
}

static enum tri_status open_all(const char *path, bool moments, struct opened *o,
                                struct tri_error *error)
{
    TRI_TRY(open_part(path, o->manifest, TRI_MANIFEST_MODEL, &o->weights, error));
    if (moments && o->manifest->optimizer) {
        TRI_TRY(open_part(path, o->manifest, TRI_MANIFEST_OPTIMIZER, &o->moments, error));
    }
    return TRI_OK;
}

/* ---- checks ---------------------------------------------------------------------------------- */

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
static enum tri_status check_contents(const char *path, const struct opened *o,
                                      struct tri_error *error)
{
    const struct tri_checkpoint_manifest *m = o->manifest;
    char name[TRI_NAME_MAX + 2];
    for (int64_t i = 0; i < m->count; i++) {
        const struct tri_manifest_tensor *t = &m->tensor[i];
        TRI_TRY(expect_tensor(path, o->weights, t->name, t->dims, t->shape, error));
        for (int moment = 0; moment < 2 && o->moments; moment++) {
            (void)snprintf(name, sizeof(name), "%c.%s", moment ? 'v' : 'm', t->name);
            TRI_TRY(expect_tensor(path, o->moments, name, t->dims, t->shape, error));
        }
    }
    /* All that are wanted are there: with equal numbers nothing else is. */
    if (o->weights->count != m->count || (o->moments && o->moments->count != 2 * m->count)) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: %" PRId64 " weights and %" PRId64 " moments, expected %" PRId64
                        " and %" PRId64,
                        path, o->weights->count, o->moments ? o->moments->count : 0, m->count,
                        o->moments ? 2 * m->count : 0);
    }
    return TRI_OK;
}

/* The first tensor that is no row of the table; all rows are there. */
static enum tri_status name_stranger(const struct tri_safetensors_set *set,
                                     const struct tri_params *params, struct tri_error *error)
{
    bool *known = tri_alloc(TRI_MEMORY_OTHER, (size_t)set->count * sizeof(*known));
    for (int p = 0; p < params->count; p++) {
        known[tri_safetensors_set_find(set, params->param[p].name)] = true;
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

/* The model's table and the checkpoint hold the same weights. */
static enum tri_status check_table(const char *path, const struct opened *o,
                                   const struct tri_params *params, struct tri_error *error)
{
    for (int p = 0; p < params->count; p++) {
        const struct tri_param *param = &params->param[p];
        TRI_TRY(expect_tensor(path, o->weights, param->name, param->dims, param->shape, error));
    }
    return o->weights->count == params->count ? TRI_OK : name_stranger(o->weights, params, error);
}

/* Stands for the manifest's text and for the files as the system sees them. */
static uint64_t state_of_files(const char *path, const struct tri_checkpoint_manifest *m)
{
    XXH3_state_t *hash = XXH3_createState();
    TRI_REQUIRE(hash);
    (void)XXH3_64bits_reset(hash);
    (void)XXH3_64bits_update(hash, path, strlen(path));
    (void)XXH3_64bits_update(hash, &m->digest, sizeof(m->digest));
    for (int i = 0; i < m->files; i++) {
        uint64_t seen = tri_file_identity(path, m->file[i].name);
        (void)XXH3_64bits_update(hash, &m->file[i].hash, sizeof(m->file[i].hash));
        (void)XXH3_64bits_update(hash, &seen, sizeof(seen));
    }
    uint64_t state = XXH3_64bits_digest(hash);
    (void)XXH3_freeState(hash);
    return state;
}

/* What tri_checkpoint_verify hashed last; who loads it next need not do so again. */
static uint64_t known_whole;

/* The state, of the step that the manifest is of; tri_checkpoint_state_fini it, also after a
 * failure. */
static enum tri_status load_state(const char *path, const struct tri_checkpoint_manifest *m,
                                  struct tri_checkpoint_state *state, struct tri_error *error)
{
    TRI_TRY(tri_checkpoint_state_load(path, state, error));
    if (state->step != m->step) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: its state.json is of step %" PRId64 ", its manifest.json of %" PRId64,
                        path, state->step, m->step);
    }
    return TRI_OK;
}

static enum tri_status check_state(const char *path, const struct tri_checkpoint_manifest *m,
                                   struct tri_error *error)
{
    struct tri_checkpoint_state state = {0};
    enum tri_status status = load_state(path, m, &state, error);
    tri_checkpoint_state_fini(&state);
    return status;
}

static enum tri_status verify(const char *path, struct opened *o, struct tri_error *error)
{
    uint64_t known = known_whole;
    known_whole = 0;
    TRI_TRY(tri_manifest_load(path, &o->manifest, error));
    if (known == 0 || state_of_files(path, o->manifest) != known) {
        TRI_TRY(tri_manifest_verify_files(path, o->manifest, error));
    }
    TRI_TRY(check_state(path, o->manifest, error));
    TRI_TRY(open_all(path, true, o, error));
    return check_contents(path, o, error);
}

enum tri_status tri_checkpoint_verify(const char *path, struct tri_error *error)
{
    struct opened o = {0};
    enum tri_status status = verify(path, &o, error);
    if (status == TRI_OK) {
        known_whole = state_of_files(path, o.manifest);
    }
    close_all(&o);
    return status;
}

/* ---- damage ---------------------------------------------------------------------------------- */

/* Adds to a message about damage which older checkpoint of the run is whole: nobody should have
 * to try them in turn, and none is taken silently. */
static void name_last_good(const char *path, struct tri_error *error)
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
        struct opened o = {0};
        older = true;
        tri_path_make(other, sizeof(other), "%s/step_%" PRId64, dir, steps[i]);
        good = verify(other, &o, &ignored) == TRI_OK;
        close_all(&o);
    }
    tri_free(steps);
    if (good) {
        (void)tri_fail(error, error->status, "%.600s; the last good checkpoint is %s", message,
                       other);
    } else if (older) {
        (void)tri_fail(error, error->status, "%.600s; no older checkpoint is good", message);
    }
}

static enum tri_status verify_or_advise(const char *path, struct opened *o, struct tri_error *error)
{
    enum tri_status status = verify(path, o, error);
    if (status != TRI_OK) {
        name_last_good(path, error);
    }
    return status;
}

/* ---- loading --------------------------------------------------------------------------------- */

static enum tri_status check_as_root(const char *path, const struct tri_params *params,
                                     bool with_optimizer, struct opened *o, struct tri_error *error)
{
    TRI_TRY(verify_or_advise(path, o, error));
    TRI_TRY(check_table(path, o, params, error));
    if (with_optimizer && !o->manifest->optimizer && o->manifest->step > 0) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: holds weights alone, no optimizer state to continue a run from", path);
    }
    return TRI_OK;
}

static enum tri_status open_as_other(const char *path, bool with_optimizer, struct opened *o,
                                     struct tri_error *error)
{
    TRI_TRY(tri_manifest_load(path, &o->manifest, error));
    TRI_TRY(open_all(path, with_optimizer, o, error));
    return check_contents(path, o, error);
}

/* The data of a tensor that was checked to be there; our files keep them aligned. */
static const float *values_of(const struct tri_safetensors_set *set, const char *name)
{
    int64_t at = tri_safetensors_set_find(set, name);
    TRI_REQUIRE(at >= 0 && (uintptr_t)set->tensor[at]->data % _Alignof(float) == 0);
    return (const float *)(const void *)set->tensor[at]->data;
}

static void scatter_all(const struct opened *o, struct tri_params *params, bool moments)
{
    char name[TRI_NAME_MAX + 2];
    for (int p = 0; p < params->count; p++) {
        const struct tri_param *param = &params->param[p];
        tri_work_progress();
        if (!param->held) {
            continue;
        }
        tri_param_scatter(params, param, TRI_FIELD_WEIGHT, values_of(o->weights, param->name));
        if (moments) {
            (void)snprintf(name, sizeof(name), "m.%s", param->name);
            tri_param_scatter(params, param, TRI_FIELD_M, values_of(o->moments, name));
            (void)snprintf(name, sizeof(name), "v.%s", param->name);
            tri_param_scatter(params, param, TRI_FIELD_V, values_of(o->moments, name));
        }
    }
}

static enum tri_status load(const char *path, struct tri_params *params,
                            struct tri_checkpoint_state *state, bool with_optimizer,
                            struct opened *o, struct tri_error *error)
{
    struct tri_group *world = params->mesh->world;
    bool root = tri_group_rank(world) == 0;
    enum tri_status status = root ? check_as_root(path, params, with_optimizer, o, error) : TRI_OK;
    TRI_TRY(tri_comm_agree(world, status, error));
    status = root ? TRI_OK : open_as_other(path, with_optimizer, o, error);
    if (status == TRI_OK && state) {
        status = load_state(path, o->manifest, state, error);
    }
    TRI_TRY(tri_comm_agree(world, status, error));
    scatter_all(o, params, with_optimizer && o->moments);
    return TRI_OK;
}

enum tri_status tri_checkpoint_load(const char *path, struct tri_params *params,
                                    struct tri_checkpoint_state *state, bool with_optimizer,
                                    struct tri_error *error)
{
    struct opened o = {0};
    if (state) {
        *state = (struct tri_checkpoint_state){0};
    }
    enum tri_status status = load(path, params, state, with_optimizer, &o, error);
    close_all(&o);
    if (status != TRI_OK && state) {
        tri_checkpoint_state_fini(state);
    }
    return status;
}

enum tri_status tri_checkpoint_read_state(const char *path, struct tri_checkpoint_state *state,
                                          struct tri_error *error)
{
    struct tri_checkpoint_manifest *m = NULL;
    *state = (struct tri_checkpoint_state){0};
    enum tri_status status = tri_manifest_load(path, &m, error);
    if (status == TRI_OK) {
        status = tri_manifest_verify_part(path, m, TRI_MANIFEST_STATE, error);
    }
    if (status == TRI_OK) {
        status = load_state(path, m, state, error);
    }
    tri_manifest_destroy(m);
    if (status != TRI_OK) {
        name_last_good(path, error);
    }
    return status;
}

enum tri_status tri_checkpoint_config_of(const char *path, const struct tri_checkpoint_state *state,
                                         const struct tri_strategies *known,
                                         struct tri_config *config, struct tri_error *error)
{
    char source[TRI_CHECKPOINT_PATH];
    tri_path_make(source, sizeof(source), "%s/state.json", path);
    TRI_TRY(tri_config_parse(known, source, state->config, strlen(state->config), 0, NULL, config,
                             error));
    if (state->samples < 0) {
        tri_config_forget_followed(config);
    }
    return TRI_OK;
}

enum tri_status tri_checkpoint_read_config(const char *path, const struct tri_strategies *known,
                                           struct tri_config *config, struct tri_error *error)
{
    struct tri_checkpoint_state state;
    enum tri_status status = tri_checkpoint_read_state(path, &state, error);
    if (status == TRI_OK) {
        status = tri_checkpoint_config_of(path, &state, known, config, error);
    }
    tri_checkpoint_state_fini(&state);
    return status;
}

/* ---- inspecting ------------------------------------------------------------------------------ */

/* The digest of the weights as they are in the files. */
static uint64_t digest_of(struct opened *o)
{
    struct tri_checkpoint_manifest *m = o->manifest;
    for (int64_t i = 0; i < m->count; i++) {
        int64_t at = tri_safetensors_set_find(o->weights, m->tensor[i].name);
        const struct tri_safetensor *t = o->weights->tensor[at];
        m->tensor[i].hash = tri_work_hash(t->data, t->bytes);
    }
    return tri_manifest_digest(m);
}

static enum tri_status inspect(const char *path, struct opened *o, struct tri_checkpoint_info *info,
                               struct tri_error *error)
{
    struct tri_checkpoint_state state = {0};
    TRI_TRY(verify_or_advise(path, o, error));
    enum tri_status status = tri_checkpoint_state_load(path, &state, error);
    info->tokens = state.tokens;
    tri_checkpoint_state_fini(&state);
    TRI_TRY(status);
    struct tri_checkpoint_manifest *m = o->manifest;
    info->digest = digest_of(o);
    if (info->digest != m->digest) {
        return tri_fail(error, TRI_BAD_INPUT, "%s: digest %016" PRIx64 ", expected %016" PRIx64,
                        path, info->digest, m->digest);
    }
    info->step = m->step;
    info->optimizer = m->optimizer;
    info->count = m->count;
    info->tensor = tri_alloc(TRI_MEMORY_OTHER, (size_t)m->count * sizeof(*info->tensor));
    for (int64_t i = 0; i < m->count; i++) {
        const struct tri_manifest_tensor *t = &m->tensor[i];
        info->tensor[i] =
            (struct tri_checkpoint_tensor){t->name, t->dims, {t->shape[0], t->shape[1]}};
        info->parameters += t->shape[0] * t->shape[1];
    }
    for (int i = 0; i < m->files; i++) {
        info->bytes += (int64_t)m->file[i].bytes;
    }
    info->manifest = m;
    o->manifest = NULL;
    return TRI_OK;
}

enum tri_status tri_checkpoint_inspect(const char *path, struct tri_checkpoint_info *info,
                                       struct tri_error *error)
{
    struct opened o = {0};
    *info = (struct tri_checkpoint_info){0};
    enum tri_status status = inspect(path, &o, info, error);
    close_all(&o);
    return status;
}

void tri_checkpoint_info_fini(struct tri_checkpoint_info *info)
{
    tri_free(info->tensor);
    tri_manifest_destroy(info->manifest);
    *info = (struct tri_checkpoint_info){0};
}
