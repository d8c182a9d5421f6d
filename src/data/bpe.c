#include "data/bpe.h"

#include "base/memory.h"
#include "data/utf8.h"

#include <string.h>

/* U+2581, which stands for a space where pieces are written in characters. */
static const unsigned char LOWER_BLOCK[3] = {0xE2, 0x96, 0x81};

struct tri_bpe_worker {
    const struct tri_bpe *bpe;
    struct tri_word_cutter *cutter;
    struct tri_normal_scratch normal;
    struct tri_matcher *matcher[TRI_BPE_STEPS];
    struct tri_bytes piece[TRI_BPE_STEPS]; /* pieces that a step has rewritten */
    struct tri_token_list *tokens;         /* where they go */
    bool plain;                            /* special tokens' names are text */
};

struct tri_bpe_worker *tri_bpe_worker_create(const struct tri_bpe *bpe)
{
    struct tri_bpe_worker *worker = tri_alloc(TRI_MEMORY_OTHER, sizeof(*worker));
    worker->bpe = bpe;
    worker->cutter = tri_word_cutter_create(bpe->vocabulary, &bpe->rules);
    for (int i = 0; i < bpe->steps; i++) {
        if (bpe->step[i].pattern) {
            worker->matcher[i] = tri_matcher_create(bpe->step[i].pattern);
        }
    }
    return worker;
}

void tri_bpe_worker_destroy(struct tri_bpe_worker *worker)
{
    if (worker) {
        for (int i = 0; i < TRI_BPE_STEPS; i++) {
            tri_matcher_destroy(worker->matcher[i]);
            tri_free(worker->piece[i].data);
        }
        tri_normal_scratch_fini(&worker->normal);
        tri_word_cutter_destroy(worker->cutter);
        tri_free(worker);
    }
}

const struct tri_bpe *tri_bpe_worker_bpe(const struct tri_bpe_worker *worker)
{
    return worker->bpe;
}

static void push(struct tri_token_list *tokens, int32_t token)
{
    *tri_token_list_reserve(tokens, 1) = token;
    tokens->count++;
}

/* Where a piece stands. */
struct place {
    bool begins; /* what lies between two added tokens */
    bool first;  /* the whole text */
};

/* ---- pieces ---------------------------------------------------------------------------------- */

static bool is_block(const unsigned char *text, size_t bytes)
{
    return bytes >= sizeof(LOWER_BLOCK) && memcmp(text, LOWER_BLOCK, sizeof(LOWER_BLOCK)) == 0;
}

static enum tri_bpe_fault cut_word(struct tri_bpe_worker *worker, const unsigned char *word,
                                   size_t bytes)
{
    return tri_word_cut(worker->cutter, word, bytes, worker->tokens) ? TRI_BPE_FINE
                                                                     : TRI_BPE_LONG_WORD;
}

/* A word of characters: no merge goes over the beginning of a run of blocks, or with each, of one,
 * so what is between them is a word of its own. */
static enum tri_bpe_fault cut_blocks(struct tri_bpe_worker *worker, const unsigned char *text,
                                     size_t bytes, bool each)
{
    size_t done = 0;
    bool block = true; /* what is before is one */
    for (size_t at = 0; at < bytes;) {
        bool here = is_block(text + at, bytes - at);
        if (here && at > done && (each || !block)) {
            enum tri_bpe_fault fault = cut_word(worker, text + done, at - done);
            if (fault != TRI_BPE_FINE) {
                return fault;
            }
            done = at;
        }
        block = here;
        at += here ? sizeof(LOWER_BLOCK) : 1;
    }
    return cut_word(worker, text + done, bytes - done);
}

static enum tri_bpe_fault cut_pieces(struct tri_bpe_worker *worker, int level,
                                     const unsigned char *text, size_t bytes, struct place place);

static enum tri_bpe_fault match_pieces(struct tri_bpe_worker *worker, int level,
                                       const unsigned char *text, size_t bytes, struct place place)
{
    enum tri_bpe_fault fault = TRI_BPE_FINE;
    const struct tri_bpe_step *step = &worker->bpe->step[level];
    /* Where the text was cut, a piece begins only if the pattern ends one there. */
    place.begins = place.begins || tri_pattern_splits_spaces(step->pattern);
    for (size_t at = 0; at < bytes && fault == TRI_BPE_FINE;
         place = (struct place){.begins = true}) {
        size_t begin;
        size_t end;
        if (!tri_matcher_find(worker->matcher[level], text, bytes, at, &begin, &end)) {
            return TRI_BPE_STUCK;
        }
        if (begin > at) {
            fault = step->drops ? TRI_BPE_FINE
                                : cut_pieces(worker, level + 1, text + at, begin - at, place);
            place = (struct place){.begins = true};
        }
        if (end > begin && fault == TRI_BPE_FINE) {
            fault = cut_pieces(worker, level + 1, text + begin, end - begin, place);
        }
        at = end;
    }
    return fault;
}

