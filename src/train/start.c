#include "train/start.h"

#include "base/file.h"
#include "base/log.h"
#include "base/path.h"
#include "checkpoint/hf.h"
#include "checkpoint/peft.h"
#include "config/text.h"
#include "moe/strategies.h"
#include "train/auto.h"

#include <stdlib.h>
#include <string.h>

static const struct tri_where where = {TRI_PHASE_SETUP, TRI_KIND_META};

/* ---- what init_from names -------------------------------------------------------------------- */

static bool holds(const char *dir, const char *name)
{
    char path[TRI_PATH_MAX + 64];
    tri_path_make(path, sizeof(path), "%s/%s", dir, name);
    return tri_file_exists(path);
}

/* A run or checkpoint has its own files, also beside a config.json that somebody left there. */
static bool is_hf(const char *path)
{
    return holds(path, "config.json") && !holds(path, "manifest.json") &&
           !holds(path, "checkpoints");
}

static bool is_ours(const char *path)
{
    return holds(path, "manifest.json") || holds(path, "checkpoints") ||
           holds(path, "config.yaml") || holds(path, "state.json");
}

static enum tri_status find_gguf(const char *name, void *data)
{
    *(bool *)data = *(bool *)data || tri_text_ends_with(name, ".gguf");
    return TRI_OK;
}

static enum tri_status refuse(const struct tri_config *config, struct tri_error *error,
                              const char *why)
{
    return tri_config_refuse(config, error, "init_from",
                             "'%.300s': %s, expected a Hugging Face folder, a run or a checkpoint",
                             config->init_from, why);
}

/* Whether there is something to begin with. Local. */
static enum tri_status check_source(const struct tri_config *config, struct tri_error *error)
{
    const char *path = config->init_from;
    bool gguf = tri_text_ends_with(path, ".gguf");
    struct tri_error ignored, why;
    if (tri_file_check_access(path, &why) != TRI_OK) {
        return tri_config_refuse(config, error, "init_from", "%.900s", why.message);
    }
    if (!tri_file_exists(path)) {
        return refuse(config, error, "is not there");
    }
    if (!tri_file_is_dir(path)) {
        return refuse(config, error, gguf ? "is a GGUF file, which is not read" : "is a file");
    }
    if (is_hf(path)) {
        return tri_hf_check_folder(path, error);
    }
    if (is_ours(path)) {
        return TRI_OK;
    }
    if (holds(path, "adapter_config.json")) {
        return refuse(config, error, "holds an adapter and no model (train.lora.adapter takes it)");
    }
    if (tri_file_list(path, find_gguf, &gguf, &ignored) == TRI_OK && gguf) {
        return refuse(config, error, "holds a GGUF file, which is not read");
    }
    return refuse(config, error, "holds no config.json and no manifest.json");
}

/* ---- the config ------------------------------------------------------------------------------ */

struct source {
    char path[TRI_PATH_MAX]; /* of the folder or checkpoint */
    bool hf;
    bool own; /* a checkpoint of the run that goes on */
};

static bool has_config(const char *path)
{
    struct tri_config *config = tri_alloc(TRI_MEMORY_OTHER, sizeof(*config));
    struct tri_error ignored;
    bool found = tri_checkpoint_read_config(path, &tri_strategies, config, &ignored) == TRI_OK;
    tri_free(config);
    return found;
}

/* The config of the run's newest checkpoint that has one; whether it is whole is looked at, and
 * said, by who loads it. */
static bool find_newest(const char *run, struct source *source)
{
    bool found = false;
    for (int64_t step = INT64_MAX; step >= 0 && !found;) {
        step = tri_checkpoint_newest_until(run, step);
        tri_path_make(source->path, TRI_PATH_MAX, "%s/checkpoints/step_%lld", run, (long long)step);
        found = step >= 0 && has_config(source->path);
        step--;
    }
    return found;
}

/* That of the run or checkpoint which `resume` names. */
static bool find_resumed(const char *path, struct source *source)
{
    if (!holds(path, "manifest.json")) {
        return find_newest(path, source);
    }
    tri_path_make(source->path, TRI_PATH_MAX, "%s", path);
    return has_config(path);
}

/* Whether the config names weights. */
static bool is_asked(const struct tri_config *config)
{
    return config->init_from[0] || config->resume[0];
}

