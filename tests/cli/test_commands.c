/* What the commands print and where: help, text, JSON with the keys that docs promise, live and
 * plain lines; the same output whatever the layout. */
#include "cli/cli.h"

#include <math.h>
#include <pty.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- help ------------------------------------------------------------------------------------ */

static void test_no_command(void **state)
{
    (void)state;
    static const char *const commands[] = {"train",    "eval",   "generate", "verify",
                                           "tokenize", "export", "import",   "inspect",
                                           "plan",     "runs",   "report"};
    static const char *const none[] = {NULL};
    struct process_result result = cli_run(cli_ranks(), none);
    for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++) {
        char line[32];
        (void)snprintf(line, sizeof(line), "\n  %-9s ", commands[i]);
        assert_int_equal(cli_count(result.err, line), 1);
    }
    assert_string_equal(result.out, "");
    cli_expect_error(&result, cli_ranks(), 2, "no command given");
}

static void test_help(void **state)
{
    (void)state;
    struct process_result result = cli_run(0, CLI_WORDS_OF("help"));
    assert_non_null(strstr(result.out, "tokenize"));
    assert_string_equal(result.err, "");
    cli_expect_status(&result, 0);
    result = cli_run(0, CLI_WORDS_OF("help", "eval"));
    assert_non_null(strstr(result.out, "trident eval RUN|CHECKPOINT"));
    cli_expect_status(&result, 0);
    result = cli_run(0, CLI_WORDS_OF("--version"));
    assert_int_equal(strncmp(result.out, "trident ", 8), 0);
    cli_expect_status(&result, 0);
    result = cli_run(0, CLI_WORDS_OF("help", "evil"));
    cli_expect_error(&result, 0, 2, "'evil'");
    result = cli_run(0, CLI_WORDS_OF("help", "config"));
    assert_non_null(strstr(result.out, "train.learning_rate"));
    cli_expect_status(&result, 0);
}

/* docs/config.md is what the program prints. */
static void test_help_markdown(void **state)
{
    (void)state;
    char *page = cli_read(TRIDENT_SOURCE_DIR "/docs/config.md", NULL);
    struct process_result result = cli_run(0, CLI_WORDS_OF("help", "config", "--markdown"));
    assert_non_null(page);
    assert_string_equal(result.out, page);
    cli_expect_status(&result, 0);
    free(page);
}

/* ---- JSON ------------------------------------------------------------------------------------ */

/* keys: words "name:type", type one of i(nteger) r(eal) s(tring) b(oolean) a(rray) o(bject). */
static void expect_members(const json_t *object, const char *keys)
{
    char copy[512];
    char *rest = copy;
    assert_true(json_is_object(object));
    (void)snprintf(copy, sizeof(copy), "%s", keys);
    for (char *key = strtok_r(rest, " ", &rest); key; key = strtok_r(NULL, " ", &rest)) {
        char type = key[strlen(key) - 1];
        key[strlen(key) - 2] = '\0';
        const json_t *value = json_object_get(object, key);
        bool good =
            (type == 'i' && json_is_integer(value)) || (type == 'r' && json_is_real(value)) ||
            (type == 's' && json_is_string(value)) || (type == 'b' && json_is_boolean(value)) ||
            (type == 'a' && json_is_array(value)) || (type == 'o' && json_is_object(value));
        if (!good) {
            print_error("member %s is missing or of another type\n", key);
        }
        assert_true(good);
    }
}

static void test_eval(void **state)
{
    (void)state;
    struct process_result result = cli_run(cli_ranks(), CLI_WORDS_OF("eval", "run", "--json"));
    assert_int_equal(cli_count(result.err, "trident: error"), 0);
    json_t *root = cli_expect_json(&result, 0);
    expect_members(root, "loss:r perplexity:r bits_per_byte:r tokens:i expert_load:a");
    double loss = json_real_value(json_object_get(root, "loss"));
    double perplexity = json_real_value(json_object_get(root, "perplexity"));
    double bits = json_real_value(json_object_get(root, "bits_per_byte"));
    assert_true(loss > 0 && fabs(perplexity - exp(loss)) < 1e-9 * perplexity);
    assert_true(fabs(bits - loss / log(2.0)) < 1e-9 * bits);
    int64_t tokens = json_integer_value(json_object_get(root, "tokens"));
    json_decref(root);
    /* Bytes are counted of what is evaluated. */
    result = cli_run(cli_ranks(), CLI_WORDS_OF("eval", "run", "--json", "eval.batches=1"));
    root = cli_expect_json(&result, 0);
    loss = json_real_value(json_object_get(root, "loss"));
    bits = json_real_value(json_object_get(root, "bits_per_byte"));
    assert_int_equal(json_integer_value(json_object_get(root, "tokens")), 4 * 16);
    assert_true(tokens > 4 * 16 && fabs(bits - loss / log(2.0)) < 1e-9 * bits);
    json_decref(root);
    result = cli_run(cli_ranks(), CLI_WORDS_OF("eval", "run", "--bytes", "9", "eval.batches=1"));
    cli_expect_error(&result, cli_ranks(), 2, "--bytes are of the whole set");
    result = cli_run(cli_ranks(), CLI_WORDS_OF("eval", "run", "--data", "tok/train_*.bin"));
    assert_int_equal(cli_count(result.out, " bits per byte\n"), 1);
    assert_int_equal(cli_count(result.out, "load 1 "), 1);
    cli_expect_status(&result, 0);
}

