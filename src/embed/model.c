#include "embed/internal.h"

#include "shard/rows.h"
#include "moe/strategies.h"
#include "train/session.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct trident_model {
    struct trident_runtime *owner;
    struct tri_config config;
    bool training;
    struct tri_session *session;         /* [ranks] */
    struct tri_checkpoint_state state;   /* steps, tokens, samples */
    struct tri_checkpoint_choice choice; /* what it comes from; an empty path: nothing */
};

/* ---- building -------------------------------------------------------------------------------- */

static void count(struct trident_runtime *runtime, int models)
{
    (void)pthread_mutex_lock(&runtime->lock);
    runtime->models += models;
    (void)pthread_mutex_unlock(&runtime->lock);
}

static struct trident_model *new_model(struct trident_runtime *runtime)
{
    struct trident_model *model = calloc(1, sizeof(*model));
    if (model) {
        model->owner = runtime;
        count(runtime, 1);
        model->session = calloc((size_t)runtime->ranks, sizeof(*model->session));
    }
    if (model && !model->session) {
        count(runtime, -1);
        free(model);
        model = NULL;
    }
    return model;
}

static enum tri_status build(struct tri_rank *rank, void *argument, struct tri_error *error)
{
    struct trident_model *model = argument;
    struct tri_session *session = &model->session[rank->number];
    const struct tri_config *config = &model->config;
    session->config = config;
    TRI_TRY(tri_config_check_layout(config, rank->owner->ranks, error));
    TRI_TRY(tri_mesh_create(rank->comm, (int)config->parallel.tensor, (int)config->parallel.expert,
                            &session->mesh, error));
    session->kernels =
        tri_kernels_create(config->reproducible ? TRI_KERNELS_REPRODUCIBLE : TRI_KERNELS_FAST, NULL,
                           rank->owner->threads);
    session->engine = tri_engine_create(config, session->mesh, session->kernels, model->training);
    if (!model->choice.path[0]) {
        return TRI_OK;
    }
    struct tri_checkpoint_state state = {0};
    struct tri_checkpoint_choice choice = model->choice;
    enum tri_status status = tri_session_load(session, &choice, &state, error);
    if (rank->number == 0) {
        model->choice = choice; /* the others have copied it: loading is collective */
    }
    if (status == TRI_OK && rank->number == 0) {
        model->state = state;
        if (state.samples < 0) { /* not written down before there were batches that change */
            model->state.samples = state.step * config->train.global_batch;
        }
        model->state.bias = NULL;
        model->state.config = NULL;
    }
    tri_checkpoint_state_fini(&state);
    return status;
}

static enum tri_status take_apart(struct tri_rank *rank, void *argument, struct tri_error *error)
{
    struct trident_model *model = argument;
    struct tri_session *session = &model->session[rank->number];
    (void)error;
    tri_engine_destroy(session->engine);
    tri_kernels_destroy(session->kernels);
    tri_mesh_destroy(session->mesh);
    *session = (struct tri_session){0};
    return TRI_OK;
}

void trident_model_destroy(struct trident_model *model)
{
    if (model && tri_ranks_do(model->owner, true, take_apart, model, NULL) == TRIDENT_OK) {
        count(model->owner, -1);
        free(model->session);
        free(model);
    }
}

static enum trident_status finish(struct trident_model *built, enum trident_status status,
                                  struct trident_model **model)
{
    if (status == TRIDENT_OK) {
        *model = built;
    } else {
        trident_model_destroy(built);
    }
    return status;
}

struct text {
    struct trident_model *model;
    const char *config;
};

static enum tri_status parse(struct tri_rank *rank, void *argument, struct tri_error *error)
{
    const struct text *text = argument;
    (void)rank;
    return tri_config_parse(&tri_strategies, "config", text->config, strlen(text->config), 0, NULL,
                            &text->model->config, error);
}

enum trident_status trident_model_create(struct trident_runtime *runtime, const char *config,
                                         struct trident_model **model, struct trident_error *error)
{
    *model = NULL;
    if (!config) {
        return tri_embed_fail(error, TRI_BAD_INPUT, "config: none given");
    }
    struct trident_model *built = new_model(runtime);
    struct text text = {built, config};
    if (!built) {
        return tri_embed_fail(error, TRI_FAILED, "out of memory");
    }
    built->training = true;
    enum trident_status status = tri_ranks_do(runtime, false, parse, &text, error);
    if (status == TRIDENT_OK) {
        status = tri_ranks_do(runtime, true, build, built, error);
    }
    return finish(built, status, model);
}

static enum tri_status check_path(const char *path, struct tri_error *error)
{
    if (!path || !*path || strlen(path) >= TRI_FOLDER_PATH_MAX) {
        return tri_fail(error, TRI_BAD_INPUT, "path: %s",
                        path && *path ? "too long" : "none given");
    }
    return TRI_OK;
}

