/* Damage that a power cut or a bad disk does: a run goes on from its last good checkpoint, and says
 * so; lines of metrics around a torn one stay; new folders are on disk before what is in them. */
#include "cli/cli.h"

#include "base/file.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>

#define CONSTANT "train.schedule=constant"

static void shell(const char *command)
{
    cli_tool(CLI_WORDS_OF("sh", "-c", command));
}

/* ---- checkpoints ----------------------------------------------------------------------------- */

/* Ways to lose step 4 of the run r, each of which leaves step 2. */
static const struct {
    const char *how, *says;
} losses[] = {
    {"rm r/checkpoints/step_4/manifest.json", "manifest.json is missing"},
    {"truncate -s -4 r/checkpoints/step_4/model-*", "r/checkpoints/step_4/model-00001"},
    {"f=r/checkpoints/step_4/model-00001-of-00001.safetensors; "
     "printf x | dd of=$f bs=1 seek=$(($(stat -c %s $f) - 5)) conv=notrunc 2>/dev/null",
     "model-00001-of-00001.safetensors: damaged in tensor "},
    {"rm r/checkpoints/step_4/state.json", "state.json: cannot open"},
    {"printf x | dd of=r/checkpoints/step_4/optimizer-00001-of-00001.safetensors bs=1 seek=9000 "
     "conv=notrunc 2>/dev/null",
     "optimizer-00001-of-00001.safetensors: damaged"},
    {"rm -r r/checkpoints/step_4 && touch r/checkpoints/step_4", "manifest.json is missing"},
    {"truncate -s 0 r/checkpoints/step_4/*", "manifest.json: damaged or truncated"},
    {"rm -r r/checkpoints/step_4 && cp -r r/checkpoints/step_2 r/checkpoints/step_4",
     "r/checkpoints/step_4: the folder's name says step 4, its manifest.json 2"},
};

enum { LOSSES = sizeof(losses) / sizeof(*losses), DAMAGED_MOMENTS = 4 };

static void lose(size_t i)
{
    shell("rm -rf r && cp -r whole r");
    shell(losses[i].how);
}

static int train_whole(void **state)
{
    (void)state;
    cli_run_well(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "run_dir=whole", CONSTANT));
    cli_run_well(cli_ranks(),
                 CLI_WORDS_OF("train", "c.yaml", "run_dir=longer", CONSTANT, "train.steps=6"));
    return 0;
}

static void expect_warning(const struct process_result *result, size_t i)
{
    static const char tried[] = "; the checkpoint before it is tried";
    const char *end = strstr(result->err, tried);
    const char *line = end;
    while (line && line > result->err && line[-1] != '\n') {
        line--;
    }
    const char *says = line ? strstr(line, losses[i].says) : NULL;
    if (!says || says > end) {
        print_error("expected a warning of '%s', found:\n%s\n", losses[i].says, result->err);
    }
    assert_true(says && says < end);
    assert_int_equal(cli_count(result->err, tried), 1);
}

static void test_run_goes_on(void **state)
{
    (void)state;
    char expected[32];
    char found[32];
    cli_digest("longer", expected);
    for (size_t i = 0; i < LOSSES; i += cli_ranks() ? 2 : 1) {
        lose(i);
        struct process_result result =
            cli_run(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "run_dir=r", CONSTANT,
                                              "train.steps=6", "checkpoint.keep_last=9"));
        expect_warning(&result, i);
        assert_non_null(strstr(result.err, "continuing from r/checkpoints/step_2, step 2"));
        cli_expect_status(&result, 0);
        cli_digest("r", found);
        assert_string_equal(found, expected);
        cli_digest("r/checkpoints/step_4", found); /* a whole one in the damaged one's place */
    }
}

