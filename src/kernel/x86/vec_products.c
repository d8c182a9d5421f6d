/* Products and attention of one table: which kernels it has them computed with. */
#include "kernel/x86/attention.h"
#include "kernel/x86/product.h"
#include "kernel/x86/vec.h"

static void matmul_grouped(const struct tri_kernels *self, const struct tri_matmul *products,
                           int64_t count)
{
    tri_product_run(self, &VEC_NAME(tri_product), products, count);
}

static void matmul(const struct tri_kernels *self, const struct tri_matmul *product)
{
    matmul_grouped(self, product, 1);
}

static void attention_forward(const struct tri_kernels *self, const struct tri_attention *args)
{
    tri_attention_run(self, &VEC_NAME(tri_attention), args, false);
}

static void attention_backward(const struct tri_kernels *self, const struct tri_attention *args)
{
    tri_attention_run(self, &VEC_NAME(tri_attention), args, true);
}

void VEC_NAME(tri_vec_fill_products)(struct tri_kernels *table)
{
    table->matmul = matmul;
    table->matmul_grouped = matmul_grouped;
    table->attention_forward = attention_forward;
    table->attention_backward = attention_backward;
}
