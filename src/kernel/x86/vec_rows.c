/* Rows that move: embedding, and the gather and combine around the experts. */
#include "kernel/x86/scratch.h"
#include "kernel/x86/vec.h"

static void move_row(const void *src, int64_t from, void *dst, int64_t to, size_t bytes)
{
    char *out = (char *)dst + to * (int64_t)bytes;
    if (from >= 0) {
        memcpy(out, (const char *)src + from * (int64_t)bytes, bytes);
    } else {
        memset(out, 0, bytes);
    }
}

VEC_INLINE void fill_row(void *y, int64_t begin, int64_t end, float value, enum tri_dtype dt)
{
    VEC_SWEEP(begin, end, vec_store(y, at, count, dt, vec_set(value)));
}

static void embedding_forward(const struct tri_kernels *self, const struct tri_embedding_args *a)
{
    size_t bytes = (size_t)a->width * (vec_is_bf16(a->dt) ? sizeof(uint16_t) : sizeof(float));
#pragma omp parallel for num_threads(self->threads) schedule(static) if (a->n * a->width > VEC_FORK)
    for (int64_t i = 0; i < a->n; i++) {
        int64_t row = a->tokens[i] - a->first_row;
        if (0 <= row && row < a->rows) {
            move_row(a->table, row, a->y, i, bytes);
        } else if (vec_is_bf16(a->dt)) {
            fill_row(a->y, i * a->width, (i + 1) * a->width, -0.0f, TRI_BF16);
        } else {
            fill_row(a->y, i * a->width, (i + 1) * a->width, -0.0f, TRI_F32);
        }
    }
}

VEC_INLINE void add_row(float *sum, int64_t sum_at, const void *dy, int64_t dy_at, int64_t begin,
                        int64_t end, enum tri_dtype dt)
{
    VEC_SWEEP(begin, end,
              vec_store(sum, sum_at + at, count, TRI_F32,
                        vec_load(sum, sum_at + at, count, TRI_F32) +
                            vec_load(dy, dy_at + at, count, dt)));
}

/* The tokens of one row of a table as a list: first[row], then next[i] after i; -1 ends it. */
struct occurrences {
    const int32_t *first, *next;
};

VEC_INLINE void add_occurrences(void *dtable, int64_t row, struct occurrences list, const void *dy,
                                int64_t width, int64_t at, int64_t count, enum tri_dtype dt)
{
    vec_f32 sum = {0};
    for (int32_t i = list.first[row]; i >= 0; i = list.next[i]) {
        sum += vec_load(dy, i * width + at, count, dt);
    }
    at += row * width;
    vec_store(dtable, at, count, TRI_BF16, vec_load(dtable, at, count, TRI_BF16) + sum);
}

VEC_INLINE void add_to_row(void *dtable, int64_t row, struct occurrences list, const void *dy,
                           int64_t width, enum tri_dtype dt)
{
    VEC_SWEEP(0, width, add_occurrences(dtable, row, list, dy, width, at, count, dt));
}

/* Row by row of the table, so that each is rounded once. */
static void backward_by_row(const struct tri_kernels *self, const struct tri_embedding_args *a)
{
    int32_t *first = tri_scratch_get(self, (size_t)(a->rows + a->n) * sizeof(*first));
    int32_t *next = first + a->rows;
    memset(first, -1, (size_t)a->rows * sizeof(*first));
    for (int64_t i = a->n - 1; i >= 0; i--) {
        int64_t row = a->tokens[i] - a->first_row;
        if (0 <= row && row < a->rows) {
            next[i] = first[row];
            first[row] = (int32_t)i;
        }
    }
    struct occurrences list = {first, next};
#pragma omp parallel for num_threads(self->threads)                                                \
    schedule(dynamic, 64) if (a->n * a->width > VEC_FORK)
    for (int64_t row = 0; row < a->rows; row++) {
        if (first[row] < 0) {
            continue;
        }
        if (vec_is_bf16(a->dt)) {
            add_to_row(a->dtable, row, list, a->dy, a->width, TRI_BF16);
        } else {
            add_to_row(a->dtable, row, list, a->dy, a->width, TRI_F32);
        }
    }
}

