/* Rotary positions of config.json, in both spellings. Internal to checkpoint/. */
#ifndef TRIDENT_CHECKPOINT_HF_ROPE_H
#define TRIDENT_CHECKPOINT_HF_ROPE_H

#include "config/config.h"

#include <jansson.h>

/* rope_theta (left as it is where absent) and the scaling, of rope_scaling (transformers 4) and
 * rope_parameters (5); where there are both they must agree. BAD_INPUT names the key. */
enum tri_status tri_hf_rope_read(const char *path, const json_t *root,
                                 struct tri_config_model *model,
                                 struct tri_error *error) TRI_NODISCARD;

/* rope_theta, rope_parameters and, where it is scaled, rope_scaling: for json_decref. */
json_t *tri_hf_rope_keys(const struct tri_config_model *model);

#endif
