#include "train/session.h"

#include "base/log.h"
#include "base/room.h"
#include "base/runtime.h"
#include "checkpoint/hf.h"
#include "moe/moe.h"
#include "moe/strategies.h"
#include "plan/compare.h"
#include "train/alike.h"
#include "train/environment.h"

#include <limits.h>
#include <string.h>

/* ---- the config of a checkpoint -------------------------------------------------------------- */

/* Said with --json too: what comes out is not what the run's own evaluations had. */
static void tell_changes(const struct tri_config *trained, const struct tri_config *config)
{
    enum { CHANGES = 1024 };
    char changes[CHANGES];
    int count =
        tri_config_list_changes(trained, config, TRI_EFFECT_OUTPUT, changes, sizeof(changes));
    if (count > 0 && tri_rank_get() == 0) {
        tri_log_warn("%s: the weights give other results than they were trained for", changes);
    }
}

enum tri_status tri_session_config(const char *path, int ranks, int count, char *const *overrides,
                                   struct tri_config *config, struct tri_error *error)
{
    struct tri_config trained;
    TRI_TRY(tri_checkpoint_read_config(path, &tri_strategies, &trained, error));
    if (ranks % (trained.parallel.tensor * trained.parallel.expert) != 0 ||
        tri_config_check_layout(&trained, ranks, error) != TRI_OK) {
        trained.parallel = (struct tri_config_parallel){1, 1, 1, {0}};
    }
    for (int i = 0; i < count; i++) {
        if (strncmp(overrides[i], "parallel.", 9) == 0) {
            trained.parallel = (struct tri_config_parallel){1, 1, 0, {0}};
        }
    }
    tri_config_keep_shapes(&trained);
    char *yaml = tri_config_to_yaml(&trained);
    enum tri_status status = tri_config_parse(&tri_strategies, path, yaml, strlen(yaml), count,
                                              overrides, config, error);
    tri_free(yaml);
    TRI_TRY(status);
    if (config->autos) {
        return tri_config_refuse_auto(config, "expected a value: a run chooses when it trains",
                                      error);
    }
    tell_changes(&trained, config);
    return TRI_OK;
}

/* ---- the session ----------------------------------------------------------------------------- */

struct tri_rehearsal tri_session_rehearsal(const struct tri_session *session, bool training)
{
    const struct tri_mesh *mesh = session->mesh;
    return (struct tri_rehearsal){
        .config = session->config,
        .layout = {tri_mesh_grid(mesh), mesh->size[TRI_AXIS_EXPERT], mesh->size[TRI_AXIS_DATA],
                   (int)session->config->parallel.expert_tensor, mesh->size[TRI_AXIS_DEPTH],
                   mesh->size[TRI_AXIS_CROSS]},
        .rank = mesh->rank,
        .training = training,
        .load = session->load,
        .local_ranks = tri_comm_local_size(mesh->comm),
        .threads = session->kernels->threads,
        .host = mesh->host,
    };
}

static enum tri_status rehearse(struct tri_session *session, bool training, int64_t beside,
                                const struct tri_active *active, struct tri_error *error)
{
    struct tri_rehearsal rehearsal = tri_session_rehearsal(session, training);
    rehearsal.active = active;
    enum tri_status status = tri_rehearse(&rehearsal, NULL, &session->plan, error);
    session->plan.beside = beside;
    session->plan.process =
        tri_memory_process_constant(session->kernels->threads) + session->plan.scratch;
    if (status == TRI_OK) {
        status = tri_memory_check(&session->plan, tri_comm_local_size(session->mesh->comm), error);
    }
    return status;
}

/* Where what is asked for counts, ranks of one process that rehearsed at once would find each
 * other's rehearsals in their way, by chance. */
static enum tri_status check_memory(struct tri_session *session, bool training, int64_t beside,
                                    const struct tri_active *active, struct tri_error *error)
{
    bool limited = tri_room_of_addresses(1).bytes < INT64_MAX;
    if (limited) {
        tri_comm_begin_turn(session->mesh->comm);
    }
    enum tri_status status = rehearse(session, training, beside, active, error);
    if (limited) {
        tri_comm_end_turn(session->mesh->comm);
    }
    return status;
}

/* What a rank computes may depend on how many threads it has, in the last bits, and tensor ranks
 * compute some things twice. */
