/* Paths as people write them: slashes at the end, too long, in the way of something, links to
 * nothing. What is wrong is said before the work, and nobody's files are in the way or removed. */
#include "cli/cli.h"

#include "base/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define MODEL TESTDATA_DIR "/golden/llama"

static void expect_no_leftovers(void)
{
    cli_tool(CLI_WORDS_OF("sh", "-c", "test -z \"$(find . -name '*trident.t*')\""));
}

static void test_slashes(void **state)
{
    (void)state;
    cli_run_well(0, CLI_WORDS_OF("import", MODEL "/", "ck/"));
    cli_run_well(0, CLI_WORDS_OF("import", MODEL "//", "deep/er/ck//"));
    cli_run_well(0, CLI_WORDS_OF("import", MODEL, "again/./"));
    cli_run_well(0, CLI_WORDS_OF("export", "ck/", "out/"));
    cli_run_well(0, CLI_WORDS_OF("export", "ck", "out2/."));
    cli_run_well(0, CLI_WORDS_OF("inspect", "ck//"));
    cli_run_well(0, CLI_WORDS_OF("import", "out/", "back/"));
    char first[32];
    char second[32];
    cli_digest("again", first);
    cli_digest("back", second);
    assert_string_equal(first, second);
    assert_true(tri_file_exists("out2/config.json"));
    cli_run_well(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "run_dir=run//", "train.steps=2"));
    cli_run_well(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "run_dir=run/./"));
    cli_run_well(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "run_dir=on/", "resume=run/",
                                           "train.steps=5", "train.schedule=constant"));
    cli_run_well(cli_ranks(), CLI_WORDS_OF("eval", "run/", "--data", "tok/valid_000000.bin"));
    cli_run_well(cli_ranks(), CLI_WORDS_OF("eval", "run/checkpoints/step_4/"));
    cli_run_well(0, CLI_WORDS_OF("tokenize", "--tokenizer", "byte", "--out", "tokens//", "t.txt/"));
    assert_true(tri_file_exists("tokens/train_000000.bin"));
    expect_no_leftovers();
}

static void test_nobody_elses(void **state)
{
    (void)state;
    cli_tool(CLI_WORDS_OF(
        "sh", "-c",
        "mkdir -p mine.tmp/a ck2.tmp ck2.old.tmp tok2/tokenize.tmp r2/checkpoints/step_2.tmp "
        "r2/checkpoints/step_4.old.tmp && for i in mine.tmp/a/f ck2.tmp/f ck2.old.tmp/f "
        "tok2/tokenize.tmp/f tok2/train_000000.bin.tmp r2/config.yaml.tmp "
        "r2/checkpoints/step_2.tmp/f r2/checkpoints/step_4.old.tmp/f; do echo $i > $i; done; "
        "tar cf before.tar $(find mine.tmp ck2* tok2 r2 -name f) tok2/*.tmp r2/*.tmp"));
    cli_run_well(0, CLI_WORDS_OF("import", MODEL, "ck2"));
    cli_run_well(0, CLI_WORDS_OF("export", "ck2", "mine"));
    cli_run_well(0, CLI_WORDS_OF("tokenize", "--tokenizer", "byte", "--out", "tok2", "t.txt"));
    cli_run_well(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "run_dir=r2"));
    cli_tool(CLI_WORDS_OF("tar", "df", "before.tar"));
}

