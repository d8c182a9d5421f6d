/* What `trident tokenize` does: files of text, or of a document a line, become one stream of
 * tokens, whose last part becomes the validation shards and whose rest the training shards. */
#ifndef TRIDENT_DATA_TOKENIZE_H
#define TRIDENT_DATA_TOKENIZE_H

#include "base/status.h"
#include "data/documents.h"

#include <stdint.h>

enum {
    TRI_TOKENIZE_PER_SHARD = 100 * 1000 * 1000, /* tokens to a file unless asked otherwise */
    TRI_TOKENIZE_SEPARATOR_MAX = 65535 /* or the tokenizer's last id, where that is larger */
};

struct tri_tokenize_args {
    const char *tokenizer; /* as tri_tokenizer_create takes it; NULL with train_vocab */
    const char *folder;    /* made when it does not exist */
    int num_files;
    char *const *files; /* in the order in which they are joined */
    double valid;       /* fraction of the stream that validates, [0, 1); 0: none */
    int64_t separator;  /* token put between two documents; -1: none */
    int64_t per_shard;  /* tokens to a file; 0: TRI_TOKENIZE_PER_SHARD */
    enum tri_format format;
    const char *template; /* NULL: none is named */
    int64_t train_vocab;  /* ids of a tokenizer that is learned from the files; 0: none is */
};

struct tri_tokenize_result {
    int64_t bytes;      /* of the files, unpacked */
    int64_t vocab_size; /* the tokenizer's, or more when the separator lies beyond it */
    int64_t train_tokens, valid_tokens;
    int64_t train_shards, valid_shards;
    struct tri_documents_counts counts; /* without separators */
    const char *template;               /* of chats; NULL: there are none; constant text */
};

/* Writes folder/train_000000.bin … and, with valid > 0, folder/valid_000000.bin …: train takes the
 * first floor(total * (1 - valid)) tokens; where a file is JSON Lines, up to the border between
 * documents that is nearest to that. Beside them lie .docs where there are several documents or
 * lines, and .mask where a token does not count. Shards of those names that an earlier call left
 * are replaced as one set, once everything new is on disk; a failure before leaves them as they
 * were. folder/tokenizer is made what the tokenizer's files are. Local: one rank calls it.
 * BAD_INPUT: no files, a file missing, unreadable, damaged or empty, a line that is no document, a
 * number out of range, a side of the split without tokens. FAILED: the disk. */
enum tri_status tri_tokenize_files(const struct tri_tokenize_args *args,
                                   struct tri_tokenize_result *result,
                                   struct tri_error *error) TRI_NODISCARD;

#endif
