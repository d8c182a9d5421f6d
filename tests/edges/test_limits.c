/* Jobs whose address space is limited (ulimit -v) run in what they plan, and what has no room there
 * is refused. */
#include "cli/cli.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static void test_commands(void **state)
{
    (void)state;
    int ranks = cli_ranks();
    cli_run_well(ranks, CLI_WORDS_OF("train", "c.yaml", "run_dir=tight"));
    cli_run_well(ranks, CLI_WORDS_OF("train", "c.yaml", "run_dir=stashed", "train.recompute=full"));
    cli_run_well(ranks, CLI_WORDS_OF("verify", "c.yaml", "--steps", "2"));
    cli_run_well(ranks, CLI_WORDS_OF("eval", "tight"));
    cli_run_well(ranks, CLI_WORDS_OF("generate", "tight", "--tokens", "5"));
    cli_run_well(ranks, CLI_WORDS_OF("plan", "c.yaml"));
    /* Micro-batches are no longer than the batch. */
    cli_run_well(0, CLI_WORDS_OF("plan", "c.yaml", "train.micro_batch=10000000"));
}

/* Some gigabytes where there is one: what is needed is told, what is free, and the limit. A plan,
 * which takes addresses for what it counts, has no more room than a run. */
static void test_too_much(void **state)
{
    (void)state;
    static const char *const commands[] = {"train", "plan"};
    for (int i = 0; i < 2; i++) {
        struct process_result result =
            cli_run(0, CLI_WORDS_OF(commands[i], "c.yaml", "run_dir=large",
                                    "model.hidden_size=2048", "model.intermediate_size=32768"));
        assert_int_equal(cli_count(result.err, "(limit: ulimit -v)"), 1);
        cli_expect_error(&result, 0, 3, "the parameters alone take ");
        result =
            cli_run(0, CLI_WORDS_OF(commands[i], "c.yaml", "run_dir=large",
                                    "model.max_position=1000000", "data.sequence_length=1000000"));
        assert_int_equal(cli_count(result.err, "(limit: ulimit -v)"), 1);
        assert_int_equal(cli_count(result.err, "trident: error: "), 1);
        assert_int_equal(cli_count(result.err, " GB more for activations beside "), 1);
        cli_expect_status(&result, 3);
        result = cli_run(
            0, CLI_WORDS_OF(commands[i], "c.yaml", "run_dir=large", "train.global_batch=10000000"));
        cli_expect_error(&result, 0, 3, "only to plan, but 1.");
    }
}

/* A run that has begun has its memory: that there are no addresses for another one beside it, as a
 * rehearsal takes, does not end it. */
static void test_one_but_not_two(void **state)
{
    (void)state;
    if (cli_ranks() != 0) {
        skip();
    }
#ifndef __SANITIZE_ADDRESS__
    cli_set_wrapper("./least.sh");
    for (int megabytes = 540; megabytes <= 740; megabytes += 40) {
        char limit[32];
        (void)snprintf(limit, sizeof(limit), "LEAST=%d", megabytes * 1000);
        const char *const changes[] = {limit, NULL};
        struct process_result result = cli_run_with(
            0, changes,
            CLI_WORDS_OF("train", "c.yaml", "--fresh", "run_dir=one",
                         "data.valid=", "train.steps=1", "checkpoint.every=0",
                         "train.global_batch=768", "train.micro_batch=768", "moe.num_experts=128",
                         "moe.top_k=1", "moe.intermediate_size=512"));
        assert_true(result.status == 0 || access("one/config.yaml", F_OK) != 0);
        process_result_fini(&result);
        cli_tool(CLI_WORDS_OF("rm", "-rf", "one"));
    }
    cli_set_wrapper("./limited.sh");
#endif
}

/* Decoding takes one row of the prompt's length and the cache, not an evaluation's batches; and the
 * cache counts. */
static void test_generate(void **state)
{
    (void)state;
    const char *const limit[] = {"TRIDENT_MEMORY_LIMIT=60000000", NULL};
    cli_run_well(0, CLI_WORDS_OF("train", "c.yaml", "run_dir=wide", "train.steps=1",
                                 "train.global_batch=1", "data.valid="));
    const char *const big[] = {"generate",
                               "wide",
                               "--tokens",
                               "1",
                               "--prompt",
                               "as long as it gets: 31 in all.",
                               "train.micro_batch=4096",
                               "train.global_batch=4096",
                               NULL};
    struct process_result result = cli_run_with(0, limit, big);
    cli_expect_status(&result, 0);
    cli_run_well(0, CLI_WORDS_OF("train", "c.yaml", "run_dir=far", "train.steps=1",
                                 "data.valid=", "model.max_position=1000000"));
    /* There is room for all but the cache. */
    result = cli_run_with(0, CLI_WORDS_OF("TRIDENT_MEMORY_LIMIT=300000000"),
                          CLI_WORDS_OF("generate", "far", "--tokens", "999000"));
    cli_expect_error(&result, 0, 3, "beside them 0.5");
}

