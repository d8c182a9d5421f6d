/* The keys of a GGUF file: the model's, and its tokenizer's. Internal to checkpoint/. */
#ifndef TRIDENT_CHECKPOINT_GGUF_KEYS_H
#define TRIDENT_CHECKPOINT_GGUF_KEYS_H

#include "checkpoint/gguf.h"
#include "checkpoint/gguf_header.h"

enum tri_ggml_type tri_gguf_number(enum tri_hf_number number);

void tri_gguf_put_model(struct tri_gguf_header *header, const struct tri_config *config,
                        enum tri_hf_family family, enum tri_hf_number number);

/* The tokenizer.json of a folder, with the special tokens and the chat template that stand beside
 * it; vocab_size: of the model, which may have ids without a token. BAD_INPUT: it is not there or
 * damaged, has more tokens than the model, or cuts a text as nothing in llama.cpp does. Local. */
enum tri_status tri_gguf_put_tokenizer(struct tri_gguf_header *header, const char *folder,
                                       int64_t vocab_size, struct tri_error *error) TRI_NODISCARD;

#endif
