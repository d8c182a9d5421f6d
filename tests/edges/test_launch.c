/* Ranks that were started with different things: one line names what differs, the values and the
 * ranks, before anything depends on it; no file is written. */
#include "cli/cli.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static const char trident[] = TRIDENT_BIN "/trident";

struct pair {
    const char *first[10], *rest[10]; /* the words of rank 0, and of the others */
    const char *says;
};

static const struct pair pairs[] = {
    {{trident, "train", "c.yaml"},
     {trident, "train", "c.yaml", "train.learning_rate=3e-4"},
     "key 'train.learning_rate' is 0.001 on rank 0 and 0.0003 on rank"},
    {{trident, "train", "c.yaml"},
     {trident, "train", "c.yaml", "model.hidden_size=64"},
     "key 'model.hidden_size' is 32 on rank 0 and 64 on rank"},
    {{trident, "train", "c.yaml", "seed=2"}, {trident, "train", "c.yaml"}, "key 'seed' is 2 on"},
    {{trident, "train", "c.yaml", "parallel.tensor=2"}, {trident, "train", "c.yaml"}, "parallel."},
    {{trident, "verify", "c.yaml"},
     {trident, "verify", "c.yaml", "data.sequence_length=8"},
     "key 'data.sequence_length' is 16 on rank 0 and 8 on rank"},
    /* model.max_position follows it there, and is not what somebody wrote. */
    {{trident, "plan", "follows.yaml"},
     {trident, "plan", "follows.yaml", "data.sequence_length=8"},
     "key 'data.sequence_length' is 16 on rank 0 and 8 on rank"},
    {{trident, "verify", "c.yaml", "--steps", "3"},
     {trident, "verify", "c.yaml"},
     "--steps is 3 on rank 0 and not given on rank"},
    {{trident, "plan", "c.yaml"}, {trident, "plan", "c.yaml", "moe.top_k=1"}, "key 'moe.top_k'"},
    {{trident, "train", "c.yaml"}, {trident, "eval", "run"}, "the command is train on rank 0 and"},
    {{trident, "train", "c.yaml"}, {trident, "evil"}, "unknown command 'evil'"},
    {{trident, "train", "c.yaml"}, {trident, "train"}, "usage: trident train"},
    {{trident, "inspect", "c.yaml"}, {trident, "inspect", "c.yaml", "-q"}, "unknown option '-q'"},
    {{trident, "eval", "run"}, {trident, "eval", "run", "moe.top_k=1"}, "key 'moe.top_k'"},
    {{trident, "eval", "run", "--data", "tok/valid*"},
     {trident, "eval", "run", "--data", "tok/train*"},
     "--data is tok/valid* on rank 0 and tok/train* on"},
    {{trident, "generate", "run", "--seed=1"},
     {trident, "generate", "run", "--seed=2"},
     "--seed is 1 on rank 0 and 2 on"},
    {{trident, "inspect", "run"}, {trident, "inspect", "c.yaml"}, "a word of the command line is"},
    {{trident, "import", "a", "b"}, {trident, "import", "a", "c"}, "a word of the command line is"},
    {{trident, "export", "run", "b"}, {trident, "export", "run", "c"}, "is b on rank 0 and c on"},
    {{trident, "tokenize", "--tokenizer", "byte", "--out", "x", "t.txt"},
     {trident, "tokenize", "--tokenizer", "byte", "--out", "y", "t.txt"},
     "--out is x on rank 0 and y on"},
    {{trident, "train", "c.yaml"},
     {"env", "TRIDENT_KERNELS=ref", trident, "train", "c.yaml"},
     "the kernel path is "},
    /* The same words, and other files by the same names. */
    {{trident, "train", "c.yaml"},
     {"env", "-C", "longer", trident, "train", "c.yaml"},
     "a shard is tok/train_000000.bin ("},
    {{trident, "train", "c.yaml"},
     {"env", "-C", "changed", trident, "train", "c.yaml"},
     "a shard is tok/train_000000.bin ("},
    {{trident, "train", "c.yaml"},
     {"env", "-C", "more", trident, "train", "c.yaml"},
     "the number of shards that 'tok/train_*.bin' matches is 1 on rank 0 and 2 on"},
    {{trident, "eval", "run"},
     {"env", "-C", "changed", trident, "eval", "run"},
     "run/checkpoints/step_2"},
    {{trident, "eval", "run", "--choices", "q.bin"},
     {"env", "-C", "changed", trident, "eval", "run", "--choices", "q.bin"},
     "the file of questions is q.bin (1 questions, contents "},
};

