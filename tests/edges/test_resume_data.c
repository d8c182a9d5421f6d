/* What a run goes on with is known by its contents, what changed is said. */
#include "cli/cli.h"
#include "edges/state.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define STEADY "train", "c.yaml", "train.schedule=constant", "checkpoint.every=0"

static char digest[32]; /* of the run that nothing happened to, at step 6 */

static int train(void **state)
{
    (void)state;
    cli_run_well(cli_ranks(), CLI_WORDS_OF(STEADY, "run_dir=even", "train.steps=6"));
    cli_digest("even", digest);
    cli_run_well(cli_ranks(), CLI_WORDS_OF(STEADY, "run_dir=begun", "train.steps=4"));
    return 0;
}

/* A copy of the run of 4 steps. */
static void begin(const char *run)
{
    cli_tool(CLI_WORDS_OF("rm", "-rf", run));
    cli_tool(CLI_WORDS_OF("cp", "-r", "begun", run));
}

static void expect_digest(const char *run)
{
    char found[32];
    cli_digest(run, found);
    assert_string_equal(found, digest);
}

/* The shards without their headers, as another place and format would have them. */
static void write_headerless(const char *from, const char *to)
{
    size_t bytes = 0;
    char *data = cli_read(from, &bytes);
    assert_true(data && bytes > 1024);
    FILE *file = fopen(to, "wbe");
    assert_non_null(file);
    assert_int_equal(fwrite(data + 1024, 1, bytes - 1024, file), bytes - 1024);
    assert_int_equal(fclose(file), 0);
    free(data);
}

static void test_equal_contents_elsewhere(void **state)
{
    (void)state;
    cli_tool(CLI_WORDS_OF("cp", "-r", "tok", "mount"));
    begin("moved");
    cli_run_well(cli_ranks(),
                 CLI_WORDS_OF(STEADY, "run_dir=moved", "train.steps=6",
                              "data.train=mount/train_*.bin", "data.valid=mount/valid_*.bin"));
    expect_digest("moved");
    write_headerless("tok/train_000000.bin", "raw_train.bin");
    write_headerless("tok/valid_000000.bin", "raw_valid.bin");
    begin("raw");
    cli_run_well(cli_ranks(),
                 CLI_WORDS_OF(STEADY, "run_dir=raw", "train.steps=6", "data.format=u16",
                              "data.train=raw_train.bin", "data.valid=raw_valid.bin"));
    expect_digest("raw");
    /* Another validation set changes no training. */
    begin("judged");
    cli_run_well(cli_ranks(), CLI_WORDS_OF(STEADY, "run_dir=judged", "train.steps=6",
                                           "data.valid=tok/train_*.bin"));
    expect_digest("judged");
    begin("unjudged");
    cli_run_well(cli_ranks(),
                 CLI_WORDS_OF(STEADY, "run_dir=unjudged", "train.steps=6", "data.valid="));
    expect_digest("unjudged");
}

