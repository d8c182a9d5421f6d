/* Every collective is a linear map A over the group's ranks together, and the backward pass uses
 * its adjoint: sum over ranks of <A x, y> equals that of <x, A^T y>, in f64. */
#include "fixture.h"

#include "base/memory.h"

#include <math.h>
#include <string.h>

static const struct tri_where here = {TRI_PHASE_FORWARD, TRI_KIND_ATTENTION};
enum { RANKS = 64, WIDTH = 9, LONG = 2500 };

static double *vector(int64_t n, int seed)
{
    double *x = tri_alloc(TRI_MEMORY_OTHER, (size_t)n * sizeof(*x));
    for (int64_t i = 0; i < n; i++) {
        put_value(x, i, TRI_F64, job_rank() + 8 * seed, i);
    }
    return x;
}

static double *copy(const double *x, int64_t n)
{
    double *y = tri_alloc(TRI_MEMORY_OTHER, (size_t)n * sizeof(*y));
    memcpy(y, x, (size_t)n * sizeof(*y));
    return y;
}

static double dot(const double *x, const double *y, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += x[i] * y[i];
    }
    return sum;
}

/* Both sides, summed over the ranks, agree to rounding; and are not both nothing. */
static void check_equal(struct tri_group *group, double left, double right, bool empty)
{
    double sides[3] = {left, right, fabs(left)};
    tri_all_reduce_sum(group, here, sides, 3, TRI_F64);
    CHECK(fabs(sides[0] - sides[1]) <= 1e-12 * (1 + sides[2]));
    CHECK(empty || sides[2] > 0);
}

static void check_all_reduce(struct tri_group *group, int64_t n)
{
    double *x = vector(n, 1);
    double *y = vector(n, 2);
    double *ax = copy(x, n);
    double *ay = copy(y, n);
    tri_all_reduce_sum(group, here, ax, n, TRI_F64);
    tri_all_reduce_sum(group, here, ay, n, TRI_F64);
    check_equal(group, dot(ax, y, n), dot(x, ay, n), false);
    tri_free(x);
    tri_free(y);
    tri_free(ax);
    tri_free(ay);
}

/* A column-parallel product reads one x on every rank: forward copies it, backward sums. x lives on
 * the root alone; its adjoint is the sum, read there. */
static void check_copy(struct tri_group *group, int64_t n)
{
    double *x = vector(n, 3);
    double *y = vector(n, 4);
    double *ax = copy(x, n);
    double *ay = copy(y, n);
    tri_broadcast(group, here, ax, n, TRI_F64, group->size - 1);
    tri_all_reduce_sum(group, here, ay, n, TRI_F64);
    bool root = group->rank == group->size - 1;
    check_equal(group, dot(ax, y, n), root ? dot(x, ay, n) : 0, false);
    tri_free(x);
    tri_free(y);
    tri_free(ax);
    tri_free(ay);
}

/* all_gather: every rank's own part -> the whole, on every rank. Its adjoint is reduce_scatter. */
static void check_gather(struct tri_group *group, int64_t scale)
{
    int64_t counts[RANKS];
    int64_t at[RANKS];
    int64_t n = uneven(counts, group->size, scale);
    (void)tri_places(at, counts, group->size);
    int64_t own = at[group->rank];
    double *x = vector(n, 5);
    double *y = vector(n, 6);
    double *ax = copy(x, n);
    double *ay = copy(y, n);
    tri_all_gather_v(group, here, ax, counts, TRI_F64);
    tri_reduce_scatter_v(group, here, ay, counts, TRI_F64);
    check_equal(group, dot(ax, y, n), dot(x + own, ay + own, counts[group->rank]), false);
    tri_free(x);
    tri_free(y);
    tri_free(ax);
    tri_free(ay);
}

/* all_to_all with the rows swapped is its own adjoint: what was sent comes back. */
static void check_all_to_all(struct tri_group *group)
{
    int64_t send_rows[RANKS];
    int64_t recv_rows[RANKS];
    int64_t sent = 0;
    int64_t received = 0;
    for (int r = 0; r < group->size; r++) {
        send_rows[r] = (group->rank * 3 + r * 2 + 1) % 4;
        recv_rows[r] = (r * 3 + group->rank * 2 + 1) % 4;
        sent += send_rows[r] * WIDTH;
        received += recv_rows[r] * WIDTH;
    }
    double *x = vector(sent, 7);
    double *y = vector(received, 8);
    double *ax = vector(received, 0);
    double *ay = vector(sent, 0);
    tri_all_to_all_v(group, here, x, send_rows, ax, recv_rows, WIDTH, TRI_F64);
    tri_all_to_all_v(group, here, y, recv_rows, ay, send_rows, WIDTH, TRI_F64);
    check_equal(group, dot(ax, y, received), dot(x, ay, sent), sent == 0 && received == 0);
    tri_free(x);
    tri_free(y);
    tri_free(ax);
    tri_free(ay);
}

static void check_group(struct tri_group *group)
{
    check_all_reduce(group, 17);
    check_all_reduce(group, LONG);
    check_copy(group, 17);
    check_gather(group, 6);
    check_gather(group, 700);
    check_all_to_all(group);
}

int main(int argc, char **argv)
{
    return run_on_groups(argc, argv, check_group);
}