static void test_pair(void **state)
{
    const struct pair *pair = *state;
    if (cli_ranks() > 2 && (pair - pairs) % 5 != 0) {
        return; /* two ranks show it */
    }
    struct cli_snapshot *before = cli_snapshot_take(".");
    struct process_result result = cli_run_apart(cli_ranks(), pair->first, pair->rest);
    if (cli_ranks() > 2 && strstr(pair->says, "on rank 0 and") && result.err) {
        assert_non_null(strstr(result.err, "on ranks 1, 2"));
    }
    cli_expect_error(&result, cli_ranks(), 2, pair->says);
    cli_snapshot_expect_kept(before, false);
    assert_int_equal(access("x", F_OK), -1);
}

/* The config may lie elsewhere on each node, and ranks that agree train. */
static void test_alike(void **state)
{
    (void)state;
    struct process_result result = cli_run_apart(
        cli_ranks(), CLI_WORDS_OF(trident, "train", "c.yaml", "run_dir=apart", "train.steps=2"),
        CLI_WORDS_OF(trident, "train", "more/../c.yaml", "run_dir=apart", "train.steps=2"));
    cli_expect_status(&result, 0);
}

static const char *const strangers[][2] = {{"OMPI_COMM_WORLD_SIZE=4", "OMPI_COMM_WORLD_RANK=0"},
                                           {"PMI_SIZE=4", "PMI_RANK=0"},
                                           {"SLURM_STEP_NUM_TASKS=4", "SLURM_PROCID=0"}};

/* Processes of a launcher that this MPI does not know: what would write the same files four times
 * is refused, the rest warns; one of the four says so. */
static void test_strangers(void **state)
{
    (void)state;
    static const char says[] = " says 4 processes, but ";
    for (size_t i = 0; i < sizeof(strangers) / sizeof(*strangers); i++) {
        char other[64];
        const char *const *changes = CLI_WORDS_OF(strangers[i][0], strangers[i][1]);
        struct process_result result = cli_run_with(0, changes, CLI_WORDS_OF("train", "c.yaml"));
        cli_expect_error(&result, 0, 2, says);
        result = cli_run_with(0, changes, CLI_WORDS_OF("import", "a", "b"));
        cli_expect_error(&result, 0, 2, says);
        result = cli_run_with(0, changes, CLI_WORDS_OF("plan", "c.yaml"));
        assert_int_equal(cli_count(result.err, says), 1);
        cli_expect_status(&result, 0);
        (void)snprintf(other, sizeof(other), "%.*s=3", (int)strcspn(strangers[i][1], "="),
                       strangers[i][1]);
        result =
            cli_run_with(0, CLI_WORDS_OF(strangers[i][0], other), CLI_WORDS_OF("train", "c.yaml"));
        assert_string_equal(result.err ? result.err : "", "");
        cli_expect_status(&result, 2);
    }
    /* Hydra and mpirun start theirs through a step of Slurm's with one task a node. */
    struct process_result result =
        cli_run_with(0, CLI_WORDS_OF("PMI_SIZE=4", "PMI_RANK=0", "SLURM_STEP_NUM_TASKS=1"),
                     CLI_WORDS_OF("train", "c.yaml"));
    cli_expect_error(&result, 0, 2, "PMI_SIZE says 4 processes, but ");
}

/* An allocation's shell and a batch script are one process, whatever the job asked for; and the
 * launcher inside another is right. */
static void test_no_strangers(void **state)
{
    (void)state;
    struct process_result result =
        cli_run_with(0, CLI_WORDS_OF("SLURM_NTASKS=4", "SLURM_PROCID=0", "SLURM_JOB_ID=7"),
                     CLI_WORDS_OF("train", "c.yaml", "run_dir=batch", "train.steps=2"));
    assert_int_equal(cli_count(result.err, "processes"), 0);
    cli_expect_status(&result, 0);
    result = cli_run_with(1, CLI_WORDS_OF("SLURM_STEP_NUM_TASKS=4", "SLURM_PROCID=0"),
                          CLI_WORDS_OF("plan", "c.yaml"));
    assert_int_equal(cli_count(result.err, "processes"), 0);
    cli_expect_status(&result, 0);
}

/* Beside a run that goes on each rank would find another newest checkpoint: all take rank 0's. */
static void test_newest(void **state)
{
    (void)state;
    cli_tool(CLI_WORDS_OF("env", "-C", "newer", trident, "train", "c.yaml", "train.steps=4"));
    struct process_result result =
        cli_run_apart(cli_ranks(), CLI_WORDS_OF(trident, "eval", "run", "--json"),
                      CLI_WORDS_OF("env", "-C", "newer", trident, "eval", "run", "--json"));
    json_t *root = cli_expect_json(&result, 0);
    assert_string_equal(json_string_value(json_object_get(root, "checkpoint")),
                        "run/checkpoints/step_2");
    json_decref(root);
}

