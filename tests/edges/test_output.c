/* Standard output on a full disk, standard error that nobody reads: the command says so, or at
 * least ends, with the status that is documented. */
#include "cli/cli.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static const char program[] = TRIDENT_BIN "/trident";

static struct process_result run_in_shell(const char *script, const char *const *words)
{
    const char *argv[CLI_WORDS] = {"sh", "-c", script, "sh", program};
    size_t used = 5;
    for (; *words; words++) {
        argv[used++] = *words;
    }
    argv[used] = NULL;
    struct process process;
    struct process_result result;
    process_start(&process, argv, NULL);
    process_wait(&process, 60, &result);
    return result;
}

static void test_full_disk(void **state)
{
    (void)state;
    static const char *const commands[][6] = {
        {"--version"},
        {"--help"},
        {"help", "config"},
        {"plan", "--help"},
        {"plan", "c.yaml"},
        {"plan", "c.yaml", "--layouts", "--json"},
        {"inspect", "c.yaml"},
        {"inspect", "run", "--json"},
        {"inspect", "tok/train_000000.bin"},
        {"eval", "run"},
        {"eval", "run", "--json"},
        {"generate", "run", "--tokens", "10000000"}, /* and no longer */
        {"generate", "run", "--tokens", "3", "--json"},
        {"verify", "c.yaml", "--steps", "1"},
        {"tokenize", "--tokenizer=byte", "--out", "new", "t.txt"},
        {"train", "c.yaml", "--json"},
    };
    for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++) {
        struct process_result result = run_in_shell("exec \"$@\" >/dev/full", commands[i]);
        cli_expect_error(&result, 0, 3, "standard output: cannot write: No space left on device");
    }
}

/* A reader that has gone, with the reason, whether the text is longer than a buffer or not. */
static void test_reader_gone(void **state)
{
    (void)state;
    static const char script[] = "mkfifo gone; exec 4<>gone 5>gone 4>&-; rm gone; "
                                 "exec \"$@\" >&5 5>&-";
    static const char *const commands[][8] = {
        {"plan", "c.yaml", "--json"},
        {"inspect", "c.yaml", "model.num_layers=100"},
        {"inspect", "c.yaml", "model.num_layers=100", "--json"},
        {"inspect", "run", "--json"},
        {"generate", "run", "--tokens", "10000000", "--ids", "--prompt=3"},
    };
    for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++) {
        struct process_result result = run_in_shell(script, commands[i]);
        cli_expect_error(&result, 0, 3, "standard output: cannot write: Broken pipe");
    }
}

/* A line that nobody takes is given up after some seconds. */
static void test_unread_error(void **state)
{
    (void)state;
    static const char script[] = "mkfifo full; exec 3<>full; timeout 1 cat /dev/zero >&3; "
                                 "exec \"$@\" 2>&3 3>&-";
    struct process_result result = run_in_shell(script, CLI_WORDS_OF("train", "missing.yaml"));
    cli_expect_status(&result, 2);
}

/* Nothing may fail before the run has ended: it would go on without the test. */
static int run_fault(const char *script)
{
    struct process process;
    struct process_result result;
    process_start(&process, CLI_WORDS_OF("sh", "-c", script), NULL);
    process_wait(&process, 30, &result);
    int status = result.status;
    process_result_fini(&result);
    return status;
}

/* A standard file that is closed is no other file: what is printed goes into no library's pipe. */
static void test_closed(void **state)
{
    (void)state;
    static const char script[] = "exec \"$@\" >&- <&-";
    struct process_result result = run_in_shell(
        script, CLI_WORDS_OF("generate", "run", "--tokens", "1000000", "--ids", "--prompt=3"));
    cli_expect_error(&result, 0, 3, "standard output: cannot write: Bad file descriptor");
    result =
        run_in_shell("exec \"$@\" >&- 2>&- <&-", CLI_WORDS_OF("train", "c.yaml", "run_dir=closed"));
    cli_expect_status(&result, 0);
}

/* The run's folder goes, or becomes something else, while it trains: it is no input any more, so
 * the run failed. */
static void test_folder_goes(void **state)
{
    (void)state;
    static const char *const faults[] = {
        "mv gone away; rm -rf away", "mv gone away; until echo >gone; do rm -rf gone; done",
        "mv gone/checkpoints away; until echo >gone/checkpoints; do rm -rf gone/checkpoints; done"};
    for (size_t i = 0; i < sizeof(faults) / sizeof(*faults); i++) {
        const struct timespec pause = {.tv_nsec = 20000000};
        struct process process;
        struct process_result result;
        cli_tool(CLI_WORDS_OF("rm", "-rf", "gone", "away"));
        cli_start(&process, cli_ranks(), NULL,
                  CLI_WORDS_OF("train", "c.yaml", "run_dir=gone", "train.steps=1000000",
                               "checkpoint.every=20"));
        for (int n = 0; n < 3000 && access("gone/checkpoints/step_20", F_OK) != 0; n++) {
            (void)nanosleep(&pause, NULL);
        }
        int status = run_fault(faults[i]);
        process_wait(&process, 60, &result);
        assert_int_equal(status, 0);
        cli_expect_error(&result, cli_ranks(), 3, "gone");
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full_disk),    cmocka_unit_test(test_reader_gone),
        cmocka_unit_test(test_unread_error), cmocka_unit_test(test_closed),
        cmocka_unit_test(test_folder_goes),
    };
    cli_begin("output", argc, argv);
    cli_run_well(0, CLI_WORDS_OF("train", "c.yaml", "train.steps=2"));
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    cli_end();
    return failed;
}
