/* What a run learned beside its weights is kept when a key no longer asks for it: the bias of
 * moe.bias_balancing. */
#include "cli/cli.h"
#include "edges/state.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define BALANCED                                                                                   \
    "train", "c.yaml", "run_dir=run", "moe.every=1", "moe.bias_balancing=0.05",                    \
        "train.schedule=constant"
#define STOPPED "train", "c.yaml", "moe.every=1", "moe.bias_balancing=0", "train.schedule=constant"

static json_t *bias_of(const char *run, int64_t step)
{
    json_t *root = edges_state(run, step);
    json_t *bias = json_incref(json_object_get(root, "bias"));
    json_decref(root);
    assert_int_equal(json_array_size(bias), 2);
    assert_int_equal(json_array_size(json_array_get(bias, 0)), 4);
    return bias;
}

static double eval_loss(const char *override)
{
    struct process_result result =
        cli_run(cli_ranks(), CLI_WORDS_OF("eval", "run", "--json", override));
    json_t *root = cli_expect_json(&result, 0);
    double loss = json_real_value(json_object_get(root, "loss"));
    json_decref(root);
    return loss;
}

static int train(void **state)
{
    (void)state;
    cli_run_well(cli_ranks(), CLI_WORDS_OF(BALANCED));
    return 0;
}

static void test_evaluation_keeps_it(void **state)
{
    (void)state;
    double loss = eval_loss("moe.bias_balancing=0.05");
    assert_true(eval_loss("moe.bias_balancing=0") == loss);
    assert_true(eval_loss("moe.bias_balancing=1") == loss);
    /* The bias matters: a state without it has another loss. */
    json_t *root = edges_state("run", 4);
    json_t *bias = json_incref(json_object_get(root, "bias"));
    (void)json_object_set_new(root, "bias", json_array());
    edges_state_write("run", 4, root);
    assert_true(fabs(eval_loss("moe.bias_balancing=0") - loss) > 1e-7);
    root = edges_state("run", 4);
    (void)json_object_set_new(root, "bias", bias);
    edges_state_write("run", 4, root);
    assert_true(eval_loss("moe.bias_balancing=0") == loss);
}

/* Both sides of verify have it, also where it is no longer learned. */
static void test_verify_has_it(void **state)
{
    (void)state;
    cli_run_well(cli_ranks(), CLI_WORDS_OF("verify", "c.yaml", "moe.every=1", "init_from=run",
                                           "moe.bias_balancing=0", "--steps", "2"));
}

/* One line, with --json too; other keys say nothing. */
static void test_other_results_are_told(void **state)
{
    (void)state;
    static const char *const words[][3] = {
        {"moe.top_k=1", "moe.top_k 2 → 1: the weights give other results", "1"},
        {"moe.normalize_top_k=false", "moe.normalize_top_k true → false: ", "1"},
        {"moe.router=balanced", "moe.router top_k → balanced: ", "1"},
        {"moe.capacity_factor=1", "moe.capacity_factor none → 1: ", "1"},
        {"model.rope_theta=5000", "model.rope_theta 10000 → 5000: ", "1"},
        {"train.micro_batch=1", "the weights give other results", ""},
    };
    for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++) {
        struct process_result result =
            cli_run(cli_ranks(),
                    CLI_WORDS_OF("eval", "run", "--json", words[i][0], "moe.bias_balancing=0"));
        assert_int_equal(cli_count(result.err, words[i][1]), words[i][2][0] == '1');
        cli_expect_status(&result, 0);
    }
}

/* 0 stops the adjusting and keeps the bias through saves, to be adjusted again later. */
static void test_resume_keeps_it(void **state)
{
    (void)state;
    json_t *before = bias_of("run", 4);
    cli_run_well(cli_ranks(), CLI_WORDS_OF(STOPPED, "run_dir=more", "resume=run", "train.steps=6"));
    json_t *stopped = bias_of("more", 6);
    assert_true(json_equal(before, stopped));
    cli_run_well(cli_ranks(), CLI_WORDS_OF(STOPPED, "run_dir=more", "train.steps=8"));
    json_t *again = bias_of("more", 8);
    assert_true(json_equal(before, again));
    cli_run_well(cli_ranks(),
                 CLI_WORDS_OF(STOPPED, "run_dir=more", "moe.bias_balancing=0.05", "train.steps=9"));
    json_t *adjusted = bias_of("more", 9);
    assert_false(json_equal(before, adjusted));
    json_decref(before);
    json_decref(stopped);
    json_decref(again);
    json_decref(adjusted);
    /* What no format of others has a place for is not exported without it. */
    struct process_result result = cli_run(0, CLI_WORDS_OF("export", "more", "hf"));
    cli_expect_error(&result, 0, 2, "moe.bias_balancing");
    cli_run_well(0, CLI_WORDS_OF(STOPPED, "run_dir=last", "resume=run", "train.steps=5"));
    result = cli_run(0, CLI_WORDS_OF("export", "last", "hf"));
    cli_expect_error(&result, 0, 2, "the bias that moe.bias_balancing learned");
}

static void test_router_that_does_not_use_it(void **state)
{
    (void)state;
    struct process_result result =
        cli_run(cli_ranks(), CLI_WORDS_OF(STOPPED, "run_dir=turns", "resume=run", "train.steps=5",
                                          "moe.router=balanced"));
    assert_int_equal(cli_count(result.err, "moe.router balanced does not choose by it"), 1);
    cli_expect_status(&result, 0);
    json_t *before = bias_of("run", 4);
    json_t *after = bias_of("turns", 5);
    assert_true(json_equal(before, after));
    json_decref(before);
    json_decref(after);
}

/* Another shape than the model's is refused, not read past its end. */
static void test_other_shape(void **state)
{
    (void)state;
    json_t *root = edges_state("run", 4);
    (void)json_array_remove(json_object_get(root, "bias"), 0);
    edges_state_write("run", 4, root);
    struct process_result result = cli_run(cli_ranks(), CLI_WORDS_OF("eval", "run"));
    cli_expect_error(&result, cli_ranks(), 2, "bias");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_evaluation_keeps_it),         cmocka_unit_test(test_verify_has_it),
        cmocka_unit_test(test_other_results_are_told),      cmocka_unit_test(test_resume_keeps_it),
        cmocka_unit_test(test_router_that_does_not_use_it), cmocka_unit_test(test_other_shape),
    };
    cli_begin("kept_state", argc, argv);
    int failed = cmocka_run_group_tests(tests, train, NULL);
    cli_end();
    return failed;
}