/* What the weights begin with may look like something else from elsewhere: rank 0 says what it is,
 * and each rank then reads its own. */
static void test_start(void **state)
{
    (void)state;
    static const char config[] = "threads: 1\n"
                                 "init_from: model\n"
                                 "data: {train: \"tok/train_*.bin\", sequence_length: 16}\n"
                                 "train: {global_batch: 12, steps: 1}\n";
    static const char golden[] = TRIDENT_SOURCE_DIR "/tests/data/golden/llama";
    char here[CLI_PATH], run[CLI_PATH + 32];
    assert_non_null(getcwd(here, sizeof(here)));
    (void)snprintf(run, sizeof(run), "run_dir=%s/started", here);
    cli_write("start.yaml", config);
    cli_write("newer/start.yaml", config);
    cli_tool(CLI_WORDS_OF("cp", "-rL", golden, "model"));
    cli_tool(CLI_WORDS_OF("cp", "-rL", golden, "newer/model"));
    cli_tool(CLI_WORDS_OF("mkdir", "newer/model/checkpoints"));
    struct process_result result =
        cli_run_apart(cli_ranks(), CLI_WORDS_OF(trident, "train", "start.yaml", run),
                      CLI_WORDS_OF("env", "-C", "newer", trident, "train", "start.yaml", run));
    assert_false(result.late);
    assert_non_null(strstr(result.err, "the weights of model, at step 0"));
    cli_expect_status(&result, 0);
}

/* A copy of the file with `count` bytes inserted at `at`, or changed there. */
static void write_stale(const char *from, const char *to, size_t at, bool longer)
{
    size_t bytes = 0;
    char *data = cli_read(from, &bytes);
    uint64_t header;
    FILE *file = fopen(to, "wbe");
    assert_non_null(data);
    assert_non_null(file);
    memcpy(&header, data, sizeof(header));
    header += longer ? 8 : 0;
    memcpy(data, &header, sizeof(header));
    at += 8 + (size_t)header - (longer ? 8 : 0);
    assert_true(at < bytes);
    data[at] = (char)(data[at] ^ (longer ? 0 : 1));
    assert_int_equal(fwrite(data, 1, at, file), at);
    assert_true(!longer || fputs("        ", file) >= 0);
    assert_int_equal(fwrite(data + at, 1, bytes - at, file), bytes - at);
    assert_int_equal(fclose(file), 0);
    free(data);
}

static void expect_stale(const char *const *words, const char *says)
{
    const char *there[CLI_WORDS] = {"env", "-C", "newer"};
    for (int i = 0; words[i]; i++) {
        there[3 + i] = words[i];
    }
    struct process_result result = cli_run_apart(cli_ranks(), words, there);
    cli_expect_error(&result, cli_ranks(), 2, says);
}

/* Copies of a folder that each node has of its own: what ranks read must be the same, also where it
 * stays frozen, and nobody would notice. */
