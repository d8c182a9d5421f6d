/* Activations and the exponential inside them: the fast tables against the reference. */
#include "kernel/pair.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static const char *const names[] = {"swiglu", "gelu_tanh", "gelu_erf"};

/* Values that decide whether tails, signs, overflow and NaN come out right. Infinities stay out of
 * the backward, where the textbook formula itself gives inf * 0. */
static const double extremes[] = {0.0,  -0.0,  1e-30, -1e-30, 1e-4,  -1e-4, 5.0,
                                  -5.0, 12.5,  -12.5, 40.0,   -40.0, 87.0,  -87.0,
                                  90.0, -90.0, 1e10,  -1e10,  1e30,  -1e30};
enum { EXTREMES = sizeof(extremes) / sizeof(*extremes) };

static void run(const struct tri_kernels *fast, enum tri_dtype dt, enum tri_activation kind,
                int64_t n, int64_t width, bool extreme)
{
    const struct tri_kernels *ref = tri_kernels_ref();
    int64_t factor = kind == TRI_ACTIVATION_SWIGLU ? 2 : 1;
    struct pair in = pair_create(dt, n * width * factor, 6.0);
    struct pair out = pair_create(dt, n * width, 1.0);
    struct pair dout = pair_create(dt, n * width, 1.0);
    struct pair din = pair_create(dt, n * width * factor, 1.0);
    for (int64_t i = 0; extreme && i < n * width * factor; i++) {
        pair_set(&in, i, i / width % factor == 0 ? extremes[i % EXTREMES] : 0.5);
    }
    fast->activation_forward(
        fast, &(struct tri_activation_args){
                  .kind = kind, .in = in.fast, .out = out.fast, .n = n, .width = width, .dt = dt});
    ref->activation_forward(
        ref, &(struct tri_activation_args){
                 .kind = kind, .in = in.ref, .out = out.ref, .n = n, .width = width, .dt = dt});
    fast->activation_backward(fast, &(struct tri_activation_args){.kind = kind,
                                                                  .in = in.fast,
                                                                  .dout = dout.fast,
                                                                  .din = din.fast,
                                                                  .n = n,
                                                                  .width = width,
                                                                  .dt = dt});
    ref->activation_backward(ref, &(struct tri_activation_args){.kind = kind,
                                                                .in = in.ref,
                                                                .dout = dout.ref,
                                                                .din = din.ref,
                                                                .n = n,
                                                                .width = width,
                                                                .dt = dt});
    pair_end(&out, names[kind], 8, 1e-6);
    pair_end(&din, names[kind], 16, 3e-6);
    pair_end(&in, "in", 0, 0);
    pair_end(&dout, "dout", 0, 0);
}

static void check_random(const struct tri_kernels *fast, enum tri_dtype dt)
{
    static const int64_t shapes[][2] = {{0, 8},  {3, 0},   {1, 1},   {2, 7},
                                        {3, 64}, {2, 133}, {40, 830}};
    for (int kind = 0; kind < 3; kind++) {
        for (int i = 0; i < 7; i++) {
            run(fast, dt, (enum tri_activation)kind, shapes[i][0], shapes[i][1], false);
        }
    }
}

static void check_extreme(const struct tri_kernels *fast, enum tri_dtype dt)
{
    for (int kind = 0; kind < 3; kind++) {
        run(fast, dt, (enum tri_activation)kind, 1, EXTREMES, true);
    }
}

static void check_infinite(const struct tri_kernels *fast, enum tri_dtype dt)
{
    for (int kind = 0; kind < 3; kind++) {
        struct pair in = pair_create(dt, 6, 1.0);
        struct pair out = pair_create(dt, 3, 1.0);
        pair_set(&in, 0, (double)INFINITY);
        pair_set(&in, 1, (double)NAN);
        fast->activation_forward(fast,
                                 &(struct tri_activation_args){.kind = (enum tri_activation)kind,
                                                               .in = in.fast,
                                                               .out = out.fast,
                                                               .n = 1,
                                                               .width = 3,
                                                               .dt = dt});
        tri_kernels_ref()->activation_forward(
            tri_kernels_ref(), &(struct tri_activation_args){.kind = (enum tri_activation)kind,
                                                             .in = in.ref,
                                                             .out = out.ref,
                                                             .n = 1,
                                                             .width = 3,
                                                             .dt = dt});
        assert_true(isnan(pair_get(&out, 1)));
        pair_end(&out, names[kind], 8, 1e-6);
        pair_end(&in, "in", 0, 0);
    }
}

/* gelu_erf / x, less 1/2, is erf(x / sqrt(2)) / 2: within 1e-6 of the C library's, everywhere. */
static void check_erf(const struct tri_kernels *fast, enum tri_dtype dt)
{
    enum { POINTS = 4001, MIDDLE = POINTS / 2 };
    if (dt == TRI_BF16) {
        return;
    }
    struct pair in = pair_create(dt, POINTS, 1.0);
    struct pair out = pair_create(dt, POINTS, 1.0);
    for (int64_t i = 0; i < POINTS; i++) {
        pair_set(&in, i, (double)(i - MIDDLE) / 250.0);
    }
    fast->activation_forward(fast, &(struct tri_activation_args){.kind = TRI_ACTIVATION_GELU_ERF,
                                                                 .in = in.fast,
                                                                 .out = out.fast,
                                                                 .n = 1,
                                                                 .width = POINTS,
                                                                 .dt = dt});
    for (int64_t i = 0; i < POINTS; i++) {
        double x = pair_get(&in, i);
        double got = (double)((float *)out.fast)[i];
        assert_true(fabs(got - 0.5 * x * (1.0 + erf(x * sqrt(0.5)))) <= 5e-7 * fabs(x));
    }
    pair_end(&in, "in", 0, 0);
    pair_end(&out, "out", 0, (double)INFINITY);
}

static void test_random(void **state)
{
    (void)state;
    pair_each_table(check_random);
}

static void test_extreme(void **state)
{
    (void)state;
    pair_each_table(check_extreme);
}

static void test_infinite(void **state)
{
    (void)state;
    pair_each_table(check_infinite);
}

static void test_erf(void **state)
{
    (void)state;
    pair_each_table(check_erf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_extreme),
        cmocka_unit_test(test_infinite),
        cmocka_unit_test(test_erf),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
