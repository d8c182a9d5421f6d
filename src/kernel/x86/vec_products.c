/* Products and attention of one table: which kernels it has them computed with. */
#include "kernel/x86/attention.h"
#include "kernel/x86/product.h"
#include "kernel/x86/vec.h"

static void matmul_grouped(const struct tri_matmul *products, int64_t count)
{
    const struct tri_product_isa *isa = &VEC_NAME(tri_product);
#if defined(__AVX512F__)
    if (count > 0 && products->ab_dtype == TRI_BF16) {
        isa = tri_product_bf16_on_avx512();
    }
#endif
    tri_product_run(isa, products, count);
}

static void matmul(const struct tri_matmul *product)
{
    matmul_grouped(product, 1);
}

static void attention_forward(const struct tri_attention *args, enum tri_dtype dt)
{
    tri_attention_run(&VEC_NAME(tri_attention), args, dt, false);
}

static void attention_backward(const struct tri_attention *args, enum tri_dtype dt)
{
    tri_attention_run(&VEC_NAME(tri_attention), args, dt, true);
}

void VEC_NAME(tri_vec_fill_products)(struct tri_kernels *table)
{
    table->matmul = matmul;
    table->matmul_grouped = matmul_grouped;
    table->attention_forward = attention_forward;
    table->attention_backward = attention_backward;
}
