/* Embedding, gather, combine and the other row operations: the fast tables against the
 * reference. */
#include "kernel/pair.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static const int64_t widths[] = {1, 7, 64, 101, 520};
enum { WIDTHS = sizeof(widths) / sizeof(*widths), ROWS = 45, TOP = 3 };

static void embedding(const struct tri_kernels *fast, enum tri_dtype dt, int64_t n, int64_t width)
{
    enum { FIRST = 10, VOCAB = 12 };
    const struct tri_kernels *ref = tri_kernels_ref();
    int32_t tokens[ROWS];
    for (int32_t i = 0; i < ROWS; i++) {
        tokens[i] = 8 + i * 7 % 17; /* repeats, and some outside the slice on both sides */
    }
    struct pair table = pair_create(dt, VOCAB * width, 1.0);
    struct pair dtable = pair_create(TRI_F32, VOCAB * width, 1.0);
    struct pair narrow = pair_create(TRI_BF16, VOCAB * width, 1.0);
    struct pair y = pair_create(dt, n * width, 1.0);
    fast->embedding_forward(fast, &(struct tri_embedding_args){.table = table.fast,
                                                               .tokens = tokens,
                                                               .first_row = FIRST,
                                                               .rows = VOCAB,
                                                               .y = y.fast,
                                                               .n = n,
                                                               .width = width,
                                                               .dt = dt});
    ref->embedding_forward(ref, &(struct tri_embedding_args){.table = table.ref,
                                                             .tokens = tokens,
                                                             .first_row = FIRST,
                                                             .rows = VOCAB,
                                                             .y = y.ref,
                                                             .n = n,
                                                             .width = width,
                                                             .dt = dt});
    fast->embedding_backward(fast, &(struct tri_embedding_args){.dtable = dtable.fast,
                                                                .table_dtype = TRI_F32,
                                                                .tokens = tokens,
                                                                .first_row = FIRST,
                                                                .rows = VOCAB,
                                                                .dy = y.fast,
                                                                .n = n,
                                                                .width = width,
                                                                .dt = dt});
    ref->embedding_backward(ref, &(struct tri_embedding_args){.dtable = dtable.ref,
                                                              .table_dtype = TRI_F32,
                                                              .tokens = tokens,
                                                              .first_row = FIRST,
                                                              .rows = VOCAB,
                                                              .dy = y.ref,
                                                              .n = n,
                                                              .width = width,
                                                              .dt = dt});
    fast->embedding_backward(fast, &(struct tri_embedding_args){.dtable = narrow.fast,
                                                                .table_dtype = TRI_BF16,
                                                                .tokens = tokens,
                                                                .first_row = FIRST,
                                                                .rows = VOCAB,
                                                                .dy = y.fast,
                                                                .n = n,
                                                                .width = width,
                                                                .dt = dt});
    ref->embedding_backward(ref, &(struct tri_embedding_args){.dtable = narrow.ref,
                                                              .table_dtype = TRI_BF16,
                                                              .tokens = tokens,
                                                              .first_row = FIRST,
                                                              .rows = VOCAB,
                                                              .dy = y.ref,
                                                              .n = n,
                                                              .width = width,
                                                              .dt = dt});
    pair_end(&dtable, "dtable", 2, 2e-6);
    pair_end(&narrow, "bf16 dtable", 2, 2e-6);
    pair_end(&y, "embedding", 0, 0);
    pair_end(&table, "table", 0, 0);
}

static void gather(const struct tri_kernels *fast, enum tri_dtype dt, int64_t n, int64_t width)
{
    int32_t index[ROWS];
    for (int32_t i = 0; i < ROWS; i++) {
        index[i] = i % 4 == 3 ? -1 : i * 5 % 6;
    }
    struct pair src = pair_create(dt, 6 * width, 1.0);
    struct pair dst = pair_create(dt, n * width, 1.0);
    fast->gather_rows(
        fast,
        &(struct tri_gather_args){
            .src = src.fast, .index = index, .dst = dst.fast, .n = n, .width = width, .dt = dt});
    tri_kernels_ref()->gather_rows(
        tri_kernels_ref(),
        &(struct tri_gather_args){
            .src = src.ref, .index = index, .dst = dst.ref, .n = n, .width = width, .dt = dt});
    pair_end(&dst, "gather", 0, 0);
    pair_end(&src, "src", 0, 0);
}