/* On one rank. */
static enum tri_status find_source(const struct tri_config *config, bool goes_on,
                                   struct source *source, struct tri_error *error)
{
    struct tri_checkpoint_choice choice = {0};
    *source = (struct source){0};
    source->own = goes_on && find_newest(config->run_dir, source);
    if (source->own || !is_asked(config)) {
        source->path[0] = source->own ? source->path[0] : '\0';
        return TRI_OK;
    }
    if (!config->init_from[0]) {
        if (!find_resumed(config->resume, source)) {
            source->path[0] = '\0';
        }
        return TRI_OK;
    }
    if (config->resume[0]) {
        return tri_config_refuse(config, error, "init_from",
                                 "found '%.300s' beside resume: a run goes on or begins anew",
                                 config->init_from);
    }
    TRI_TRY(check_source(config, error));
    source->hf = is_hf(config->init_from);
    if (source->hf) {
        tri_path_make(source->path, TRI_PATH_MAX, "%s", config->init_from);
        return TRI_OK;
    }
    TRI_TRY(tri_checkpoint_resolve(config->init_from, &choice, error));
    tri_path_make(source->path, TRI_PATH_MAX, "%s", choice.path);
    return TRI_OK;
}

/* The pairs that a run begins with are those of the source, or an adapter's. Local. */
static enum tri_status take_adapter(const struct tri_config *config, const struct source *source,
                                    struct tri_config *of_source, struct tri_error *error)
{
    const char *adapter = config->train.lora.adapter;
    if (!adapter[0] || source->own || !config->init_from[0]) {
        return TRI_OK;
    }
    if (of_source->train.lora.rank > 0) {
        return tri_config_refuse(config, error, "train.lora.adapter",
                                 "found '%.300s', expected nothing: %.300s has pairs of its own",
                                 adapter, source->path);
    }
    return tri_peft_load_config(adapter, &of_source->train.lora, NULL, error);
}

static bool is_same_place(const char *a, const char *b)
{
    char *x = realpath(a, NULL), *y = realpath(b, NULL);
    bool same = strcmp(a, b) == 0 || (x && y && strcmp(x, y) == 0);
    free(x);
    free(y);
    return same;
}

/* A run that goes on has begun: with what, is said in its own checkpoints. Local. */
static enum tri_status check_beginning(const struct tri_config *config, const struct source *source,
                                       const struct tri_config *of_source, struct tri_error *error)
{
    if (!source->own || !config->init_from[0] ||
        is_same_place(config->init_from, of_source->init_from)) {
        return TRI_OK;
    }
    return tri_config_refuse(config, error, "init_from",
                             "found '%.300s', but this run began with '%.300s' and goes on: "
                             "expected that, or another run_dir",
                             config->init_from, of_source->init_from);
}

/* Of what rank 0 has found: on another node it may not be there. */
static enum tri_status read_source(const struct source *source, int rank,
                                   struct tri_config *of_source, struct tri_error *error)
{
    struct tri_error why = {0};
    enum tri_status status =
        source->hf ? tri_hf_load_config(source->path, of_source, NULL, &why)
                   : tri_checkpoint_read_config(source->path, &tri_strategies, of_source, &why);
    if (status != TRI_OK && rank > 0) {
        return tri_fail(error, status, "%.900s (on rank %d)", why.message, rank);
    }
    *error = why;
    return status;
}

/* Without a source. What does not fit may be what the checkpoint of `resume` would have told. */
static enum tri_status complete_alone(struct tri_config *config, struct tri_error *error)
{
    struct tri_checkpoint_choice choice = {0};
    struct tri_error misfit, why;
    enum tri_status status = tri_config_complete(config, NULL, error);
    if (status != TRI_BAD_INPUT || !config->resume[0] ||
        tri_checkpoint_resolve(config->resume, &choice, &why) == TRI_OK) {
        return status;
    }
    misfit = *error;
    return tri_config_refuse(config, error, "resume", "%.400s; and of the config alone: %.400s",
                             why.message, misfit.message);
}

/* What was chosen for a run stays so, as long as the ranks allow it. Local. */
static void keep_choice(const struct tri_config *of_source, int ranks, struct tri_config *config)
{
    char text[TRI_AUTO_TEXT];
    struct tri_error why;
    if (!config->autos || config->plan.again || ranks == 0) {
        return;
    }
    if (tri_auto_keep(of_source, ranks, config, text, &why) == TRI_OK) {
        tri_log_info("auto     %s", text);
    } else {
        tri_log_info("auto     what the run has is chosen anew: %s", why.message);
    }
}

