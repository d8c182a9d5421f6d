/* reference.safetensors: one batch's losses, logits, router logits, gradients; greedy decoding.
 * masked.safetensors: loss, logits and gradients of rows of several documents, partly masked. */
#include "reference_check.h"

#include "base/file.h"
#include "base/memory.h"
#include "infer/decoder.h"
#include "shard/rows.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

struct batch {
    int64_t rows, seq;
    int64_t *inputs, *targets;
    int64_t *documents, *positions; /* NULL: a row is one document */
};

static enum tri_status fill(void *state, int64_t step, int64_t first_row, int64_t rows,
                            const struct tri_row_arrays *out, struct tri_error *error)
{
    const struct batch *batch = state;
    const int64_t *documents = batch->documents;
    (void)step;
    (void)error;
    for (int64_t i = 0; i < rows * batch->seq; i++) {
        int64_t at = first_row * batch->seq + i;
        int64_t place = i % batch->seq;
        bool goes_on = place > 0 && (!documents || documents[at] == documents[at - 1]);
        out->tokens[i] = (int32_t)batch->inputs[at];
        out->targets[i] = (int32_t)(batch->targets[at] < 0 ? -1 : batch->targets[at]);
        out->first_key[i] = goes_on ? out->first_key[i - 1] : (int32_t)place;
        out->positions[i] = (int32_t)(batch->positions ? batch->positions[at] : place);
    }
    return TRI_OK;
}

static struct tri_rows_source source_of(struct batch *batch, int64_t counted)
{
    return (struct tri_rows_source){.state = batch,
                                    .fill = fill,
                                    .rows = batch->rows,
                                    .seq = batch->seq,
                                    .counted_tokens = counted,
                                    .tokens = batch->rows * batch->seq,
                                    .documents = batch->documents != NULL};
}

/* Router logits of one layer, whole on every rank: each replica recorded its own rows. */
static void sum_over_replicas(const struct subject *subject, float *data, int64_t n)
{
    tri_all_reduce_sum(tri_mesh_group(subject->mesh, TRI_ON_EXPERT | TRI_ON_DATA),
                       (struct tri_where){TRI_PHASE_EVAL, TRI_KIND_META}, data, n, TRI_F32);
}

static void check_logits(struct check *check, const struct subject *subject,
                         struct tri_engine *engine, const struct batch *batch,
                         const struct tri_safetensors *reference)
{
    int64_t vocab = subject->config.model.vocab_size;
    int64_t n = batch->rows * batch->seq;
    int replicas = tri_group_size(tri_mesh_group(subject->mesh, TRI_ON_EXPERT | TRI_ON_DATA));
    struct tri_range share =
        tri_rows_share(batch->rows, replicas,
                       tri_group_rank(tri_mesh_group(subject->mesh, TRI_ON_EXPERT | TRI_ON_DATA)));
    int32_t *arrays = tri_alloc(TRI_MEMORY_OTHER, (size_t)n * 4 * sizeof(*arrays));
    const struct tri_row_arrays out = {arrays, arrays + n, arrays + 2 * n, arrays + 3 * n};
    const int64_t at = share.begin * batch->seq;
    struct tri_error error;
    (void)fill((void *)(uintptr_t)batch, 0, 0, batch->rows, &out, &error);
    float *logits = tri_alloc(TRI_MEMORY_OTHER, (size_t)(n * vocab) * sizeof(*logits));
    struct tri_pass pass = {.rows = tri_range_size(share),
                            .seq = batch->seq,
                            .tokens = out.tokens + at,
                            .positions = out.positions + at,
                            .first_key = out.first_key + at,
                            .first_row = share.begin,
                            .global_tokens = n,
                            .batch_tokens = n,
                            .phase = TRI_PHASE_EVAL};
    tri_model_logits(engine->model, &pass, false, logits + at * vocab);
    sum_over_replicas(subject, logits, n * vocab);
    float *expected = read_f32(reference, "logits", NULL);
    check_value(check, "logits", relative_l2(logits, expected, n * vocab), 1e-5);
    tri_free(expected);
    tri_free(logits);
    tri_free(arrays);
}

static void check_router_logits(struct check *check, const struct subject *subject,
                                struct tri_route_tap *tap, const struct tri_safetensors *reference)
{
    int64_t experts = subject->config.moe.num_experts;
    for (int64_t layer = 0; layer < subject->config.model.num_layers; layer++) {
        if (!tri_config_layer_is_moe(&subject->config, layer)) {
            continue;
        }
        char name[64];
        (void)snprintf(name, sizeof(name), "router_logits.%lld", (long long)layer);
        float *got =
            tap->logits + tri_model_moe_index(&subject->config, layer) * tap->tokens * experts;
        sum_over_replicas(subject, got, tap->tokens * experts);
        float *expected = read_f32(reference, name, NULL);
        check_value(check, name, relative_l2(got, expected, tap->tokens * experts), 1e-5);
        tri_free(expected);
    }
}

