#include "cli/cli.h"

#include "base/memory.h"

#include <errno.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <cmocka.h>

enum { SECONDS = 60 };

static struct {
    char folder[CLI_PATH];
    char **flags; /* of mpiexec */
    int num_flags;
    int ranks;
    bool threads; /* the ranks are */
    const char *wrapper;
} cli;

static const char config[] =
    "run_dir: run\n"
    "threads: 1\n"
    "model: {vocab_size: 256, num_layers: 2, hidden_size: 32, num_heads: 4, intermediate_size: "
    "64,\n"
    "        max_position: 32}\n"
    "moe: {num_experts: 4, top_k: 2, every: 2, intermediate_size: 32}\n"
    "data: {train: \"tok/train_*.bin\", valid: \"tok/valid_*.bin\", sequence_length: 16}\n"
    "train: {global_batch: 4, steps: 4, learning_rate: 1e-3}\n"
    "checkpoint: {every: 2}\n";

/* ---- the scratch folder ---------------------------------------------------------------------- */

/* Words in an order that a generator of our own chooses: 4000 bytes of text. */
static void write_text(const char *path)
{
    static const char *const words[] = {"the ", "sea ",  "wind ",   "rose ",
                                        "and ", "fell ", "again.\n"};
    char text[4096] = "";
    size_t used = 0;
    uint32_t state = 1;
    while (used < 4000) {
        state = state * 1664525U + 1013904223U;
        const char *word = words[(state >> 16) % (sizeof(words) / sizeof(*words))];
        memcpy(text + used, word, strlen(word) + 1);
        used += strlen(word);
    }
    cli_write(path, text);
}

void cli_begin(const char *name, int argc, char **argv)
{
    int first = 1;
    cli.threads = argc > 2 && strcmp(argv[1], "--threads") == 0;
    if (cli.threads || (argc > 2 && strcmp(argv[1], "--ranks") == 0)) {
        cli.ranks = (int)strtol(argv[2], NULL, 10);
        first = 3;
    }
    cli.flags = argv + first;
    cli.num_flags = argc - first;
    (void)snprintf(cli.folder, sizeof(cli.folder), "%s/%s.%d", TEST_TMP, name, (int)getpid());
    if (mkdir(cli.folder, 0777) != 0 || chdir(cli.folder) != 0) {
        perror(cli.folder);
        abort();
    }
    /* Jobs that are killed leave files of Open MPI: here, where cli_end removes them. */
    (void)setenv("TMPDIR", cli.folder, 1);
    (void)setenv("OMPI_MCA_btl_vader_backing_directory", cli.folder, 1);
    cli_set_grace("0");
    (void)setenv("ASAN_OPTIONS", "detect_leaks=0", 1);
    (void)setenv("OMP_NUM_THREADS", "1", 1);
    cli_write("c.yaml", config);
    write_text("t.txt");
    cli_run_well(0, CLI_WORDS_OF("tokenize", "--tokenizer", "byte", "--out", "tok", "--valid",
                                 "0.1", "t.txt"));
}

void cli_end(void)
{
    (void)chdir("/");
    cli_tool(CLI_WORDS_OF("rm", "-rf", cli.folder));
}

void cli_set_grace(const char *seconds)
{
    (void)setenv("OMPI_MCA_odls_base_sigkill_timeout", seconds, 1);
}

int cli_ranks(void)
{
    return cli.ranks;
}

bool cli_over_threads(void)
{
    return cli.threads;
}

/* ---- runs ------------------------------------------------------------------------------------ */

/* Whether a variable NAME_FAULT is among them. */
static bool wants_faults(const char *const *changes)
{
    bool found = false;
    for (; changes && *changes; changes++) {
        const char *name_end = strchr(*changes, '=');
        found = found ||
                (name_end && name_end - *changes > 6 && strncmp(name_end - 6, "_FAULT", 6) == 0);
    }
    return found;
}

/* Whether this command makes ranks of its own where it is asked for them. */
static bool makes_ranks(const char *command)
{
    static const char *const commands[] = {"train", "eval", "generate", "verify"};
    bool found = false;
    for (size_t i = 0; command && i < sizeof(commands) / sizeof(*commands); i++) {
        found = found || strcmp(command, commands[i]) == 0;
    }
    return found;
}

void cli_start(struct process *process, int ranks, const char *const *changes,
               const char *const *words)
{
    const char *argv[CLI_WORDS + 16];
    char count[16];
    size_t used = 0;
    bool threads = cli.threads && ranks > 0 && makes_ranks(words[0]);
    if (ranks > 0 && !cli.threads) {
        (void)snprintf(count, sizeof(count), "%d", ranks);
        argv[used++] = MPIEXEC;
        for (int i = 0; i < cli.num_flags; i++) {
            argv[used++] = cli.flags[i];
        }
        argv[used++] = "-n";
        argv[used++] = count;
    }
    if (cli.wrapper) {
        argv[used++] = cli.wrapper;
    }
    argv[used++] = wants_faults(changes) ? TRIDENT_FAULTS_BIN "/trident" : TRIDENT_BIN "/trident";
    for (; *words; words++) {
        assert_true(used < sizeof(argv) / sizeof(*argv) - 3);
        argv[used++] = *words;
    }
    if (threads) {
        (void)snprintf(count, sizeof(count), "%d", ranks);
        argv[used++] = "--ranks";
        argv[used++] = count;
    }
    argv[used] = NULL;
    process_start(process, argv, changes);
}

