/* Attention: the reference's backward against finite differences, every kernel that the machine can
 * run against the reference, and what callers rely on: bits that depend on nothing but the row. */
#include "kernel/pair.h"
#include "kernel/x86/x86.h"
#include "support/gradcheck.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

struct shape {
    int64_t batch, q_len, q_offset, heads, kv_heads, dim, first_head, first_kv, group;
    int masks; /* first_key: 0 none, 1 drawn, 2 drawn with rows that see nothing */
};

static const struct shape shapes[] = {
    {2, 5, 0, 2, 2, 8, 0, 0, 1, 0},     {1, 1, 0, 1, 1, 1, 0, 0, 1, 0},
    {1, 37, 0, 4, 2, 16, 0, 0, 2, 1},   {2, 33, 7, 3, 2, 20, 3, 1, 2, 2},
    {1, 140, 0, 2, 1, 64, 0, 0, 2, 0},  {1, 30, 100, 2, 1, 128, 2, 0, 4, 1},
    {3, 1, 150, 4, 2, 64, 0, 0, 2, 0},  {2, 1, 0, 2, 2, 33, 0, 0, 1, 0},
    {1, 13, 129, 2, 2, 7, 0, 0, 1, 2},  {1, 20, 3, 1, 1, 300, 0, 0, 1, 0},
    {0, 4, 0, 2, 2, 8, 0, 0, 1, 0},     {1, 0, 6, 2, 2, 8, 0, 0, 1, 0},
    {1, 100, 10, 1, 1, 16, 5, 2, 2, 1},
};
enum { SHAPES = sizeof(shapes) / sizeof(*shapes), MOST_ROWS = 512 };

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Everything that the two directions read and write, with gaps between rows. */
struct problem {
    struct pair q, k, v, out, lse, dout, dq, dk, dv;
    int32_t first_key[MOST_ROWS];
    struct tri_attention fast, ref;
};

static struct tri_attention arguments(struct shape s, enum tri_dtype dt)
{
    int64_t wide = s.heads * s.dim, narrow = s.kv_heads * s.dim;
    return (struct tri_attention){.batch = s.batch,
                                  .q_len = s.q_len,
                                  .k_len = s.q_len + s.q_offset,
                                  .q_offset = s.q_offset,
                                  .heads = s.heads,
                                  .kv_heads = s.kv_heads,
                                  .dim = s.dim,
                                  .first_head = s.first_head,
                                  .first_kv = s.first_kv,
                                  .group = s.group,
                                  .scale = 1.0 / sqrt((double)s.dim),
                                  .dt = dt,
                                  .ld_q = wide + 3,
                                  .ld_k = narrow + 1,
                                  .ld_v = narrow,
                                  .ld_out = wide + 1,
                                  .ld_dout = wide,
                                  .ld_dq = wide + 5,
                                  .ld_dk = narrow + 2,
                                  .ld_dv = narrow + 1};
}

static void point_at(struct tri_attention *a, const struct problem *p, bool fast)
{
    a->q = fast ? p->q.fast : p->q.ref;
    a->k = fast ? p->k.fast : p->k.ref;
    a->v = fast ? p->v.fast : p->v.ref;
    a->out = fast ? p->out.fast : p->out.ref;
    a->lse = fast ? p->lse.fast : p->lse.ref;
    a->dout = fast ? p->dout.fast : p->dout.ref;
    a->dq = fast ? p->dq.fast : p->dq.ref;
    a->dk = fast ? p->dk.fast : p->dk.ref;
    a->dv = fast ? p->dv.fast : p->dv.ref;
}

static void problem_init(struct problem *p, struct shape s, enum tri_dtype dt)
{
    struct tri_attention a = arguments(s, dt);
    int64_t rows = s.batch * s.q_len, keys = s.batch * a.k_len;
    assert_true(rows <= MOST_ROWS);
    p->q = pair_create(dt, rows * a.ld_q, 2.0);
    p->k = pair_create(dt, keys * a.ld_k, 2.0);
    p->v = pair_create(dt, keys * a.ld_v, 1.0);
    p->out = pair_create(dt, rows * a.ld_out, 1.0);
    p->lse = pair_create(tri_stat_dtype(dt), rows * s.heads, 1.0);
    p->dout = pair_create(dt, rows * a.ld_dout, 1.0);
    p->dq = pair_create(dt, rows * a.ld_dq, 1.0);
    p->dk = pair_create(dt, keys * a.ld_dk, 1.0);
    p->dv = pair_create(dt, keys * a.ld_dv, 1.0);
    for (int64_t i = 0; i < rows; i++) {
        int64_t seen = s.q_offset + i % s.q_len + 1;
        p->first_key[i] = (int32_t)(i * 7919 % (seen + (s.masks == 2 ? 1 : 0)));
    }
    a.first_key = s.masks ? p->first_key : NULL;
    p->fast = p->ref = a;
    point_at(&p->fast, p, true);
    point_at(&p->ref, p, false);
}