struct source {
    struct trident_model *model;
    const char *path;
    const char *const *changes;
};

static enum tri_status read_config(struct tri_rank *rank, void *argument, struct tri_error *error)
{
    const struct source *source = argument;
    struct trident_model *model = source->model;
    int count = 0;
    while (source->changes && source->changes[count]) {
        count++;
    }
    char **changes = tri_alloc(TRI_MEMORY_OTHER, (size_t)(count + 1) * sizeof(*changes));
    for (int i = 0; i < count; i++) {
        changes[i] = tri_strdup(source->changes[i]);
    }
    enum tri_status status = tri_checkpoint_resolve(source->path, &model->choice, error);
    if (status == TRI_OK) {
        status = tri_session_config(model->choice.path, rank->owner->ranks, count, changes,
                                    &model->config, error);
    }
    for (int i = 0; i < count; i++) {
        tri_free(changes[i]);
    }
    tri_free(changes);
    return status;
}

enum trident_status trident_model_load(struct trident_runtime *runtime, const char *path,
                                       enum trident_use use, const char *const *changes,
                                       struct trident_model **model, struct trident_error *error)
{
    struct tri_error why = {0};
    *model = NULL;
    if (check_path(path, &why) != TRI_OK) {
        return tri_embed_fail(error, why.status, why.message);
    }
    struct trident_model *built = new_model(runtime);
    struct source source = {built, path, changes};
    if (!built) {
        return tri_embed_fail(error, TRI_FAILED, "out of memory");
    }
    built->training = built->choice.moments = use == TRIDENT_TRAINS;
    enum trident_status status;
    do {
        (void)tri_ranks_do(runtime, true, take_apart, built, NULL);
        built->choice.again = false;
        status = tri_ranks_do(runtime, false, read_config, &source, error);
        if (status == TRIDENT_OK) {
            status = tri_ranks_do(runtime, true, build, built, error);
        }
    } while (status != TRIDENT_OK && built->choice.again);
    return finish(built, status, model);
}

/* ---- sizes ----------------------------------------------------------------------------------- */

int64_t trident_model_vocabulary(const struct trident_model *model)
{
    return model->config.model.vocab_size;
}

int64_t trident_model_longest(const struct trident_model *model)
{
    return model->config.model.max_position;
}

int64_t trident_model_steps(const struct trident_model *model)
{
    struct trident_model *m = (struct trident_model *)(uintptr_t)model;
    (void)pthread_mutex_lock(&m->owner->turn);
    int64_t steps = m->state.step;
    (void)pthread_mutex_unlock(&m->owner->turn);
    return steps;
}

/* ---- rows ------------------------------------------------------------------------------------ */

/* What a call works on: no memory of the caller's, who gets an answer as soon as one rank breaks,
 * while others are still at it. */
struct rows {
    struct trident_model *model;
    int32_t *tokens, *targets; /* [rows, length]; targets NULL: none */
    int64_t rows, length, counted;
    float *logits; /* [rows, length, vocabulary], or NULL */
    double learning_rate;
    struct trident_step step;
};

static void free_rows(struct rows *r)
{
    free(r->tokens);
    free(r->targets);
    free(r->logits);
    free(r);
}

static int32_t *copy_of(const int32_t *tokens, size_t count)
{
    int32_t *copy = malloc(count * sizeof(*copy));
    return copy ? memcpy(copy, tokens, count * sizeof(*copy)) : NULL;
}

static enum tri_status check_tokens(const struct trident_model *model, const char *name,
                                    const int32_t *tokens, int64_t rows, int64_t length,
                                    int32_t least, struct tri_error *error)
{
    int64_t vocabulary = trident_model_vocabulary(model);
    if (!tokens) {
        return tri_fail(error, TRI_BAD_INPUT, "%s: none given", name);
    }
    for (int64_t i = 0; i < rows * length; i++) {
        if (tokens[i] < least || tokens[i] >= vocabulary) {
            return tri_fail(error, TRI_BAD_INPUT, "%s: found %d in row %lld, expected %d to %lld",
                            name, tokens[i], (long long)(i / length), least,
                            (long long)(vocabulary - 1));
        }
    }
    return TRI_OK;
}

static enum tri_status check_shape(const struct trident_model *model, int64_t rows, int64_t length,
                                   struct tri_error *error)
{
    int64_t longest = trident_model_longest(model);
    if (rows < 1 || length < 1 || length > longest || rows > INT64_MAX / 8 / length) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "found %lld rows of %lld tokens, expected at least one row of 1 to %lld",
                        (long long)rows, (long long)length, (long long)longest);
    }
    return TRI_OK;
}

