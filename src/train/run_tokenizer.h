/* The tokenizer of a run: its files go from the shards, or from what init_from names, into the run
 * folder, and from there into each checkpoint. */
#ifndef TRIDENT_TRAIN_RUN_TOKENIZER_H
#define TRIDENT_TRAIN_RUN_TOKENIZER_H

#include "config/config.h"

/* Makes RUN/tokenizer: what is beside the first training shards, or else in init_from; nothing
 * where neither has any. A run that goes on keeps the one it has. On one rank only. */
enum tri_status tri_run_tokenizer_keep(const struct tri_config *config, bool goes_on,
                                       struct tri_error *error) TRI_NODISCARD;

#endif