/* Adds "-n COUNT" and the words. */
static size_t add_part(const char **argv, size_t used, const char *count, const char *const *words)
{
    argv[used++] = "-n";
    argv[used++] = count;
    for (; *words; words++) {
        assert_true(used < 2 * CLI_WORDS);
        argv[used++] = *words;
    }
    return used;
}

struct process_result cli_run_apart(int ranks, const char *const *first, const char *const *rest)
{
    const char *argv[2 * CLI_WORDS + 4] = {MPIEXEC};
    char count[16];
    size_t used = 1;
    (void)snprintf(count, sizeof(count), "%d", ranks - 1);
    for (int i = 0; i < cli.num_flags; i++) {
        argv[used++] = cli.flags[i];
    }
    used = add_part(argv, used, "1", first);
    argv[used++] = ":";
    used = add_part(argv, used, count, rest);
    argv[used] = NULL;
    struct process process;
    struct process_result result;
    process_start(&process, argv, NULL);
    process_wait(&process, SECONDS, &result);
    return result;
}

void cli_set_wrapper(const char *program)
{
    cli.wrapper = program;
}

struct process_result cli_run_with(int ranks, const char *const *changes, const char *const *words)
{
    struct process process;
    struct process_result result;
    cli_start(&process, ranks, changes, words);
    process_wait(&process, SECONDS, &result);
    return result;
}

struct process_result cli_run(int ranks, const char *const *words)
{
    return cli_run_with(ranks, NULL, words);
}

void cli_run_well(int ranks, const char *const *words)
{
    struct process_result result = cli_run(ranks, words);
    cli_expect_status(&result, 0);
}

void cli_tool(const char *const *words)
{
    struct process process;
    struct process_result result;
    process_start(&process, words, NULL);
    process_wait(&process, SECONDS, &result);
    cli_expect_status(&result, 0);
}

/* ---- expectations ---------------------------------------------------------------------------- */

int cli_count(const char *text, const char *what)
{
    int count = 0;
    for (const char *at = text ? strstr(text, what) : NULL; at; at = strstr(at + 1, what)) {
        count++;
    }
    return count;
}

void cli_expect_status(struct process_result *result, int status)
{
    if (result->late || result->status != status) {
        print_error("status %d%s, expected %d; standard error:\n%s\n", result->status,
                    result->late ? " (too late)" : "", status, result->err ? result->err : "");
    }
    assert_false(result->late);
    assert_int_equal(result->status, status);
    process_result_fini(result);
}

/* The line that begins with `start` into line[]. */
static void copy_line(const char *text, const char *start, char line[2048])
{
    const char *at = text ? strstr(text, start) : NULL;
    line[0] = '\0';
    if (at) {
        (void)snprintf(line, 2048, "%.*s", (int)strcspn(at, "\n"), at);
    }
}

static bool has_crashed(const char *text)
{
    return cli_count(text, "AddressSanitizer") + cli_count(text, "runtime error:") +
               cli_count(text, "Process received signal") + cli_count(text, "PMIX ERROR") >
           0;
}

void cli_expect_error(struct process_result *result, int ranks, int status, const char *text)
{
    static const char start[] = "trident: error: ";
    char line[2048];
    copy_line(result->err, start, line);
    bool good = !result->late && result->status == status && cli_count(result->err, start) == 1 &&
                strstr(line, text) && !has_crashed(result->err);
    /* Under mpiexec the launcher adds its own words behind. */
    if (good && (ranks == 0 || cli.threads)) {
        size_t length = strlen(result->err);
        good = length > strlen(line) &&
               strncmp(result->err + length - strlen(line) - 1, line, strlen(line)) == 0;
    }
    if (!good) {
        print_error("status %d, expected %d; %.1f s; expected the one line '%s… %s…'; found:\n%s\n",
                    result->status, status, result->seconds, start, text,
                    result->err ? result->err : "");
    }
    assert_true(good);
    process_result_fini(result);
}

json_t *cli_expect_json(struct process_result *result, int status)
{
    json_error_t error;
    json_t *root = result->out ? json_loads(result->out, 0, &error) : NULL;
    bool one_line = result->out && cli_count(result->out, "\n") == 1;
    if (!root || !one_line || !json_is_object(root)) {
        print_error("not one JSON object on one line: %s\n", result->out ? result->out : "nothing");
    }
    assert_non_null(root);
    assert_true(one_line);
    cli_expect_status(result, status);
    return root;
}

void cli_digest(const char *path, char digest[32])
{
    struct process_result result = cli_run(0, CLI_WORDS_OF("inspect", path, "--json"));
    json_t *root = cli_expect_json(&result, 0);
    const char *text = json_string_value(json_object_get(root, "digest"));
    assert_non_null(text);
    assert_int_equal(strlen(text), 16);
    (void)snprintf(digest, 32, "%s", text);
    json_decref(root);
}

