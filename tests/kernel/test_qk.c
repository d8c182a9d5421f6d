/* Norms and rotations of heads inside rows: the fast tables against the reference. */
#include "kernel/pair.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

struct shape {
    int64_t outer, inner, width, gap; /* gap: elements between heads and after the last */
};

static const struct shape shapes[] = {{0, 2, 8, 0},  {1, 1, 2, 0},    {3, 2, 6, 1},  {5, 4, 64, 0},
                                      {2, 3, 38, 5}, {70, 4, 128, 3}, {9, 1, 310, 2}};
enum { SHAPES = sizeof(shapes) / sizeof(*shapes) };

static struct tri_rows rows_of(void *data, struct shape s)
{
    return (struct tri_rows){.data = data,
                             .outer = s.outer,
                             .inner = s.inner,
                             .width = s.width,
                             .ld_outer = s.inner * (s.width + s.gap) + s.gap,
                             .ld_inner = s.width + s.gap};
}

static int64_t count_of(struct shape s)
{
    return s.outer * rows_of(NULL, s).ld_outer;
}

static void norm_parts(const struct tri_kernels *fast, enum tri_dtype dt, struct shape s)
{
    const struct tri_kernels *ref = tri_kernels_ref();
    int64_t rows = s.outer * s.inner;
    struct pair x = pair_create(dt, count_of(s), 1.0);
    struct pair y = pair_create(dt, count_of(s), 1.0);
    struct pair squares = pair_create(TRI_F32, rows, 1.0);
    struct pair rstd = pair_create(TRI_F32, rows, 2.0);
    struct pair weight = pair_create(TRI_F32, s.width, 2.0);
    fast->rms_squares(
        fast, &(struct tri_rms_args){.x = rows_of(x.fast, s), .squares = squares.fast, .dt = dt});
    ref->rms_squares(
        ref, &(struct tri_rms_args){.x = rows_of(x.ref, s), .squares = squares.ref, .dt = dt});
    pair_end(&squares, "squares", 8, 0);
    fast->rms_apply(fast, &(struct tri_rms_args){.x = rows_of(x.fast, s),
                                                 .rstd = rstd.fast,
                                                 .weight = weight.fast,
                                                 .y = rows_of(y.fast, s),
                                                 .dt = dt});
    ref->rms_apply(ref, &(struct tri_rms_args){.x = rows_of(x.ref, s),
                                               .rstd = rstd.ref,
                                               .weight = weight.ref,
                                               .y = rows_of(y.ref, s),
                                               .dt = dt});
    pair_end(&y, "y", 4, 0);
    pair_end(&rstd, "rstd", 0, 0);
    pair_end(&weight, "weight", 0, 0);
    pair_end(&x, "x", 0, 0);
}

static void norm_backward(const struct tri_kernels *fast, enum tri_dtype dt, struct shape s)
{
    const struct tri_kernels *ref = tri_kernels_ref();
    int64_t rows = s.outer * s.inner;
    struct shape tight = s;
    tight.gap = 0; /* dy and x have layouts of their own */
    struct pair dy = pair_create(dt, count_of(s), 1.0);
    struct pair x = pair_create(dt, count_of(tight), 1.0);
    struct pair rstd = pair_create(TRI_F32, rows, 2.0);
    struct pair weight = pair_create(TRI_F32, s.width, 2.0);
    struct pair dots = pair_create(TRI_F32, rows, 1.0);
    struct pair dweight = pair_create(TRI_F32, s.width, 1.0);
    fast->rms_dots(fast, &(struct tri_rms_args){.dy = rows_of(dy.fast, s),
                                                .x = rows_of(x.fast, tight),
                                                .weight = weight.fast,
                                                .dots = dots.fast,
                                                .dt = dt});
    ref->rms_dots(ref, &(struct tri_rms_args){.dy = rows_of(dy.ref, s),
                                              .x = rows_of(x.ref, tight),
                                              .weight = weight.ref,
                                              .dots = dots.ref,
                                              .dt = dt});
    fast->rms_backward(fast, &(struct tri_rms_args){.dy = rows_of(dy.fast, s),
                                                    .x = rows_of(x.fast, tight),
                                                    .rstd = rstd.fast,
                                                    .weight = weight.fast,
                                                    .dots = dots.fast,
                                                    .total_width = 2 * s.width,
                                                    .dweight = dweight.fast,
                                                    .dt = dt});
    ref->rms_backward(ref, &(struct tri_rms_args){.dy = rows_of(dy.ref, s),
                                                  .x = rows_of(x.ref, tight),
                                                  .rstd = rstd.ref,
                                                  .weight = weight.ref,
                                                  .dots = dots.ref,
                                                  .total_width = 2 * s.width,
                                                  .dweight = dweight.ref,
                                                  .dt = dt});
    pair_end(&dots, "dots", 4, 1e-6 * sqrt((double)s.width));
    pair_end(&dweight, "dweight", 4, 1e-6 * sqrt((double)rows + 1.0));
    pair_end(&dy, "dx", 4, 2e-6);
    pair_end(&x, "x", 0, 0);
    pair_end(&rstd, "rstd", 0, 0);
    pair_end(&weight, "weight", 0, 0);
}