static void test_malformed(void **state)
{
    (void)state;
    struct process_result result =
        cli_run_with(1, CLI_WORDS_OF("TRIDENT_MEMORY_LIMIT=20G"), CLI_WORDS_OF("train", "c.yaml"));
    cli_expect_error(&result, 1, 2, "TRIDENT_MEMORY_LIMIT: found '20G', expected a number");
}

/* Verify's reference is a second model on rank 0: where there is room for one alone, it says so. */
static void test_reference(void **state)
{
    (void)state;
    const char *const limit[] = {"TRIDENT_MEMORY_LIMIT=325000000", NULL};
    struct process_result result = cli_run_with(
        0, limit,
        CLI_WORDS_OF("verify", "c.yaml", "--steps", "0", "--compare", "1", "model.hidden_size=768",
                     "model.intermediate_size=3072", "moe.every=1", "moe.intermediate_size=512"));
    cli_expect_error(&result, 0, 3, "GB for the reference, and this node's ranks ");
}

/* Import and export hold the whole model on one rank. */
static void test_copies(void **state)
{
    (void)state;
    const char *const limit[] = {"TRIDENT_MEMORY_LIMIT=20000000", NULL};
    int ranks = cli_ranks();
    struct process_result result =
        cli_run_with(ranks, limit, CLI_WORDS_OF("import", TESTDATA_DIR "/golden/llama", "small"));
    cli_expect_error(&result, ranks, 3, "import needs 0.");
    assert_int_equal(access("small", F_OK), -1);
    cli_run_well(ranks, CLI_WORDS_OF("import", TESTDATA_DIR "/golden/llama", "small"));
    result = cli_run_with(ranks, limit, CLI_WORDS_OF("export", "small", "out"));
    cli_expect_error(&result, ranks, 3, "but 0.02 GB is free");
    assert_int_equal(access("out", F_OK), -1);
    cli_run_well(ranks, CLI_WORDS_OF("export", "small", "out"));
}

/* What a model takes is found from its config.json, before the weights are opened. */
static void test_import_of_too_much(void **state)
{
    (void)state;
    assert_int_equal(mkdir("giant", 0777), 0);
    cli_write("giant/config.json",
              "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", "
              "\"hidden_size\": 8192, \"intermediate_size\": 28672, \"num_hidden_layers\": 80, "
              "\"num_attention_heads\": 64, \"num_key_value_heads\": 8, \"vocab_size\": 32000, "
              "\"max_position_embeddings\": 4096, \"rms_norm_eps\": 1e-5, "
              "\"rope_theta\": 10000.0, \"hidden_act\": \"silu\"}");
    struct process_result result = cli_run(0, CLI_WORDS_OF("import", "giant", "giant_ck"));
    cli_expect_error(&result, 0, 3, "(weights 275.9");
}

/* So little memory that it ends while files are read: never is a file called bad for it. (hwloc and
 * the MPI libraries don't look whether they were given memory: the status may be a signal's.) */
static void test_hardly_any(void **state)
{
    (void)state;
    enum { BAD_INPUT = 2, REFUSED = 3 };
    int refused = 0;
    if (cli_ranks() != 0) {
        skip(); /* ranks that are threads need no launcher */
    }
    cli_run_well(0, CLI_WORDS_OF("train", "c.yaml", "run_dir=least"));
    cli_set_wrapper("./least.sh");
    for (int megabytes = 40; megabytes < 100; megabytes += 3) {
        char limit[32];
        (void)snprintf(limit, sizeof(limit), "LEAST=%d", megabytes * 1000);
        const char *const changes[] = {limit, NULL};
        struct process_result result =
            cli_run_with(0, changes, CLI_WORDS_OF("eval", "least", "--ranks", "1"));
        assert_int_not_equal(result.status, BAD_INPUT);
        refused += result.status == REFUSED && cli_count(result.err, "trident: error: ") == 1;
        process_result_fini(&result);
    }
    cli_set_wrapper("./limited.sh");
    assert_true(refused > 2);
}

int main(int argc, char **argv)
{
    cli_begin("limits", argc, argv);
    cli_write("limited.sh", "#!/bin/sh\nulimit -v 1500000\nexec \"$@\"\n");
    (void)chmod("limited.sh", 0755);
    cli_write("least.sh", "#!/bin/sh\nulimit -v $LEAST\nexec \"$@\"\n");
    (void)chmod("least.sh", 0755);
#ifndef __SANITIZE_ADDRESS__
    cli_set_wrapper("./limited.sh");
#endif
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_commands),           cmocka_unit_test(test_too_much),
        cmocka_unit_test(test_malformed),          cmocka_unit_test(test_generate),
        cmocka_unit_test(test_reference),          cmocka_unit_test(test_copies),
        cmocka_unit_test(test_import_of_too_much), cmocka_unit_test(test_hardly_any),
        cmocka_unit_test(test_one_but_not_two),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    cli_end();
    return failed;
}
