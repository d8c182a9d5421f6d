/* File systems that lack something, and other things in a file's place: one line or a warning, at
 * once, and nothing lost. */
#include "cli/cli.h"

#include "base/file.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static const char model[] = TESTDATA_DIR "/golden/llama";
static const char program[] = TRIDENT_BIN "/trident";

/* ---- links ----------------------------------------------------------------------------------- */

static void expect_link(const char *path)
{
    struct stat info;
    assert_int_equal(lstat(path, &info), 0);
    if (!S_ISLNK(info.st_mode)) {
        print_error("%s is no link any more\n", path);
    }
    assert_true(S_ISLNK(info.st_mode));
}

static void expect_file(const char *path)
{
    struct stat info;
    assert_int_equal(lstat(path, &info), 0);
    assert_true(S_ISREG(info.st_mode));
}

/* A run folder on another disk, and parts of it on a third: --fresh empties what they lead to. */
static void test_fresh_keeps_links(void **state)
{
    (void)state;
    cli_tool(
        CLI_WORDS_OF("sh", "-c",
                     "mkdir -p disk/run disk/ck && ln -s disk/run linked && "
                     "ln -s ../ck disk/run/checkpoints && ln -s ../m disk/run/metrics.jsonl && "
                     "touch disk/m disk/c && ln -s ../c disk/run/config.yaml"));
    cli_run_well(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "run_dir=linked"));
    assert_true(tri_file_exists("disk/ck/step_4"));
    cli_run_well(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "run_dir=linked/", "train.steps=3",
                                           "train.schedule=constant", "seed=7", "--fresh"));
    expect_link("linked");
    expect_link("disk/run/checkpoints");
    expect_link("disk/run/metrics.jsonl");
    expect_link("disk/run/config.yaml");
    assert_true(tri_file_exists("disk/ck/step_3"));
    assert_false(tri_file_exists("disk/ck/step_4"));
    json_t *metrics = cli_metrics("linked");
    cli_expect_each_step(metrics, 3);
    json_decref(metrics);
    /* One that leads nowhere. */
    cli_tool(CLI_WORDS_OF("ln", "-s", "nowhere/at/all", "lost"));
    struct process_result result =
        cli_run(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "run_dir=lost"));
    cli_expect_error(&result, cli_ranks(), 2, "lost: a link to what is not there");
}

/* ---- what a file system lacks ---------------------------------------------------------------- */

static void expect_warned(const char *fault, const char *run_dir, const char *says, int times)
{
    struct process_result result =
        cli_run_with(cli_ranks(), CLI_WORDS_OF(fault), CLI_WORDS_OF("train", "c.yaml", run_dir));
    if (cli_count(result.err, says) != times) {
        print_error("%s: expected '%s' %d times, found:\n%s\n", fault, says, times, result.err);
    }
    assert_int_equal(cli_count(result.err, says), times);
    cli_expect_status(&result, 0);
}

static void test_no_locks(void **state)
{
    (void)state;
    static const char says[] = "this file system has no locks";
    expect_warned("TRIDENT_FILE_FAULT=lock:ENOSYS:lustre,lockdir:ENOSYS:lustre", "run_dir=lustre",
                  says, 1);
    expect_warned("TRIDENT_FILE_FAULT=lock:EOPNOTSUPP:nfs,lockdir:EOPNOTSUPP:nfs", "run_dir=nfs",
                  says, 1);
    expect_warned("TRIDENT_FILE_FAULT=lock:EINVAL:nfs,lockdir:EINVAL:nfs", "run_dir=nfs", says, 1);
    expect_warned("TRIDENT_FILE_FAULT=lock:ENOLCK:nfs,lockdir:ENOLCK:nfs", "run_dir=nfs", says, 1);
    /* One of the two is enough. */
    expect_warned("TRIDENT_FILE_FAULT=lock:ENOLCK:nfs", "run_dir=nfs", says, 0);
    struct process_result result =
        cli_run_with(cli_ranks(), CLI_WORDS_OF("TRIDENT_FILE_FAULT=lock:EIO:broken"),
                     CLI_WORDS_OF("train", "c.yaml", "run_dir=broken"));
    cli_expect_error(&result, cli_ranks(), 3, "broken/lock: cannot lock: Input/output error");
}

