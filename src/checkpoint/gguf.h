/* GGUF files, which llama.cpp reads: models of the Hugging Face families that it knows too, to one
 * file with their tokenizer. docs/formats.md lists the names and keys. */
#ifndef TRIDENT_CHECKPOINT_GGUF_H
#define TRIDENT_CHECKPOINT_GGUF_H

#include "checkpoint/hf.h"
#include "checkpoint/hf_write.h"

/* The family of a model that llama.cpp can run. BAD_INPUT says what stands in the way. Pure. */
enum tri_status tri_gguf_family_of(const struct tri_config *config, enum tri_hf_family *family,
                                   struct tri_error *error) TRI_NODISCARD;
/* "llama", "olmoe", …: general.architecture. */
const char *tri_gguf_architecture(enum tri_hf_family family);

/* Where a row lies: tensors by the names of GGUF, [out, in] all of them, q, k and v of GPT-2 in
 * one, a layer's experts in one of three dimensions. False when the family has no tensor for it.
 * Pure. */
bool tri_gguf_source_get(enum tri_hf_family family, const struct tri_param *param,
                         int64_t num_experts, struct tri_hf_source *source);

/* Writes the file `path`, which must not be there yet, low-rank pairs merged. Matrices are of
 * `number`; vectors, routers and position tables f32, and in a file of q8_0 those matrices too
 * whose lines 32 does not divide. All ranks convert and write, with TRI_HF_BUFFER_BYTES in all
 * beside the weights; rank 0 has the tokenizer in memory as well. BAD_INPUT: a model that llama.cpp
 * does not know, or no tokenizer beside it that llama.cpp knows. Collective over the mesh's world;
 * the status is the same on all ranks, and after a failure nothing is left. */
enum tri_status tri_gguf_save(const char *path, const struct tri_config *config,
                              const struct tri_params *params, enum tri_hf_number number,
                              const struct tri_hf_origin *origin,
                              struct tri_error *error) TRI_NODISCARD;

#endif