enum tri_status tri_session_make_kernels(struct tri_session *session, int threads,
                                         struct tri_error *error)
{
    const struct tri_config *config = session->config;
    const char *path = tri_environment_kernels();
    /* Ranks of one process have the same cores: one of them counts. */
    bool counts = tri_runtime_ranks() == 1 || session->mesh->rank == 0;
    if (threads == 0) {
        threads = counts ? tri_environment_threads(config, session->mesh->comm) : INT_MAX;
    }
    int64_t fewest = -threads;
    tri_all_reduce_max(tri_mesh_group(session->mesh, TRI_ON_ALL),
                       (struct tri_where){TRI_PHASE_SETUP, TRI_KIND_META}, &fewest, 1, TRI_I64);
    if (-fewest < threads) {
        threads = (int)-fewest;
        if (counts) {
            tri_log_info("%d thread%s here, as on the rank that may have the fewest", threads,
                         threads == 1 ? "" : "s");
        }
    }
    TRI_TRY(tri_kernels_check(path, error));
    session->kernels = tri_kernels_create(
        config->reproducible ? TRI_KERNELS_REPRODUCIBLE : TRI_KERNELS_FAST, path, threads);
    return TRI_OK;
}

enum tri_status tri_session_create(struct tri_comm *comm, const struct tri_config *config,
                                   bool training, int64_t beside, const struct tri_active *active,
                                   struct tri_session **session, struct tri_error *error)
{
    *session = NULL;
    if (config->autos) {
        return tri_config_refuse_auto(config, "expected a value: this does not choose", error);
    }
    TRI_TRY(tri_config_check_layout(config, tri_comm_size(comm), error));
    TRI_TRY(tri_params_check_frozen(config, error));
    tri_comm_set_timeout(comm, config->comm_timeout_seconds);
    struct tri_session *s = tri_alloc(TRI_MEMORY_OTHER, sizeof(*s));
    s->config = config;
    s->load = config->moe.router->even ? TRI_LOAD_BALANCED : TRI_LOAD_HEADROOM;
    const struct tri_config_parallel *parallel = &config->parallel;
    enum tri_status status =
        tri_mesh_create(comm, (int)tri_config_cut(parallel), (int)tri_config_cross(parallel),
                        (int)tri_config_depth(parallel), (int)parallel->expert, &s->mesh, error);
    if (status == TRI_OK) {
        tri_mesh_set_max_message(s->mesh, config->comm_max_message);
        tri_mesh_set_hosts(s->mesh, config->comm_ranks_per_host, NULL);
        status = tri_session_make_kernels(s, 0, error);
        if (status == TRI_OK) {
            status = check_memory(s, training, beside, active, error);
        }
        status = tri_comm_agree(tri_mesh_group(s->mesh, TRI_ON_ALL), status, error);
    }
    if (status != TRI_OK) {
        tri_session_destroy(s);
        return status;
    }
    s->engine = tri_engine_create(config, s->mesh, s->kernels, training);
    if (active) {
        tri_moe_set_active(tri_model_moe(s->engine->model), active);
    }
    *session = s;
    return TRI_OK;
}

void tri_session_destroy(struct tri_session *session)
{
    if (session) {
        tri_engine_destroy(session->engine);
        tri_kernels_destroy(session->kernels);
        tri_mesh_destroy(session->mesh);
        tri_free(session);
    }
}

/* A bias that was learned stays, also when moe.bias_balancing no longer asks for it: the weights
 * were trained with it. */
static enum tri_status take_bias(struct tri_session *session, const char *path,
                                 const struct tri_checkpoint_state *state, struct tri_error *error)
{
    const struct tri_config_moe *moe = &session->config->moe;
    int64_t layers = session->engine->moe_layers;
    if (!state->bias) {
        return TRI_OK;
    }
    if (state->bias_layers != layers || state->bias_experts != moe->num_experts) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s/state.json: bias: found %lld layers of %lld experts, expected %lld of "
                        "%lld",
                        path, (long long)state->bias_layers, (long long)state->bias_experts,
                        (long long)layers, (long long)moe->num_experts);
    }
    tri_moe_set_bias(tri_model_moe(session->engine->model), state->bias);
    if (!moe->router->biased) {
        tri_log_info("the learned bias of moe.bias_balancing is kept, but moe.router %s does not "
                     "choose by it",
                     moe->router->strategy.name);
    }
    return TRI_OK;
}