static void test_no_sync(void **state)
{
    (void)state;
    expect_warned("TRIDENT_FILE_FAULT=syncdir:EINVAL:", "run_dir=fuse",
                  "this file system cannot sync a folder (Invalid argument)", 1);
    expect_warned("TRIDENT_FILE_FAULT=sync:EOPNOTSUPP:", "run_dir=fuse2",
                  "this file system cannot sync a file", 1);
    char digest[32];
    cli_digest("fuse", digest);
    cli_digest("fuse2", digest);
    /* An error is one, and met before the first step. */
    struct process_result result =
        cli_run_with(cli_ranks(), CLI_WORDS_OF("TRIDENT_FILE_FAULT=syncdir:EIO:checkpoints"),
                     CLI_WORDS_OF("train", "c.yaml", "run_dir=dying"));
    cli_expect_error(&result, cli_ranks(), 3, "cannot sync the folder: Input/output error");
    assert_false(tri_file_exists("dying/metrics.jsonl"));
    /* So does a system answer that has turned read-only after a fault: nothing was written. */
    result = cli_run_with(cli_ranks(), CLI_WORDS_OF("TRIDENT_FILE_FAULT=sync:EROFS:dying"),
                          CLI_WORDS_OF("train", "c.yaml", "run_dir=dying"));
    cli_expect_error(&result, cli_ranks(), 3, ": Read-only file system");
    result =
        cli_run_with(cli_ranks(), CLI_WORDS_OF("TRIDENT_FILE_FAULT=rename:EACCES:/trident.tried"),
                     CLI_WORDS_OF("train", "c.yaml", "run_dir=dying"));
    cli_expect_error(&result, cli_ranks(), 3, "cannot rename to: Permission denied");
    assert_false(tri_file_exists("dying/metrics.jsonl"));
    result = cli_run_with(cli_ranks(), CLI_WORDS_OF("TRIDENT_FILE_FAULT=write:ENOSPC:config.yaml"),
                          CLI_WORDS_OF("train", "c.yaml", "run_dir=dying"));
    cli_expect_error(&result, cli_ranks(), 3, "config.yaml: cannot write: No space left on device");
    /* What was begun is not left behind. */
    cli_tool(CLI_WORDS_OF("sh", "-c", "! find dying -name '*.trident.tmp' | grep ."));
    result = cli_run_with(0, CLI_WORDS_OF("TRIDENT_FILE_FAULT=syncdir:EINVAL:"),
                          CLI_WORDS_OF("import", model, "llama"));
    cli_expect_status(&result, 0);
    result = cli_run_with(0, CLI_WORDS_OF("TRIDENT_FILE_FAULT=syncdir:EINVAL:"),
                          CLI_WORDS_OF("export", "llama", "exported"));
    cli_expect_status(&result, 0);
    result =
        cli_run_with(0, CLI_WORDS_OF("TRIDENT_FILE_FAULT=syncdir:EINVAL:"),
                     CLI_WORDS_OF("tokenize", "--tokenizer", "byte", "--out", "unsynced", "t.txt"));
    cli_expect_status(&result, 0);
}

/* Files that cannot be mapped are read. */
static void test_no_mappings(void **state)
{
    (void)state;
    struct process_result result =
        cli_run_with(cli_ranks(), CLI_WORDS_OF("TRIDENT_FILE_FAULT=map:ENODEV:"),
                     CLI_WORDS_OF("train", "c.yaml", "run_dir=unmapped"));
    cli_expect_status(&result, 0);
    result = cli_run_with(cli_ranks(), CLI_WORDS_OF("TRIDENT_FILE_FAULT=map:ENODEV:"),
                          CLI_WORDS_OF("eval", "unmapped"));
    cli_expect_status(&result, 0);
    char digest[32];
    cli_digest("unmapped", digest);
}

/* ---- other things in a file's place ---------------------------------------------------------- */

static void shell(const char *command)
{
    cli_tool(CLI_WORDS_OF("sh", "-c", command));
}

static void put(const char *kind, const char *path)
{
    char command[2 * CLI_PATH];
    (void)snprintf(command, sizeof(command), "rm -rf %s && %s %s", path, kind, path);
    shell(command);
}

