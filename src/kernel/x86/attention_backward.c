/* Attention's backward: probabilities are computed again from the log-sum-exp. For each block of
 * keys, all queries that see it pass by, QUERIES at a time:
 *   P = exp(scale Q K' - lse), dS = P * (dO V' - rowsum(dO * O)),
 *   dV += P' dO, dK += scale dS' Q, dQ += scale dS K.
 * The sums over queries run over the heads of the group, then over the queries, in order. */
#include "kernel/x86/attention_tile.h"

#include <assert.h>

enum { QUERIES = 96 };
static_assert(QUERIES % MR == 0, "whole strips");

/* P or dS read by columns. */
static const struct block_layout by_key = {1, BLOCK_STRIDE, MR};

struct buffers {
    float *turned_k, *turned_v; /* this block of keys, tile_pack_turned */
    float *k;                   /* the same, panels */
    float *dk, *dv;             /* [KEYS, width] */
    float *q, *dout;            /* these queries, rows */
    float *q_panels, *dout_panels;
    float *p, *ds;     /* [QUERIES] rows of BLOCK_STRIDE */
    float *dq, *delta; /* [heads of the group, q_len], width columns and one */
};

/* The block of keys and the queries at hand. */
struct tile {
    int64_t key, keys;         /* keys <= KEYS */
    int64_t begin, rows, head; /* rows <= QUERIES */
    int64_t row;               /* of q, of query begin */
    int64_t width;
};

/* The next n floats of scratch, or NULL when only counting. */
static float *take(float *scratch, int64_t *at, int64_t n)
{
    float *block = scratch ? scratch + *at : NULL;
    *at += tile_round_up(n, 16);
    return block;
}

/* Cuts scratch into buffers; returns how many floats they are. scratch may be NULL. */
static int64_t carve(const struct tri_attention *a, float *scratch, struct buffers *b)
{
    int64_t width = tile_round_up(a->dim, NR);
    int64_t rows = (a->dim + BLOCK_DEPTH - 1) / BLOCK_DEPTH * QUERIES * BLOCK_STRIDE;
    int64_t queries = vec_smaller(a->group, a->heads) * a->q_len;
    int64_t at = 0;
    b->turned_k = take(scratch, &at, KEYS * a->dim);
    b->turned_v = take(scratch, &at, KEYS * a->dim);
    b->k = take(scratch, &at, KEYS * width);
    b->dk = take(scratch, &at, KEYS * width);
    b->dv = take(scratch, &at, KEYS * width);
    b->q = take(scratch, &at, rows);
    b->dout = take(scratch, &at, rows);
    b->q_panels = take(scratch, &at, QUERIES * width);
    b->dout_panels = take(scratch, &at, QUERIES * width);
    b->p = take(scratch, &at, QUERIES * BLOCK_STRIDE);
    b->ds = take(scratch, &at, QUERIES * BLOCK_STRIDE);
    b->dq = take(scratch, &at, queries * width);
    b->delta = take(scratch, &at, queries);
    return at;
}

size_t VEC_NAME(tri_attention_backward_scratch)(const struct tri_attention *args);
void VEC_NAME(tri_attention_backward)(const struct tri_attention *args,
                                      struct tri_attention_task task, void *scratch);

size_t VEC_NAME(tri_attention_backward_scratch)(const struct tri_attention *args)
{
    struct buffers b;
    return (size_t)carve(args, NULL, &b) * sizeof(float);
}

/* Scores of one row become P, and dO V' becomes dS; what the row does not see becomes 0, up to
 * `padded` of the columns computed and `end` of those read. */
VEC_INLINE void derive_row(const struct tri_attention *a, float *p, float *ds, float lse,
                           float delta, struct tile t, int64_t r, int64_t padded, int64_t end)
{
    int64_t first = tile_first_key(a, t.row + r), last = tile_last_key(a, t.begin + r);
    bool all = first <= t.key && last >= t.key + padded - 1;
    vec_f32 level = vec_set(lse > -INFINITY ? lse : 0.0f);
    for (int64_t j = 0; j < padded; j += VEC) {
        vec_f32 weight = vec_exp(vec_load(p, j, VEC, TRI_F32) - level);
        vec_f32 change = weight * (vec_load(ds, j, VEC, TRI_F32) - delta);
        if (!all) {
            vec_i32 keys = tile_key_numbers(t.key + j);
            vec_i32 seen = (keys >= (int32_t)first) & (keys <= (int32_t)last);
            weight = vec_select(seen, weight, vec_set(0.0f));
            change = vec_select(seen, change, vec_set(0.0f));
        }
        vec_store(p, j, VEC, TRI_F32, weight);
        vec_store(ds, j, VEC, TRI_F32, change);
    }
    for (int64_t j = padded; j < end; j += VEC) {
        vec_store(p, j, VEC, TRI_F32, vec_set(0.0f));
        vec_store(ds, j, VEC, TRI_F32, vec_set(0.0f));
    }
}

