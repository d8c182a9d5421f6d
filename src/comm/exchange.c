/* Messages between the ranks of a group, pair by pair.
 *
 * Everything but the gathers goes through here. Both ends of a pair know how long their message is,
 * so each pair cuts its own at the longest length MPI is given, without asking the others: counts
 * past 2^31 need no agreement, and a displacement is a pointer, never an int. All ranks post in the
 * same order, so messages of several calls in flight match by MPI's ordering alone. On shared
 * memory this is as fast as MPI_Alltoallv or faster; the non-blocking form costs nothing extra. */
#include "comm/internal.h"

#include "shard/range.h"

enum { TAG_EXCHANGE = 1 };

MPI_Datatype tri_mpi_type(enum tri_dtype dtype)
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

int64_t tri_places(int64_t *at, const int64_t *counts, int size)
{
    int64_t sum = 0;
    for (int r = 0; r < size; r++) {
        TRI_REQUIRE(counts[r] >= 0);
        at[r] = sum;
        sum += counts[r];
    }
    return sum;
}

void tri_even_parts(int64_t *counts, int64_t n, int size)
{
    for (int r = 0; r < size; r++) {
        counts[r] = tri_range_size(tri_range_part(n, size, r));
    }
}

static int64_t pieces(const struct tri_group *group, const int64_t *counts, int64_t max)
{
    int64_t sum = 0;
    for (int r = 0; r < group->size; r++) {
        sum += r == group->rank ? 0 : (counts[r] + max - 1) / max;
    }
    return sum;
}

int64_t tri_exchange_requests(const struct tri_group *group, const int64_t *send_counts,
                              const int64_t *recv_counts, int64_t max)
{
    return pieces(group, send_counts, max) + pieces(group, recv_counts, max);
}

void tri_exchange_post(const struct tri_group *group, enum tri_dtype dtype, int64_t max,
                       const void *send, struct tri_side send_side, void *recv,
                       struct tri_side recv_side, struct tri_flight *flight)
{
    MPI_Datatype type = tri_mpi_type(dtype);
    int64_t width = (int64_t)tri_dtype_size(dtype);
    int size = group->size;
    TRI_REQUIRE(flight->count == 0);
    if (group->mesh->planned) {
        return;
    }
    for (int step = 1; step < size; step++) {
        int from = (group->rank - step + size) % size;
        char *place = (char *)recv + recv_side.at[from] * width;
        for (int64_t left = recv_side.counts[from]; left > 0; left -= max) {
            TRI_MPI(MPI_Irecv(place, (int)(left < max ? left : max), type, from, TAG_EXCHANGE,
                              group->comm, &flight->item[flight->count++]));
            place += max * width;
        }
    }
    for (int step = 1; step < size; step++) {
        int to = (group->rank + step) % size;
        const char *place = (const char *)send + send_side.at[to] * width;
        for (int64_t left = send_side.counts[to]; left > 0; left -= max) {
            TRI_MPI(MPI_Isend(place, (int)(left < max ? left : max), type, to, TAG_EXCHANGE,
                              group->comm, &flight->item[flight->count++]));
            place += max * width;
        }
    }
}

bool tri_flight_test(struct tri_flight *flight)
{
    while (flight->count > 0) {
        int arrived = 0;
        TRI_MPI(MPI_Test(&flight->item[flight->count - 1], &arrived, MPI_STATUS_IGNORE));
        if (!arrived) {
            return false;
        }
        flight->count--;
    }
    return true;
}

void tri_flight_wait(struct tri_flight *flight)
{
    for (int i = 0; i < flight->count; i++) {
        TRI_MPI(MPI_Wait(&flight->item[i], MPI_STATUS_IGNORE));
    }
    flight->count = 0;
}
