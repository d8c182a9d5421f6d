/* Bytes that grow. Internal to data/. */
#ifndef TRIDENT_DATA_STRING_H
#define TRIDENT_DATA_STRING_H

#include <stddef.h>

struct tri_string {
    char *data; /* no zero at the end; NULL while nothing was ever in it */
    size_t size, room;
};

void tri_string_append(struct tri_string *text, const void *data, size_t bytes);
void tri_string_fini(struct tri_string *text);

/* *block, which has *room entries of so many bytes of which `used` count, gets room for `more`. */
void tri_array_grow(void **block, size_t *room, size_t entry, size_t used, size_t more);

#endif