static void problem_end(struct problem *p, double absolute)
{
    pair_end(&p->out, "out", 8, absolute);
    pair_end(&p->lse, "lse", 8, 2e-6);
    pair_end(&p->dq, "dq", 8, 8.0 * absolute);
    pair_end(&p->dk, "dk", 8, 8.0 * absolute);
    pair_end(&p->dv, "dv", 8, 8.0 * absolute);
    pair_end(&p->q, "q", 0, 0);
    pair_end(&p->k, "k", 0, 0);
    pair_end(&p->v, "v", 0, 0);
    pair_end(&p->dout, "dout", 0, 0);
}

static void check_shapes(const struct tri_kernels *fast, enum tri_dtype dt)
{
    const struct tri_kernels *ref = tri_kernels_ref();
    for (int i = 0; i < SHAPES; i++) {
        static struct problem p;
        problem_init(&p, shapes[i], dt);
        fast->attention_forward(fast, &p.fast);
        ref->attention_forward(ref, &p.ref);
        /* The backward is held to the reference from the same forward. */
        p.fast.out = p.out.ref;
        p.fast.lse = p.lse.ref;
        fast->attention_backward(fast, &p.fast);
        ref->attention_backward(ref, &p.ref);
        problem_end(&p, 3e-6);
    }
}

static void test_shapes(void **state)
{
    (void)state;
    pair_each_table(check_shapes);
}

/* Scores in the thousands: nothing overflows, and the largest takes all. */
static void check_large_scores(const struct tri_kernels *fast, enum tri_dtype dt)
{
    static struct problem p;
    problem_init(&p, (struct shape){1, 40, 0, 1, 1, 16, 0, 0, 1, 0}, dt);
    p.fast.scale = p.ref.scale = 4096.0;
    fast->attention_forward(fast, &p.fast);
    tri_kernels_ref()->attention_forward(tri_kernels_ref(), &p.ref);
    for (int64_t i = 0; i < 40; i++) {
        double lse = pair_get(&p.lse, i);
        double most = 4096.0 * 16.0; /* terms of this size may cancel */
        assert_true(isfinite(lse) &&
                    fabs((double)((float *)p.lse.fast)[i] - lse) <= 1e-5 * fabs(lse) + 2e-7 * most);
    }
    memcpy(p.out.fast, p.out.ref, (size_t)p.out.count * tri_dtype_size(dt));
    memcpy(p.lse.fast, p.lse.ref, (size_t)p.lse.count * sizeof(float));
    problem_end(&p, 0);
}

static void test_large_scores(void **state)
{
    (void)state;
    pair_each_table(check_large_scores);
}

struct call {
    struct problem *problem;
    enum tri_dtype dt;
};

static void both_directions(const struct tri_kernels *fast, void *context)
{
    struct call *call = context;
    fast->attention_forward(fast, &call->problem->fast);
    fast->attention_backward(fast, &call->problem->fast);
}

/* Runs one head, or one sequence, of the whole problem; its results go over the reference's
 * sides. */
static void run_part(const struct tri_kernels *fast, struct problem *p, enum tri_dtype dt,
                     int64_t sequence, int64_t kv)
{
    size_t size = tri_dtype_size(dt);
    struct tri_attention a = p->fast;
    int64_t row = sequence * a.q_len, key = sequence * a.k_len, head = kv * a.group;
    size_t wide = (size_t)(head * a.dim), narrow = (size_t)(kv * a.dim);
    float lse[MOST_ROWS];
    a.batch = 1;
    a.heads = smaller(a.group, a.heads - head);
    a.kv_heads = 1;
    a.first_head = head;
    a.first_kv = kv;
    a.first_key += row;
    a.q = (const char *)p->q.ref + ((size_t)(row * a.ld_q) + wide) * size;
    a.k = (const char *)p->k.ref + ((size_t)(key * a.ld_k) + narrow) * size;
    a.v = (const char *)p->v.ref + ((size_t)(key * a.ld_v) + narrow) * size;
    a.dout = (const char *)p->dout.ref + ((size_t)(row * a.ld_dout) + wide) * size;
    a.out = (char *)p->out.ref + ((size_t)(row * a.ld_out) + wide) * size;
    a.dq = (char *)p->dq.ref + ((size_t)(row * a.ld_dq) + wide) * size;
    a.dk = (char *)p->dk.ref + ((size_t)(key * a.ld_dk) + narrow) * size;
    a.dv = (char *)p->dv.ref + ((size_t)(key * a.ld_dv) + narrow) * size;
    a.lse = lse;
    fast->attention_forward(fast, &a);
    fast->attention_backward(fast, &a);
    for (int64_t i = 0; i < a.q_len; i++) {
        for (int64_t h = 0; h < a.heads; h++) {
            ((float *)p->lse.ref)[(row + i) * p->fast.heads + head + h] = lse[i * a.heads + h];
        }
    }
}

