#include "train/run.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/meter.h"
#include "base/path.h"
#include "base/signals.h"
#include "base/trace.h"
#include "data/tokenizer_files.h"
#include "moe/moe.h"
#include "shard/rows.h"
#include "train/ending.h"
#include "train/environment.h"
#include "train/json.h"
#include "train/metrics.h"
#include "train/resume.h"
#include "train/run_folder.h"
#include "train/run_plan.h"
#include "train/run_status.h"
#include "train/run_tokenizer.h"
#include "train/run_trace.h"
#include "train/scribe.h"
#include "train/session.h"
#include "train/start.h"
#include "train/text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct run {
    const struct tri_config *config;
    const struct tri_run_options *options;
    struct tri_session *session;
    struct tri_text train;
    struct tri_texts valid;
    struct tri_run_folder *folder; /* rank 0 */
    struct tri_progress *progress; /* rank 0 */
    struct tri_scribe *scribe;     /* rank 0 */
    struct tri_run_trace *trace;   /* NULL: nothing is traced */
    struct tri_checkpoint_state state;
    struct tri_run_status status; /* rank 0, where a run has begun */
    int64_t saved_step;           /* of the newest checkpoint; -1: none */
    char source[TRI_PATH_MAX];    /* the checkpoint that was loaded; "": none */
    bool save_due;
    bool warm;                     /* a step of this start has begun */
    bool evaluation_due;           /* that of the step to start from: a signal cut it short */
    bool cut;                      /* a signal ended an evaluation */
    double valid_loss, final_loss; /* NaN, in JSON null, of what this run did not compute */
};

/* ---- signals --------------------------------------------------------------------------------- */

/* Whether any rank was asked to stop. Collective. */
static bool must_stop(const struct run *run)
{
    int64_t asked = tri_signals_stop_asked();
    tri_all_reduce_max(tri_mesh_group(run->session->mesh, TRI_ON_ALL),
                       (struct tri_where){TRI_PHASE_OPTIMIZER, TRI_KIND_META}, &asked, 1, TRI_I64);
    return asked != 0;
}

/* ---- starting -------------------------------------------------------------------------------- */

static bool is_root(const struct run *run)
{
    return run->session->mesh->rank == 0;
}

/* Rank 0's status and error become everyone's. */
static enum tri_status agree(const struct run *run, enum tri_status status, struct tri_error *error)
{
    return tri_comm_agree(tri_mesh_group(run->session->mesh, TRI_ON_ALL), status, error);
}

/* The same while nothing has been trained: a signal stops the run here. */
static enum tri_status agree_to_start(const struct run *run, enum tri_status status,
                                      struct tri_error *error)
{
    bool stops = status == TRI_OK && tri_signals_stop_asked();
    return agree(run, stops ? TRI_REQUEUE : status, error);
}

static enum tri_status open_folder(struct run *run, struct tri_error *error)
{
    enum tri_status status = TRI_OK;
    if (is_root(run)) {
        bool fresh = run->options->fresh;
        status = fresh ? tri_resume_check_fresh(run->config, error) : TRI_OK;
        if (status == TRI_OK) {
            status = tri_run_folder_open(run->config->run_dir, fresh, &run->folder, error);
        }
        if (status == TRI_OK) {
            status = tri_checkpoint_clean(run->config->run_dir, error);
        }
    }
    return agree_to_start(run, status, error);
}

/* Whether a path lies in this run's folder, whatever else has named it. */
static bool is_own(const struct run *run, const char *path)
{
    size_t length = strlen(run->config->run_dir);
    return strncmp(path, run->config->run_dir, length) == 0 && path[length] == '/';
}

/* The checkpoint to start from: this run's newest, or that of `resume`; path "" for none. Same on
 * all ranks: rank 0 looks. The others see whether they have its folder. */
static enum tri_status find_start(const struct run *run, struct tri_checkpoint_choice *choice,
                                  struct tri_error *error)
{
    enum tri_status status = TRI_OK;
    if (is_root(run)) {
        bool found = false;
        status = tri_checkpoint_latest(run->config->run_dir, choice, &found, error);
        if (status == TRI_OK && !found) {
            choice->path[0] = '\0';
            if (run->config->resume[0]) {
                status = tri_checkpoint_resolve(run->config->resume, choice, error);
            }
        }
    } else {
        status = tri_run_folder_look(run->config->run_dir, run->session->mesh->rank, error);
    }
    TRI_TRY(agree_to_start(run, status, error));
    tri_broadcast(tri_mesh_group(run->session->mesh, TRI_ON_ALL),
                  (struct tri_where){TRI_PHASE_SETUP, TRI_KIND_META}, choice->path, TRI_PATH_MAX,
                  TRI_U8, 0);
    choice->of_run = strcmp(choice->path, run->config->resume) != 0 || is_own(run, choice->path);
    return TRI_OK;
}

