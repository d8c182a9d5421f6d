/* A set of tokens by what is in it, whatever its files are called and however it is cut. */
#include "base/memory.h"
#include "data/shards.h"

#include <string.h>
#include <xxhash.h>

enum { BLOCK = 1 << 16, BLOCKS = 256 };

/* block[size] <- whether tokens count as targets (0) or not (-1). */
static void list_masked(const struct tri_tokens *tokens, int64_t at, int64_t size, int32_t *block)
{
    memset(block, 0, (size_t)size * sizeof(*block));
    tri_tokens_mask(tokens, at, size, block);
}

/* block[size] <- whether a document begins there. */
static void list_documents(const struct tri_tokens *tokens, int64_t at, int64_t size,
                           int32_t *block)
{
    memset(block, 0, (size_t)size * sizeof(*block));
    int64_t next = at > 0 ? tri_tokens_next_document(tokens, at - 1) : 0;
    for (; next < at + size; next = tri_tokens_next_document(tokens, next)) {
        block[next - at] = 1;
    }
}

static void add(XXH3_state_t *state, const int32_t *block, int64_t size)
{
    TRI_REQUIRE(XXH3_64bits_update(state, block, (size_t)size * sizeof(*block)) == XXH_OK);
}

enum tri_status tri_tokens_contents(const struct tri_tokens *tokens, uint64_t *hash,
                                    struct tri_error *error)
{
    int64_t count = tri_tokens_count(tokens);
    bool whole = count <= (int64_t)BLOCK * BLOCKS;
    int64_t blocks = whole ? (count + BLOCK - 1) / BLOCK : BLOCKS;
    int32_t *block = tri_alloc(TRI_MEMORY_OTHER, BLOCK * sizeof(*block));
    XXH3_state_t *state = XXH3_createState();
    TRI_REQUIRE(state && XXH3_64bits_reset(state) == XXH_OK);
    enum tri_status status = TRI_OK;
    for (int64_t i = 0; i < blocks && status == TRI_OK; i++) {
        int64_t at = whole ? i * BLOCK : (count - BLOCK) / (BLOCKS - 1) * i;
        at = !whole && i == BLOCKS - 1 ? count - BLOCK : at;
        int64_t size = count - at < BLOCK ? count - at : BLOCK;
        status = tri_tokens_read(tokens, at, size, block, error);
        add(state, block, size);
        if (tri_tokens_masked(tokens)) {
            list_masked(tokens, at, size, block);
            add(state, block, size);
        }
        if (tri_tokens_documented(tokens)) {
            list_documents(tokens, at, size, block);
            add(state, block, size);
        }
    }
    *hash = XXH3_64bits_digest(state);
    (void)XXH3_freeState(state);
    tri_free(block);
    return status;
}