/* A copy of what was given, checked; NULL, and error filled, where it is not right. */
static struct rows *take_rows(struct trident_model *model, const int32_t *tokens,
                              const int32_t *targets, int64_t rows, int64_t length, bool trains,
                              struct tri_error *error)
{
    if (check_shape(model, rows, length, error) != TRI_OK ||
        check_tokens(model, "tokens", tokens, rows, length, 0, error) != TRI_OK ||
        (trains && check_tokens(model, "targets", targets, rows, length, -1, error) != TRI_OK)) {
        return NULL;
    }
    size_t count = (size_t)(rows * length);
    size_t vocabulary = (size_t)trident_model_vocabulary(model);
    struct rows *r = calloc(1, sizeof(*r));
    if (r) {
        *r = (struct rows){.model = model, .rows = rows, .length = length};
        r->tokens = copy_of(tokens, count);
        r->targets = trains ? copy_of(targets, count) : NULL;
        r->logits = trains ? NULL : calloc(count, vocabulary * sizeof(*r->logits));
    }
    if (!r || !r->tokens || !(trains ? (void *)r->targets : (void *)r->logits)) {
        if (r) {
            free_rows(r);
        }
        (void)tri_fail(error, TRI_FAILED, "out of memory");
        return NULL;
    }
    for (size_t i = 0; i < count && trains; i++) {
        r->counted += targets[i] >= 0;
    }
    if (trains && r->counted == 0) {
        free_rows(r);
        (void)tri_fail(error, TRI_BAD_INPUT, "targets: none counts");
        return NULL;
    }
    return r;
}

/* As in training (data/loader.h): a separator belongs to the document that it ends. */
static void mark_documents(const int32_t *tokens, int64_t length, int64_t separator,
                           int32_t *first_key)
{
    int32_t document = 0;
    for (int64_t i = 0; i < length; i++) {
        first_key[i] = document;
        document = tokens[i] == separator ? (int32_t)(i + 1) : document;
    }
}

/* ---- forward --------------------------------------------------------------------------------- */

/* This replica's rows, some at a time. Each of its tensor ranks gets all logits; the first one's
 * are the caller's. */
static enum tri_status forward(struct tri_rank *rank, void *argument, struct tri_error *error)
{
    const struct rows *r = argument;
    struct tri_session *session = &r->model->session[rank->number];
    const struct tri_config *config = session->config;
    const struct tri_mesh *mesh = session->mesh;
    int replicas = tri_group_size(tri_mesh_group(mesh, TRI_ON_EXPERT | TRI_ON_DATA));
    int replica = tri_group_rank(tri_mesh_group(mesh, TRI_ON_EXPERT | TRI_ON_DATA));
    int64_t micro = config->train.micro_batch;
    int64_t vocabulary = config->model.vocab_size;
    size_t tokens = (size_t)(micro * r->length);
    int32_t *positions = tri_alloc(TRI_MEMORY_OTHER, 2 * tokens * sizeof(*positions));
    int32_t *first_key = positions + tokens;
    bool writes = mesh->coord[TRI_AXIS_TENSOR] == 0;
    float *spare =
        writes ? NULL : tri_alloc(TRI_MEMORY_BUFFERS, tokens * (size_t)vocabulary * sizeof(*spare));
    (void)error;
    tri_params_settle(session->engine->params);
    for (int64_t i = 0; i < tri_rows_micro_steps(r->rows, replicas, micro); i++) {
        struct tri_range part = tri_rows_micro(r->rows, replicas, replica, micro, i);
        const int32_t *first = r->tokens + part.begin * r->length;
        for (int64_t t = 0; t < tri_range_size(part) * r->length; t++) {
            positions[t] = (int32_t)(t % r->length);
        }
        for (int64_t row = 0; row < tri_range_size(part); row++) {
            mark_documents(first + row * r->length, r->length, config->data.separator,
                           first_key + row * r->length);
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
            .phase = TRI_PHASE_EVAL,
        };
        float *out = writes ? r->logits + part.begin * r->length * vocabulary : spare;
        tri_model_logits(session->engine->model, &pass, false, out);
    }
    tri_free(spare);
    tri_free(positions);
    return TRI_OK;
}

enum trident_status trident_model_forward(struct trident_model *model, const int32_t *tokens,
                                          int64_t rows, int64_t length, float *logits,
                                          struct trident_error *error)
{
    struct tri_error why = {0};
    struct rows *r = take_rows(model, tokens, NULL, rows, length, false, &why);
    if (!r || !logits) {
        if (r) {
            free_rows(r);
            (void)tri_fail(&why, TRI_BAD_INPUT, "logits: no room given");
        }
        return tri_embed_fail(error, why.status, why.message);
    }
    enum trident_status status = tri_ranks_do(model->owner, true, forward, r, error);
    if (status == TRIDENT_OK) {
        size_t count = (size_t)(rows * length * trident_model_vocabulary(model));
        memcpy(logits, r->logits, count * sizeof(*logits));
    }
    if (!trident_runtime_is_broken(model->owner)) {
        free_rows(r); /* else ranks may be at it */
    }
    return status;
}

