/* Attention's forward: MR queries at a time pass over the keys, a block after another, with a
 * running maximum and sum for each (Milakov and Gimelshein 2018; Dao et al. 2022). */
#include "kernel/x86/attention_tile.h"

/* One strip of at most MR queries of one head. */
struct strip {
    int64_t sequence, head, begin, rows;
    float *q;      /* scaled, tile_pack_rows */
    float *scores; /* [MR] rows of BLOCK_STRIDE */
    float *out;    /* [MR, width] */
    float max[MR];
    vec_f32 sum[MR]; /* by lane */
};

static int64_t chunks_of(int64_t dim)
{
    return (dim + BLOCK_DEPTH - 1) / BLOCK_DEPTH;
}

static size_t forward_scratch(const struct tri_attention *a)
{
    int64_t width = tile_round_up(a->dim, NR), keys = tile_round_up(a->k_len, NR);
    int64_t strip = MR * ((chunks_of(a->dim) + 1) * BLOCK_STRIDE + width);
    return (size_t)(keys * a->dim + a->k_len * width + strip + 16) * sizeof(float);
}

static void rescale(struct strip *s, int64_t row, float max, int64_t width)
{
    vec_f32 factor = vec_exp(vec_set(s->max[row] - max));
    s->max[row] = max;
    s->sum[row] *= factor;
    for (int64_t c = 0; c < width; c += VEC) {
        vec_f32 x = vec_load(s->out, row * width + c, VEC, TRI_F32);
        vec_store(s->out, row * width + c, VEC, TRI_F32, x * factor);
    }
}

VEC_INLINE float largest(vec_f32 x)
{
#if defined(__AVX512F__)
    return _mm512_reduce_max_ps(x);
#else
    float lanes[VEC];
    memcpy(lanes, &x, sizeof(lanes));
    float max = lanes[0];
    for (int i = 1; i < VEC; i++) {
        max = lanes[i] > max ? lanes[i] : max;
    }
    return max;
#endif
}

/* Scores of one row, keys key .. key + width of which it sees [first, last], into weights. */
VEC_INLINE void soften(struct strip *s, int64_t row, int64_t key, int64_t width, int64_t first,
                       int64_t last, int64_t out_width)
{
    float *scores = s->scores + row * BLOCK_STRIDE;
    vec_f32 lanes = vec_set(-INFINITY);
    bool all = first <= key && last >= key + width - 1;
    for (int64_t j = 0; j < width; j += VEC) {
        vec_f32 x = vec_load(scores, j, VEC, TRI_F32);
        if (!all) {
            vec_i32 keys = tile_key_numbers(key + j);
            vec_i32 seen = (keys >= (int32_t)first) & (keys <= (int32_t)last);
            x = vec_select(seen, x, vec_set(-INFINITY));
            vec_store(scores, j, VEC, TRI_F32, x);
        }
        lanes = vec_max(lanes, x);
    }
    float max = largest(lanes);
    if (max > s->max[row]) {
        rescale(s, row, max, out_width);
    }
    /* A row that has seen no key yet keeps zeros. */
    vec_f32 level = vec_set(s->max[row] > -INFINITY ? s->max[row] : 0.0f);
    vec_f32 sum = s->sum[row];
    for (int64_t j = 0; j < width; j += VEC) {
        vec_f32 weight = vec_exp(vec_load(scores, j, VEC, TRI_F32) - level);
        vec_store(scores, j, VEC, TRI_F32, weight);
        sum += weight;
    }
    s->sum[row] = sum;
}

VEC_INLINE void finish(const struct tri_attention *a, const struct strip *s, int64_t width,
                       enum tri_dtype dt)
{
    for (int64_t r = 0; r < s->rows; r++) {
        int64_t row = s->sequence * a->q_len + s->begin + r;
        const vec_f32 parts[4] = {s->sum[r]};
        float sum = vec_total(parts);
        float *lse = (float *)a->lse + row * a->heads + s->head;
        *lse = sum == 0.0f ? -INFINITY : s->max[r] + logf(sum);
        vec_f32 factor = vec_set(sum == 0.0f ? 0.0f : 1.0f / sum);
        for (int64_t c = 0; c < a->dim; c += VEC) {
            vec_f32 x = vec_load(s->out, r * width + c, VEC, TRI_F32) * factor;
            vec_store(a->out, row * a->ld_out + s->head * a->dim + c, vec_smaller(a->dim - c, VEC),
                      dt, x);
        }
    }
}

