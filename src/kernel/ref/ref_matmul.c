#include "kernel/ref/ref.h"

void tri_ref_matmul(const struct tri_matmul *product)
{
    const struct tri_matmul *p = product;
    enum tri_dtype stat = tri_stat_dtype(p->ab_dtype);
    int64_t a_row = p->a_transposed ? 1 : p->lda, a_step = p->a_transposed ? p->lda : 1;
    int64_t b_col = p->b_transposed ? p->ldb : 1, b_step = p->b_transposed ? 1 : p->ldb;
    for (int64_t i = 0; i < p->m; i++) {
        for (int64_t j = 0; j < p->n; j++) {
            double sum = p->bias ? ref_get(p->bias, j, stat) : 0.0;
            for (int64_t l = 0; l < p->k; l++) {
                sum += ref_get(p->a, i * a_row + l * a_step, p->ab_dtype) *
                       ref_get(p->b, j * b_col + l * b_step, p->ab_dtype);
            }
            if (p->accumulate) {
                ref_add(p->c, i * p->ldc + j, p->c_dtype, sum);
            } else {
                ref_set(p->c, i * p->ldc + j, p->c_dtype, sum);
            }
        }
    }
}

void tri_ref_matmul_grouped(const struct tri_matmul *products, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        tri_ref_matmul(&products[i]);
    }
}
