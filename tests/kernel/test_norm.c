/* Norms and rotation: the fast tables against the reference. */
#include "kernel/pair.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

struct shape {
    int64_t n, width;
    double size; /* of the numbers */
};

static const struct shape shapes[] = {{0, 16, 1.0},  {1, 1, 1.0},    {3, 5, 2.0},   {2, 64, 1e8},
                                      {4, 67, 1e-8}, {35, 192, 1.0}, {5, 1030, 3.0}};
enum { SHAPES = sizeof(shapes) / sizeof(*shapes) };

static void forward(const struct tri_kernels *fast, enum tri_dtype dt, struct shape s, bool rms,
                    bool with_add, bool with_bias)
{
    const struct tri_kernels *ref = tri_kernels_ref();
    struct pair x = pair_create(dt, s.n * s.width, s.size);
    struct pair more = pair_create(dt, s.n * s.width, s.size);
    struct pair sum = pair_create(dt, s.n * s.width, 1.0);
    struct pair weight = pair_create(TRI_F32, s.width, 2.0);
    struct pair bias = pair_create(TRI_F32, s.width, 1.0);
    struct pair y = pair_create(dt, s.n * s.width, 1.0);
    struct pair stats = pair_create(TRI_F32, 2 * s.n, 1.0);
    fast->norm_forward(fast, &(struct tri_norm_args){.rms = rms,
                                                     .x = x.fast,
                                                     .add = with_add ? more.fast : NULL,
                                                     .sum = with_add ? sum.fast : NULL,
                                                     .weight = weight.fast,
                                                     .bias = with_bias ? bias.fast : NULL,
                                                     .epsilon = 1e-5,
                                                     .y = y.fast,
                                                     .stats = stats.fast,
                                                     .n = s.n,
                                                     .width = s.width,
                                                     .dt = dt});
    ref->norm_forward(ref, &(struct tri_norm_args){.rms = rms,
                                                   .x = x.ref,
                                                   .add = with_add ? more.ref : NULL,
                                                   .sum = with_add ? sum.ref : NULL,
                                                   .weight = weight.ref,
                                                   .bias = with_bias ? bias.ref : NULL,
                                                   .epsilon = 1e-5,
                                                   .y = y.ref,
                                                   .stats = stats.ref,
                                                   .n = s.n,
                                                   .width = s.width,
                                                   .dt = dt});
    pair_end(&y, "y", 16, 4e-6);
    pair_end(&stats, "stats", 8, 1e-7 * s.size);
    pair_end(&sum, "sum", 0, 0);
    pair_end(&x, "x", 0, 0);
    pair_end(&more, "add", 0, 0);
    pair_end(&weight, "weight", 0, 0);
    pair_end(&bias, "bias", 0, 0);
}

static void check_forward(const struct tri_kernels *fast, enum tri_dtype dt)
{
    for (int i = 0; i < SHAPES; i++) {
        for (int flags = 0; flags < 8; flags++) {
            forward(fast, dt, shapes[i], flags & 1, flags & 2, (flags & 4) && !(flags & 1));
        }
    }
}

static void backward(const struct tri_kernels *fast, enum tri_dtype dt, struct shape s, bool rms)
{
    const struct tri_kernels *ref = tri_kernels_ref();
    struct pair dy = pair_create(dt, s.n * s.width, 1.0);
    struct pair x = pair_create(dt, s.n * s.width, 1.0);
    struct pair weight = pair_create(TRI_F32, s.width, 2.0);
    struct pair stats = pair_create(TRI_F32, 2 * s.n, 1.0);
    struct pair dx = pair_create(dt, s.n * s.width, 1.0);
    struct pair dweight = pair_create(TRI_F32, s.width, 1.0);
    struct pair dbias = pair_create(TRI_F32, s.width, 1.0);
    for (int64_t i = 0; i < s.n; i++) {
        pair_set(&stats, 2 * i, rms ? 0.0 : 0.1);
        pair_set(&stats, 2 * i + 1, 1.5);
    }
    fast->norm_backward(fast, &(struct tri_norm_args){.rms = rms,
                                                      .dy = dy.fast,
                                                      .x = x.fast,
                                                      .weight = weight.fast,
                                                      .stats = stats.fast,
                                                      .dx = dx.fast,
                                                      .dweight = dweight.fast,
                                                      .dbias = rms ? NULL : dbias.fast,
                                                      .n = s.n,
                                                      .width = s.width,
                                                      .dt = dt});
    ref->norm_backward(ref, &(struct tri_norm_args){.rms = rms,
                                                    .dy = dy.ref,
                                                    .x = x.ref,
                                                    .weight = weight.ref,
                                                    .stats = stats.ref,
                                                    .dx = dx.ref,
                                                    .dweight = dweight.ref,
                                                    .dbias = rms ? NULL : dbias.ref,
                                                    .n = s.n,
                                                    .width = s.width,
                                                    .dt = dt});
    double terms = sqrt((double)s.n + 1.0);
    pair_end(&dx, "dx", 4, 2e-6);
    pair_end(&dweight, "dweight", 4, 1e-6 * terms);
    pair_end(&dbias, "dbias", 4, 1e-6 * terms);
    pair_end(&dy, "dy", 0, 0);
    pair_end(&x, "x", 0, 0);
    pair_end(&weight, "weight", 0, 0);
    pair_end(&stats, "stats", 0, 0);
}

static void check_backward(const struct tri_kernels *fast, enum tri_dtype dt)
{
    for (int i = 0; i < SHAPES; i++) {
        backward(fast, dt, shapes[i], false);
        backward(fast, dt, shapes[i], true);
    }
    backward(fast, dt, (struct shape){150, 272, 1.0}, true);
}