/* Distinct indices into n*TOP rows, some of them -1. */
static void fill_index(int32_t *index, int64_t count)
{
    for (int64_t c = 0; c < count; c++) {
        index[c] = c % 5 == 2 ? -1 : (int32_t)(count - 1 - c);
    }
}

static void combine(const struct tri_kernels *fast, enum tri_dtype dt, int64_t n, int64_t width,
                    bool with_weight, bool with_add)
{
    const struct tri_kernels *ref = tri_kernels_ref();
    int32_t index[ROWS * TOP];
    fill_index(index, n * TOP);
    struct pair rows = pair_create(dt, n * TOP * width, 1.0);
    struct pair weight = pair_create(TRI_F32, n * TOP, 1.0);
    struct pair y = pair_create(dt, n * width, 1.0);
    fast->combine_rows(fast, &(struct tri_combine_args){.rows = rows.fast,
                                                        .index = index,
                                                        .weight = with_weight ? weight.fast : NULL,
                                                        .add = with_add ? y.fast : NULL,
                                                        .y = y.fast,
                                                        .n = n,
                                                        .k = TOP,
                                                        .width = width,
                                                        .dt = dt});
    ref->combine_rows(ref, &(struct tri_combine_args){.rows = rows.ref,
                                                      .index = index,
                                                      .weight = with_weight ? weight.ref : NULL,
                                                      .add = with_add ? y.ref : NULL,
                                                      .y = y.ref,
                                                      .n = n,
                                                      .k = TOP,
                                                      .width = width,
                                                      .dt = dt});
    pair_end(&y, "combine", 2, 4e-7);
    pair_end(&rows, "rows", 0, 0);
    pair_end(&weight, "weight", 0, 0);
}

static void combine_backward(const struct tri_kernels *fast, enum tri_dtype dt, int64_t n,
                             int64_t width)
{
    const struct tri_kernels *ref = tri_kernels_ref();
    int32_t index[ROWS * TOP];
    fill_index(index, n * TOP);
    struct pair dy = pair_create(dt, n * width, 1.0);
    struct pair rows = pair_create(dt, n * TOP * width, 1.0);
    struct pair drows = pair_create(dt, n * TOP * width, 1.0);
    struct pair weight = pair_create(TRI_F32, n * TOP, 1.0);
    struct pair dweight = pair_create(TRI_F32, n * TOP, 1.0);
    fast->combine_rows_backward(fast, &(struct tri_combine_args){.dy = dy.fast,
                                                                 .rows = rows.fast,
                                                                 .index = index,
                                                                 .weight = weight.fast,
                                                                 .drows = drows.fast,
                                                                 .dweight = dweight.fast,
                                                                 .n = n,
                                                                 .k = TOP,
                                                                 .width = width,
                                                                 .dt = dt});
    ref->combine_rows_backward(ref, &(struct tri_combine_args){.dy = dy.ref,
                                                               .rows = rows.ref,
                                                               .index = index,
                                                               .weight = weight.ref,
                                                               .drows = drows.ref,
                                                               .dweight = dweight.ref,
                                                               .n = n,
                                                               .k = TOP,
                                                               .width = width,
                                                               .dt = dt});
    pair_end(&drows, "drows", 1, 0);
    pair_end(&dweight, "dweight", 2, 5e-7 * sqrt((double)width));
    pair_end(&dy, "dy", 0, 0);
    pair_end(&rows, "rows", 0, 0);
    pair_end(&weight, "weight", 0, 0);
}

