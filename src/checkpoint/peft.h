/* Low-rank pairs as PEFT's adapters: adapter_model.safetensors and adapter_config.json. */
#ifndef TRIDENT_CHECKPOINT_PEFT_H
#define TRIDENT_CHECKPOINT_PEFT_H

#include "checkpoint/hf.h"

/* Whether the family's modules can have the config's pairs: GPT-2's q, k and v are one matrix. Says
 * what stands in the way. Pure. */
enum tri_status tri_peft_check(const struct tri_config *config, enum tri_hf_family family,
                               struct tri_error *error) TRI_NODISCARD;
/* What files call half A or B of the pair of a weight: "base_model.model.MODULE.lora_A.weight". */
enum { TRI_PEFT_NAME = 256 };
void tri_peft_name(const struct tri_hf_source *source, char half, char name[TRI_PEFT_NAME]);

/* Rank, alpha and targets of DIR/adapter_config.json and the names of the tensors beside it.
 * BAD_INPUT names what Trident would compute otherwise. Local. */
enum tri_status tri_peft_load_config(const char *dir, struct tri_config_lora *lora,
                                     struct tri_error *error) TRI_NODISCARD;
/* The pairs of DIR into params, built from config with the section above and allocated; pairs that
 * DIR does not have stay as they are, with a warning. All tensors must be used, in their shapes.
 * Collective over the mesh's world; the status is the same on all ranks. */
enum tri_status tri_peft_load(const char *dir, const struct tri_config *config,
                              struct tri_params *params, struct tri_error *error) TRI_NODISCARD;

/* Writes dir, which must not be there yet: the pairs alone, f32; base: the folder of the model that
 * they are for, of rank 0, or "". Collective over the mesh's world;
 * the status is the same on all ranks, and after a failure nothing is left. */
enum tri_status tri_peft_save(const char *dir, const struct tri_config *config,
                              enum tri_hf_family family, const char *base,
                              const struct tri_params *params,
                              struct tri_error *error) TRI_NODISCARD;

/* values, the weight gathered on world rank 0 (NULL or unused elsewhere), += alpha / rank B A where
 * it has a pair. Collective over the mesh's world. */
void tri_peft_merge(const struct tri_params *params, const struct tri_config_lora *lora,
                    const struct tri_param *weight, float *values);

#endif
