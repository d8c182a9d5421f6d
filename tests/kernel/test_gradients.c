/* The reference's backward functions against its forward ones, in double: finite differences of a
 * weighted sum of the outputs, or the adjoint test where the operation is linear. */
#include "base/memory.h"
#include "kernel/kernel.h"
#include "support/gradcheck.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

enum { MOST = 64 };
static const double step = 1e-5;
static const double tolerance = 2e-8;

/* The arguments of one operation, all of MOST numbers. `run` computes y (and, where there is one,
 * the second output z) from x, a, weight and bias; c and e weigh them in the functional. */
struct problem {
    void (*run)(struct problem *p);
    int64_t n, width;
    int64_t outputs, second;
    int variant;
    double x[MOST], a[MOST], weight[MOST], bias[MOST];
    double y[MOST], z[MOST], stats[MOST], c[MOST], e[MOST];
};

static const struct tri_kernels *ref;

static struct problem problem_of(void (*run)(struct problem *), int64_t n, int64_t width,
                                 int64_t outputs, int variant)
{
    struct problem p = {.run = run, .n = n, .width = width, .outputs = outputs, .variant = variant};
    double *const filled[] = {p.x, p.a, p.weight, p.bias, p.c, p.e};
    for (uint64_t i = 0; i < 6; i++) {
        tri_gradcheck_fill(filled[i], MOST, 10 * (uint64_t)variant + i);
    }
    return p;
}

static double functional(void *context)
{
    struct problem *p = context;
    p->run(p);
    double sum = 0.0;
    for (int64_t i = 0; i < p->outputs; i++) {
        sum += p->c[i] * p->y[i];
    }
    for (int64_t i = 0; i < p->second; i++) {
        sum += p->e[i] * p->z[i];
    }
    return sum;
}

static void check(struct problem *p, double *values, const double *gradient, int64_t count)
{
    double worst = tri_gradcheck_worst(functional, p, values, gradient, count, step);
    if (!(worst <= tolerance)) {
        fail_msg("gradient off by %g, variant %d", worst, p->variant);
    }
}

static void run_norm(struct problem *p)
{
    bool rms = p->variant & 1;
    bool add = p->variant & 2;
    ref->norm_forward(ref, &(struct tri_norm_args){.rms = rms,
                                                   .x = p->x,
                                                   .add = add ? p->a : NULL,
                                                   .sum = add ? p->z : NULL,
                                                   .weight = p->weight,
                                                   .bias = rms ? NULL : p->bias,
                                                   .epsilon = 1e-3,
                                                   .y = p->y,
                                                   .stats = p->stats,
                                                   .n = p->n,
                                                   .width = p->width,
                                                   .dt = TRI_F64});
}

static void test_norm(void **state)
{
    (void)state;
    for (int variant = 0; variant < 4; variant++) {
        struct problem p = problem_of(run_norm, 3, 7, 21, variant);
        bool rms = variant & 1;
        bool add = variant & 2;
        p.second = add ? 21 : 0;
        run_norm(&p);
        double dx[MOST] = {0};
        double dweight[MOST] = {0};
        double dbias[MOST] = {0};
        for (int i = 0; i < 21; i++) {
            dx[i] = add ? p.e[i] : 0.0; /* the residual branch's gradient is there already */
        }
        ref->norm_backward(ref, &(struct tri_norm_args){.rms = rms,
                                                        .dy = p.c,
                                                        .x = add ? p.z : p.x,
                                                        .weight = p.weight,
                                                        .stats = p.stats,
                                                        .dx = dx,
                                                        .dweight = dweight,
                                                        .dbias = rms ? NULL : dbias,
                                                        .n = 3,
                                                        .width = 7,
                                                        .dt = TRI_F64});
        check(&p, p.x, dx, 21);
        check(&p, p.weight, dweight, 7);
        if (add) {
            check(&p, p.a, dx, 21);
        }
        if (!rms) {
            check(&p, p.bias, dbias, 7);
        }
    }
}

enum { TOKENS = 3, HEADS = 2, HEAD_WIDTH = 5, ALL = TOKENS * HEADS * HEAD_WIDTH };

static struct tri_rows heads_of(double *data)
{
    return (struct tri_rows){data, TOKENS, HEADS, HEAD_WIDTH, HEADS * HEAD_WIDTH, HEAD_WIDTH};
}

/* Variant 1, the norm over all heads of a token: adds up the heads' sums, as the ranks that own
 * them would between the two halves. */
static void share_sums(const struct problem *p, double *sums)
{
    for (int64_t t = 0; t < TOKENS && p->variant == 1; t++) {
        sums[2 * t] += sums[2 * t + 1];
        sums[2 * t + 1] = sums[2 * t];
    }
}