VEC_INLINE void forward_strip(const struct tri_attention *a, struct strip *s, const float *turned,
                              const float *values, enum tri_dtype dt)
{
    int64_t width = tile_round_up(a->dim, NR), row = s->sequence * a->q_len + s->begin;
    tile_pack_rows(s->q, MR, a->q, row * a->ld_q + s->head * a->dim, a->ld_q, s->rows, a->dim,
                   (float)a->scale, dt);
    memset(s->out, 0, (size_t)(s->rows * width) * sizeof(float));
    for (int64_t r = 0; r < s->rows; r++) {
        s->max[r] = -INFINITY;
        s->sum[r] = vec_set(0.0f);
    }
    int64_t last = tile_last_key(a, s->begin + s->rows - 1);
    for (int64_t key = tile_begin_keys(a, row, s->rows); key <= last; key += KEYS) {
        int64_t keys = vec_smaller(last + 1 - key, KEYS), padded = tile_round_up(keys, NR);
        tile_scores(s->scores, s->q, MR, s->rows, turned + key * a->dim, padded, a->dim);
        for (int64_t r = 0; r < s->rows; r++) {
            soften(s, r, key, padded, tile_first_key(a, row + r), tile_last_key(a, s->begin + r),
                   width);
        }
        tile_add(s->out, width, s->scores, block_rows, s->rows, keys, values, a->k_len, key);
    }
    finish(a, s, width, dt);
}

VEC_INLINE void forward_as(const struct tri_attention *a, enum tri_dtype dt,
                           struct tri_attention_task task, float *scratch)
{
    int64_t width = tile_round_up(a->dim, NR), keys = tile_last_key(a, task.end - 1) + 1;
    int64_t first_row = task.sequence * a->k_len, column = task.kv * a->dim;
    float *turned = scratch, *values = turned + tile_round_up(a->k_len, NR) * a->dim;
    struct strip s = {.sequence = task.sequence};
    s.q = values + a->k_len * width;
    s.scores = s.q + chunks_of(a->dim) * MR * BLOCK_STRIDE;
    s.out = s.scores + MR * BLOCK_STRIDE;
    tile_pack_turned(turned, a->k, first_row * a->ld_k + column, a->ld_k, keys, a->dim, dt);
    tile_pack_panels(values, a->k_len, a->v, first_row * a->ld_v + column, a->ld_v, keys, a->dim,
                     1.0f, dt);
    for (s.head = tile_first_head(a, task.kv); s.head < tile_end_head(a, task.kv); s.head++) {
        for (s.begin = task.begin; s.begin < task.end; s.begin += MR) {
            s.rows = vec_smaller(task.end - s.begin, MR);
            forward_strip(a, &s, turned, values, dt);
        }
    }
}

static void forward(const struct tri_attention *args, struct tri_attention_task task, void *scratch)
{
    if (args->dt == TRI_BF16) {
        forward_as(args, TRI_BF16, task, scratch);
    } else {
        forward_as(args, TRI_F32, task, scratch);
    }
}

size_t VEC_NAME(tri_attention_backward_scratch)(const struct tri_attention *args);
void VEC_NAME(tri_attention_backward)(const struct tri_attention *args,
                                      struct tri_attention_task task, void *scratch);

const struct tri_attention_isa VEC_NAME(tri_attention) = {
    .rows = MR,
    .forward_scratch = forward_scratch,
    .backward_scratch = VEC_NAME(tri_attention_backward_scratch),
    .forward = forward,
    .backward = VEC_NAME(tri_attention_backward),
};
