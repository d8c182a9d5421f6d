#include "kernel/x86/product.h"
#include "kernel/x86/x86.h"

bool tri_product_can_run(const struct tri_product_isa *isa)
{
    if (isa == &tri_product_avx512) {
        return tri_x86_can_run(TRI_ISA_AVX512);
    }
    return isa != &tri_product_avx2 || tri_x86_can_run(TRI_ISA_AVX2);
}