static double scalar(const struct tri_safetensors *file, const char *name)
{
    float *value = read_f32(file, name, NULL);
    double result = (double)value[0];
    tri_free(value);
    return result;
}

static double relative(double got, double expected)
{
    return expected == 0.0 ? fabs(got) : fabs(got - expected) / fabs(expected);
}

static void check_gradients(struct check *check, const struct subject *subject,
                            struct tri_engine *engine, const struct tri_safetensors *reference)
{
    float **rows = subject_gather(subject, engine->params, TRI_FIELD_GRADIENT);
    double whole = 0.0;
    for (int64_t i = 0; i < subject->weights->count && job_rank() == 0; i++) {
        char name[200];
        int64_t n;
        (void)snprintf(name, sizeof(name), "grad.%s", subject->weights->tensor[i].name);
        float *expected = read_f32(reference, name, &n);
        whole += pow(l2_norm(expected, n), 2.0);
        tri_free(expected);
    }
    whole = sqrt(whole);
    for (int64_t i = 0; i < subject->weights->count && job_rank() == 0; i++) {
        const struct tri_safetensor *tensor = &subject->weights->tensor[i];
        char name[200];
        int64_t n;
        (void)snprintf(name, sizeof(name), "grad.%s", tensor->name);
        float *expected = read_f32(reference, name, &n);
        float *got = tri_alloc(TRI_MEMORY_OTHER, (size_t)n * sizeof(*got));
        subject_assemble(subject, engine->params, rows, tensor, got);
        double norm = l2_norm(expected, n);
        double error = relative_l2(got, expected, n);
        if (norm < 1e-3 * whole) {
            /* Tiny gradients are held to the whole gradient's norm. */
            error = norm > 0.0 ? error * norm / whole : l2_norm(got, n) / whole;
            check_value(check, name, error, 1e-8);
        } else {
            check_value(check, name, error, 1e-5);
        }
        tri_free(got);
        tri_free(expected);
    }
    subject_release(engine->params, rows);
}

static void check_greedy(struct check *check, const struct subject *subject,
                         struct tri_engine *engine, const struct tri_safetensors *reference)
{
    int64_t n;
    int64_t *expected = read_i64(reference, "greedy", &n);
    int64_t prompt = 8;
    int64_t vocab = subject->config.model.vocab_size;
    struct tri_decoder *decoder = tri_decoder_create(engine->model, 1, n);
    float *logits = tri_alloc(TRI_MEMORY_OTHER, (size_t)vocab * sizeof(*logits));
    int32_t *tokens = tri_alloc(TRI_MEMORY_OTHER, (size_t)n * sizeof(*tokens));
    for (int64_t i = 0; i < prompt; i++) {
        tokens[i] = (int32_t)expected[i];
    }
    struct tri_group *world = tri_mesh_group(subject->mesh, TRI_ON_ALL);
    const struct tri_where where = {TRI_PHASE_EVAL, TRI_KIND_META};
    int64_t wrong = 0, owner = -1; /* a rank of the replica that has the row */
    if (tri_range_size(tri_decoder_rows(decoder)) > 0) {
        owner = tri_group_rank(world);
    }
    tri_all_reduce_max(world, where, &owner, 1, TRI_I64);
    const struct tri_sampling greedy = {0};
    for (int64_t i = prompt; i < n; i++) {
        bool first = i == prompt;
        tri_decoder_feed(decoder, first ? tokens : tokens + i - 1, first ? prompt : 1, logits);
        tokens[i] = tri_sample(logits, vocab, &greedy, 0, NULL);
        tri_broadcast(world, where, &tokens[i], 1, TRI_I32, (int)owner);
        wrong += tokens[i] != expected[i];
    }
    check_value(check, "greedy tokens that differ", (double)wrong, 0.0);
    tri_free(tokens);
    tri_free(logits);
    tri_decoder_destroy(decoder);
    tri_free(expected);
}

