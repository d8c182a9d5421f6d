/* Sizes at the ends of what is allowed: a plan and a checkpoint of very many weights, and keys at
 * the ends of their ranges. */
#include "base/file.h"
#include "cli/cli.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* 1,024 experts in each of 256 layers: once over a minute and 0.9 GB, in searches of the table row
 * by row and in the softmax of logits that nobody had. */
static void test_plan(void **state)
{
    (void)state;
    struct process_result result =
        cli_run(0, CLI_WORDS_OF("plan", "c.yaml", "--json", "model.num_layers=256", "moe.every=1",
                                "moe.num_experts=1024", "model.max_position=128",
                                "data.sequence_length=128", "train.global_batch=32",
                                "train.micro_batch=4"));
#ifndef __SANITIZE_ADDRESS__
    assert_true(result.max_rss_kib < 512 * 1024);
#endif
    json_t *root = cli_expect_json(&result, 0);
    assert_true(json_integer_value(json_object_get(json_object_get(root, "bytes"), "total")) > 0);
    json_decref(root);
}

/* Activations of 2.1 GB each, which are counted and not touched: zeros that are added to once were
 * written. */
static void test_plan_of_many_tokens(void **state)
{
    (void)state;
    struct process_result result =
        cli_run(0, CLI_WORDS_OF("plan", "c.yaml", "--json", "model.hidden_size=8192",
                                "moe.shared_intermediate_size=64", "model.max_position=16384",
                                "data.sequence_length=16384", "train.global_batch=4",
                                "train.micro_batch=4"));
#ifndef __SANITIZE_ADDRESS__
    assert_true(result.max_rss_kib < 128 * 1024);
#endif
    cli_expect_status(&result, 0);
}

/* More weights than the header of one file has room for go to several: 24 x 1,024 experts of three
 * matrices each. Their names in one header would pass what a reader takes if there were more of
 * them; what was written must be read again, by us and as a Hugging Face folder. */
static void test_many_weights(void **state)
{
    (void)state;
    const char *const many[] = {"model.num_layers=24",
                                "model.hidden_size=2",
                                "model.num_heads=1",
                                "model.head_dim=2",
                                "moe.every=1",
                                "moe.num_experts=1024",
                                "moe.top_k=2",
                                "moe.intermediate_size=1",
                                "data.sequence_length=8",
                                "train.global_batch=1",
                                "train.micro_batch=1",
                                "train.steps=1",
                                "moe.router=top_k",
                                "eval.every=0",
                                "data.valid="};
    const char *words[CLI_WORDS] = {"train", "c.yaml", "run_dir=many"};
    memcpy(words + 3, many, sizeof(many));
    cli_run_well(0, words);
    assert_true(tri_file_exists("many/checkpoints/step_1/model-00002-of-00002.safetensors"));
    assert_true(tri_file_exists("many/checkpoints/step_1/optimizer-00002-of-00002.safetensors"));
    char trained[32];
    char imported[32];
    cli_digest("many", trained);
    cli_run_well(0, CLI_WORDS_OF("export", "many", "many_hf"));
    assert_true(tri_file_exists("many_hf/model-00002-of-00002.safetensors"));
    cli_run_well(0, CLI_WORDS_OF("import", "many_hf", "many_back"));
    cli_digest("many_back", imported);
    assert_string_equal(trained, imported);
}

/* What a key takes the program can do. */
static void test_messages(void **state)
{
    (void)state;
    struct process_result result =
        cli_run(0, CLI_WORDS_OF("plan", "c.yaml", "comm.max_message=1073741825"));
    cli_expect_error(&result, 0, 2, "comm.max_message");
    result = cli_run(0, CLI_WORDS_OF("plan", "c.yaml", "comm.max_message=2147483647"));
    cli_expect_error(&result, 0, 2, "comm.max_message");
    cli_run_well(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "run_dir=most", "train.steps=2",
                                           "comm.max_message=1073741824"));
    cli_run_well(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "run_dir=least", "train.steps=1",
                                           "comm.max_message=1"));
}

int main(int argc, char **argv)
{
    cli_begin("large", argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plan),
        cmocka_unit_test(test_plan_of_many_tokens),
        cmocka_unit_test(test_many_weights),
        cmocka_unit_test(test_messages),
    };
    const struct CMUnitTest launched[] = {cmocka_unit_test(test_messages)};
    int failed = cli_ranks() == 0 ? cmocka_run_group_tests(tests, NULL, NULL)
                                  : cmocka_run_group_tests(launched, NULL, NULL);
    cli_end();
    return failed;
}
