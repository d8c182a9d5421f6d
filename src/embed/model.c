/* A model's life: made, loaded, saved, destroyed. */
#include "embed/internal.h"

#include "base/path.h"
#include "moe/strategies.h"
#include "train/alike.h"
#include "train/auto.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- building -------------------------------------------------------------------------------- */

/* The runtime counts it from now on. */
static struct trident_model *new_model(struct trident_runtime *runtime)
{
    struct trident_model *model = calloc(1, sizeof(*model));
    if (model) {
        model->owner = runtime;
        model->session = calloc((size_t)runtime->here, sizeof(*model->session));
    }
    if (model && !model->session) {
        free(model);
        model = NULL;
    }
    if (model) {
        (void)pthread_mutex_lock(&runtime->lock);
        model->number = ++runtime->made;
        runtime->models++;
        (void)pthread_mutex_unlock(&runtime->lock);
    }
    return model;
}

static void free_model(struct trident_model *model)
{
    struct trident_runtime *runtime = model->owner;
    (void)pthread_mutex_lock(&runtime->lock);
    runtime->models--;
    (void)pthread_mutex_unlock(&runtime->lock);
    free(model->session);
    free(model);
}

static enum tri_status build(struct tri_rank *rank, void *argument, struct tri_error *error)
{
    struct trident_model *model = argument;
    struct tri_session *session = &model->session[rank->place];
    const struct tri_config *config = &model->config;
    session->config = config;
    TRI_TRY(tri_config_check_layout(config, rank->owner->ranks, error));
    TRI_TRY(tri_params_check_frozen(config, error));
    const struct tri_config_parallel *parallel = &config->parallel;
    TRI_TRY(tri_mesh_create(rank->comm, (int)tri_config_cut(parallel),
                            (int)tri_config_cross(parallel), (int)tri_config_depth(parallel),
                            (int)parallel->expert, &session->mesh, error));
    tri_mesh_set_max_message(session->mesh, config->comm_max_message);
    tri_mesh_set_hosts(session->mesh, config->comm_ranks_per_host, NULL);
    TRI_TRY(tri_session_make_kernels(session, rank->owner->threads, error));
    session->engine = tri_engine_create(config, session->mesh, session->kernels, model->training);
    if (!model->choice.path[0]) {
        return TRI_OK;
    }
    struct tri_checkpoint_state state = {0};
    struct tri_checkpoint_choice choice = model->choice;
    enum tri_status status = tri_session_load(session, &choice, &state, error);
    if (rank->place == 0) {
        model->choice = choice; /* the others have copied it: loading is collective */
    }
    if (status == TRI_OK && rank->place == 0) {
        model->state = state;
        if (state.samples < 0) { /* not written down before there were batches that change */
            model->state.samples = state.step * config->train.global_batch;
        }
        model->state.bias = NULL;
        model->state.config = NULL;
        atomic_store(&model->steps, state.step);
    }
    tri_checkpoint_state_fini(&state);
    return status;
}

