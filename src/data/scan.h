/* JSON read from left to right, without a tree: a line may be long and hold much that nobody wants.
 * As strict as RFC 8259, strings are UTF-8; escapes may stand for a zero byte, and half a surrogate
 * pair is U+FFFD. Internal to data/. */
#ifndef TRIDENT_DATA_SCAN_H
#define TRIDENT_DATA_SCAN_H

#include "data/string.h"

#include <stdbool.h>

struct tri_scan {
    const char *at, *end;
    const char *expected; /* once something has failed: what, at `at`; constant text */
};

/* Functions that return a bool do so with false, and expected set, where the text is something
 * else. All skip the space before. */

/* The next byte that is no space; 0 at the end. It is not taken. */
char tri_scan_peek(struct tri_scan *scan);
/* Takes exactly this byte. */
bool tri_scan_take(struct tri_scan *scan, char byte, const char *expected);
/* A string, appended to text unless that is NULL. */
bool tri_scan_string(struct tri_scan *scan, struct tri_string *text);
/* Any value. */
bool tri_scan_skip(struct tri_scan *scan);
/* Nothing but space. */
bool tri_scan_finish(struct tri_scan *scan);
/* The next member's key, into text, and its colon; false at the closing brace, which is taken, and
 * on a failure. The opening brace has been taken; *first says that none came before and is
 * cleared. */
bool tri_scan_key(struct tri_scan *scan, bool *first, struct tri_string *text);
/* The same for an element of a list. */
bool tri_scan_element(struct tri_scan *scan, bool *first);
/* What a value that begins with this byte is: "a string", … */
const char *tri_scan_kind(char byte);

#endif
