/* Every numeric key with values at and past the ends of its range: taken or refused in one line,
 * planned with figures, and never a panic. */
#include "base/status.h"
#include "config/schema.h"
#include "moe/strategies.h"
#include "plan/layouts.h"
#include "train/rehearsal.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static const char small[] =
    "model: {vocab_size: 64, num_layers: 2, hidden_size: 32, num_heads: 2, intermediate_size: 64}\n"
    "moe: {num_experts: 4, intermediate_size: 32, every: 2}\n"
    "data: {sequence_length: 16}\n"
    "train: {global_batch: 4, steps: 4}\n";

enum { VALUES = 5, VALUE_BYTES = 64, LINE_BYTES = 4096, PATIENCE = 20 };

/* ---- values ---------------------------------------------------------------------------------- */

static bool is_numeric(const struct tri_key *key)
{
    return key->type == TRI_KEY_INT || key->type == TRI_KEY_FLOAT || key->type == TRI_KEY_LAYERS ||
           key->type == TRI_KEY_PAIR || key->type == TRI_KEY_RECOMPUTE;
}

/* 0, -1, 1, the most and one more, as one writes them. */
static void spell(const struct tri_key *key, int which, char text[VALUE_BYTES])
{
    bool real = key->type == TRI_KEY_FLOAT || key->type == TRI_KEY_PAIR;
    bool ends = key->high <= DBL_MAX;
    double reals[VALUES] = {0.0, -1.0, 1.0, ends ? key->high : DBL_MAX,
                            ends ? key->high + 1.0 : HUGE_VAL};
    char number[VALUE_BYTES / 2];
    if (real) {
        (void)snprintf(number, sizeof(number), "%.17g", reals[which]);
    } else if (which < 3) {
        (void)snprintf(number, sizeof(number), "%d", (int)reals[which]);
    } else {
        (void)snprintf(number, sizeof(number), "%llu",
                       (unsigned long long)key->max + (unsigned long long)(which - 3));
    }
    bool list = key->type == TRI_KEY_LAYERS || key->type == TRI_KEY_RECOMPUTE;
    (void)snprintf(text, VALUE_BYTES,
                   list                        ? "[%s]"
                   : key->type == TRI_KEY_PAIR ? "[%s, 0]"
                                               : "%s",
                   number);
}

/* ---- one of them ----------------------------------------------------------------------------- */

/* Reads the config and plans it on as few ranks as it can have. */
static enum tri_status plan(char *change, struct tri_error *error)
{
    struct tri_config *config = calloc(1, sizeof(*config));
    assert_non_null(config);
    TRI_TRY(tri_config_parse(&tri_strategies, "small.yaml", small, strlen(small), 1, &change,
                             config, error));
    const struct tri_config_parallel *parallel = &config->parallel;
    struct tri_layout layout = {
        (int)parallel->tensor, (int)parallel->expert, 1, (int)parallel->expert_tensor, 1, 1};
    TRI_TRY(tri_config_check_layout(config, layout.tensor * layout.expert, error));
    struct tri_layout_plan made = tri_layout_plan(config, layout, tri_rehearse_layout);
    if (made.refused) {
        return tri_fail(error, TRI_FAILED, "%s", made.reason);
    }
    return made.memory.total > 0 ? TRI_OK : TRI_CHECK_FAILED;
}

/* In a process of its own; what it says on standard error, a line. */
static int plan_apart(char *change, char said[LINE_BYTES])
{
    int ends[2];
    int status = 0;
    size_t used = 0;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct tri_error error = {0};
        (void)dup2(ends[1], STDERR_FILENO);
        (void)close(ends[0]);
        (void)close(ends[1]);
        (void)alarm(PATIENCE);
        enum tri_status result = plan(change, &error);
        if (result != TRI_OK) {
            (void)fprintf(stderr, "%s\n", error.message);
        }
        _exit((int)result);
    }
    (void)close(ends[1]);
    for (ssize_t n = 1; n > 0 && used + 1 < LINE_BYTES; used += n > 0 ? (size_t)n : 0) {
        n = read(ends[0], said + used, LINE_BYTES - 1 - used);
    }
    said[used] = '\0';
    (void)close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void test_all(void **state)
{
    (void)state;
    int failed = 0, taken = 0, refused = 0;
    for (size_t i = 0; i < tri_keys_count; i++) {
        for (int which = 0; which < VALUES && is_numeric(&tri_keys[i]); which++) {
            char value[VALUE_BYTES], change[2 * VALUE_BYTES], said[LINE_BYTES];
            spell(&tri_keys[i], which, value);
            (void)snprintf(change, sizeof(change), "%s=%s", tri_keys[i].name, value);
            int status = plan_apart(change, said);
            char *end = strchr(said, '\n');
            bool one_line = end && end != said && end[1] == '\0';
            bool is_refused = status == TRI_BAD_INPUT || status == TRI_FAILED;
            taken += status == TRI_OK;
            refused += is_refused;
            if ((status != TRI_OK || said[0]) && (!is_refused || !one_line)) {
                print_error("%s: status %d, '%s'\n", change, status, said);
                failed++;
            }
        }
    }
    assert_int_equal(failed, 0);
    assert_true(taken > 100 && refused > 100);
}

int main(void)
{
    /* A plan of the longest rows, which takes some bytes a token, has no room in this. */
    (void)setenv("TRIDENT_MEMORY_LIMIT", "100000000", 1);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_all)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