static void test_choices(void **state)
{
    (void)state;
    int ranks = cli_ranks();
    cli_write_question("q.bin", 20);
    struct process_result result =
        cli_run(ranks, CLI_WORDS_OF("eval", "run", "--choices", "q.bin", "--json"));
    json_t *root = cli_expect_json(&result, 0);
    expect_members(root, "checkpoint:s questions:i accuracy:r accuracy_by_sum:r");
    assert_int_equal(json_integer_value(json_object_get(root, "questions")), 1);
    json_decref(root);
    result = cli_run(ranks, CLI_WORDS_OF("eval", "run", "--choices", "q.bin"));
    assert_int_equal(cli_count(result.out, "questions   1\n"), 1);
    assert_int_equal(cli_count(result.out, " by the loss a token, "), 1);
    cli_expect_status(&result, 0);
    cli_write_question("q.bin", 33);
    result = cli_run(ranks, CLI_WORDS_OF("eval", "run", "--choices", "q.bin"));
    cli_expect_error(&result, ranks, 2, "has 33 tokens, expected at most 32 (model.max_position)");
    result = cli_run(ranks, CLI_WORDS_OF("eval", "run", "--choices", "c.yaml"));
    cli_expect_error(&result, ranks, 2, "c.yaml: ");
    result = cli_run(ranks, CLI_WORDS_OF("eval", "run", "--choices", "q.bin", "--bytes", "9"));
    cli_expect_error(&result, ranks, 2, "--choices goes without --data and --bytes");
}

static void test_verify(void **state)
{
    (void)state;
    const char *layout = cli_ranks() > 1 ? "parallel.expert=2" : "parallel.expert=1";
    struct process_result result =
        cli_run(cli_ranks(), CLI_WORDS_OF("verify", "c.yaml", "--json", "--steps", "3", layout));
    json_t *root = cli_expect_json(&result, 0);
    expect_members(root, "passed:b worst:o near_ties:i");
    expect_members(json_object_get(root, "worst"), "parameter:s relative_l2:r");
    assert_true(json_is_true(json_object_get(root, "passed")));
    char plant[256];
    (void)snprintf(plant, sizeof(plant), "%s=1.01",
                   json_string_value(json_object_get(json_object_get(root, "worst"), "parameter")));
    json_decref(root);
    result = cli_run(cli_ranks(), CLI_WORDS_OF("verify", "c.yaml", "--json", "--steps", "0", layout,
                                               "--plant", plant));
    root = cli_expect_json(&result, 1);
    assert_true(json_is_false(json_object_get(root, "passed")));
    const char *worst =
        json_string_value(json_object_get(json_object_get(root, "worst"), "parameter"));
    assert_int_equal(strncmp(plant, worst, strlen(worst)), 0);
    json_decref(root);
}

