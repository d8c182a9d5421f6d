/* What the files of comm/ share: groups, one call's description, point-to-point exchange, the local
 * sum, the watchdog and the debug check. Only comm/ and its tests include it. */
#ifndef TRIDENT_COMM_INTERNAL_H
#define TRIDENT_COMM_INTERNAL_H

#include "comm/comm.h"
#include "comm/listener.h"
#include "comm/transport.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

/* ---- the job --------------------------------------------------------------------------------- */

struct tri_watch;

enum { TRI_LIBRARY_BYTES = 128 };

/* What started the ranks has a struct of its own that begins with this one. */
struct tri_comm {
    struct tri_transport *transport; /* of the meshes that are created from now on; borrowed */
    int rank, size;
    int node_rank, node_size;
    int *host;             /* [size] lowest rank of each one's node; NULL: all share one */
    pthread_mutex_t *turn; /* that the ranks of this process share; NULL: it is the only one */
    char library[TRI_LIBRARY_BYTES];
    /* Ends every rank, as far as it can; may return. From any thread. */
    void (*end_all)(struct tri_comm *comm, int exit_status);
    struct tri_watch *watch;
    struct tri_ledger ledger;
};

/* Makes the calling thread's panics end the job. */
void tri_comm_take_panics(struct tri_comm *comm);
/* Ends every rank with this exit status, from any thread, whatever comes. */
_Noreturn void tri_comm_abort(struct tri_comm *comm, int exit_status);

/* The transport of a plan: nothing is sent, and nothing comes. */
void tri_transport_init_planned(struct tri_transport *transport);

/* ---- groups ---------------------------------------------------------------------------------- */

/* Messages under way. */
struct tri_flight {
    union tri_message *item; /* room for what tri_exchange_messages says */
    int count;
};

/* A buffer that grows to what the largest call needs. */
struct tri_room {
    void *block;
    size_t capacity;
};

/* What is done when a request has arrived; act NULL: nothing. */
struct tri_pending {
    struct tri_request *request;
    void (*act)(void *state);
    void *state;
};

/* What the calls of a mesh take and keep: the buffers of the blocking calls, of which there is one
 * at a time, and the free requests of the others. */
struct tri_pool {
    struct tri_room slots, requests[2];
    struct tri_flight flight[2];
    struct tri_request *free;
    struct tri_request *begun; /* under way, oldest first */
    struct tri_pending pending;
};

struct tri_group {
    int id;
    int size, rank;
    /* NULL: a group of one. What it is asked by is a copy. */
    struct tri_endpoint *end;
    const struct tri_transport_ops *ops;
    bool carries;      /* false: data that is not there is neither read nor written */
    int channel;       /* its row in the watchdog's records */
    uint64_t sequence; /* calls of all its ranks so far */
    uint32_t *sent,
        *received; /* [size] messages between two ranks begun so far, to and from each */
    const struct tri_mesh *mesh;
    struct tri_pool *pool; /* the mesh's */
    /* Work space of a call while it is posted or summed; no call in flight refers to it. Each
     * [size]. */
    int64_t *parts, *part_at; /* the parts of an all-reduce; where parts begin */
    int64_t *send_n, *send_at, *recv_n, *recv_at;
    int64_t *words; /* of what is gathered about a call */
    const void **source;
    void *work; /* the block that holds them */
};

/* Ranks of a group of kind id in a mesh of these sizes. */
int tri_mesh_group_size(const int size[TRI_AXIS_COUNT], int id);
/* World rank of member `index` of the group of kind id that world rank `rank` is in. */
int tri_mesh_member(const int size[TRI_AXIS_COUNT], int id, int rank, int index);
/* Whether member `index` shares this rank's host. */
bool tri_group_is_near(const struct tri_group *group, int index);

/* ---- one call -------------------------------------------------------------------------------- */

enum tri_verb {
    TRI_VERB_ALL_REDUCE,
    TRI_VERB_ALL_REDUCE_MAX,
    TRI_VERB_ALL_GATHER,
    TRI_VERB_REDUCE_SCATTER,
    TRI_VERB_ALL_TO_ALL,
    TRI_VERB_COUNTS,
    TRI_VERB_BROADCAST,
    TRI_VERB_SEND,
    TRI_VERB_RECEIVE,
    TRI_VERB_BARRIER,
    TRI_VERB_AGREE,
    /* From here on no call of a group, but a stage that all ranks go through. */
    TRI_VERB_START,
    TRI_VERB_MESH,
    TRI_VERB_FINISH,
    TRI_VERB_COUNT
};

const char *tri_verb_name(enum tri_verb verb);
/* Whether it is between two ranks, and not a call of all ranks of the group. */
static inline bool tri_verb_is_pair(enum tri_verb verb)
{
    return verb == TRI_VERB_SEND || verb == TRI_VERB_RECEIVE;
}

/* What a rank says when it enters a collective. The members from verb to parts are what the ranks
 * of a group must agree on. */
