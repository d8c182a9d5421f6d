/* The state of a run's checkpoint, read and replaced: what another program could have written. */
#ifndef TRIDENT_TESTS_EDGES_STATE_H
#define TRIDENT_TESTS_EDGES_STATE_H

#include <jansson.h>
#include <stdint.h>

/* RUN/checkpoints/step_N/state.json; json_decref it. */
json_t *edges_state(const char *run, int64_t step);
/* Writes it, and a manifest that vouches for it. Releases root. */
void edges_state_write(const char *run, int64_t step, json_t *root);

#endif
