/* Values that name several sets of shards. They are kept as the text that one writes in YAML, in
 * one form whoever wrote them: [{path: "a", weight: 0.7}, …] or {"name": "a", …}. */
#ifndef TRIDENT_CONFIG_SETS_H
#define TRIDENT_CONFIG_SETS_H

#include "config/schema.h"
#include "config/yaml_tree.h"

/* Whether the text is such a value, and not the path of one set. */
bool tri_sets_are(const char *text);

/* What is wrong with one: the node that is none, NULL where no one alone is, and as what it was
 * found, " as weight of set 2". */
struct tri_sets_fault {
    const struct tri_node *node;
    char as[128];
};

/* A list or mapping as that text; false when it is no value of the kind or does not fit. fault may
 * be NULL. */
bool tri_sets_read(enum tri_sets_kind kind, const struct tri_node *node, char text[TRI_PATH_MAX],
                   struct tri_sets_fault *fault);

#endif
