/* training.safetensors: ten AdamW steps. */
#include "reference_check.h"

#include "base/file.h"
#include "base/memory.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

struct batches {
    int64_t steps, rows, seq; /* [steps, rows, seq + 1] */
    int64_t *tokens;
};

static enum tri_status fill(void *state, int64_t step, int64_t first_row, int64_t rows,
                            const struct tri_row_arrays *out, struct tri_error *error)
{
    const struct batches *batches = state;
    (void)error;
    for (int64_t row = 0; row < rows; row++) {
        const int64_t *from =
            batches->tokens + (step * batches->rows + first_row + row) * (batches->seq + 1);
        for (int64_t i = 0; i < batches->seq; i++) {
            out->tokens[row * batches->seq + i] = (int32_t)from[i];
            out->targets[row * batches->seq + i] = (int32_t)from[i + 1];
            out->first_key[row * batches->seq + i] = 0;
        }
    }
    return TRI_OK;
}

struct history {
    double losses[3]; /* worst relative errors: cross_entropy, aux_loss, loss */
    double grad_norm;
};

static void worst(double *worst_so_far, double got, double expected)
{
    double error = expected == 0.0 ? fabs(got) : fabs(got - expected) / fabs(expected);
    if (!(error <= *worst_so_far)) {
        *worst_so_far = error;
    }
}

static void train(struct tri_engine *engine, const struct batches *batches, const float *losses,
                  const float *norms, struct history *history)
{
    int64_t n = batches->rows * batches->seq;
    struct tri_rows_source source = {.state = (void *)(uintptr_t)batches,
                                     .fill = fill,
                                     .rows = batches->rows,
                                     .seq = batches->seq,
                                     .counted_tokens = n,
                                     .tokens = n};
    struct tri_error error;
    for (int64_t step = 0; step <= batches->steps; step++) {
        struct tri_step_report report;
        bool last = step == batches->steps;
        if (tri_engine_gradients(engine, &source, last ? step - 1 : step, NULL, &report, &error) !=
            TRI_OK) {
            quit(&error);
        }
        double got[3] = {report.cross_entropy, report.aux_loss, report.loss};
        for (int i = 0; i < 3; i++) {
            worst(&history->losses[i], got[i], (double)losses[step * 3 + i]);
        }
        if (!last) {
            worst(&history->grad_norm, report.grad_norm, (double)norms[step]);
            tri_engine_update(engine, step + 1, tri_learning_rate(&engine->config->train, step),
                              &report);
        }
    }
}

/* GPT-2's key bias has a gradient of zero in exact arithmetic, and Adam turns its rounding noise
 * into steps: that part is left out. */
static void leave_out_key_bias(const struct subject *subject, const struct tri_safetensor *tensor,
                               float *change, float *expected)
{
    const char *end = ".c_attn.bias";
    size_t length = strlen(tensor->name);
    if (subject->family != TRI_HF_GPT2 || length < strlen(end) ||
        strcmp(tensor->name + length - strlen(end), end) != 0) {
        return;
    }
    int64_t third = tensor->count / 3;
    memset(change + third, 0, (size_t)third * sizeof(*change));
    memset(expected + third, 0, (size_t)third * sizeof(*expected));
}

static void check_weights(struct check *check, const struct subject *subject,
                          struct tri_engine *engine, const struct tri_safetensors *training)
{
    float **rows = subject_gather(subject, engine->params, TRI_FIELD_WEIGHT);
    for (int64_t i = 0; i < subject->weights->count && job_rank() == 0; i++) {
        const struct tri_safetensor *tensor = &subject->weights->tensor[i];
        char name[200];
        int64_t n;
        (void)snprintf(name, sizeof(name), "final.%s", tensor->name);
        float *expected = read_f32(training, name, &n);
        float *initial = read_f32(subject->weights, tensor->name, NULL);
        float *change = tri_alloc(TRI_MEMORY_OTHER, (size_t)n * sizeof(*change));
        subject_assemble(subject, engine->params, rows, tensor, change);
        for (int64_t j = 0; j < n; j++) {
            change[j] -= initial[j];
            expected[j] -= initial[j];
        }
        leave_out_key_bias(subject, tensor, change, expected);
        check_value(check, name, relative_l2(change, expected, n), 5e-3);
        tri_free(change);
        tri_free(initial);
        tri_free(expected);
    }
    subject_release(engine->params, rows);
}

void check_training_values(struct check *check, const struct subject *subject)
{
    char path[TRI_PATH_MAX + 32];
    struct tri_error error;
    struct tri_safetensors *training;
    (void)snprintf(path, sizeof(path), "%s/training.safetensors", subject->dir);
    if (!tri_file_exists(path)) {
        return; /* some folders have one step alone */
    }
    if (tri_safetensors_open(path, &training, &error) != TRI_OK) {
        quit(&error);
    }
    const struct tri_safetensor *tokens = need(training, "tokens");
    struct batches batches = {tokens->shape[0], tokens->shape[1], tokens->shape[2] - 1,
                              read_i64(training, "tokens", NULL)};
    float *losses = read_f32(training, "losses", NULL);
    float *norms = read_f32(training, "grad_norms", NULL);
    struct tri_engine *engine = subject_engine(subject);
    struct history history = {0};
    train(engine, &batches, losses, norms, &history);
    check_value(check, "training: cross_entropy, worst step", history.losses[0], 1e-5);
    check_value(check, "training: aux_loss, worst step", history.losses[1], 1e-5);
    check_value(check, "training: loss, worst step", history.losses[2], 1e-5);
    check_value(check, "training: grad_norm, worst step", history.grad_norm, 1e-4);
    check_weights(check, subject, engine, training);
    tri_engine_destroy(engine);
    tri_free(norms);
    tri_free(losses);
    tri_free(batches.tokens);
    tri_safetensors_close(training);
}