static void test_kinds(void **state)
{
    (void)state;
    static const struct {
        const char *kind, *says;
    } kinds[] = {
        {"mkfifo", "a pipe, expected a file"},
        {"ln -s /dev/zero", "a device, expected a file"},
        {"mkdir", "Is a directory"},
        {"python3 -c 'import socket,sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])'",
         "a socket or device, expected a file"},
    };
    static const struct {
        const char *path;
        const char *words[4];
        const char *says; /* where it is what is said of any kind */
    } cases[] = {
        {.path = "odd.bin", .words = {"train", "c.yaml", "data.train=odd.bin", "run_dir=odd"}},
        {.path = "ck/manifest.json", .words = {"inspect", "ck"}},
        {.path = "ck/state.json", .words = {"eval", "ck"}},
        {.path = "hf/config.json", .words = {"import", "hf", "imported"}},
        {.path = "hf/model.safetensors",
         .words = {"import", "hf", "imported"},
         .says = "hf: holds neither"},
        {.path = "hf/part.safetensors", .words = {"import", "hf", "imported"}},
        {.path = "odd.txt", .words = {"tokenize", "--tokenizer=byte", "--out=odd", "odd.txt"}},
        {.path = "kept/metrics.jsonl",
         .words = {"train", "c.yaml", "run_dir=kept", "train.steps=5"}},
    };
    static const char fill[] =
        "rm -rf ck hf && cp -r kept/checkpoints/step_4 ck && cp -r \"$0\" hf";
    cli_run_well(0, CLI_WORDS_OF("train", "c.yaml", "run_dir=kept"));
    bool python = system("python3 -c '' 2>/dev/null") == 0;
    size_t count = cli_ranks() ? 1 : sizeof(kinds) / sizeof(*kinds) - !python;
    for (size_t k = 0; k < count; k++) {
        for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
            const char *words[5] = {0};
            cli_tool(CLI_WORDS_OF("sh", "-c", fill, model));
            put(kinds[k].kind, cases[i].path);
            if (strstr(cases[i].path, "part")) {
                shell("cd hf && rm model.safetensors && echo '{\"weight_map\": {\"x\": "
                      "\"part.safetensors\"}}' > model.safetensors.index.json");
            }
            memcpy(words, cases[i].words, sizeof(cases[i].words));
            struct process_result result = cli_run(cli_ranks(), words);
            cli_expect_error(&result, cli_ranks(), 2,
                             cases[i].says ? cases[i].says : kinds[k].says);
        }
    }
    assert_false(tri_file_exists("imported"));
    put("mkdir", "odd.yaml");
    struct process_result result = cli_run(cli_ranks(), CLI_WORDS_OF("train", "odd.yaml"));
    cli_expect_error(&result, cli_ranks(), 2, "Is a directory");
    put("mkfifo", "odd.yaml"); /* nobody writes to it */
    result = cli_run(cli_ranks(), CLI_WORDS_OF("train", "odd.yaml"));
    cli_expect_error(&result, cli_ranks(), 2, "odd.yaml");
    put("ln -s /dev/zero", "odd.yaml");
    result = cli_run(cli_ranks(), CLI_WORDS_OF("train", "odd.yaml"));
    cli_expect_error(&result, cli_ranks(), 2, "odd.yaml: more than ");
}

static void expect_refused_at_start(const char *path, const char *says)
{
    char expected[2 * CLI_PATH];
    struct process_result result =
        cli_run(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "run_dir=written"));
    (void)snprintf(expected, sizeof(expected), "%s: cannot %s", path, says);
    cli_expect_error(&result, cli_ranks(), 2, expected);
    assert_false(tri_file_exists("written/checkpoints/step_4"));
}

/* Where a run writes: a rename would put a file in the place of a device. The pipe stands for one,
 * which a failing test run by root would destroy. */
static void test_kinds_written(void **state)
{
    (void)state;
    static const char *const paths[] = {"written/config.yaml", "written/environment.json",
                                        "written/ledger.json"};
    for (size_t i = 0; i < sizeof(paths) / sizeof(*paths); i++) {
        struct stat info;
        shell("rm -rf written && mkdir written && rm -f pipe && mkfifo pipe");
        put("ln -s ../pipe", paths[i]);
        expect_refused_at_start(paths[i], "write: a pipe, expected a file");
        expect_link(paths[i]);
        assert_int_equal(stat("pipe", &info), 0);
        assert_true(S_ISFIFO(info.st_mode));
        put("mkdir", paths[i]);
        expect_refused_at_start(paths[i], "write: Is a directory");
        put("rm -f", paths[i]);
    }
    /* Leftovers of another kind are not written to, nor waited for. */
    shell("echo kept > kept.txt && ln -s ../kept.txt written/config.yaml.trident.tmp && "
          "mkfifo written/environment.json.trident.tmp");
    cli_run_well(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "run_dir=written"));
    size_t bytes;
    char *text = cli_read("kept.txt", &bytes);
    assert_string_equal(text, "kept\n");
    free(text);
    expect_file("written/config.yaml");
    expect_file("written/environment.json");
}

