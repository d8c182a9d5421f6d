/* A byte-pair encoding as tokenizer.json describes one. Internal to data/. */
#ifndef TRIDENT_DATA_BPE_H
#define TRIDENT_DATA_BPE_H

#include "data/added.h"
#include "data/normal.h"
#include "data/pattern.h"
#include "data/tokenizer.h"
#include "data/vocabulary.h"

enum { TRI_BPE_STEPS = 8 };

/* Who gets a space in front that has none. */
enum tri_prefix { TRI_PREFIX_NONE, TRI_PREFIX_FIRST, TRI_PREFIX_ALWAYS };

/* How pieces of text become smaller ones. */
struct tri_bpe_step {
    struct tri_pattern *pattern; /* owned; NULL: a piece stays whole */
    bool drops;                  /* what lies between two matches */
    enum tri_prefix prefix;
    bool metaspace; /* a space is written U+2581 */
    bool splits;    /* with metaspace: a piece begins at each of them */
};

struct tri_bpe {
    struct tri_tokenizer interface; /* first */
    struct tri_vocabulary *vocabulary;
    struct tri_vocabulary *printed; /* what tokens print where that is not what words are made of */
    struct tri_word_rules rules;
    struct tri_added *raw, *normal; /* found before and after a text is normalized */
    struct tri_normalizer normalizer;
    struct tri_bpe_step step[TRI_BPE_STEPS];
    int steps;
    bool spaces_begin_words; /* no token has U+2581 behind another character */
    bool cuts;               /* a text may be cut between a letter and a space */
    bool cuts_lines;         /* and a line feed, or only a space */
    bool cuts_raw;           /* wherever no token of raw is at */
    bool cuts_normal;        /* the same of normal */
    unsigned char *special;  /* of each id, whether it is */
    int threads;
};

/* What one thread needs to encode; tokens are appended to the list. */
struct tri_bpe_worker;
struct tri_bpe_worker *tri_bpe_worker_create(const struct tri_bpe *bpe);
void tri_bpe_worker_destroy(struct tri_bpe_worker *worker);
/* Why a text cannot be taken. */
enum tri_bpe_fault {
    TRI_BPE_FINE,
    TRI_BPE_STUCK,    /* a pattern takes more steps than a match may */
    TRI_BPE_GROWN,    /* the normalizer makes too much of it */
    TRI_BPE_LONG_WORD /* it has one of more bytes than the rules allow */
};
/* A part of a text that was cut where it may be; begins: its first one. */
enum tri_bpe_fault tri_bpe_encode_part(struct tri_bpe_worker *worker, const unsigned char *text,
                                       size_t bytes, bool begins,
                                       struct tri_token_list *tokens) TRI_NODISCARD;
/* The same of a text, or where it begins of what stands between two tokens of a larger one: that is
 * not `first`. plain: special tokens' names are text. */
enum tri_bpe_fault tri_bpe_encode_piece(struct tri_bpe_worker *worker, const unsigned char *text,
                                        size_t bytes, bool begins, struct tri_text_place place,
                                        struct tri_token_list *tokens) TRI_NODISCARD;
const struct tri_bpe *tri_bpe_worker_bpe(const struct tri_bpe_worker *worker);

/* The encode of an interface: on bpe->threads threads, the same tokens on any number of them. */
enum tri_status tri_bpe_encode(const struct tri_tokenizer *tokenizer, const unsigned char *text,
                               size_t bytes, tri_token_sink sink, void *context,
                               struct tri_error *error) TRI_NODISCARD;

/* The three of an interface that make tokens of short texts, on the caller's thread. */
void *tri_bpe_encoder_create(const struct tri_tokenizer *tokenizer);
void tri_bpe_encoder_destroy(void *encoder);
enum tri_status tri_bpe_encoder_encode(void *encoder, const unsigned char *text, size_t bytes,
                                       struct tri_text_place place, tri_token_sink sink,
                                       void *context, struct tri_error *error) TRI_NODISCARD;

/* Reads tokenizer.json. BAD_INPUT names the file and the key that is wrong, or asks for what
 * Trident does not do. */
enum tri_status tri_bpe_load(const char *path, struct tri_tokenizer **tokenizer,
                             struct tri_error *error) TRI_NODISCARD;
void tri_bpe_destroy(struct tri_tokenizer *tokenizer);

#endif