VEC_INLINE void backward_tile(const struct tri_attention *a, const struct buffers *b, struct tile t,
                              float *dq, const float *delta)
{
    int64_t end = tile_round_up(t.keys, NR);
    for (int64_t r = 0; r < t.rows; r += MR) {
        int64_t rows = vec_smaller(t.rows - r, MR);
        int64_t seen = tile_last_key(a, t.begin + r + rows - 1) + 1 - t.key;
        seen = seen < 0 ? 0 : vec_smaller(seen, t.keys);
        int64_t padded = tile_round_up(seen, NR);
        float *p = b->p + r * BLOCK_STRIDE, *ds = b->ds + r * BLOCK_STRIDE;
        tile_scores(p, b->q + r * BLOCK_STRIDE, QUERIES, rows, b->turned_k, padded, a->dim);
        tile_scores(ds, b->dout + r * BLOCK_STRIDE, QUERIES, rows, b->turned_v, padded, a->dim);
        for (int64_t i = 0; i < rows; i++) {
            float lse = ((const float *)a->lse)[(t.row + r + i) * a->heads + t.head];
            derive_row(a, p + i * BLOCK_STRIDE, ds + i * BLOCK_STRIDE, lse, delta[r + i], t, r + i,
                       padded, end);
        }
        tile_add(dq + r * t.width, t.width, ds, block_rows, rows, seen, b->k, KEYS, 0);
    }
    for (int64_t j = 0; j < t.keys; j += MR) {
        int64_t keys = vec_smaller(t.keys - j, MR);
        int64_t from = t.key + j - a->q_offset - t.begin; /* the first query that sees key j */
        from = from < 0 ? 0 : from;
        if (from < t.rows) {
            const int64_t at = from * BLOCK_STRIDE + j, depth = t.rows - from;
            tile_add(b->dv + j * t.width, t.width, b->p + at, by_key, keys, depth, b->dout_panels,
                     QUERIES, from);
            tile_add(b->dk + j * t.width, t.width, b->ds + at, by_key, keys, depth, b->q_panels,
                     QUERIES, from);
        }
    }
}

/* delta = rowsum(dO * O) of every query of one head. */
VEC_INLINE void head_deltas(const struct tri_attention *a, int64_t sequence, int64_t head,
                            float *delta, enum tri_dtype dt)
{
    for (int64_t i = 0; i < a->q_len; i++) {
        int64_t row = sequence * a->q_len + i;
        vec_f32 sum[4] = {vec_set(0.0f)};
        for (int64_t c = 0; c < a->dim; c += VEC) {
            int64_t n = vec_smaller(a->dim - c, VEC), at = head * a->dim + c;
            sum[0] = vec_fma(vec_load(a->dout, row * a->ld_dout + at, n, dt),
                             vec_load(a->out, row * a->ld_out + at, n, dt), sum[0]);
        }
        delta[i] = vec_total(sum);
    }
}

VEC_INLINE void pack_queries(const struct tri_attention *a, const struct buffers *b, struct tile t,
                             enum tri_dtype dt)
{
    int64_t q = t.row * a->ld_q + t.head * a->dim, dout = t.row * a->ld_dout + t.head * a->dim;
    float scale = (float)a->scale;
    tile_pack_rows(b->q, QUERIES, a->q, q, a->ld_q, t.rows, a->dim, scale, dt);
    tile_pack_rows(b->dout, QUERIES, a->dout, dout, a->ld_dout, t.rows, a->dim, 1.0f, dt);
    tile_pack_panels(b->q_panels, QUERIES, a->q, q, a->ld_q, t.rows, a->dim, scale, dt);
    tile_pack_panels(b->dout_panels, QUERIES, a->dout, dout, a->ld_dout, t.rows, a->dim, 1.0f, dt);
}