static void test_stale_weights(void **state)
{
    (void)state;
    static const char golden[] = TRIDENT_SOURCE_DIR "/tests/data/golden";
    char here[CLI_PATH], run[CLI_PATH + 32];
    assert_non_null(getcwd(here, sizeof(here)));
    (void)snprintf(run, sizeof(run), "run_dir=%s/stale", here);
    cli_tool(CLI_WORDS_OF("mkdir", "-p", "golden/llama", "golden/olmoe"));
    for (int i = 0; i < 2; i++) {
        char model[CLI_PATH], settings[CLI_PATH], adapter[CLI_PATH];
        const char *to = i ? "golden/olmoe" : "golden/llama";
        (void)snprintf(model, sizeof(model), "%s/%s/model.safetensors", golden,
                       i ? "olmoe" : "llama");
        (void)snprintf(settings, sizeof(settings), "%s/%s/config.json", golden,
                       i ? "olmoe" : "llama");
        (void)snprintf(adapter, sizeof(adapter), "%s/olmoe/adapter", golden);
        cli_tool(CLI_WORDS_OF("cp", "-rL", model, settings, i ? adapter : settings, to));
    }
    cli_tool(CLI_WORDS_OF("cp", "-r", "golden", "newer/golden"));
    cli_write("stale.yaml", "threads: 1\n"
                            "data: {train: \"tok/train_*.bin\", sequence_length: 16}\n"
                            "train: {global_batch: 12, steps: 1}\n");
    cli_tool(CLI_WORDS_OF("cp", "stale.yaml", "newer/stale.yaml"));
    const char *const llama[] = {trident, "train", "stale.yaml", run, "init_from=golden/llama",
                                 NULL};
    static const char from[] = "golden/llama/model.safetensors";
    static const char stale[] = "newer/golden/llama/model.safetensors";
    write_stale(from, stale, 0, true);
    expect_stale(llama, "a file of 'golden/llama' is model.safetensors (92776 bytes, 20 tensors");
    /* Within the embedding: in its middle, which all ranks look at, and where replicas alone do. */
    write_stale(from, stale, 8192, false);
    expect_stale(llama, "a file of 'golden/llama' is model.safetensors with weights (sampled) of ");
    write_stale(from, stale, 1, false);
    expect_stale(llama, "the weights of 'golden/llama' for embedding.weight have contents ");
    cli_tool(CLI_WORDS_OF("rm", stale));
    expect_stale(llama, "the folder 'golden/llama' is one of 1 file and 20 tensors on rank 0");
    cli_tool(CLI_WORDS_OF("mv", "newer/golden/llama", "newer/golden/other"));
    expect_stale(llama,
                 "golden/llama/config.json: cannot open: No such file or directory (on rank 1");
    const char *const adapted[] = {trident,
                                   "train",
                                   "stale.yaml",
                                   run,
                                   "init_from=golden/olmoe",
                                   "train.lora.adapter=golden/olmoe/adapter",
                                   NULL};
    write_stale("golden/olmoe/adapter/adapter_model.safetensors",
                "newer/golden/olmoe/adapter/adapter_model.safetensors", 0, false);
    expect_stale(adapted, "golden/olmoe/adapter");
    assert_int_equal(access("stale/metrics.jsonl", F_OK), -1);
}

/* Every rank writes its part of a checkpoint: one that does not see the folder is found out at the
 * start. */
static void test_other_folder(void **state)
{
    (void)state;
    struct process_result result = cli_run_apart(
        cli_ranks(), CLI_WORDS_OF(trident, "train", "c.yaml", "run_dir=unseen"),
        CLI_WORDS_OF("env", "-C", "newer", trident, "train", "c.yaml", "run_dir=unseen"));
    assert_non_null(strstr(result.err, "rank 1, on "));
    cli_expect_error(&result, cli_ranks(), 2, "run_dir must be the same folder on all nodes");
    assert_int_equal(access("unseen/metrics.jsonl", F_OK), -1);
    assert_int_equal(access("unseen/checkpoints/trident.tried", F_OK), -1);
}

/* Ranks that may have other numbers of threads take the fewest. */
static void test_threads(void **state)
{
    (void)state;
    struct process_result result =
        cli_run_apart(cli_ranks(),
                      CLI_WORDS_OF("env", "OMP_NUM_THREADS=3", trident, "train", "c.yaml",
                                   "threads=0", "run_dir=threads", "train.steps=1"),
                      CLI_WORDS_OF("env", "OMP_NUM_THREADS=2", trident, "train", "c.yaml",
                                   "threads=0", "run_dir=threads", "train.steps=1"));
    assert_non_null(strstr(result.err, ", 2 threads each"));
    cli_expect_status(&result, 0);
}

