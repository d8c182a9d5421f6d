/* What is read to be tokenized: a file as it is, or what a gzip or zstd archive holds, which is
 * known by its first bytes and not by its name. */
#ifndef TRIDENT_DATA_INPUT_H
#define TRIDENT_DATA_INPUT_H

#include "base/status.h"

#include <stddef.h>

enum tri_packing { TRI_PACKING_NONE, TRI_PACKING_GZIP, TRI_PACKING_ZSTD };

struct tri_input;

/* Local. BAD_INPUT: cannot be read, or an empty file. */
enum tri_status tri_input_open(const char *path, struct tri_input **input,
                               struct tri_error *error) TRI_NODISCARD;
enum tri_packing tri_input_packing(const struct tri_input *input);
/* data[room] <- the next bytes, *got of them: fewer than room at the end alone. BAD_INPUT: the
 * disk, an archive that is damaged or ends too early; then only tri_input_close is allowed. */
enum tri_status tri_input_read(struct tri_input *input, void *data, size_t room, size_t *got,
                               struct tri_error *error) TRI_NODISCARD;
/* Takes NULL. */
void tri_input_close(struct tri_input *input);

#endif
