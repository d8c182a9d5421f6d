/* The tokenizer of a run: its files go from the shards, or from what the run begins with, into the
 * run folder, and from there into each checkpoint. */
#ifndef TRIDENT_TRAIN_RUN_TOKENIZER_H
#define TRIDENT_TRAIN_RUN_TOKENIZER_H

#include "config/config.h"

/* Makes RUN/tokenizer: what is in the checkpoint that the run goes on from ("": none), or else
 * beside the first training shards, or in init_from; nothing where none has any. A run that goes on
 * from a checkpoint of its own keeps the one it has. On one rank only. */
enum tri_status tri_run_tokenizer_keep(const struct tri_config *config, const char *checkpoint,
                                       bool own, struct tri_error *error) TRI_NODISCARD;

/* Warns, in the name of `command`, of each set whose shards another tokenizer has made than the
 * one that `model` keeps, a run, a checkpoint or a folder; nothing where either has none. On one
 * rank. */
void tri_run_tokenizer_compare(const char *command, const char *model, const struct tri_sets *sets);

#endif
