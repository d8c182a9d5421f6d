/* Communication. A group is the set of ranks that differ only on a chosen set of axes of the mesh;
 * every collective goes through a group, is counted in the ledger, is watched by the watchdog and,
 * in debug builds, is checked to be the same call on every rank of the group.
 *
 * Errors inside a collective are of the class "inside a step": they panic (status.h). */
#ifndef TRIDENT_COMM_COMM_H
#define TRIDENT_COMM_COMM_H

#include "base/status.h"
#include "comm/axes.h"
#include "comm/ledger.h"
#include "tensor/dtype.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- the job --------------------------------------------------------------------------------- */

/* The ranks that work together, and this one's place among them: what carries their messages, the
 * watchdog, the ledger. Two jobs of one process share nothing but MPI itself. */
struct tri_comm;

/* Starts MPI (with OMPI_MCA_pml=ob1 when all ranks share a node and the user set nothing),
 * installs the panic hook; before that takes the signals (base/signals.h) unless the caller did.
 * First thing in main; MPI starts once in a process. */
struct tri_comm *tri_comm_start(int *argc, char ***argv);
/* A job in a program of somebody else's, whose ranks are those of its MPI communicator; given by
 * the address of the MPI_Comm, which only comm/ knows, and duplicated. No time limit; it ends
 * neither MPI nor the program, and a panic tells no other rank: the caller has a catcher
 * (base/status.h). The thread that calls it is the rank, and makes all calls of MPI. Collective. */
struct tri_comm *tri_comm_join(const void *communicator);
/* Whether that may be: MPI runs, and lets a thread other than its own call it. Local. */
enum tri_status tri_comm_may_join(const void *communicator, struct tri_error *error) TRI_NODISCARD;
/* Ends MPI if it was started here, and frees the job, whose meshes are gone. Collective over all
 * ranks. */
void tri_comm_finish(struct tri_comm *comm);
/* What a rank does: its job and what all were given. Returns an exit status. */
typedef int tri_rank_body(struct tri_comm *comm, void *state);
/* Runs body as so many ranks that are threads of this process, each bound to a runtime of its own
 * that is made from the caller's (base/runtime.h), and returns when all have returned, with the
 * largest status. Takes the signals unless the caller did; MPI is not asked for anything. A job
 * ends with its body. */
int tri_comm_run_threads(int ranks, tri_rank_body *body, void *state);
/* World rank and size. */
int tri_comm_rank(const struct tri_comm *comm);
int tri_comm_size(const struct tri_comm *comm);
/* What the environment of this process says of ranks that wait: BAD_INPUT where it holds no number
 * of seconds. Before there are ranks: until somebody has said so, they have the default. Local. */
enum tri_status tri_comm_check_environment(struct tri_error *error) TRI_NODISCARD;
/* When this MPI knows of one rank and a launcher says that it started more: the variable that says
 * so, with their number and this one's place among them; they are strangers to each other. Else
 * NULL. Local. */
const char *tri_comm_strangers(const struct tri_comm *comm, int *count, int *place);
/* The variables by which launchers say that they started this process, as one of many or as the
 * only one: "PMI_SIZE, SLURM_STEP_NUM_TASKS" into names; false: none did. Local. */
bool tri_comm_launchers(char *names, size_t size);
/* Ranks on this node, and this rank's place among them. */
int tri_comm_local_size(const struct tri_comm *comm);
int tri_comm_local_rank(const struct tri_comm *comm);
/* Ranks that are threads of one process do one after the other what lies between: each finds the
 * process as it is without the others. Local; between them is no call of a group. */
void tri_comm_begin_turn(struct tri_comm *comm);
void tri_comm_end_turn(struct tri_comm *comm);
/* "Open MPI 4.1.4", "MPICH 4.0.2". Borrowed. */
const char *tri_comm_library(const struct tri_comm *comm);
/* Filled by every collective of the job's meshes. Borrowed. */
struct tri_ledger *tri_comm_ledger(struct tri_comm *comm);

/* What carries the messages of the job's meshes (transport.h), and another one for those that are
 * created from now on: the same on every rank. Borrowed. */
