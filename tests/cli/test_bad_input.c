/* Bad input of every kind, on one rank and on as many as the test was started with: one line that
 * names the place, the right exit status, in seconds, and every file as it was. Ranks that are
 * threads show all of it; under mpiexec, where a start takes ten times as long, a third does, and
 * whatever makes a file fail. */
#include "cli/cli.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum damage_kind { NONE, REMOVE, TRUNCATE, FLIP, APPEND, REPLACE };

/* What is done to a file before the command: TRUNCATE to `at` bytes, FLIP the lowest bit of byte
 * `at`; negative places count from the end. APPEND text or REPLACE by it. */
struct damage {
    enum damage_kind kind;
    const char *path;
    long at;
    const char *text;
};

struct bad_input {
    const char *run; /* words, a space between */
    struct damage damage;
    const char *fault; /* TRIDENT_FILE_FAULT */
    const char *says;
    int status;     /* 0: 2, bad input */
    bool continues; /* the command trains on in a run folder that is there */
};

#define TOKENS     "tok/train_000000.bin"
#define CHECKPOINT "run/checkpoints/step_4/"
#define MODEL      CHECKPOINT "model-00001-of-00001.safetensors"
#define OPTIMIZER  CHECKPOINT "optimizer-00001-of-00001.safetensors"
#define MANIFEST   CHECKPOINT "manifest.json"

