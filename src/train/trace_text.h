/* The events of one rank as the JSON that trace viewers read (docs/formats.md). */
#ifndef TRIDENT_TRAIN_TRACE_TEXT_H
#define TRIDENT_TRAIN_TRACE_TEXT_H

#include "base/trace.h"
#include "comm/comm.h"

/* Where text goes, piece by piece. */
struct tri_trace_out {
    char *text; /* room for so many bytes, of which so many are used */
    size_t room, used;
    void (*take)(void *state, const char *text, size_t bytes);
    void *state;
};

/* At most a few hundred bytes; take is called when the room is used up. */
void tri_trace_print(struct tri_trace_out *out, const char *format, ...) TRI_PRINTF(2, 3);
/* Hands over what is left. */
void tri_trace_flush(struct tri_trace_out *out);

/* Times of this rank's clock. */
struct tri_trace_times {
    double start; /* what began earlier is shown from here on */
    double zero;  /* what is 0 in the file, on this rank's clock */
};

/* Each event with a comma before it. Sorts them. */
void tri_trace_write(struct tri_trace *trace, const struct tri_trace_times *times,
                     const struct tri_mesh *mesh, struct tri_trace_out *out);

#endif