static void test_others_take_it(void **state)
{
    (void)state;
    char expected[32];
    cli_digest("whole/checkpoints/step_2", expected);
    for (size_t i = 0; i < LOSSES; i++) {
        lose(i);
        struct process_result result = cli_run(0, CLI_WORDS_OF("inspect", "r", "--json"));
        expect_warning(&result, i);
        json_t *root = cli_expect_json(&result, 0);
        assert_string_equal(json_string_value(json_object_get(root, "digest")), expected);
        json_decref(root);
        result = cli_run(0, CLI_WORDS_OF("inspect", "r/checkpoints/step_4"));
        cli_expect_error(&result, 0, 2, "");
    }
    for (size_t i = 0; i < 3; i++) {
        lose(i);
        struct process_result result = cli_run(cli_ranks(), CLI_WORDS_OF("eval", "r", "--json"));
        expect_warning(&result, i);
        json_t *root = cli_expect_json(&result, 0);
        assert_string_equal(json_string_value(json_object_get(root, "checkpoint")),
                            "r/checkpoints/step_2");
        json_decref(root);
        result =
            cli_run(cli_ranks(), CLI_WORDS_OF("generate", "r", "--prompt", "a", "--tokens", "2"));
        expect_warning(&result, i);
        cli_expect_status(&result, 0);
        result = cli_run(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "run_dir=other", "resume=r",
                                                   "--fresh", "train.steps=3", CONSTANT));
        expect_warning(&result, i);
        cli_expect_status(&result, 0);
    }
}

/* Who wants weights alone opens no moments, so that damage there is none of theirs. */
static void test_moments_unread(void **state)
{
    (void)state;
    const char *const fault[] = {"TRIDENT_FILE_FAULT=open:EIO:optimizer-", NULL};
    lose(DAMAGED_MOMENTS);
    struct process_result result =
        cli_run_with(cli_ranks(), fault, CLI_WORDS_OF("eval", "r", "--json"));
    json_t *root = cli_expect_json(&result, 0);
    assert_string_equal(json_string_value(json_object_get(root, "checkpoint")),
                        "r/checkpoints/step_4");
    json_decref(root);
    result = cli_run_with(cli_ranks(), fault,
                          CLI_WORDS_OF("generate", "r", "--prompt", "a", "--tokens", "2"));
    assert_int_equal(cli_count(result.err, "is tried"), 0);
    cli_expect_status(&result, 0);
    result = cli_run(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "run_dir=other", "resume=r",
                                               "--fresh", "train.steps=3", CONSTANT));
    expect_warning(&result, DAMAGED_MOMENTS);
    cli_expect_status(&result, 0);
    /* `resume` may name what the run would go on from by itself. */
    lose(DAMAGED_MOMENTS);
    result = cli_run(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "run_dir=r", CONSTANT,
                                               "resume=r/checkpoints/step_4", "train.steps=5"));
    expect_warning(&result, DAMAGED_MOMENTS);
    cli_expect_status(&result, 0);
}

static void expect_taken(struct process_result *result, const char *checkpoint)
{
    json_t *root = cli_expect_json(result, 0);
    assert_string_equal(json_string_value(json_object_get(root, "checkpoint")), checkpoint);
    json_decref(root);
}

/* A disk that cannot give the bytes back is damage like another: seen when they are loaded. */
static void test_unreadable(void **state)
{
    (void)state;
    const char *const fault[] = {"TRIDENT_FILE_FAULT=read:EIO:step_4/model-:20000", NULL};
    shell("rm -rf r && cp -r whole r");
    struct process_result result =
        cli_run_with(cli_ranks(), fault, CLI_WORDS_OF("eval", "r", "--json"));
    assert_int_equal(cli_count(result.err, "model-00001-of-00001.safetensors: cannot read: "
                                           "Input/output error; the checkpoint before it is tried"),
                     1);
    expect_taken(&result, "r/checkpoints/step_2");
    result = cli_run_with(cli_ranks(), fault, CLI_WORDS_OF("eval", "r/checkpoints/step_4"));
    cli_expect_error(&result, cli_ranks(), 2, "the last good checkpoint is r/checkpoints/step_2");
}

/* The run goes on meanwhile: what was chosen is pruned before it is read, and a newer one is there.
 * The command stops itself when it has opened the first. */