/* Each thread adds its columns of every row: tokens repeat, so rows cannot be shared out. */
static void embedding_backward(const struct tri_kernels *self, const struct tri_embedding_args *a)
{
    if (vec_is_bf16(a->table_dtype)) {
        backward_by_row(self, a);
        return;
    }
    float *sums = a->dtable;
#pragma omp parallel num_threads(self->threads) if (a->n * a->width > VEC_FORK)
    {
        int64_t begin;
        int64_t end;
        vec_columns(a->width, &begin, &end);
        for (int64_t i = 0; i < a->n; i++) {
            int64_t row = a->tokens[i] - a->first_row;
            if (row < 0 || row >= a->rows) {
                continue;
            }
            if (vec_is_bf16(a->dt)) {
                add_row(sums, row * a->width, a->dy, i * a->width, begin, end, TRI_BF16);
            } else {
                add_row(sums, row * a->width, a->dy, i * a->width, begin, end, TRI_F32);
            }
        }
    }
}

static void gather_rows(const struct tri_kernels *self, const struct tri_gather_args *a)
{
    size_t bytes = (size_t)a->width * (vec_is_bf16(a->dt) ? sizeof(uint16_t) : sizeof(float));
#pragma omp parallel for num_threads(self->threads) schedule(static) if (a->n * a->width > VEC_FORK)
    for (int64_t i = 0; i < a->n; i++) {
        move_row(a->src, a->index[i], a->dst, i, bytes);
    }
}

/* `vectors` vectors of row t from column at on; count elements in the last. */
VEC_INLINE void combine_at(const struct tri_combine_args *args, int64_t t, int64_t column,
                           int vectors, int64_t count, enum tri_dtype dt)
{
    vec_f32 sum[4] = {0};
    for (int u = 0; args->add && u < vectors; u++) {
        sum[u] = vec_load(args->add, t * args->width + column + u * VEC, count, dt);
    }
    const float *weights = args->weight;
    for (int64_t c = t * args->k; c < (t + 1) * args->k; c++) {
        if (args->index[c] < 0) {
            continue;
        }
        vec_f32 weight = vec_set(weights ? weights[c] : 1.0f);
        int64_t from = args->index[c] * args->width + column;
        for (int u = 0; u < vectors; u++) {
            sum[u] = vec_fma(vec_load(args->rows, from + u * VEC, count, dt), weight, sum[u]);
        }
    }
    for (int u = 0; u < vectors; u++) {
        vec_store(args->y, t * args->width + column + u * VEC, count, dt, sum[u]);
    }
}

VEC_INLINE void combine_row(const struct tri_combine_args *args, int64_t t, enum tri_dtype dt)
{
    int64_t column = 0;
    for (; column + 4 * VEC <= args->width; column += 4 * VEC) {
        combine_at(args, t, column, 4, VEC, dt);
    }
    for (; column < args->width; column += VEC) {
        combine_at(args, t, column, 1, vec_smaller(VEC, args->width - column), dt);
    }
}

static void combine_rows(const struct tri_kernels *self, const struct tri_combine_args *a)
{
#pragma omp parallel for num_threads(self->threads) schedule(static) if (a->n * a->width > VEC_FORK)
    for (int64_t t = 0; t < a->n; t++) {
        if (vec_is_bf16(a->dt)) {
            combine_row(a, t, TRI_BF16);
        } else {
            combine_row(a, t, TRI_F32);
        }
    }
}