static int64_t total_width(const struct problem *p)
{
    return p->variant == 1 ? HEADS * HEAD_WIDTH : HEAD_WIDTH;
}

static void run_head_norm(struct problem *p)
{
    ref->rms_squares(
        ref, &(struct tri_rms_args){.x = heads_of(p->x), .squares = p->stats, .dt = TRI_F64});
    share_sums(p, p->stats);
    for (int64_t i = 0; i < TOKENS * HEADS; i++) {
        p->stats[i] = 1.0 / sqrt(p->stats[i] / (double)total_width(p) + 1e-3);
    }
    ref->rms_apply(ref, &(struct tri_rms_args){.x = heads_of(p->x),
                                               .rstd = p->stats,
                                               .weight = p->weight,
                                               .y = heads_of(p->y),
                                               .dt = TRI_F64});
}

static void test_head_norm(void **state)
{
    (void)state;
    for (int variant = 0; variant < 2; variant++) {
        struct problem p = problem_of(run_head_norm, TOKENS, HEADS * HEAD_WIDTH, ALL, variant);
        run_head_norm(&p);
        double dx[MOST];
        double dots[MOST];
        double dweight[MOST] = {0};
        memcpy(dx, p.c, sizeof(dx));
        ref->rms_dots(ref, &(struct tri_rms_args){.dy = heads_of(dx),
                                                  .x = heads_of(p.x),
                                                  .weight = p.weight,
                                                  .dots = dots,
                                                  .dt = TRI_F64});
        share_sums(&p, dots);
        ref->rms_backward(ref, &(struct tri_rms_args){.dy = heads_of(dx),
                                                      .x = heads_of(p.x),
                                                      .rstd = p.stats,
                                                      .weight = p.weight,
                                                      .dots = dots,
                                                      .total_width = total_width(&p),
                                                      .dweight = dweight,
                                                      .dt = TRI_F64});
        check(&p, p.x, dx, ALL);
        check(&p, p.weight, dweight, HEAD_WIDTH);
    }
}

static void run_activation(struct problem *p)
{
    ref->activation_forward(ref,
                            &(struct tri_activation_args){.kind = (enum tri_activation)p->variant,
                                                          .in = p->x,
                                                          .out = p->y,
                                                          .n = p->n,
                                                          .width = p->width,
                                                          .dt = TRI_F64});
}

static void test_activation(void **state)
{
    (void)state;
    for (int kind = 0; kind < 3; kind++) {
        struct problem p = problem_of(run_activation, 3, 5, 15, kind);
        double dx[MOST] = {0};
        for (int i = 0; i < MOST; i++) {
            p.x[i] *= 3.0;
        }
        ref->activation_backward(ref,
                                 &(struct tri_activation_args){.kind = (enum tri_activation)kind,
                                                               .in = p.x,
                                                               .dout = p.c,
                                                               .din = dx,
                                                               .n = 3,
                                                               .width = 5,
                                                               .dt = TRI_F64});
        check(&p, p.x, dx, kind == TRI_ACTIVATION_SWIGLU ? 30 : 15);
    }
}

/* x holds the logits of three rows over a vocabulary of 11, cut into slices of 6 and 5 columns,
 * each padded to 7; y the losses. */
enum { LOSS_ROWS = 3, SLICE_LD = 7, SLICE = LOSS_ROWS * SLICE_LD };
static const int64_t slice_first[2] = {0, 6};
static const int64_t slice_cols[2] = {6, 5};
static const int32_t targets[LOSS_ROWS] = {0, 10, 5};

static void run_loss(struct problem *p)
{
    double maxima[2][LOSS_ROWS];
    double picked[2][LOSS_ROWS];
    double sums[2][LOSS_ROWS];
    for (int s = 0; s < 2; s++) {
        ref->cross_entropy_max(ref, &(struct tri_cross_entropy_args){.logits = p->x + s * SLICE,
                                                                     .ld = SLICE_LD,
                                                                     .cols = slice_cols[s],
                                                                     .maxima = maxima[s],
                                                                     .n = LOSS_ROWS,
                                                                     .dt = TRI_F64});
    }
    for (int i = 0; i < LOSS_ROWS; i++) {
        p->stats[i] = fmax(maxima[0][i], maxima[1][i]);
    }
    for (int s = 0; s < 2; s++) {
        ref->cross_entropy_sum(ref, &(struct tri_cross_entropy_args){.logits = p->x + s * SLICE,
                                                                     .ld = SLICE_LD,
                                                                     .cols = slice_cols[s],
                                                                     .maxima = p->stats,
                                                                     .targets = targets,
                                                                     .first_col = slice_first[s],
                                                                     .sums = sums[s],
                                                                     .picked = picked[s],
                                                                     .n = LOSS_ROWS,
                                                                     .dt = TRI_F64});
    }
    for (int i = 0; i < LOSS_ROWS; i++) {
        p->z[i] = sums[0][i] + sums[1][i];
        p->y[i] = 0.3 * (log(p->z[i]) - picked[0][i] - picked[1][i]);
    }
}