/* ---- a step ---------------------------------------------------------------------------------- */

static enum tri_status fill(void *state, int64_t step, int64_t first_row, int64_t rows,
                            int32_t *tokens, int32_t *targets, int32_t *first_key,
                            struct tri_error *error)
{
    const struct rows *r = state;
    size_t at = (size_t)(first_row * r->length);
    size_t bytes = (size_t)(rows * r->length) * sizeof(*tokens);
    (void)step;
    (void)error;
    memcpy(tokens, r->tokens + at, bytes);
    memcpy(targets, r->targets + at, bytes);
    for (int64_t row = 0; row < rows; row++) {
        mark_documents(tokens + row * r->length, r->length, r->model->config.data.separator,
                       first_key + row * r->length);
    }
    return TRI_OK;
}

static enum tri_status step(struct tri_rank *rank, void *argument, struct tri_error *error)
{
    struct rows *r = argument;
    struct trident_model *model = r->model;
    struct tri_engine *engine = model->session[rank->number].engine;
    struct tri_rows_source source = {r,         fill,       r->rows,
                                     r->length, r->counted, model->config.data.separator >= 0};
    struct tri_step_report report;
    /* Before the ranks meet: after that rank 0 changes them. */
    int64_t done = model->state.step;
    int64_t update = done + 1 - model->state.skipped_steps;
    TRI_TRY(tri_engine_gradients(engine, &source, done, NULL, &report, error));
    if (report.finite) {
        tri_engine_update(engine, update, r->learning_rate, &report);
    }
    if (rank->number == 0) {
        r->step = (struct trident_step){report.loss, report.cross_entropy, report.grad_norm,
                                        report.targets, report.finite};
        model->state.step++;
        model->state.tokens += report.targets;
        model->state.samples += r->rows;
        model->state.skipped_steps += !report.finite;
        model->state.skipped_in_a_row = report.finite ? 0 : model->state.skipped_in_a_row + 1;
    }
    return TRI_OK;
}

enum trident_status trident_model_step(struct trident_model *model, const int32_t *tokens,
                                       const int32_t *targets, int64_t rows, int64_t length,
                                       double learning_rate, struct trident_step *report,
                                       struct trident_error *error)
{
    struct tri_error why = {0};
    if (!model->training) {
        return tri_embed_fail(error, TRI_BAD_INPUT, "the model was loaded to be asked only");
    }
    if (!isfinite(learning_rate) || learning_rate < 0.0) {
        return tri_embed_fail(error, TRI_BAD_INPUT, "learning_rate: no number of 0 or more");
    }
    struct rows *r = take_rows(model, tokens, targets, rows, length, true, &why);
    if (!r) {
        return tri_embed_fail(error, why.status, why.message);
    }
    r->learning_rate = learning_rate;
    enum trident_status status = tri_ranks_do(model->owner, true, step, r, error);
    if (status == TRIDENT_OK) {
        if (report) {
            *report = r->step;
        }
    }
    if (!trident_runtime_is_broken(model->owner)) {
        free_rows(r); /* else ranks may be at it */
    }
    return status;
}

/* ---- saving ---------------------------------------------------------------------------------- */

struct target {
    struct trident_model *model;
    char path[TRI_PATH_MAX];
};

static enum tri_status save(struct tri_rank *rank, void *argument, struct tri_error *error)
{
    const struct target *target = argument;
    const struct trident_model *model = target->model;
    const struct tri_session *session = &model->session[rank->number];
    struct tri_checkpoint_state state = model->state;
    tri_session_describe(session, &state);
    enum tri_status status =
        tri_checkpoint_write(target->path, session->engine->params, &state, model->training, error);
    tri_free(state.config);
    return status;
}

enum trident_status trident_model_save(struct trident_model *model, const char *path,
                                       struct trident_error *error)
{
    struct tri_error why = {0};
    if (check_path(path, &why) != TRI_OK) {
        return tri_embed_fail(error, why.status, why.message);
    }
    struct target *target = calloc(1, sizeof(*target));
    if (!target) {
        return tri_embed_fail(error, TRI_FAILED, "out of memory");
    }
    target->model = model;
    (void)snprintf(target->path, sizeof(target->path), "%s", path);
    enum trident_status status = tri_ranks_do(model->owner, true, save, target, error);
    if (!trident_runtime_is_broken(model->owner)) {
        free(target); /* else ranks may be at it */
    }
    return status;
}
