/* Names of the rows of the parameter table. */
#ifndef TRIDENT_MODEL_PARAM_NAME_H
#define TRIDENT_MODEL_PARAM_NAME_H

#include "model/param.h"

/* "layers.3.moe.experts.5.up.weight" */
void tri_param_name(enum tri_role role, enum tri_place place, int64_t layer, int64_t expert,
                    char name[TRI_NAME_MAX]);

#endif