static void test_inspect(void **state)
{
    (void)state;
    struct process_result result =
        cli_run(cli_ranks(), CLI_WORDS_OF("inspect", "c.yaml", "--json"));
    json_t *of_config = cli_expect_json(&result, 0);
    expect_members(of_config, "parameters:a");
    result = cli_run(cli_ranks(), CLI_WORDS_OF("inspect", "run", "--json"));
    json_t *of_run = cli_expect_json(&result, 0);
    expect_members(of_run, "parameters:a digest:s step:i");
    result = cli_run(cli_ranks(), CLI_WORDS_OF("inspect", "run/checkpoints/step_2", "--json"));
    json_t *of_checkpoint = cli_expect_json(&result, 0);
    expect_members(of_checkpoint, "parameters:a digest:s");
    assert_int_equal(json_integer_value(json_object_get(of_checkpoint, "step")), 2);
    assert_string_not_equal(json_string_value(json_object_get(of_run, "digest")),
                            json_string_value(json_object_get(of_checkpoint, "digest")));
    json_t *parameters = json_object_get(of_run, "parameters");
    assert_int_equal(json_array_size(parameters),
                     json_array_size(json_object_get(of_config, "parameters")));
    for (size_t i = 0; i < json_array_size(parameters); i++) {
        expect_members(json_array_get(parameters, i), "name:s shape:a dtype:s");
    }
    json_decref(of_config);
    json_decref(of_run);
    json_decref(of_checkpoint);
    result = cli_run(cli_ranks(), CLI_WORDS_OF("inspect", "tok/train_*.bin", "--json"));
    json_t *of_tokens = cli_expect_json(&result, 0);
    expect_members(of_tokens, "tokens:i largest:i shards:a");
    json_decref(of_tokens);
}

static void test_metrics(void **state)
{
    (void)state;
    char *text = cli_read("run/metrics.jsonl", NULL);
    char *rest = text;
    int steps = 0;
    assert_non_null(text);
    for (char *line = strtok_r(rest, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        json_t *object = json_loads(line, 0, NULL);
        assert_non_null(object);
        bool is_step = json_object_get(object, "loss") != NULL;
        assert_true(is_step != (json_object_get(object, "valid_loss") != NULL));
        if (is_step) {
            steps++;
            expect_members(object,
                           "step:i loss:r cross_entropy:r aux_loss:r grad_norm:r learning_rate:r "
                           "tokens:i tokens_per_second:r step_ms:r expert_load:a dropped_tokens:i "
                           "skipped_steps:i");
            double loss = json_real_value(json_object_get(object, "loss"));
            double sum = json_real_value(json_object_get(object, "cross_entropy")) +
                         0.01 * json_real_value(json_object_get(object, "aux_loss"));
            assert_true(fabs(loss - sum) < 1e-6 * loss);
        }
        json_decref(object);
    }
    free(text);
    assert_int_equal(steps, 4);
    size_t bytes;
    static const char *const files[] = {"run/config.yaml", "run/environment.json",
                                        "run/ledger.json", "run/plan.json"};
    for (int i = 0; i < 4; i++) {
        text = cli_read(files[i], &bytes);
        assert_true(text && bytes > 0);
        free(text);
    }
}

/* With --json nothing else is on standard output. */
static void test_train_json(void **state)
{
    (void)state;
    struct process_result result =
        cli_run(0, CLI_WORDS_OF("train", "c.yaml", "run_dir=quiet", "--json"));
    json_t *root = cli_expect_json(&result, 0);
    expect_members(root, "run_dir:s step:i loss:r valid_loss:r skipped_steps:i");
    json_decref(root);
}

/* ---- text ------------------------------------------------------------------------------------ */

static char *generate(int ranks, const char *const *options)
{
    const char *words[CLI_WORDS] = {"generate", "run", "--tokens", "40"};
    size_t used = 4;
    for (; *options; options++) {
        words[used++] = *options;
    }
    struct process_result result = cli_run(ranks, words);
    char *out = result.out;
    result.out = NULL;
    assert_non_null(out);
    cli_expect_status(&result, 0);
    return out;
}

static void expect_generated(bool same, int ranks_a, const char *const *a, int ranks_b,
                             const char *const *b)
{
    char *text_a = generate(ranks_a, a);
    char *text_b = generate(ranks_b, b);
    assert_int_equal(strcmp(text_a, text_b) == 0, same);
    free(text_a);
    free(text_b);
}

static void test_generate(void **state)
{
    (void)state;
    int ranks = cli_ranks();
    const char *const *seed_1 = CLI_WORDS_OF("--ids", "--prompt", "116 104", "--seed", "1");
    const char *const *seed_2 = CLI_WORDS_OF("--ids", "--prompt", "116 104", "--seed", "2");
    const char *const *likeliest =
        CLI_WORDS_OF("--ids", "--prompt", "116 104", "--temperature", "0");
    expect_generated(true, ranks, seed_1, ranks, seed_1);
    expect_generated(false, ranks, seed_1, ranks, seed_2);
    expect_generated(true, 0, likeliest, ranks, likeliest);
    /* Without a prompt it is a newline. */
    expect_generated(true, ranks, CLI_WORDS_OF("--seed", "3"), ranks,
                     CLI_WORDS_OF("--seed", "3", "--prompt", "\n"));
    /* A text that grows longer than the context of 32. */
    char *text = generate(ranks, CLI_WORDS_OF("--prompt", "the sea and the wind and"));
    assert_int_equal(strncmp(text, "the sea and the wind and", 24), 0);
    free(text);
    struct process_result result =
        cli_run(ranks, CLI_WORDS_OF("generate", "run", "--prompt", "a", "--tokens", "5", "--json"));
    json_t *root = cli_expect_json(&result, 0);
    expect_members(root, "tokens:a");
    assert_int_equal(json_array_size(json_object_get(root, "tokens")), 5);
    json_decref(root);
}

/* Equal weights have equal digests, whatever layout wrote them: a step at rate 0 changes none. */
static void test_digest(void **state)
{
    (void)state;
    static const char *const layouts[] = {"parallel.tensor=2", "parallel.expert=2", "seed=1"};
    char first[32];
    char other[32];
    cli_digest("run", first);
    for (int i = 0; i < (cli_ranks() > 1 ? 3 : 0); i++) {
        char run_dir[32];
        (void)snprintf(run_dir, sizeof(run_dir), "run_dir=moved_%d", i);
        cli_run_well(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "resume=run", "train.steps=5",
                                               "train.learning_rate=0", run_dir, layouts[i]));
        cli_digest(run_dir + strlen("run_dir="), other);
        assert_string_equal(first, other);
    }
    cli_run_well(0, CLI_WORDS_OF("import", TESTDATA_DIR "/golden/mixtral", "imported_1"));
    cli_run_well(cli_ranks(), CLI_WORDS_OF("import", TESTDATA_DIR "/golden/mixtral", "imported_2"));
    cli_digest("imported_1", first);
    cli_digest("imported_2", other);
    assert_string_equal(first, other);
}