/* Loads the checkpoint that rank 0 finds, if it finds one and may go on from it. */
static enum tri_status load_start(struct run *run, struct tri_checkpoint_choice *choice,
                                  struct tri_checkpoint_state *data, struct tri_error *error)
{
    choice->again = false;
    TRI_TRY(find_start(run, choice, error));
    if (!choice->path[0]) {
        return TRI_OK;
    }
    enum tri_status status = TRI_OK;
    if (is_root(run)) {
        status =
            tri_resume_check(choice->path, run->config, data, run->options->accept_data, error);
    }
    status = agree_to_start(run, status, error);
    if (status != TRI_OK) {
        choice->again =
            tri_checkpoint_is_gone(choice, tri_mesh_group(run->session->mesh, TRI_ON_ALL));
        return status;
    }
    return tri_session_load(run->session, choice, &run->state, error);
}

/* Without a checkpoint, from other weights. */
static enum tri_status begin(const struct run *run, struct tri_error *error)
{
    enum tri_status status = tri_start_weights(run->session, error);
    return agree_to_start(run, status, error);
}

static enum tri_status restore(struct run *run, struct tri_error *error)
{
    struct tri_checkpoint_choice choice = {.moments = true};
    struct tri_checkpoint_state data = run->state;
    enum tri_status status;
    do {
        status = load_start(run, &choice, &data, error);
    } while (status != TRI_OK && choice.again);
    if (is_root(run)) {
        tri_run_folder_seen(run->folder);
    }
    TRI_TRY(status);
    run->saved_step = -1;
    if (!choice.path[0]) {
        return run->config->init_from[0] ? begin(run, error) : TRI_OK;
    }
    run->state.data_tokens = data.data_tokens;
    run->state.data_contents = data.data_contents;
    run->saved_step = run->state.step;
    tri_path_make(run->source, sizeof(run->source), "%s", choice.path);
    tri_log_note("continuing from %s, step %lld", choice.path, (long long)run->state.step);
    status = tri_resume_begin(choice.path, run->config, &run->state, error);
    TRI_TRY(agree_to_start(run, status, error));
    tri_loader_continue(run->train.loader, run->state.step, run->state.samples);
    return TRI_OK;
}

static enum tri_status keep_tokenizer(const struct run *run, struct tri_error *error)
{
    return tri_run_tokenizer_keep(run->config, run->source, is_own(run, run->source), error);
}

static void warn_of_router(const struct run *run)
{
    const struct tri_router_kind *router = run->config->moe.router;
    if (run->config->moe.num_experts > 0 && router->picks && is_root(run)) {
        tri_log_warn("router %s: which experts a token has depends on the tokens behind it: losses "
                     "are no causal model's, and no text can be generated",
                     router->strategy.name);
    }
}

static enum tri_status describe(struct run *run, struct tri_error *error)
{
    char *environment = tri_environment_describe(run->session->kernels, run->session->mesh);
    enum tri_status status = TRI_OK;
    if (is_root(run)) {
        status = tri_run_folder_describe(run->folder, run->config, environment, error);
        if (status == TRI_OK) {
            status = tri_run_plan_save(run->session, run->folder, error);
        }
        if (status == TRI_OK) {
            /* A run that begins evaluates step 0 again, so its line goes too. */
            int64_t kept = run->saved_step <= 0 ? -1 : run->state.step;
            status = tri_run_folder_trim_metrics(run->folder, kept, error);
        }
        if (status == TRI_OK) {
            status = keep_tokenizer(run, error);
        }
        if (status == TRI_OK) {
            tri_run_status_begin(run->session, run->state.step, &run->status);
            status = tri_run_status_save(run->folder, &run->status, error);
        }
        if (status == TRI_OK) {
            status =
                tri_scribe_create(run->folder, run->config, run->session->mesh->ledger,
                                  run->saved_step <= 0 ? 0 : run->state.step, &run->scribe, error);
        }
    }
    free(environment);
    return agree_to_start(run, status, error);
}

static bool is_due(int64_t step, int64_t every)
{
    return every > 0 && step % every == 0;
}

static bool evaluates_after(const struct run *run, int64_t step)
{
    return run->valid.count > 0 &&
           (step == run->config->train.steps || is_due(step, run->config->eval_every));
}

/* Whether the evaluation of the checkpoint's step, which was saved because a signal cut it short,
 * is to be made up for. Collective. */
