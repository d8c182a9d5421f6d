/* A set of shards as the files of this folder see it. */
#ifndef TRIDENT_DATA_SHARD_SET_H
#define TRIDENT_DATA_SHARD_SET_H

#include "base/file.h"
#include "data/shards.h"

/* What may lie beside a shard NAME.bin. */
struct tri_beside {
    struct tri_mapping mask_file, documents_file;
    const unsigned char *mask; /* NAME.mask: a bit a token; NULL: all count */
    const unsigned char
        *documents; /* u64 places, ascending, of NAME.docs or NAME.idx; NULL: no file */
    int64_t num_documents;
    int64_t *own_documents; /* the same where no file has them; or NULL */
};

struct tri_shard {
    char *path;
    struct tri_mapping mapping;
    const unsigned char *data; /* the first token */
    int64_t first;             /* its place in the whole set */
    int64_t tokens;
    int width; /* bytes per token */
    bool has_header;
    struct tri_beside beside;
};

struct tri_tokens {
    struct tri_shard *shards;
    int num_shards;
    int64_t count, limit; /* every token is below limit */
    size_t bytes;         /* of all files */
    bool masked, documented;
};

/* The shard that holds token `position` of the set. */
int tri_tokens_shard_of(const struct tri_tokens *tokens, int64_t position);

/* NAME with another ending; false when that is the shard's own. */
bool tri_beside_name(const char *shard, const char *ending, char path[TRI_PATH_MAX]);
/* Width, tokens and documents of a shard of Megatron's, by the index beside it. */
enum tri_status tri_megatron_open(struct tri_shard *shard, struct tri_error *error) TRI_NODISCARD;
/* Opens what lies beside a shard whose tokens are known. On failure the caller closes it too. */
enum tri_status tri_beside_open(const char *shard, int64_t tokens, struct tri_beside *beside,
                                struct tri_error *error) TRI_NODISCARD;
void tri_beside_close(struct tri_beside *beside);

#endif
