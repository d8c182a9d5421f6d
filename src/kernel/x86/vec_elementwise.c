#include "kernel/x86/vec.h"

VEC_INLINE void add_chunk(const void *a, const void *b, void *y, int64_t begin, int64_t end,
                          enum tri_dtype dt)
{
    VEC_SWEEP(begin, end,
              vec_store(y, at, count, dt, vec_load(a, at, count, dt) + vec_load(b, at, count, dt)));
}

static void add(const struct tri_kernels *self, const struct tri_add_args *a)
{
#pragma omp parallel for num_threads(self->threads) schedule(static) if (a->n > VEC_FORK)
    for (int64_t begin = 0; begin < a->n; begin += VEC_CHUNK) {
        int64_t end = vec_smaller(begin + VEC_CHUNK, a->n);
        if (vec_is_bf16(a->dt)) {
            add_chunk(a->left, a->right, a->y, begin, end, TRI_BF16);
        } else {
            add_chunk(a->left, a->right, a->y, begin, end, TRI_F32);
        }
    }
}

VEC_INLINE void bias_row(void *y, const float *bias, int64_t begin, int64_t width,
                         enum tri_dtype dt)
{
    VEC_SWEEP(0, width,
              vec_store(y, begin + at, count, dt,
                        vec_load(y, begin + at, count, dt) + vec_load(bias, at, count, TRI_F32)));
}

static void add_bias(const struct tri_kernels *self, const struct tri_bias_args *a)
{
#pragma omp parallel for num_threads(self->threads) schedule(static) if (a->n * a->width > VEC_FORK)
    for (int64_t i = 0; i < a->n; i++) {
        if (vec_is_bf16(a->dt)) {
            bias_row(a->y, a->bias, i * a->width, a->width, TRI_BF16);
        } else {
            bias_row(a->y, a->bias, i * a->width, a->width, TRI_F32);
        }
    }
}

/* Rows [first, last) of the columns at `at`. */
VEC_INLINE void column_sum(const void *dy, int64_t ld, float *db, int64_t first, int64_t last,
                           int64_t at, int64_t count, enum tri_dtype dt)
{
    vec_f32 sum = {0};
    for (int64_t i = first; i < last; i++) {
        sum += vec_load(dy, i * ld + at, count, dt);
    }
    vec_store(db, at, count, TRI_F32, vec_load(db, at, count, TRI_F32) + sum);
}

VEC_INLINE void bias_columns(const void *dy, int64_t ld, float *db, int64_t n, int64_t width,
                             enum tri_dtype dt)
{
    int64_t begin;
    int64_t end;
    vec_columns(width, &begin, &end);
    for (int64_t i = 0; i < n; i += VEC_GROUP) {
        int64_t last = vec_smaller(i + VEC_GROUP, n);
        VEC_SWEEP(begin, end, column_sum(dy, ld, db, i, last, at, count, dt));
    }
}

static void bias_backward(const struct tri_kernels *self, const struct tri_bias_args *a)
{
#pragma omp parallel num_threads(self->threads) if (a->n * a->width > VEC_FORK)
    {
        if (vec_is_bf16(a->dt)) {
            bias_columns(a->dy, a->ld, a->dbias, a->n, a->width, TRI_BF16);
        } else {
            bias_columns(a->dy, a->ld, a->dbias, a->n, a->width, TRI_F32);
        }
    }
}

/* Bytes that a thread takes at once. */
enum { PIECE = 1 << 18 };

static size_t piece_at(size_t at, size_t bytes)
{
    return bytes - at < PIECE ? bytes - at : PIECE;
}

static void zero(const struct tri_kernels *self, const struct tri_zero_args *a)
{
#pragma omp parallel for num_threads(self->threads) schedule(static) if (a->bytes > PIECE)
    for (size_t at = 0; at < a->bytes; at += PIECE) {
        memset((char *)a->dst + at, 0, piece_at(at, a->bytes));
    }
}

