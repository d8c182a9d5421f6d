/* Sums, casts and AdamW: the fast tables against the reference. */
#include "kernel/pair.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static const int64_t sizes[] = {0, 1, 3, 16, 67, 1000, 40001};
enum { SIZES = sizeof(sizes) / sizeof(*sizes) };

static void check_add(const struct tri_kernels *fast, enum tri_dtype dt)
{
    for (int i = 0; i < SIZES; i++) {
        struct pair a = pair_create(dt, sizes[i], 1.0);
        struct pair b = pair_create(dt, sizes[i], 1.0);
        struct pair y = pair_create(dt, sizes[i], 1.0);
        fast->add(fast, &(struct tri_add_args){
                            .left = a.fast, .right = b.fast, .y = y.fast, .n = sizes[i], .dt = dt});
        tri_kernels_ref()->add(
            tri_kernels_ref(),
            &(struct tri_add_args){
                .left = a.ref, .right = b.ref, .y = y.ref, .n = sizes[i], .dt = dt});
        fast->add(fast, &(struct tri_add_args){
                            .left = a.fast, .right = b.fast, .y = a.fast, .n = sizes[i], .dt = dt});
        tri_kernels_ref()->add(
            tri_kernels_ref(),
            &(struct tri_add_args){
                .left = a.ref, .right = b.ref, .y = a.ref, .n = sizes[i], .dt = dt});
        pair_end(&y, "add", 0, 0);
        pair_end(&a, "add in place", 0, 0);
        pair_end(&b, "b", 0, 0);
    }
}

static void check_bias(const struct tri_kernels *fast, enum tri_dtype dt)
{
    static const int64_t shapes[][2] = {{0, 5}, {1, 1}, {9, 33}, {70, 600}, {3, 1100}};
    for (int i = 0; i < 5; i++) {
        int64_t n = shapes[i][0];
        int64_t width = shapes[i][1];
        int64_t ld = width + 3;
        struct pair y = pair_create(dt, n * width, 1.0);
        struct pair bias = pair_create(TRI_F32, width, 1.0);
        struct pair dy = pair_create(dt, n * ld, 1.0);
        struct pair db = pair_create(TRI_F32, width, 1.0);
        fast->add_bias(fast, &(struct tri_bias_args){
                                 .y = y.fast, .bias = bias.fast, .n = n, .width = width, .dt = dt});
        tri_kernels_ref()->add_bias(
            tri_kernels_ref(), &(struct tri_bias_args){
                                   .y = y.ref, .bias = bias.ref, .n = n, .width = width, .dt = dt});
        fast->bias_backward(
            fast, &(struct tri_bias_args){
                      .dy = dy.fast, .ld = ld, .dbias = db.fast, .n = n, .width = width, .dt = dt});
        tri_kernels_ref()->bias_backward(
            tri_kernels_ref(),
            &(struct tri_bias_args){
                .dy = dy.ref, .ld = ld, .dbias = db.ref, .n = n, .width = width, .dt = dt});
        pair_end(&y, "add_bias", 1, 0);
        pair_end(&db, "db", 2, 1e-6 * sqrt((double)n + 1.0));
        pair_end(&bias, "bias", 0, 0);
        pair_end(&dy, "dy", 0, 0);
    }
}

/* Ties, overflow, subnormals, infinities and NaN: what rounding gets wrong. */
static const double hard[] = {1.00390625, 1.01171875, 3.4e38,  -3.4e38, 1e-40, -1e-45, 0.0,
                              -0.0,       65504.0,    1.1e-38, 3.39e38, 0.1,   -0.1};
enum { HARD = sizeof(hard) / sizeof(*hard) };

static void check_cast(const struct tri_kernels *fast, enum tri_dtype dt)
{
    for (int i = 0; i < SIZES; i++) {
        for (int to = TRI_F32; to <= TRI_BF16; to++) {
            struct pair src = pair_create(dt, sizes[i], 1e3);
            struct pair dst = pair_create((enum tri_dtype)to, sizes[i], 1.0);
            for (int64_t j = 0; j < sizes[i] && j < HARD; j++) {
                pair_set(&src, j, hard[j]);
            }
            if (sizes[i] > HARD + 2) {
                pair_set(&src, HARD, (double)INFINITY);
                pair_set(&src, HARD + 1, -(double)INFINITY);
            }
            fast->cast(fast, &(struct tri_cast_args){.src = src.fast,
                                                     .from = dt,
                                                     .dst = dst.fast,
                                                     .to = (enum tri_dtype)to,
                                                     .n = sizes[i]});
            tri_kernels_ref()->cast(tri_kernels_ref(),
                                    &(struct tri_cast_args){.src = src.ref,
                                                            .from = dt,
                                                            .dst = dst.ref,
                                                            .to = (enum tri_dtype)to,
                                                            .n = sizes[i]});
            pair_end(&dst, "cast", 0, 0);
            pair_end(&src, "src", 0, 0);
        }
    }
}

/* A NaN whose payload lies below bf16's bits must not round up to infinity. */
static void check_cast_nan(const struct tri_kernels *fast, enum tri_dtype dt)
{
    if (dt == TRI_BF16) {
        return;
    }
    uint32_t bits[20];
    uint16_t rounded[20];
    for (int i = 0; i < 20; i++) {
        bits[i] = i % 2 ? 0x7f800001u : 0xffffffffu;
    }
    fast->cast(fast, &(struct tri_cast_args){
                         .src = bits, .from = TRI_F32, .dst = rounded, .to = TRI_BF16, .n = 20});
    for (int i = 0; i < 20; i++) {
        assert_true(isnan(tri_bf16_to_f32(rounded[i])));
    }
}