VEC_INLINE void scale_and_dot(const struct tri_combine_args *args, int64_t dy_at, int64_t row_at,
                              vec_f32 weight, int64_t at, int64_t count, vec_f32 *sum,
                              enum tri_dtype dt)
{
    vec_f32 dy = vec_load(args->dy, dy_at + at, count, dt);
    *sum = vec_fma(dy, vec_load(args->rows, row_at + at, count, dt), *sum);
    vec_store(args->drows, row_at + at, count, dt, dy * weight);
}

VEC_INLINE void combine_backward_one(const struct tri_combine_args *args, int64_t c,
                                     enum tri_dtype dt)
{
    vec_f32 sum[4] = {0};
    if (args->index[c] >= 0) {
        int64_t dy_at = c / args->k * args->width;
        int64_t row_at = args->index[c] * args->width;
        vec_f32 weight = vec_set(((const float *)args->weight)[c]);
        VEC_SWEEP(0, args->width,
                  scale_and_dot(args, dy_at, row_at, weight, at, count, &sum[lane], dt));
    }
    ((float *)args->dweight)[c] = vec_total(sum);
}

static void combine_rows_backward(const struct tri_kernels *self, const struct tri_combine_args *a)
{
#pragma omp parallel for num_threads(self->threads)                                                \
    schedule(static) if (a->n * a->k * a->width > VEC_FORK)
    for (int64_t c = 0; c < a->n * a->k; c++) {
        if (vec_is_bf16(a->dt)) {
            combine_backward_one(a, c, TRI_BF16);
        } else {
            combine_backward_one(a, c, TRI_F32);
        }
    }
}

VEC_INLINE void scale_row_add(const void *x, float gate, const void *add, void *y, int64_t begin,
                              int64_t end, enum tri_dtype dt)
{
    vec_f32 scale = vec_set(gate);
    VEC_SWEEP(begin, end,
              vec_store(y, at, count, dt,
                        vec_fma(vec_load(x, at, count, dt), scale, vec_load(add, at, count, dt))));
}

static void scale_rows_add(const struct tri_kernels *self, const struct tri_scale_args *a)
{
    const float *scale = a->gate;
#pragma omp parallel for num_threads(self->threads) schedule(static) if (a->n * a->width > VEC_FORK)
    for (int64_t t = 0; t < a->n; t++) {
        if (vec_is_bf16(a->dt)) {
            scale_row_add(a->x, scale[t], a->add, a->y, t * a->width, (t + 1) * a->width, TRI_BF16);
        } else {
            scale_row_add(a->x, scale[t], a->add, a->y, t * a->width, (t + 1) * a->width, TRI_F32);
        }
    }
}

VEC_INLINE void add_product(vec_f32 a, vec_f32 b, vec_f32 *sum)
{
    *sum = vec_fma(a, b, *sum);
}

VEC_INLINE float dot_row(const void *a, const void *b, int64_t begin, int64_t end,
                         enum tri_dtype dt)
{
    vec_f32 sum[4] = {0};
    VEC_SWEEP(begin, end,
              add_product(vec_load(a, at, count, dt), vec_load(b, at, count, dt), &sum[lane]));
    return vec_total(sum);
}

static void row_dots(const struct tri_kernels *self, const struct tri_dots_args *a)
{
    float *out = a->dots;
#pragma omp parallel for num_threads(self->threads) schedule(static) if (a->n * a->width > VEC_FORK)
    for (int64_t t = 0; t < a->n; t++) {
        out[t] = vec_is_bf16(a->dt)
                     ? dot_row(a->left, a->right, t * a->width, (t + 1) * a->width, TRI_BF16)
                     : dot_row(a->left, a->right, t * a->width, (t + 1) * a->width, TRI_F32);
    }
}

void VEC_NAME(tri_vec_fill_rows)(struct tri_kernels *table)
{
    table->embedding_forward = embedding_forward;
    table->embedding_backward = embedding_backward;
    table->gather_rows = gather_rows;
    table->combine_rows = combine_rows;
    table->combine_rows_backward = combine_rows_backward;
    table->scale_rows_add = scale_rows_add;
    table->row_dots = row_dots;
}