void check_model_values(struct check *check, const struct subject *subject)
{
    char path[TRI_PATH_MAX + 32];
    struct tri_error error;
    struct tri_safetensors *reference;
    (void)snprintf(path, sizeof(path), "%s/reference.safetensors", subject->dir);
    if (tri_safetensors_open(path, &reference, &error) != TRI_OK) {
        quit(&error);
    }
    const struct tri_safetensor *ids = need(reference, "input_ids");
    struct batch batch = {.rows = ids->shape[0],
                          .seq = ids->shape[1],
                          .inputs = read_i64(reference, "input_ids", NULL),
                          .targets = read_i64(reference, "targets", NULL)};
    int64_t n = batch.rows * batch.seq;
    struct tri_engine *engine = subject_engine(subject);
    struct tri_rows_source source = source_of(&batch, n);
    int64_t k = subject->config.moe.top_k;
    int64_t layers = tri_model_moe_layers(&subject->config);
    struct tri_route_tap tap = {.tokens = n, .k = k};
    tap.chosen = tri_alloc(TRI_MEMORY_OTHER, (size_t)(layers * n * k) * sizeof(*tap.chosen));
    tap.logits =
        tri_alloc(TRI_MEMORY_OTHER,
                  (size_t)(layers * n * subject->config.moe.num_experts) * sizeof(*tap.logits));
    struct tri_step_report report;
    if (tri_engine_gradients(engine, &source, 0, &tap, &report, &error) != TRI_OK) {
        quit(&error);
    }
    check_value(check, "cross_entropy",
                relative(report.cross_entropy, scalar(reference, "cross_entropy")), 2e-6);
    check_value(check, "aux_loss", relative(report.aux_loss, scalar(reference, "aux_loss")), 2e-6);
    check_value(check, "loss", relative(report.loss, scalar(reference, "loss")), 2e-6);
    check_router_logits(check, subject, &tap, reference);
    check_gradients(check, subject, engine, reference);
    check_logits(check, subject, engine, &batch, reference);
    if (tri_safetensors_find(reference, "greedy")) {
        check_greedy(check, subject, engine, reference);
    }
    tri_free(tap.chosen);
    tri_free(tap.logits);
    tri_free(batch.inputs);
    tri_free(batch.targets);
    tri_engine_destroy(engine);
    tri_safetensors_close(reference);
}

double check_batch(struct check *check, const struct subject *subject, struct tri_engine *engine,
                   const struct tri_safetensors *reference)
{
    struct tri_error error;
    const struct tri_safetensor *ids = need(reference, "input_ids");
    struct batch batch = {.rows = ids->shape[0],
                          .seq = ids->shape[1],
                          .inputs = read_i64(reference, "input_ids", NULL),
                          .targets = read_i64(reference, "targets", NULL)};
    struct tri_rows_source source = source_of(&batch, batch.rows * batch.seq);
    struct tri_step_report report;
    if (tri_engine_gradients(engine, &source, 0, NULL, &report, &error) != TRI_OK) {
        quit(&error);
    }
    check_value(check, "cross_entropy",
                relative(report.cross_entropy, scalar(reference, "cross_entropy")), 2e-6);
    check_logits(check, subject, engine, &batch, reference);
    tri_free(batch.inputs);
    tri_free(batch.targets);
    return report.grad_norm;
}

/* No balance loss: the reference has none either. */
void check_masked_values(struct check *check, const struct subject *subject)
{
    char path[TRI_PATH_MAX + 32];
    struct tri_error error;
    struct tri_safetensors *reference;
    (void)snprintf(path, sizeof(path), "%s/masked.safetensors", subject->dir);
    if (!tri_file_exists(path)) {
        return;
    }
    if (tri_safetensors_open(path, &reference, &error) != TRI_OK) {
        quit(&error);
    }
    struct subject masked = *subject;
    masked.config.moe.aux_loss = 0.0;
    const struct tri_safetensor *ids = need(reference, "input_ids");
    struct batch batch = {.rows = ids->shape[0],
                          .seq = ids->shape[1],
                          .inputs = read_i64(reference, "input_ids", NULL),
                          .targets = read_i64(reference, "targets", NULL),
                          .documents = read_i64(reference, "documents", NULL),
                          .positions = read_i64(reference, "positions", NULL)};
    int64_t *counted = read_i64(reference, "counted", NULL);
    struct tri_engine *engine = subject_engine(&masked);
    struct tri_rows_source source = source_of(&batch, *counted);
    struct tri_step_report report;
    if (tri_engine_gradients(engine, &source, 0, NULL, &report, &error) != TRI_OK) {
        quit(&error);
    }
    check_value(check, "masked: targets", fabs((double)(report.targets - *counted)), 0.0);
    check_value(check, "masked: cross_entropy",
                relative(report.cross_entropy, scalar(reference, "cross_entropy")), 2e-6);
    check_gradients(check, &masked, engine, reference);
    check_logits(check, &masked, engine, &batch, reference);
    tri_engine_destroy(engine);
    tri_free(counted);
    tri_free(batch.inputs);
    tri_free(batch.targets);
    tri_free(batch.documents);
    tri_free(batch.positions);
    tri_safetensors_close(reference);
}
