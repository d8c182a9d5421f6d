#include "kernel/kernel.h"

#include "base/memory.h"
#include "base/processors.h"
#include "base/runtime.h"
#include "base/trace.h"
#include "kernel/own.h"
#include "kernel/x86/attention.h"
#include "kernel/x86/onednn.h"
#include "kernel/x86/scratch.h"
#include "kernel/x86/x86.h"

#include <omp.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    void (*fill)(struct tri_kernels *table);
    const struct tri_attention_isa *attention;
} sets[TRI_ISA_COUNT] = {
    [TRI_ISA_X86_64] = {"x86-64", tri_vec_fill_x86_64, &tri_attention_x86_64},
    [TRI_ISA_AVX2] = {"avx2", tri_vec_fill_avx2, &tri_attention_avx2},
    [TRI_ISA_AVX512] = {"avx512", tri_vec_fill_avx512, &tri_attention_avx512},
};

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

const char *tri_x86_name(enum tri_isa isa)
{
    return sets[isa].name;
}

/* ---- what runs ------------------------------------------------------------------------------- */

static bool is_reference(const char *path)
{
    return path && strcmp(path, "ref") == 0;
}

/* The widest set that the machine has and path, when given, allows; TRI_ISA_COUNT when there is
 * none. */
static enum tri_isa choose(const char *path)
{
    for (int isa = TRI_ISA_COUNT - 1; isa >= 0; isa--) {
        if ((!path || strcmp(path, sets[isa].name) == 0) && tri_x86_can_run((enum tri_isa)isa)) {
            return (enum tri_isa)isa;
        }
    }
    return TRI_ISA_COUNT;
}

/* A set that was named is all our own; without a name the widest one runs, with its products
 * through oneDNN but for bf16 where that is slow. */
static bool uses_onednn(const char *path, bool reproducible)
{
    return !path && !reproducible && choose(path) != TRI_ISA_X86_64;
}

enum tri_status tri_kernels_check(const char *path, struct tri_error *error)
{
    if (is_reference(path) || choose(path) != TRI_ISA_COUNT) {
        return TRI_OK;
    }
    return tri_fail(error, TRI_BAD_INPUT,
                    "TRIDENT_KERNELS=%s: not ref, x86-64, avx2 or avx512, or not on this processor",
                    path);
}

void tri_kernels_path(const char *path, bool reproducible, char text[TRI_KERNELS_TEXT])
{
    enum tri_isa isa = choose(path);
    if (isa == TRI_ISA_COUNT) {
        (void)snprintf(text, TRI_KERNELS_TEXT, "%s",
                       is_reference(path) ? "reference, in double" : "none");
    } else if (!uses_onednn(path, reproducible)) {
        (void)snprintf(text, TRI_KERNELS_TEXT, "%s, own products", tri_x86_name(isa));
    } else {
        (void)snprintf(
            text, TRI_KERNELS_TEXT, "%s; products f32 oneDNN, bf16 %s", tri_x86_name(isa),
            tri_onednn_bf16_is_fast() ? tri_onednn_isa() : "own kernel in f32 arithmetic");
    }
}

static void read_processor(char *name, size_t size)
{
    snprintf(name, size, "unknown processor");
    FILE *file = fopen("/proc/cpuinfo", "re");
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

void tri_kernels_describe(const char *path, bool reproducible, char text[TRI_KERNELS_TEXT])
{
    char processor[128];
    char what[TRI_KERNELS_TEXT];
    read_processor(processor, sizeof(processor));
    tri_kernels_path(path, reproducible, what);
    (void)snprintf(text, TRI_KERNELS_TEXT, "%s: %.*s", processor,
                   TRI_KERNELS_TEXT - (int)sizeof(processor) - 3, what);
}

/* ---- the object ------------------------------------------------------------------------------ */

static void matmul_grouped(const struct tri_kernels *self, const struct tri_matmul *products,
                           int64_t count)
{
    bool own = count > 0 && (products->c_dtype == TRI_I64 ||
                             (products->ab_dtype == TRI_BF16 && !tri_onednn_bf16_is_fast()));
    if (own) {
        self->own->matmul_grouped(self, products, count);
    } else {
        tri_onednn_run(self, products, count);
    }
}

static void matmul(const struct tri_kernels *self, const struct tri_matmul *product)
{
    matmul_grouped(self, product, 1);
}

static void fill_fast(struct tri_kernels *kernels, enum tri_kernels_kind kind, const char *path,
                      int threads)
{
    enum tri_isa isa = choose(path);
    bool reproducible = kind == TRI_KERNELS_REPRODUCIBLE;
    sets[isa].fill(kernels);
    kernels->name = tri_x86_name(isa);
    kernels->reproducible = !uses_onednn(path, reproducible);
    kernels->own->scratch = tri_scratch_create(threads);
    if (!kernels->reproducible) {
        kernels->own->onednn = tri_onednn_create();
        kernels->own->matmul_grouped = kernels->matmul_grouped;
        kernels->matmul = matmul;
        kernels->matmul_grouped = matmul_grouped;
    }
}

/* The first region of a thread is where libgomp binds it and its team to processors; they may run
 * wherever the calling thread may, and work for the same rank. */
static void bind_threads(int threads)
{
    struct tri_runtime *runtime = tri_runtime_bound();
    if (runtime) {
#pragma omp parallel num_threads(threads)
        {
            tri_runtime_bind(runtime);
            tri_processors_open();
        }
    }
}

int tri_kernels_join(const struct tri_kernels *self)
{
    int thread = omp_get_level() > 0 ? omp_get_ancestor_thread_num(1) : 0;
    if (thread > 0 && tri_runtime_bound() != self->own->runtime) {
        tri_runtime_bind(self->own->runtime);
        tri_processors_open();
    }
    return thread;
}

double tri_kernels_enter(void)
{
    return omp_get_num_threads() > 1 ? tri_trace_begin() : 0.0;
}

void tri_kernels_leave(double began, const char *name)
{
    tri_trace_end_of_thread(omp_get_thread_num(), began, name);
}

struct tri_kernels *tri_kernels_create(enum tri_kernels_kind kind, const char *path, int threads)
{
    struct tri_error error;
    if (tri_kernels_check(path, &error) != TRI_OK) {
        tri_panic(TRI_BAD_INPUT, "%s", error.message);
    }
    TRI_REQUIRE(threads > 0);
    struct tri_kernels *kernels = tri_alloc(TRI_MEMORY_KERNELS, sizeof(*kernels));
    struct tri_kernels_own *own = tri_alloc(TRI_MEMORY_KERNELS, sizeof(*own));
    own->runtime = tri_runtime_bound();
    if (kind == TRI_KERNELS_DRY) {
        tri_dry_fill(kernels);
        own->counted = is_reference(path) ? NULL : sets[choose(path)].attention;
        own->counted_threads = threads;
        kernels->own = own;
        return kernels;
    }
    if (is_reference(path)) {
        *kernels = *tri_kernels_ref();
        kernels->own = own;
    } else {
        kernels->own = own;
        fill_fast(kernels, kind, path, threads);
    }
    kernels->threads = threads;
    bind_threads(threads);
    return kernels;
}

void tri_kernels_destroy(struct tri_kernels *kernels)
{
    if (kernels) {
        tri_onednn_destroy(kernels->own->onednn);
        tri_scratch_destroy(kernels->own->scratch, kernels->threads);
        tri_kernels_destroy(kernels->own->notes);
        tri_free(kernels->own);
        tri_free(kernels);
    }
}
