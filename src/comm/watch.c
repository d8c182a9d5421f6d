/* The watchdog. A rank that never arrives at a collective would leave the others waiting in
 * silence; so every rank keeps a record in memory that it shares with the ranks of its node: for
 * each group how many calls it has reached, which call it waits in, and signs of its work. A thread
 * reads its own rank's record now and then; when the wait is too long, and no rank of the node has
 * given a sign in all that time, it reads the others', names the ranks that have not arrived, and
 * ends the job. A stopped process cannot answer a message, but its record can be read.
 *
 * Of the waiting ranks many wait only because another waits. The line is therefore about the lowest
 * rank that waits for one which itself waits nowhere. One rank a node prints; the other nodes give
 * the first some seconds to end the job.
 *
 * The thread starts before MPI does and ends after it. Before there are records a stage with a name
 * takes the place of a call; from then on starting and ending are calls like others. */
#include "comm/watch.h"

#include "base/clock.h"
#include "base/runtime.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* CALLS_BITS: the calls of each mesh at a place are counted from a multiple of 2 to this power on:
 * what a rank has reached of an earlier mesh at that place is less than any of them. */
enum { STACK_BYTES = 256 << 10, DEFAULT_SECONDS = 600, CALLS_BITS = 40 };

const int *tri_watch_mesh_size(const struct tri_watch *watch, int channel)
{
    return watch->mesh[channel / TRI_GROUP_COUNT].size;
}

/* ---- records --------------------------------------------------------------------------------- */

size_t tri_watch_record_bytes(void)
{
    return sizeof(struct tri_watch_record);
}

void tri_watch_record_init(struct tri_watch_record *record, int rank)
{
    memset(record, 0, sizeof(*record));
    record->rank = rank;
    record->process = (int)getpid();
}

void tri_watch_open(struct tri_watch *watch, struct tri_watch_record **records, int node_index)
{
    const struct tri_comm *comm = watch->comm;
    watch->record = records;
    watch->node_index = node_index;
    watch->place = tri_alloc(TRI_MEMORY_OTHER, (size_t)comm->size * sizeof(*watch->place));
    for (int r = 0; r < comm->size; r++) {
        watch->place[r] = -1;
    }
    for (int i = 0; i < comm->node_size; i++) {
        watch->place[records[i]->rank] = i;
    }
    watch->mesh[0].used = true;
    for (int axis = 0; axis < TRI_AXIS_COUNT; axis++) {
        watch->mesh[0].size[axis] = axis == TRI_AXIS_DATA ? comm->size : 1;
    }
    (void)pthread_mutex_lock(&watch->lock);
    watch->own = records[comm->node_rank];
    (void)pthread_mutex_unlock(&watch->lock);
    tri_work_attach(&watch->own->work);
}

void tri_watch_leave_records(struct tri_watch *watch)
{
    (void)pthread_mutex_lock(&watch->lock);
    tri_work_attach(NULL);
    watch->own = NULL;
    (void)pthread_mutex_unlock(&watch->lock);
}

enum tri_status tri_watch_mesh_open(struct tri_watch *watch, const int size[TRI_AXIS_COUNT],
                                    int *channel, struct tri_error *error)
{
    int place = 0;
    while (place < TRI_WATCH_MESHES && watch->mesh[place].used) {
        place++;
    }
    if (place == TRI_WATCH_MESHES) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "no room for more than %d meshes of %d ranks at a time, of which each "
                        "model has one",
                        TRI_WATCH_MESHES - 1, watch->comm->size);
    }
    watch->mesh[place].used = true;
    watch->mesh[place].opened++;
    memcpy(watch->mesh[place].size, size, sizeof(watch->mesh[place].size));
    *channel = place * TRI_GROUP_COUNT;
    return TRI_OK;
}

uint64_t tri_watch_mesh_before(const struct tri_watch *watch, int channel)
{
    return watch->mesh[channel / TRI_GROUP_COUNT].opened << CALLS_BITS;
}

void tri_watch_mesh_close(struct tri_watch *watch, int channel)
{
    watch->mesh[channel / TRI_GROUP_COUNT].used = false;
}

