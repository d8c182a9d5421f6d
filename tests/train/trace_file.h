/* A trace as viewers read it: what must be true of every one, and what it says of a rank. */
#ifndef TRIDENT_TESTS_TRAIN_TRACE_FILE_H
#define TRIDENT_TESTS_TRAIN_TRACE_FILE_H

#include "base/memory.h"
#include "comm/ledger.h"

#include <jansson.h>
#include <stdbool.h>

/* What a file has. */
struct trace_file {
    json_t *root;
    int ranks;
    int64_t slices, arrows, dropped;
    double end_us; /* of its last event */
};

/* Reads a file of so many ranks and checks its form: tracks have names, slices of a track nest,
 * counters add up. whole: each arrow has both ends, on two ranks, inside slices, and goes forward.
 * json_decref file->root. */
void trace_file_read(const char *path, int ranks, bool whole, struct trace_file *file);
/* Calls and bytes of a rank's calls, as a ledger books them. */
void trace_file_sum(const struct trace_file *file, int rank, struct tri_ledger *sum);
/* By the names that files have. */
struct tri_ledger_cell *trace_file_cell(struct tri_ledger *ledger, const char *operation,
                                        const char *group, const char *phase, const char *kind);
/* Slices of that name on a rank's own thread, or on all of its tracks. */
int64_t trace_file_count(const struct trace_file *file, int rank, const char *name, bool own);
/* The most bytes that a rank's counter of memory shows of a category; -1: it never tells. */
int64_t trace_file_most(const struct trace_file *file, int rank, enum tri_memory category);
/* The most that another counter of a rank shows; -1 likewise. */
int64_t trace_file_gauge(const struct trace_file *file, int rank, const char *name);
/* A number that otherData has of a rank. */
double trace_file_of_rank(const struct trace_file *file, int rank, const char *key);

#endif
