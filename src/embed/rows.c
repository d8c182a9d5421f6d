/* What a model does with rows of tokens: answers, and steps. */
#include "embed/internal.h"

#include "base/work.h"
#include "data/loader.h"
#include "shard/rows.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a call works on: no memory of the caller's, who gets an answer as soon as one rank breaks,
 * while others are still at it. */
struct rows {
    struct trident_model *model;
    int32_t *tokens, *targets; /* [rows, length]; targets NULL: none */
    int64_t rows, length, counted;
    float *logits; /* [rows, length, vocabulary], or NULL */
    double learning_rate;
    struct trident_step step;
    enum tri_status status; /* of the caller's look at what was given, and why */
    struct tri_error why;
};

/* What the caller gives. */
struct given {
    const int32_t *tokens, *targets;
    int64_t rows, length;
    const float *logits;
    double learning_rate;
    bool trains;
};

/* ---- at the border --------------------------------------------------------------------------- */

static void free_rows(struct rows *r)
{
    free(r->tokens);
    free(r->targets);
    free(r->logits);
    free(r);
}

static enum tri_status check_tokens(const struct trident_model *model, const char *name,
                                    const int32_t *tokens, const struct given *given, int32_t least,
                                    struct tri_error *error)
{
    int64_t vocabulary = trident_model_vocabulary(model);
    if (!tokens) {
        return tri_fail(error, TRI_BAD_INPUT, "%s: none given", name);
    }
    for (int64_t i = 0; i < given->rows * given->length; i++) {
        if (tokens[i] < least || tokens[i] >= vocabulary) {
            return tri_fail(error, TRI_BAD_INPUT, "%s: found %d in row %lld, expected %d to %lld",
                            name, tokens[i], (long long)(i / given->length), least,
                            (long long)(vocabulary - 1));
        }
    }
    return TRI_OK;
}

static enum tri_status check(const struct trident_model *model, const struct given *given,
                             struct tri_error *error)
{
    int64_t longest = trident_model_longest(model);
    if (given->trains && !model->training) {
        return tri_fail(error, TRI_BAD_INPUT, "the model was loaded to be asked only");
    }
    if (given->trains && (!isfinite(given->learning_rate) || given->learning_rate < 0.0)) {
        return tri_fail(error, TRI_BAD_INPUT, "learning_rate: no number of 0 or more");
    }
    if (given->rows < 1 || given->length < 1 || given->length > longest ||
        given->rows > INT64_MAX / 8 / given->length) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "found %lld rows of %lld tokens, expected at least one row of 1 to %lld",
                        (long long)given->rows, (long long)given->length, (long long)longest);
    }
    TRI_TRY(check_tokens(model, "tokens", given->tokens, given, 0, error));
    if (given->trains) {
        return check_tokens(model, "targets", given->targets, given, -1, error);
    }
    return given->logits ? TRI_OK : tri_fail(error, TRI_BAD_INPUT, "logits: no room given");
}

static int32_t *copy_of(const int32_t *tokens, size_t count)
{
    int32_t *copy = malloc(count * sizeof(*copy));
    return copy ? memcpy(copy, tokens, count * sizeof(*copy)) : NULL;
}

static enum tri_status copy(struct rows *r, const struct given *given, struct tri_error *error)
{
    size_t count = (size_t)(given->rows * given->length);
    size_t vocabulary = (size_t)trident_model_vocabulary(r->model);
    r->tokens = copy_of(given->tokens, count);
    if (given->trains) {
        r->targets = copy_of(given->targets, count);
    } else {
        r->logits = calloc(count, vocabulary * sizeof(*r->logits));
    }
    if (!r->tokens || !(given->trains ? (void *)r->targets : (void *)r->logits)) {
        return tri_fail(error, TRI_FAILED, "out of memory");
    }
    for (size_t i = 0; i < count && given->trains; i++) {
        r->counted += r->targets[i] >= 0;
    }
    return TRI_OK;
}

/* A copy of what was given, or why it is not right: other processes are to hear that too. NULL: no
 * memory. */
static struct rows *take_rows(struct trident_model *model, const struct given *given)
{
    struct rows *r = calloc(1, sizeof(*r));
    if (r) {
        r->model = model;
        r->rows = given->rows;
        r->length = given->length;
        r->learning_rate = given->learning_rate;
        r->status = check(model, given, &r->why);
        if (r->status == TRI_OK) {
            r->status = copy(r, given, &r->why);
        }
    }
    return r;
}

