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
#include "base/memory.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { STACK_BYTES = 256 << 10, DEFAULT_SECONDS = 600, PAGE = 4096 };

struct tri_watch_view tri_watch_view;

static struct {
    MPI_Win window;
    bool mapped; /* the records are our own mapping of the window's memory */
    pthread_t thread;
    bool threaded;
    bool stop;                   /* under lock */
    _Atomic int64_t stage_since; /* as a record's */
    const char *stage;
    uint64_t sequence; /* of the starting and ending calls */
} watch;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake;

/* The first is all ranks, for starting and ending. */
static struct {
    bool used;
    int size[TRI_AXIS_COUNT];
} meshes[TRI_WATCH_MESHES];

const int *tri_watch_mesh_size(int channel)
{
    return meshes[channel / TRI_GROUP_COUNT].size;
}

/* ---- records --------------------------------------------------------------------------------- */

/* The record at base as a mapping of our own, which outlives the window: MPI_Finalize is watched
 * too. An old size of 0 asks for a second mapping of the same pages. NULL where that is refused. */
static struct tri_watch_record *map_again(void *base)
{
    size_t offset = (uintptr_t)base % PAGE;
    size_t bytes = (offset + sizeof(struct tri_watch_record) + PAGE - 1) / PAGE * PAGE;
    char *place = mremap((char *)base - offset, 0, bytes, MREMAP_MAYMOVE);
    return place == MAP_FAILED ? NULL : (struct tri_watch_record *)(void *)(place + offset);
}

static void find_records(void)
{
    struct tri_watch_view *view = &tri_watch_view;
    watch.mapped = true;
    for (int i = 0; i < view->node_size; i++) {
        MPI_Aint bytes = 0;
        int unit = 0;
        void *base = NULL;
        TRI_MPI(MPI_Win_shared_query(watch.window, i, &bytes, &unit, &base));
        view->record[i] = base;
    }
    for (int i = 0; i < view->node_size; i++) {
        struct tri_watch_record *again = watch.mapped ? map_again(view->record[i]) : NULL;
        watch.mapped = again != NULL;
        view->record[i] = again ? again : view->record[i];
    }
}

void tri_watch_open(MPI_Comm world, MPI_Comm node)
{
    struct tri_watch_view *view = &tri_watch_view;
    int rank = 0;
    int node_rank = 0;
    TRI_MPI(MPI_Comm_rank(world, &rank));
    TRI_MPI(MPI_Comm_size(world, &view->size));
    TRI_MPI(MPI_Comm_rank(node, &node_rank));
    TRI_MPI(MPI_Comm_size(node, &view->node_size));
    void *base = NULL;
    TRI_MPI(MPI_Win_allocate_shared(sizeof(struct tri_watch_record), 1, MPI_INFO_NULL, node, &base,
                                    &watch.window));
    struct tri_watch_record *own = base;
    memset(own, 0, sizeof(*own));
    own->rank = rank;
    own->process = (int)getpid();
    view->record = tri_alloc(TRI_MEMORY_OTHER, (size_t)view->node_size * sizeof(*view->record));
    view->place = tri_alloc(TRI_MEMORY_OTHER, (size_t)view->size * sizeof(*view->place));
    int first = node_rank == 0;
    TRI_MPI(MPI_Exscan(&first, &view->node_index, 1, MPI_INT, MPI_SUM, world));
    view->node_index = rank == 0 ? 0 : view->node_index;
    TRI_MPI(MPI_Bcast(&view->node_index, 1, MPI_INT, 0, node));
    for (int r = 0; r < view->size; r++) {
        view->place[r] = -1;
    }
    find_records();
    TRI_MPI(MPI_Barrier(node));
    for (int i = 0; i < view->node_size; i++) {
        view->place[view->record[i]->rank] = i;
    }
    meshes[0].used = true;
    meshes[0].size[TRI_AXIS_TENSOR] = meshes[0].size[TRI_AXIS_EXPERT] = 1;
    meshes[0].size[TRI_AXIS_DATA] = view->size;
    (void)pthread_mutex_lock(&lock);
    view->own = view->record[node_rank];
    (void)pthread_mutex_unlock(&lock);
    tri_work_attach(&view->own->work);
}