static void scale_and_dots(const struct tri_kernels *fast, enum tri_dtype dt, int64_t n,
                           int64_t width)
{
    const struct tri_kernels *ref = tri_kernels_ref();
    struct pair x = pair_create(dt, n * width, 1.0);
    struct pair gate = pair_create(TRI_F32, n, 1.0);
    struct pair add = pair_create(dt, n * width, 1.0);
    struct pair y = pair_create(dt, n * width, 1.0);
    struct pair dots = pair_create(TRI_F32, n, 1.0);
    fast->row_dots(fast, &(struct tri_dots_args){.left = x.fast,
                                                 .right = add.fast,
                                                 .dots = dots.fast,
                                                 .n = n,
                                                 .width = width,
                                                 .dt = dt});
    ref->row_dots(
        ref,
        &(struct tri_dots_args){
            .left = x.ref, .right = add.ref, .dots = dots.ref, .n = n, .width = width, .dt = dt});
    fast->scale_rows_add(fast, &(struct tri_scale_args){.x = x.fast,
                                                        .gate = gate.fast,
                                                        .add = add.fast,
                                                        .y = y.fast,
                                                        .n = n,
                                                        .width = width,
                                                        .dt = dt});
    ref->scale_rows_add(ref, &(struct tri_scale_args){.x = x.ref,
                                                      .gate = gate.ref,
                                                      .add = add.ref,
                                                      .y = y.ref,
                                                      .n = n,
                                                      .width = width,
                                                      .dt = dt});
    pair_end(&y, "scale_rows_add", 2, 2e-7);
    fast->scale_rows_add(fast, &(struct tri_scale_args){.x = x.fast,
                                                        .gate = gate.fast,
                                                        .add = add.fast,
                                                        .y = add.fast,
                                                        .n = n,
                                                        .width = width,
                                                        .dt = dt});
    ref->scale_rows_add(ref, &(struct tri_scale_args){.x = x.ref,
                                                      .gate = gate.ref,
                                                      .add = add.ref,
                                                      .y = add.ref,
                                                      .n = n,
                                                      .width = width,
                                                      .dt = dt});
    pair_end(&add, "scale_rows_add in place", 2, 2e-7);
    pair_end(&dots, "row_dots", 2, 5e-7 * sqrt((double)width));
    pair_end(&x, "x", 0, 0);
    pair_end(&gate, "gate", 0, 0);
}

static void check_all(const struct tri_kernels *fast, enum tri_dtype dt)
{
    static const int64_t counts[] = {0, 1, 5, ROWS};
    for (int i = 0; i < WIDTHS; i++) {
        for (int j = 0; j < 4; j++) {
            embedding(fast, dt, counts[j], widths[i]);
            gather(fast, dt, counts[j], widths[i]);
            for (int flags = 0; flags < 4; flags++) {
                combine(fast, dt, counts[j], widths[i], flags & 1, flags & 2);
            }
            combine_backward(fast, dt, counts[j], widths[i]);
            scale_and_dots(fast, dt, counts[j], widths[i]);
        }
    }
}

/* A product that overflows or is NaN must not be hidden by a weight of zero. */
static void check_nan(const struct tri_kernels *fast, enum tri_dtype dt)
{
    struct pair rows = pair_create(dt, 20, 1.0);
    struct pair weight = pair_create(TRI_F32, 1, 1.0);
    struct pair y = pair_create(dt, 20, 1.0);
    int32_t index[1] = {0};
    pair_set(&rows, 3, (double)NAN);
    pair_set(&rows, 18, (double)INFINITY);
    pair_set(&weight, 0, 0.0);
    fast->combine_rows(fast, &(struct tri_combine_args){.rows = rows.fast,
                                                        .index = index,
                                                        .weight = weight.fast,
                                                        .y = y.fast,
                                                        .n = 1,
                                                        .k = 1,
                                                        .width = 20,
                                                        .dt = dt});
    tri_kernels_ref()->combine_rows(tri_kernels_ref(),
                                    &(struct tri_combine_args){.rows = rows.ref,
                                                               .index = index,
                                                               .weight = weight.ref,
                                                               .y = y.ref,
                                                               .n = 1,
                                                               .k = 1,
                                                               .width = 20,
                                                               .dt = dt});
    assert_true(isnan(pair_get(&y, 3)) && isnan(pair_get(&y, 18)) && !isnan(pair_get(&y, 4)));
    pair_end(&y, "y", 1, 0);
    pair_end(&rows, "rows", 0, 0);
    pair_end(&weight, "weight", 0, 0);
}

