/* What multiplies bf16 on this machine. Of the three ways that AVX-512 machines have, AMX is the
 * fastest where there is one; the dot of pairs does twice the work of an f32 FMA on AMD's cores, but
 * half of it on Intel's, which multiply bf16 faster as f32. */
#include "kernel/x86/product.h"
#include "kernel/x86/x86.h"

#include <cpuid.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool has_dot, has_amx;

/* The system hands out the tiles' state on request only. */
static bool request_tiles(void)
{
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}

static void detect(void)
{
    enum { AMX_BF16 = 1 << 22, AMX_TILE = 1 << 24 };
    unsigned a = 0, b = 0, c = 0, d = 0;
    bool avx512 = tri_x86_can_run(TRI_ISA_AVX512);
    has_dot = avx512 && __builtin_cpu_supports("avx512bf16");
    has_amx = has_dot && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & AMX_BF16) &&
              (d & AMX_TILE) && request_tiles();
}

bool tri_product_can_run(const struct tri_product_isa *isa)
{
    pthread_once(&once, detect);
    if (isa == &tri_product_amx || isa == &tri_product_avx512_bf16) {
        return isa == &tri_product_amx ? has_amx : has_dot;
    }
    bool avx2 = isa != &tri_product_avx2 || tri_x86_can_run(TRI_ISA_AVX2);
    return avx2 && (isa != &tri_product_avx512 || tri_x86_can_run(TRI_ISA_AVX512));
}

const struct tri_product_isa *tri_product_bf16_on_avx512(void)
{
    if (tri_product_can_run(&tri_product_amx)) {
        return &tri_product_amx;
    }
    bool dot = tri_product_can_run(&tri_product_avx512_bf16) && __builtin_cpu_is("amd");
    return dot ? &tri_product_avx512_bf16 : &tri_product_avx512;
}
