/* A residency that moves: what is opened lies at an address where nothing lay before, and what is
 * closed is gone, so that whoever keeps a pointer, or reads past its end, faults. Weights come from
 * a copy that only a refresh renews, so that a refresh that is left out shows as old numbers.
 *
 * A program that links trident_moving has it in the list that small_config reads configs with, and
 * so under every engine's table, but those of a mesh with fewer ranks than moving_least says. */
#ifndef TRIDENT_TESTS_SUPPORT_MOVING_H
#define TRIDENT_TESTS_SUPPORT_MOVING_H

#include "model/param_open.h"

/* From now on, tables of meshes with at least so many ranks move; 2 at first, so that verify's
 * reference does not. */
extern int moving_least;

struct moving_counts {
    int64_t weights, gradients; /* opened since the program began */
    int64_t open;               /* now */
};
/* Of all tables of the calling thread. */
struct moving_counts moving_counts(void);

#endif
