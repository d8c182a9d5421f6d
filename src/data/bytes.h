/* Bytes that grow. Internal to data/. */
#ifndef TRIDENT_DATA_BYTES_H
#define TRIDENT_DATA_BYTES_H

#include <stddef.h>

struct tri_bytes {
    char *data; /* no zero at the end; NULL while nothing was ever in it */
    size_t size, room;
};

void tri_bytes_append(struct tri_bytes *text, const void *data, size_t bytes);
void tri_bytes_fini(struct tri_bytes *text);

/* *block, which has *room entries of so many bytes of which `used` count, gets room for `more`. */
void tri_array_grow(void **block, size_t *room, size_t entry, size_t used, size_t more);

#endif