/* The piece as the step writes it, with its prefix. */
static void rewrite(const struct tri_bpe_step *step, struct tri_bytes *to, bool prefix,
                    const unsigned char *text, size_t bytes)
{
    const void *space = step->metaspace ? (const void *)LOWER_BLOCK : " ";
    const size_t length = step->metaspace ? sizeof(LOWER_BLOCK) : 1;
    to->bytes = 0;
    if (prefix) {
        tri_bytes_append(to, space, length);
    }
    size_t done = 0;
    for (size_t at = 0; step->metaspace && at < bytes; at++) {
        if (text[at] == ' ') {
            tri_bytes_append(to, text + done, at - done);
            tri_bytes_append(to, space, length);
            done = at + 1;
        }
    }
    tri_bytes_append(to, text + done, bytes - done);
}

static enum tri_bpe_fault cut_pieces(struct tri_bpe_worker *worker, int level,
                                     const unsigned char *text, size_t bytes, struct place place)
{
    const struct tri_bpe *bpe = worker->bpe;
    if (level == bpe->steps) {
        return bpe->rules.characters && bpe->spaces_begin_words
                   ? cut_blocks(worker, text, bytes, false)
                   : cut_word(worker, text, bytes);
    }
    const struct tri_bpe_step *step = &bpe->step[level];
    bool spaced = text[0] == ' ' || (step->metaspace && is_block(text, bytes));
    bool prefix = !spaced && (step->prefix == TRI_PREFIX_ALWAYS
                                  ? place.begins
                                  : step->prefix == TRI_PREFIX_FIRST && place.first);
    if (prefix || step->metaspace) {
        rewrite(step, &worker->piece[level], prefix, text, bytes);
        text = worker->piece[level].data;
        bytes = worker->piece[level].bytes;
    }
    if (step->pattern) {
        return match_pieces(worker, level, text, bytes, place);
    }
    if (step->splits) {
        return cut_blocks(worker, text, bytes, true);
    }
    return cut_pieces(worker, level + 1, text, bytes, place);
}

/* ---- text between added tokens --------------------------------------------------------------- */

/* Valid UTF-8. */
static enum tri_bpe_fault encode_run(struct tri_bpe_worker *worker, const unsigned char *text,
                                     size_t bytes, struct place place)
{
    enum tri_bpe_fault fault = TRI_BPE_FINE;
    const struct tri_bpe *bpe = worker->bpe;
    struct tri_added_search search = {.plain = worker->plain};
    if (!tri_normalize(&bpe->normalizer, &worker->normal, text, &bytes, TRI_NORMAL_SPARE,
                       place.begins, &text)) {
        return TRI_BPE_GROWN;
    }
    for (bool found = true; found && fault == TRI_BPE_FINE;) {
        int32_t id;
        size_t end;
        size_t done = search.done;
        size_t begin = bytes;
        found = tri_added_find(bpe->normal, text, bytes, &search, &id, &begin, &end);
        if (begin > done) {
            fault = cut_pieces(worker, 0, text + done, begin - done, place);
        }
        if (found) {
            push(worker->tokens, id);
            place = (struct place){.begins = true};
        }
    }
    return fault;
}

/* Bytes that are no UTF-8 are words of their own, so that the text can be had back. */
static enum tri_bpe_fault encode_between(struct tri_bpe_worker *worker, const unsigned char *text,
                                         size_t bytes, struct place place)
{
    enum tri_bpe_fault fault = TRI_BPE_FINE;
    for (size_t at = 0; at < bytes && fault == TRI_BPE_FINE;) {
        size_t run = tri_utf8_valid(text + at, bytes - at);
        if (run > 0) {
            fault = encode_run(worker, text + at, run, place);
        }
        at += run;
        run = tri_utf8_invalid(text + at, bytes - at);
        if (run > 0 && fault == TRI_BPE_FINE) {
            fault = cut_word(worker, text + at, run);
        }
        at += run;
        place = (struct place){0};
    }
    return fault;
}

enum tri_bpe_fault tri_bpe_encode_part(struct tri_bpe_worker *worker, const unsigned char *text,
                                       size_t bytes, bool begins, struct tri_token_list *tokens)
{
    const struct tri_text_place whole = {.first = true};
    return tri_bpe_encode_piece(worker, text, bytes, begins, whole, tokens);
}

enum tri_bpe_fault tri_bpe_encode_piece(struct tri_bpe_worker *worker, const unsigned char *text,
                                        size_t bytes, bool begins, struct tri_text_place where,
                                        struct tri_token_list *tokens)
{
    enum tri_bpe_fault fault = TRI_BPE_FINE;
    struct place place = {begins, begins && where.first};
    struct tri_added_search search = {.plain = where.plain};
    worker->tokens = tokens;
    worker->plain = where.plain;
    for (bool found = true; found && fault == TRI_BPE_FINE;) {
        int32_t id;
        size_t end;
        size_t done = search.done;
        size_t begin = bytes;
        found = tri_added_find(worker->bpe->raw, text, bytes, &search, &id, &begin, &end);
        if (begin > done) {
            fault = encode_between(worker, text + done, begin - done, place);
        }
        if (found) {
            push(tokens, id);
            place = (struct place){.begins = true};
        }
    }
    return fault;
}