static enum tri_status take_apart(struct tri_rank *rank, void *argument, struct tri_error *error)
{
    struct trident_model *model = argument;
    struct tri_session *session = &model->session[rank->place];
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
        free_model(model);
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

/* Each process has read its own. */
static enum tri_status agree_on_config(struct tri_rank *rank, const char *call, const char *given,
                                       const struct trident_model *model, enum tri_status status,
                                       struct tri_error *error)
{
    TRI_TRY(tri_ranks_agree(rank, call, given, status, error));
    return rank->world
               ? tri_alike_config(tri_mesh_group(rank->world, TRI_ON_ALL), &model->config, error)
               : TRI_OK;
}

/* What the config leaves to the planner. */
static enum tri_status choose_auto(struct tri_rank *rank, struct tri_config *config,
                                   struct tri_error *error)
{
    char chosen[TRI_AUTO_TEXT];
    struct tri_mesh *alone = rank->world ? NULL : tri_mesh_create_serial();
    struct tri_mesh *mesh = rank->world ? rank->world : alone;
    enum tri_status status = tri_auto_choose(tri_mesh_group(mesh, TRI_ON_ALL), rank->owner->ranks,
                                             config, chosen, error);
    tri_mesh_destroy(alone);
    return status;
}

struct text {
    struct trident_model *model;
    const char *config;
};

static enum tri_status parse(struct tri_rank *rank, void *argument, struct tri_error *error)
{
    const struct text *text = argument;
    const char *config = text->config;
    enum tri_status status =
        config ? tri_config_parse(&tri_strategies, "config", config, strlen(config), 0, NULL,
                                  &text->model->config, error)
               : tri_fail(error, TRI_BAD_INPUT, "config: none given");
    if (status == TRI_OK && text->model->config.init_from[0]) {
        status = tri_config_refuse(&text->model->config, error, "init_from",
                                   "weights are loaded by trident_model_load");
    }
    TRI_TRY(agree_on_config(rank, "trident_model_create", "a config", text->model, status, error));
    return choose_auto(rank, &text->model->config, error);
}

/* What it cannot do without: a runtime, and where the model goes, which is NULL from now on. */
static enum trident_status check_handles(const struct trident_runtime *runtime,
                                         struct trident_model **model, struct trident_error *error)
{
    if (model) {
        *model = NULL;
    }
    return runtime && model ? tri_embed_check_caller(error)
                            : tri_embed_missing(error, runtime ? "model" : "runtime");
}

enum trident_status trident_model_create(struct trident_runtime *runtime, const char *config,
                                         struct trident_model **model, struct trident_error *error)
{
    enum trident_status status = check_handles(runtime, model, error);
    struct text text = {.config = config};
    if (status != TRIDENT_OK) {
        return status;
    }
    struct trident_model *built = text.model = new_model(runtime);
    if (!built) {
        return tri_embed_fail(error, TRI_FAILED, "out of memory");
    }
    built->training = true;
    status = tri_ranks_do(runtime, false, parse, &text, error);
    if (status == TRIDENT_OK) {
        status = tri_ranks_do(runtime, true, build, built, error);
    }
    return finish(built, status, model);
}

/* copy <- the path without a slash at its end. */
static enum tri_status take_path(const char *path, char copy[TRI_PATH_MAX], struct tri_error *error)
{
    copy[0] = '\0';
    if (!path || !*path || strlen(path) >= TRI_FOLDER_PATH_MAX) {
        return tri_fail(error, TRI_BAD_INPUT, "path: %s",
                        path && *path ? "too long" : "none given");
    }
    tri_path_make(copy, TRI_PATH_MAX, "%s", path);
    tri_path_trim(copy);
    return TRI_OK;
}

struct source {
    struct trident_model *model;
    char path[TRI_PATH_MAX];
    enum tri_status status; /* of the caller's look at it, and why */
    struct tri_error why;
    const char *const *changes;
    enum trident_use use;
};

static enum tri_status check_source(const struct source *source, struct tri_error *error)
{
    if (source->status != TRI_OK) {
        *error = source->why;
        return source->status;
    }
    return source->use == TRIDENT_ANSWERS || source->use == TRIDENT_TRAINS
               ? TRI_OK
               : tri_fail(error, TRI_BAD_INPUT,
                          "use: found %d, expected TRIDENT_ANSWERS or TRIDENT_TRAINS",
                          (int)source->use);
}

static enum tri_status change(const struct tri_rank *rank, const struct source *source,
                              struct tri_error *error)
{
    int count = 0;
    while (source->changes && source->changes[count]) {
        count++;
    }
    char **changes = tri_alloc(TRI_MEMORY_OTHER, (size_t)(count + 1) * sizeof(*changes));
    for (int i = 0; i < count; i++) {
        changes[i] = tri_strdup(source->changes[i]);
    }
    enum tri_status status = tri_session_config(source->model->choice.path, rank->owner->ranks,
                                                count, changes, &source->model->config, error);
    for (int i = 0; i < count; i++) {
        tri_free(changes[i]);
    }
    tri_free(changes);
    return status;
}

/* Which checkpoint: of a run that goes on there may be another one a moment later, so one process
 * chooses. */
static enum tri_status choose(struct tri_rank *rank, const struct source *source,
                              struct tri_error *error)
{
    struct tri_checkpoint_choice *choice = &source->model->choice;
    char given[TRI_PATH_MAX + 32] = "";
    struct tri_group *all = rank->world ? tri_mesh_group(rank->world, TRI_ON_ALL) : NULL;
    enum tri_status status = check_source(source, error);
    if (status == TRI_OK) {
        (void)snprintf(given, sizeof(given), "%s, to %s", source->path,
                       source->use == TRIDENT_TRAINS ? "train" : "answer");
    }
    TRI_TRY(tri_ranks_agree(rank, "trident_model_load", given, status, error));
    if (!all || tri_group_rank(all) == 0) {
        status = tri_checkpoint_resolve(source->path, choice, error);
    }
    TRI_TRY(tri_ranks_agree(rank, "trident_model_load", given, status, error));
    if (all) {
        tri_broadcast(all, (struct tri_where){TRI_PHASE_SETUP, TRI_KIND_META}, choice,
                      (int64_t)sizeof(*choice), TRI_U8, 0);
    }
    return TRI_OK;
}

static enum tri_status read_config(struct tri_rank *rank, void *argument, struct tri_error *error)
{
    const struct source *source = argument;
    TRI_TRY(choose(rank, source, error));
    enum tri_status status = change(rank, source, error);
    return agree_on_config(rank, "trident_model_load", "its config", source->model, status, error);
}

/* As long as the newest checkpoint of a run turns out to be damaged, the one before it. */
static enum trident_status load(struct trident_runtime *runtime, struct source *source,
                                struct trident_error *error)
{
    struct trident_model *built = source->model;
    enum trident_status status;
    do {
        (void)tri_ranks_do(runtime, true, take_apart, built, NULL);
        status = tri_ranks_do(runtime, false, read_config, source, error);
        if (status == TRIDENT_OK) {
            status = tri_ranks_do(runtime, true, build, built, error);
        }
    } while (status != TRIDENT_OK && !trident_runtime_is_broken(runtime) && built->choice.again);
    return status;
}

enum trident_status trident_model_load(struct trident_runtime *runtime, const char *path,
                                       enum trident_use use, const char *const *changes,
                                       struct trident_model **model, struct trident_error *error)
{
    enum trident_status status = check_handles(runtime, model, error);
    struct source source = {.changes = changes, .use = use};
    source.status = take_path(path, source.path, &source.why);
    if (status != TRIDENT_OK) {
        return status;
    }
    struct trident_model *built = source.model = new_model(runtime);
    if (!built) {
        return tri_embed_fail(error, TRI_FAILED, "out of memory");
    }
    built->training = built->choice.moments = use == TRIDENT_TRAINS;
    return finish(built, load(runtime, &source, error), model);
}

/* ---- sizes ----------------------------------------------------------------------------------- */

int64_t trident_model_vocabulary(const struct trident_model *model)
{
    return model ? model->config.model.vocab_size : 0;
}

int64_t trident_model_longest(const struct trident_model *model)
{
    return model ? model->config.model.max_position : 0;
}

int64_t trident_model_steps(const struct trident_model *model)
{
    return model ? atomic_load(&model->steps) : 0;
}

/* ---- saving ---------------------------------------------------------------------------------- */

/* On the heap: ranks may be at it when a call has broken and returned. */
struct target {
    struct trident_model *model;
    char path[TRI_PATH_MAX];
    enum tri_status status; /* of the caller's look at it, and why */
    struct tri_error why;
};

static enum tri_status save(struct tri_rank *rank, void *argument, struct tri_error *error)
{
    const struct target *target = argument;
    const struct trident_model *model = target->model;
    const struct tri_session *session = &model->session[rank->place];
    char given[TRI_PATH_MAX + 32];
    (void)snprintf(given, sizeof(given), "model %d, %s", model->number, target->path);
    if (target->status != TRI_OK) {
        *error = target->why;
    }
    TRI_TRY(tri_ranks_agree(rank, "trident_model_save", given, target->status, error));
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
    if (!model) {
        return tri_embed_missing(error, "model");
    }
    struct target *target = calloc(1, sizeof(*target));
    if (!target) {
        return tri_embed_fail(error, TRI_FAILED, "out of memory");
    }
    target->model = model;
    target->status = take_path(path, target->path, &target->why);
    enum trident_status status = tri_ranks_do(model->owner, true, save, target, error);
    if (!trident_runtime_is_broken(model->owner)) {
        free(target);
    }
    return status;
}