static void enter(struct tri_watch_record *own, int channel, uint64_t reached, uint64_t sequence,
                  enum tri_verb verb, struct tri_where where)
{
    atomic_store_explicit(&own->arrived[channel], reached, memory_order_relaxed);
    atomic_store_explicit(&own->sequence, sequence, memory_order_relaxed);
    atomic_store_explicit(&own->channel, channel, memory_order_relaxed);
    atomic_store_explicit(&own->verb, (int)verb, memory_order_relaxed);
    atomic_store_explicit(&own->phase, (int)where.phase, memory_order_relaxed);
    atomic_store_explicit(&own->kind, (int)where.kind, memory_order_relaxed);
    atomic_store_explicit(&own->since, tri_clock_nanoseconds(), memory_order_release);
    tri_work_progress();
}

void tri_watch_enter(const struct tri_call *call)
{
    const struct tri_group *group = call->group;
    struct tri_watch_record *own = group->mesh->comm->watch->own;
    if (tri_verb_is_pair(call->verb)) {
        atomic_store_explicit(&own->n, call->n, memory_order_relaxed);
        atomic_store_explicit(&own->dtype, (int)call->dtype, memory_order_relaxed);
        atomic_store_explicit(&own->peer, tri_call_peer(call), memory_order_relaxed);
    }
    enter(own, group->channel, group->sequence, call->sequence, call->verb, call->where);
}

void tri_watch_leave(struct tri_watch *watch)
{
    atomic_store_explicit(&watch->own->since, 0, memory_order_release);
}

void tri_watch_enter_stage(struct tri_watch *watch, enum tri_verb verb)
{
    if (watch->own) {
        watch->sequence++;
        enter(watch->own, tri_group_id(TRI_ON_ALL), watch->sequence, watch->sequence, verb,
              (struct tri_where){0});
    } else {
        watch->stage = tri_verb_name(verb);
        atomic_store(&watch->stage_since, tri_clock_nanoseconds());
    }
}

void tri_watch_leave_stage(struct tri_watch *watch)
{
    atomic_store(&watch->stage_since, 0);
    if (watch->own) {
        tri_watch_leave(watch);
    }
}

/* ---- the thread ------------------------------------------------------------------------------ */

/* How long this rank has waited in one call in which no rank of the node gave a sign of work, as
 * the thread saw it. */
struct patience {
    int64_t since, looked, waited;
    uint64_t done;
};

/* A rank in a call on a file gives no sign, and may not be able to: it has more time. */
static bool busy_with_file(const struct tri_watch_record *record, int64_t timeout)
{
    int64_t since = atomic_load_explicit(&record->work.file_since, memory_order_acquire);
    return since && (tri_clock_nanoseconds() - since) / TRI_WATCH_FACTOR < timeout &&
           !*tri_watch_halted(record->process);
}

/* Adds the time since the last look, of which at most limit counts: a job that was suspended as a
 * whole and goes on has not waited in the meantime. */
static void look(const struct tri_watch *watch, struct patience *patience, int64_t limit,
                 int64_t timeout)
{
    int64_t since = atomic_load_explicit(watch->own ? &watch->own->since : &watch->stage_since,
                                         memory_order_acquire);
    int64_t time = tri_clock_nanoseconds();
    int64_t passed = time - patience->looked;
    if (since != patience->since) {
        patience->waited = 0;
        passed = time - since;
    }
    patience->waited = since ? patience->waited + (passed < limit ? passed : limit) : 0;
    patience->since = since;
    patience->looked = time;
    uint64_t done = 0;
    bool busy = false;
    for (int i = 0; watch->own && i < watch->comm->node_size; i++) {
        const struct tri_watch_record *record = watch->record[i];
        done += atomic_load_explicit(&record->work.done, memory_order_relaxed);
        busy = busy || (patience->waited > 0 && busy_with_file(record, timeout));
    }
    if (done != patience->done || busy) {
        patience->waited = 0;
    }
    patience->done = done;
}

static void check(struct tri_watch *watch, struct patience *patience, int64_t tick)
{
    const struct tri_comm *comm = watch->comm;
    int64_t timeout = atomic_load(&watch->timeout);
    look(watch, patience, 2 * tick, timeout);
    if (watch->stop || timeout == 0 || patience->waited <= timeout) {
        return;
    }
    bool far = watch->own && comm->size > comm->node_size && !tri_watch_sees_cause(watch);
    if (far && patience->waited / TRI_WATCH_FACTOR < timeout) {
        return;
    }
    if (watch->own) {
        tri_watch_report(watch);
    }
    tri_watch_report_stage(watch, (double)(tri_clock_nanoseconds() - patience->since) * 1e-9);
}

