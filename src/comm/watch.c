/* The watchdog. A rank that never arrives at a collective would leave the others waiting in
 * silence; so every rank keeps a record in memory that it shares with the ranks of its node: for
 * each group how many calls it has reached, and which call it waits in. A thread reads its own
 * rank's record now and then; when the wait is too long it reads the others', names the ranks that
 * have not arrived, and ends the job. A stopped process cannot answer a message, but its record can
 * be read.
 *
 * Of the waiting ranks many wait only because another waits. The line is therefore about the lowest
 * rank that waits for one which itself waits nowhere. One rank a node prints; the other nodes give
 * the first some seconds to end the job. */
#include "comm/internal.h"

#include "base/memory.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    MESHES = 16,
    CHANNELS = MESHES * TRI_GROUP_COUNT,
    NAMED = 16,
    NODE_SECONDS = 3, /* for another node to end the job, and for another rank of this one */
    RANK_SECONDS = 2,
    PATIENCE = 1000, /* milliseconds for a reader of standard error */
    SECOND = 1000000000
};

/* One rank's record. */
struct record {
    _Atomic uint64_t arrived[CHANNELS]; /* calls reached, by group */
    _Atomic int64_t since;     /* monotonic nanoseconds when the wait began; 0: waits in none */
    _Atomic uint64_t sequence; /* the call it waits in */
    _Atomic int channel, verb, phase, kind;
    _Atomic int claimed; /* in the node's first record: some rank has begun to report */
    int rank, process;
};

static struct {
    MPI_Win window;
    int size, node_size, node_index;
    struct record *own;
    struct record **record; /* [node_size], in order of rank */
    int *place;             /* [size]: index into record, or -1 when on another node */
    pthread_t thread;
    bool threaded;
    bool stop; /* under lock */
    int64_t timeout;
} watch;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake;

static struct {
    bool used;
    int size[TRI_AXIS_COUNT];
} meshes[MESHES];

static int64_t now(void)
{
    struct timespec time;
    (void)clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * SECOND + time.tv_nsec;
}

/* ---- records --------------------------------------------------------------------------------- */

void tri_watch_open(MPI_Comm world, MPI_Comm node)
{
    int rank = 0;
    int node_rank = 0;
    TRI_MPI(MPI_Comm_rank(world, &rank));
    TRI_MPI(MPI_Comm_size(world, &watch.size));
    TRI_MPI(MPI_Comm_rank(node, &node_rank));
    TRI_MPI(MPI_Comm_size(node, &watch.node_size));
    void *own = NULL;
    TRI_MPI(MPI_Win_allocate_shared(sizeof(struct record), 1, MPI_INFO_NULL, node, &own,
                                    &watch.window));
    memset(own, 0, sizeof(struct record));
    watch.own = own;
    watch.own->rank = rank;
    watch.own->process = (int)getpid();
    watch.record = tri_alloc(TRI_MEMORY_OTHER, (size_t)watch.node_size * sizeof(*watch.record));
    watch.place = tri_alloc(TRI_MEMORY_OTHER, (size_t)watch.size * sizeof(*watch.place));
    int first = node_rank == 0;
    TRI_MPI(MPI_Exscan(&first, &watch.node_index, 1, MPI_INT, MPI_SUM, world));
    watch.node_index = rank == 0 ? 0 : watch.node_index;
    TRI_MPI(MPI_Bcast(&watch.node_index, 1, MPI_INT, 0, node));
    for (int r = 0; r < watch.size; r++) {
        watch.place[r] = -1;
    }
    for (int i = 0; i < watch.node_size; i++) {
        MPI_Aint bytes = 0;
        int unit = 0;
        void *base = NULL;
        TRI_MPI(MPI_Win_shared_query(watch.window, i, &bytes, &unit, &base));
        watch.record[i] = base;
    }
    TRI_MPI(MPI_Barrier(node));
    for (int i = 0; i < watch.node_size; i++) {
        watch.place[watch.record[i]->rank] = i;
    }
}

int tri_watch_mesh_open(const int size[TRI_AXIS_COUNT])
{
    int place = 0;
    while (place < MESHES && meshes[place].used) {
        place++;
    }
    if (place == MESHES) {
        tri_panic(TRI_FAILED, "more than %d meshes at a time", MESHES);
    }
    meshes[place].used = true;
    memcpy(meshes[place].size, size, sizeof(meshes[place].size));
    for (int id = 0; id < TRI_GROUP_COUNT; id++) {
        atomic_store(&watch.own->arrived[place * TRI_GROUP_COUNT + id], 0);
    }
    return place * TRI_GROUP_COUNT;
}

void tri_watch_mesh_close(int channel)
{
    meshes[channel / TRI_GROUP_COUNT].used = false;
}

