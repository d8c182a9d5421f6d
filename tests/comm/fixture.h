/* What the tests of comm/ share: every layout of the job's ranks, values that only a sum in the
 * right order adds up to the same bits, and the sum itself. */
#ifndef TRIDENT_TESTS_COMM_FIXTURE_H
#define TRIDENT_TESTS_COMM_FIXTURE_H

#include "comm/internal.h"
#include "support/job.h"

/* A failing rank must end the job: the others would wait for it. */
#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            tri_panic(TRI_FAILED, "%s:%d: not true: %s", __FILE__, __LINE__, #condition);          \
        }                                                                                          \
    } while (0)

/* Starts the ranks, runs visit for every group of every layout of them, once with whole messages
 * and once with messages of at most 1000 elements, and ends them. Returns the exit status; fails
 * when memory is left over. */
typedef void (*visit_group)(struct tri_group *group);
int run_on_groups(int argc, char **argv, visit_group visit);

/* The world rank of a member. */
int world_rank(const struct tri_group *group, int member);

/* Element i of what world rank `rank` contributes. f32 and f64: not exactly representable sums, so
 * the order of addition shows; integers: large enough to overflow 32 bits when summed as i64. */
void put_value(void *data, int64_t i, enum tri_dtype dtype, int rank, int64_t index);
/* n values of this rank, from index 0. */
void fill(void *data, int64_t n, enum tri_dtype dtype, int rank);

/* Whether data[at .. at+n) holds, bit by bit, the sum of what fill gives the group's members, in
 * the tree whose halves are cut at the largest power of two. */
bool is_sum(const struct tri_group *group, const void *data, int64_t at, int64_t n,
            enum tri_dtype dtype);
/* Whether data[at .. at+n) holds what fill gives `rank`. */
bool is_fill(const void *data, int64_t at, int64_t n, enum tri_dtype dtype, int rank);

/* counts[size] that are uneven, some of them zero, and depend on scale. */
int64_t uneven(int64_t *counts, int size, int64_t scale);

#endif
