/* Two objects of kernels at once, each of a thread of its own, do not see each other. */
#include "base/memory.h"
#include "base/runtime.h"
#include "kernel/kernel.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

enum { N = 160, SEQ = 96, HEADS = 4, DIM = 40, WIDE = HEADS * DIM, ROUNDS = 20, RANKS = 2 };

/* ThreadSanitizer does not see how OpenMP's threads wait for each other, and that is not asked
 * here. */
#ifdef __SANITIZE_THREAD__
enum { ONE_THREAD = 1 };
#else
enum { ONE_THREAD = 0 };
#endif

/* What one thread works on, with kernels of its own. */
struct rank {
    enum tri_kernels_kind kind;
    int threads;
    struct tri_runtime *runtime;
    struct tri_memory_counters counters;
    float a[N * N], b[N * N], c[N * N], grouped[3][N * N];
    float q[SEQ * WIDE], out[SEQ * WIDE], lse[SEQ * HEADS];
    float dout[SEQ * WIDE], dq[SEQ * WIDE], dk[SEQ * WIDE], dv[SEQ * WIDE];
    float sum, norm[N * N], stats[2 * N];
};

static void draw(float *x, int count, uint32_t seed)
{
    for (int i = 0; i < count; i++) {
        seed = seed * 1664525U + 1013904223U;
        x[i] = (float)(seed >> 8) * 0x1p-23F - 1.0F;
    }
}

static void compute(const struct tri_kernels *kernels, struct rank *r)
{
    struct tri_matmul product = {
        .m = N, .n = N, .k = N, .a = r->a, .b = r->b, .c = r->c, .lda = N, .ldb = N, .ldc = N};
    struct tri_matmul group[3];
    for (int i = 0; i < 3; i++) {
        group[i] = product;
        group[i].m = N - 50 * i;
        group[i].c = r->grouped[i];
    }
    const struct tri_attention attention = {
        .batch = 1,
        .q_len = SEQ,
        .k_len = SEQ,
        .heads = HEADS,
        .kv_heads = HEADS,
        .dim = DIM,
        .group = 1,
        .scale = 0.2,
        .q = r->q,
        .k = r->q,
        .v = r->dout,
        .ld_q = WIDE,
        .ld_k = WIDE,
        .ld_v = WIDE,
        .out = r->out,
        .ld_out = WIDE,
        .lse = r->lse,
        .dout = r->dout,
        .ld_dout = WIDE,
        .dq = r->dq,
        .dk = r->dk,
        .dv = r->dv,
        .ld_dq = WIDE,
        .ld_dk = WIDE,
        .ld_dv = WIDE,
    };
    const struct tri_norm_args norm = {
        .rms = true,
        .n = N,
        .width = N,
        .x = r->a,
        .weight = r->b,
        .stats = r->stats,
        .epsilon = 1e-5,
        .y = r->norm,
    };
    kernels->matmul(kernels, &product);
    kernels->matmul_grouped(kernels, group, 3);
    kernels->attention_forward(kernels, &attention);
    kernels->attention_backward(kernels, &attention);
    kernels->norm_forward(kernels, &norm);
    r->sum = (float)kernels->sum_squares(kernels, &(struct tri_squares_args){.x = r->c, .n = N});
}

static void rank_init(struct rank *r, int index)
{
    memset(r, 0, sizeof(*r));
    r->kind = index == 0 ? TRI_KERNELS_FAST : TRI_KERNELS_REPRODUCIBLE;
    r->threads = ONE_THREAD ? 1 : 3 - index;
    draw(r->a, N * N, 1 + (uint32_t)index);
    draw(r->b, N * N, 3 + (uint32_t)index);
    draw(r->q, SEQ * WIDE, 5 + (uint32_t)index);
    draw(r->dout, SEQ * WIDE, 7 + (uint32_t)index);
}

/* Objects that come and go, as many rounds as it takes for the threads to meet. */
static void *work(void *state)
{
    struct rank *r = state;
    tri_runtime_bind(r->runtime);
    for (int round = 0; round < ROUNDS; round++) {
        struct tri_kernels *kernels = tri_kernels_create(r->kind, NULL, r->threads);
        compute(kernels, r);
        compute(kernels, r);
        tri_kernels_destroy(kernels);
    }
    r->counters = tri_memory_get();
    return NULL;
}

static void test_two(void **state)
{
    (void)state;
    struct rank *alone = tri_alloc(TRI_MEMORY_OTHER, RANKS * sizeof(*alone));
    struct rank *both = tri_alloc(TRI_MEMORY_OTHER, RANKS * sizeof(*both));
    pthread_t thread[RANKS];
    for (int i = 0; i < RANKS; i++) {
        rank_init(&alone[i], i);
        rank_init(&both[i], i);
        struct tri_kernels *kernels = tri_kernels_create(alone[i].kind, NULL, alone[i].threads);
        compute(kernels, &alone[i]);
        tri_kernels_destroy(kernels);
        both[i].runtime = tri_runtime_create(i);
    }
    for (int i = 0; i < RANKS; i++) {
        assert_int_equal(pthread_create(&thread[i], NULL, work, &both[i]), 0);
    }
    for (int i = 0; i < RANKS; i++) {
        assert_int_equal(pthread_join(thread[i], NULL), 0);
        const size_t from = offsetof(struct rank, a);
        assert_memory_equal((char *)&both[i] + from, (char *)&alone[i] + from,
                            sizeof(*both) - from);
        /* Each counts its own, whichever thread took it, and nothing is left. */
        assert_true(both[i].counters.peak[TRI_MEMORY_KERNELS] > 0);
        assert_int_equal(both[i].counters.current[TRI_MEMORY_KERNELS], 0);
        tri_runtime_destroy(both[i].runtime);
    }
    tri_free(alone);
    tri_free(both);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_two)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
