/* Inspecting: every byte of a checkpoint, on one rank. */
#include "checkpoint/checkpoint.h"

#include "base/memory.h"
#include "base/meter.h"
#include "base/work.h"
#include "checkpoint/checkpoint_check.h"

#include <inttypes.h>

/* The digest of the weights as they are in the files. */
static uint64_t digest_of(struct tri_checkpoint_files *o)
{
    struct tri_checkpoint_manifest *m = o->manifest;
    int64_t bytes = 0;
    for (int64_t i = 0; i < o->weights->count; i++) {
        bytes += (int64_t)o->weights->tensor[i]->bytes;
    }
    tri_meter_begin(TRI_METER_BYTES, bytes, "digest of the weights");
    for (int64_t i = 0; i < m->count; i++) {
        int64_t at = tri_safetensors_set_find(o->weights, m->tensor[i].name);
        const struct tri_safetensor *t = o->weights->tensor[at];
        m->tensor[i].hash = tri_work_hash(t->data, t->bytes);
    }
    tri_meter_end();
    return tri_manifest_digest(m);
}

static enum tri_status inspect(const char *path, struct tri_checkpoint_files *o,
                               struct tri_checkpoint_info *info, struct tri_error *error)
{
    struct tri_checkpoint_state state = {0};
    TRI_TRY(tri_checkpoint_open(path, TRI_CHECKPOINT_BYTES, o, error));
    enum tri_status status = tri_checkpoint_open_state(path, o->manifest, &state, error);
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

static enum tri_status inspect_closed(const char *path, struct tri_checkpoint_info *info,
                                      struct tri_error *error)
{
    struct tri_checkpoint_files files = {0};
    *info = (struct tri_checkpoint_info){0};
    enum tri_status status = inspect(path, &files, info, error);
    tri_checkpoint_close(&files);
    return status;
}

enum tri_status tri_checkpoint_inspect(const char *path, struct tri_checkpoint_info *info,
                                       struct tri_error *error)
{
    enum tri_status status = inspect_closed(path, info, error);
    if (status != TRI_OK) {
        tri_checkpoint_advise(path, error);
    }
    return status;
}

enum tri_status tri_checkpoint_inspect_choice(struct tri_checkpoint_choice *choice,
                                              struct tri_checkpoint_info *info,
                                              struct tri_error *error)
{
    if (!choice->of_run) {
        return tri_checkpoint_inspect(choice->path, info, error);
    }
    enum tri_status status = inspect_closed(choice->path, info, error);
    if (status != TRI_OK) {
        tri_checkpoint_refuse(choice, error);
    }
    return status;
}

void tri_checkpoint_info_fini(struct tri_checkpoint_info *info)
{
    tri_free(info->tensor);
    tri_manifest_destroy(info->manifest);
    *info = (struct tri_checkpoint_info){0};
}
