/* Whole tensors from their parts, and parts from whole tensors. */
#include "model/param.h"

#include "base/memory.h"

#include <math.h>
#include <string.h>

/* What a rank contributes to a gathered tensor: elements [begin, end) of its local row-major slice
 * rows x columns, of which only the rows in `counted` are taken. */
struct piece {
    struct tri_range rows, columns, counted, flat;
};

enum { PIECE_WORDS = sizeof(struct piece) / sizeof(int64_t) };

/* The part of a row of the table that this rank owns, in local elements. */
static struct tri_range owned(const struct tri_params *params, const struct tri_param *param)
{
    struct tri_range part = tri_param_own(params, param);
    if (tri_range_size(part) == 0) {
        return (struct tri_range){0, 0};
    }
    return (struct tri_range){part.begin - param->offset, part.end - param->offset};
}

static bool is_sharded(const struct tri_buffer *buffer, enum tri_field field)
{
    return field != TRI_FIELD_WEIGHT || buffer->m;
}

static struct piece piece_of(const struct tri_params *params, const struct tri_param *param,
                             enum tri_field field)
{
    const struct tri_buffer *buffer = &params->buffer[param->buffer];
    struct piece piece = {param->local[0], param->local[1], param->counted, {0, 0}};
    if (tri_range_size(param->counted) == 0) {
        return piece;
    }
    if (is_sharded(buffer, field)) {
        piece.flat = owned(params, param);
    } else if (tri_group_rank(buffer->group) == 0) {
        piece.flat = (struct tri_range){0, param->count};
    }
    return piece;
}

static void widen(const uint16_t *values, int64_t n, float *out)
{
    for (int64_t i = 0; i < n; i++) {
        out[i] = tri_bf16_to_f32(values[i]);
    }
}

/* Fixed-point sums (kernel.h) as numbers. */
static void unfix(const int64_t *sums, int64_t n, float *out)
{
    for (int64_t i = 0; i < n; i++) {
        out[i] = ldexpf((float)sums[i], -TRI_FIXED_BITS);
    }
}

/* Local elements `flat` of a field, as f32, into out. */
static void read_field(const struct tri_params *params, const struct tri_param *param,
                       enum tri_field field, struct tri_range flat, float *out)
{
    const struct tri_buffer *buffer = &params->buffer[param->buffer];
    int64_t n = tri_range_size(flat);
    const float *source = NULL;
    if (n == 0) {
        return;
    }
    if (field == TRI_FIELD_GRADIENT && buffer->gradient_dtype == TRI_BF16) {
        widen((const uint16_t *)buffer->gradients + param->offset + flat.begin, n, out);
        return;
    } else if (field == TRI_FIELD_GRADIENT && buffer->gradient_dtype == TRI_I64) {
        unfix((const int64_t *)buffer->gradients + param->offset + flat.begin, n, out);
        return;
    } else if (field == TRI_FIELD_GRADIENT) {
        source = (const float *)buffer->gradients + param->offset + flat.begin;
    } else if (field == TRI_FIELD_WEIGHT && buffer->dtype == TRI_F32) {
        source = (const float *)buffer->weights + param->offset + flat.begin;
    } else if (field == TRI_FIELD_WEIGHT && !buffer->master) {
        widen((const uint16_t *)buffer->weights + param->offset + flat.begin, n, out);
        return;
    } else {
        const float *shard = field == TRI_FIELD_M   ? buffer->m
                             : field == TRI_FIELD_V ? buffer->v
                                                    : buffer->master;
        const struct tri_segment *segment = &buffer->segment[param->segment];
        source = shard + tri_segment_place(segment, param->offset + flat.begin);
    }
    memcpy(out, source, (size_t)n * sizeof(float));
}

/* Copies a piece's values to their places in the global tensor, run by run of a row. */
static void place_piece(const struct piece *piece, const float *values, int64_t global_columns,
                        float *global)
{
    int64_t columns = tri_range_size(piece->columns);
    for (int64_t at = piece->flat.begin; at < piece->flat.end;) {
        int64_t row = piece->rows.begin + at / columns;
        int64_t column = at % columns;
        int64_t run = columns - column;
        if (run > piece->flat.end - at) {
            run = piece->flat.end - at;
        }
        if (row >= piece->counted.begin && row < piece->counted.end) {
            memcpy(global + row * global_columns + piece->columns.begin + column,
                   values + (at - piece->flat.begin), (size_t)run * sizeof(float));
        }
        at += run;
    }
}

