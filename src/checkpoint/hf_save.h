/* Internal to checkpoint/ and its tests. */
#ifndef TRIDENT_CHECKPOINT_HF_SAVE_H
#define TRIDENT_CHECKPOINT_HF_SAVE_H

#include "checkpoint/hf.h"

/* tri_hf_save with shards of at most shard_bytes, unless one tensor alone takes more, written in
 * pieces of about so many elements (0: as fits). */
enum tri_status tri_hf_save_shards(const char *dir, const struct tri_config *config,
                                   const struct tri_params *params,
                                   enum tri_safetensors_dtype dtype,
                                   const struct tri_hf_origin *origin, int64_t shard_bytes,
                                   int64_t piece, struct tri_error *error) TRI_NODISCARD;

#endif