/* One row's result is the same bits alone, among others, and at any address. */
static void check_one_row(const struct tri_kernels *fast, enum tri_dtype dt)
{
    enum { ROWS = 5, WIDTH = 77 };
    size_t size = tri_dtype_size(dt);
    struct pair x = pair_create(dt, ROWS * WIDTH, 1.0);
    struct pair weight = pair_create(TRI_F32, WIDTH, 1.0);
    struct pair y = pair_create(dt, ROWS * WIDTH, 1.0);
    struct pair stats = pair_create(TRI_F32, 2 * ROWS, 1.0);
    fast->norm_forward(fast, &(struct tri_norm_args){.x = x.fast,
                                                     .weight = weight.fast,
                                                     .epsilon = 1e-5,
                                                     .y = y.fast,
                                                     .stats = stats.fast,
                                                     .n = ROWS,
                                                     .width = WIDTH,
                                                     .dt = dt});
    for (size_t i = 0; i < ROWS; i++) {
        size_t at = i * WIDTH * size;
        fast->norm_forward(fast, &(struct tri_norm_args){.x = (char *)x.fast + at,
                                                         .weight = weight.fast,
                                                         .epsilon = 1e-5,
                                                         .y = (char *)y.ref + at,
                                                         .stats = (float *)stats.ref + 2 * i,
                                                         .n = 1,
                                                         .width = WIDTH,
                                                         .dt = dt});
    }
    pair_end(&y, "y", 0, 0);
    pair_end(&stats, "stats", 0, 0);
    pair_end(&x, "x", 0, 0);
    pair_end(&weight, "weight", 0, 0);
}

static void check_nan(const struct tri_kernels *fast, enum tri_dtype dt)
{
    enum { WIDTH = 40 };
    struct pair x = pair_create(dt, 2 * WIDTH, 1.0);
    struct pair weight = pair_create(TRI_F32, WIDTH, 1.0);
    struct pair y = pair_create(dt, 2 * WIDTH, 1.0);
    struct pair stats = pair_create(TRI_F32, 4, 1.0);
    pair_set(&x, WIDTH + 39, (double)NAN);
    fast->norm_forward(fast, &(struct tri_norm_args){.rms = true,
                                                     .x = x.fast,
                                                     .weight = weight.fast,
                                                     .epsilon = 1e-5,
                                                     .y = y.fast,
                                                     .stats = stats.fast,
                                                     .n = 2,
                                                     .width = WIDTH,
                                                     .dt = dt});
    tri_kernels_ref()->norm_forward(tri_kernels_ref(), &(struct tri_norm_args){.rms = true,
                                                                               .x = x.ref,
                                                                               .weight = weight.ref,
                                                                               .epsilon = 1e-5,
                                                                               .y = y.ref,
                                                                               .stats = stats.ref,
                                                                               .n = 2,
                                                                               .width = WIDTH,
                                                                               .dt = dt});
    assert_true(isnan(pair_get(&y, WIDTH)));
    pair_end(&y, "y", 16, 4e-6);
    pair_end(&stats, "stats", 8, 1e-7);
    pair_end(&x, "x", 0, 0);
    pair_end(&weight, "weight", 0, 0);
}

struct backward_call {
    struct pair *dy, *x, *weight, *stats, *dx, *dweight;
    int64_t n, width;
    enum tri_dtype dt;
};

static void call_backward(const struct tri_kernels *fast, void *context)
{
    const struct backward_call *c = context;
    fast->norm_backward(fast, &(struct tri_norm_args){.rms = true,
                                                      .dy = c->dy->fast,
                                                      .x = c->x->fast,
                                                      .weight = c->weight->fast,
                                                      .stats = c->stats->fast,
                                                      .dx = c->dx->fast,
                                                      .dweight = c->dweight->fast,
                                                      .n = c->n,
                                                      .width = c->width,
                                                      .dt = c->dt});
}

static void check_threads(const struct tri_kernels *fast, enum tri_dtype dt)
{
    enum { ROWS = 331, WIDTH = 131 };
    struct pair dy = pair_create(dt, ROWS * WIDTH, 1.0);
    struct pair x = pair_create(dt, ROWS * WIDTH, 1.0);
    struct pair weight = pair_create(TRI_F32, WIDTH, 1.0);
    struct pair stats = pair_create(TRI_F32, 2 * ROWS, 1.0);
    struct pair dx = pair_create(dt, ROWS * WIDTH, 1.0);
    struct pair dweight = pair_create(TRI_F32, WIDTH, 1.0);
    struct backward_call call = {&dy, &x, &weight, &stats, &dx, &dweight, ROWS, WIDTH, dt};
    pair_same_on_threads(fast, (struct pair *[]){&dx, &dweight}, 2, call_backward, &call);
    struct pair *all[] = {&dy, &x, &weight, &stats, &dx, &dweight};
    for (int i = 0; i < 6; i++) {
        pair_end(all[i], "threads", 0, (double)INFINITY);
    }
}

static void test_forward(void **state)
{
    (void)state;
    pair_each_table(check_forward);
}

static void test_backward(void **state)
{
    (void)state;
    pair_each_table(check_backward);
}

static void test_one_row(void **state)
{
    (void)state;
    pair_each_table(check_one_row);
}

static void test_nan(void **state)
{
    (void)state;
    pair_each_table(check_nan);
}

static void test_threads(void **state)
{
    (void)state;
    pair_each_table(check_threads);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forward), cmocka_unit_test(test_backward),
        cmocka_unit_test(test_one_row), cmocka_unit_test(test_nan),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