/* ---- lines ----------------------------------------------------------------------------------- */

static void test_plain_lines(void **state)
{
    (void)state;
    struct process_result result =
        cli_run(0, CLI_WORDS_OF("train", "c.yaml", "run_dir=plain", "data.valid="));
    assert_null(strchr(result.err, '\r'));
    assert_null(strchr(result.err, '\033'));
    assert_int_equal(cli_count(result.err, "\nstep 4/4  loss "), 1);
    assert_string_equal(result.out, "");
    cli_expect_status(&result, 0);
}

static void test_live_line(void **state)
{
    (void)state;
    int terminal;
    char text[1 << 14];
    size_t used = 0;
    pid_t job = forkpty(&terminal, NULL, NULL, NULL);
    assert_true(job >= 0);
    if (job == 0) {
        (void)execl(TRIDENT_BIN "/trident", "trident", "train", "c.yaml", "run_dir=live",
                    "data.valid=", (char *)NULL);
        _exit(127);
    }
    for (ssize_t got; used < sizeof(text) - 1; used += (size_t)got) {
        got = read(terminal, text + used, sizeof(text) - 1 - used);
        if (got <= 0) {
            break;
        }
    }
    text[used] = '\0';
    int status;
    assert_int_equal(waitpid(job, &status, 0), job);
    (void)close(terminal);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_non_null(strstr(text, "\r\033[Kstep 1/4  loss "));
    assert_non_null(strstr(text, "\r\033[Kstep 4/4  loss "));
}

static int prepare(void **state)
{
    (void)state;
    cli_run_well(cli_ranks(), CLI_WORDS_OF("train", "c.yaml"));
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_command), cmocka_unit_test(test_eval),
        cmocka_unit_test(test_choices),    cmocka_unit_test(test_verify),
        cmocka_unit_test(test_inspect),    cmocka_unit_test(test_metrics),
        cmocka_unit_test(test_generate),   cmocka_unit_test(test_digest),
        cmocka_unit_test(test_help),       cmocka_unit_test(test_help_markdown),
        cmocka_unit_test(test_train_json), cmocka_unit_test(test_plain_lines),
        cmocka_unit_test(test_live_line),
    };
    cli_begin("commands", argc, argv);
    /* The last five have nothing to do with ranks. */
    size_t count = sizeof(tests) / sizeof(*tests) - (cli_ranks() > 0 ? 5 : 0);
    int failed = _cmocka_run_group_tests("commands", tests, count, prepare, NULL);
    cli_end();
    return failed;
}