VEC_INLINE void write_rows(void *to, int64_t at, int64_t ld, const float *from, int64_t width,
                           int64_t rows, int64_t dim, float scale, enum tri_dtype dt)
{
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t c = 0; c < dim; c += VEC) {
            vec_f32 x = vec_load(from, r * width + c, VEC, TRI_F32) * scale;
            vec_store(to, at + r * ld + c, vec_smaller(dim - c, VEC), dt, x);
        }
    }
}

/* One block of keys: all heads of the group, all queries that can see it. */
VEC_INLINE void backward_keys(const struct tri_attention *a, struct tri_attention_task task,
                              const struct buffers *b, struct tile t, enum tri_dtype dt)
{
    int64_t row = task.sequence * a->k_len + t.key, column = task.kv * a->dim;
    tile_pack_turned(b->turned_k, a->k, row * a->ld_k + column, a->ld_k, t.keys, a->dim, dt);
    tile_pack_turned(b->turned_v, a->v, row * a->ld_v + column, a->ld_v, t.keys, a->dim, dt);
    tile_pack_panels(b->k, KEYS, a->k, row * a->ld_k + column, a->ld_k, t.keys, a->dim, 1.0f, dt);
    memset(b->dk, 0, (size_t)(t.keys * t.width) * sizeof(float));
    memset(b->dv, 0, (size_t)(t.keys * t.width) * sizeof(float));
    int64_t first_head = tile_first_head(a, task.kv);
    int64_t first = t.key - a->q_offset > 0 ? (t.key - a->q_offset) / QUERIES * QUERIES : 0;
    for (t.head = first_head; t.head < tile_end_head(a, task.kv); t.head++) {
        int64_t at = (t.head - first_head) * a->q_len;
        for (t.begin = first; t.begin < a->q_len; t.begin += QUERIES) {
            t.rows = vec_smaller(a->q_len - t.begin, QUERIES);
            t.row = task.sequence * a->q_len + t.begin;
            if (tile_begin_keys(a, t.row, t.rows) > t.key) {
                continue;
            }
            pack_queries(a, b, t, dt);
            backward_tile(a, b, t, b->dq + (at + t.begin) * t.width, b->delta + at + t.begin);
        }
    }
    write_rows(a->dk, row * a->ld_dk + column, a->ld_dk, b->dk, t.width, t.keys, a->dim, 1.0f, dt);
    write_rows(a->dv, row * a->ld_dv + column, a->ld_dv, b->dv, t.width, t.keys, a->dim, 1.0f, dt);
}

VEC_INLINE void backward_as(const struct tri_attention *a, enum tri_dtype dt,
                            struct tri_attention_task task, const struct buffers *b)
{
    struct tile t = {.width = tile_round_up(a->dim, NR)};
    int64_t first_head = tile_first_head(a, task.kv), end_head = tile_end_head(a, task.kv);
    for (int64_t h = first_head; h < end_head; h++) {
        head_deltas(a, task.sequence, h, b->delta + (h - first_head) * a->q_len, dt);
    }
    if (first_head < end_head) {
        memset(b->dq, 0, (size_t)((end_head - first_head) * a->q_len * t.width) * sizeof(float));
    }
    for (t.key = 0; t.key < a->k_len; t.key += KEYS) {
        t.keys = vec_smaller(a->k_len - t.key, KEYS);
        backward_keys(a, task, b, t, dt);
    }
    for (int64_t h = first_head; h < end_head; h++) {
        write_rows(a->dq, task.sequence * a->q_len * a->ld_dq + h * a->dim, a->ld_dq,
                   b->dq + (h - first_head) * a->q_len * t.width, t.width, a->q_len, a->dim,
                   (float)a->scale, dt);
    }
}

void VEC_NAME(tri_attention_backward)(const struct tri_attention *args,
                                      struct tri_attention_task task, void *scratch)
{
    struct buffers b;
    carve(args, scratch, &b);
    if (args->dt == TRI_BF16) {
        backward_as(args, TRI_BF16, task, &b);
    } else {
        backward_as(args, TRI_F32, task, &b);
    }
}