static void find_evaluation_due(struct run *run)
{
    int64_t due = 0;
    if (run->saved_step <= 0 || !evaluates_after(run, run->state.step)) {
        return;
    }
    if (is_root(run)) {
        due = tri_run_folder_lacks_evaluation(run->folder, run->state.step);
    }
    tri_broadcast(tri_mesh_group(run->session->mesh, TRI_ON_ALL),
                  (struct tri_where){TRI_PHASE_SETUP, TRI_KIND_META}, &due, 1, TRI_I64, 0);
    run->evaluation_due = due != 0;
}

/* ---- saving and evaluating ------------------------------------------------------------------- */

static enum tri_status save(struct run *run, struct tri_error *error)
{
    struct tri_checkpoint_state state = run->state;
    double began = tri_trace_begin();
    char tokenizer[TRI_PATH_MAX];
    tri_session_describe(run->session, &state);
    if (is_root(run) &&
        tri_tokenizer_files_find(run->config->run_dir, tokenizer, sizeof(tokenizer))) {
        state.tokenizer = tokenizer;
    }
    /* Weights that give no finite loss push no good checkpoint out. */
    int64_t keep = state.skipped_in_a_row ? 0 : run->config->checkpoint_keep_last;
    enum tri_status status = tri_checkpoint_save(run->config->run_dir, run->session->engine->params,
                                                 &state, keep, error);
    status = tri_ending_of_own_file(status, error);
    if (status == TRI_OK) {
        run->saved_step = state.step;
        run->save_due = false;
    }
    tri_free(state.config);
    tri_trace_end(began, "checkpoint", NULL, 0);
    return status;
}

static enum tri_status save_ledger(const struct run *run, struct tri_error *error)
{
    enum tri_status status = TRI_OK;
    struct tri_ledger *ledgers = tri_alloc(TRI_MEMORY_OTHER, 2 * sizeof(*ledgers));
    ledgers[0] = *run->session->mesh->ledger;
    tri_ledger_sum_ranks(tri_mesh_group(run->session->mesh, TRI_ON_ALL), &ledgers[0], &ledgers[1]);
    if (is_root(run)) {
        status = tri_run_folder_save_ledger(run->folder, &ledgers[0], &ledgers[1],
                                            run->state.step - run->status.step, &run->session->plan,
                                            error);
        status = tri_ending_of_own_file(status, error);
    }
    tri_free(ledgers);
    return agree(run, status, error);
}

static enum tri_status tell_evaluation(struct run *run, const struct tri_evaluation *evaluation,
                                       struct tri_error *error)
{
    const int64_t step = run->state.step;
    tri_progress_evaluation(run->progress, step, &run->valid, evaluation);
    return tri_scribe_evaluation(run->scribe, step, &run->valid, evaluation, error);
}

/* All sets, or where a signal comes meanwhile none. */
static enum tri_status evaluate(struct run *run, struct tri_error *error)
{
    struct tri_evaluation *evaluations;
    double began = tri_trace_begin();
    if (run->valid.count == 0) {
        return TRI_OK;
    }
    if (run->config->moe.sharpen_step > 0) {
        tri_moe_set_steps(tri_model_moe(run->session->engine->model), run->state.step);
    }
    enum tri_status status = tri_evaluate_all(run->session->engine, &run->valid,
                                              run->config->eval_batches, &evaluations, error);
    run->cut = status == TRI_REQUEUE;
    if (status != TRI_OK) {
        return run->cut ? TRI_OK : status;
    }
    run->valid_loss = tri_evaluation_loss(run->valid.count, evaluations);
    if (is_root(run)) {
        status = tell_evaluation(run, evaluations, error);
    }
    tri_evaluations_free(run->valid.count, evaluations);
    tri_trace_end(began, "evaluation", NULL, 0);
    return agree(run, status, error);
}

/* ---- the loop -------------------------------------------------------------------------------- */

static enum tri_status report_step(struct run *run, const struct tri_step_report *report,
                                   double learning_rate, double seconds, struct tri_error *error)
{
    struct tri_metrics metrics = {.step = run->state.step,
                                  .tokens = run->state.tokens,
                                  .batch_tokens =
                                      tri_loader_tokens(run->train.loader, run->state.step - 1),
                                  .skipped_steps = run->state.skipped_steps,
                                  .learning_rate = learning_rate,
                                  .seconds = seconds,
                                  .report = report};
    run->final_loss = report->targets > 0 ? report->loss : (double)NAN;
    if (!is_root(run)) {
        return TRI_OK;
    }
    double began = tri_trace_begin();
    tri_progress_step(run->progress, &metrics);
    enum tri_status status =
        tri_scribe_step(run->scribe, &metrics, evaluates_after(run, run->state.step),
                        run->session->mesh->ledger, error);
    tri_trace_end(began, "metrics", NULL, 0);
    return status;
}