struct tri_call {
    struct tri_group *group;
    enum tri_verb verb;
    struct tri_where where;
    enum tri_dtype dtype;
    int64_t n;            /* elements; elements of a row for all_to_all */
    const int64_t *parts; /* [group size], or NULL; read only while the call is entered */
    int peer; /* place of a broadcast's root, or of the other end of a send or receive */
    bool begun;
    int64_t bytes; /* for the ledger */
    int64_t bytes_between, messages_between;
    uint64_t sequence; /* 0: between two ranks */
    uint64_t to, from; /* for a trace: struct tri_trace_event */
    uint32_t message;  /* between two ranks: which from one to the other */
    /* Times: when it began; when its messages were seen to have arrived while nobody waited (in a
     * plan: when they will have), or 0;
     * when begin or end was entered last. Seconds spent in begin. */
    double began, arrived, entered, exposed;
};

/* The description of a call whose parts or rows these are. */
struct tri_call tri_call_of_parts(struct tri_group *group, enum tri_verb verb,
                                  struct tri_where where, const int64_t *counts,
                                  enum tri_dtype dtype);
struct tri_call tri_call_of_rows(struct tri_group *group, struct tri_where where,
                                 const int64_t *send_rows, int64_t width, enum tri_dtype dtype);

/* Where somebody traces: between whom rows go. */
void tri_call_note_rows(struct tri_call *call, const int64_t *send_rows, const int64_t *recv_rows);

/* Opens a call of a group of more than one rank: watchdog, debug check, clock. */
void tri_call_enter(struct tri_call *call);
/* Begin returns to its caller; end takes the call up again. */
void tri_call_pause(struct tri_call *call);
void tri_call_resume(struct tri_call *call);
/* Closes the call, books it and tells who traces: what has passed since enter or resume was
 * exposed. */
void tri_call_leave(struct tri_call *call);

/* Tells who listens to a plan's calls; keeps in `arrived` what was begun will arrive at. */
void tri_call_tell(struct tri_call *call, enum tri_op op, enum tri_call_stage stage);

/* The world rank of the peer. */
int tri_call_peer(const struct tri_call *call);
/* "all_reduce of 8 F32 over group world (forward, mlp)". */
void tri_call_describe(const struct tri_call *call, char *text, size_t size);

/* Debug builds compare the call over the group, and panic where the ranks differ; release builds do
 * nothing. */
void tri_check_call(const struct tri_call *call);
/* The same for the pairwise row counts of an all-to-all. */
void tri_check_rows(const struct tri_group *group, const int64_t *send_rows,
                    const int64_t *recv_rows);

/* What the sender says of a message between two ranks ahead of it, in debug builds. */
struct tri_notice {
    int64_t n, dtype;
};
/* Messages that the notice takes: 0 in release builds. */
enum {
#ifdef TRIDENT_DEBUG
    TRI_NOTICE_MESSAGES = 1
#else
    TRI_NOTICE_MESSAGES = 0
#endif
};
/* Panics unless the receiver was told of what it receives. */
void tri_check_notice(const struct tri_call *receive, const struct tri_notice *notice);

/* ---- data ------------------------------------------------------------------------------------ */

/* One direction of an exchange: counts[r] elements at data + at[r] elements. */
struct tri_side {
    const int64_t *counts, *at;
};

/* Messages of an exchange. */
int64_t tri_exchange_messages(const struct tri_group *group, const int64_t *send_counts,
                              const int64_t *recv_counts, int64_t max);
/* Begins, to and from every other rank, the messages of send and recv, cut at max elements; nothing
 * to or from this rank itself. flight must be empty. The data belongs to the transport until
 * tri_flight_wait; the arrays of the sides do not. */
void tri_exchange_post(const struct tri_group *group, enum tri_dtype dtype, int64_t max,
                       const void *send, struct tri_side send_side, void *recv,
                       struct tri_side recv_side, struct tri_flight *flight);
/* Where the pieces of one message go: to or from which rank, cut at max elements. */
struct tri_way {
    enum tri_lane lane;
    int peer;
    int64_t max;
};
/* Add messages to flight. Where nothing is carried they must not be called. */
void tri_flight_receive(const struct tri_group *group, struct tri_way way, void *data, int64_t n,
                        enum tri_dtype dtype, struct tri_flight *flight);
void tri_flight_send(const struct tri_group *group, struct tri_way way, const void *data, int64_t n,
                     enum tri_dtype dtype, struct tri_flight *flight);
/* Whether all of them have arrived; forgets those of the end that have. */
bool tri_flight_test(const struct tri_group *group, struct tri_flight *flight);
void tri_flight_wait(const struct tri_group *group, struct tri_flight *flight);
/* Without taking a core from ranks that work (transport.h). */
void tri_flight_doze(const struct tri_group *group, struct tri_flight *flight);

