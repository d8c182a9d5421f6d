/* One file of a model for llama.cpp: rank 0 makes its head, all ranks write the tensors behind it
 * (hf_write.h) in a folder of their own, out of which the whole file goes to its name. */
#include "checkpoint/gguf.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/meter.h"
#include "base/path.h"
#include "checkpoint/gguf_keys.h"
#include "checkpoint/one_folder.h"
#include "data/tokenizer_files.h"
#include "model/rope.h"

#include <stdlib.h>
#include <string.h>

enum { PATH_BYTES = 2048 };

static const struct tri_where where = {TRI_PHASE_CHECKPOINT, TRI_KIND_META};

struct save {
    const struct tri_config *config;
    const struct tri_params *params;
    const char *path;
    char temporary[PATH_BYTES], file[PATH_BYTES + 64];
    enum tri_hf_family family;
    enum tri_hf_number number;
    const struct tri_hf_origin *origin;
    int count;
    struct tri_hf_row *row;
    struct tri_gguf_header header; /* with the frequencies behind it; rank 0 */
    uint64_t data;                 /* where data begins */
    uint64_t rope_bytes, bytes;    /* of what is first behind the head, and of all the data */
};

/* ---- tensors --------------------------------------------------------------------------------- */

/* By layer, so that numbers rise. */
static int by_place(const void *a, const void *b)
{
    const struct tri_hf_row *x = a, *y = b;
    int order = (x->param->layer > y->param->layer) - (x->param->layer < y->param->layer);
    order = order ? order : strcmp(x->source.name, y->source.name);
    int64_t left = x->source.index + x->source.first, right = y->source.index + y->source.first;
    return order ? order : (left > right) - (left < right);
}

/* llama.cpp wants these exact. */
static enum tri_hf_number number_of(const struct save *s, const struct tri_hf_row *row)
{
    const struct tri_param *param = row->param;
    bool exact = param->dims == 1 || param->role == TRI_ROLE_ROUTER ||
                 param->role == TRI_ROLE_SHARED_GATE || param->role == TRI_ROLE_POSITION;
    bool cut = s->number == TRI_HF_Q8_0 && param->shape[1] % TRI_HF_BLOCK != 0;
    return exact || cut ? TRI_HF_F32 : s->number;
}

/* The rope of this architecture turns neighbours, that of the table the halves of a head. */
static bool turns_neighbours(const struct save *s, const struct tri_param *param)
{
    bool turned = param->role == TRI_ROLE_Q || param->role == TRI_ROLE_K ||
                  param->role == TRI_ROLE_Q_BIAS || param->role == TRI_ROLE_K_BIAS;
    return turned && strcmp(tri_gguf_architecture(s->family), "llama") == 0;
}

static bool has_frequencies(const struct save *s)
{
    return s->config->model.position == TRI_POSITION_ROPE &&
           s->config->model.rope_scaling == TRI_ROPE_LLAMA3;
}

/* Rows, with their places behind the head. */
static enum tri_status place_rows(struct save *s, struct tri_error *error)
{
    const struct tri_config *config = s->config;
    TRI_TRY(tri_hf_place_rows(s->params, s->family, config->moe.num_experts, tri_gguf_source_get,
                              &s->row, &s->count, error));
    qsort(s->row, (size_t)s->count, sizeof(*s->row), by_place);
    s->rope_bytes = has_frequencies(s) ? (uint64_t)config->model.head_dim / 2 * sizeof(float) : 0;
    s->bytes = tri_gguf_align(s->rope_bytes);
    for (int at = 0; at < s->count;) {
        int end = tri_hf_tensor_end(s->count, s->row, at);
        enum tri_hf_number number = number_of(s, &s->row[at]);
        uint64_t begin = s->bytes;
        s->bytes = tri_gguf_align(
            begin + (uint64_t)tri_hf_bytes(number, tri_hf_elements(&s->row[at].source)));
        for (; at < end; at++) {
            struct tri_hf_row *row = &s->row[at];
            row->number = number;
            row->begin = begin;
            row->source.head = turns_neighbours(s, row->param) ? config->model.head_dim : 0;
        }
    }
    return TRI_OK;
}

/* ---- the head -------------------------------------------------------------------------------- */

static void put_tensors(struct save *s)
{
    int64_t half = s->config->model.head_dim / 2;
    if (s->rope_bytes > 0) {
        tri_gguf_put_tensor(&s->header, "rope_freqs.weight", 1, &half, TRI_GGML_F32, 0);
    }
    for (int at = 0; at < s->count; at = tri_hf_tensor_end(s->count, s->row, at)) {
        const struct tri_hf_row *row = &s->row[at];
        /* A matrix of one row is a vector there. */
        int vector = row->source.dims == 2 && row->source.shape[0] == 1 ? 1 : 0;
        tri_gguf_put_tensor(&s->header, row->source.name, row->source.dims - vector,
                            row->source.shape + vector, tri_gguf_number(row->number), row->begin);
    }
}