/* A step whose loss or gradient is not finite changes nothing but the counters. */
static enum tri_status skip(struct run *run, struct tri_error *error)
{
    run->state.skipped_steps++;
    run->state.skipped_in_a_row++;
    if (run->state.skipped_in_a_row < run->config->train.max_skipped) {
        return TRI_OK;
    }
    return tri_ending_skipped(run->config->run_dir, &run->state, error);
}

/* What is said while no step ends: a step's micro-batches, or that the first one warms up. */
static void begin_to_show(struct run *run)
{
    const struct tri_config_train *train = &run->config->train;
    int replicas = tri_group_size(tri_mesh_group(run->session->mesh, TRI_ON_EXPERT | TRI_ON_DATA));
    int64_t step = run->state.step + 1;
    if (is_root(run) && !run->warm) {
        tri_progress_warm(run->progress, step);
    }
    tri_meter_begin(TRI_METER_MICRO_BATCHES,
                    tri_rows_micro_steps(train->global_batch, replicas, train->micro_batch),
                    "step %lld/%lld%s", (long long)step, (long long)train->steps,
                    run->warm ? "" : ", which warms up");
    run->warm = true;
}

static enum tri_status train_step(struct run *run, const struct tri_rows_source *source,
                                  struct tri_error *error)
{
    const struct tri_config_train *train = &run->config->train;
    double start = tri_clock_now();
    double learning_rate = tri_learning_rate(train, run->state.step);
    struct tri_step_report report;
    begin_to_show(run);
    enum tri_status status =
        tri_engine_gradients(run->session->engine, source, run->state.step, NULL, &report, error);
    tri_meter_end();
    TRI_TRY(status);
    run->state.step++;
    run->state.tokens += report.targets;
    run->state.samples += train->global_batch;
    if (report.finite) {
        int64_t update = run->state.step - run->state.skipped_steps;
        tri_engine_update(run->session->engine, update, learning_rate, &report);
        run->state.skipped_in_a_row = 0;
    } else {
        status = skip(run, error);
    }
    struct tri_error write_error;
    enum tri_status written =
        report_step(run, &report, learning_rate, tri_clock_now() - start, &write_error);
    if (status == TRI_OK && written != TRI_OK) {
        *error = write_error;
        status = written;
    }
    return agree(run, status, error);
}

/* A checkpoint that is due waits until a step succeeds. */
static bool must_save(struct run *run)
{
    run->save_due = run->save_due || is_due(run->state.step, run->config->checkpoint_every);
    return run->save_due && run->state.skipped_in_a_row == 0;
}

/* A step, as who traces sees it. */
static enum tri_status traced_step(struct run *run, const struct tri_rows_source *source,
                                   struct tri_error *error)
{
    const int64_t step = run->state.step + 1;
    tri_run_trace_begin(run->trace, step);
    double began = tri_trace_begin();
    enum tri_status status = train_step(run, source, error);
    tri_trace_end(began, "step", "step", step);
    return status;
}

static enum tri_status loop(struct run *run, struct tri_error *error)
{
    const struct tri_config *config = run->config;
    struct tri_rows_source source = tri_source_of_loader(run->train.loader, config);
    if (run->evaluation_due || (run->state.step == 0 && config->eval_at_start)) {
        TRI_TRY(evaluate(run, error));
        if (run->cut) {
            return TRI_REQUEUE;
        }
    }
    while (run->state.step < config->train.steps) {
        TRI_TRY(traced_step(run, &source, error));
        bool last = run->state.step == config->train.steps;
        if (evaluates_after(run, run->state.step)) {
            TRI_TRY(evaluate(run, error));
        }
        bool stop = must_stop(run);
        if (last || stop || must_save(run)) {
            TRI_TRY(save(run, error));
        }
        TRI_TRY(tri_run_trace_end(run->trace, run->state.step, last || stop, run->folder, error));
        if (stop && (!last || run->cut)) {
            return TRI_REQUEUE;
        }
    }
    return TRI_OK;
}

/* ---- the whole ------------------------------------------------------------------------------- */

