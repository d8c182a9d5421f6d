#include "model/tape.h"

#include "base/arena.h"
#include "base/status.h"

enum mode { RUN, RUN_AND_STASH, REPLAY };

/* Sits in the stash before the memory that it describes. */
struct entry {
    struct entry *next;
    void *data;
    size_t bytes;
    int64_t call; /* of the block */
};

struct block {
    bool recorded;
    size_t mark;
    struct entry *first;
};

struct tri_tape {
    struct tri_arena *stash;
    bool stash_results;
    enum mode mode;
    int64_t at; /* the block being recorded or replayed */
    int64_t call;
    struct entry *last; /* of the block */
    int64_t blocks;
    struct block *block;
};

struct tri_tape *tri_tape_create(int64_t blocks, bool stash_results, size_t reserve)
{
    struct tri_tape *tape = tri_alloc(TRI_MEMORY_OTHER, sizeof(*tape));
    tape->stash = tri_arena_create(TRI_MEMORY_STASH, "stash", reserve);
    tape->stash_results = stash_results;
    tape->blocks = blocks;
    tape->block = tri_alloc(TRI_MEMORY_OTHER, (size_t)blocks * sizeof(*tape->block));
    return tape;
}

void tri_tape_destroy(struct tri_tape *tape)
{
    if (tape) {
        tri_arena_destroy(tape->stash);
        tri_free(tape->block);
        tri_free(tape);
    }
}

static void start(struct tri_tape *tape, enum mode mode, int64_t block)
{
    TRI_REQUIRE(tape->mode == RUN && block >= 0 && block < tape->blocks);
    tape->mode = mode;
    tape->at = block;
    tape->call = 0;
    tape->last = NULL;
}

void tri_tape_record(struct tri_tape *tape, int64_t block)
{
    start(tape, RUN_AND_STASH, block);
    TRI_REQUIRE(!tape->block[block].recorded);
    tape->block[block] = (struct block){true, tri_arena_mark(tape->stash), NULL};
}

void tri_tape_replay(struct tri_tape *tape, int64_t block)
{
    start(tape, REPLAY, block);
    TRI_REQUIRE(tape->block[block].recorded);
}

static struct entry *next_entry(const struct tri_tape *tape)
{
    return tape->last ? tape->last->next : tape->block[tape->at].first;
}

void tri_tape_stop(struct tri_tape *tape)
{
    TRI_REQUIRE(tape->mode != REPLAY || !next_entry(tape));
    tape->mode = RUN;
}

void tri_tape_forget(struct tri_tape *tape, int64_t block)
{
    struct block *b = &tape->block[block];
    TRI_REQUIRE(tape->mode == RUN && b->recorded);
    for (int64_t later = block + 1; later < tape->blocks; later++) {
        TRI_REQUIRE(!tape->block[later].recorded);
    }
    tri_arena_rewind(tape->stash, b->mark);
    *b = (struct block){0};
}

void tri_tape_clear(struct tri_tape *tape)
{
    TRI_REQUIRE(tape->mode == RUN);
    for (int64_t block = tape->blocks - 1; block >= 0; block--) {
        if (tape->block[block].recorded) {
            tri_tape_forget(tape, block);
        }
    }
}

static bool is_stashed(const struct tri_tape *tape, enum tri_stash what)
{
    return tape->mode != RUN && (what == TRI_STASH_ROUTING || tape->stash_results);
}

void *tri_tape_take(struct tri_tape *tape, enum tri_stash what, size_t bytes, bool *filled)
{
    *filled = false;
    if (!is_stashed(tape, what)) {
        return NULL;
    }
    struct entry *next = next_entry(tape);
    if (tape->mode == REPLAY) {
        if (!next || next->bytes != bytes || next->call != tape->call) {
            tri_panic(TRI_FAILED, "block %lld replays call %lld with %zu bytes, recorded: %zu",
                      (long long)tape->at, (long long)tape->call, bytes, next ? next->bytes : 0);
        }
        *filled = true;
    } else {
        next = tri_arena_alloc(tape->stash, sizeof(*next));
        *next = (struct entry){NULL, tri_arena_alloc(tape->stash, bytes), bytes, tape->call};
        *(tape->last ? &tape->last->next : &tape->block[tape->at].first) = next;
    }
    tape->last = next;
    tape->call++;
    return next->data;
}

void *tri_tape_room(struct tri_tape *tape, enum tri_stash what, size_t bytes)
{
    if (!is_stashed(tape, what)) {
        return NULL;
    }
    TRI_REQUIRE(tape->mode == RUN_AND_STASH);
    return tri_arena_alloc(tape->stash, bytes);
}