struct tri_transport;
struct tri_transport *tri_comm_transport(const struct tri_comm *comm);
void tri_comm_set_transport(struct tri_comm *comm, struct tri_transport *transport);

/* Ends the job when a collective takes longer than seconds (0: never), after
 * naming the collective, the group and the ranks that have not arrived. */
void tri_comm_set_timeout(struct tri_comm *comm, double seconds);

/* ---- mesh and groups ------------------------------------------------------------------------- */

struct tri_group;

enum tri_reduction { TRI_REDUCE_SUM, TRI_REDUCE_MAX };

/* dst[n] <- source[0] (+) source[1] (+) … in the tree of reduce.c, for 1 or more sources; bf16 in
 * f32, rounded once. A NaN in any source gives NaN. dst may be one of the sources. */
typedef void tri_reduce_function(void *dst, const void *const *source, int sources, int64_t n,
                                 enum tri_dtype dtype, enum tri_reduction reduction);
tri_reduce_function tri_reduce;

struct tri_mesh {
    int size[TRI_AXIS_COUNT];    /* ranks along each axis */
    int coord[TRI_AXIS_COUNT];   /* this rank's place on each */
    int ranks, rank;             /* of the whole mesh: in the order of the axes */
    int *host;                   /* [ranks] which share one: alike for those, by the lowest rank */
    struct tri_comm *comm;       /* borrowed; NULL: it has no other ranks, or only plans them */
    struct tri_ledger *ledger;   /* where its calls are booked: the job's; without a job NULL,
                                  nowhere, until its owner sets one */
    int64_t max_message;         /* longest single message, in elements (at first 2^30); longer ones
                                  are split; the same on all ranks */
    tri_reduce_function *reduce; /* what adds up; tri_reduce until its owner sets another */
    struct tri_group *group[TRI_AXIS_SETS]; /* by set of axes: see tri_mesh_group */
};

/* Collective over the job's ranks, whose number must be tensor x cross x depth x expert x
 * data, with no
 * more than 254 such meshes beside it (checked: BAD_INPUT, the same on all ranks). */
enum tri_status tri_mesh_create(struct tri_comm *comm, int tensor, int cross, int depth, int expert,
                                struct tri_mesh **mesh, struct tri_error *error) TRI_NODISCARD;
/* A mesh of this rank alone (every group has one rank). Local. */
struct tri_mesh *tri_mesh_create_serial(void);
/* A mesh with the sizes given and the place of `rank` in it, without the other ranks: for plans and
 * for index maths about other ranks. Its collectives take the buffers and book the calls of that
 * rank in a real mesh, and leave all data, what is received too, as it is. Local. */
struct tri_mesh *tri_mesh_create_view(int tensor, int cross, int depth, int expert, int data,
                                      int rank);
void tri_mesh_destroy(struct tri_mesh *mesh);
void tri_mesh_set_max_message(struct tri_mesh *mesh, int64_t elements);
/* From here on so many consecutive ranks share a host, the last one perhaps fewer, whatever was
 * found; 0: those of `host` [ranks]; with NULL too they stay as they are, at first as found. The
 * same on all ranks. No call is under way. */
void tri_mesh_set_hosts(struct tri_mesh *mesh, int64_t ranks_per_host, const int *host);
void tri_mesh_coords(const struct tri_mesh *mesh, int rank, int coord[TRI_AXIS_COUNT]);

/* The ranks that share a layer, parallel.tensor of them, over tensor x cross x depth; this one's
 * place among them. */
static inline int tri_mesh_grid(const struct tri_mesh *mesh)
{
    return mesh->size[TRI_AXIS_TENSOR] * mesh->size[TRI_AXIS_CROSS] * mesh->size[TRI_AXIS_DEPTH];
}

static inline int tri_mesh_grid_rank(const struct tri_mesh *mesh)
{
    int at = mesh->coord[TRI_AXIS_CROSS] + mesh->size[TRI_AXIS_CROSS] * mesh->coord[TRI_AXIS_DEPTH];
    return mesh->coord[TRI_AXIS_TENSOR] + mesh->size[TRI_AXIS_TENSOR] * at;
}

