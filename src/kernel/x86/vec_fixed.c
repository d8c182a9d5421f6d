/* Fixed-point sums of whole vectors; products add to them in product_tile.h. */
#include "kernel/x86/fixed.h"

VEC_INLINE void add_chunk(const void *x, int64_t *sums, int64_t begin, int64_t end,
                          struct tri_fixed *fixed, enum tri_dtype dt)
{
    vec_i32 bad = {0};
    VEC_SWEEP(begin, end,
              fixed_add_at(sums, at, count, vec_load(x, at, count, dt), fixed->limit, &bad));
    fixed_report(fixed, bad);
}

static void fixed_add(const struct tri_kernels *self, const struct tri_fixed_add_args *a)
{
#pragma omp parallel for num_threads(self->threads) schedule(static) if (a->n > VEC_FORK)
    for (int64_t begin = 0; begin < a->n; begin += VEC_CHUNK) {
        int64_t end = vec_smaller(begin + VEC_CHUNK, a->n);
        if (vec_is_bf16(a->dt)) {
            add_chunk(a->x, a->sums, begin, end, a->fixed, TRI_BF16);
        } else {
            add_chunk(a->x, a->sums, begin, end, a->fixed, TRI_F32);
        }
    }
}

/* On one thread and from the first element on: the results may take the place of the sums. */
static void get(const int64_t *sums, float *y, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        int64_t units;
        memcpy(&units, sums + i, sizeof(units));
        float value = (float)units * (1.0f / (float)((int64_t)1 << TRI_FIXED_BITS));
        memcpy(y + i, &value, sizeof(value));
    }
}

static void fixed_get(const struct tri_kernels *self, const struct tri_fixed_get_args *a)
{
    (void)self;
    get(a->sums, a->y, a->n);
}

static void fixed_squares(const struct tri_kernels *self, const struct tri_fixed_get_args *a)
{
    enum { PIECE = 4096 };
#pragma omp parallel for num_threads(self->threads) schedule(static) if (a->n > PIECE)
    for (int64_t at = 0; at < a->n; at += PIECE) {
        float values[PIECE];
        struct tri_exact own = {0};
        int64_t count = vec_smaller(a->n - at, PIECE);
        get(a->sums + at, values, count);
        tri_exact_add_squares(&own, values, count);
#pragma omp critical
        tri_exact_merge(a->exact, &own);
    }
}

void VEC_NAME(tri_vec_fill_fixed)(struct tri_kernels *table)
{
    table->fixed_add = fixed_add;
    table->fixed_get = fixed_get;
    table->fixed_squares = fixed_squares;
}
