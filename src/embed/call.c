/* How a call of the caller's thread becomes work of the ranks. The caller's thread computes nothing
 * and takes nothing that is counted: what goes wrong goes wrong in a rank, whose panic hands its
 * text over and parks the thread where it is, for nobody can unwind it. */
#include "embed/internal.h"

#include "base/processors.h"
#include "base/signals.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum trident_status tri_embed_fail(struct trident_error *error, enum tri_status status,
                                   const char *message)
{
    if (error) {
        error->status = (enum trident_status)status;
        (void)snprintf(error->message, sizeof(error->message), "%s", message);
    }
    return (enum trident_status)status;
}

enum trident_status tri_embed_missing(struct trident_error *error, const char *name)
{
    char text[64];
    (void)snprintf(text, sizeof(text), "%s: none given", name);
    return tri_embed_fail(error, TRI_BAD_INPUT, text);
}

enum trident_status tri_embed_check_caller(struct trident_error *error)
{
    return tri_runtime_is_embedded()
               ? tri_embed_fail(error, TRI_BAD_INPUT,
                                "called from within a call: what takes the log's lines must not "
                                "do that")
               : TRIDENT_OK;
}

/* ---- a rank's thread ------------------------------------------------------------------------- */

static void take_line(void *state, const char *line)
{
    const struct trident_runtime *runtime = state;
    if (runtime->log) {
        runtime->log(runtime->log_state, line);
    }
}

/* From any thread that works for the rank; never returns. */
static void break_down(void *state, enum tri_status status, const char *text)
{
    struct tri_rank *rank = state;
    struct trident_runtime *runtime = rank->owner;
    (void)pthread_mutex_lock(&runtime->lock);
    if (!runtime->broken) {
        runtime->broken = true;
        (void)tri_fail(&runtime->why, status, "rank %d: %s", rank->number, text);
        (void)pthread_cond_broadcast(&runtime->changed);
    }
    (void)pthread_mutex_unlock(&runtime->lock);
    for (;;) {
        (void)pause();
    }
}

/* Waits for the next call; false: the threads are to end. */
static bool wait_for_work(struct tri_rank *rank, int64_t *seen)
{
    struct trident_runtime *runtime = rank->owner;
    (void)pthread_mutex_lock(&runtime->lock);
    while (!runtime->ends && (runtime->calls == *seen || rank->place >= runtime->wanted)) {
        *seen = runtime->calls;
        (void)pthread_cond_wait(&runtime->changed, &runtime->lock);
    }
    *seen = runtime->calls;
    bool works = !runtime->ends;
    (void)pthread_mutex_unlock(&runtime->lock);
    return works;
}

static void end_work(struct trident_runtime *runtime)
{
    (void)pthread_mutex_lock(&runtime->lock);
    runtime->busy--;
    (void)pthread_cond_broadcast(&runtime->changed);
    (void)pthread_mutex_unlock(&runtime->lock);
}

/* As long as the runtime. No watchdog ends anything: it is the caller who waits. */
static void serve(struct tri_rank *rank)
{
    struct trident_runtime *runtime = rank->owner;
    int64_t seen = 0;
    end_work(runtime);
    while (wait_for_work(rank, &seen)) {
        rank->status = runtime->work(rank, runtime->argument, &rank->error);
        end_work(runtime);
    }
}

static int live(struct tri_comm *comm, void *state)
{
    struct trident_runtime *runtime = state;
    struct tri_rank *rank = &runtime->rank[tri_comm_rank(comm)];
    rank->comm = comm;
    tri_panic_set_catcher(break_down, rank);
    tri_comm_set_timeout(comm, 0.0);
    serve(rank);
    return 0;
}

/* The one rank here of a job over MPI. */
static void live_joined(struct trident_runtime *runtime)
{
    struct tri_rank *rank = &runtime->rank[0];
    struct tri_error error = {0};
    tri_panic_set_catcher(break_down, rank);
    rank->comm = tri_comm_join(runtime->communicator);
    rank->number = tri_comm_rank(rank->comm);
    runtime->ranks = tri_comm_size(rank->comm);
    if (tri_mesh_create(rank->comm, 1, 1, 1, 1, &rank->world, &error) != TRI_OK) {
        tri_panic(error.status, "%s", error.message);
    }
    serve(rank);
    tri_mesh_destroy(rank->world);
    tri_comm_finish(rank->comm);
}

/* ---- starting and stopping ------------------------------------------------------------------- */