int tri_watch_mesh_open(const int size[TRI_AXIS_COUNT])
{
    int place = 0;
    while (place < TRI_WATCH_MESHES && meshes[place].used) {
        place++;
    }
    if (place == TRI_WATCH_MESHES) {
        tri_panic(TRI_FAILED, "more than %d meshes at a time", TRI_WATCH_MESHES - 1);
    }
    meshes[place].used = true;
    memcpy(meshes[place].size, size, sizeof(meshes[place].size));
    for (int id = 0; id < TRI_GROUP_COUNT; id++) {
        atomic_store(&tri_watch_view.own->arrived[place * TRI_GROUP_COUNT + id], 0);
    }
    return place * TRI_GROUP_COUNT;
}

void tri_watch_mesh_close(int channel)
{
    meshes[channel / TRI_GROUP_COUNT].used = false;
}

static void enter(int channel, uint64_t reached, uint64_t sequence, enum tri_verb verb,
                  struct tri_where where)
{
    struct tri_watch_record *own = tri_watch_view.own;
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
    enter(group->channel, group->sequence, call->sequence, call->verb, call->where);
}

void tri_watch_leave(void)
{
    atomic_store_explicit(&tri_watch_view.own->since, 0, memory_order_release);
}

void tri_watch_enter_stage(enum tri_verb verb)
{
    if (tri_watch_view.own) {
        watch.sequence++;
        enter(TRI_GROUP_WORLD, watch.sequence, watch.sequence, verb, (struct tri_where){0});
    } else {
        watch.stage = tri_verb_name(verb);
        atomic_store(&watch.stage_since, tri_clock_nanoseconds());
    }
}