static const struct bad_input inputs[] = {
    /* the command line */
    {.run = "", .says = "no command given"},
    {.run = "trian c.yaml", .says = "did you mean 'train'?"},
    {.run = "train", .says = "usage: trident train"},
    {.run = "train c.yaml --frech", .says = "unknown option '--frech'"},
    {.run = "eval run --data", .says = "option '--data' needs a value"},
    {.run = "eval run --bytes many", .says = "option '--bytes': found 'many'"},
    {.run = "generate run --prompt a --temperature -1", .says = "option '--temperature'"},
    {.run = "generate run --prompt=", .says = "--prompt is empty"},
    {.run = "generate run --ids --prompt 1,x", .says = "found 'x', expected token ids"},
    {.run = "generate run --ids --prompt 256", .says = "token 256"},
    {.run = "verify c.yaml --plant embedding", .says = "'--plant'"},
    {.run = "verify c.yaml --plant nowhere.weight=2", .says = "nowhere.weight"},

    /* configs */
    {.run = "train missing.yaml", .says = "missing.yaml: cannot open"},
    {.run = "train tok", .says = "tok: "},
    {.run = "train c.yaml", .damage = {REPLACE, "c.yaml", .text = ""}, .says = "c.yaml"},
    {.run = "train c.yaml",
     .damage = {REPLACE, "c.yaml", .text = "model: {num_layers: 2\n"},
     .says = "c.yaml:2: not YAML"},
    {.run = "train c.yaml",
     .damage = {REPLACE, "c.yaml", .text = "\x01\x02\xff\xfe"},
     .says = "c.yaml"},
    {.run = "train c.yaml",
     .damage = {APPEND, "c.yaml", .text = "\nseed: 1\nseed: 2\n"},
     .says = "c.yaml:11: key 'seed'"},
    {.run = "train c.yaml",
     .damage = {APPEND, "c.yaml", .text = "trian: {steps: 4}\n"},
     .says = "did you mean 'train'?"},
    {.run = "train c.yaml train.stepz=4", .says = "'train.steps'"},
    {.run = "train c.yaml train.steps=many", .says = "train.steps"},
    {.run = "train c.yaml train.steps=0", .says = "train.steps"},
    {.run = "train c.yaml train.learning_rate=nan", .says = "train.learning_rate"},
    {.run = "train c.yaml model.num_heads=3", .says = "model.hidden_size"},
    {.run = "train c.yaml moe.top_k=5", .says = "moe.top_k"},
    {.run = "train c.yaml reproducible=yes", .says = "'reproducible'"},
    {.run = "train c.yaml train.recompute=some", .says = "'train.recompute': found 'some'"},
    {.run = "train c.yaml train.recompute=[0,2]", .says = "found block 2"},
    {.run = "train c.yaml train.optimizer_tile=0", .says = "'train.optimizer_tile'"},
    {.run = "train c.yaml train.gradient_dtype=bf16", .says = "no weight is stored in bf16"},
    {.run = "train c.yaml precision=bf16 reproducible=true train.gradient_dtype=bf16",
     .says = "reproducible sums are exact"},
    {.run = "train c.yaml data.train=", .says = "data.train"},
    {.run = "train c.yaml",
     .fault = "open:EACCES:c.yaml",
     .says = "c.yaml: cannot open: Permission denied"},
    {.run = "train c.yaml",
     .fault = "read:EIO:c.yaml",
     .says = "c.yaml: cannot read: Input/output error"},

    /* layouts */
    {.run = "train c.yaml parallel.tensor=3", .says = "parallel.tensor"},
    {.run = "train c.yaml parallel.expert=3", .says = "parallel.expert"},
    {.run = "train c.yaml parallel.expert_tensor=2", .says = "parallel.expert_tensor"},
    {.run = "verify c.yaml parallel.tensor=4 parallel.expert=4", .says = "the number of ranks"},
    {.run = "eval run parallel.tensor=4 parallel.expert=4", .says = "the number of ranks"},
    {.run = "train c.yaml model.hidden_size=65536 model.intermediate_size=262144",
     .says = " GB a rank is free",
     .status = 3},

    /* tokens */
    {.run = "train c.yaml data.train=tok/x*.bin", .says = "tok/x*.bin: no file matches"},
    {.run = "train c.yaml data.valid=no/*.bin", .says = "no/*.bin: "},
    {.run = "train c.yaml",
     .damage = {TRUNCATE, TOKENS, .at = -1},
     .says = "tok/train_000000.bin: "},
    {.run = "train c.yaml", .damage = {TRUNCATE, TOKENS, .at = 1000}, .says = "too short"},
    {.run = "train c.yaml", .damage = {TRUNCATE, TOKENS, .at = 0}, .says = "too short"},
    {.run = "train c.yaml", .damage = {FLIP, TOKENS, .at = 0}, .says = "magic number"},
    {.run = "train c.yaml", .damage = {FLIP, TOKENS, .at = 4}, .says = "version"},
    {.run = "train c.yaml", .damage = {FLIP, TOKENS, .at = 8}, .says = "header promises"},
    {.run = "train c.yaml", .damage = {FLIP, TOKENS, .at = 500}, .says = "header word"},
    {.run = "train c.yaml", .damage = {FLIP, TOKENS, .at = -1}, .says = "model.vocab_size"},
    {.run = "train c.yaml model.vocab_size=64", .says = "model.vocab_size"},
    {.run = "train c.yaml data.format=u32", .says = "has a header"},
    {.run = "train c.yaml model.max_position=8000 data.sequence_length=8000",
     .says = "3602 tokens, expected at least 8001"},
    {.run = "train c.yaml", .fault = "open:EACCES:train_000000.bin", .says = "Permission denied"},
    {.run = "eval run", .fault = "read:EIO:valid_000000.bin", .says = "Input/output error"},
    {.run = "eval run",
     .damage = {TRUNCATE, "tok/valid_000000.bin", .at = -2},
     .says = "tok/valid_000000.bin: "},
    {.run = "inspect tok/train_000000.bin",
     .damage = {APPEND, TOKENS, .text = "x"},
     .says = "header promises"},
    {.run = "tokenize --tokenizer byte --out new t.txt gone.txt", .says = "gone.txt: cannot open"},
    {.run = "tokenize --tokenizer words --out new t.txt", .says = "words"},
    {.run = "tokenize --tokenizer byte --out t.txt t.txt", .says = "t.txt"},
    {.run = "tokenize --tokenizer byte --format words --out new t.txt",
     .says = "found 'words', expected text, jsonl or chat"},
    {.run = "tokenize --tokenizer byte --format jsonl --out new t.txt", .says = "t.txt:1: column"},
    {.run = "tokenize --tokenizer byte --format chat --out new t.txt", .says = "--template"},
    {.run = "tokenize --tokenizer byte --out tok t.txt",
     .fault = "write:ENOSPC:tok/",
     .says = "No space left on device",
     .status = 3},
    {.run = "tokenize --tokenizer byte --out tok t.txt",
     .fault = "open:EACCES:tok/",
     .says = "Permission denied",
     .status = 3},

    /* checkpoints */
    {.run = "eval gone", .says = "gone: no such run or checkpoint"},
    {.run = "eval c.yaml", .says = "c.yaml: a file, expected the folder"},
    {.run = "eval tok", .says = "tok: a folder of token shards, expected a run or checkpoint"},
    {.run = "inspect tok", .says = "shards are named by a glob, as 'tok/*.bin'"},
    {.run = "inspect gone", .says = "gone: no such file or folder, expected a config, a run"},
    {.run = "inspect run/checkpoints", .says = "expected one of them or the run"},
    {.run = "eval run --data tok",
     .says = "tok: Is a directory, expected token shards: a file or a glob"},
    {.run = "train run",
     .says = "run: Is a directory, expected a config; the run has run/config.yaml"},
    {.run = "plan run", .says = "expected a config; the run has run/config.yaml"},
    {.run = "verify run/checkpoints/step_4",
     .says = "Is a directory, expected the file of a config"},
    {.run = "train c.yaml run_dir=other data.train=tok", .says = "as 'tok/train_*.bin'"},
    {.run = "import hf imported", .says = "imported: is there already: not replaced"},
    {.run = "eval run/checkpoints/step_4",
     .damage = {REMOVE, MANIFEST, .at = 0},
     .says = "manifest.json is missing; the last good checkpoint is run/checkpoints/step_2"},
    {.run = "eval run/checkpoints/step_4",
     .damage = {REMOVE, MODEL, .at = 0},
     .says = "model-00001-of-00001.safetensors: "},
    {.run = "eval run/checkpoints/step_4",
     .damage = {TRUNCATE, MODEL, .at = -4},
     .says = "the last good checkpoint is run/checkpoints/step_2"},
    {.run = "eval run/checkpoints/step_4",
     .damage = {FLIP, MODEL, .at = 30000},
     .says = "model-00001-of-00001.safetensors: "},
    {.run = "generate run/checkpoints/step_4 --prompt a",
     .damage = {FLIP, MODEL, .at = 100},
     .says = "model-00001-of-00001.safetensors: "},
    {.run = "inspect run/checkpoints/step_4",
     .damage = {APPEND, MODEL, .text = "x"},
     .says = "model-00001-of-00001.safetensors: "},
    {.run = "inspect run/checkpoints/step_4",
     .damage = {FLIP, OPTIMIZER, .at = -1},
     .says = "optimizer-00001-of-00001.safetensors: "},
    {.run = "generate run/checkpoints/step_4 --prompt a",
     .damage = {FLIP, MANIFEST, .at = 200},
     .says = "manifest.json: damaged"},
    {.run = "eval run/checkpoints/step_4",
     .damage = {TRUNCATE, MANIFEST, .at = -10},
     .says = "manifest.json: damaged"},
    {.run = "eval run/checkpoints/step_4",
     .damage = {FLIP, "run/checkpoints/step_4/state.json", .at = 40},
     .says = "state.json: "},
    {.run = "eval run model.intermediate_size=96", .says = "shape"},
    {.run = "eval run", .fault = "open:EACCES:model-00001", .says = "Permission denied"},
    {.run = "eval run", .fault = "read:EIO:manifest.json", .says = "Input/output error"},
    {.run = "train c.yaml run_dir=other resume=run/checkpoints/step_4",
     .damage = {FLIP, OPTIMIZER, .at = 9000},
     .says = "the last good checkpoint is run/checkpoints/step_2",
     .continues = true},
    {.run = "train c.yaml train.steps=6 model.num_layers=4",
     .says = "'model.num_layers'",
     .continues = true},
    {.run = "train c.yaml train.steps=6 data.sequence_length=8",
     .says = "'data.sequence_length'",
     .continues = true},
    {.run = "train c.yaml run_dir=other resume=gone",
     .says = "gone: no such run",
     .continues = true},
    {.run = "train c.yaml run_dir=other resume=imported", .says = "'model.", .continues = true},

    /* disks that fill up and folders that refuse while a run goes on */
    {.run = "train c.yaml train.steps=6",
     .fault = "write:ENOSPC:model-",
     .says = "step_6.trident.tmp/model-00001-of-00001.safetensors: cannot write: No space left on "
             "device",
     .status = 3,
     .continues = true},
    {.run = "train c.yaml train.steps=6",
     .fault = "write:ENOSPC:optimizer-00001:60000",
     .says = "cannot write: No space left on device",
     .status = 3,
     .continues = true},
    {.run = "train c.yaml train.steps=6",
     .fault = "write:ENOSPC:manifest",
     .says = "manifest.json: cannot write: No space left on device",
     .status = 3,
     .continues = true},
    {.run = "train c.yaml train.steps=6",
     .fault = "sync:EDQUOT:manifest",
     .says = "manifest.json: cannot finish: Disk quota exceeded",
     .status = 3,
     .continues = true},
    {.run = "train c.yaml train.steps=6",
     .fault = "rename:EIO:tmp/state.json",
     .says = "step_6.trident.tmp/state.json: cannot finish: Input/output error",
     .status = 3,
     .continues = true},
    {.run = "train c.yaml train.steps=6",
     .fault = "open:EACCES:step_6.trident.tmp",
     .says = "cannot create the folder: Permission denied",
     .status = 3,
     .continues = true},
    {.run = "train c.yaml train.steps=6",
     .fault = "write:ENOSPC:metrics.jsonl",
     .says = "metrics.jsonl: cannot append to: No space left on device",
     .status = 3,
     .continues = true},
    {.run = "train c.yaml train.steps=6",
     .fault = "open:EROFS:run/config.yaml",
     .says = "config.yaml: cannot create: Read-only file system",
     .status = 3,
     .continues = true},
    {.run = "train c.yaml train.steps=6 checkpoint.keep_last=9",
     .fault = "write:ENOSPC:ledger.json",
     .says = "ledger.json: cannot write: No space left on device",
     .status = 3,
     .continues = true},
    {.run = "train c.yaml run_dir=new",
     .fault = "open:EACCES:new",
     .says = "new: cannot create the folder: Permission denied",
     .status = 3},
    {.run = "train c.yaml run_dir=t.txt", .says = "t.txt: cannot create the folder"},

    /* Hugging Face folders */
    {.run = "import gone new", .says = "gone/config.json"},
    {.run = "import hf new",
     .damage = {TRUNCATE, "hf/config.json", .at = 40},
     .says = "config.json"},
    {.run = "import hf new",
     .damage = {REPLACE, "hf/config.json", .text = "{\"model_type\": \"bert\"}"},
     .says = "model_type"},
    {.run = "import hf new",
     .damage = {REMOVE, "hf/model.safetensors", .at = 0},
     .says = "model.safetensors"},
    {.run = "import hf new",
     .damage = {TRUNCATE, "hf/model.safetensors", .at = -4},
     .says = "model.safetensors: "},
    {.run = "import hf new",
     .damage = {FLIP, "hf/model.safetensors", .at = 7},
     .says = "model.safetensors: "},
    {.run = "import hf new",
     .damage = {FLIP, "hf/model.safetensors", .at = 12},
     .says = "model.safetensors: "},
    {.run = "import hf new",
     .fault = "write:ENOSPC:new.trident.tmp",
     .says = "No space left on device",
     .status = 3},
    {.run = "import hf tok", .says = "tok: is there already"},
    {.run = "export imported t.txt", .says = "t.txt"},
    {.run = "export imported new",
     .fault = "write:ENOSPC:new",
     .says = "No space left on device",
     .status = 3},
};