struct embedding_call {
    struct pair *dtable, *dy;
    const int32_t *tokens;
    int64_t n, width;
    enum tri_dtype dt;
};

static void call_embedding(const struct tri_kernels *fast, void *context)
{
    const struct embedding_call *c = context;
    fast->embedding_backward(fast, &(struct tri_embedding_args){.dtable = c->dtable->fast,
                                                                .table_dtype = c->dtable->dtype,
                                                                .tokens = c->tokens,
                                                                .first_row = 0,
                                                                .rows = 5,
                                                                .dy = c->dy->fast,
                                                                .n = c->n,
                                                                .width = c->width,
                                                                .dt = c->dt});
}

static void check_threads(const struct tri_kernels *fast, enum tri_dtype dt)
{
    enum { WIDTH = 900 };
    int32_t tokens[ROWS];
    for (int32_t i = 0; i < ROWS; i++) {
        tokens[i] = i * i % 5;
    }
    for (int table = TRI_F32; table <= TRI_BF16; table++) {
        struct pair dtable = pair_create((enum tri_dtype)table, (int64_t)5 * WIDTH, 1.0);
        struct pair dy = pair_create(dt, (int64_t)ROWS * WIDTH, 1.0);
        struct embedding_call call = {&dtable, &dy, tokens, ROWS, WIDTH, dt};
        pair_same_on_threads(fast, (struct pair *[]){&dtable}, 1, call_embedding, &call);
        pair_end(&dtable, "dtable", 0, (double)INFINITY);
        pair_end(&dy, "dy", 0, 0);
    }
}

/* 300 tokens of 1/256 on a row that holds 1: added one by one in bf16 none would count. */
static void check_rounded_once(const struct tri_kernels *fast, enum tri_dtype dt)
{
    enum { TOKENS = 300 };
    static const int32_t tokens[TOKENS] = {0};
    struct pair dtable = pair_create(TRI_BF16, 1, 1.0);
    struct pair dy = pair_create(dt, TOKENS, 1.0);
    pair_set(&dtable, 0, 1.0);
    for (int64_t i = 0; i < TOKENS; i++) {
        pair_set(&dy, i, 1.0 / 256.0);
    }
    fast->embedding_backward(fast, &(struct tri_embedding_args){.dtable = dtable.fast,
                                                                .table_dtype = TRI_BF16,
                                                                .tokens = tokens,
                                                                .first_row = 0,
                                                                .rows = 1,
                                                                .dy = dy.fast,
                                                                .n = TOKENS,
                                                                .width = 1,
                                                                .dt = dt});
    tri_kernels_ref()->embedding_backward(tri_kernels_ref(),
                                          &(struct tri_embedding_args){.dtable = dtable.ref,
                                                                       .table_dtype = TRI_BF16,
                                                                       .tokens = tokens,
                                                                       .first_row = 0,
                                                                       .rows = 1,
                                                                       .dy = dy.ref,
                                                                       .n = TOKENS,
                                                                       .width = 1,
                                                                       .dt = dt});
    assert_true(pair_get(&dtable, 0) == 2.171875); /* 1 + 300/256 in bf16 */
    pair_end(&dtable, "dtable", 0, 0);
    pair_end(&dy, "dy", 0, 0);
}

static void test_all(void **state)
{
    (void)state;
    pair_each_table(check_all);
    pair_each_table(check_rounded_once);
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
        cmocka_unit_test(test_all),
        cmocka_unit_test(test_nan),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