static void pruned_meanwhile(const char *command, struct process_result *result)
{
    struct process job;
    siginfo_t info;
    shell("rm -rf r && cp -r whole r");
    cli_start(&job, 0, CLI_WORDS_OF("TRIDENT_FILE_FAULT=read:SIGSTOP:step_4/model-"),
              CLI_WORDS_OF(command, "r", "--json"));
    assert_int_equal(waitid(P_PID, (id_t)job.pid, &info, WSTOPPED), 0);
    shell("cp -r longer/checkpoints/step_6 r/checkpoints/step_6 && rm -r r/checkpoints/step_4");
    assert_int_equal(kill(job.pid, SIGCONT), 0);
    while (kill(job.pid, 0) == 0 &&
           waitid(P_PID, (id_t)job.pid, &info, WSTOPPED | WEXITED | WNOWAIT) == 0 &&
           info.si_code == CLD_STOPPED) {
        assert_int_equal(kill(job.pid, SIGCONT), 0);
    }
    process_wait(&job, 60, result);
    assert_int_equal(cli_count(result->err, "is tried"), 0);
}

static void test_pruned_meanwhile(void **state)
{
    (void)state;
    struct process_result result;
    if (cli_ranks() > 0) {
        return;
    }
    pruned_meanwhile("eval", &result);
    expect_taken(&result, "r/checkpoints/step_6");
    pruned_meanwhile("inspect", &result);
    json_t *root = cli_expect_json(&result, 0);
    assert_int_equal(json_integer_value(json_object_get(root, "step")), 6);
    json_decref(root);
}

/* What a link to a disk that is gone leads to is damage like any other. */
static void test_dangling(void **state)
{
    (void)state;
    shell("rm -rf r && cp -r whole r && rm -r r/checkpoints/step_4 && ln -s /nowhere "
          "r/checkpoints/step_4");
    struct process_result result = cli_run(cli_ranks(), CLI_WORDS_OF("eval", "r", "--json"));
    assert_int_equal(cli_count(result.err, "the checkpoint before it is tried"), 1);
    expect_taken(&result, "r/checkpoints/step_2");
}

/* A copy under a name of the future is of no step: the run goes on past it, again and again. */
static void test_copied_ahead(void **state)
{
    (void)state;
    static const char *const steps[] = {"train.steps=5", "train.steps=6"};
    char expected[32];
    char found[32];
    cli_digest("longer", expected);
    shell("rm -rf r && cp -r whole r && cp -r r/checkpoints/step_4 r/checkpoints/step_999");
    for (int i = 0; i < 2; i++) {
        struct process_result result =
            cli_run(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "run_dir=r", CONSTANT, steps[i]));
        assert_int_equal(cli_count(result.err, "step_999: the folder's name says step 999, its "
                                               "manifest.json 4; the checkpoint before it"),
                         1);
        cli_expect_status(&result, 0);
    }
    cli_digest("r/checkpoints/step_6", found);
    assert_string_equal(found, expected);
    cli_digest("r", found);
    assert_string_equal(found, expected);
}

static void test_nothing_whole(void **state)
{
    (void)state;
    lose(2);
    shell("rm r/checkpoints/step_2/manifest.json");
    struct process_result result = cli_run(cli_ranks(), CLI_WORDS_OF("eval", "r"));
    cli_expect_error(&result, cli_ranks(), 2, "r has no older checkpoint that is whole");
    result = cli_run(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "run_dir=r", CONSTANT));
    cli_expect_error(&result, cli_ranks(), 2,
                     "model-00001-of-00001.safetensors: damaged in tensor ");
    cli_run_well(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "run_dir=r", CONSTANT, "--fresh"));
}

/* ---- metrics --------------------------------------------------------------------------------- */

/* The steps of the step lines into text. */
static void steps_of(const char *run, char text[256])
{
    json_t *metrics = cli_metrics(run);
    text[0] = '\0';
    for (size_t i = 0; i < json_array_size(metrics); i++) {
        const json_t *line = json_array_get(metrics, i);
        size_t used = strlen(text);
        if (json_object_get(line, "loss")) {
            (void)snprintf(text + used, 256 - used, "%lld ",
                           (long long)json_integer_value(json_object_get(line, "step")));
        }
    }
    json_decref(metrics);
}

