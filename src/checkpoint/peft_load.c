/* PEFT's adapters -> low-rank pairs. */
#include "checkpoint/peft.h"

#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/memory.h"
#include "checkpoint/hf_alike.h"
#include "checkpoint/safetensors.h"

#include <inttypes.h>
#include <string.h>

enum { BLOCK = 1 << 20 };

struct loader {
    const char *dir;
    struct tri_params *params;
    struct tri_safetensors_set *set;
    struct tri_part_file *in;
    struct tri_peft_form form;
    struct tri_peft_piece *pieces;
    int count;
    bool *used;            /* of the set's tensors */
    int64_t pairs, begins; /* those of the model; those of them that the folder does not have */
    void *raw, *values, *rows;
    size_t raw_bytes, values_bytes, rows_bytes;
    struct tri_hash *hash;
    uint64_t *hashes; /* of what this rank took of each row of the table */
};

static void add_to_hash(struct loader *l, const struct tri_param *param, const float *values,
                        int64_t n)
{
    uint64_t *hash = &l->hashes[param - l->params->param];
    tri_hash_reset(l->hash);
    tri_hash_update(l->hash, hash, sizeof(*hash));
    tri_hash_update(l->hash, values, (size_t)n * sizeof(*values));
    *hash = tri_hash_get(l->hash);
}

/* The part of rows of a tensor, with these values, that a piece has there; and zeros in its place.
 * Of a pair with a higher rank than its tensor the rest stays as it begins: B's is zero. */
static void take_rows(struct loader *l, const struct tri_peft_piece *piece, struct tri_range rows,
                      float *values)
{
    const struct tri_param *param = piece->param;
    int64_t width = param->shape[1];
    struct tri_range all = {piece->row, piece->row + piece->rows};
    struct tri_range here = tri_range_intersect(rows, all);
    struct tri_range of_piece = {here.begin - piece->row, here.end - piece->row};
    size_t n = (size_t)(tri_range_size(here) * width);
    if (n == 0) {
        return;
    }
    float *out = tri_grow(TRI_MEMORY_OTHER, &l->rows, &l->rows_bytes, n * sizeof(*out));
    memset(out, 0, n * sizeof(*out));
    for (int64_t i = 0; i < tri_range_size(here); i++) {
        int64_t line = (here.begin - rows.begin + i) * piece->shape[1] + piece->column;
        for (int64_t j = 0; j < piece->columns; j++) {
            out[i * width + j] = values[line + j * piece->stride];
        }
    }
    struct tri_range held = tri_range_intersect(of_piece, param->local[0]);
    if (param->held && tri_range_size(held) > 0) {
        out += (held.begin - of_piece.begin) * width;
        tri_param_scatter_rows(l->params, param, TRI_FIELD_WEIGHT, held, out);
        add_to_hash(l, param, out, tri_range_size(held) * width);
    }
}

static void clear_rows(const struct tri_peft_piece *piece, struct tri_range rows, float *values)
{
    struct tri_range all = {piece->row, piece->row + piece->rows};
    struct tri_range here = tri_range_intersect(rows, all);
    for (int64_t i = here.begin; i < here.end; i++) {
        int64_t line = (i - rows.begin) * piece->shape[1] + piece->column;
        for (int64_t j = 0; j < piece->columns; j++) {
            values[line + j * piece->stride] = 0.0F;
        }
    }
}

/* What no piece has must be zero. */
static enum tri_status expect_blocks(const struct tri_safetensor *tensor,
                                     const struct tri_peft_piece *pieces, int count,
                                     struct tri_range rows, float *values, struct tri_error *error)
{
    for (int i = 0; i < count; i++) {
        clear_rows(&pieces[i], rows, values);
    }
    for (int64_t i = 0; i < tri_range_size(rows) * pieces->shape[1]; i++) {
        if (values[i] != 0.0F) {
            return tri_fail(error, TRI_BAD_INPUT,
                            "%s: tensor %s: row %" PRId64 ", column %" PRId64
                            ": found %g, expected zeros beside the blocks that its first row has",
                            tensor->path, tensor->name, rows.begin + i / pieces->shape[1],
                            i % pieces->shape[1], (double)values[i]);
        }
    }
    return TRI_OK;
}

