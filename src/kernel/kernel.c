#include "kernel/kernel.h"

#include "base/runtime.h"
#include "kernel/x86/onednn.h"
#include "kernel/x86/x86.h"

#include <omp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct tri_kernels tables[TRI_ISA_COUNT];
static struct tri_kernels
    mixed; /* the widest table with products through oneDNN where it is faster */
static const struct tri_kernels *widest; /* of this machine */
static const struct tri_kernels *chosen;
static char description[2][256]; /* of the table that runs, of the reproducible one */

static const char *const isa_names[TRI_ISA_COUNT] = {"x86-64", "avx2", "avx512"};

bool tri_x86_can_run(enum tri_isa isa)
{
    switch (isa) {
    case TRI_ISA_AVX512:
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("fma");
    case TRI_ISA_AVX2:
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case TRI_ISA_X86_64:
    case TRI_ISA_COUNT:
    default:
        return isa == TRI_ISA_X86_64;
    }
}

/* The widest set that the machine has and TRIDENT_KERNELS, when set, allows; TRI_ISA_COUNT for the
 * reference table. */
static enum tri_isa choose(void)
{
    const char *wanted = getenv("TRIDENT_KERNELS");
    if (wanted && strcmp(wanted, "ref") == 0) {
        return TRI_ISA_COUNT;
    }
    for (int isa = TRI_ISA_COUNT - 1; isa >= 0; isa--) {
        bool named = !wanted || strcmp(wanted, isa_names[isa]) == 0;
        if (named && tri_x86_can_run((enum tri_isa)isa)) {
            return (enum tri_isa)isa;
        }
    }
    tri_panic(TRI_BAD_INPUT,
              "TRIDENT_KERNELS=%s: not ref, x86-64, avx2 or avx512, or not on this processor",
              wanted);
}

static void read_processor(char *name, size_t size)
{
    snprintf(name, size, "unknown processor");
    FILE *file = fopen("/proc/cpuinfo", "r");
    if (!file) {
        return;
    }
    char line[512];
    while (fgets(line, sizeof(line), file)) {
        char *value = strstr(line, ": ");
        if (strncmp(line, "model name", strlen("model name")) == 0 && value) {
            value[strcspn(value, "\n")] = '\0';
            snprintf(name, size, "%s", value + 2);
            break;
        }
    }
    fclose(file);
}

/* "PROCESSOR: PATH"; the path has no colon. */
static void describe(enum tri_isa isa)
{
    char processor[128];
    read_processor(processor, sizeof(processor));
    for (int i = 0; i < 2; i++) {
        char *text = description[i];
        size_t size = sizeof(description[i]);
        bool bf16 = tri_onednn_bf16_is_fast();
        if (isa == TRI_ISA_COUNT) {
            snprintf(text, size, "%s: reference, in double", processor);
        } else if (i == 1 || chosen != &mixed) {
            snprintf(text, size, "%s: %s, own products", processor, isa_names[isa]);
        } else {
            snprintf(text, size, "%s: %s; products f32 oneDNN, bf16 %s", processor, isa_names[isa],
                     bf16 ? tri_onednn_isa() : "own kernel in f32 arithmetic");
        }
    }
}

static void matmul_grouped(const struct tri_kernels *self, const struct tri_matmul *products,
                           int64_t count)
{
    (void)self;
    bool own = count > 0 && (products->c_dtype == TRI_I64 ||
                             (products->ab_dtype == TRI_BF16 && !tri_onednn_bf16_is_fast()));
    if (own) {
        widest->matmul_grouped(widest, products, count);
    } else {
        tri_onednn_run(widest, products, count);
    }
}

static void matmul(const struct tri_kernels *self, const struct tri_matmul *product)
{
    matmul_grouped(self, product, 1);
}

/* A table that TRIDENT_KERNELS names is all our own; without a name the widest one runs, with its
 * products through oneDNN but for bf16 where that is slow. */
static void set_up(void)
{
    static void (*const fill[TRI_ISA_COUNT])(struct tri_kernels *) = {
        tri_vec_fill_x86_64, tri_vec_fill_avx2, tri_vec_fill_avx512};
    enum tri_isa isa = choose();
    for (int i = 0; i < TRI_ISA_COUNT; i++) {
        /* Filling in is itself compiled for the instruction set. */
        if (tri_x86_can_run((enum tri_isa)i)) {
            fill[i](&tables[i]);
            tables[i].name = isa_names[i];
        }
    }
    if (isa == TRI_ISA_COUNT) {
        chosen = tri_kernels_ref();
    } else if (getenv("TRIDENT_KERNELS") || isa == TRI_ISA_X86_64) {
        chosen = &tables[isa];
    } else {
        widest = &tables[isa];
        mixed = tables[isa];
        mixed.matmul = matmul;
        mixed.matmul_grouped = matmul_grouped;
        chosen = &mixed;
    }
    describe(isa);
}

const struct tri_kernels *tri_kernels_fast(void)
{
    pthread_once(&once, set_up);
    return chosen;
}

const struct tri_kernels *tri_kernels_reproducible(void)
{
    pthread_once(&once, set_up);
    return chosen == &mixed ? widest : chosen;
}

const struct tri_kernels *tri_x86_table(enum tri_isa isa)
{
    pthread_once(&once, set_up);
    return tri_x86_can_run(isa) ? &tables[isa] : NULL;
}

const char *tri_kernels_describe(bool reproducible)
{
    pthread_once(&once, set_up);
    return description[reproducible];
}

const char *tri_kernels_path(bool reproducible)
{
    return strrchr(tri_kernels_describe(reproducible), ':') + strlen(": ");
}

void tri_kernels_set_threads(int threads)
{
    omp_set_num_threads(threads);
    struct tri_runtime *runtime = tri_runtime_bound();
    if (runtime) {
#pragma omp parallel
        tri_runtime_bind(runtime);
    }
}

int tri_kernels_threads(void)
{
    return omp_get_max_threads();
}
