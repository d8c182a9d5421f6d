/* Folders that all ranks write to. */
#ifndef TRIDENT_CHECKPOINT_ONE_FOLDER_H
#define TRIDENT_CHECKPOINT_ONE_FOLDER_H

#include "base/status.h"
#include "comm/comm.h"

/* Whether all ranks see the folder that rank 0 has just made: another node may have one of its own
 * under that name, left by an earlier save, whose files would take a rank's pieces. BAD_INPUT names
 * folder, rank and host. Collective over the group; the status is the same on all ranks. */
enum tri_status tri_one_folder_expect(struct tri_group *group, const char *path,
                                      struct tri_error *error) TRI_NODISCARD;

#endif