void tri_param_gather(const struct tri_params *params, const struct tri_param *param,
                      enum tri_field field, float *global)
{
    struct tri_group *world = params->mesh->world;
    const struct tri_where where = {TRI_PHASE_CHECKPOINT, TRI_KIND_META};
    size_t ranks = (size_t)tri_group_size(world);
    size_t me = (size_t)tri_group_rank(world);
    tri_params_settle_row(params, param);
    struct piece *pieces = tri_alloc(TRI_MEMORY_OTHER, ranks * sizeof(*pieces));
    int64_t *counts = tri_alloc(TRI_MEMORY_OTHER, 3 * ranks * sizeof(*counts));
    int64_t *send_rows = counts + ranks;
    int64_t *recv_rows = send_rows + ranks;
    for (size_t r = 0; r < ranks; r++) {
        counts[r] = PIECE_WORDS;
    }
    pieces[me] = piece_of(params, param, field);
    tri_all_gather_v(world, where, pieces, counts, TRI_I64);

    int64_t n = tri_range_size(pieces[me].flat);
    float *send = tri_alloc(TRI_MEMORY_OTHER, (size_t)n * sizeof(*send));
    read_field(params, param, field, pieces[me].flat, send);
    send_rows[0] = n;
    int64_t total = 0;
    for (size_t r = 0; r < ranks && me == 0; r++) {
        recv_rows[r] = tri_range_size(pieces[r].flat);
        total += recv_rows[r];
    }
    float *recv = tri_alloc(TRI_MEMORY_OTHER, (size_t)total * sizeof(*recv));
    tri_all_to_all_v(world, where, send, send_rows, recv, recv_rows, 1, TRI_F32);
    const float *values = recv;
    for (size_t r = 0; r < ranks && me == 0; r++) {
        place_piece(&pieces[r], values, param->shape[1], global);
        values += recv_rows[r];
    }
    tri_free(recv);
    tri_free(send);
    tri_free(counts);
    tri_free(pieces);
}

/* To element `place` of an array of f32, bf16 or fixed-point sums. */
static void write_values(void *array, enum tri_dtype dtype, int64_t place, int64_t n,
                         const float *values)
{
    if (dtype == TRI_F32) {
        memcpy((float *)array + place, values, (size_t)n * sizeof(float));
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        if (dtype == TRI_I64) {
            ((int64_t *)array)[place + i] = (int64_t)rint(ldexp((double)values[i], TRI_FIXED_BITS));
        } else {
            ((uint16_t *)array)[place + i] = tri_f32_to_bf16(values[i]);
        }
    }
}

static void write_shard(float *shard, const struct tri_segment *segment, int64_t place, int64_t n,
                        const float *values)
{
    struct tri_range part = tri_segment_own(segment, (struct tri_range){place, place + n});
    if (shard && tri_range_size(part) > 0) {
        memcpy(shard + tri_segment_place(segment, part.begin), values + (part.begin - place),
               (size_t)tri_range_size(part) * sizeof(float));
    }
}

void tri_param_scatter(struct tri_params *params, const struct tri_param *param,
                       enum tri_field field, const float *global)
{
    struct tri_buffer *buffer = &params->buffer[param->buffer];
    const struct tri_segment *segment = &buffer->segment[param->segment];
    int64_t columns = tri_range_size(param->local[1]);
    tri_params_settle_row(params, param);
    for (int64_t row = param->local[0].begin; row < param->local[0].end; row++) {
        const float *values = global + row * param->shape[1] + param->local[1].begin;
        int64_t place = param->offset + (row - param->local[0].begin) * columns;
        switch (field) {
        case TRI_FIELD_WEIGHT:
            write_values(buffer->weights, buffer->dtype, place, columns, values);
            write_shard(buffer->master, segment, place, columns, values);
            break;
        case TRI_FIELD_GRADIENT:
            write_values(buffer->gradients, buffer->gradient_dtype, place, columns, values);
            break;
        case TRI_FIELD_M:
            write_shard(buffer->m, segment, place, columns, values);
            break;
        case TRI_FIELD_V:
            write_shard(buffer->v, segment, place, columns, values);
            break;
        }
    }
    if (field == TRI_FIELD_WEIGHT) {
        tri_params_refresh_row(params, param);
    }
}
