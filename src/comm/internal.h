/* What the files of comm/ share: groups, one call's description, point-to-point exchange, the local
 * sum, the watchdog and the debug check. Only comm/ and its tests include it. */
#ifndef TRIDENT_COMM_INTERNAL_H
#define TRIDENT_COMM_INTERNAL_H

#include "comm/comm.h"

#include <mpi.h>
#include <stdbool.h>
#include <stddef.h>

/* Every MPI call goes through this: our communicators return errors, and an error here is inside a
 * step, so it ends the job with file, line and MPI's own text. */
#define TRI_MPI(call)                                                                              \
    do {                                                                                           \
        int tri_mpi_code_ = (call);                                                                \
        if (tri_mpi_code_ != MPI_SUCCESS) {                                                        \
            tri_mpi_fail(tri_mpi_code_, __FILE__, __LINE__, #call);                                \
        }                                                                                          \
    } while (0)
_Noreturn void tri_mpi_fail(int code, const char *file, int line, const char *call);

/* ---- the job --------------------------------------------------------------------------------- */

struct tri_watch;

enum { TRI_LIBRARY_BYTES = 128 };

struct tri_comm {
    MPI_Comm world, node; /* our duplicate of MPI_COMM_WORLD; its ranks on this node */
    bool running;         /* MPI is */
    int rank, size;
    int node_rank, node_size;
    char library[TRI_LIBRARY_BYTES];
    struct tri_watch *watch;
    struct tri_ledger ledger;
};

/* MPI_Init, told what it would take long to find out. */
void tri_launcher_init(int *argc, char ***argv);
/* Ends every rank with this exit status, from any thread, even when MPI_Abort does not return. */
_Noreturn void tri_comm_abort(const struct tri_comm *comm, int exit_status);

/* ---- groups ---------------------------------------------------------------------------------- */

/* MPI requests in flight. */
struct tri_flight {
    MPI_Request *item; /* room for what tri_exchange_requests says */
    int count;
};

/* A buffer that grows to what the largest call needs. */
struct tri_room {
    void *block;
    size_t capacity;
};

/* What the calls of a mesh take and keep: the buffers of the blocking calls, of which there is one
 * at a time, and the free requests of the others. */
struct tri_pool {
    struct tri_room slots, requests[2];
    struct tri_flight flight[2];
    struct tri_request *free;
    struct tri_request *begun; /* under way, oldest first */
};

struct tri_group {
    enum tri_group_id id;
    int size, rank;
    MPI_Comm comm;     /* MPI_COMM_NULL: a group of one, or of a planned mesh */
    int channel;       /* its row in the watchdog's records */
    uint64_t sequence; /* calls so far */
    const struct tri_mesh *mesh;
    struct tri_pool *pool; /* the mesh's */
    /* Work space of a call while it is posted or summed; no call in flight refers to it. Each
     * [size]. */
    int64_t *parts, *part_at; /* the parts of an all-reduce; where parts begin */
    int64_t *send_n, *send_at, *recv_n, *recv_at;
    int *mpi_counts, *mpi_places;
    const void **source;
    void *work; /* the block that holds them */
};

/* Ranks of a group of kind id in a mesh of these sizes. */
int tri_mesh_group_size(const int size[TRI_AXIS_COUNT], enum tri_group_id id);
/* World rank of member `index` of the group of kind id that world rank `rank` is in. */
int tri_mesh_member(const int size[TRI_AXIS_COUNT], enum tri_group_id id, int rank, int index);

/* ---- one call -------------------------------------------------------------------------------- */

enum tri_verb {
    TRI_VERB_ALL_REDUCE,
    TRI_VERB_ALL_REDUCE_MAX,
    TRI_VERB_ALL_GATHER,
    TRI_VERB_REDUCE_SCATTER,
    TRI_VERB_ALL_TO_ALL,
    TRI_VERB_COUNTS,
    TRI_VERB_BROADCAST,
    TRI_VERB_BARRIER,
    TRI_VERB_AGREE,
    /* From here on no call of a group, but a stage that all ranks go through. */
    TRI_VERB_START,
    TRI_VERB_MESH,
    TRI_VERB_FINISH,
    TRI_VERB_COUNT
};

const char *tri_verb_name(enum tri_verb verb);

/* What a rank says when it enters a collective. The members from verb to parts are what the ranks
 * of a group must agree on. */
struct tri_call {
    struct tri_group *group;
    enum tri_verb verb;
    struct tri_where where;
    enum tri_dtype dtype;
    int64_t n;            /* elements; elements of a row for all_to_all */
    const int64_t *parts; /* [group size], or NULL; read only while the call is entered */
    int root;
    bool begun;
    int64_t bytes; /* for the ledger */
    uint64_t sequence;
    /* Times: when it began; when its messages were seen to have arrived while nobody waited, or 0;
     * when begin or end was entered last. Seconds spent in begin. */
    double began, arrived, entered, exposed;
};

/* The description of a call whose parts or rows these are. */
struct tri_call tri_call_of_parts(struct tri_group *group, enum tri_verb verb,
                                  struct tri_where where, const int64_t *counts,
                                  enum tri_dtype dtype);
struct tri_call tri_call_of_rows(struct tri_group *group, struct tri_where where,
                                 const int64_t *send_rows, int64_t width, enum tri_dtype dtype);

/* Opens a call of a group of more than one rank: watchdog, debug check, clock. */
void tri_call_enter(struct tri_call *call);
/* Begin returns to its caller; end takes the call up again. */
void tri_call_pause(struct tri_call *call);
void tri_call_resume(struct tri_call *call);
/* Closes the call and books it: what has passed since enter or resume was exposed. */
void tri_call_leave(struct tri_call *call);

/* "all_reduce of 8 F32 over group world (forward, mlp)". */
void tri_call_describe(const struct tri_call *call, char *text, size_t size);

/* Debug builds compare the call over the group, and panic where the ranks differ; release builds do
 * nothing. */
void tri_check_call(const struct tri_call *call);
/* The same for the pairwise row counts of an all-to-all. */
void tri_check_rows(const struct tri_group *group, const int64_t *send_rows,
                    const int64_t *recv_rows);

/* ---- data ------------------------------------------------------------------------------------ */

MPI_Datatype tri_mpi_type(enum tri_dtype dtype);

enum tri_reduction { TRI_REDUCE_SUM, TRI_REDUCE_MAX };

/* dst[n] <- source[0] (+) source[1] (+) … in the tree of reduce.c, for 1 or more sources; bf16 in
 * f32, rounded once. A NaN in any source gives NaN. dst may be one of the sources. */
void tri_reduce(void *dst, const void *const *source, int sources, int64_t n, enum tri_dtype dtype,
                enum tri_reduction reduction);

/* One direction of an exchange: counts[r] elements at data + at[r] elements. */
struct tri_side {
    const int64_t *counts, *at;
};

/* MPI requests that an exchange makes. */
int64_t tri_exchange_requests(const struct tri_group *group, const int64_t *send_counts,
                              const int64_t *recv_counts, int64_t max);
/* Posts, to and from every other rank, the messages of send and recv, cut at max elements; nothing
 * to or from this rank itself, nor in a planned mesh. flight must be empty. The data belongs to MPI
 * until tri_flight_wait; the arrays of the sides do not. */
void tri_exchange_post(const struct tri_group *group, enum tri_dtype dtype, int64_t max,
                       const void *send, struct tri_side send_side, void *recv,
                       struct tri_side recv_side, struct tri_flight *flight);
/* Whether all of them have arrived; forgets those of the end that have. */
bool tri_flight_test(struct tri_flight *flight);
void tri_flight_wait(struct tri_flight *flight);

/* at[r] <- sum of counts[0..r-1]; returns the sum of all. */
int64_t tri_places(int64_t *at, const int64_t *counts, int size);
/* counts[r] <- the size of part r of n (tri_range_part). */
void tri_even_parts(int64_t *counts, int64_t n, int size);
/* What the other ranks sent lies in a row of equal slots, in rank order, without this rank's own.
 * Elements from the row's begin to slot r. */
int64_t tri_slot(const struct tri_group *group, int r, int64_t slot);

/* The blocking data paths; unbooked. */
void tri_all_reduce_run(const struct tri_group *group, void *data, int64_t n, enum tri_dtype dtype,
                        enum tri_reduction reduction);
void tri_reduce_scatter_run(const struct tri_group *group, void *data, const int64_t *counts,
                            enum tri_dtype dtype, enum tri_reduction reduction);
void tri_all_gather_run(const struct tri_group *group, void *data, const int64_t *counts,
                        enum tri_dtype dtype);
/* The rows of an all-to-all. */
struct tri_row_exchange {
    const void *send;
    const int64_t *send_rows;
    void *recv;
    const int64_t *recv_rows;
    int64_t width;
    enum tri_dtype dtype;
};
void tri_all_to_all_run(const struct tri_group *group, const struct tri_row_exchange *rows);
/* Writes the rows to the group's send and recv work arrays, in elements. */
void tri_all_to_all_sides(const struct tri_group *group, const struct tri_row_exchange *rows);
void tri_all_to_all_copy_own(const struct tri_group *group, const struct tri_row_exchange *rows);
/* own[n] <- the sum, in the tree of reduce.c, of own and of the slots; as it is in a planned
 * mesh. */
void tri_slots_sum(const struct tri_group *group, void *own, const void *slots, int64_t slot,
                   int64_t n, enum tri_dtype dtype, enum tri_reduction reduction);

/* Whether an all-reduce of n elements sends everything to everyone and sums all of it on each rank,
 * rather than one part on each rank: fewer messages, more bytes. The bits are the same. */
bool tri_all_reduce_is_small(const struct tri_group *group, int64_t n);

/* Frees what blocking calls and requests have grown. */
void tri_algorithm_release(struct tri_pool *pool);
void tri_request_release(struct tri_pool *pool);

/* ---- the watchdog ---------------------------------------------------------------------------- */

/* The job's watchdog, with its thread running; before MPI. comm is borrowed. */
struct tri_watch *tri_watch_start(struct tri_comm *comm);
/* Shares one record a rank with the ranks of this node. Collective over all ranks. */
void tri_watch_open(struct tri_watch *watch);
/* Ends the job, with one line, where the environment of some rank holds no number of seconds.
 * Collective over all ranks. */
void tri_watch_check_environment(const struct tri_comm *comm);
/* Gives back what MPI must have before it ends. Collective over all ranks. */
void tri_watch_release(struct tri_watch *watch);
/* Waits until all ranks of the node are here, ends the thread and frees the rest; after MPI. */
void tri_watch_close(struct tri_watch *watch);
/* A place for a mesh's six groups in the records; the same on every rank, since meshes are created
 * and destroyed collectively. Local; the caller synchronises the ranks before the first call. */
int tri_watch_mesh_open(struct tri_watch *watch, const int size[TRI_AXIS_COUNT]);
void tri_watch_mesh_close(struct tri_watch *watch, int channel);
/* Whether this rank is the one of its node that tells why the job ends; if not, or when another
 * node may tell it, gives that one time to end the job. From any thread. */
bool tri_watch_claim(struct tri_watch *watch);
/* This rank has reached the call, and waits in it from now on. */
void tri_watch_enter(const struct tri_call *call);
void tri_watch_leave(struct tri_watch *watch);
/* The same for what all ranks go through together and is no call of a group. */
void tri_watch_enter_stage(struct tri_watch *watch, enum tri_verb stage);
void tri_watch_leave_stage(struct tri_watch *watch);

#endif