/* Whether this rank has some of these rows. */
static bool wants_rows(const struct tri_peft_piece *pieces, int count, struct tri_range rows)
{
    for (int i = 0; i < count; i++) {
        const struct tri_param *param = pieces[i].param;
        struct tri_range held = {pieces[i].row + param->local[0].begin,
                                 pieces[i].row + param->local[0].end};
        if (param->held && tri_range_size(tri_range_intersect(rows, held)) > 0) {
            return true;
        }
    }
    return false;
}

/* A tensor and the pieces that it has, as many rows at once as a block holds. */
static enum tri_status load_rows(struct loader *l, const struct tri_safetensor *tensor,
                                 const struct tri_peft_piece *pieces, int count,
                                 struct tri_error *error)
{
    int64_t columns = tensor->shape[1];
    int64_t step = columns < BLOCK ? BLOCK / columns : 1;
    size_t each = tensor->bytes / (size_t)tensor->count;
    for (int64_t row = 0; row < tensor->shape[0]; row += step) {
        struct tri_range rows = {row,
                                 row + step < tensor->shape[0] ? row + step : tensor->shape[0]};
        size_t n = (size_t)(tri_range_size(rows) * columns);
        struct tri_safetensor here = *tensor;
        if (!wants_rows(pieces, count, rows)) {
            continue;
        }
        here.count = (int64_t)n;
        here.data = tri_grow(TRI_MEMORY_OTHER, &l->raw, &l->raw_bytes, n * each);
        float *values =
            tri_grow(TRI_MEMORY_OTHER, &l->values, &l->values_bytes, n * sizeof(*values));
        TRI_TRY(tri_part_file_read(l->in, tensor->offset + (uint64_t)(row * columns) * each, l->raw,
                                   n * each, error));
        TRI_TRY(tri_safetensor_read_f32(&here, 0, here.count, values, error));
        TRI_TRY(tri_safetensor_expect_finite(tensor, values, here.count, error));
        for (int i = 0; i < count; i++) {
            take_rows(l, &pieces[i], rows, values);
        }
        TRI_TRY(expect_blocks(tensor, pieces, count, rows, values, error));
    }
    return TRI_OK;
}

/* The pieces of one tensor. */
static enum tri_status load_tensor(struct loader *l, const struct tri_peft_piece *pieces, int count,
                                   struct tri_error *error)
{
    int64_t at = tri_safetensors_set_find(l->set, pieces->name);
    bool is_a = strstr(pieces->name, ".lora_A.") != NULL;
    l->pairs += is_a ? count : 0;
    if (at < 0) {
        char other[TRI_PEFT_NAME];
        memcpy(other, pieces->name, sizeof(other));
        other[strlen(other) - strlen("A.weight")] = is_a ? 'B' : 'A';
        if (tri_safetensors_set_find(l->set, other) >= 0) {
            return tri_fail(error, TRI_BAD_INPUT,
                            "%s: tensor %s is missing, the other of its pair is there", l->dir,
                            pieces->name);
        }
        l->begins += is_a ? count : 0;
        return TRI_OK;
    }
    const struct tri_safetensor *tensor = l->set->tensor[at];
    bool real = tensor->dtype == TRI_ST_F32 || tensor->dtype == TRI_ST_BF16 ||
                tensor->dtype == TRI_ST_F16 || tensor->dtype == TRI_ST_F64;
    if (!real) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: tensor %s: dtype %s, expected F32, BF16, F16 or F64", tensor->path,
                        tensor->name, tri_safetensors_dtype_name(tensor->dtype));
    }
    TRI_TRY(tri_safetensor_expect_shape(tensor, 2, pieces->shape, error));
    l->used[at] = true;
    return load_rows(l, tensor, pieces, count, error);
}