static void *start(void *state)
{
    struct trident_runtime *runtime = state;
    tri_runtime_bind(runtime->base);
    tri_runtime_embed(runtime->base);
    tri_log_set_sink(take_line, runtime);
    tri_panic_set_catcher(break_down, &runtime->in_charge);
    tri_processors_open();
    if (runtime->communicator) {
        live_joined(runtime);
    } else {
        (void)tri_comm_run_threads(runtime->ranks, live, runtime);
    }
    tri_runtime_bind(NULL);
    return NULL;
}

/* The caller's signals are for its own threads: none runs a handler on one that computes. */
static int start_thread(struct trident_runtime *runtime)
{
    sigset_t outside;
    sigset_t before;
    tri_signals_outside(&outside);
    (void)pthread_sigmask(SIG_SETMASK, &outside, &before);
    int code = pthread_create(&runtime->starter, NULL, start, runtime);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return code;
}

enum tri_status tri_ranks_start(struct trident_runtime *runtime, struct tri_error *error)
{
    for (int r = 0; r < runtime->here; r++) {
        runtime->rank[r] = (struct tri_rank){.owner = runtime, .number = r, .place = r};
    }
    runtime->in_charge = (struct tri_rank){.owner = runtime};
    runtime->busy = runtime->here;
    runtime->base = tri_runtime_create(0);
    int code = runtime->base ? start_thread(runtime) : ENOMEM;
    if (code != 0) {
        tri_runtime_destroy(runtime->base);
        return tri_fail(error, TRI_FAILED, "cannot start the ranks: %s", strerror(code));
    }
    (void)pthread_mutex_lock(&runtime->lock);
    while (runtime->busy > 0 && !runtime->broken) {
        (void)pthread_cond_wait(&runtime->changed, &runtime->lock);
    }
    bool broken = runtime->broken;
    (void)pthread_mutex_unlock(&runtime->lock);
    return broken ? tri_fail(error, TRI_FAILED, "%s", runtime->why.message) : TRI_OK;
}

void tri_ranks_stop(struct trident_runtime *runtime)
{
    (void)pthread_mutex_lock(&runtime->lock);
    runtime->ends = true;
    (void)pthread_cond_broadcast(&runtime->changed);
    (void)pthread_mutex_unlock(&runtime->lock);
    (void)pthread_join(runtime->starter, NULL);
    tri_runtime_destroy(runtime->base);
}

/* ---- a call ---------------------------------------------------------------------------------- */

/* What the ranks say: the lowest one that has an error. */
static enum trident_status collect(const struct trident_runtime *runtime,
                                   struct trident_error *error)
{
    if (runtime->broken) {
        return tri_embed_fail(error, TRI_FAILED, runtime->why.message);
    }
    for (int r = 0; r < runtime->wanted; r++) {
        const struct tri_rank *rank = &runtime->rank[r];
        if (rank->status != TRI_OK) {
            return tri_embed_fail(error, rank->status, rank->error.message);
        }
    }
    return TRIDENT_OK;
}

enum trident_status tri_ranks_do(struct trident_runtime *runtime, bool all, tri_rank_work *work,
                                 void *argument, struct trident_error *error)
{
    enum trident_status status = tri_embed_check_caller(error);
    if (status != TRIDENT_OK) {
        return status;
    }
    (void)pthread_mutex_lock(&runtime->turn);
    (void)pthread_mutex_lock(&runtime->lock);
    if (!runtime->broken) {
        runtime->work = work;
        runtime->argument = argument;
        runtime->wanted = runtime->busy = all ? runtime->here : 1;
        runtime->calls++;
        (void)pthread_cond_broadcast(&runtime->changed);
    }
    while (runtime->busy > 0 && !runtime->broken) {
        (void)pthread_cond_wait(&runtime->changed, &runtime->lock);
    }
    status = collect(runtime, error);
    (void)pthread_mutex_unlock(&runtime->lock);
    (void)pthread_mutex_unlock(&runtime->turn);
    return status;
}

/* ---- several processes ----------------------------------------------------------------------- */

enum tri_status tri_ranks_agree(struct tri_rank *rank, const char *call, const char *given,
                                enum tri_status status, struct tri_error *error)
{
    if (!rank->world) {
        return status;
    }
    const struct tri_fact facts[] = {{"the call", call}, {"what it is given", given}};
    struct tri_group *all = tri_mesh_group(rank->world, TRI_ON_ALL);
    TRI_TRY(tri_comm_agree(all, status, error));
    return tri_comm_compare(all, sizeof(facts) / sizeof(*facts), facts, error);
}