enum tri_status tri_session_load(struct tri_session *session, struct tri_checkpoint_choice *choice,
                                 struct tri_checkpoint_state *state, struct tri_error *error)
{
    struct tri_group *all = tri_mesh_group(session->mesh, TRI_ON_ALL);
    enum tri_status status = tri_alike_checkpoint(all, choice->path, error);
    if (status != TRI_OK) {
        choice->again = tri_checkpoint_is_gone(choice, all);
        return status;
    }
    TRI_TRY(tri_checkpoint_load_choice(choice, session->engine->params, state, error));
    return take_bias(session, choice->path, state, error);
}

void tri_session_describe(const struct tri_session *session, struct tri_checkpoint_state *state)
{
    const struct tri_engine *engine = session->engine;
    state->seed = session->config->seed;
    state->config = session->mesh->rank == 0 ? tri_config_to_yaml(session->config) : NULL;
    state->bias = engine->moe_layers ? tri_moe_bias(tri_model_moe(engine->model)) : NULL;
    state->bias_layers = state->bias ? engine->moe_layers : 0;
    state->bias_experts = state->bias ? session->config->moe.num_experts : 0;
}

/* That nobody else's program will read this model is better known before it is trained. */
static void print_export(const struct tri_config *config)
{
    enum tri_hf_family family;
    struct tri_error why;
    if (tri_hf_family_of(config, &family, &why) != TRI_OK) {
        tri_log_note("export   %s", why.message);
    }
}

void tri_session_print(const struct tri_session *session)
{
    const struct tri_config *config = session->config;
    const struct tri_config_model *model = &config->model;
    const struct tri_mesh *mesh = session->mesh;
    char path[TRI_KERNELS_TEXT];
    tri_kernels_describe(tri_environment_kernels(), session->kernels->reproducible, path);
    tri_log_info("%s, %s, %s", tri_version(), path, tri_comm_library(mesh->comm));
    tri_log_info("model    %.2f M parameters, %.2f M active; %lld layers, hidden %lld, %lld heads, "
                 "vocabulary %lld",
                 (double)session->engine->params->total / 1e6,
                 (double)session->engine->params->active / 1e6, (long long)model->num_layers,
                 (long long)model->hidden_size, (long long)model->num_heads,
                 (long long)model->vocab_size);
    if (session->engine->params->trained < session->engine->params->total) {
        tri_log_info("trained  %.2f M parameters; the others are frozen",
                     (double)session->engine->params->trained / 1e6);
    }
    if (session->engine->moe_layers) {
        bool all = config->moe.router->dense;
        long long top = (long long)config->moe.top_k, from = (long long)config->moe.sharpen_step;
        char most[96] = "each token to all";
        if (!all) {
            (void)snprintf(most, sizeof(most), "top %lld", top);
        } else if (from > 0) {
            (void)snprintf(most, sizeof(most),
                           "each token to all, from step %lld on to its top %lld", from, top);
        }
        tri_log_info("experts  %lld in each of %lld layers, %s", (long long)config->moe.num_experts,
                     (long long)session->engine->moe_layers, most);
    }
    char grid[64] = "";
    if (tri_mesh_grid(mesh) > mesh->size[TRI_AXIS_TENSOR]) {
        (void)snprintf(grid, sizeof(grid), " (grid %d x %d x %d)", mesh->size[TRI_AXIS_TENSOR],
                       mesh->size[TRI_AXIS_CROSS], mesh->size[TRI_AXIS_DEPTH]);
    }
    tri_log_info("layout   %d rank%s = tensor %d%s x expert %d x data %d, expert_tensor %lld, %d "
                 "thread%s each, %s",
                 mesh->ranks, mesh->ranks == 1 ? "" : "s", tri_mesh_grid(mesh), grid,
                 mesh->size[TRI_AXIS_EXPERT], mesh->size[TRI_AXIS_DATA],
                 (long long)config->parallel.expert_tensor, session->kernels->threads,
                 session->kernels->threads == 1 ? "" : "s",
                 config->precision == TRI_PRECISION_BF16 ? "bf16" : "f32");
    print_export(config);
    tri_memory_print(&session->plan, tri_mesh_group(mesh, TRI_ON_ALL));
}

void tri_session_print_memory(const struct tri_session *session)
{
    tri_memory_compare(&session->plan, session->load, tri_mesh_group(session->mesh, TRI_ON_ALL));
}
