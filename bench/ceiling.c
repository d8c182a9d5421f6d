#include "ceiling.h"

#include "base/clock.h"

#include <cpuid.h>
#include <immintrin.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Enough independent sums to fill the pipelines: 12 of AVX2's 16 registers, 24 of AVX-512's 32. */
#define TWELVE(F) F(0) F(1) F(2) F(3) F(4) F(5) F(6) F(7) F(8) F(9) F(10) F(11)
#define TWENTY_FOUR(F)                                                                             \
    TWELVE(F)                                                                                      \
    F(12) F(13) F(14) F(15) F(16) F(17) F(18) F(19) F(20) F(21) F(22) F(23)

static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool has_avx512(void)
{
    return __builtin_cpu_supports("avx512f");
}

static bool has_bf16(void)
{
    unsigned a, b, c, d;
    return has_avx512() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 5 & 1);
}

/* AMX needs the kernel's leave for its tile registers (Linux: arch_prctl ARCH_REQ_XCOMP_PERM). */
static bool has_amx(void)
{
    enum { REQUEST = 0x1023, TILE_DATA = 18 };
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 22 & 1) && (d >> 24 & 1) &&
           syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
}

#define CLEAR(i)    sums[i] = _mm256_setzero_ps();
#define MULTIPLY(i) __asm__ volatile("vfmadd213ps %2,%1,%0" : "+x"(sums[i]) : "x"(x), "x"(y));
#define KEEP(i)     __asm__ volatile("" ::"x"(sums[i]));
__attribute__((target("avx2,fma"))) static double run_avx2(int64_t n)
{
    __m256 sums[12];
    __m256 x = _mm256_set1_ps(1.0f);
    __m256 y = _mm256_setzero_ps();
    TWELVE(CLEAR)
    double start = tri_clock_now();
    for (int64_t k = 0; k < n; k++) {
        TWELVE(MULTIPLY)
    }
    double seconds = tri_clock_now() - start;
    TWELVE(KEEP)
    return 12.0 * 16.0 * (double)n / seconds;
}
#undef CLEAR
#undef MULTIPLY
#undef KEEP

#define CLEAR(i) sums[i] = _mm512_setzero_ps();
#define KEEP(i)  __asm__ volatile("" ::"v"(sums[i]));

#define MULTIPLY(i) __asm__ volatile("vfmadd213ps %2,%1,%0" : "+v"(sums[i]) : "v"(x), "v"(y));
__attribute__((target("avx512f"))) static double run_avx512(int64_t n)
{
    __m512 sums[24];
    __m512 x = _mm512_set1_ps(1.0f);
    __m512 y = _mm512_setzero_ps();
    TWENTY_FOUR(CLEAR)
    double start = tri_clock_now();
    for (int64_t k = 0; k < n; k++) {
        TWENTY_FOUR(MULTIPLY)
    }
    double seconds = tri_clock_now() - start;
    TWENTY_FOUR(KEEP)
    return 24.0 * 32.0 * (double)n / seconds;
}
#undef MULTIPLY

#define MULTIPLY(i) __asm__ volatile("vdpbf16ps %2,%1,%0" : "+v"(sums[i]) : "v"(ones), "v"(ones));
__attribute__((target("avx512f,avx512bf16"))) static double run_bf16(int64_t n)
{
    __m512 sums[24];
    __m512i ones = _mm512_set1_epi32(0x3f803f80);
    TWENTY_FOUR(CLEAR)
    double start = tri_clock_now();
    for (int64_t k = 0; k < n; k++) {
        TWENTY_FOUR(MULTIPLY)
    }
    double seconds = tri_clock_now() - start;
    TWENTY_FOUR(KEEP)
    return 24.0 * 64.0 * (double)n / seconds;
}
#undef CLEAR
#undef MULTIPLY
#undef KEEP

/* What _tile_loadconfig reads. */
struct tiles {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

__attribute__((target("amx-tile,amx-bf16"))) static double run_amx(int64_t n)
{
    struct tiles tiles = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        tiles.row_bytes[i] = 64;
        tiles.rows[i] = 16;
    }
    _tile_loadconfig(&tiles);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_zero(4);
    _tile_zero(5);
    _tile_zero(6);
    _tile_zero(7);
    double start = tri_clock_now();
    for (int64_t k = 0; k < n; k++) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    double seconds = tri_clock_now() - start;
    _tile_release();
    return 4.0 * 16.0 * 16.0 * 64.0 * (double)n / seconds;
}

const struct tri_ceiling_way tri_ceiling_ways[] = {
    {"f32 AVX2", true, has_avx2, run_avx2},
    {"f32 AVX-512", true, has_avx512, run_avx512},
    {"bf16 AVX-512", false, has_bf16, run_bf16},
    {"bf16 AMX", false, has_amx, run_amx},
    {NULL, false, NULL, NULL},
};

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

double tri_ceiling_measure(const struct tri_ceiling_way *way, int threads)
{
    enum { TAKES = 7, ROUNDS = 2500000 };
    double takes[TAKES];
    for (int i = 0; i < TAKES; i++) {
        double sum = 0.0;
#pragma omp parallel num_threads(threads) reduction(+ : sum)
        sum += way->run(ROUNDS);
        takes[i] = sum;
    }
    qsort(takes, TAKES, sizeof(*takes), compare);
    return takes[TAKES / 2] * 1e-9;
}

const struct tri_ceiling_way *tri_ceiling_best(bool bf16, int threads, double *gflops)
{
    const struct tri_ceiling_way *best = NULL;
    *gflops = 0.0;
    for (const struct tri_ceiling_way *way = tri_ceiling_ways; way->name; way++) {
        if ((bf16 || way->takes_f32) && way->can()) {
            double here = tri_ceiling_measure(way, threads);
            if (here > *gflops) {
                *gflops = here;
                best = way;
            }
        }
    }
    return best;
}