void tri_watch_leave_stage(void)
{
    atomic_store(&watch.stage_since, 0);
    if (tri_watch_view.own) {
        tri_watch_leave();
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
static void look(struct patience *patience, int64_t limit, int64_t timeout)
{
    const struct tri_watch_view *view = &tri_watch_view;
    int64_t since = atomic_load_explicit(view->own ? &view->own->since : &watch.stage_since,
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
    for (int i = 0; view->own && i < view->node_size; i++) {
        const struct tri_watch_record *record = view->record[i];
        done += atomic_load_explicit(&record->work.done, memory_order_relaxed);
        busy = busy || (patience->waited > 0 && busy_with_file(record, timeout));
    }
    if (done != patience->done || busy) {
        patience->waited = 0;
    }
    patience->done = done;
}

static void check(struct patience *patience, int64_t tick)
{
    int64_t timeout = atomic_load(&tri_watch_view.timeout);
    look(patience, 2 * tick, timeout);
    const struct tri_watch_view *view = &tri_watch_view;
    if (watch.stop || timeout == 0 || patience->waited <= timeout) {
        return;
    }
    bool far = view->own && view->size > view->node_size && !tri_watch_sees_cause();
    if (far && patience->waited / TRI_WATCH_FACTOR < timeout) {
        return;
    }
    if (view->own) {
        tri_watch_report();
    }
    tri_watch_report_stage(watch.stage, (double)(tri_clock_nanoseconds() - patience->since) * 1e-9);
}

static void *run(void *unused)
{
    (void)unused;
    struct patience patience = {0};
    (void)pthread_mutex_lock(&lock);
    while (!watch.stop) {
        int64_t timeout = atomic_load(&tri_watch_view.timeout);
        int64_t tick = timeout / 10;
        tick = tick > TRI_WATCH_SECOND || timeout == 0 ? TRI_WATCH_SECOND : tick;
        int64_t until = tri_clock_nanoseconds() + tick;
        struct timespec time = {.tv_sec = (time_t)(until / TRI_WATCH_SECOND),
                                .tv_nsec = until % TRI_WATCH_SECOND};
        (void)pthread_cond_timedwait(&wake, &lock, &time);
        check(&patience, tick);
    }
    (void)pthread_mutex_unlock(&lock);
    return unused;
}

/* What the environment says of the timeout, which is 0 when it is no timeout. */
static double read_timeout(const char **text)
{
    char *end = NULL;
    *text = getenv("TRIDENT_TIMEOUT_SECONDS");
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

void tri_watch_check_environment(MPI_Comm world)
{
    const char *text;
    bool wrong = read_timeout(&text) == 0;
    int own = wrong ? tri_comm_rank() : tri_comm_size();
    int speaker = own;
    TRI_MPI(MPI_Allreduce(&own, &speaker, 1, MPI_INT, MPI_MIN, world));
    if (wrong && speaker == own) {
        tri_panic(TRI_BAD_INPUT,
                  "TRIDENT_TIMEOUT_SECONDS: found '%s', expected a number above 0 to 1000000000",
                  text);
    }
    if (speaker < tri_comm_size()) {
        TRI_MPI(MPI_Barrier(world)); /* until the speaker has ended the job */
    }
}

void tri_watch_start(void)
{
    tri_comm_set_timeout(first_timeout());
    watch.stop = false;
    pthread_attr_t attributes;
    (void)pthread_attr_init(&attributes);
    (void)pthread_attr_setstacksize(&attributes, STACK_BYTES);
    pthread_condattr_t clock;
    (void)pthread_condattr_init(&clock);
    (void)pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&wake, &clock);
    (void)pthread_condattr_destroy(&clock);
    int code = pthread_create(&watch.thread, &attributes, run, NULL);
    (void)pthread_attr_destroy(&attributes);
    if (code != 0) {
        tri_panic(TRI_FAILED, "cannot start the watchdog: %s", strerror(code));
    }
    watch.threaded = true;
}

void tri_comm_set_timeout(double seconds)
{
    (void)pthread_mutex_lock(&lock);
    atomic_store(&tri_watch_view.timeout, seconds > 0 ? (int64_t)(seconds * 1e9) : 0);
    if (watch.threaded) {
        (void)pthread_cond_signal(&wake);
    }
    (void)pthread_mutex_unlock(&lock);
}

/* ---- the end --------------------------------------------------------------------------------- */

void tri_watch_release(void)
{
    if (tri_watch_view.own) {
        if (!watch.mapped) {
            (void)pthread_mutex_lock(&lock);
            tri_work_attach(NULL);
            tri_watch_view.own = NULL;
            (void)pthread_mutex_unlock(&lock);
            tri_watch_enter_stage(TRI_VERB_FINISH);
        }
        TRI_MPI(MPI_Win_free(&watch.window));
    }
}

/* Who is done with MPI waits until the other ranks of the node are: while one is left, somebody can
 * say so. */
static void wait_for_node(void)
{
    struct tri_watch_view *view = &tri_watch_view;
    struct timespec pause = {.tv_nsec = 200000};
    atomic_store(&view->own->ended, 1);
    for (int i = 0; i < view->node_size; i++) {
        while (!atomic_load(&view->record[i]->ended)) {
            (void)nanosleep(&pause, NULL);
            pause.tv_nsec = pause.tv_nsec < 5000000 ? 2 * pause.tv_nsec : pause.tv_nsec;
        }
    }
}

void tri_watch_close(void)
{
    if (tri_watch_view.own) {
        wait_for_node();
    }
    (void)pthread_mutex_lock(&lock);
    watch.stop = true;
    (void)pthread_cond_signal(&wake);
    (void)pthread_mutex_unlock(&lock);
    (void)pthread_join(watch.thread, NULL);
    (void)pthread_cond_destroy(&wake);
    watch.threaded = false;
    tri_work_attach(NULL);
    tri_watch_view.own = NULL;
    tri_free(tri_watch_view.record);
    tri_free(tri_watch_view.place);
    tri_watch_view.record = NULL;
    tri_watch_view.place = NULL;
}
