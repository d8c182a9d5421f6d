/* verify follows training from equal weights and moments at each step: a good layout passes where a
 * free training would be judged by its chaos, and what is planted is still found. */
#include "cli/cli.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char config[] =
    "seed: 77\n"
    "threads: 1\n"
    "model: {vocab_size: 256, num_layers: 4, hidden_size: 96, num_heads: 8, num_kv_heads: 4,\n"
    "        head_dim: 24, intermediate_size: 168, max_position: 80, rope_theta: 5000,\n"
    "        qk_norm: head, tie_embeddings: true}\n"
    "moe: {num_experts: 12, top_k: 3, every: 2, intermediate_size: 72, aux_loss: 0.02}\n"
    "data: {train: \"english/train_*.bin\", sequence_length: 32}\n"
    "train: {global_batch: 8, micro_batch: 1, steps: 30, learning_rate: 2e-3, warmup_steps: 5}\n";

/* words: layout and changes, at most 16. */
static json_t *verify(int status, const char *const *words)
{
    const char *all[20] = {"verify", "chaos.yaml", "--json"};
    for (size_t i = 0; words[i]; i++) {
        all[3 + i] = words[i];
    }
    struct process_result result = cli_run(cli_ranks(), all);
    return cli_expect_json(&result, status);
}

/* A rate at which two trainings that differ in the last bit are far apart in 16 steps. */
static void test_chaos(void **state)
{
    (void)state;
    const char *layout = cli_ranks() > 2 ? "parallel.expert=2" : "parallel.expert=1";
    json_t *root = verify(0, CLI_WORDS_OF("--steps", "16", "train.learning_rate=5e-2",
                                          "train.warmup_steps=1", "parallel.tensor=2", layout));
    json_t *change = json_object_get(root, "worst_change");
    assert_true(json_is_true(json_object_get(root, "passed")));
    assert_int_equal(json_integer_value(json_object_get(root, "steps")), 16);
    assert_true(json_real_value(json_object_get(root, "worst_training_loss")) < 1e-5);
    assert_true(json_real_value(json_object_get(change, "relative_l2")) < 5e-3);
    assert_non_null(json_string_value(json_object_get(change, "parameter")));
    assert_true(json_integer_value(json_object_get(root, "reference_bytes")) > 0);
    json_decref(root);
    if (cli_ranks() > 2) {
        json_decref(verify(
            0, CLI_WORDS_OF("--steps", "6", "parallel.tensor=4", "parallel.expert_tensor=1")));
        json_decref(verify(0, CLI_WORDS_OF("--steps", "6", "parallel.expert=2")));
    }
}

static void expect_planted(const char *name, const char *factor, const char *steps)
{
    char plant[128];
    (void)snprintf(plant, sizeof(plant), "%s=%s", name, factor);
    json_t *root =
        verify(1, CLI_WORDS_OF("--plant", plant, "--steps", steps, "--compare", "1",
                               cli_ranks() > 2 ? "parallel.expert=4" : "parallel.expert=2"));
    assert_string_equal(
        json_string_value(json_object_get(json_object_get(root, "worst"), "parameter")), name);
    json_decref(root);
}

/* AdamW divides a factor out again: it is the gradients' comparison that finds it. */
static void test_plants(void **state)
{
    (void)state;
    expect_planted("layers.1.moe.experts.7.down.weight", "1.001", "2");
    expect_planted("layers.2.attention.q_norm.weight", "0.999", "0");
    expect_planted("embedding.weight", "-1", "2");
}

/* "equal" of windows that the layout deals is not "as one rank would": it is said. */
static void test_windows(void **state)
{
    (void)state;
    static const char note[] = "windows    of 'step' are counted as this layout deals the rows";
    const char *layout = cli_ranks() > 2 ? "parallel.tensor=2" : "parallel.tensor=1";
    struct process_result result =
        cli_run(cli_ranks(), CLI_WORDS_OF("verify", "chaos.yaml", "--steps", "1", "--compare", "1",
                                          "moe.aux_window=step", layout));
    assert_int_equal(cli_count(result.out, note), 1);
    cli_expect_status(&result, 0);
    json_t *root =
        verify(0, CLI_WORDS_OF("--steps", "0", "--compare", "1", "moe.aux_window=step", layout));
    assert_true(json_is_true(json_object_get(root, "windows_as_dealt")));
    json_decref(root);
    root = verify(0, CLI_WORDS_OF("--steps", "0", "--compare", "1", layout));
    assert_true(json_is_false(json_object_get(root, "windows_as_dealt")));
    json_decref(root);
}

/* Keys that are not turned: the gradient of their bias is 0 but for rounding, which large weights
 * make large. */
static void test_key_bias(void **state)
{
    (void)state;
    json_decref(
        verify(0, CLI_WORDS_OF("--steps", "4", "model.position=learned", "model.qk_norm=none",
                               "model.bias=qkv", "model.init_std=0.35", "model.num_layers=2",
                               "parallel.tensor=2")));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chaos),
        cmocka_unit_test(test_plants),
        cmocka_unit_test(test_windows),
        cmocka_unit_test(test_key_bias),
    };
    static const char text[] = TRIDENT_SOURCE_DIR "/examples/data/tinyshakespeare.txt";
    cli_begin("edges_verify", argc, argv);
    cli_write("chaos.yaml", config);
    cli_run_well(0, CLI_WORDS_OF("tokenize", "--tokenizer", "byte", "--out", "english", text));
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    cli_end();
    return failed;
}