static void copy(const struct tri_kernels *self, const struct tri_copy_args *a)
{
#pragma omp parallel for num_threads(self->threads) schedule(static) if (a->bytes > PIECE)
    for (size_t at = 0; at < a->bytes; at += PIECE) {
        memcpy((char *)a->dst + at, (const char *)a->src + at, piece_at(at, a->bytes));
    }
}

VEC_INLINE void cast_chunk(const void *src, enum tri_dtype from, void *dst, enum tri_dtype to,
                           int64_t begin, int64_t end)
{
    VEC_SWEEP(begin, end, vec_store(dst, at, count, to, vec_load(src, at, count, from)));
}

static void cast(const struct tri_kernels *self, const struct tri_cast_args *a)
{
#pragma omp parallel for num_threads(self->threads) schedule(static) if (a->n > VEC_FORK)
    for (int64_t begin = 0; begin < a->n; begin += VEC_CHUNK) {
        int64_t end = vec_smaller(begin + VEC_CHUNK, a->n);
        if (vec_is_bf16(a->from) && vec_is_bf16(a->to)) {
            cast_chunk(a->src, TRI_BF16, a->dst, TRI_BF16, begin, end);
        } else if (vec_is_bf16(a->from)) {
            cast_chunk(a->src, TRI_BF16, a->dst, TRI_F32, begin, end);
        } else if (vec_is_bf16(a->to)) {
            cast_chunk(a->src, TRI_F32, a->dst, TRI_BF16, begin, end);
        } else {
            cast_chunk(a->src, TRI_F32, a->dst, TRI_F32, begin, end);
        }
    }
}

VEC_INLINE void add_squares(const void *x, int64_t at, int64_t count, vec_f64 *low, vec_f64 *high,
                            enum tri_dtype dt)
{
    vec_f32 value = vec_load(x, at, count, dt);
    vec_half halves[2];
    memcpy(halves, &value, sizeof(halves));
    vec_f64 a = __builtin_convertvector(halves[0], vec_f64);
    vec_f64 b = __builtin_convertvector(halves[1], vec_f64);
    *low += a * a;
    *high += b * b;
}

VEC_INLINE double squares_of(const void *x, int64_t begin, int64_t end, enum tri_dtype dt)
{
    vec_f64 low[4] = {0};
    vec_f64 high[4] = {0};
    VEC_SWEEP(begin, end, add_squares(x, at, count, &low[lane], &high[lane], dt));
    vec_f64 all =
        ((low[0] + low[1]) + (low[2] + low[3])) + ((high[0] + high[1]) + (high[2] + high[3]));
    double sum = 0.0;
    for (int i = 0; i < VEC / 2; i++) {
        sum += all[i];
    }
    return sum;
}

/* In parts that depend on n alone, so that the sum does not depend on the threads. */
static double sum_squares(const struct tri_kernels *self, const struct tri_squares_args *a)
{
    enum { PARTS = 64, LINE = 64 };
    double sums[PARTS];
    int64_t size = (a->n / PARTS / LINE + 1) * LINE;
#pragma omp parallel for num_threads(self->threads) schedule(static) if (a->n > VEC_FORK)
    for (int64_t part = 0; part < PARTS; part++) {
        int64_t begin = vec_smaller(part * size, a->n);
        int64_t end = vec_smaller(begin + size, a->n);
        sums[part] = vec_is_bf16(a->dt) ? squares_of(a->x, begin, end, TRI_BF16)
                                        : squares_of(a->x, begin, end, TRI_F32);
    }
    double sum = 0.0;
    for (int part = 0; part < PARTS; part++) {
        sum += sums[part];
    }
    return sum;
}

void VEC_NAME(tri_vec_fill_elementwise)(struct tri_kernels *table)
{
    table->add = add;
    table->add_bias = add_bias;
    table->bias_backward = bias_backward;
    table->zero = zero;
    table->copy = copy;
    table->cast = cast;
    table->sum_squares = sum_squares;
}
