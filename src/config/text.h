/* Text that may stand in a message, in a file of one line each, and in YAML. */
#ifndef TRIDENT_CONFIG_TEXT_H
#define TRIDENT_CONFIG_TEXT_H

#include <stdbool.h>

/* Bytes of the UTF-8 character at `at`, which is not the final zero; *printable is false, and the
 * answer 1, when there is none, and false for control characters, line separators and what YAML
 * does not allow. */
int tri_text_next(const char *at, bool *printable);

/* Whether every character is printable. */
bool tri_text_is_clean(const char *text);

bool tri_text_ends_with(const char *text, const char *end);

#endif