static void *run(void *argument)
{
    struct tri_watch *watch = argument;
    struct patience patience = {0};
    (void)pthread_mutex_lock(&watch->lock);
    while (!watch->stop) {
        int64_t timeout = atomic_load(&watch->timeout);
        int64_t tick = timeout / 10;
        tick = tick > TRI_WATCH_SECOND || timeout == 0 ? TRI_WATCH_SECOND : tick;
        int64_t until = tri_clock_nanoseconds() + tick;
        struct timespec time = {.tv_sec = (time_t)(until / TRI_WATCH_SECOND),
                                .tv_nsec = until % TRI_WATCH_SECOND};
        (void)pthread_cond_timedwait(&watch->wake, &watch->lock, &time);
        check(watch, &patience, tick);
    }
    (void)pthread_mutex_unlock(&watch->lock);
    return NULL;
}

/* *text: what the environment says, or NULL. 0: that is no such number. */
static double read_timeout(const char **text)
{
    char *end = NULL;
    *text = tri_runtime_getenv("TRIDENT_TIMEOUT_SECONDS");
    double seconds = *text ? strtod(*text, &end) : DEFAULT_SECONDS;
    bool wrong = *text && (end == *text || *end || !(seconds > 0 && seconds <= 1e9));
    return wrong ? 0 : seconds;
}

/* What holds until a config has been read, and for commands that have none. */
static double first_timeout(void)
{
    const char *text;
    double seconds = read_timeout(&text);
    return seconds > 0 ? seconds : DEFAULT_SECONDS;
}

enum tri_status tri_comm_check_environment(struct tri_error *error)
{
    const char *text;
    return read_timeout(&text) > 0
               ? TRI_OK
               : tri_fail(error, TRI_BAD_INPUT,
                          "TRIDENT_TIMEOUT_SECONDS: found '%.80s', expected a number above 0 to "
                          "1000000000",
                          text);
}

static int64_t nanoseconds(double seconds)
{
    return seconds > 0 ? (int64_t)(seconds * 1e9) : 0;
}

struct tri_watch *tri_watch_start(struct tri_comm *comm)
{
    struct tri_watch *watch = tri_alloc(TRI_MEMORY_OTHER, sizeof(*watch));
    watch->comm = comm;
    atomic_store(&watch->timeout, nanoseconds(first_timeout()));
    (void)pthread_mutex_init(&watch->lock, NULL);
    pthread_condattr_t clock;
    (void)pthread_condattr_init(&clock);
    (void)pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&watch->wake, &clock);
    (void)pthread_condattr_destroy(&clock);
    pthread_attr_t attributes;
    (void)pthread_attr_init(&attributes);
    (void)pthread_attr_setstacksize(&attributes, STACK_BYTES);
    int code = pthread_create(&watch->thread, &attributes, run, watch);
    (void)pthread_attr_destroy(&attributes);
    if (code != 0) {
        tri_panic(TRI_FAILED, "cannot start the watchdog: %s", strerror(code));
    }
    return watch;
}

void tri_comm_set_timeout(struct tri_comm *comm, double seconds)
{
    struct tri_watch *watch = comm->watch;
    (void)pthread_mutex_lock(&watch->lock);
    atomic_store(&watch->timeout, nanoseconds(seconds));
    (void)pthread_cond_signal(&watch->wake);
    (void)pthread_mutex_unlock(&watch->lock);
}

/* ---- the end --------------------------------------------------------------------------------- */

/* Who is done waits until the other ranks of the node are: while one is left, somebody can
 * say so. */
static void wait_for_node(struct tri_watch *watch)
{
    struct timespec pause = {.tv_nsec = 200000};
    atomic_store(&watch->own->ended, 1);
    for (int i = 0; i < watch->comm->node_size; i++) {
        while (!atomic_load(&watch->record[i]->ended)) {
            (void)nanosleep(&pause, NULL);
            pause.tv_nsec = pause.tv_nsec < 5000000 ? 2 * pause.tv_nsec : pause.tv_nsec;
        }
    }
}

void tri_watch_close(struct tri_watch *watch)
{
    if (watch->own) {
        wait_for_node(watch);
    }
    (void)pthread_mutex_lock(&watch->lock);
    watch->stop = true;
    (void)pthread_cond_signal(&watch->wake);
    (void)pthread_mutex_unlock(&watch->lock);
    (void)pthread_join(watch->thread, NULL);
    (void)pthread_cond_destroy(&watch->wake);
    (void)pthread_mutex_destroy(&watch->lock);
    tri_work_attach(NULL);
    tri_free(watch->record);
    tri_free(watch->place);
    tri_free(watch);
}
