#include "kernel/ref/ref.h"

#include "base/work.h"

/* Element (i, j) of the product over steps [begin, end) of k. */
static double element(const struct tri_matmul *p, int64_t i, int64_t j, int64_t begin, int64_t end)
{
    int64_t a_row = p->a_transposed ? 1 : p->lda, a_step = p->a_transposed ? p->lda : 1;
    int64_t b_col = p->b_transposed ? p->ldb : 1, b_step = p->b_transposed ? 1 : p->ldb;
    double sum = p->bias ? ref_get(p->bias, j, tri_stat_dtype(p->ab_dtype)) : 0.0;
    for (int64_t l = begin; l < end; l++) {
        sum += ref_get(p->a, i * a_row + l * a_step, p->ab_dtype) *
               ref_get(p->b, j * b_col + l * b_step, p->ab_dtype);
    }
    return sum;
}

static void add_parts(const struct tri_kernels *self, const struct tri_matmul *p, int64_t i,
                      int64_t j)
{
    const int64_t whole[2] = {0, p->k};
    const int64_t *cuts = p->cuts ? p->cuts : whole;
    for (int64_t part = 0; part < (p->cuts ? p->parts : 1); part++) {
        float term = (float)element(p, i, j, cuts[part], cuts[part + 1]);
        const struct tri_fixed_add_args args = {
            .x = &term,
            .sums = (int64_t *)p->c + i * p->ldc + j,
            .n = 1,
            .fixed = p->fixed,
            .dt = TRI_F32,
        };
        tri_ref_fixed_add(self, &args);
    }
}

void tri_ref_matmul(const struct tri_kernels *self, const struct tri_matmul *product)
{
    const struct tri_matmul *p = product;
    for (int64_t i = 0; i < p->m; i++) {
        tri_work_progress();
        for (int64_t j = 0; j < p->n; j++) {
            if (p->c_dtype == TRI_I64) {
                add_parts(self, p, i, j);
            } else if (p->accumulate) {
                ref_add(p->c, i * p->ldc + j, p->c_dtype, element(p, i, j, 0, p->k));
            } else {
                ref_set(p->c, i * p->ldc + j, p->c_dtype, element(p, i, j, 0, p->k));
            }
        }
    }
}

void tri_ref_matmul_grouped(const struct tri_kernels *self, const struct tri_matmul *products,
                            int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        tri_ref_matmul(self, &products[i]);
    }
}