void tri_watch_enter(const struct tri_call *call)
{
    struct record *own = watch.own;
    const struct tri_group *group = call->group;
    atomic_store_explicit(&own->arrived[group->channel], group->sequence, memory_order_relaxed);
    atomic_store_explicit(&own->sequence, call->sequence, memory_order_relaxed);
    atomic_store_explicit(&own->channel, group->channel, memory_order_relaxed);
    atomic_store_explicit(&own->verb, (int)call->verb, memory_order_relaxed);
    atomic_store_explicit(&own->phase, (int)call->where.phase, memory_order_relaxed);
    atomic_store_explicit(&own->kind, (int)call->where.kind, memory_order_relaxed);
    atomic_store_explicit(&own->since, now(), memory_order_release);
}

void tri_watch_leave(void)
{
    atomic_store_explicit(&watch.own->since, 0, memory_order_release);
}

/* ---- the report ------------------------------------------------------------------------------ */

/* A list of ranks as it is printed: "2, 3". */
struct list {
    char text[256];
    int count;
};

static void list_add(struct list *list, int rank, const char *remark)
{
    size_t used = strlen(list->text);
    if (list->count < NAMED) {
        (void)snprintf(list->text + used, sizeof(list->text) - used, "%s%d%s",
                       list->count ? ", " : "", rank, remark);
    } else if (list->count == NAMED) {
        (void)snprintf(list->text + used, sizeof(list->text) - used, ", …");
    }
    list->count++;
}

static bool waits(const struct record *record)
{
    return atomic_load(&record->since) != 0;
}

/* What keeps a process from going on, as far as the system tells; "" when it runs. */
static const char *halted(int process)
{
    char path[64];
    (void)snprintf(path, sizeof(path), "/proc/%d/stat", process);
    FILE *file = fopen(path, "r");
    if (!file) {
        return errno == ENOENT ? " (gone)" : "";
    }
    char state = 'R';
    int found = fscanf(file, "%*d (%*[^)]) %c", &state);
    (void)fclose(file);
    if (found != 1) {
        return "";
    }
    return state == 'T' || state == 't' ? " (stopped)" : state == 'Z' ? " (gone)" : "";
}

/* The ranks that a waiting rank waits for. */
struct absence {
    struct list late;   /* have not reached the call */
    struct list halted; /* have reached it, and are stopped or gone */
    struct list busy;   /* have reached it, and wait nowhere */
    struct list unseen; /* on other nodes */
    bool root;          /* one of them waits nowhere itself */
};

static void find_absence(const struct record *waiting, struct absence *absence)
{
    int channel = atomic_load(&waiting->channel);
    const int *size = meshes[channel / TRI_GROUP_COUNT].size;
    enum tri_group_id id = (enum tri_group_id)(channel % TRI_GROUP_COUNT);
    uint64_t sequence = atomic_load(&waiting->sequence);
    memset(absence, 0, sizeof(*absence));
    for (int i = 0; i < tri_mesh_group_size(size, id); i++) {
        int rank = tri_mesh_member(size, id, waiting->rank, i);
        if (rank == waiting->rank) {
            continue;
        }
        if (watch.place[rank] < 0) {
            list_add(&absence->unseen, rank, "");
            continue;
        }
        const struct record *other = watch.record[watch.place[rank]];
        const char *state = halted(other->process);
        if (atomic_load(&other->arrived[channel]) < sequence) {
            list_add(&absence->late, rank, "");
            absence->root = absence->root || !waits(other) || *state;
        } else if (*state) {
            list_add(&absence->halted, rank, state);
            absence->root = true;
        } else if (!waits(other)) {
            list_add(&absence->busy, rank, "");
            absence->root = true;
        }
    }
}

static void print_report(const struct record *waiting, const struct absence *absence)
{
    char reason[640];
    const char *s = "s";
    if (absence->late.count) {
        (void)snprintf(reason, sizeof(reason), " for rank%s %s", absence->late.count > 1 ? s : "",
                       absence->late.text);
    } else if (absence->halted.count) {
        (void)snprintf(reason, sizeof(reason), "; all have arrived, rank%s %s",
                       absence->halted.count > 1 ? s : "", absence->halted.text);
    } else if (absence->busy.count) {
        (void)snprintf(reason, sizeof(reason),
                       "; all have begun it, rank%s %s do%s not wait for its end",
                       absence->busy.count > 1 ? s : "", absence->busy.text,
                       absence->busy.count > 1 ? "" : "es");
    } else {
        (void)snprintf(reason, sizeof(reason), "; all its ranks on this node have arrived");
    }
    char unseen[320] = "";
    if (absence->unseen.count) {
        (void)snprintf(unseen, sizeof(unseen), " (rank%s %s not visible from this node)",
                       absence->unseen.count > 1 ? s : "", absence->unseen.text);
    }
    char place[96] = "";
    int verb = atomic_load(&waiting->verb);
    if (verb != TRI_VERB_BARRIER && verb != TRI_VERB_AGREE) {
        (void)snprintf(place, sizeof(place), " (%s, %s)",
                       tri_phase_name((enum tri_phase)atomic_load(&waiting->phase)),
                       tri_kind_name((enum tri_kind)atomic_load(&waiting->kind)));
    }
    int channel = atomic_load(&waiting->channel);
    double seconds = (double)(now() - atomic_load(&waiting->since)) * 1e-9;
    char line[2048];
    (void)snprintf(line, sizeof(line),
                   "trident: error: rank %d: %s over group %s%s has waited %.1f s%s%s\n",
                   waiting->rank, tri_verb_name((enum tri_verb)verb),
                   tri_group_id_name((enum tri_group_id)(channel % TRI_GROUP_COUNT)), place,
                   seconds, reason, unseen);
    tri_error_write(line, PATIENCE);
}