/* Ranks that are threads have one pipe between them. */
static void test_config_of_a_pipe(void **state)
{
    (void)state;
    if (cli_ranks() == 0) {
        cli_tool(CLI_WORDS_OF("bash", "-c", "\"$0\" train <(cat c.yaml) run_dir=piped3 --ranks 3",
                              program));
        cli_tool(
            CLI_WORDS_OF("bash", "-c", "cat c.yaml | \"$0\" verify /dev/stdin --ranks 2", program));
    }
    cli_tool(
        CLI_WORDS_OF("bash", "-c", "\"$0\" train <(sleep 0.2; cat c.yaml) run_dir=piped", program));
    cli_tool(
        CLI_WORDS_OF("bash", "-c", "cat c.yaml | \"$0\" train /dev/stdin run_dir=piped2", program));
    char first[32];
    char second[32];
    cli_digest("piped", first);
    cli_digest("piped2", second);
    assert_string_equal(first, second);
}

/* A config or checkpoints that no run has made are somebody's. */
static void test_not_ours(void **state)
{
    (void)state;
    static const char *const fresh[] = {"--", "--fresh"};
    char *kept = cli_read("c.yaml", NULL);
    cli_tool(CLI_WORDS_OF("mkdir", "-p", "mine", "theirs/checkpoints/best"));
    cli_tool(CLI_WORDS_OF("cp", "c.yaml", "mine/config.yaml"));
    for (int i = 0; i < 2; i++) {
        struct process_result result = cli_run(
            cli_ranks(), CLI_WORDS_OF("train", "run_dir=mine", fresh[i], "mine/config.yaml"));
        cli_expect_error(&result, cli_ranks(), 2, "mine/config.yaml: is there already and no run");
    }
    struct process_result result =
        cli_run(cli_ranks(), CLI_WORDS_OF("train", "run_dir=theirs", "--fresh", "c.yaml"));
    cli_expect_error(&result, cli_ranks(), 2, "theirs/checkpoints: is there already and no run");
    char *text = cli_read("mine/config.yaml", NULL);
    assert_string_equal(text, kept);
    assert_int_equal(access("theirs/checkpoints/best", F_OK), 0);
    assert_int_equal(access("mine/lock", F_OK), -1);
    free(text);
    free(kept);
    /* Its own is no stranger's. */
    cli_run_well(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "run_dir=ours", "train.steps=2"));
    cli_run_well(cli_ranks(), CLI_WORDS_OF("train", "ours/config.yaml"));
    cli_run_well(cli_ranks(), CLI_WORDS_OF("train", "ours/config.yaml", "--fresh"));
}

/* ---- under a run ----------------------------------------------------------------------------- */

/* Starts a run without end and waits until it trains. */
static void start_endless(struct process *job, const char *const *changes, const char *run_dir,
                          const char *data)
{
    int watch = inotify_init1(IN_CLOEXEC);
    char buffer[4096];
    const char *run = run_dir + strlen("run_dir=");
    cli_tool(CLI_WORDS_OF("mkdir", "-p", run));
    assert_true(watch >= 0 && inotify_add_watch(watch, run, IN_MODIFY) >= 0);
    cli_start(job, cli_ranks(), changes,
              CLI_WORDS_OF("train", "c.yaml", "train.steps=1000000", "data.valid=", run_dir, data,
                           "checkpoint.every=100000"));
    struct pollfd ends[2] = {{.fd = watch, .events = POLLIN}, {.fd = job->err}};
    assert_true(poll(ends, 2, -1) > 0);
    if (!(ends[0].revents & POLLIN)) {
        struct process_result result;
        process_wait(job, 60, &result);
        fail_msg("ended before it trained: %s", result.err);
    }
    assert_true(read(watch, buffer, sizeof(buffer)) > 0);
    (void)close(watch);
}

static void expect_ended(struct process *job, int status, const char *says)
{
    struct process_result result;
    process_wait(job, 60, &result);
    assert_false(result.late);
    if (!strstr(result.err, says)) {
        print_error("expected '%s' in:\n%s\n", says, result.err);
    }
    assert_non_null(strstr(result.err, says));
    assert_int_equal(cli_count(result.err, "Process received signal"), 0);
    cli_expect_status(&result, status);
    process_reap_all();
}

