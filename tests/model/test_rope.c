/* Rotary frequencies of yarn, its range whole and as it is: numbers of the formulas of transformers
 * (_compute_yarn_parameters), worked out in Python. */
#include "model/rope.h"

#include "base/memory.h"
#include "moe/strategies.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

enum { DIM = 16, POSITIONS = 4096 };

static void expect_turns(bool truncate, const double each[DIM / 2])
{
    struct tri_config config;
    tri_config_init(&tri_strategies, &config);
    struct tri_config_model *m = &config.model;
    m->max_position = POSITIONS;
    m->head_dim = DIM;
    m->rope_scaling = TRI_ROPE_YARN;
    m->rope_factor = 8.0;
    m->rope_original = 512;
    m->rope_attention = 1.0;
    m->rope_truncate = truncate;
    struct tri_kernels *kernels = tri_kernels_create(TRI_KERNELS_REPRODUCIBLE, NULL, 1);
    float *table = tri_rope_table_create(&config, kernels);
    for (int j = 0; j < DIM / 2; j++) {
        for (int position = 0; position < POSITIONS; position += 117) {
            const float *row = table + (size_t)position * DIM;
            assert_true(fabs((double)row[j] - cos(position * each[j])) < 1e-6);
            assert_true(fabs((double)row[DIM / 2 + j] - sin(position * each[j])) < 1e-6);
        }
    }
    tri_free(table);
    tri_kernels_destroy(kernels);
}

static void test_yarn(void **state)
{
    (void)state;
    static const double whole[] = {1,
                                   0.24705294220065463,
                                   0.056250000000000001,
                                   0.010870329456828804,
                                   0.00125,
                                   0.00039528470752104737,
                                   0.000125,
                                   3.9528470752104742e-05};
    static const double exact[] = {1,
                                   0.29893626386664773,
                                   0.06546507607370558,
                                   0.01151012313115575,
                                   0.00125,
                                   0.00039528470752104737,
                                   0.000125,
                                   3.9528470752104742e-05};
    expect_turns(true, whole);
    expect_turns(false, exact);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_yarn)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