/* Collective; the status is this rank's own. */
static enum tri_status complete(struct tri_group *group, bool goes_on, int ranks,
                                struct tri_config *config, struct tri_error *error)
{
    struct source source = {0};
    enum tri_status status = TRI_OK;
    bool asked = is_asked(config);
    if (tri_group_rank(group) == 0 && (asked || config->autos)) {
        status = find_source(config, goes_on, &source, error);
    }
    TRI_TRY(tri_comm_agree(group, status, error));
    tri_broadcast(group, where, &source, (int64_t)sizeof(source), TRI_U8, 0);
    /* Nor, it will be found, has another rank the same config. */
    if (!(asked || config->autos) || !source.path[0]) {
        return complete_alone(config, error);
    }
    struct tri_config *of_source = tri_alloc(TRI_MEMORY_OTHER, sizeof(*of_source));
    status = read_source(&source, tri_group_rank(group), of_source, error);
    if (status == TRI_OK) {
        status = check_beginning(config, &source, of_source, error);
    }
    if (status == TRI_OK) {
        status = take_adapter(config, &source, of_source, error);
    }
    if (status == TRI_OK) {
        status = tri_config_complete(config, asked ? of_source : NULL, error);
    }
    if (status == TRI_OK && !source.hf && config->init_from[0] && config->moe.num_experts > 0 &&
        of_source->moe.num_experts == 0) {
        status = tri_config_refuse(config, error, "moe.num_experts",
                                   "found experts, but %.300s is dense: export it, and begin with "
                                   "that folder",
                                   source.path);
    }
    /* What an import says of layouts nobody chose; whoever did had a cluster. */
    if (status == TRI_OK && (source.own || (config->resume[0] && of_source->plan.cluster[0]))) {
        keep_choice(of_source, ranks, config);
    }
    tri_free(of_source);
    return status;
}

enum tri_status tri_start_config(struct tri_group *group, const char *path,
                                 const struct tri_mapping *file, int count, char *const *overrides,
                                 bool goes_on, int ranks, struct tri_config *config,
                                 struct tri_error *error)
{
    char text[TRI_AUTO_TEXT];
    enum tri_status status =
        tri_config_read(&tri_strategies, path, file, count, overrides, config, error);
    TRI_TRY(tri_comm_agree(group, status, error));
    int64_t asked = is_asked(config) || (goes_on && config->autos);
    tri_all_reduce_max(group, where, &asked, 1, TRI_I64);
    status = asked ? complete(group, goes_on, ranks, config, error)
                   : tri_config_complete(config, NULL, error);
    if (status == TRI_OK) {
        status = tri_config_check_given(config, error);
    }
    TRI_TRY(tri_comm_agree(group, status, error));
    if (ranks == 0) {
        return TRI_OK;
    }
    TRI_TRY(tri_auto_choose(group, ranks, config, text, error));
    if (text[0]) {
        tri_log_info("auto     %s", text);
    }
    return TRI_OK;
}

/* ---- the weights ----------------------------------------------------------------------------- */

/* Rank 0 looks for the newest checkpoint of a run: beside one that goes on it is another a moment
 * later. */
static enum tri_status load_checkpoint(struct tri_session *session,
                                       struct tri_checkpoint_choice *choice,
                                       struct tri_error *error)
{
    struct tri_group *all = tri_mesh_group(session->mesh, TRI_ON_ALL);
    struct tri_checkpoint_state state = {0};
    enum tri_status status = TRI_OK;
    choice->again = false;
    if (session->mesh->rank == 0) {
        status = tri_checkpoint_resolve(session->config->init_from, choice, error);
    }
    TRI_TRY(tri_comm_agree(all, status, error));
    tri_broadcast(all, where, choice->path, TRI_PATH_MAX, TRI_U8, 0);
    choice->of_run = strcmp(choice->path, session->config->init_from) != 0;
    status = tri_session_load(session, choice, &state, error);
    tri_checkpoint_state_fini(&state);
    return status;
}

static enum tri_status load_source(struct tri_session *session, struct tri_error *error)
{
    const char *from = session->config->init_from;
    /* Another rank's file system may show another folder, and either way is collective. */
    bool hf = session->mesh->rank == 0 && is_hf(from);
    tri_broadcast(tri_mesh_group(session->mesh, TRI_ON_ALL), where, &hf, (int64_t)sizeof(hf),
                  TRI_U8, 0);
    if (hf) {
        const struct tri_hf_noise noise = {session->config->moe.upcycle_noise,
                                           (uint64_t)session->config->seed};
        TRI_TRY(tri_hf_load_upcycled(from, session->engine->params, &noise, error));
        tri_log_info("the weights of %s, at step 0", from);
        return TRI_OK;
    }
    struct tri_checkpoint_choice choice = {0};
    enum tri_status status;
    do {
        status = load_checkpoint(session, &choice, error);
    } while (status != TRI_OK && choice.again);
    if (status == TRI_OK) {
        tri_log_info("the weights of %s, at step 0", choice.path);
    }
    return status;
}

enum tri_status tri_start_weights(struct tri_session *session, struct tri_error *error)
{
    const char *adapter = session->config->train.lora.adapter;
    TRI_TRY(load_source(session, error));
    if (adapter[0] && session->mesh->rank == 0 && is_hf(session->config->init_from)) {
        tri_peft_compare_base(adapter, session->config->init_from);
    }
    return adapter[0] ? tri_peft_load(adapter, session->config, session->engine->params, error)
                      : TRI_OK;
}