static void check_reductions(const struct tri_kernels *fast, enum tri_dtype dt)
{
    for (int i = 0; i < SIZES; i++) {
        int64_t n = sizes[i];
        struct pair x = pair_create(dt, n, 1e4);
        double want = tri_kernels_ref()->sum_squares(
            tri_kernels_ref(), &(struct tri_squares_args){.x = x.ref, .n = n, .dt = dt});
        double got =
            fast->sum_squares(fast, &(struct tri_squares_args){.x = x.fast, .n = n, .dt = dt});
        assert_true(fabs(got - want) <= 1e-13 * want);
        const struct tri_kernels *three = pair_threads(fast, 3);
        double threaded =
            three->sum_squares(three, &(struct tri_squares_args){.x = x.fast, .n = n, .dt = dt});
        assert_memory_equal(&got, &threaded, sizeof(got));
        pair_end(&x, "x", 0, 0);
    }
}

static void adamw(const struct tri_kernels *fast, enum tri_dtype gradient_dtype,
                  enum tri_dtype weight_dtype, bool with_weights, int64_t n)
{
    struct pair master = pair_create(TRI_F32, n, 1.0);
    struct pair m = pair_create(TRI_F32, n, 1e-2);
    struct pair v = pair_create(TRI_F32, n, 1e-4);
    struct pair gradient = pair_create(gradient_dtype, n, 3e-2);
    struct pair weights = pair_create(weight_dtype, n, 1.0);
    for (int64_t i = 0; i < n; i++) {
        pair_set(&v, i, i % 7 == 0 ? 0.0 : fabs(pair_get(&v, i)));
        if (i % 7 == 0) {
            pair_set(&gradient, i, 0.0);
        }
    }
    struct tri_adamw step = {
        .learning_rate = 1e-3,
        .beta1 = 0.9,
        .beta2 = 0.999,
        .epsilon = 1e-8,
        .weight_decay = 0.1,
        .correction1 = 0.271,
        .correction2 = 0.002997,
        .gradient_scale = 0.7,
        .master = master.fast,
        .m = m.fast,
        .v = v.fast,
        .gradient = gradient.fast,
        .gradient_dtype = gradient_dtype,
        .weights = with_weights ? weights.fast : NULL,
        .weight_dtype = weight_dtype,
        .n = n,
    };
    fast->adamw(fast, &step);
    step.master = master.ref;
    step.m = m.ref;
    step.v = v.ref;
    step.gradient = gradient.ref;
    step.weights = with_weights ? weights.ref : NULL;
    tri_kernels_ref()->adamw(tri_kernels_ref(), &step);
    pair_end(&master, "master", 8, 1e-7);
    pair_end(&m, "m", 4, 1e-9);
    pair_end(&v, "v", 4, 1e-12);
    pair_end(&weights, "weights", with_weights ? 8 : 0, with_weights ? 1e-7 : 0);
    pair_end(&gradient, "gradient", 0, 0);
}

static void check_adamw(const struct tri_kernels *fast, enum tri_dtype dt)
{
    for (int i = 0; i < SIZES; i++) {
        adamw(fast, dt, TRI_F32, true, sizes[i]);
        adamw(fast, dt, TRI_BF16, true, sizes[i]);
        adamw(fast, dt, TRI_F32, false, sizes[i]);
    }
}

/* Where beta2 is near 1, v must settle at the gradient's square, not beside it. */
static void check_adamw_settles(const struct tri_kernels *fast, enum tri_dtype dt)
{
    if (dt == TRI_BF16) {
        return;
    }
    float master = 1.0f;
    float m = 0.3f;
    float v = 0.3f * 0.3f;
    float gradient = 0.3f;
    const struct tri_adamw step = {
        .learning_rate = 0.0,
        .beta1 = 0.9,
        .beta2 = 0.999,
        .epsilon = 1e-8,
        .correction1 = 1.0,
        .correction2 = 1.0,
        .gradient_scale = 1.0,
        .master = &master,
        .m = &m,
        .v = &v,
        .gradient = &gradient,
        .gradient_dtype = TRI_F32,
        .weight_dtype = TRI_F32,
        .n = 1,
    };
    for (int i = 0; i < 20000; i++) {
        fast->adamw(fast, &step);
    }
    assert_true(fabs((double)v - 0.09) < 1e-7 && fabs((double)m - 0.3) < 1e-7);
}

static void test_add(void **state)
{
    (void)state;
    pair_each_table(check_add);
}

static void test_bias(void **state)
{
    (void)state;
    pair_each_table(check_bias);
}

static void test_cast(void **state)
{
    (void)state;
    pair_each_table(check_cast);
    pair_each_table(check_cast_nan);
}

static void test_reductions(void **state)
{
    (void)state;
    pair_each_table(check_reductions);
}

static void test_adamw(void **state)
{
    (void)state;
    pair_each_table(check_adamw);
    pair_each_table(check_adamw_settles);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_add),   cmocka_unit_test(test_bias),
        cmocka_unit_test(test_cast),  cmocka_unit_test(test_reductions),
        cmocka_unit_test(test_adamw),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
