/* UTF-8 and what characters are. Internal to data/. */
#ifndef TRIDENT_DATA_UTF8_H
#define TRIDENT_DATA_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of the valid UTF-8 that text begins with. */
size_t tri_utf8_valid(const unsigned char *text, size_t bytes);
/* Bytes at the beginning that belong to no character, up to where one may begin. */
size_t tri_utf8_invalid(const unsigned char *text, size_t bytes);

/* The character that begins at, or ends before, a place of valid UTF-8, and its bytes; 0 bytes:
 * there is none. */
size_t tri_utf8_next(const unsigned char *text, size_t bytes, int32_t *character);
size_t tri_utf8_last(const unsigned char *text, size_t bytes, int32_t *character);

bool tri_is_space(int32_t character); /* White_Space */
bool tri_is_letter(int32_t character);
/* What a word is made of: letters, marks, numbers, connectors. */
bool tri_is_word(int32_t character);

#endif
