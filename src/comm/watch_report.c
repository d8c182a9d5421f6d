/* What the watchdog says when it ends a job. */
#include "comm/watch.h"

#include "base/clock.h"
#include "base/signals.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
    NAMED = 16,
    NODE_SECONDS = 3, /* for another node to end the job */
    RANK_SECONDS = 2, /* for another rank of this one */
    PATIENCE = 1000   /* milliseconds for a reader of standard error */
};

/* A list of ranks as it is printed: "2, 3". */
struct list {
    char text[512];
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

static bool waits(const struct tri_watch_record *record)
{
    return atomic_load(&record->since) != 0;
}

const char *tri_watch_halted(int process)
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

/* " (for 20.1 s in a call on FILE)", or "". */
static void describe_file(const struct tri_watch_record *record, char *text, size_t size)
{
    int64_t since = atomic_load(&record->work.file_since);
    text[0] = '\0';
    if (since) {
        (void)snprintf(text, size, " (for %.1f s in a call on %.*s)",
                       (double)(tri_clock_nanoseconds() - since) * 1e-9, TRI_WORK_FILE,
                       record->work.file);
    }
}

/* The ranks that a waiting rank waits for. */
struct absence {
    struct list late;   /* have not reached the call */
    struct list halted; /* have reached it, and are stopped or gone */
    struct list busy;   /* have reached it, and wait nowhere */
    struct list unseen; /* on other nodes */
    bool root;          /* one of them waits nowhere itself */
};

static void find_absence(const struct tri_watch *watch, const struct tri_watch_record *waiting,
                         struct absence *absence)
{
    int channel = atomic_load(&waiting->channel);
    const int *size = tri_watch_mesh_size(watch, channel);
    int id = (channel % TRI_GROUP_COUNT);
    uint64_t sequence = atomic_load(&waiting->sequence);
    bool pair = tri_verb_is_pair((enum tri_verb)atomic_load(&waiting->verb));
    int peer = atomic_load(&waiting->peer);
    memset(absence, 0, sizeof(*absence));
    for (int i = 0; i < tri_mesh_group_size(size, id); i++) {
        int rank = tri_mesh_member(size, id, waiting->rank, i);
        if (rank == waiting->rank || (pair && rank != peer)) {
            continue;
        }
        if (watch->place[rank] < 0) {
            list_add(&absence->unseen, rank, "");
            continue;
        }
        const struct tri_watch_record *other = watch->record[watch->place[rank]];
        if (atomic_load(&other->ended)) {
            continue;
        }
        const char *state = tri_watch_halted(other->process);
        char file[TRI_WORK_FILE + 64];
        describe_file(other, file, sizeof(file));
        if (pair || atomic_load(&other->arrived[channel]) < sequence) {
            list_add(&absence->late, rank, file);
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

static void print_report(const struct tri_watch_record *waiting, const struct absence *absence)
{
    enum tri_verb verb = (enum tri_verb)atomic_load(&waiting->verb);
    bool pair = tri_verb_is_pair(verb);
    char reason[1280] = "";
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
    } else if (!pair) {
        (void)snprintf(reason, sizeof(reason), "; all its ranks on this node have arrived");
    }
    char unseen[640] = "";
    if (absence->unseen.count) {
        (void)snprintf(unseen, sizeof(unseen), " (rank%s %s not visible from this node)",
                       absence->unseen.count > 1 ? s : "", absence->unseen.text);
    }
    char place[96] = "";
    if (verb != TRI_VERB_BARRIER && verb < TRI_VERB_AGREE) {
        (void)snprintf(place, sizeof(place), " (%s, %s)",
                       tri_phase_name((enum tri_phase)atomic_load(&waiting->phase)),
                       tri_kind_name((enum tri_kind)atomic_load(&waiting->kind)));
    }
    char what[96] = "";
    if (pair) {
        (void)snprintf(what, sizeof(what), " of %lld %s %s rank %d",
                       (long long)atomic_load(&waiting->n),
                       tri_dtype_name((enum tri_dtype)atomic_load(&waiting->dtype)),
                       verb == TRI_VERB_SEND ? "to" : "from", atomic_load(&waiting->peer));
    }
    int channel = atomic_load(&waiting->channel);
    double seconds = (double)(tri_clock_nanoseconds() - atomic_load(&waiting->since)) * 1e-9;
    char line[2560];
    (void)snprintf(line, sizeof(line),
                   "trident: error: rank %d: %s%s over group %s%s has waited %.1f s%s%s\n",
                   waiting->rank, tri_verb_name(verb), what,
                   tri_groups[channel % TRI_GROUP_COUNT].name, place, seconds, reason, unseen);
    tri_error_write(line, PATIENCE);
}

static void pause_seconds(int seconds)
{
    struct timespec pause = {.tv_sec = seconds};
    (void)nanosleep(&pause, NULL);
}

bool tri_watch_claim_record(struct tri_watch_record *first)
{
    int unclaimed = 0;
    bool claimed = atomic_compare_exchange_strong(&first->claimed, &unclaimed, 1);
    if (!claimed) {
        pause_seconds(RANK_SECONDS);
    }
    return claimed;
}

bool tri_watch_claim(struct tri_watch *watch)
{
    bool claimed = !watch->own || tri_watch_claim_record(watch->record[0]);
    if (claimed && watch->own && watch->node_index > 0) {
        pause_seconds(NODE_SECONDS);
    }
    return claimed;
}

/* The lowest rank of the node that waits for one which itself waits nowhere; NULL when there is
 * none to be seen. */
static const struct tri_watch_record *find_subject(const struct tri_watch *watch,
                                                   struct absence *absence)
{
    const struct tri_watch_record *subject = NULL;
    for (int i = 0; i < watch->comm->node_size && !subject; i++) {
        const struct tri_watch_record *record = watch->record[i];
        int64_t since = atomic_load(&record->since);
        if (since && tri_clock_nanoseconds() - since > atomic_load(&watch->timeout) / 2) {
            find_absence(watch, record, absence);
            subject = absence->root ? record : NULL;
        }
    }
    return subject;
}

bool tri_watch_sees_cause(const struct tri_watch *watch)
{
    struct absence absence;
    return find_subject(watch, &absence) != NULL;
}

/* Whether this number means a process of our program here: a container may count its own. */
static bool is_ours(int process)
{
    char path[64];
    struct stat ours;
    struct stat its;
    (void)snprintf(path, sizeof(path), "/proc/%d/exe", process);
    return stat("/proc/self/exe", &ours) == 0 && stat(path, &its) == 0 &&
           ours.st_dev == its.st_dev && ours.st_ino == its.st_ino;
}

static void signal_stopped(const struct tri_watch *watch, int number)
{
    for (int i = 0; i < watch->comm->node_size; i++) {
        int process = watch->record[i]->process;
        if (strcmp(tri_watch_halted(process), " (stopped)") == 0 && is_ours(process)) {
            (void)kill((pid_t)process, number);
        }
    }
}

static bool all_ended(const struct tri_watch *watch)
{
    for (int i = 0; i < watch->comm->node_size; i++) {
        if (!atomic_load(&watch->record[i]->ended)) {
            return false;
        }
    }
    return true;
}

/* In MPI_Finalize there is no MPI_Abort, and ranks that die there can leave Open MPI's mpirun
 * waiting for ever in its own end (a lock of its PMIx server); after it MPICH's mpiexec waits for a
 * stopped rank. So a stopped rank goes on, to finish with the others, and is killed if it does
 * not. */
static void end_stopped(const struct tri_watch *watch)
{
    signal_stopped(watch, SIGCONT);
    struct timespec pause = {.tv_nsec = 5000000};
    int64_t until = tri_clock_nanoseconds() + (int64_t)RANK_SECONDS * TRI_WATCH_SECOND / 2;
    while (!all_ended(watch) && tri_clock_nanoseconds() < until) {
        (void)nanosleep(&pause, NULL);
    }
    signal_stopped(watch, SIGKILL);
}

void tri_watch_report(struct tri_watch *watch)
{
    if (!tri_watch_claim(watch)) {
        tri_comm_abort(watch->comm, TRI_FAILED);
    }
    struct absence absence;
    const struct tri_watch_record *subject = find_subject(watch, &absence);
    if (!subject) {
        subject = watch->own;
        find_absence(watch, subject, &absence);
    }
    print_report(subject, &absence);
    if (atomic_load(&watch->own->verb) == TRI_VERB_FINISH) {
        end_stopped(watch);
    }
    tri_comm_abort(watch->comm, TRI_FAILED);
}

/* Whether no other child of the launcher on this node has said something yet: an address that only
 * one can take, and which goes with it. */
static bool is_first_to_say(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int length = snprintf(address.sun_path + 1, sizeof(address.sun_path) - 1, "trident watchdog %d",
                          (int)getppid());
    int end = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
    return end < 0 || bind(end, (const struct sockaddr *)(const void *)&address, size) == 0 ||
           errno != EADDRINUSE;
}

void tri_watch_report_stage(const struct tri_watch *watch, double seconds)
{
    tri_signals_exit_after(NODE_SECONDS + 2, TRI_FAILED);
    if (is_first_to_say()) {
        char line[256];
        (void)snprintf(line, sizeof(line),
                       "trident: error: %s has lasted %.1f s: a rank is stopped or has not come\n",
                       watch->stage, seconds);
        tri_error_write(line, PATIENCE);
        pause_seconds(1); /* in which the others find the address taken */
    } else {
        pause_seconds(NODE_SECONDS);
    }
    tri_comm_abort(watch->comm, TRI_FAILED);
}
