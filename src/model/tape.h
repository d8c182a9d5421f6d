/* The tape of a frame: how a block's forward is run, and what it leaves for its backward.
 *
 *   RUN            the activations stay in the frame's arena
 *   RUN_AND_STASH  they go when the block is done; what must not be made a second time is stashed:
 *                  the routing, and with communication-aware checkpointing (CAC) the results of
 *                  collectives
 *   REPLAY         the forward again, before the backward: what was stashed is handed back
 *
 * A layer does not know the mode. It asks for memory for something that is made once, and is told
 * whether it is filled already; then whatever only leads to it (products, collectives) is left out.
 * The stash is the result itself, not a copy of it.
 *
 *   stash  | block 0: routing | result | result | block 1: routing | …       a stack, as blocks are
 *
 * arXiv 2303.06318, communication-aware checkpointing; there only the outputs of all-reduce and
 * all-to-all are stashed, and a flag says whether the next call is a recompute: here each
 * micro-batch has a tape of its own, with entries keyed by block and call, so a forward out of
 * order is found instead of handing back another's tokens. */
#ifndef TRIDENT_MODEL_TAPE_H
#define TRIDENT_MODEL_TAPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum tri_stash {
    TRI_STASH_ROUTING, /* stashed always: it must be the same in the recompute */
    TRI_STASH_RESULT   /* what a collective gave; stashed with CAC */
};

struct tri_tape;

/* Local. reserve: bytes of address space for the stash; 0: see tri_arena_create. */
struct tri_tape *tri_tape_create(int64_t blocks, bool stash_results, size_t reserve);
void tri_tape_destroy(struct tri_tape *tape);

/* From here on the calls belong to `block`: recorded, or handed back in the same order. */
void tri_tape_record(struct tri_tape *tape, int64_t block);
void tri_tape_replay(struct tri_tape *tape, int64_t block);
/* Back to RUN; a replay must have taken all that was recorded. */
void tri_tape_stop(struct tri_tape *tape);
/* Frees a block's stash; the last recorded block first. */
void tri_tape_forget(struct tri_tape *tape, int64_t block);
/* Frees all of it: a micro-batch whose backward does not come. */
void tri_tape_clear(struct tri_tape *tape);

/* Memory of `bytes` in the stash, or NULL where the caller's own memory will do (RUN, or a kind
 * that is not stashed). *filled: the content is that of the recorded call, and the memory too.
 * Panics when a replay asks for something else than was recorded. */
void *tri_tape_take(struct tri_tape *tape, enum tri_stash what, size_t bytes, bool *filled);
/* More memory that lives as long as the last thing taken, found again through it; NULL as above.
 * Not to be asked for once that was filled. */
void *tri_tape_room(struct tri_tape *tape, enum tri_stash what, size_t bytes);

#endif
