/* Windows of a whole micro-step: replicas that hold a share of its rows each must decide what one
 * rank decides that holds them all. */
#include "moe/fixture.h"

#include "base/random.h"
#include "moe/strategies.h"
#include "support/job.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SEQ = 8, ROWS_MAX = 7, CELLS_MAX = ROWS_MAX * SEQ * 8 };

static double sum_over(struct tri_group *group, double value)
{
    tri_all_reduce_sum(group, (struct tri_where){TRI_PHASE_EVAL, TRI_KIND_META}, &value, 1,
                       TRI_F64);
    return value;
}

static void check_share(const struct tri_config *config, struct tri_mesh *mesh, int64_t rows)
{
    const int64_t k = config->moe.top_k;
    const int64_t tokens = rows * SEQ;
    const int rank = tri_group_rank(tri_mesh_group(mesh, TRI_ON_EXPERT | TRI_ON_DATA));
    const struct tri_range own = tri_range_part(
        rows, tri_group_size(tri_mesh_group(mesh, TRI_ON_EXPERT | TRI_ON_DATA)), rank);
    const int64_t at = own.begin * SEQ;
    const int64_t n = tri_range_size(own) * SEQ;
    const size_t routes = (size_t)(n * k) * sizeof(int32_t);
    float dweight[CELLS_MAX];
    float expected[CELLS_MAX];
    float found[CELLS_MAX];
    for (int64_t i = 0; i < tokens * k; i++) {
        dweight[i] = (float)tri_random_normal(2, 2, (uint64_t)i);
    }
    struct fixture whole;
    fixture_begin(&whole, config, NULL, 0, rows, SEQ);
    double loss = fixture_forward(&whole);
    tri_router_backward(whole.router, &whole.call, &whole.routes, &whole.model,
                        (struct tri_range){0, tokens}, dweight, expected);
    struct fixture f;
    fixture_begin(&f, config, mesh, own.begin, tri_range_size(own), SEQ);
    f.call.global_tokens = tokens;
    double share = fixture_forward(&f);
    tri_router_backward(f.router, &f.call, &f.routes, &f.model, (struct tri_range){0, n},
                        dweight + at * k, found);
    assert_memory_equal(f.routes.chosen, whole.routes.chosen + at * k, routes);
    assert_memory_equal(f.routes.expert, whole.routes.expert + at * k, routes);
    assert_memory_equal(f.routes.weight, whole.routes.weight + at * k, routes);
    assert_memory_equal(found, expected + at * 8, (size_t)(n * 8) * sizeof(float));
    assert_int_equal(f.routes.capacity, whole.routes.capacity);
    assert_true(rank == 0 || !(share > 0));
    assert_close(sum_over(tri_mesh_group(mesh, TRI_ON_EXPERT | TRI_ON_DATA), share), loss, 1e-12);
    assert_close(
        sum_over(tri_mesh_group(mesh, TRI_ON_EXPERT | TRI_ON_DATA), (double)f.routes.dropped),
        (double)whole.routes.dropped, 0);
    fixture_end(&f);
    fixture_end(&whole);
}

static struct tri_config config_of(int i)
{
    struct tri_config config;
    fixture_config(&config);
    struct tri_config_moe *moe = &config.moe;
    moe->router = (const struct tri_router_kind *)tri_strategies.routers[i % 5];
    moe->top_k = moe->router == &tri_router_deepspeed_top1 ? 1 : 2;
    moe->normalize_top_k = true;
    moe->drop_policy = (enum tri_drop_policy)(i / 5 % 3);
    moe->deepspeed_rts = i / 5 % 3 == 2;
    moe->aux_scope = i / 15 == 0 ? TRI_AUX_LAYER : TRI_AUX_MODEL;
    moe->capacity_factor = 0.7;
    moe->capacity_window = TRI_WINDOW_STEP;
    moe->aux_window = TRI_WINDOW_STEP;
    moe->aux_loss = 0.1;
    return config;
}

static void check_layout(int tensor, int expert)
{
    struct tri_mesh *mesh = NULL;
    struct tri_error error;
    if (tri_mesh_create(job(), tensor, 1, 1, expert, &mesh, &error) != TRI_OK) {
        fail_msg("%s", error.message);
    }
    for (int i = 0; i < 30; i++) {
        struct tri_config config = config_of(i);
        check_share(&config, mesh, ROWS_MAX);
        check_share(&config, mesh, 3); /* of four replicas one has none */
    }
    tri_mesh_destroy(mesh);
}

static void test_layouts(void **state)
{
    (void)state;
    for (int tensor = 1; tensor <= job_size(); tensor *= 2) {
        for (int expert = 1; tensor * expert <= job_size(); expert *= 2) {
            check_layout(tensor, expert);
        }
    }
}

/* What does not need the others asks for nothing. */
static void test_silence(void **state)
{
    (void)state;
    struct tri_mesh *mesh = NULL;
    struct tri_error error;
    assert_int_equal(tri_mesh_create(job(), 1, 1, 1, 1, &mesh, &error), TRI_OK);
    for (int window = 0; window < 3; window++) {
        struct tri_config config = config_of(0);
        config.moe.capacity_window = (enum tri_window)window;
        config.moe.aux_window = (enum tri_window)window;
        struct fixture f;
        fixture_begin(&f, &config, mesh, 0, 2, SEQ);
        tri_ledger_reset(job_ledger());
        (void)fixture_forward(&f);
        int64_t bytes = tri_ledger_sum(job_ledger(), -1, -1, -1, -1).bytes;
        int64_t meta = tri_ledger_sum(job_ledger(), -1, tri_group_id(TRI_ON_EXPERT | TRI_ON_DATA),
                                      TRI_PHASE_FORWARD, TRI_KIND_META)
                           .bytes;
        bool speaks = window == TRI_WINDOW_STEP && job_size() > 1;
        /* tokens, counts and sums of 8 experts; tokens and counts */
        assert_int_equal(bytes, speaks ? (1 + 2 * 8) * 8 + (1 + 8) * 8 : 0);
        assert_int_equal(meta, bytes);
        fixture_end(&f);
    }
    tri_mesh_destroy(mesh);
}

static int run_job(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layouts),
        cmocka_unit_test(test_silence),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return failed;
}

int main(int argc, char **argv)
{
    return job_run(argc, argv, run_job);
}
