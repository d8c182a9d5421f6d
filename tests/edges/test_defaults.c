/* Defaults that follow another key still do in what a run or an import leaves behind. */
#include "cli/cli.h"
#include "edges/state.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static int train(void **state)
{
    (void)state;
    cli_run_well(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "model.qk_norm=head", "run_dir=run"));
    return 0;
}

static void expect_in_file(const char *path, const char *text)
{
    char *found = cli_read(path, NULL);
    assert_non_null(found);
    if (!strstr(found, text)) {
        print_error("%s: no '%s' in:\n%s", path, text, found);
    }
    assert_non_null(strstr(found, text));
    free(found);
}

static int64_t planned_expert_tensor(const char *config)
{
    struct process_result result =
        cli_run(0, CLI_WORDS_OF("plan", config, "--ranks", "4", "--json", "parallel.tensor=4"));
    json_t *root = cli_expect_json(&result, 0);
    int64_t degree = json_integer_value(json_object_get(root, "expert_tensor"));
    json_decref(root);
    return degree;
}

static void test_config_of_a_run(void **state)
{
    (void)state;
    assert_int_equal(planned_expert_tensor("run/config.yaml"), 4);
    cli_run_well(cli_ranks(),
                 CLI_WORDS_OF("train", "run/config.yaml", "run_dir=again", "train.steps=10",
                              "train.global_batch=8", "train.learning_rate=2e-3"));
    expect_in_file("again/config.yaml", "\n  # micro_batch: 8  (global_batch)\n");
    expect_in_file("again/config.yaml", "\n  # min_learning_rate: 0.0002  (learning_rate / 10)\n");
    expect_in_file("again/config.yaml", "\n  # decay_steps: 2  (steps / 5)\n");
    expect_in_file("again/config.yaml", "\n  # head_dim: 8  (hidden_size / num_heads)\n");
}

static double eval_loss(int ranks, const char *path, const char *override)
{
    struct process_result result =
        cli_run(ranks, CLI_WORDS_OF("eval", path, "--json", "--data", "tok/valid_*.bin", override));
    json_t *root = cli_expect_json(&result, 0);
    double loss = json_real_value(json_object_get(root, "loss"));
    json_decref(root);
    return loss;
}

static void test_config_of_an_import(void **state)
{
    (void)state;
    cli_run_well(0, CLI_WORDS_OF("export", "run", "hf"));
    cli_run_well(0, CLI_WORDS_OF("import", "hf", "imported"));
    json_t *root = json_load_file("imported/state.json", 0, NULL);
    assert_non_null(root);
    cli_write("imported.yaml", json_string_value(json_object_get(root, "config")));
    json_decref(root);
    expect_in_file("imported.yaml", "\n  # expert_tensor: 1  (tensor)\n");
    expect_in_file("imported.yaml", "\n  # min_learning_rate: ");
    assert_int_equal(planned_expert_tensor("imported.yaml"), 4);
    if (cli_ranks() > 1) {
        double one = eval_loss(0, "imported", "parallel.tensor=1");
        double cut = eval_loss(2, "imported", "parallel.tensor=2");
        assert_true(fabs(one - cut) <= 2e-6 * one);
    }
}

/* The shapes of a checkpoint's weights are what they are, whatever the keys that they followed in
 * training say now. */
static void test_shapes_stay(void **state)
{
    (void)state;
    cli_write("learned.yaml",
              "run_dir: learned\n"
              "model: {num_layers: 1, hidden_size: 32, num_heads: 4, position: learned}\n"
              "data: {train: \"tok/train_*.bin\", sequence_length: 16}\n"
              "train: {global_batch: 4, steps: 1}\n");
    cli_run_well(cli_ranks(), CLI_WORDS_OF("train", "learned.yaml"));
    (void)eval_loss(cli_ranks(), "learned", "data.sequence_length=8");
}

/* As an older program printed it: every default is a value, and no comment. */
static char *with_values(const char *yaml)
{
    char *text = strdup(yaml);
    assert_non_null(text);
    for (char *at = text; (at = strstr(at, "  # "));) {
        memmove(at + 2, at + 4, strlen(at + 4) + 1);
        char *note = strstr(at + 2, "  (");
        char *end = strchr(at, '\n');
        assert_true(note && end && note < end);
        memmove(note, end, strlen(end) + 1);
    }
    return text;
}

static void test_older_checkpoint(void **state)
{
    (void)state;
    json_t *root = edges_state("run", 4);
    char *older = with_values(json_string_value(json_object_get(root, "config")));
    assert_non_null(strstr(older, "\n  expert_tensor: 1\n"));
    (void)json_object_set_new(root, "config", json_string(older));
    (void)json_object_del(root, "samples");
    (void)json_object_del(root, "data");
    free(older);
    edges_state_write("run", 4, root);
    struct process_result result =
        cli_run(cli_ranks(),
                CLI_WORDS_OF("train", "c.yaml", "model.qk_norm=head", "run_dir=run",
                             "train.steps=10", "train.global_batch=8", "train.learning_rate=2e-3"));
    assert_int_equal(cli_count(result.err, "changed  train.global_batch 4 → 8, train.steps 4 → 10, "
                                           "train.learning_rate 0.001 → 0.002; rate "),
                     1);
    cli_expect_status(&result, 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_config_of_a_run),
        cmocka_unit_test(test_config_of_an_import),
        cmocka_unit_test(test_shapes_stay),
        cmocka_unit_test(test_older_checkpoint),
    };
    cli_begin("defaults", argc, argv);
    int failed = cmocka_run_group_tests(tests, train, NULL);
    cli_end();
    return failed;
}
