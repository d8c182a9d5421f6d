/* A set of tokens by what is in it, whatever its files are called and however it is cut. */
#include "base/memory.h"
#include "data/shards.h"

#include <xxhash.h>

enum { BLOCK = 1 << 16, BLOCKS = 256 };

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
        TRI_REQUIRE(XXH3_64bits_update(state, block, (size_t)size * sizeof(*block)) == XXH_OK);
    }
    *hash = XXH3_64bits_digest(state);
    (void)XXH3_freeState(state);
    tri_free(block);
    return status;
}
