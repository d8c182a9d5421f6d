/* A reproducible run is the same run on any number of ranks and threads: equal digests, also where
 * it is stopped on one layout and continued on another. */
#include "cli/cli.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

enum { WORDS = 16 };

static void train(int ranks, const char *run, const char *steps, const char *const *layout)
{
    char run_dir[64];
    char stop[64];
    (void)snprintf(run_dir, sizeof(run_dir), "run_dir=%s", run);
    (void)snprintf(stop, sizeof(stop), "train.steps=%s", steps);
    const char *words[WORDS] = {
        "train", "c.yaml", "reproducible=true", "train.schedule=constant", "data.separator=10",
        run_dir, stop};
    for (int i = 0; layout[i]; i++) {
        words[7 + i] = layout[i];
    }
    cli_run_well(ranks, words);
}

static void test_digests(void **state)
{
    (void)state;
    static const char *const alone[] = {NULL};
    static const char *const tensor[] = {"parallel.tensor=2", "train.micro_batch=1", "threads=2",
                                         "train.recompute=full", NULL};
    static const char *const expert[] = {"parallel.expert=2", "train.sequence_parallel=true",
                                         "train.optimizer_tile=100", NULL};
    char want[32];
    char got[32];
    train(0, "alone", "6", alone);
    cli_digest("alone", want);
    train(cli_ranks(), "tensor", "6", tensor);
    cli_digest("tensor", got);
    assert_string_equal(got, want);
    train(0, "moved", "3", alone);
    train(cli_ranks(), "moved", "6", expert);
    cli_digest("moved", got);
    assert_string_equal(got, want);
}

/* Frozen weights have no moments in a checkpoint, and a run goes on with the same ones frozen. */
static void test_frozen(void **state)
{
    (void)state;
    static const char *const alone[] = {"train.freeze=[\"embedding.*\", \"*.attention.*\"]", NULL};
    static const char *const tensor[] = {"parallel.tensor=2", "train.recompute=full",
                                         "train.freeze=embedding.*, *.attention.*", NULL};
    char want[32];
    char got[32];
    train(0, "frozen", "6", alone);
    cli_digest("frozen", want);
    train(0, "frozen-moved", "3", alone);
    train(cli_ranks(), "frozen-moved", "6", tensor);
    cli_digest("frozen-moved", got);
    assert_string_equal(got, want);
    struct process_result other =
        cli_run(0, CLI_WORDS_OF("train", "c.yaml", "reproducible=true", "train.schedule=constant",
                                "data.separator=10", "run_dir=frozen-moved", "train.steps=8",
                                "train.freeze=embedding.*"));
    cli_expect_error(&other, 1, 2, "was written with another 'train.freeze'");
}

/* Low-rank pairs beside frozen weights, stopped here and continued there. */
static void test_pairs(void **state)
{
    (void)state;
    static const char *const alone[] = {"train.lora.rank=3", NULL};
    static const char *const tensor[] = {"train.lora.rank=3", "parallel.tensor=2",
                                         "train.recompute=full", NULL};
    char want[32];
    char got[32];
    train(0, "pairs", "6", alone);
    cli_digest("pairs", want);
    train(0, "pairs-moved", "3", alone);
    train(cli_ranks(), "pairs-moved", "6", tensor);
    cli_digest("pairs-moved", got);
    assert_string_equal(got, want);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_digests),
                                       cmocka_unit_test(test_frozen), cmocka_unit_test(test_pairs)};
    cli_begin("reproducible", argc, argv);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    cli_end();
    return failed;
}