static void change_byte(const char *path, long place)
{
    FILE *file = fopen(path, "r+be");
    assert_non_null(file);
    assert_int_equal(fseek(file, place, SEEK_SET), 0);
    int old = fgetc(file);
    assert_int_equal(fseek(file, place, SEEK_SET), 0);
    assert_true(fputc(old ^ 1, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void test_other_contents_by_the_same_name(void **state)
{
    (void)state;
    cli_tool(CLI_WORDS_OF("cp", "-r", "tok", "same"));
    cli_run_well(cli_ranks(), CLI_WORDS_OF(STEADY, "run_dir=named", "train.steps=4",
                                           "data.train=same/train_*.bin"));
    change_byte("same/train_000000.bin", 1024 + 2 * 1777);
    struct cli_snapshot *before = cli_snapshot_take("named");
    struct process_result result =
        cli_run(cli_ranks(), CLI_WORDS_OF(STEADY, "run_dir=named", "train.steps=6",
                                          "data.train=same/train_*.bin"));
    cli_expect_error(&result, cli_ranks(), 2,
                     "step_4: was trained on other data: data.train 'same/train_*.bin' has 3602 "
                     "tokens");
    cli_snapshot_expect_kept(before, false);
    result = cli_run(cli_ranks(), CLI_WORDS_OF(STEADY, "run_dir=named", "train.steps=6",
                                               "data.train=same/train_*.bin", "--accept-data"));
    assert_int_equal(cli_count(result.err, "holds other tokens than the run began with"), 1);
    cli_expect_status(&result, 0);
    json_t *root = edges_state("named", 6);
    assert_int_equal(json_integer_value(json_object_get(root, "samples")), 24);
    json_decref(root);
    /* From now on these are the run's. */
    cli_run_well(cli_ranks(), CLI_WORDS_OF(STEADY, "run_dir=named", "train.steps=7",
                                           "data.train=same/train_*.bin"));
    result = cli_run(cli_ranks(), CLI_WORDS_OF(STEADY, "run_dir=named", "train.steps=8"));
    cli_expect_error(&result, cli_ranks(), 2, "was trained on other data");
}

static void test_seed(void **state)
{
    (void)state;
    begin("seeded");
    struct process_result result =
        cli_run(cli_ranks(), CLI_WORDS_OF(STEADY, "run_dir=seeded", "train.steps=6", "seed=7"));
    cli_expect_error(&result, cli_ranks(), 2, "another 'seed' (1 against 7)");
}

/* One line: the keys, and what they do to the rate, the data and the results. */
static void test_changes_are_told(void **state)
{
    (void)state;
    begin("changed");
    struct process_result result =
        cli_run(cli_ranks(), CLI_WORDS_OF(STEADY, "run_dir=changed", "train.steps=5"));
    assert_int_equal(cli_count(result.err, "changed  train.steps 4 → 5\n"), 1);
    cli_expect_status(&result, 0);
    result =
        cli_run(cli_ranks(), CLI_WORDS_OF(STEADY, "run_dir=changed", "train.steps=6", "moe.top_k=1",
                                          "train.learning_rate=5.87e-4", "train.global_batch=8"));
    assert_int_equal(cli_count(result.err, "changed  "), 1);
    assert_int_equal(
        cli_count(result.err, "changed  moe.top_k 2 → 1, train.global_batch 4 → 8, train.steps 5 → "
                              "6, train.learning_rate 0.001 → 0.000587; rate 1e-3 → 5.87e-4; "
                              "the next sample is 20; the weights give other results than they "
                              "were trained for\n"),
        1);
    cli_expect_status(&result, 0);
    /* A schedule that had ended rises again. */
    cli_run_well(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "run_dir=ended"));
    result =
        cli_run(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "run_dir=ended", "train.steps=9"));
    assert_int_equal(cli_count(result.err, "changed  train.steps 4 → 9; rate 1e-4 → 5.5e-4\n"), 1);
    cli_expect_status(&result, 0);
}

/* Weights that nothing has trained yet begin with any seed, data and rows. Nor need the width of a
 * dense MLP be that of the import, where no layer has one. */
static void test_import(void **state)
{
    (void)state;
    char imported[32], found[32];
    cli_run_well(cli_ranks(), CLI_WORDS_OF(STEADY, "run_dir=all_moe", "moe.every=1",
                                           "model.intermediate_size=32", "train.steps=1"));
    cli_run_well(0, CLI_WORDS_OF("export", "all_moe", "hf"));
    cli_run_well(0, CLI_WORDS_OF("import", "hf", "imported"));
    cli_digest("imported", imported);
    struct process_result result =
        cli_run(cli_ranks(), CLI_WORDS_OF(STEADY, "resume=imported", "run_dir=tuned", "seed=7",
                                          "data.sequence_length=8", "moe.every=1", "train.steps=2",
                                          "train.learning_rate=0", "eval.at_start=true"));
    assert_int_equal(cli_count(result.err, "continuing from imported, step 0"), 1);
    assert_int_equal(cli_count(result.err, "changed  "), 0);
    assert_int_equal(cli_count(result.err, "older version"), 0);
    cli_expect_status(&result, 0);
    cli_digest("tuned", found);
    assert_string_equal(found, imported);
    result = cli_run(cli_ranks(), CLI_WORDS_OF(STEADY, "resume=imported", "run_dir=tuned", "seed=8",
                                               "data.sequence_length=8", "moe.every=1"));
    cli_expect_error(&result, cli_ranks(), 2,
                     "tuned/checkpoints/step_2: was written with another 'seed' (7 against 8); "
                     "--fresh starts over");
    /* What a run begins with must not be removed before it begins. */
    struct cli_snapshot *before = cli_snapshot_take("tuned");
    cli_tool(CLI_WORDS_OF("ln", "-s", "tuned/checkpoints/step_2", "link"));
    result = cli_run(cli_ranks(), CLI_WORDS_OF(STEADY, "resume=link", "run_dir=tuned", "seed=7",
                                               "moe.every=1", "--fresh"));
    cli_expect_error(&result, cli_ranks(), 2, "'link' is of this run_dir, and --fresh would");
    result = cli_run(cli_ranks(), CLI_WORDS_OF(STEADY, "resume=tuned", "run_dir=tuned", "seed=7",
                                               "moe.every=1", "--fresh"));
    cli_expect_error(&result, cli_ranks(), 2, "'tuned' is of this run_dir, and --fresh would");
    cli_snapshot_expect_kept(before, false);
    /* Starting over does not help against a checkpoint of another run. */
    result = cli_run(cli_ranks(), CLI_WORDS_OF(STEADY, "resume=begun", "run_dir=new", "seed=7"));
    assert_int_equal(cli_count(result.err, "--fresh"), 0);
    cli_expect_error(&result, cli_ranks(), 2, "another 'seed' (1 against 7)");
}

/* As older programs wrote it: the name is all that there is to compare. */
static void test_older_checkpoint(void **state)
{
    (void)state;
    begin("older");
    json_t *root = edges_state("older", 4);
    assert_int_equal(json_object_del(root, "data"), 0);
    edges_state_write("older", 4, root);
    cli_tool(CLI_WORDS_OF("cp", "-r", "older", "older_too"));
    struct process_result result =
        cli_run(cli_ranks(), CLI_WORDS_OF(STEADY, "run_dir=older_too", "train.steps=6",
                                          "data.train=./tok/train_*.bin"));
    cli_expect_error(&result, cli_ranks(), 2, "does not say what was in it");
    cli_run_well(cli_ranks(), CLI_WORDS_OF(STEADY, "run_dir=older_too", "train.steps=6",
                                           "data.train=./tok/train_*.bin", "--accept-data"));
    expect_digest("older_too");
    result = cli_run(cli_ranks(), CLI_WORDS_OF(STEADY, "run_dir=older", "train.steps=6"));
    assert_int_equal(cli_count(result.err, "was written by an older version"), 1);
    cli_expect_status(&result, 0);
    expect_digest("older");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equal_contents_elsewhere),
        cmocka_unit_test(test_other_contents_by_the_same_name),
        cmocka_unit_test(test_seed),
        cmocka_unit_test(test_changes_are_told),
        cmocka_unit_test(test_import),
        cmocka_unit_test(test_older_checkpoint),
    };
    cli_begin("resume_data", argc, argv);
    int failed = cmocka_run_group_tests(tests, train, NULL);
    cli_end();
    return failed;
}
