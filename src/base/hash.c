/* The library's streams with a state that travels. What is sent of a state is all that bytes have
 * changed in it: not its pointer to a secret, which is another address in each process. */
#define XXH_STATIC_LINKING_ONLY /* shows what the state is made of; its functions are not used */
#include "base/hash.h"

#include "base/memory.h"
#include "base/status.h"
#include "base/work.h"

#include <string.h>
#include <xxhash.h>

enum { BLOCK = 16 << 20 };

struct tri_hash {
    XXH3_state_t *state;
};

struct packed {
    XXH64_hash_t sums[8];
    unsigned char buffer[XXH3_INTERNALBUFFER_SIZE];
    uint64_t buffered, stripes, total;
};

_Static_assert(sizeof(struct packed) <= TRI_HASH_PACKED, "a state has room");

struct tri_hash *tri_hash_create(void)
{
    struct tri_hash *hash = tri_alloc(TRI_MEMORY_OTHER, sizeof(*hash));
    /* Of another library than the one compiled against the state may be another. */
    TRI_REQUIRE(XXH_versionNumber() / 100 == XXH_VERSION_NUMBER / 100);
    hash->state = XXH3_createState();
    TRI_REQUIRE(hash->state);
    tri_hash_reset(hash);
    return hash;
}

void tri_hash_destroy(struct tri_hash *hash)
{
    if (hash) {
        (void)XXH3_freeState(hash->state);
        tri_free(hash);
    }
}

void tri_hash_reset(struct tri_hash *hash)
{
    (void)XXH3_64bits_reset(hash->state);
}

void tri_hash_update(struct tri_hash *hash, const void *data, size_t bytes)
{
    const char *at = data;
    while (bytes > 0) {
        size_t part = bytes < BLOCK ? bytes : BLOCK;
        (void)XXH3_64bits_update(hash->state, at, part);
        tri_work_progress();
        at += part;
        bytes -= part;
    }
}

uint64_t tri_hash_get(const struct tri_hash *hash)
{
    return XXH3_64bits_digest(hash->state);
}

void tri_hash_pack(const struct tri_hash *hash, unsigned char packed[TRI_HASH_PACKED])
{
    struct packed p = {.buffered = hash->state->bufferedSize,
                       .stripes = hash->state->nbStripesSoFar,
                       .total = hash->state->totalLen};
    memcpy(p.sums, hash->state->acc, sizeof(p.sums));
    memcpy(p.buffer, hash->state->buffer, sizeof(p.buffer));
    memset(packed, 0, TRI_HASH_PACKED);
    memcpy(packed, &p, sizeof(p));
}

void tri_hash_unpack(struct tri_hash *hash, const unsigned char packed[TRI_HASH_PACKED])
{
    struct packed p;
    memcpy(&p, packed, sizeof(p));
    tri_hash_reset(hash);
    memcpy(hash->state->acc, p.sums, sizeof(p.sums));
    memcpy(hash->state->buffer, p.buffer, sizeof(p.buffer));
    hash->state->bufferedSize = (XXH32_hash_t)p.buffered;
    hash->state->nbStripesSoFar = (size_t)p.stripes;
    hash->state->totalLen = p.total;
}