static void test_metrics(void **state)
{
    (void)state;
    char steps[256];
    cli_run_well(0, CLI_WORDS_OF("train", "c.yaml", "run_dir=cut", CONSTANT, "train.steps=6",
                                 "data.valid="));
    /* 2 is torn with 3 behind it, zeros are before 4, a line of nothing before 5; then one torn. */
    shell("cd cut && sed -i -e '2{s/^\\(.\\{30\\}\\).*/\\1/;N;s/\\n//}' metrics.jsonl && "
          "sed -n 1,2p metrics.jsonl > m && head -c 4096 /dev/zero >> m && "
          "sed -n 3p metrics.jsonl >> m && echo 'no line' >> m && "
          "sed -n '4,$p' metrics.jsonl >> m && printf '{\"step\":6,\"lo' >> m && "
          "mv m metrics.jsonl");
    struct process_result result =
        cli_run(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "run_dir=cut", CONSTANT,
                                          "train.steps=8", "data.valid="));
    assert_non_null(strstr(result.err, "cut/metrics.jsonl: dropped 3 torn lines"));
    cli_expect_status(&result, 0);
    steps_of("cut", steps);
    assert_string_equal(steps, "1 3 4 5 6 7 8 ");
}

/* ---- folders --------------------------------------------------------------------------------- */

static void expect_synced(const char *fault, const char *says, const char *const *words)
{
    struct process_result result = cli_run_with(0, CLI_WORDS_OF(fault), words);
    cli_expect_error(&result, 0, 3, says);
}

/* A sync that fails shows that there is one. */
static void test_parents_synced(void **state)
{
    (void)state;
    static const char *const names[] = {"alpha", "alpha/beta", "alpha/beta/gamma"};
    const char *const train[] = {"train", "c.yaml", "run_dir=alpha/beta/gamma", NULL};
    for (size_t i = 0; i < 3; i++) {
        char fault[128];
        char says[128];
        (void)snprintf(fault, sizeof(fault), "TRIDENT_FILE_FAULT=syncdir:EIO:%s", names[i]);
        (void)snprintf(says, sizeof(says), "%s: cannot sync the folder", names[i]);
        expect_synced(fault, says, train);
        shell("rm -rf alpha");
    }
    cli_run_well(0, CLI_WORDS_OF("import", TESTDATA_DIR "/golden/llama", "llama"));
    expect_synced("TRIDENT_FILE_FAULT=syncdir:EIO:delta", "delta: cannot sync the folder",
                  CLI_WORDS_OF("export", "llama", "delta/out"));
    shell("mkdir epsilon");
    expect_synced("TRIDENT_FILE_FAULT=syncdir:EIO:epsilon", "epsilon: cannot sync the folder",
                  CLI_WORDS_OF("tokenize", "--tokenizer", "byte", "--out", "epsilon/x", "t.txt"));
    shell("mkdir zeta");
    expect_synced("TRIDENT_FILE_FAULT=syncdir:EIO:zeta", "zeta: cannot sync the folder",
                  CLI_WORDS_OF("import", TESTDATA_DIR "/golden/llama", "zeta/ck"));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_run_goes_on),    cmocka_unit_test(test_others_take_it),
        cmocka_unit_test(test_moments_unread), cmocka_unit_test(test_copied_ahead),
        cmocka_unit_test(test_unreadable),     cmocka_unit_test(test_pruned_meanwhile),
        cmocka_unit_test(test_nothing_whole),  cmocka_unit_test(test_metrics),
        cmocka_unit_test(test_parents_synced), cmocka_unit_test(test_dangling),
    };
    cli_begin("damage", argc, argv);
    int failed = cmocka_run_group_tests(tests, train_whole, NULL);
    cli_end();
    return failed;
}
