/* Decoding sequences side by side with a KV cache. Attention stays within a document where the
 * config has a data.separator. Each replica works on its share of the rows (tri_rows_share); all
 * take part in the collectives, with no rows too. Rows of different lengths end at the same place
 * and begin with padding, which is in no row's attention. */
#ifndef TRIDENT_INFER_DECODER_H
#define TRIDENT_INFER_DECODER_H

#include "model/model.h"

struct tri_decoder;

/* Bytes of a cache of `rows` rows of `capacity` tokens, on the tensor rank that holds most of it.
 * Local. */
int64_t tri_decoder_bytes(const struct tri_config *config, int64_t rows, int64_t capacity);
/* rows: of all replicas, the same on all ranks; no share is larger than train.micro_batch.
 * capacity: tokens that the cache holds of each, at most the model's max_position. model is
 * borrowed. Local. */
struct tri_decoder *tri_decoder_create(struct tri_model *model, int64_t rows, int64_t capacity);
void tri_decoder_destroy(struct tri_decoder *decoder);
/* This rank's share of the rows. */
struct tri_range tri_decoder_rows(const struct tri_decoder *decoder);
/* Forgets the sequences; the first padding[row] tokens of each that come next are padding (any
 * token of the vocabulary), less than all that are fed first. NULL: none. Local. */
void tri_decoder_reset(struct tri_decoder *decoder, const int64_t *padding);
/* Forgets all but the first `length` tokens of each row. Local. */
void tri_decoder_rewind(struct tri_decoder *decoder, int64_t length);
/* Appends n >= 1 tokens to each row: tokens [own rows, n], those of this rank's share. logits [own
 * rows, vocab] f32 of what comes after each row's last, the same on the ranks of a replica. length
 * + n must not exceed the capacity. Collective over the mesh. */
void tri_decoder_feed(struct tri_decoder *decoder, const int32_t *tokens, int64_t n, float *logits);

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