/* The group of this rank over a set of axes (TRI_ON_GRID | TRI_ON_EXPERT), one that axes.c has.
 * Borrowed; groups of one are valid and send nothing. A member's place counts the axes in their
 * order. */
static inline struct tri_group *tri_mesh_group(const struct tri_mesh *mesh, int axes)
{
    TRI_ASSERT(mesh->group[axes]);
    return mesh->group[axes];
}

int tri_group_size(const struct tri_group *group);
int tri_group_rank(const struct tri_group *group); /* this rank's place in the group */
const char *tri_group_name(const struct tri_group *group);

/* ---- collectives (each Collective over group) ------------------------------------------------ */

/* Where a collective belongs in the ledger. */
struct tri_where {
    enum tri_phase phase;
    enum tri_kind kind;
};

/* data[n] <- elementwise sum over the group, in one binary tree over its ranks. f32, f64, i64:
 * summed in their own type; bf16: sent as bf16, summed in f32, rounded once. The result is the same
 * bits on every rank and from run to run; with 2^a ranks, also those of one rank that adds 2^b
 * parts in the same tree when each rank holds the sum of its 2^b / 2^a parts. In place. */
void tri_all_reduce_sum(struct tri_group *group, struct tri_where where, void *data, int64_t n,
                        enum tri_dtype dtype);
/* The same for the largest; a NaN on any rank gives NaN. Books as ALL_REDUCE. */
void tri_all_reduce_max(struct tri_group *group, struct tri_where where, void *data, int64_t n,
                        enum tri_dtype dtype);

/* Rank r of the group contributes counts[r] elements, taken from its own place in data (at
 * displacement sum of counts[0..r-1]); afterwards data is whole everywhere. In place. */
void tri_all_gather_v(struct tri_group *group, struct tri_where where, void *data,
                      const int64_t *counts, enum tri_dtype dtype);

/* data holds sum(counts) elements on every rank; rank r gets the sum over the group of part r in
 * place (at the same displacement); the other parts are left undefined. Summed as
 * tri_all_reduce_sum does. */
void tri_reduce_scatter_v(struct tri_group *group, struct tri_where where, void *data,
                          const int64_t *counts, enum tri_dtype dtype);

/* Rows of `width` elements: send_rows[r] rows go to rank r (consecutive in send, by rank); recv
 * receives recv_rows[r] from each. The counts must agree pairwise. Own rows are copied. */
void tri_all_to_all_v(struct tri_group *group, struct tri_where where, const void *send,
                      const int64_t *send_rows, void *recv, const int64_t *recv_rows, int64_t width,
                      enum tri_dtype dtype);

/* count int64 to each rank from each rank: recv[r*count + i] of rank s is send[s*count + i] of r.
 * Booked as META whatever where says. */
void tri_all_to_all_counts(struct tri_group *group, struct tri_where where, const int64_t *send,
                           int64_t *recv, int64_t count);

void tri_broadcast(struct tri_group *group, struct tri_where where, void *data, int64_t n,
                   enum tri_dtype dtype, int root);
/* Books nothing. */
void tri_barrier(struct tri_group *group);

/* Begin/end: the buffers belong to the call until end, which must be called once, and frees the
 * request; NULL is one with nothing to wait for. Several may be in flight; all ranks begin them,
 * and end them, in the same order. */
struct tri_request;
struct tri_request *tri_all_reduce_sum_begin(struct tri_group *group, struct tri_where where,
                                             void *data, int64_t n, enum tri_dtype dtype);
struct tri_request *tri_all_gather_v_begin(struct tri_group *group, struct tri_where where,
                                           void *data, const int64_t *counts, enum tri_dtype dtype);
struct tri_request *tri_reduce_scatter_v_begin(struct tri_group *group, struct tri_where where,
                                               void *data, const int64_t *counts,
                                               enum tri_dtype dtype);
struct tri_request *tri_all_to_all_v_begin(struct tri_group *group, struct tri_where where,
                                           const void *send, const int64_t *send_rows, void *recv,
                                           const int64_t *recv_rows, int64_t width,
                                           enum tri_dtype dtype);
