/* Command lines: what is not known is refused, in every command; help works in each of its forms;
 * a folder named like a key=value is a folder. */
#include "cli/cli.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static const char *const commands[] = {"train",   "eval",     "generate", "verify",
                                       "plan",    "tokenize", "import",   "export",
                                       "inspect", "runs",     "report"};
enum { COMMANDS = sizeof(commands) / sizeof(*commands) };

static void expect_refused(const char *const *words, const char *says)
{
    struct process_result result = cli_run(0, words);
    cli_expect_error(&result, 0, 2, says);
}

static void test_every_command(void **state)
{
    (void)state;
    for (int i = 0; i < COMMANDS; i++) {
        expect_refused(CLI_WORDS_OF(commands[i], "c.yaml", "--frech"), "unknown option '--frech'");
        expect_refused(CLI_WORDS_OF(commands[i]), " is missing; usage: trident ");
        if (strcmp(commands[i], "tokenize") != 0 && strcmp(commands[i], "runs") != 0 &&
            strcmp(commands[i], "report") != 0) {
            expect_refused(CLI_WORDS_OF(commands[i], "c.yaml", "t.txt", "x"), "did not expect");
        }
    }
}

/* What was meant, or where it is listed; of a command too, in one line without the list. */
static void test_slips(void **state)
{
    (void)state;
    static const struct {
        const char *written, *says;
    } slips[] = {
        {"trian", "unknown command 'trian'; did you mean 'train'?"},
        {"Plan", "unknown command 'Plan'; did you mean 'plan'?"},
        {"--verison", "unknown command '--verison'; did you mean '--version'?"},
        {"frobnicate", "unknown command 'frobnicate'; `trident help` lists them"},
    };
    for (size_t i = 0; i < sizeof(slips) / sizeof(*slips); i++) {
        struct process_result result = cli_run(0, CLI_WORDS_OF(slips[i].written, "c.yaml"));
        assert_non_null(strchr(result.err, '\n'));
        assert_string_equal(strchr(result.err, '\n'), "\n");
        cli_expect_error(&result, 0, 2, slips[i].says);
    }
    expect_refused(CLI_WORDS_OF("help", "evil"), "such command; did you mean 'eval'?");
    expect_refused(CLI_WORDS_OF("help", "everything"), "such command; `trident help` lists them");
    expect_refused(CLI_WORDS_OF("train", "c.yaml", "--frech"), "did you mean '--fresh'?");
    expect_refused(CLI_WORDS_OF("plan", "c.yaml", "--layout=2"), "did you mean '--layouts'?");
    expect_refused(CLI_WORDS_OF("plan", "c.yaml", "--frobnicate"), "--help lists them");
}

/* A word or an option that is not there is named. */
static void test_missing(void **state)
{
    (void)state;
    expect_refused(CLI_WORDS_OF("train", "--json"), "CONFIG.yaml is missing; usage: trident train");
    expect_refused(CLI_WORDS_OF("import", "hf"), "CHECKPOINT is missing; usage: trident import");
    expect_refused(CLI_WORDS_OF("export", "run"), "TO is missing; usage: trident export");
    expect_refused(CLI_WORDS_OF("tokenize", "--out", "x"), "FILES… is missing; usage: ");
    expect_refused(CLI_WORDS_OF("tokenize", "--out", "x", "t.txt"),
                   "--tokenizer T is missing; usage: trident tokenize");
    expect_refused(CLI_WORDS_OF("tokenize", "--tokenizer=byte", "t.txt"), "--out DIR is missing");
}

static void test_values(void **state)
{
    (void)state;
    expect_refused(CLI_WORDS_OF("train", "c.yaml", "-f"), "unknown option '-f'");
    expect_refused(CLI_WORDS_OF("train", "c.yaml", "--json=1"), "takes no value");
    expect_refused(CLI_WORDS_OF("train", "c.yaml", "--json", "--json"), "given twice");
    expect_refused(CLI_WORDS_OF("train", ""), "an empty word");
    expect_refused(CLI_WORDS_OF("eval", "run", "--data"), "needs a value");
    expect_refused(CLI_WORDS_OF("eval", "run", "--data="), "the value of --data is empty");
    expect_refused(CLI_WORDS_OF("eval", "run", "--data", ""), "the value of --data is empty");
    expect_refused(CLI_WORDS_OF("eval", "run", "--data", "--json"), "write --data=--json");
    expect_refused(CLI_WORDS_OF("generate", "run", "--prompt", ""), "value of --prompt is empty");
    expect_refused(CLI_WORDS_OF("eval", "run", "--data", "a", "--data", "b"), "given twice");
    expect_refused(CLI_WORDS_OF("verify", "c.yaml", "--steps", "3x"), "found '3x'");
    expect_refused(CLI_WORDS_OF("inspect", "tok/train_000000.bin", "--format", "u8"), "'u8'");
    expect_refused(CLI_WORDS_OF("inspect", "c.yaml", "--format", "u16"), "'--format'");
    expect_refused(CLI_WORDS_OF("inspect", "tok/train_000000.bin", "seed=2"), "is no config");
    expect_refused(CLI_WORDS_OF("export", "run", "out", "--dtype", "f8"), "found 'f8'");
    expect_refused(CLI_WORDS_OF("import", "a", "b", "seed=2"), "did not expect 'seed=2'");
    expect_refused(CLI_WORDS_OF("--version", "--json"), "did not expect '--json'");
    expect_refused(CLI_WORDS_OF("help", "train", "now"), "did not expect 'now'");
    expect_refused(CLI_WORDS_OF("help", "config", "--html"), "did not expect '--html'");
    expect_refused(CLI_WORDS_OF("help", "trian"), "no help for 'trian'");
    expect_refused(CLI_WORDS_OF("help", "train", "--man", "now"), "did not expect 'now'");
    expect_refused(CLI_WORDS_OF("help", "--man", "train"), "did not expect 'train'");
    expect_refused(CLI_WORDS_OF("help", "--completion"), "'--completion' needs a value");
    expect_refused(CLI_WORDS_OF("help", "--completion", "csh"), "expected bash, zsh or fish");
}