bool tri_watch_claim(void)
{
    if (!watch.own) {
        return true;
    }
    int unclaimed = 0;
    bool first = atomic_compare_exchange_strong(&watch.record[0]->claimed, &unclaimed, 1);
    if (!first || watch.node_index > 0) {
        struct timespec pause = {.tv_sec = first ? NODE_SECONDS : RANK_SECONDS};
        (void)nanosleep(&pause, NULL);
    }
    return first;
}

/* Prints for the node, unless another of its ranks does, and ends the job. */
static void report(void)
{
    if (!tri_watch_claim()) {
        return;
    }
    struct absence absence;
    const struct record *subject = NULL;
    for (int i = 0; i < watch.node_size && !subject; i++) {
        const struct record *record = watch.record[i];
        int64_t since = atomic_load(&record->since);
        if (since && now() - since > watch.timeout / 2) {
            find_absence(record, &absence);
            subject = absence.root ? record : NULL;
        }
    }
    if (!subject) {
        subject = watch.own;
        find_absence(subject, &absence);
    }
    print_report(subject, &absence);
    tri_process_abort(TRI_FAILED);
}

/* ---- the thread ------------------------------------------------------------------------------ */

/* How long this rank has waited in one call, as the thread saw it. */
struct patience {
    int64_t since, looked, waited;
};

/* Adds the time since the last look, of which at most limit counts: a job that was suspended as a
 * whole and goes on has not waited in the meantime. */
static void look(struct patience *patience, int64_t limit)
{
    int64_t since = atomic_load_explicit(&watch.own->since, memory_order_acquire);
    int64_t time = now();
    int64_t passed = time - patience->looked;
    if (since != patience->since) {
        patience->waited = 0;
        passed = time - since;
    }
    patience->waited = since ? patience->waited + (passed < limit ? passed : limit) : 0;
    patience->since = since;
    patience->looked = time;
}

static void *run(void *unused)
{
    (void)unused;
    struct patience patience = {0};
    (void)pthread_mutex_lock(&lock);
    while (!watch.stop) {
        int64_t tick = watch.timeout / 10;
        tick = tick > SECOND ? SECOND : tick;
        int64_t until = now() + tick;
        struct timespec time = {.tv_sec = (time_t)(until / SECOND), .tv_nsec = until % SECOND};
        (void)pthread_cond_timedwait(&wake, &lock, &time);
        look(&patience, 2 * tick);
        if (!watch.stop && patience.waited > watch.timeout) {
            report();
        }
    }
    (void)pthread_mutex_unlock(&lock);
    return unused;
}

static void stop_thread(void)
{
    if (!watch.threaded) {
        return;
    }
    (void)pthread_mutex_lock(&lock);
    watch.stop = true;
    (void)pthread_cond_signal(&wake);
    (void)pthread_mutex_unlock(&lock);
    (void)pthread_join(watch.thread, NULL);
    (void)pthread_cond_destroy(&wake);
    watch.threaded = false;
}

void tri_comm_set_timeout(double seconds)
{
    stop_thread();
    if (!(seconds > 0) || !watch.own) {
        return;
    }
    watch.stop = false;
    watch.timeout = (int64_t)(seconds * 1e9);
    pthread_condattr_t attributes;
    (void)pthread_condattr_init(&attributes);
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&wake, &attributes);
    (void)pthread_condattr_destroy(&attributes);
    int code = pthread_create(&watch.thread, NULL, run, NULL);
    if (code != 0) {
        tri_panic(TRI_FAILED, "cannot start the watchdog: %s", strerror(code));
    }
    watch.threaded = true;
}

void tri_watch_close(void)
{
    if (!watch.own) {
        return;
    }
    stop_thread();
    tri_free(watch.record);
    tri_free(watch.place);
    watch.own = NULL;
    TRI_MPI(MPI_Win_free(&watch.window));
}