static void print_json(const struct run *run, bool finished_before)
{
    json_t *root = json_object();
    (void)json_object_set_new(root, "run_dir", json_string(run->config->run_dir));
    (void)json_object_set_new(root, "step", json_integer(run->state.step));
    (void)json_object_set_new(root, "tokens", json_integer(run->state.tokens));
    (void)json_object_set_new(root, "skipped_steps", json_integer(run->state.skipped_steps));
    (void)json_object_set_new(root, "finished_before", json_boolean(finished_before));
    (void)json_object_set_new(root, "loss", tri_json_number(run->final_loss));
    (void)json_object_set_new(root, "valid_loss", tri_json_number(run->valid_loss));
    tri_print_json(root);
}

static enum tri_status run_to_end(struct run *run, struct tri_error *error)
{
    const struct tri_config *config = run->config;
    enum tri_status status = TRI_OK;
    TRI_TRY(tri_text_open_training(run->session, &run->train, error));
    if (config->data.valid[0]) {
        TRI_TRY(tri_texts_open(run->session, NULL, &run->valid, error));
    }
    TRI_TRY(open_folder(run, error));
    if (is_root(run)) { /* the contents count on the rank that saves */
        status = tri_text_describe(&run->train, &run->state, error);
    }
    TRI_TRY(agree(run, status, error));
    TRI_TRY(restore(run, error));
    find_evaluation_due(run);
    bool finished = run->state.step >= config->train.steps && !run->evaluation_due;
    if (finished) {
        bool all = run->state.step == config->train.steps;
        tri_log_note("%s is finished: it has trained %s %lld steps", config->run_dir,
                     all ? "all of its" : "more than its", (long long)config->train.steps);
    } else {
        TRI_TRY(describe(run, error));
        tri_session_print(run->session);
        warn_of_router(run);
        run->progress = is_root(run) ? tri_progress_create(config) : NULL;
        run->trace = tri_run_trace_create(run->session, run->state.step);
        status = loop(run, error);
        if (status != TRI_OK && status != TRI_REQUEUE) {
            return status;
        }
        TRI_TRY(save_ledger(run, error));
        tri_session_print_memory(run->session);
        if (status == TRI_REQUEUE) {
            return status;
        }
    }
    if (run->options->json && is_root(run)) {
        print_json(run, finished);
    }
    if (run->state.skipped_in_a_row > 0) {
        status = tri_ending_skipped(config->run_dir, &run->state, error);
    }
    return status;
}

/* The command that goes on after a signal; the one that was given would start over with --fresh. */
static const char *next_command(const struct run *run)
{
    return run->options->fresh ? "the same command without --fresh goes on"
                               : "the same command goes on";
}

/* Leaves in the folder how a run that had begun has ended. Rank 0. */
static void tell_ending(struct run *run, enum tri_status status, const struct tri_error *error)
{
    struct tri_run_status *ending = &run->status;
    struct tri_error why;
    char signal[64];
    (void)snprintf(signal, sizeof(signal), "a signal; %s", next_command(run));
    const char *reason = status == TRI_OK ? "" : status == TRI_REQUEUE ? signal : error->message;
    if (ending->began == 0) {
        return;
    }
    ending->state = status == TRI_OK        ? TRI_RUN_FINISHED
                    : status == TRI_REQUEUE ? TRI_RUN_STOPPED
                                            : TRI_RUN_FAILED;
    ending->step = run->state.step;
    ending->ended = (int64_t)time(NULL);
    (void)snprintf(ending->reason, sizeof(ending->reason), "%s", reason);
    bool told = tri_run_status_save(run->folder, ending, &why) == TRI_OK;
    if (!told && (status == TRI_OK || status == TRI_REQUEUE)) {
        tri_log_warn("%s", why.message);
    }
}

enum tri_status tri_run(struct tri_comm *comm, const struct tri_config *config,
                        const struct tri_run_options *options, struct tri_error *error)
{
    struct run run = {.config = config,
                      .options = options,
                      .saved_step = -1,
                      .valid_loss = (double)NAN,
                      .final_loss = (double)NAN};
    if (!config->data.train[0]) {
        return tri_config_refuse(config, error, "data.train", "a training run needs token shards");
    }
    TRI_TRY(tri_session_create(comm, config, true, 0, NULL, &run.session, error));
    enum tri_status status = run_to_end(&run, error);
    if (status == TRI_REQUEUE) {
        tri_log_info("stopped by a signal after step %lld; %s from there",
                     (long long)run.state.step, next_command(&run));
    }
    tri_progress_destroy(run.progress);
    tri_scribe_destroy(run.scribe);
    tri_run_trace_destroy(run.trace);
    tell_ending(&run, status, error);
    tri_run_folder_close(run.folder);
    tri_checkpoint_state_fini(&run.state);
    tri_text_close(&run.train);
    tri_texts_close(&run.valid);
    tri_session_destroy(run.session);
    return status;
}
