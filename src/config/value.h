/* Values: from a node of the tree, and back to text. */
#ifndef TRIDENT_CONFIG_VALUE_H
#define TRIDENT_CONFIG_VALUE_H

#include "config/schema.h"
#include "config/yaml_tree.h"

#include <stdio.h>

/* Converts; false when the node is no value of this key's type and range (value is then
 * undefined). */
bool tri_value_read(const struct tri_key *key, const struct tri_strategies *known,
                    const struct tri_node *node, union tri_value *value);

/* Whether a value that is already there is in the key's range (of NaN: no). */
bool tri_value_in_range(const struct tri_key *key, const struct tri_strategies *known,
                        const void *value);

/* As one writes it in YAML; numbers with the fewest digits that read back to the same bits. */
void tri_value_print(const struct tri_key *key, const void *value, FILE *out);
/* The same for what is only looked at, and computed: a number without the digits that are but
 * rounding. */
void tri_value_print_note(const struct tri_key *key, const void *value, FILE *out);

void tri_value_print_quoted(const char *text, FILE *out);
void tri_value_print_number(double number, FILE *out);

/* What the key accepts, in words: "an integer from 1 to 8". */
void tri_value_print_expected(const struct tri_key *key, const struct tri_strategies *known,
                              FILE *out);

/* What the two above print, as text for free(). */
char *tri_value_to_text(const struct tri_key *key, const void *value);
char *tri_value_expected_text(const struct tri_key *key, const struct tri_strategies *known);

/* What was found: a scalar in quotes, a list as [a, b], "a mapping" or "nothing". Short, one line,
 * without control characters; for free(). */
char *tri_node_found_text(const struct tri_node *node);

#endif
