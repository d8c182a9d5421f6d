/* Messages over MPI. A group has a communicator; its gathers are MPI's own, which knows the
 * network. */
#include "comm/mpi_internal.h"

#include <sched.h>
#include <stdlib.h>
#include <time.h>

enum { TAG = 1 }; /* of the first lane */

struct endpoint {
    struct tri_endpoint base;
    MPI_Comm comm;
    int *counts, *places; /* [size]: as MPI wants them */
};

_Static_assert(sizeof(MPI_Request) <= sizeof(union tri_message), "a message holds a request");

static MPI_Datatype type_of(enum tri_dtype dtype)
{
    switch (dtype) {
    case TRI_F32:
        return MPI_FLOAT;
    case TRI_BF16:
        return MPI_UINT16_T;
    case TRI_F64:
        return MPI_DOUBLE;
    case TRI_I32:
        return MPI_INT32_T;
    case TRI_I64:
        return MPI_INT64_T;
    case TRI_U8:
        return MPI_UINT8_T;
    case TRI_DTYPE_COUNT:
        break;
    }
    tri_panic(TRI_FAILED, "unknown dtype %d", (int)dtype);
}

static MPI_Comm comm_of(const struct tri_endpoint *end)
{
    return ((const struct endpoint *)end)->comm;
}

/* What it takes is no more counted than what MPI takes itself. */
static void *take(size_t bytes)
{
    void *block = calloc(1, bytes);
    if (!block) {
        tri_panic(TRI_FAILED, "out of memory: %zu bytes for a communicator", bytes);
    }
    return block;
}

static struct tri_endpoint *open_end(struct tri_transport *self, int size, int rank, int first,
                                     const char *name)
{
    const struct tri_mpi_transport *mpi = (const struct tri_mpi_transport *)(const void *)self;
    struct endpoint *end = take(sizeof(*end));
    end->base = (struct tri_endpoint){size, rank};
    end->counts = take(2 * (size_t)size * sizeof(*end->counts));
    end->places = end->counts + size;
    TRI_MPI(MPI_Comm_split(mpi->world, first, rank, &end->comm));
    TRI_MPI(MPI_Comm_set_errhandler(end->comm, MPI_ERRORS_RETURN));
    TRI_MPI(MPI_Comm_set_name(end->comm, name));
    return &end->base;
}

static void close_end(struct tri_transport *self, struct tri_endpoint *base)
{
    struct endpoint *end = (struct endpoint *)base;
    (void)self;
    TRI_MPI(MPI_Comm_free(&end->comm));
    free(end->counts);
    free(end);
}

static MPI_Request *request_of(union tri_message *message)
{
    return (MPI_Request *)(void *)message;
}

static void receive(struct tri_endpoint *end, enum tri_lane lane, int from, void *data, int64_t n,
                    enum tri_dtype dtype, union tri_message *message)
{
    TRI_MPI(MPI_Irecv(data, (int)n, type_of(dtype), from, TAG + (int)lane, comm_of(end),
                      request_of(message)));
}

static void send(struct tri_endpoint *end, enum tri_lane lane, int to, const void *data, int64_t n,
                 enum tri_dtype dtype, union tri_message *message)
{
    TRI_MPI(MPI_Isend(data, (int)n, type_of(dtype), to, TAG + (int)lane, comm_of(end),
                      request_of(message)));
}

static bool test(struct tri_endpoint *end, union tri_message *message)
{
    int arrived = 0;
    (void)end;
    TRI_MPI(MPI_Test(request_of(message), &arrived, MPI_STATUS_IGNORE));
    return arrived != 0;
}

/* MPI's own wait may keep the core to itself: a rank asks, and offers its core now and then. */
static void wait_for(struct tri_endpoint *end, union tri_message *messages, int count)
{
    enum { LOOKS = 50 };
    for (int i = 0; i < count; i++) {
        for (int looks = 1; !test(end, &messages[i]); looks++) {
            if (looks % LOOKS == 0) {
                (void)sched_yield();
            }
        }
    }
}

static void doze(struct tri_endpoint *end, union tri_message *messages, int count)
{
    enum { LOOKS = 20, NANOSECONDS = 50000 };
    const struct timespec pause = {0, NANOSECONDS};
    for (int i = 0; i < count; i++) {
        for (int looks = 0; !test(end, &messages[i]); looks++) {
            if (looks < LOOKS) {
                (void)sched_yield();
            } else {
                (void)nanosleep(&pause, NULL);
            }
        }
    }
}

static void all_gather(struct tri_endpoint *base, void *data, const int64_t *counts,
                       const int64_t *at, enum tri_dtype dtype)
{
    const struct endpoint *end = (const struct endpoint *)base;
    for (int r = 0; r < base->size; r++) {
        end->counts[r] = (int)counts[r];
        end->places[r] = (int)at[r];
    }
    TRI_MPI(MPI_Allgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, data, end->counts, end->places,
                           type_of(dtype), end->comm));
}

static void all_gather_even(struct tri_endpoint *end, const void *mine, void *all, int64_t n,
                            enum tri_dtype dtype)
{
    MPI_Datatype type = type_of(dtype);
    TRI_MPI(MPI_Allgather(mine, (int)n, type, all, (int)n, type, comm_of(end)));
}

static void broadcast(struct tri_endpoint *end, void *data, int64_t n, enum tri_dtype dtype,
                      int root)
{
    TRI_MPI(MPI_Bcast(data, (int)n, type_of(dtype), root, comm_of(end)));
}

static void all_to_all(struct tri_endpoint *end, const void *send_data, void *recv, int64_t n,
                       enum tri_dtype dtype)
{
    MPI_Datatype type = type_of(dtype);
    TRI_MPI(MPI_Alltoall(send_data, (int)n, type, recv, (int)n, type, comm_of(end)));
}

static void barrier(struct tri_endpoint *end)
{
    TRI_MPI(MPI_Barrier(comm_of(end)));
}

void tri_mpi_transport_init(struct tri_mpi_transport *transport, MPI_Comm world)
{
    static const struct tri_transport_ops ops = {
        .open = open_end,
        .close = close_end,
        .receive = receive,
        .send = send,
        .test = test,
        .wait = wait_for,
        .doze = doze,
        .all_gather = all_gather,
        .all_gather_even = all_gather_even,
        .broadcast = broadcast,
        .all_to_all = all_to_all,
        .barrier = barrier,
    };
    *transport = (struct tri_mpi_transport){{&ops, true}, world};
}
