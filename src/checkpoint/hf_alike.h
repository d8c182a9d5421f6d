/* Folders of weights, which each rank opens by the same name: where that leads to a disk of its own
 * node, one may be an older copy. */
#ifndef TRIDENT_CHECKPOINT_HF_ALIKE_H
#define TRIDENT_CHECKPOINT_HF_ALIKE_H

#include "checkpoint/safetensors.h"
#include "model/param.h"

/* Whether all ranks have opened files of the same names, sizes and headers, with the same bytes in
 * the middle of each tensor. set: NULL on a rank that could not, which says why. BAD_INPUT names
 * the folder, what differs, and on which ranks; where no rank could open it, whoever reads it says
 * why. Collective over the mesh's world; the status is the same on all ranks. */
enum tri_status tri_hf_compare_sets(const struct tri_mesh *mesh, const char *dir,
                                    const struct tri_safetensors_set *set,
                                    const struct tri_error *why,
                                    struct tri_error *error) TRI_NODISCARD;

/* Whether replicas, which read the same of a folder, have read the same bytes.
 * hashes[params->count] are those of what this rank read for each row, 0 where it read nothing.
 * BAD_INPUT names the folder, the row and two ranks. Collective over the mesh's world; the status
 * is the same on all ranks. */
enum tri_status tri_hf_compare_rows(const struct tri_params *params, const char *dir,
                                    const uint64_t *hashes, struct tri_error *error) TRI_NODISCARD;

#endif