/* The same bits on any number of threads, and when heads and sequences come one by one. */
static void check_bits(const struct tri_kernels *fast, enum tri_dtype dt)
{
    static struct problem p;
    const struct shape s = {2, 130, 20, 4, 2, 20, 0, 0, 2, 1};
    problem_init(&p, s, dt);
    struct pair *outputs[] = {&p.out, &p.lse, &p.dq, &p.dk, &p.dv};
    struct call call = {&p, dt};
    pair_same_on_threads(fast, outputs, 5, both_directions, &call);
    for (int64_t sequence = 0; sequence < s.batch; sequence++) {
        for (int64_t kv = 0; kv < s.kv_heads; kv++) {
            run_part(fast, &p, dt, sequence, kv);
        }
    }
    both_directions(fast, &call);
    problem_end(&p, 0);
}

static void test_bits(void **state)
{
    (void)state;
    pair_each_table(check_bits);
}

/* Decoding: the last row alone has the bits that it has among all rows. */
static void check_decoding(const struct tri_kernels *fast, enum tri_dtype dt)
{
    static struct problem p;
    const struct shape s = {1, 150, 0, 4, 2, 64, 0, 0, 2, 0};
    problem_init(&p, s, dt);
    fast->attention_forward(fast, &p.fast);
    size_t size = tri_dtype_size(dt), bytes = (size_t)(s.heads * s.dim) * size;
    for (int64_t row = 0; row < s.q_len; row += 37) {
        struct tri_attention a = p.fast;
        char out[4 * 64 * 4];
        float lse[4];
        a.q = (const char *)a.q + (size_t)(row * a.ld_q) * size;
        a.q_len = 1;
        a.q_offset = row;
        a.k_len = row + 1;
        a.out = out;
        a.lse = lse;
        fast->attention_forward(fast, &a);
        assert_memory_equal(out, (char *)p.out.fast + (size_t)(row * a.ld_out) * size, bytes);
        assert_memory_equal(lse, (float *)p.lse.fast + row * s.heads, sizeof(lse));
    }
    tri_kernels_ref()->attention_forward(tri_kernels_ref(), &p.ref);
    problem_end(&p, 3e-6);
}

static void test_decoding(void **state)
{
    (void)state;
    pair_each_table(check_decoding);
}

/* sum(dout * out) of the reference, in double: its gradients are what the backward computes. */
static double weighted_output(void *context)
{
    struct problem *p = context;
    tri_kernels_ref()->attention_forward(tri_kernels_ref(), &p->ref);
    double sum = 0.0;
    for (int64_t row = 0; row < p->ref.batch * p->ref.q_len; row++) {
        for (int64_t c = 0; c < p->ref.heads * p->ref.dim; c++) {
            sum += pair_get(&p->out, row * p->ref.ld_out + c) *
                   pair_get(&p->dout, row * p->ref.ld_dout + c);
        }
    }
    return sum;
}

static void check_gradient(struct problem *p, struct pair *values, int64_t ld,
                           struct pair *gradient, int64_t ld_gradient, int64_t rows, int64_t width)
{
    for (int64_t row = 0; row < rows; row++) {
        double *at = (double *)values->ref + row * ld;
        const double *of = (const double *)gradient->ref + row * ld_gradient;
        double worst = tri_gradcheck_worst(weighted_output, p, at, of, width, 1e-5);
        assert_true(worst <= 2e-8);
    }
}

static void test_gradients(void **state)
{
    (void)state;
    const struct shape cases[] = {{2, 4, 0, 2, 2, 3, 0, 0, 1, 1}, {1, 3, 2, 3, 2, 2, 3, 1, 2, 2}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        static struct problem p;
        problem_init(&p, cases[i], TRI_F64);
        struct tri_attention *a = &p.ref;
        tri_kernels_ref()->attention_forward(tri_kernels_ref(), a);
        tri_kernels_ref()->attention_backward(tri_kernels_ref(), a);
        int64_t rows = a->batch * a->q_len, keys = a->batch * a->k_len;
        check_gradient(&p, &p.q, a->ld_q, &p.dq, a->ld_dq, rows, a->heads * a->dim);
        check_gradient(&p, &p.k, a->ld_k, &p.dk, a->ld_dk, keys, a->kv_heads * a->dim);
        check_gradient(&p, &p.v, a->ld_v, &p.dv, a->ld_dv, keys, a->kv_heads * a->dim);
        struct pair *const all[] = {&p.q, &p.k, &p.v, &p.out, &p.lse, &p.dout, &p.dq, &p.dk, &p.dv};
        for (size_t j = 0; j < sizeof(all) / sizeof(*all); j++) {
            memcpy(all[j]->fast, all[j]->ref, (size_t)all[j]->count * sizeof(double));
            pair_end(all[j], "equal by now", 0, 0);
        }
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients),    cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_large_scores), cmocka_unit_test(test_bits),
        cmocka_unit_test(test_decoding),
    };
    return pair_run(tests, sizeof(tests) / sizeof(*tests), argc, argv);
}
