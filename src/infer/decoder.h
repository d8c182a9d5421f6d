/* Decoding one sequence with a KV cache. Attention stays within a document where the config has a
 * data.separator. The sequence is worked on by the first replica; the other ranks take part in its
 * collectives with no rows. */
#ifndef TRIDENT_INFER_DECODER_H
#define TRIDENT_INFER_DECODER_H

#include "model/model.h"

struct tri_decoder;

/* Bytes of a cache of `capacity` tokens, on the tensor rank that holds most of it. Local. */
int64_t tri_decoder_bytes(const struct tri_config *config, int64_t capacity);
/* capacity: tokens that the cache holds, at most the model's max_position. model is borrowed.
 * Local. */
struct tri_decoder *tri_decoder_create(struct tri_model *model, int64_t capacity);
void tri_decoder_destroy(struct tri_decoder *decoder);
/* Forgets the sequence. Local. */
void tri_decoder_reset(struct tri_decoder *decoder);
/* Appends n >= 1 tokens (the same on all ranks); logits [vocab] f32 of what comes after the last,
 * valid on world rank 0. length + n must not exceed the capacity. Collective over the mesh. */
void tri_decoder_feed(struct tri_decoder *decoder, const int32_t *tokens, int64_t n, float *logits);
int64_t tri_decoder_length(const struct tri_decoder *decoder);

struct tri_sampling {
    double temperature; /* 0: the most likely token */
    int64_t top_k;      /* 0: all */
    double top_p;       /* 1: all */
    uint64_t seed;
};

/* Next token from logits [vocab]; index keys the random number (the token's place). top_k first,
 * then top_p over what is left; ties go to the lower id. scratch holds vocab int32. Local. */
int32_t tri_sample(const float *logits, int64_t vocab, const struct tri_sampling *sampling,
                   uint64_t index, int32_t *scratch);

#endif