/* By how much each pair turns more slowly than it would without scaling. */
static void add_frequencies(struct save *s)
{
    struct tri_config *plain = tri_alloc(TRI_MEMORY_OTHER, sizeof(*plain));
    *plain = *s->config;
    plain->model.rope_scaling = TRI_ROPE_PLAIN;
    for (int64_t j = 0; j < s->config->model.head_dim / 2; j++) {
        float factor = (float)(tri_rope_frequency(plain, j) / tri_rope_frequency(s->config, j));
        tri_gguf_add_bytes(&s->header, &factor, sizeof(factor));
    }
    tri_free(plain);
}

/* The folder that the model's tokenizer lies in. */
static enum tri_status find_tokenizer(const struct save *s, char folder[PATH_BYTES],
                                      struct tri_error *error)
{
    const struct tri_hf_origin *origin = s->origin;
    bool own = origin && origin->checkpoint &&
               tri_tokenizer_files_find(origin->checkpoint, folder, PATH_BYTES);
    bool found = own || (origin && origin->folder && origin->folder[0] &&
                         tri_tokenizer_files_find(origin->folder, folder, PATH_BYTES));
    return found ? TRI_OK
                 : tri_fail(error, TRI_BAD_INPUT,
                            "%s: no tokenizer.json is beside the model or what it began with: a "
                            "GGUF file holds one, and llama.cpp has none whose tokens are bytes",
                            s->path);
}

static enum tri_status make_head(struct save *s, struct tri_error *error)
{
    char folder[PATH_BYTES];
    TRI_TRY(find_tokenizer(s, folder, error));
    tri_gguf_header_init(&s->header);
    tri_gguf_put_model(&s->header, s->config, s->family, s->number);
    TRI_TRY(tri_gguf_put_tokenizer(&s->header, folder, s->config->model.vocab_size, error));
    put_tensors(s);
    tri_gguf_header_end(&s->header);
    s->data = s->header.bytes;
    if (s->rope_bytes > 0) {
        add_frequencies(s);
    }
    return TRI_OK;
}

/* ---- all ------------------------------------------------------------------------------------- */

static enum tri_status begin(struct save *s, struct tri_error *error)
{
    TRI_TRY(tri_hf_check_target(s->path, error));
    TRI_TRY(make_head(s, error));
    TRI_TRY(tri_file_remove_tree(s->temporary, error));
    return tri_file_make_dirs(s->temporary, error);
}

static enum tri_status finish(const struct save *s, struct tri_error *error)
{
    TRI_TRY(tri_file_rename(s->file, s->path, error));
    TRI_TRY(tri_file_remove_tree(s->temporary, error));
    return tri_file_sync_parent(s->path, error);
}

static enum tri_status write_all(struct save *s, struct tri_error *error)
{
    const struct tri_config_lora *lora = &s->config->train.lora;
    uint64_t bytes[2] = {s->data, s->header.bytes};
    tri_broadcast(tri_mesh_group(s->params->mesh, TRI_ON_ALL), where, bytes, 2, TRI_I64, 0);
    s->data = bytes[0];
    for (int i = 0; i < s->count; i++) {
        s->row[i].begin += s->data;
    }
    const struct tri_hf_file file = {.path = s->file,
                                     .header = s->header.data,
                                     .header_bytes = (size_t)bytes[1],
                                     .bytes = s->data + s->bytes,
                                     .rows = s->count,
                                     .row = s->row,
                                     .scale =
                                         lora->rank > 0 ? lora->alpha / (double)lora->rank : 0.0};
    tri_meter_begin(TRI_METER_BYTES, (int64_t)s->bytes, "writing");
    enum tri_status status = tri_hf_write(s->params, &file, error);
    tri_meter_end();
    return status;
}

static enum tri_status save_all(struct save *s, struct tri_error *error)
{
    struct tri_group *world = tri_mesh_group(s->params->mesh, TRI_ON_ALL);
    bool root = tri_group_rank(world) == 0;
    TRI_TRY(tri_gguf_family_of(s->config, &s->family, error));
    TRI_TRY(place_rows(s, error));
    TRI_TRY(tri_comm_agree(world, root ? begin(s, error) : TRI_OK, error));
    enum tri_status status = tri_one_folder_expect(world, s->temporary, error);
    if (status == TRI_OK) {
        status = write_all(s, error);
    }
    if (status == TRI_OK) {
        status = tri_comm_agree(world, root ? finish(s, error) : TRI_OK, error);
    }
    struct tri_error second;
    if (status != TRI_OK && root && tri_file_remove_tree(s->temporary, &second) != TRI_OK) {
        tri_log_warn("%s", second.message);
    }
    return status;
}

enum tri_status tri_gguf_save(const char *path, const struct tri_config *config,
                              const struct tri_params *params, enum tri_hf_number number,
                              const struct tri_hf_origin *origin, struct tri_error *error)
{
    struct save s = {
        .config = config, .params = params, .path = path, .number = number, .origin = origin};
    enum tri_status status =
        tri_path_format(s.temporary, sizeof(s.temporary), error, "%s" TRI_TEMPORARY, path);
    if (status == TRI_OK) {
        tri_path_make(s.file, sizeof(s.file), "%s/model.gguf", s.temporary);
        status = save_all(&s, error);
    }
    tri_gguf_header_fini(&s.header);
    tri_free(s.row);
    return status;
}