static void test_targets(void **state)
{
    (void)state;
    static char long_name[300];
    static char long_path[3000];
    memset(long_name, 'n', 250);
    for (size_t i = 0; i < sizeof(long_path) - 1; i++) {
        long_path[i] = i % 100 == 99 ? '/' : 'p';
    }
    const struct {
        const char *to, *says;
    } cases[] = {
        {"taken", "taken: is there already"},
        {"t.txt", "t.txt: is there already"},
        {"t.txt/x", "t.txt/x: cannot create: Not a directory"},
        {"nothing/..", "found no name"},
        {"dangling", "dangling: a link to what is not there"},
        {long_name, "cannot create: File name too long"},
        {long_path, "a path of 2999 bytes, expected at most 896"},
    };
    /* Weights that no longer are what they were: who reads them first says that instead. */
    cli_tool(CLI_WORDS_OF("sh", "-c",
                          "cp -r \"$0\" hf && truncate -s 100 hf/model.safetensors && "
                          "mkdir taken && ln -s nowhere dangling",
                          MODEL));
    cli_run_well(0, CLI_WORDS_OF("import", MODEL, "whole"));
    cli_tool(CLI_WORDS_OF("truncate", "-s", "100", "whole/model-00001-of-00001.safetensors"));
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct process_result result =
            cli_run(cli_ranks(), CLI_WORDS_OF("import", "hf", cases[i].to));
        cli_expect_error(&result, cli_ranks(), 2, cases[i].says);
        result = cli_run(cli_ranks(), CLI_WORDS_OF("export", "whole", cases[i].to));
        cli_expect_error(&result, cli_ranks(), 2, cases[i].says);
    }
    struct process_result result =
        cli_run_with(0, CLI_WORDS_OF("TRIDENT_FILE_FAULT=open:EROFS:readonly"),
                     CLI_WORDS_OF("export", "whole", "readonly/out"));
    cli_expect_error(&result, 0, 3, "readonly/out: cannot create: Read-only file system");
    assert_false(tri_file_exists("nothing"));
    assert_false(tri_file_exists("readonly"));
    expect_no_leftovers();
}

/* Where the working folder is not this user's, as under `sudo -u` in a home. In a child, for who is
 * root gives that up for good. */
static void test_foreign_folder(void **state)
{
    (void)state;
    static const char *const targets[] = {"out", "deep/er/out", "../foreign/out"};
    assert_int_equal(mkdir("foreign", 0700), 0);
    for (size_t i = 0; i < sizeof(targets) / sizeof(*targets); i++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            enum { NOBODY = 65534 };
            struct tri_error error = {0};
            (void)alarm(10);
            bool ready = chdir("foreign") == 0 && chmod(".", 0) == 0 &&
                         (getuid() != 0 || setuid(NOBODY) == 0);
            enum tri_status status = tri_file_check_target(targets[i], &error);
            _exit(!ready || status != TRI_FAILED || !strstr(error.message, "Permission denied"));
        }
        int status = -1;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
        assert_int_equal(chmod("foreign", 0700), 0);
    }
}

static void test_long_run_dir(void **state)
{
    (void)state;
    static const int refused[] = {897, 995, 1010, 1023};
    char word[1100] = "run_dir=";
    char *path = word + strlen(word);
    for (int i = 0; i < 1030; i++) {
        path[i] = i % 90 == 89 ? '/' : 'd';
    }
    for (size_t i = 0; i < sizeof(refused) / sizeof(*refused); i++) {
        char kept = path[refused[i]];
        path[refused[i]] = '\0';
        struct process_result result = cli_run(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", word));
        cli_expect_error(&result, cli_ranks(), 2, "expected text of 1 to 896 bytes");
        path[refused[i]] = kept;
    }
    path[896] = '\0';
    cli_run_well(cli_ranks(),
                 CLI_WORDS_OF("train", "c.yaml", word, "train.steps=2", "train.schedule=constant"));
    cli_run_well(cli_ranks(),
                 CLI_WORDS_OF("train", "c.yaml", word, "train.steps=4", "train.schedule=constant"));
    cli_run_well(cli_ranks(), CLI_WORDS_OF("eval", path));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slashes),      cmocka_unit_test(test_nobody_elses),
        cmocka_unit_test(test_targets),      cmocka_unit_test(test_foreign_folder),
        cmocka_unit_test(test_long_run_dir),
    };
    cli_begin("paths", argc, argv);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    cli_end();
    return failed;
}
