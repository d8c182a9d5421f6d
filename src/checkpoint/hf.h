/* Hugging Face directories: config.json and safetensors of eight families, to and from a Trident
 * config and its parameter table. docs/formats.md lists the names and keys. */
#ifndef TRIDENT_CHECKPOINT_HF_H
#define TRIDENT_CHECKPOINT_HF_H

#include "checkpoint/safetensors.h"
#include "config/config.h"
#include "model/param.h"

enum tri_hf_family {
    TRI_HF_MIXTRAL,
    TRI_HF_OLMOE,
    TRI_HF_QWEN2_MOE,
    TRI_HF_QWEN3_MOE,
    TRI_HF_GPT2,
    TRI_HF_LLAMA,
    TRI_HF_QWEN3,
    TRI_HF_MISTRAL,
    TRI_HF_FAMILY_COUNT
};

/* "mixtral", …: model_type of config.json. */
const char *tri_hf_family_name(enum tri_hf_family family);

/* Where a row of the table lies in the family's files. Element (i, j) of the row is element
 * (first + i, j) of the matrix at `index` of the tensor, or (j, first + i) where it is
 * transposed. Where there are heads, row h of the first half of one is its row 2 h instead, and of
 * the second half 2 h + 1: a pair that rope turns lies together. */
struct tri_hf_source {
    char name[160];
    int dims; /* of the whole tensor */
    int64_t shape[3];
    int64_t index;   /* along the first of three dimensions; 0 otherwise */
    int64_t first;   /* first row (transposed: column) */
    bool transposed; /* GPT-2 keeps its matrices [in, out] */
    int64_t head;    /* rows of a head that is written so; 0: rows stay */
};

/* How experts are spelled: one tensor each, or one for all (transformers 5 in memory). */
enum tri_hf_spelling { TRI_HF_PER_EXPERT, TRI_HF_FUSED };

/* The source of a row; false when the family has no tensor for it (then a config that needs the row
 * is none of this family). num_experts is that of the model. Pure. */
bool tri_hf_source_get(enum tri_hf_family family, const struct tri_param *param,
                       int64_t num_experts, enum tri_hf_spelling spelling,
                       struct tri_hf_source *source);

/* What tri_hf_load_weights and tri_hf_save take beside the weights, unless a row alone is larger: a
 * block as the file has it and as numbers, and what comes from other ranks and goes to them. */
enum { TRI_HF_BUFFER_BYTES = 16 << 20 };

/* DIR/config.json: sets config to defaults, fills sections model and moe (precision f32, the
 * sequence length no longer than the model's), finishes it. family may be NULL. BAD_INPUT names
 * the key that Trident cannot honour: an unknown architecture, windows in use, scaled rope,
 * clipped q, k, v, other activations, quantised weights. Local. */
enum tri_status tri_hf_load_config(const char *dir, struct tri_config *config,
                                   enum tri_hf_family *family,
                                   struct tri_error *error) TRI_NODISCARD;

/* Whether DIR, which has a config.json, has weights that can be read too: BAD_INPUT says what is
 * there instead, or which header is damaged. Local. */
enum tri_status tri_hf_check_folder(const char *dir, struct tri_error *error) TRI_NODISCARD;

/* The weights that transformers would read from DIR into params, built from the config above on any
 * mesh and allocated. Every rank reads its own slices, with TRI_HF_BUFFER_BYTES in all beside them.
 * Every row must be filled and every element of a tensor of its blocks used, once; rotary tables,
 * attention masks and a head that equals tied embeddings are passed over, and with a warning what
 * lies beside the model. Of a dense folder and params with experts each expert is
 * filled with the dense MLP, and routers stay as they are. Collective over the mesh's world; the
 * status is the same on all ranks. */
enum tri_status tri_hf_load_weights(const char *dir, struct tri_params *params,
                                    struct tri_error *error) TRI_NODISCARD;

/* Normal noise on the matrices of experts that are copies of one dense MLP; of all else none. */
struct tri_hf_noise {
    double deviation;
    uint64_t seed;
};

/* tri_hf_load_weights with noise, the same on every layout. */
enum tri_status tri_hf_load_upcycled(const char *dir, struct tri_params *params,
                                     const struct tri_hf_noise *noise,
                                     struct tri_error *error) TRI_NODISCARD;

/* ---- writing --------------------------------------------------------------------------------- */

/* The family whose files can hold a model of this config. BAD_INPUT says what stands in the way.
 * Pure. */
enum tri_status tri_hf_family_of(const struct tri_config *config, enum tri_hf_family *family,
                                 struct tri_error *error) TRI_NODISCARD;

/* Where a model comes from: a checkpoint, whose own tokenizer's files go along, and the Hugging
 * Face folder that it began with, whose files do otherwise and whose ids of special tokens go into
 * config.json; "" or NULL: none. */
struct tri_hf_origin {
    const char *checkpoint, *folder;
};

/* Families that differ by their names alone: the one that `folder`, the Hugging Face folder that a
 * model began with, has, where the config is of both. "" or NULL, or one that cannot be read:
 * stays. Local. */
void tri_hf_keep_name(const struct tri_config *config, const char *folder,
                      enum tri_hf_family *family);

/* Writes dir/config.json of the family, by the name that its origin has, and the
 * generation_config.json that follows from it. origin may be NULL. Local: one rank. */
enum tri_status tri_hf_save_config(const char *dir, const struct tri_config *config,
                                   enum tri_hf_family family, enum tri_safetensors_dtype dtype,
                                   const struct tri_hf_origin *origin,
                                   struct tri_error *error) TRI_NODISCARD;
/* Copies what stands beside a model: the files of its tokenizer, with chat template and
 * generation_config.json. Local. */
enum tri_status tri_hf_copy_files(const char *dir, const struct tri_hf_origin *origin,
                                  struct tri_error *error) TRI_NODISCARD;

/* Writes dir, which must not be there yet, low-rank pairs merged: config.json and model.safetensors
 * (or shards of 5 GB and their index), weights as F32, BF16 or F16 (BAD_INPUT names a tensor that
 * does not fit), names per expert, as transformers 4 and 5 both read, and what its origin has
 * beside them. All ranks convert and write, with TRI_HF_BUFFER_BYTES in all beside the weights.
 * Collective over the mesh's world; the status is the same on all ranks, and after a
 * failure nothing is left. */
enum tri_status tri_hf_save(const char *dir, const struct tri_config *config,
                            const struct tri_params *params, enum tri_safetensors_dtype dtype,
                            const struct tri_hf_origin *origin,
                            struct tri_error *error) TRI_NODISCARD;
/* Whether it could begin: BAD_INPUT or FAILED, before long work. Local. */
enum tri_status tri_hf_check_target(const char *dir, struct tri_error *error) TRI_NODISCARD;

#endif