/* The same of rows that lie elsewhere: those for rank r begin at row send_at[r] of send, those from
 * it at row recv_at[r] of recv; NULL: one rank's after the other's. */
struct tri_request *tri_all_to_all_at_begin(struct tri_group *group, struct tri_where where,
                                            const void *send, const int64_t *send_rows,
                                            const int64_t *send_at, void *recv,
                                            const int64_t *recv_rows, const int64_t *recv_at,
                                            int64_t width, enum tri_dtype dtype);
void tri_request_end(struct tri_request *request);

/* ---- between two ranks ----------------------------------------------------------------------- */

/* n elements from this member of the group to another one, which receives as many of the same type.
 * Messages from one member to another arrive in the order in which they are begun, whatever calls
 * of all ranks are under way. A send may last until its receive has begun: two ranks that send to
 * each other begin to, or one receives first. n may be 0, and then nobody waits, but in debug
 * builds. Booked as `send`, the receive with 0 bytes.
 *
 * Who receives another length than was sent panics: in debug builds always, where the sender tells
 * length and type ahead; in release builds where the transport sees it, which is one message at a
 * time (max_message): threads when the two lengths differ, MPI when what was sent does not fit.
 *
 * Collective over the two ranks, of a group that has both. */
void tri_send(struct tri_group *group, struct tri_where where, int to, const void *data, int64_t n,
              enum tri_dtype dtype);
void tri_receive(struct tri_group *group, struct tri_where where, int from, void *data, int64_t n,
                 enum tri_dtype dtype);
/* Ended by tri_request_end, in any order. */
struct tri_request *tri_send_begin(struct tri_group *group, struct tri_where where, int to,
                                   const void *data, int64_t n, enum tri_dtype dtype);
struct tri_request *tri_receive_begin(struct tri_group *group, struct tri_where where, int from,
                                      void *data, int64_t n, enum tri_dtype dtype);

/* ---- while calls are under way --------------------------------------------------------------- */

/* Lets the messages of the mesh's begun calls move on (Open MPI moves large ones only inside MPI's
 * functions), and tells the watchdog that this rank works: who computes for long calls this now and
 * then. Cheap. Local. */
void tri_mesh_progress(const struct tri_mesh *mesh);

/* Something that is to be done as soon as the messages of a begun call have arrived: by
 * tri_mesh_progress, which other ranks may come to sooner or later; so what it begins is in the
 * same place of its group's order wherever that is. At the latest by tri_mesh_do_pending. One at a
 * time of a mesh. Local. */
void tri_mesh_set_pending(const struct tri_mesh *mesh, struct tri_request *request,
                          void (*act)(void *state), void *state);
void tri_mesh_do_pending(const struct tri_mesh *mesh);

/* Counts of `ledger` added up over the ranks of group: total, whose seconds are zero.
 * Books nothing in what it adds up, if that is a copy. Collective over group. */
void tri_ledger_sum_ranks(struct tri_group *group, const struct tri_ledger *ledger,
                          struct tri_ledger *total);

/* ---- agreement ------------------------------------------------------------------------------- */

/* Every rank passes its own status and error; all return the worst status, with the error of the
 * lowest rank that has it. From bad to worse: REQUEUE, CHECK_FAILED, BAD_INPUT, FAILED. After it
 * every rank takes the same branch. Booked as an all-reduce of 4 bytes, SETUP, META. Collective
 * over group. */
enum tri_status tri_comm_agree(struct tri_group *group, enum tri_status status,
                               struct tri_error *error) TRI_NODISCARD;

/* Something that every rank must have alike, as text. */
struct tri_fact {
    const char *name, *value;
};

/* TRI_OK when all ranks have the same facts; else, on all of them, BAD_INPUT with one line that
 * names the first that differs, its values and the ranks. Every rank passes the same number, with
 * the same names. Booked as all-gathers, SETUP, META: one of 8 bytes when they are alike.
 * Collective over group. */
enum tri_status tri_comm_compare(struct tri_group *group, int count, const struct tri_fact *facts,
                                 struct tri_error *error) TRI_NODISCARD;

#endif