/* To its header, and by a part of its last page. */
static void test_shard_cut_short(void **state)
{
    (void)state;
    static const char *const sizes[] = {"1024", "8100"};
    cli_tool(CLI_WORDS_OF("sh", "-c", "for i in 1 2 3; do cat t.txt; done > t3.txt"));
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        struct process job;
        cli_run_well(0, CLI_WORDS_OF("tokenize", "--tokenizer", "byte", "--out", "short",
                                     "--shard-tokens", "3600", "t3.txt"));
        start_endless(&job, NULL, "run_dir=shrinking", "data.train=short/train_*.bin");
        assert_int_equal(truncate("short/train_000001.bin", strtol(sizes[i], NULL, 10)), 0);
        expect_ended(&job, 3, "short/train_000001.bin: was cut short");
    }
}

/* A second job does not come in through a lock that was removed or a folder that was renamed; the
 * first one does not write into what took its place. */
static void test_folder_taken_away(void **state)
{
    (void)state;
    struct process job;
    struct process_result result;
    /* Most of the time between a look at the folder and the next line in it. */
    start_endless(&job, CLI_WORDS_OF("TRIDENT_FILE_FAULT=write:SLEEP=300:held/metrics"),
                  "run_dir=held", "seed=1");
    assert_int_equal(unlink("held/lock"), 0);
    result = cli_run(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "run_dir=held"));
    cli_expect_error(&result, cli_ranks(), 3, "held: another job is working in this run folder");
    assert_int_equal(rename("held", "moved"), 0);
    result = cli_run(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "run_dir=moved"));
    bool refused = result.status == 3 && strstr(result.err, "moved: another job is working");
    expect_ended(&job, 3, "held: the run folder was renamed, removed or replaced");
    /* The first may have ended before the second looked. */
    assert_true(refused || result.status == 0);
    process_result_fini(&result);
    assert_false(tri_file_exists("held"));
    /* Without a lock of the folder the file is watched. */
    start_endless(&job, CLI_WORDS_OF("TRIDENT_FILE_FAULT=lockdir:ENOLCK:by_file"),
                  "run_dir=by_file", "seed=1");
    assert_int_equal(unlink("by_file/lock"), 0);
    expect_ended(&job, 3, "by_file/lock: the lock was removed while this run worked");
}

/* A start that is refused leaves nothing that was not there. */
static void test_refused_start(void **state)
{
    (void)state;
    cli_run_well(0, CLI_WORDS_OF("train", "c.yaml", "run_dir=old", "train.steps=1"));
    shell("mkdir -p noted there/checkpoints && touch noted/note");
    static const char *const folders[] = {"run_dir=made/for/it", "run_dir=made/", "run_dir=noted",
                                          "run_dir=there"};
    for (int i = 0; i < 4; i++) {
        struct process_result result = cli_run(
            cli_ranks(), CLI_WORDS_OF("train", "c.yaml", folders[i], "resume=old", "seed=99"));
        cli_expect_error(&result, cli_ranks(), 2, "");
        result =
            cli_run(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", folders[i], "resume=nowhere"));
        cli_expect_error(&result, cli_ranks(), 2, "nowhere");
    }
    assert_false(tri_file_is_named("made"));
    shell("test \"$(find noted there | sort | tr '\\n' ' ')\" = "
          "'noted noted/note there there/checkpoints '");
    /* What cannot be written is known when the folder is there. */
    struct process_result result =
        cli_run_with(cli_ranks(), CLI_WORDS_OF("TRIDENT_FILE_FAULT=write:ENOSPC:trident.try"),
                     CLI_WORDS_OF("train", "c.yaml", "run_dir=made/for/it"));
    cli_expect_error(&result, cli_ranks(), 3, "trident.try");
    assert_false(tri_file_is_named("made"));
    cli_run_well(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "run_dir=noted", "resume=old"));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fresh_keeps_links),
        cmocka_unit_test(test_no_locks),
        cmocka_unit_test(test_no_sync),
        cmocka_unit_test(test_no_mappings),
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_kinds_written),
        cmocka_unit_test(test_config_of_a_pipe),
        cmocka_unit_test(test_not_ours),
        cmocka_unit_test(test_shard_cut_short),
        cmocka_unit_test(test_folder_taken_away),
        cmocka_unit_test(test_refused_start),
    };
    cli_begin("files", argc, argv);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    cli_end();
    return failed;
}
