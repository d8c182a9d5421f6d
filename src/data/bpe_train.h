/* Learning a byte-level byte-pair encoding from texts: the merges that the trainer of `tokenizers`
 * finds. Internal to data/. */
#ifndef TRIDENT_DATA_BPE_TRAIN_H
#define TRIDENT_DATA_BPE_TRAIN_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

enum { TRI_TRAIN_VOCAB_LEAST = 257, TRI_TRAIN_VOCAB_MOST = 1 << 20 };

struct tri_bpe_trainer;

enum tri_status tri_bpe_trainer_create(struct tri_bpe_trainer **trainer,
                                       struct tri_error *error) TRI_NODISCARD;
void tri_bpe_trainer_destroy(struct tri_bpe_trainer *trainer);
/* Counts the words of the next part of a document, which is cut where that changes no word; begins:
 * the first. Parts are held until such a place comes. */
enum tri_status tri_bpe_trainer_add(struct tri_bpe_trainer *trainer, bool begins,
                                    const unsigned char *text, size_t bytes,
                                    struct tri_error *error) TRI_NODISCARD;
/* Writes folder/tokenizer.json and tokenizer_config.json: `size` ids or, where the texts give no
 * more, fewer: 256 bytes, what is merged of them, and <|endoftext|>, the last. */
enum tri_status tri_bpe_trainer_finish(struct tri_bpe_trainer *trainer, int64_t size,
                                       const char *folder, struct tri_error *error) TRI_NODISCARD;

#endif