static void test_loss(void **state)
{
    (void)state;
    struct problem p = problem_of(run_loss, LOSS_ROWS, 11, LOSS_ROWS, 0);
    double dx[MOST];
    for (int i = 0; i < MOST; i++) {
        p.c[i] = 1.0;
        p.x[i] *= 2.0;
    }
    run_loss(&p);
    for (int s = 0; s < 2; s++) {
        ref->cross_entropy_backward(ref,
                                    &(struct tri_cross_entropy_args){.logits = p.x + s * SLICE,
                                                                     .ld = SLICE_LD,
                                                                     .cols = slice_cols[s],
                                                                     .maxima = p.stats,
                                                                     .sums = p.z,
                                                                     .targets = targets,
                                                                     .first_col = slice_first[s],
                                                                     .scale = 0.3,
                                                                     .d = dx + s * SLICE,
                                                                     .ld_d = SLICE_LD,
                                                                     .n = LOSS_ROWS,
                                                                     .dt = TRI_F64});
    }
    check(&p, p.x, dx, (int64_t)2 * SLICE); /* the padding's gradient too: 0 */
}

enum { COMBINED = 3, TOP = 2, COMBINE_WIDTH = 5 };
static const int32_t combine_index[COMBINED * TOP] = {4, 0, -1, 2, 1, 5};

static void run_combine(struct problem *p)
{
    ref->combine_rows(ref, &(struct tri_combine_args){.rows = p->x,
                                                      .index = combine_index,
                                                      .weight = p->weight,
                                                      .add = p->a,
                                                      .y = p->y,
                                                      .n = COMBINED,
                                                      .k = TOP,
                                                      .width = COMBINE_WIDTH,
                                                      .dt = TRI_F64});
}

static void test_combine(void **state)
{
    (void)state;
    struct problem p =
        problem_of(run_combine, COMBINED, COMBINE_WIDTH, (int64_t)COMBINED * COMBINE_WIDTH, 0);
    double drows[MOST] = {0};
    double dweight[MOST];
    ref->combine_rows_backward(ref, &(struct tri_combine_args){.dy = p.c,
                                                               .rows = p.x,
                                                               .index = combine_index,
                                                               .weight = p.weight,
                                                               .drows = drows,
                                                               .dweight = dweight,
                                                               .n = COMBINED,
                                                               .k = TOP,
                                                               .width = COMBINE_WIDTH,
                                                               .dt = TRI_F64});
    check(&p, p.x, drows, (int64_t)COMBINED * TOP * COMBINE_WIDTH);
    check(&p, p.weight, dweight, (int64_t)COMBINED * TOP);
    check(&p, p.a, p.c, (int64_t)COMBINED * COMBINE_WIDTH);
}

static void run_gate(struct problem *p)
{
    ref->scale_rows_add(ref, &(struct tri_scale_args){.x = p->x,
                                                      .gate = p->weight,
                                                      .add = p->a,
                                                      .y = p->y,
                                                      .n = p->n,
                                                      .width = p->width,
                                                      .dt = TRI_F64});
}

static void test_gate(void **state)
{
    (void)state;
    struct problem p = problem_of(run_gate, 4, 5, 20, 0);
    double dgate[MOST];
    ref->row_dots(ref,
                  &(struct tri_dots_args){
                      .left = p.c, .right = p.x, .dots = dgate, .n = 4, .width = 5, .dt = TRI_F64});
    check(&p, p.weight, dgate, 4);
    check(&p, p.a, p.c, 20);
}

static const int32_t positions[TOKENS] = {0, 5, 2};

static void rotate(double *x, bool inverse)
{
    enum { WIDTH = 6, POSITIONS = 6 };
    double table[POSITIONS * WIDTH];
    for (int i = 0; i < POSITIONS; i++) {
        for (int j = 0; j < WIDTH / 2; j++) {
            double angle = i * pow(100.0, -2.0 * j / WIDTH);
            table[i * WIDTH + j] = cos(angle);
            table[i * WIDTH + WIDTH / 2 + j] = sin(angle);
        }
    }
    struct tri_rows rows = {x, TOKENS, 2, WIDTH, (int64_t)2 * WIDTH, WIDTH};
    ref->rope(
        ref,
        &(struct tri_rope_args){
            .x = rows, .table = table, .positions = positions, .inverse = inverse, .dt = TRI_F64});
}

static void rope_apply(void *context, const double *in, double *out)
{
    (void)context;
    memcpy(out, in, 36 * sizeof(*out));
    rotate(out, false);
}