static void expect_help(const char *const *words, const char *says)
{
    struct process_result result = cli_run(0, words);
    assert_non_null(result.out);
    assert_non_null(strstr(result.out, says));
    assert_true(!result.err || !result.err[0]);
    cli_expect_status(&result, 0);
}

/* In a terminal's lines, and whatever the usage has is explained below. */
static void expect_readable(const char *command)
{
    struct process_result result = cli_run(0, CLI_WORDS_OF("help", command));
    int columns = 0;
    for (const char *at = result.out; *at; at++) {
        bool starts = ((unsigned char)*at & 0xC0) != 0x80; /* a character of UTF-8 */
        columns = *at == '\n' ? 0 : columns + starts;
        assert_in_range(columns, 0, 100);
    }
    assert_int_equal(cli_count(result.out, "\n  --json "), 1);
    assert_int_equal(cli_count(result.out, "\n  key=value "),
                     cli_count(result.out, "[key=value …]"));
    cli_expect_status(&result, 0);
}

static void test_help(void **state)
{
    (void)state;
    static const char list[] = "usage: trident COMMAND";
    expect_help(CLI_WORDS_OF("--help"), list);
    expect_help(CLI_WORDS_OF("-h"), list);
    expect_help(CLI_WORDS_OF("help"), list);
    expect_help(CLI_WORDS_OF("help", "help"), list);
    expect_help(CLI_WORDS_OF("help", "config"), "train.learning_rate");
    for (int i = 0; i < COMMANDS; i++) {
        char usage[64];
        (void)snprintf(usage, sizeof(usage), "trident %s ", commands[i]);
        expect_help(CLI_WORDS_OF(commands[i], "--help"), usage);
        expect_help(CLI_WORDS_OF("help", commands[i]), usage);
        expect_readable(commands[i]);
    }
    expect_help(CLI_WORDS_OF("train", "c.yaml", "-h", "--frech"), "trident train ");
}

/* With a folder of that name it is the run, without it a key that no config has. */
static void test_named_like_a_key(void **state)
{
    (void)state;
    cli_run_well(0, CLI_WORDS_OF("train", "c.yaml", "train.steps=2", "run_dir=lr=3e-4"));
    struct process_result result = cli_run(0, CLI_WORDS_OF("eval", "lr=3e-4", "eval.every=3"));
    assert_non_null(strstr(result.out, "bits per byte"));
    cli_expect_status(&result, 0);
    cli_run_well(0, CLI_WORDS_OF("inspect", "lr=3e-4"));
    expect_refused(CLI_WORDS_OF("eval", "lr=4e-4"), "key 'lr': unknown key");
    expect_refused(CLI_WORDS_OF("eval", "train.stepz=4"), "'train.steps'");
    /* A key that there is, is one, whatever lies beside; behind -- it is a name. */
    assert_int_equal(mkdir("seed=1", 0777), 0);
    expect_refused(CLI_WORDS_OF("inspect", "seed=1"), "usage: trident inspect");
    expect_refused(CLI_WORDS_OF("inspect", "--", "seed=1"), "seed=1: ");
}

/* What cannot be looked into is not said to hold nothing, and a file in the place of a folder is
 * called that. */
static void test_out_of_sight(void **state)
{
    (void)state;
    static const char *const words[][3] = {
        {"inspect", "hidden"}, {"eval", "hidden"}, {"train", "c.yaml", "init_from=hidden"}};
    cli_tool(CLI_WORDS_OF("mkdir", "hidden"));
    for (int i = 0; i < 3; i++) {
        struct process_result result =
            cli_run_with(0, CLI_WORDS_OF("TRIDENT_FILE_FAULT=look:EACCES:hidden"),
                         CLI_WORDS_OF(words[i][0], words[i][1], words[i][2]));
        cli_expect_error(&result, 0, 2, "hidden: cannot open: Permission denied");
    }
    struct process_result result =
        cli_run(0, CLI_WORDS_OF("tokenize", "--tokenizer", "byte", "--out", "t.txt", "t.txt"));
    cli_expect_error(&result, 0, 2,
                     "t.txt: cannot create the folder: there is a file of that name");
}

/* Before there are ranks, so that no launcher has words of its own. */
static void test_environment(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct process_result result =
            cli_run_with(0, CLI_WORDS_OF("TRIDENT_TIMEOUT_SECONDS=x"),
                         CLI_WORDS_OF("verify", "c.yaml", i ? "--ranks=2" : NULL));
        assert_int_equal(cli_count(result.err, "\n"), 1);
        cli_expect_error(&result, 0, 2, "TRIDENT_TIMEOUT_SECONDS: found 'x', expected a number");
    }
}

static void test_one_rank(void **state)
{
    (void)state;
    struct process_result result = cli_run(0, CLI_WORDS_OF("plan", "c.yaml"));
    assert_non_null(strstr(result.out, "1 rank = tensor 1"));
    cli_expect_status(&result, 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_command), cmocka_unit_test(test_slips),
        cmocka_unit_test(test_missing),       cmocka_unit_test(test_values),
        cmocka_unit_test(test_help),          cmocka_unit_test(test_named_like_a_key),
        cmocka_unit_test(test_out_of_sight),  cmocka_unit_test(test_environment),
        cmocka_unit_test(test_one_rank),
    };
    cli_begin("command_line", argc, argv);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    cli_end();
    return failed;
}