static void do_damage(const struct damage *damage)
{
    size_t bytes = 0;
    char *data = damage->kind == NONE ? NULL : cli_read(damage->path, &bytes);
    FILE *file = NULL;
    if (damage->kind == NONE) {
        return;
    }
    assert_non_null(data);
    size_t at = (size_t)(damage->at < 0 ? (long)bytes + damage->at : damage->at);
    if (damage->kind == REMOVE) {
        assert_int_equal(unlink(damage->path), 0);
    } else if (damage->kind == TRUNCATE) {
        assert_int_equal(truncate(damage->path, (off_t)at), 0);
    } else if (damage->kind == FLIP) {
        assert_true(at < bytes);
        data[at] ^= 1;
        file = fopen(damage->path, "wbe");
        assert_non_null(file);
        assert_int_equal(fwrite(data, 1, bytes, file), bytes);
        assert_int_equal(fclose(file), 0);
    } else if (damage->kind == APPEND) {
        file = fopen(damage->path, "abe");
        assert_non_null(file);
        assert_int_equal(fwrite(damage->text, 1, strlen(damage->text), file), strlen(damage->text));
        assert_int_equal(fclose(file), 0);
    } else {
        cli_write(damage->path, damage->text);
    }
    free(data);
}

/* Cuts the command into words where it stands. */
static void split(char *command, const char **words)
{
    size_t used = 0;
    char *rest = command;
    for (char *word = strtok_r(rest, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
        assert_true(used < CLI_WORDS - 1);
        words[used++] = word;
    }
    words[used] = NULL;
}

static void test_input(void **state)
{
    const struct bad_input *input = *state;
    bool launched = cli_ranks() > 0 && !cli_over_threads();
    if (launched && !input->fault && (input - inputs) % 3 != 0) {
        return;
    }
    char command[512];
    char fault[256];
    const char *words[CLI_WORDS];
    (void)snprintf(command, sizeof(command), "%s", input->run);
    split(command, words);
    (void)snprintf(fault, sizeof(fault), "TRIDENT_FILE_FAULT=%s", input->fault ? input->fault : "");
    cli_tool(CLI_WORDS_OF("rm", "-rf", "case"));
    cli_tool(CLI_WORDS_OF("cp", "-r", "whole", "case"));
    assert_int_equal(chdir("case"), 0);
    do_damage(&input->damage);
    struct cli_snapshot *before = cli_snapshot_take(".");
    struct process_result result =
        cli_run_with(cli_ranks(), input->fault ? CLI_WORDS_OF(fault) : NULL, words);
    cli_expect_error(&result, cli_ranks(), input->status ? input->status : 2, input->says);
    cli_snapshot_expect_kept(before, input->continues);
    assert_int_equal(chdir(".."), 0);
}

static int back(void **state)
{
    (void)state;
    return access("whole", F_OK) == 0 ? 0 : chdir("..");
}

/* A folder with everything that a command could be given. */
static int prepare(void **state)
{
    (void)state;
    static const char mixtral[] = TESTDATA_DIR "/golden/mixtral";
    cli_run_well(0, CLI_WORDS_OF("train", "c.yaml"));
    cli_tool(CLI_WORDS_OF("cp", "-r", mixtral, "hf"));
    cli_run_well(0, CLI_WORDS_OF("import", "hf", "imported"));
    assert_int_equal(mkdir("whole", 0777), 0);
    cli_tool(CLI_WORDS_OF("mv", "c.yaml", "t.txt", "tok", "run", "hf", "imported", "whole"));
    return 0;
}

int main(int argc, char **argv)
{
    enum { COUNT = sizeof(inputs) / sizeof(*inputs) };
    static struct CMUnitTest tests[COUNT];
    static char names[COUNT][256];
    for (int i = 0; i < COUNT; i++) {
        (void)snprintf(names[i], sizeof(names[i]), "%d: trident %s", i, inputs[i].run);
        tests[i] =
            (struct CMUnitTest){names[i], test_input, NULL, back, (void *)(uintptr_t)&inputs[i]};
    }
    cli_begin("bad_input", argc, argv);
    int failed = cmocka_run_group_tests(tests, prepare, NULL);
    cli_end();
    return failed;
}
