/* Inside tests/meta: the files of a tree, line by line. */
#ifndef TESTS_META_WALK_H
#define TESTS_META_WALK_H

#include "meta/rules.h"

#include <stdbool.h>

/* What a rule is about while it walks; paths are relative to root. */
struct scope {
    const char *root;
    struct findings *findings;
    int level; /* of the folder that the files belong to */
    /* rules_check_foreign_headers; except: one file more, or NULL */
    const char *only_in, *header, *except;
    int limit;   /* rules_check_lengths */
    void *state; /* what a visitor of lines keeps */
};

typedef void (*visit_line)(const struct scope *scope, const char *path, int number,
                           const char *line);
typedef void (*visit_file)(const struct scope *scope, const char *path);

void find(struct findings *findings, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* "A/B", to be freed. */
char *join(const char *a, const char *b);
bool is_folder(const struct scope *scope, const char *path);
bool ends_with(const char *text, const char *end);

/* Number of lines, -1 when the file cannot be read; visit may be NULL. */
int for_each_line(const struct scope *scope, const char *path, visit_line visit);
/* Every file in folder and below whose name ends with one of these (ended by NULL); a folder that
 * does not exist has none. */
void for_each_file(const struct scope *scope, const char *folder, const char *const *ends,
                   visit_file visit);
/* Every .c and .h file. */
void for_each_source(const struct scope *scope, const char *folder, visit_file visit);

#endif