/* ---- files ----------------------------------------------------------------------------------- */

char *cli_read(const char *path, size_t *bytes)
{
    FILE *file = fopen(path, "rbe");
    struct stat info;
    if (!file) {
        return NULL;
    }
    assert_int_equal(fstat(fileno(file), &info), 0);
    size_t size = (size_t)info.st_size;
    char *text = malloc(size + 1);
    assert_non_null(text);
    assert_int_equal(fread(text, 1, size, file), size);
    text[size] = '\0';
    (void)fclose(file);
    if (bytes) {
        *bytes = size;
    }
    return text;
}

void cli_write(const char *path, const char *text)
{
    FILE *file = fopen(path, "wbe");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, strlen(text), file), strlen(text));
    assert_int_equal(fclose(file), 0);
}

json_t *cli_metrics(const char *run)
{
    char path[CLI_PATH];
    (void)snprintf(path, sizeof(path), "%s/metrics.jsonl", run);
    size_t bytes = 0;
    char *text = cli_read(path, &bytes);
    assert_non_null(text);
    assert_true(bytes > 0 && text[bytes - 1] == '\n');
    json_t *lines = json_array();
    char *rest = text;
    for (char *line = strtok_r(rest, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        json_t *object = json_loads(line, 0, NULL);
        if (!object) {
            print_error("%s: a torn line: %s\n", path, line);
        }
        assert_non_null(object);
        (void)json_object_del(object, "tokens_per_second");
        (void)json_object_del(object, "step_ms");
        (void)json_object_del(object, "step_split_ms");
        assert_int_equal(json_array_append_new(lines, object), 0);
    }
    free(text);
    return lines;
}

void cli_expect_each_step(const json_t *metrics, int64_t steps)
{
    int64_t expected = 0;
    for (size_t i = 0; i < json_array_size(metrics); i++) {
        const json_t *line = json_array_get(metrics, i);
        if (json_object_get(line, "loss")) {
            assert_int_equal(json_integer_value(json_object_get(line, "step")), ++expected);
        }
    }
    assert_int_equal(expected, steps);
}

/* ---- snapshots ------------------------------------------------------------------------------- */

enum { SNAPSHOT_FILES = 256 };

struct cli_snapshot {
    int count;
    struct {
        char path[CLI_PATH];
        size_t bytes;
        uint64_t hash;
    } file[SNAPSHOT_FILES];
};

static struct cli_snapshot *taking;

static int note_file(const char *path, const struct stat *info, int kind, struct FTW *where)
{
    (void)where;
    (void)info;
    if (kind != FTW_F) {
        return 0;
    }
    assert_true(taking->count < SNAPSHOT_FILES);
    size_t bytes = 0;
    char *data = cli_read(path, &bytes);
    assert_non_null(data);
    (void)snprintf(taking->file[taking->count].path, CLI_PATH, "%s", path);
    taking->file[taking->count].bytes = bytes;
    taking->file[taking->count++].hash = XXH3_64bits(data, bytes);
    free(data);
    return 0;
}

struct cli_snapshot *cli_snapshot_take(const char *folder)
{
    taking = calloc(1, sizeof(*taking));
    assert_non_null(taking);
    assert_int_equal(nftw(folder, note_file, 16, FTW_PHYS), 0);
    return taking;
}

void cli_snapshot_expect_kept(struct cli_snapshot *snapshot, bool continues)
{
    for (int i = 0; i < snapshot->count; i++) {
        const char *path = snapshot->file[i].path;
        size_t bytes = 0;
        char *data = cli_read(path, &bytes);
        bool rewritten = continues && (strstr(path, "config.yaml") || strstr(path, ".json"));
        if (continues && strstr(path, "/step_")) {
            rewritten = false;
        }
        size_t compared = snapshot->file[i].bytes;
        bool longer = continues && strstr(path, "metrics.jsonl") && bytes >= compared;
        bool same = data && (bytes == compared || longer) &&
                    XXH3_64bits(data, compared) == snapshot->file[i].hash;
        free(data);
        if (!same && !rewritten) {
            print_error("%s is %s\n", path, data ? "not what it was" : "gone");
        }
        assert_true(same || rewritten);
    }
    free(snapshot);
}

void cli_write_question(const char *path, int context)
{
    int32_t header[256] = {20240522, 1, 1, 0};
    uint16_t words[256] = {65535, 0, 0, 1, 2, (uint16_t)context};
    size_t count = 6 + (size_t)context;
    for (int i = 0; i < 2; i++) {
        words[count++] = 1;
        words[count++] = (uint16_t)('a' + i);
    }
    words[1] = (uint16_t)(2 * count);
    FILE *file = fopen(path, "wbe");
    assert_non_null(file);
    assert_int_equal(fwrite(header, sizeof(header), 1, file), 1);
    assert_int_equal(fwrite(words, sizeof(*words), count, file), count);
    assert_int_equal(fclose(file), 0);
}