/* at[r] <- sum of counts[0..r-1]; returns the sum of all. */
int64_t tri_places(int64_t *at, const int64_t *counts, int size);
/* counts[r] <- the size of part r of n (tri_range_part). */
void tri_even_parts(int64_t *counts, int64_t n, int size);
/* What the other ranks sent lies in a row of equal slots, in rank order, without this rank's own.
 * Elements from the row's begin to slot r. */
int64_t tri_slot(const struct tri_group *group, int r, int64_t slot);

/* What a transport has, or messages.c makes; unbooked. At most max_message elements; where nothing
 * is carried, nothing happens. */
void tri_end_all_gather(const struct tri_group *group, void *data, const int64_t *counts,
                        const int64_t *at, enum tri_dtype dtype);
void tri_end_all_gather_even(const struct tri_group *group, const void *mine, void *all, int64_t n,
                             enum tri_dtype dtype);
void tri_end_broadcast(const struct tri_group *group, void *data, int64_t n, enum tri_dtype dtype,
                       int root);
void tri_end_all_to_all(const struct tri_group *group, const void *send, void *recv, int64_t n,
                        enum tri_dtype dtype);
void tri_end_barrier(const struct tri_group *group);
void tri_messages_all_gather(const struct tri_group *group, void *data, const int64_t *counts,
                             const int64_t *at, enum tri_dtype dtype);
void tri_messages_all_gather_even(const struct tri_group *group, const void *mine, void *all,
                                  int64_t n, enum tri_dtype dtype);
void tri_messages_broadcast(const struct tri_group *group, void *data, int64_t n,
                            enum tri_dtype dtype, int root);
void tri_messages_all_to_all(const struct tri_group *group, const void *send_data, void *recv,
                             int64_t n, enum tri_dtype dtype);
void tri_messages_barrier(const struct tri_group *group);

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
    const int64_t *send_at, *recv_at; /* NULL: one rank's after the other's */
};
void tri_all_to_all_run(const struct tri_group *group, const struct tri_row_exchange *rows);
/* Writes the rows to the group's send and recv work arrays, in elements. */
void tri_all_to_all_sides(const struct tri_group *group, const struct tri_row_exchange *rows);
void tri_all_to_all_copy_own(const struct tri_group *group, const struct tri_row_exchange *rows);
/* own[n] <- the sum, in the tree of reduce.c, of own and of the slots. */
void tri_slots_sum(const struct tri_group *group, void *own, const void *slots, int64_t slot,
                   int64_t n, enum tri_dtype dtype, enum tri_reduction reduction);

/* Whether an all-reduce of n elements sends everything to everyone and sums all of it on each rank,
 * rather than one part on each rank: fewer messages, more bytes. The bits are the same. */
bool tri_all_reduce_is_small(const struct tri_group *group, int64_t n);

/* Frees what blocking calls and requests have grown. */
void tri_algorithm_release(struct tri_pool *pool);
void tri_request_release(struct tri_pool *pool);

/* ---- the watchdog ---------------------------------------------------------------------------- */

struct tri_watch_record;

/* The job's watchdog, with its thread running. comm is borrowed. */
struct tri_watch *tri_watch_start(struct tri_comm *comm);
/* Fills this rank's record. */
void tri_watch_record_init(struct tri_watch_record *record, int rank);
size_t tri_watch_record_bytes(void);
/* From now on this rank's record is records[node_rank], those of the node are all there, and this
 * node is node_index. The array is the watchdog's. Local, when all records are filled. */
void tri_watch_open(struct tri_watch *watch, struct tri_watch_record **records, int node_index);
/* The thread looks at the records no longer: they are going. */
void tri_watch_leave_records(struct tri_watch *watch);
/* Waits until all ranks of the node are here, where there are records, ends the thread and frees
 * the rest. */
void tri_watch_close(struct tri_watch *watch);
/* A place for a mesh's groups in the records, the channel of the first; the same on every rank, as
 * is BAD_INPUT where none is left, since meshes are created and destroyed collectively. Local. */
enum tri_status tri_watch_mesh_open(struct tri_watch *watch, const int size[TRI_AXIS_COUNT],
                                    int *channel, struct tri_error *error) TRI_NODISCARD;
/* The number that the first call of a mesh at this place comes after, the same on every rank. */
uint64_t tri_watch_mesh_before(const struct tri_watch *watch, int channel);
void tri_watch_mesh_close(struct tri_watch *watch, int channel);
/* Whether this rank is the one of its node that tells why the job ends; if not, or when another
 * node may tell it, gives that one time to end the job. From any thread. */
bool tri_watch_claim(struct tri_watch *watch);
/* The same where there is no watchdog yet, by the first record of the node. */
bool tri_watch_claim_record(struct tri_watch_record *first);
/* This rank has reached the call, and waits in it from now on. */
void tri_watch_enter(const struct tri_call *call);
void tri_watch_leave(struct tri_watch *watch);
/* The same for what all ranks go through together and is no call of a group. */
void tri_watch_enter_stage(struct tri_watch *watch, enum tri_verb stage);
void tri_watch_leave_stage(struct tri_watch *watch);

#endif
