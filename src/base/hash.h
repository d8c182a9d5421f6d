/* XXH3-64 of bytes that come in parts, in one process after another: a state can be packed, sent
 * and gone on with by another process of the same program. */
#ifndef TRIDENT_BASE_HASH_H
#define TRIDENT_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

struct tri_hash;

struct tri_hash *tri_hash_create(void);
void tri_hash_destroy(struct tri_hash *hash);
/* Back to no bytes. */
void tri_hash_reset(struct tri_hash *hash);
/* Gives a sign of work for every few megabytes. */
void tri_hash_update(struct tri_hash *hash, const void *data, size_t bytes);
/* Of all bytes so far; more may follow. */
uint64_t tri_hash_get(const struct tri_hash *hash);

enum { TRI_HASH_PACKED = 352 };
void tri_hash_pack(const struct tri_hash *hash, unsigned char packed[TRI_HASH_PACKED]);
void tri_hash_unpack(struct tri_hash *hash, const unsigned char packed[TRI_HASH_PACKED]);

#endif