static enum tri_status load_pairs(struct loader *l, struct tri_error *error)
{
    tri_params_settle(l->params);
    for (int i = 0, n; i < l->count; i += n) {
        for (n = 1; i + n < l->count && strcmp(l->pieces[i].name, l->pieces[i + n].name) == 0;) {
            n++;
        }
        TRI_TRY(load_tensor(l, &l->pieces[i], n, error));
    }
    for (int64_t i = 0; i < l->set->count; i++) {
        if (!l->used[i]) {
            return tri_fail(error, TRI_BAD_INPUT,
                            "%s: tensor %.200s: the model has no place for it: expected an adapter "
                            "of this model",
                            l->set->tensor[i]->path, l->set->tensor[i]->name);
        }
    }
    return TRI_OK;
}

static enum tri_status open_folder(struct loader *l, const struct tri_config *config,
                                   struct tri_error *error)
{
    struct tri_config_lora lora;
    TRI_TRY(tri_peft_load_config(l->dir, &lora, &l->form, error));
    TRI_TRY(tri_hf_family_of(config, &l->form.family, error));
    l->form.experts = config->moe.num_experts;
    if (lora.rank != config->train.lora.rank) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: has pairs of rank %" PRId64 ", expected %" PRId64 ", as it had before",
                        l->dir, lora.rank, config->train.lora.rank);
    }
    return tri_peft_open_set(l->dir, &l->set, error);
}

static enum tri_status load_local(struct loader *l, struct tri_error *error)
{
    TRI_TRY(tri_part_file_open(l->set->file[0]->path, &l->in, error));
    l->used = tri_alloc(TRI_MEMORY_OTHER, (size_t)l->set->count * sizeof(*l->used));
    l->hash = tri_hash_create();
    l->hashes = tri_alloc(TRI_MEMORY_OTHER, (size_t)l->params->count * sizeof(*l->hashes));
    l->pieces = tri_alloc(TRI_MEMORY_OTHER, (size_t)l->params->count * sizeof(*l->pieces));
    l->count = tri_peft_pieces(&l->form, l->params, l->pieces);
    return load_pairs(l, error);
}

/* Collective; the status is agreed. */
static enum tri_status load(struct loader *l, const struct tri_config *config,
                            struct tri_error *error)
{
    struct tri_group *world = tri_mesh_group(l->params->mesh, TRI_ON_ALL);
    struct tri_error why;
    enum tri_status status = open_folder(l, config, &why);
    TRI_TRY(tri_hf_compare_sets(l->params->mesh, l->dir, l->set, &why, error));
    if (status != TRI_OK) { /* on all ranks */
        *error = why;
        return tri_comm_agree(world, status, error);
    }
    TRI_TRY(tri_comm_agree(world, load_local(l, error), error));
    return tri_hf_compare_rows(l->params, l->dir, l->hashes, error);
}

enum tri_status tri_peft_load(const char *dir, const struct tri_config *config,
                              struct tri_params *params, struct tri_error *error)
{
    bool root = params->mesh->rank == 0;
    struct loader l = {.dir = dir, .params = params};
    enum tri_status status = load(&l, config, error);
    if (status == TRI_OK && root) {
        tri_log_info("the pairs of %s", dir);
    }
    if (status == TRI_OK && root && l.form.dropout > 0.0) {
        tri_log_warn("%s: lora_dropout is %g there; here nothing is dropped in training", dir,
                     l.form.dropout);
    }
    if (status == TRI_OK && root && l.begins > 0) {
        tri_log_warn("%s: has pairs of %" PRId64 " of %" PRId64
                     " weights; those of the others begin anew",
                     dir, l.pairs - l.begins, l.pairs);
    }
    tri_hash_destroy(l.hash);
    tri_free(l.hashes);
    tri_part_file_destroy(l.in);
    tri_safetensors_set_close(l.set);
    tri_free(l.pieces);
    tri_free(l.used);
    tri_free(l.raw);
    tri_free(l.values);
    tri_free(l.rows);
    return status;
}
