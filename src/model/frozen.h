/* Which weights train.freeze keeps as they are. */
#ifndef TRIDENT_MODEL_FROZEN_H
#define TRIDENT_MODEL_FROZEN_H

#include "config/config.h"

/* Whether a pattern of train.freeze is the name of this weight, or it is no low-rank pair of a
 * model that has some. */
bool tri_name_is_frozen(const struct tri_config *config, const char *name);

#endif