static void rope(const struct tri_kernels *fast, enum tri_dtype dt, struct shape s, bool inverse)
{
    enum { POSITIONS = 7 };
    int32_t positions[128];
    for (int32_t i = 0; i < 128; i++) {
        positions[i] = i * 3 % POSITIONS;
    }
    struct pair x = pair_create(dt, count_of(s), 1.0);
    struct pair table = pair_create(TRI_F32, POSITIONS * s.width, 1.0);
    fast->rope(fast, &(struct tri_rope_args){.x = rows_of(x.fast, s),
                                             .table = table.fast,
                                             .positions = positions,
                                             .inverse = inverse,
                                             .dt = dt});
    tri_kernels_ref()->rope(tri_kernels_ref(), &(struct tri_rope_args){.x = rows_of(x.ref, s),
                                                                       .table = table.ref,
                                                                       .positions = positions,
                                                                       .inverse = inverse,
                                                                       .dt = dt});
    pair_end(&x, "x", 2, 2e-7);
    pair_end(&table, "table", 0, 0);
}

static void check_norm(const struct tri_kernels *fast, enum tri_dtype dt)
{
    for (int i = 0; i < SHAPES; i++) {
        norm_parts(fast, dt, shapes[i]);
        norm_backward(fast, dt, shapes[i]);
    }
}

static void check_rope(const struct tri_kernels *fast, enum tri_dtype dt)
{
    for (int i = 0; i < SHAPES; i++) {
        rope(fast, dt, shapes[i], false);
        rope(fast, dt, shapes[i], true);
    }
}

struct backward_call {
    struct shape shape;
    struct pair *dy, *x, *rstd, *weight, *dots, *dweight;
    enum tri_dtype dt;
};

static void call_backward(const struct tri_kernels *fast, void *context)
{
    const struct backward_call *c = context;
    fast->rms_backward(fast, &(struct tri_rms_args){.dy = rows_of(c->dy->fast, c->shape),
                                                    .x = rows_of(c->x->fast, c->shape),
                                                    .rstd = c->rstd->fast,
                                                    .weight = c->weight->fast,
                                                    .dots = c->dots->fast,
                                                    .total_width = c->shape.width,
                                                    .dweight = c->dweight->fast,
                                                    .dt = c->dt});
}

static void same_on_threads(const struct tri_kernels *fast, enum tri_dtype dt, struct shape s)
{
    struct pair dy = pair_create(dt, count_of(s), 1.0);
    struct pair x = pair_create(dt, count_of(s), 1.0);
    struct pair rstd = pair_create(TRI_F32, s.outer * s.inner, 1.0);
    struct pair weight = pair_create(TRI_F32, s.width, 1.0);
    struct pair dots = pair_create(TRI_F32, s.outer * s.inner, 1.0);
    struct pair dweight = pair_create(TRI_F32, s.width, 1.0);
    struct backward_call call = {s, &dy, &x, &rstd, &weight, &dots, &dweight, dt};
    pair_same_on_threads(fast, (struct pair *[]){&dy, &dweight}, 2, call_backward, &call);
    struct pair *all[] = {&dy, &x, &rstd, &weight, &dots, &dweight};
    for (int i = 0; i < 6; i++) {
        pair_end(all[i], "threads", 0, (double)INFINITY);
    }
}

static void check_threads(const struct tri_kernels *fast, enum tri_dtype dt)
{
    same_on_threads(fast, dt, (struct shape){111, 5, 66, 0});
    same_on_threads(fast, dt, (struct shape){211, 1, 300, 0});
}

static void test_norm(void **state)
{
    (void)state;
    pair_each_table(check_norm);
}

static void test_rope(void **state)
{
    (void)state;
    pair_each_table(check_rope);
}

static void test_threads(void **state)
{
    (void)state;
    pair_each_table(check_threads);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_norm),
        cmocka_unit_test(test_rope),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