/* Folders in which the same names stand for other things. */
static int prepare(void **state)
{
    (void)state;
    cli_write("follows.yaml", "run_dir: run\n"
                              "model: {vocab_size: 256, num_layers: 1, hidden_size: 8}\n"
                              "data: {train: x, sequence_length: 16}\n"
                              "train: {global_batch: 4, steps: 4, learning_rate: 1e-3}\n");
    static const char *const folders[] = {"longer", "changed", "more", "newer"};
    cli_run_well(0, CLI_WORDS_OF("train", "c.yaml", "train.steps=2"));
    cli_tool(CLI_WORDS_OF("tar", "cf", "all.tar", "c.yaml", "tok", "run"));
    for (int i = 0; i < 4; i++) {
        assert_int_equal(mkdir(folders[i], 0777), 0);
        cli_tool(CLI_WORDS_OF("tar", "xf", "all.tar", "-C", folders[i]));
    }
    cli_tool(CLI_WORDS_OF("cp", "longer/tok/train_000000.bin", "more/tok/train_000001.bin"));
    cli_tool(CLI_WORDS_OF("cp", "tok/valid_000000.bin", "longer/tok/train_000000.bin"));
    /* The same step of a run on other data, of the same name. */
    cli_write_question("q.bin", 9);
    cli_write_question("changed/q.bin", 8);
    assert_int_equal(chdir("changed"), 0);
    cli_tool(CLI_WORDS_OF("cp", "tok/valid_000000.bin", "tok/train_000000.bin"));
    cli_tool(CLI_WORDS_OF("rm", "-r", "run"));
    cli_run_well(0, CLI_WORDS_OF("train", "c.yaml", "train.steps=2"));
    assert_int_equal(chdir(".."), 0);
    /* Then one token of many. */
    size_t bytes = 0;
    char *shard = cli_read("tok/train_000000.bin", &bytes);
    shard[1024 + 2 * 1000] = '#';
    FILE *file = fopen("changed/tok/train_000000.bin", "wbe");
    assert_non_null(file);
    assert_int_equal(fwrite(shard, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
    free(shard);
    return 0;
}

/* What all ranks have wrong alike one of them says. */
static void test_environment(void **state)
{
    (void)state;
    static const char *const wrong[] = {"nan", "1e10", "5s", ""};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
        char change[64], says[96];
        (void)snprintf(change, sizeof(change), "TRIDENT_TIMEOUT_SECONDS=%s", wrong[i]);
        (void)snprintf(says, sizeof(says), "TRIDENT_TIMEOUT_SECONDS: found '%s', expected",
                       wrong[i]);
        struct process_result result =
            cli_run_with(cli_ranks(), CLI_WORDS_OF(change), CLI_WORDS_OF("plan", "c.yaml"));
        cli_expect_error(&result, cli_ranks(), 2, says);
    }
}

/* `trident COMMAND FROM TO` where each node has a folder of its own under the same name, one of
 * them with what an earlier one left: its rank would write there, and rank 0's file have holes
 * where its pieces belong. */
static void expect_apart(const char *command, const char *from, const char *to, const char *file)
{
    char left[64], there[256];
    (void)snprintf(left, sizeof(left), "%s.trident.tmp", to);
    (void)snprintf(there, sizeof(there), "newer/%s", left);
    cli_tool(CLI_WORDS_OF("cp", "-r", from, "newer"));
    cli_tool(CLI_WORDS_OF("mkdir", "-p", there));
    struct process_result result =
        cli_run_apart(cli_ranks(), CLI_WORDS_OF(trident, command, from, to),
                      CLI_WORDS_OF("env", "-C", "newer", trident, command, from, to));
    cli_expect_error(&result, cli_ranks(), 2, "it must be the same folder on all nodes");
    assert_int_equal(access(to, F_OK), -1);
    assert_int_equal(access(left, F_OK), -1);
    (void)snprintf(there, sizeof(there), "newer/%s/%s", left, file);
    assert_int_equal(access(there, F_OK), -1);
}

static void test_folders_apart(void **state)
{
    (void)state;
    if (cli_ranks() < 2) {
        return;
    }
    cli_run_well(0,
                 CLI_WORDS_OF("train", "c.yaml", "run_dir=whole", "train.steps=2", "moe.every=1"));
    expect_apart("export", "whole", "nodes", "model.safetensors");
    cli_run_well(0, CLI_WORDS_OF("export", "whole", "exported"));
    expect_apart("import", "exported", "imported", "model-00001-of-00001.safetensors");
}

int main(int argc, char **argv)
{
    enum { PAIRS = sizeof(pairs) / sizeof(*pairs), COUNT = PAIRS + 10 };
    static struct CMUnitTest tests[COUNT] = {
        cmocka_unit_test(test_alike),         cmocka_unit_test(test_start),
        cmocka_unit_test(test_newest),        cmocka_unit_test(test_other_folder),
        cmocka_unit_test(test_threads),       cmocka_unit_test(test_strangers),
        cmocka_unit_test(test_no_strangers),  cmocka_unit_test(test_environment),
        cmocka_unit_test(test_stale_weights), cmocka_unit_test(test_folders_apart)};
    static char names[PAIRS][256];
    for (int i = 0; i < PAIRS; i++) {
        (void)snprintf(names[i], sizeof(names[i]), "%d: %s", i, pairs[i].says);
        tests[COUNT - PAIRS + i] =
            (struct CMUnitTest){names[i], test_pair, NULL, NULL, (void *)(uintptr_t)&pairs[i]};
    }
    cli_begin("launch", argc, argv);
    int failed = cmocka_run_group_tests(tests, prepare, NULL);
    cli_end();
    return failed;
}