static void rope_transpose(void *context, const double *in, double *out)
{
    (void)context;
    memcpy(out, in, 36 * sizeof(*out));
    rotate(out, true);
}

static void test_rope(void **state)
{
    (void)state;
    assert_true(tri_gradcheck_adjoint(rope_apply, rope_transpose, NULL, 36, 36, 5) < 1e-15);
    /* the pair (1, 0) of head 1, token 1, at position 5, turns to (cos 5, sin 5) */
    double x[36] = {0};
    x[18] = 1.0;
    rotate(x, false);
    assert_true(fabs(x[18] - cos(5.0)) < 1e-15 && fabs(x[21] - sin(5.0)) < 1e-15);
}

static const int32_t tokens[5] = {7, 3, 7, 9, 4};

static void embedding_apply(void *context, const double *in, double *out)
{
    (void)context;
    ref->embedding_forward(ref, &(struct tri_embedding_args){.table = in,
                                                             .tokens = tokens,
                                                             .first_row = 3,
                                                             .rows = 5,
                                                             .y = out,
                                                             .n = 5,
                                                             .width = 4,
                                                             .dt = TRI_F64});
}

static void embedding_transpose(void *context, const double *in, double *out)
{
    (void)context;
    memset(out, 0, 20 * sizeof(*out));
    ref->embedding_backward(ref, &(struct tri_embedding_args){.dtable = out,
                                                              .table_dtype = TRI_F64,
                                                              .tokens = tokens,
                                                              .first_row = 3,
                                                              .rows = 5,
                                                              .dy = in,
                                                              .n = 5,
                                                              .width = 4,
                                                              .dt = TRI_F64});
}

static void bias_apply(void *context, const double *in, double *out)
{
    (void)context;
    memset(out, 0, 20 * sizeof(*out));
    ref->add_bias(ref,
                  &(struct tri_bias_args){.y = out, .bias = in, .n = 5, .width = 4, .dt = TRI_F64});
}

static void bias_transpose(void *context, const double *in, double *out)
{
    (void)context;
    memset(out, 0, 4 * sizeof(*out));
    ref->bias_backward(ref,
                       &(struct tri_bias_args){
                           .dy = in, .ld = 4, .dbias = out, .n = 5, .width = 4, .dt = TRI_F64});
}

/* Two copies of each of three tokens, one of them dropped, and back: the MoE's dispatch. */
static const int32_t copies_of[6] = {0, 2, 1, -1, 2, 1};
static const int32_t copies_at[6] = {0, -1, 2, 5, 1, 4};

static void gather_apply(void *context, const double *in, double *out)
{
    (void)context;
    ref->gather_rows(
        ref, &(struct tri_gather_args){
                 .src = in, .index = copies_of, .dst = out, .n = 6, .width = 4, .dt = TRI_F64});
}

static void gather_transpose(void *context, const double *in, double *out)
{
    (void)context;
    ref->combine_rows(
        ref,
        &(struct tri_combine_args){
            .rows = in, .index = copies_at, .y = out, .n = 3, .k = 2, .width = 4, .dt = TRI_F64});
}

static void test_linear(void **state)
{
    (void)state;
    assert_true(tri_gradcheck_adjoint(embedding_apply, embedding_transpose, NULL, 20, 20, 1) <
                1e-15);
    assert_true(tri_gradcheck_adjoint(bias_apply, bias_transpose, NULL, 4, 20, 2) < 1e-15);
    assert_true(tri_gradcheck_adjoint(gather_apply, gather_transpose, NULL, 12, 24, 3) < 1e-15);
}

/* The checks themselves see a wrong derivative. */
static void test_detects(void **state)
{
    (void)state;
    struct problem p = problem_of(run_gate, 4, 5, 20, 0);
    double wrong[MOST];
    ref->row_dots(ref,
                  &(struct tri_dots_args){
                      .left = p.c, .right = p.x, .dots = wrong, .n = 4, .width = 5, .dt = TRI_F64});
    wrong[2] += 1e-3;
    assert_true(tri_gradcheck_worst(functional, &p, p.weight, wrong, 4, step) > 1e-4);
    wrong[2] = (double)NAN;
    assert_true(isnan(tri_gradcheck_worst(functional, &p, p.weight, wrong, 4, step)));
    assert_true(tri_gradcheck_adjoint(rope_apply, rope_apply, NULL, 36, 36, 5) > 1e-3);
}

int main(void)
{
    ref = tri_kernels_ref();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_norm),       cmocka_unit_test(test_head_norm),
        cmocka_unit_test(test_activation), cmocka_unit_test(test_loss),
        cmocka_unit_test(test_combine),    cmocka_unit_test(test_gate),
        cmocka_unit_test(test_rope),       cmocka_unit_test(test_linear),
        cmocka_unit_test(test_detects),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