/* Where nothing is wrong anywhere, and all processes have the same rows for the same model. */
static enum tri_status admit(struct tri_rank *rank, const char *call, const struct rows *r,
                             struct tri_error *error)
{
    char text[128] = "";
    if (r->status != TRI_OK) {
        *error = r->why;
    } else if (rank->world) {
        size_t bytes = (size_t)(r->rows * r->length) * sizeof(*r->tokens);
        uint64_t words[3] = {tri_work_hash(r->tokens, bytes)};
        words[1] = r->targets ? tri_work_hash(r->targets, bytes) : 0;
        memcpy(&words[2], &r->learning_rate, sizeof(words[2]));
        (void)snprintf(text, sizeof(text), "model %d, %lld rows of %lld tokens (hash %016llx)",
                       r->model->number, (long long)r->rows, (long long)r->length,
                       (unsigned long long)tri_work_hash(words, sizeof(words)));
    }
    return tri_ranks_agree(rank, call, text, r->status, error);
}

/* r may be NULL: then there was no memory for it. */
static enum trident_status run(struct trident_model *model, struct rows *r, tri_rank_work *work,
                               struct trident_error *error)
{
    return r ? tri_ranks_do(model->owner, true, work, r, error)
             : tri_embed_fail(error, TRI_FAILED, "out of memory");
}

static void let_go(const struct trident_model *model, struct rows *r)
{
    if (r && !trident_runtime_is_broken(model->owner)) {
        free_rows(r); /* else ranks may be at it */
    }
}

/* ---- forward --------------------------------------------------------------------------------- */

/* Each process is to have the logits of all rows; those of the replicas lie one after the other. */
static void spread_logits(const struct tri_mesh *mesh, const struct rows *r)
{
    struct tri_group *group = tri_mesh_group(mesh, TRI_ON_EXPERT | TRI_ON_DATA);
    int replicas = tri_group_size(group);
    int64_t *counts = tri_alloc(TRI_MEMORY_OTHER, (size_t)replicas * sizeof(*counts));
    for (int i = 0; i < replicas; i++) {
        counts[i] = tri_range_size(tri_rows_share(r->rows, replicas, i)) * r->length *
                    trident_model_vocabulary(r->model);
    }
    tri_all_gather_v(group, (struct tri_where){TRI_PHASE_EVAL, TRI_KIND_HEAD}, r->logits, counts,
                     TRI_F32);
    tri_free(counts);
}

/* This replica's rows, some at a time. Each of its tensor ranks gets all logits; the first one's of
 * this process are the caller's. */
static enum tri_status forward(struct tri_rank *rank, void *argument, struct tri_error *error)
{
    const struct rows *r = argument;
    TRI_TRY(admit(rank, "trident_model_forward", r, error));
    struct tri_session *session = &r->model->session[rank->place];
    const struct tri_config *config = session->config;
    const struct tri_mesh *mesh = session->mesh;
    int replicas = tri_group_size(tri_mesh_group(mesh, TRI_ON_EXPERT | TRI_ON_DATA));
    int replica = tri_group_rank(tri_mesh_group(mesh, TRI_ON_EXPERT | TRI_ON_DATA));
    int64_t micro = config->train.micro_batch;
    int64_t vocabulary = config->model.vocab_size;
    size_t tokens = (size_t)(micro * r->length);
    int32_t *positions = tri_alloc(TRI_MEMORY_OTHER, 2 * tokens * sizeof(*positions));
    int32_t *first_key = positions + tokens;
    bool writes = rank->world || tri_mesh_grid_rank(mesh) == 0;
    float *spare =
        writes ? NULL : tri_alloc(TRI_MEMORY_BUFFERS, tokens * (size_t)vocabulary * sizeof(*spare));
    tri_params_settle(session->engine->params);
    for (int64_t i = 0; i < tri_rows_micro_steps(r->rows, replicas, micro); i++) {
        struct tri_range part = tri_rows_micro(r->rows, replicas, replica, micro, i);
        const int32_t *first = r->tokens + part.begin * r->length;
        for (int64_t row = 0; row < tri_range_size(part); row++) {
            tri_loader_mark_documents(first + row * r->length, r->length, config->data.separator,
                                      first_key + row * r->length);
            tri_loader_number(first_key + row * r->length, r->length,
                              tri_config_document_positions(config), positions + row * r->length);
        }
        struct tri_pass pass = {
            .rows = tri_range_size(part),
            .seq = r->length,
            .tokens = first,
            .positions = positions,
            .first_key = config->data.separator >= 0 ? first_key : NULL,
            .first_row = part.begin,
            .batch_rows = r->rows,
            .micro_step = i,
            .global_tokens = r->rows * r->length,
            .batch_tokens = r->rows * r->length,
            .phase = TRI_PHASE_EVAL,
        };
        float *out = writes ? r->logits + part.begin * r->length * vocabulary : spare;
        tri_model_logits(session->engine->model, &pass, false, out);
    }
    tri_free(spare);
    tri_free(positions);
    if (rank->world) {
        spread_logits(mesh, r);
    }
    return TRI_OK;
}

