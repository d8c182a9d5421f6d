/* Multiple choice on several ranks: every row's loss is what the row alone has, and the answers are
 * the least of them. */
#include "support/small.h"

#include "data/choices.h"
#include "train/choices.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { QUESTIONS = 9, MOST = 5, WORDS = 4096 };

static int length_of_part(int question, int part)
{
    return part == 0 ? 1 + question % 6 : 1 + (question + part) % 4;
}

/* The shortest completion, which has the least loss in all more often than the least a token; of
 * every third question the last. */
static int right_of(int question, int completions)
{
    int right = 0;
    for (int i = 1; i < completions; i++) {
        bool shorter = length_of_part(question, i + 1) < length_of_part(question, right + 1);
        right = shorter ? i : right;
    }
    return question % 3 == 0 ? completions - 1 : right;
}

/* Questions of 2 to 5 completions of 1 to 4 tokens; a function of nothing. */
static void write_file(const char *path)
{
    int32_t header[256] = {20240522, 1, QUESTIONS, 0};
    uint16_t words[WORDS];
    size_t at = 0;
    for (int q = 0; q < QUESTIONS; q++) {
        size_t begin = at;
        int completions = 2 + q % 4;
        words[at++] = 65535;
        words[at++] = 0;
        words[at++] = (uint16_t)q;
        words[at++] = (uint16_t)right_of(q, completions);
        words[at++] = (uint16_t)completions;
        for (int part = 0; part <= completions; part++) {
            int n = length_of_part(q, part);
            words[at++] = (uint16_t)n;
            for (int i = 0; i < n; i++) {
                words[at++] = (uint16_t)((q * 31 + part * 17 + i * 7) % 40);
            }
        }
        words[begin + 1] = (uint16_t)(2 * (at - begin));
    }
    FILE *file = fopen(path, "wb");
    CHECK(file && fwrite(header, sizeof(header), 1, file) == 1 &&
          fwrite(words, sizeof(*words), at, file) == at && fclose(file) == 0);
}

/* One row of the set alone, as long as it is and no longer. */
struct alone {
    const struct tri_choices *choices;
    int64_t question, seq;
    int completion;
};

static enum tri_status fill_alone(void *state, int64_t step, int64_t first_row, int64_t rows,
                                  const struct tri_row_arrays *out, struct tri_error *error)
{
    const struct alone *alone = state;
    (void)step;
    (void)error;
    CHECK(first_row == 0 && rows == 1);
    (void)tri_choices_row(alone->choices, alone->question, alone->completion, alone->seq,
                          out->tokens, out->targets);
    memset(out->first_key, 0, (size_t)alone->seq * sizeof(*out->first_key));
    return TRI_OK;
}

static int64_t length_of(const struct tri_choices *choices, int64_t question, int completion,
                         int64_t longest)
{
    int32_t tokens[64], targets[64];
    CHECK(longest <= 64);
    (void)tri_choices_row(choices, question, completion, longest, tokens, targets);
    int64_t length = longest;
    while (targets[length - 1] < 0) {
        length--;
    }
    return length;
}

static void expect_answers(struct tri_engine *engine, const struct tri_choices *choices,
                           const struct tri_choices_result *result)
{
    int64_t by_mean = 0, by_sum = 0;
    for (int64_t q = 0; q < QUESTIONS; q++) {
        struct tri_choices_question question = tri_choices_question(choices, q);
        double least_mean = HUGE_VAL, least_sum = HUGE_VAL;
        int best_mean = -1, best_sum = -1;
        for (int c = 0; c < question.completions; c++) {
            int64_t length = length_of(choices, q, c, tri_choices_longest(choices));
            struct alone alone = {choices, q, length, c};
            struct tri_rows_source source = {
                .state = &alone, .fill = fill_alone, .rows = 1, .seq = length, .counted_tokens = 1};
            struct tri_step_report report;
            struct tri_error error;
            CHECK(tri_engine_evaluate(engine, &source, &report, &error) == TRI_OK);
            double sum = report.cross_entropy;
            double mean = sum / (double)report.targets;
            best_mean = mean < least_mean ? c : best_mean;
            best_sum = sum < least_sum ? c : best_sum;
            least_mean = fmin(mean, least_mean);
            least_sum = fmin(sum, least_sum);
        }
        by_mean += best_mean == question.right;
        by_sum += best_sum == question.right;
    }
    CHECK(result->questions == QUESTIONS);
    CHECK(result->right_by_mean == by_mean && result->right_by_sum == by_sum);
}

static void run_layout(enum small_style style, const char *words, struct small_layout layout,
                       const char *path)
{
    struct tri_config config;
    struct tri_choices *choices;
    struct tri_choices_result result;
    struct tri_error error;
    small_config(style, words, &config);
    small_config_lay_out(&config, layout);
    CHECK(tri_choices_open(path, config.model.vocab_size, &choices, &error) == TRI_OK);
    struct tri_mesh *mesh = small_mesh(&config);
    struct tri_engine *engine = tri_engine_create(&config, mesh, small_kernels(&config), false);
    CHECK(tri_choices_answer(engine, choices, &result, &error) == TRI_OK);
    expect_answers(engine, choices, &result);
    /* The file decides: neither none nor all are right by chance. */
    CHECK(result.right_by_mean > 0 && result.right_by_mean < QUESTIONS);
    /* Nor would one count do for the other. */
    CHECK(result.right_by_mean != result.right_by_sum);
    tri_engine_destroy(engine);
    tri_mesh_destroy(mesh);
    tri_choices_close(choices);
}

static int run_job(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    struct small_layout layouts[SMALL_LAYOUTS];
    char path[256];
    int count = small_layouts(job_size(), 8, layouts);
    (void)snprintf(path, sizeof(path), "%s/choices.%s.%d.%d", TEST_TMP, job_transport(), job_size(),
                   job_rank());
    write_file(path);
    for (int i = 0; i < count; i++) {
        run_layout(i % 2 ? SMALL_GPT : SMALL_LLAMA, "model.init_std=0.3", layouts[i], path);
    }
    /* A micro-batch of 16 rows whose logits come in chunks that end within one. */
    struct small_layout cut = {job_size(), 1, job_size(), 1, 1};
    run_layout(SMALL_LLAMA,
               "model.init_std=0.3 model.vocab_size=131073 model.hidden_size=8 model.head_dim=4 "
               "train.global_batch=16 train.micro_batch=16",
               cut, path);
    (void)unlink(path);
    return 0;
}

int main(int argc, char **argv)
{
    return job_run(argc, argv, run_job);
}
