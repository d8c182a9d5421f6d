/* Text that may stand in a message, in a file of one line each, and in YAML; how far a word is from
 * another one. */
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

/* Insertions, removals and changes of one letter that make one of the other; of both only the first
 * 80 letters count. */
int tri_text_distance(const char *a, const char *b);

/* The name that is nearest to what was written, of those that were considered; begin with {0}. */
struct tri_nearest {
    const char *name;
    int distance;
};

void tri_nearest_consider(struct tri_nearest *nearest, const char *written, const char *name);

/* Whether a word that far from what was written is what was meant. */
bool tri_text_is_slip(int distance, const char *written);

#endif
