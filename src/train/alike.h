/* What a command works on, compared over the ranks before anything depends on it: ranks with other
 * configs, processors or data would train on, to wrong numbers. BAD_INPUT, the same on all ranks,
 * names what differs, the values and the ranks. */
#ifndef TRIDENT_TRAIN_ALIKE_H
#define TRIDENT_TRAIN_ALIKE_H

#include "comm/comm.h"
#include "config/config.h"
#include "data/choices.h"
#include "data/shards.h"

/* Every key of the table, and the kernels that this config runs on. Collective over group. */
enum tri_status tri_alike_config(struct tri_group *group, const struct tri_config *config,
                                 struct tri_error *error) TRI_NODISCARD;

/* The shards of `pattern`: how many, their names, sizes and contents (tri_tokens_fingerprint).
 * Collective over group. */
enum tri_status tri_alike_tokens(struct tri_group *group, const char *pattern,
                                 const struct tri_tokens *tokens,
                                 struct tri_error *error) TRI_NODISCARD;

/* The questions of the file at `path`. Collective over group. */
enum tri_status tri_alike_choices(struct tri_group *group, const char *path,
                                  const struct tri_choices *choices,
                                  struct tri_error *error) TRI_NODISCARD;

/* The manifest of the checkpoint at `path`, so all that is in it. Collective over group. */
enum tri_status tri_alike_checkpoint(struct tri_group *group, const char *path,
                                     struct tri_error *error) TRI_NODISCARD;

#endif
