/* YAML text as a small tree whose nodes know their line. Only what a config needs: scalars, lists
 * and mappings with unique scalar keys, one document. Anchors, aliases and tags are refused: one
 * value is then always written in one place. */
#ifndef TRIDENT_CONFIG_YAML_TREE_H
#define TRIDENT_CONFIG_YAML_TREE_H

#include "base/status.h"

#include <stddef.h>

enum tri_node_kind { TRI_NODE_SCALAR, TRI_NODE_LIST, TRI_NODE_MAPPING };

struct tri_node {
    enum tri_node_kind kind;
    int line;    /* counted from 1 */
    bool quoted; /* a scalar in quotes: text, never a number */
    char *text;  /* a scalar's; contains no zero byte before its end */
    size_t count;
    struct tri_node **keys;  /* [count] of a mapping: scalars */
    struct tri_node **items; /* [count] of a list or mapping */
};

/* Parses text (length bytes, need not end in zero). `place` stands before the line in messages:
 * "PLACE:LINE: what is wrong". *root is NULL on failure, and on success the caller destroys it.
 * Text without any value is refused. Local. */
enum tri_status tri_yaml_parse(const char *place, const char *text, size_t length,
                               struct tri_node **root, struct tri_error *error) TRI_NODISCARD;
void tri_node_destroy(struct tri_node *node);

/* A plain scalar of its own, line 0. */
struct tri_node *tri_node_create_scalar(const char *text);

/* Whether the node says that there is no value: a plain empty scalar, `~` or `null`. */
bool tri_node_is_nothing(const struct tri_node *node);
/* The word `auto`. */
bool tri_node_is_auto(const struct tri_node *node);

#endif