enum trident_status trident_model_forward(struct trident_model *model, const int32_t *tokens,
                                          int64_t rows, int64_t length, float *logits,
                                          struct trident_error *error)
{
    if (!model) {
        return tri_embed_missing(error, "model");
    }
    struct given given = {.tokens = tokens, .rows = rows, .length = length, .logits = logits};
    struct rows *r = take_rows(model, &given);
    enum trident_status status = run(model, r, forward, error);
    if (status == TRIDENT_OK) {
        size_t count = (size_t)(rows * length * trident_model_vocabulary(model));
        memcpy(logits, r->logits, count * sizeof(*logits));
    }
    let_go(model, r);
    return status;
}

/* ---- a step ---------------------------------------------------------------------------------- */

static enum tri_status fill(void *state, int64_t step, int64_t first_row, int64_t rows,
                            const struct tri_row_arrays *out, struct tri_error *error)
{
    const struct rows *r = state;
    size_t at = (size_t)(first_row * r->length);
    size_t bytes = (size_t)(rows * r->length) * sizeof(*out->tokens);
    (void)step;
    (void)error;
    memcpy(out->tokens, r->tokens + at, bytes);
    memcpy(out->targets, r->targets + at, bytes);
    for (int64_t row = 0; row < rows; row++) {
        tri_loader_mark_documents(out->tokens + row * r->length, r->length,
                                  r->model->config.data.separator,
                                  out->first_key + row * r->length);
        tri_loader_number(out->first_key + row * r->length, r->length,
                          tri_config_document_positions(&r->model->config),
                          out->positions + row * r->length);
    }
    return TRI_OK;
}

static enum tri_status step(struct tri_rank *rank, void *argument, struct tri_error *error)
{
    struct rows *r = argument;
    struct trident_model *model = r->model;
    struct tri_engine *engine = model->session[rank->place].engine;
    TRI_TRY(admit(rank, "trident_model_step", r, error));
    struct tri_rows_source source = {.state = r,
                                     .fill = fill,
                                     .rows = r->rows,
                                     .seq = r->length,
                                     .counted_tokens = r->counted,
                                     .tokens = r->rows * r->length,
                                     .documents = model->config.data.separator >= 0};
    struct tri_step_report report;
    /* Before the ranks meet: after that the first one changes them. */
    int64_t done = model->state.step;
    int64_t update = done + 1 - model->state.skipped_steps;
    TRI_TRY(tri_engine_gradients(engine, &source, done, NULL, &report, error));
    if (report.finite) {
        tri_engine_update(engine, update, r->learning_rate, &report);
    }
    if (rank->place == 0) {
        r->step = (struct trident_step){report.loss, report.cross_entropy, report.grad_norm,
                                        report.targets, report.finite};
        model->state.step++;
        model->state.tokens += report.targets;
        model->state.samples += r->rows;
        model->state.skipped_steps += !report.finite;
        model->state.skipped_in_a_row = report.finite ? 0 : model->state.skipped_in_a_row + 1;
        atomic_store(&model->steps, model->state.step);
    }
    return TRI_OK;
}

enum trident_status trident_model_step(struct trident_model *model, const int32_t *tokens,
                                       const int32_t *targets, int64_t rows, int64_t length,
                                       double learning_rate, struct trident_step *report,
                                       struct trident_error *error)
{
    if (!model) {
        return tri_embed_missing(error, "model");
    }
    struct given given = {.tokens = tokens,
                          .targets = targets,
                          .rows = rows,
                          .length = length,
                          .learning_rate = learning_rate,
                          .trains = true};
    struct rows *r = take_rows(model, &given);
    enum trident_status status = run(model, r, step, error);
    if (status == TRIDENT_OK && report) {
        *report = r->step;
    }
    let_go(model, r);
    return status;
}
