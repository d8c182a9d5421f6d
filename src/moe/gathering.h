/* Where every token meets every expert: an all-gather brings the tokens of all ranks that meet to
 * each of them, a reduce-scatter brings the sums over experts home, and each rank and expert tell
 * each other their tokens' weights. A part of the schedule `dense`. */
#ifndef TRIDENT_MOE_GATHERING_H
#define TRIDENT_MOE_GATHERING_H

#include "model/frame.h"
#include "moe/router.h"
#include "shard/range.h"

struct tri_gathering {
    const struct tri_context *context;
    /* Who meets: ranks with different tokens, which have between them every expert; and the homes
     * of the experts. */
    struct tri_group *ranks, *homes;
    int64_t experts; /* local ones */
    bool cut;        /* experts are cut over tensor */
    bool split;      /* tensor ranks hold different tokens */
};
struct tri_gathering tri_gathering_create(const struct tri_context *context);

/* Of one micro-batch: the tokens of all that meet, in their order. */
struct tri_met {
    const int64_t *counts;  /* [ranks] tokens of each, in the arena */
    int64_t before, tokens; /* those of earlier ranks; all */
};
void tri_gathering_count(const struct tri_gathering *m, const struct tri_frame *frame,
                         struct tri_met *met);
/* The tokens that this rank brings. */
struct tri_range tri_gathering_own(const struct tri_gathering *m, const struct tri_frame *frame);

/* Row `row` of a tensor [rows, hidden]. */
void *tri_gathering_row(const struct tri_gathering *m, const void *rows, int64_t row,
                        enum tri_dtype dtype);
void tri_gathering_copy(const struct tri_gathering *m, const void *from, enum tri_dtype from_dt,
                        void *to, enum tri_dtype to_dt, int64_t rows);

/* all [tokens, hidden] <- everybody's own tokens of a tensor of the stream. Collective over the
 * ranks that meet, as are the others. */
void tri_gathering_gather(const struct tri_gathering *m, const struct tri_frame *frame,
                          const struct tri_met *met, enum tri_phase phase, const void *stream,
                          void *all);
/* Where this rank makes its sums [tokens, hidden] in sum_dt for `stream`: own tokens of it, or the
 * arena. */
void *tri_gathering_take_sums(const struct tri_gathering *m, const struct tri_frame *frame,
                              const struct tri_met *met, void *stream);
/* Own tokens of the stream <- the sums over all ranks of theirs. In reproducible mode those of cut
 * experts are whole, and the same on the tensor ranks; else they are sums over tensor too. */
void tri_gathering_send_home(const struct tri_gathering *m, const struct tri_frame *frame,
                             const struct tri_met *met, enum tri_phase phase, void *sums,
                             void *stream);
/* After that: the stream's tokens, where it has more than the own ones. */
void tri_gathering_make_whole(const struct tri_gathering *m, const struct tri_frame *frame,
                              enum tri_phase phase, void *stream);

/* [tokens, experts] of the local experts, kept as a part of the routing. */
const float *tri_gathering_weights(const struct tri_gathering *m, const struct tri_frame *frame,
                                   const struct tri_met *met, const struct tri_routes *routes);
/* dweight [tokens of the micro-batch, all experts] of own tokens <- slopes [tokens, experts]. */
void tri_gathering_return(const struct tri_gathering *m, const struct tri_frame *frame,
                          const struct tri_met *met, const float *slopes, float *dweight);

#endif
