/* A cluster as a YAML file. What several rates have in common is written once: `any` in a section,
 * or the name of a family, and then what differs. */
#include "plan/cluster.h"

#include "base/file.h"
#include "base/memory.h"
#include "config/text.h"
#include "config/yaml_tree.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { FILE_MAX = 1 << 20, KEY_BYTES = 128 };

/* Of numbers of a rate that are not 0: what any machine stays far between, and whose products and
 * quotients are still numbers. */
#define LEAST_RATE 1e-60
#define MOST_RATE  1e60

static const char *const link_names[TRI_LINK_COUNT] = {"inside", "between"};

/* Names for several kinds of work, the wider first. */
static const struct {
    const char *name;
    int first, last;
} families[] = {
    {"any", 0, TRI_TASK_COUNT - 1},
    {"products", TRI_TASK_PRODUCT_FORWARD, TRI_TASK_PRODUCT_WEIGHT},
    {"attention", TRI_TASK_ATTENTION_FORWARD, TRI_TASK_ATTENTION_BACKWARD},
    {"loops", TRI_TASK_NORM, TRI_TASK_ROUTER},
};
enum { FAMILIES = sizeof(families) / sizeof(*families) };

struct reader {
    const char *path;
    struct tri_error *error;
};

static enum tri_status refuse(const struct reader *r, const struct tri_node *node, const char *key,
                              const char *expected)
{
    bool scalar = node->kind == TRI_NODE_SCALAR;
    return tri_fail(r->error, TRI_BAD_INPUT, "%s:%d: key '%s': found %s%.60s%s, expected %s",
                    r->path, node->line, key, scalar ? "'" : "", scalar ? node->text : "a section",
                    scalar ? "'" : "", expected);
}

static enum tri_status unknown(const struct reader *r, const struct tri_node *key,
                               const char *section, const struct tri_nearest *nearest)
{
    bool meant = nearest->name && tri_text_is_slip(nearest->distance, key->text);
    return tri_fail(r->error, TRI_BAD_INPUT, "%s:%d: unknown key '%.60s' in %s%s%s%s", r->path,
                    key->line, key->text, section, meant ? "; did you mean '" : "",
                    meant ? nearest->name : "", meant ? "'?" : "");
}

static enum tri_status read_number(const struct reader *r, const struct tri_node *node,
                                   const char *key, double least, double *number)
{
    char *end = NULL;
    *number = node->kind == TRI_NODE_SCALAR ? strtod(node->text, &end) : (double)NAN;
    if (node->kind != TRI_NODE_SCALAR || end == node->text || *end || !isfinite(*number) ||
        *number < least) {
        return refuse(r, node, key, least > 0.0 ? "a number from 1 up" : "a number from 0 up");
    }
    return TRI_OK;
}

static enum tri_status read_truth(const struct reader *r, const struct tri_node *node,
                                  const char *key, const char *yes, const char *no, bool *truth)
{
    char expected[64];
    bool scalar = node->kind == TRI_NODE_SCALAR;
    *truth = scalar && strcmp(node->text, yes) == 0;
    if (!*truth && (!scalar || strcmp(node->text, no) != 0)) {
        (void)snprintf(expected, sizeof(expected), "%s or %s", yes, no);
        return refuse(r, node, key, expected);
    }
    return TRI_OK;
}

static enum tri_status read_mapping(const struct reader *r, const struct tri_node *node,
                                    const char *key)
{
    return node->kind == TRI_NODE_MAPPING ? TRI_OK : refuse(r, node, key, "a section");
}

/* The numbers of a rate, by name. */
struct number {
    const char *name;
    double *value;
};

static enum tri_status read_numbers(const struct reader *r, const struct tri_node *node,
                                    const char *key, const struct number *numbers, size_t count)
{
    TRI_TRY(read_mapping(r, node, key));
    for (size_t i = 0; i < node->count; i++) {
        struct tri_nearest nearest = {0};
        double *value = NULL;
        char name[KEY_BYTES];
        for (size_t j = 0; j < count; j++) {
            tri_nearest_consider(&nearest, node->keys[i]->text, numbers[j].name);
            value = strcmp(node->keys[i]->text, numbers[j].name) == 0 ? numbers[j].value : value;
        }
        if (!value) {
            return unknown(r, node->keys[i], key, &nearest);
        }
        (void)snprintf(name, sizeof(name), "%.80s.%.20s", key, node->keys[i]->text);
        TRI_TRY(read_number(r, node->items[i], name, 0.0, value));
        if (*value > MOST_RATE || (*value > 0.0 && *value < LEAST_RATE)) {
            return refuse(r, node->items[i], name, "0, or a number from 1e-60 to 1e60");
        }
    }
    return TRI_OK;
}

/* ---- sections -------------------------------------------------------------------------------- */

static enum tri_status read_rate(const struct reader *r, const struct tri_node *node,
                                 const char *key, struct tri_rate *rate)
{
    const struct number numbers[] = {
        {"call", &rate->call}, {"flops", &rate->flops}, {"bytes", &rate->bytes}};
    *rate = (struct tri_rate){0};
    return read_numbers(r, node, key, numbers, sizeof(numbers) / sizeof(*numbers));
}

/* The kinds of work that a key stands for; how wide it is: 0 the widest. -1: none. */
static int find_work(const char *name, int *first, int *last, struct tri_nearest *nearest)
{
    int found = -1;
    for (int i = 0; i < FAMILIES; i++) {
        tri_nearest_consider(nearest, name, families[i].name);
        if (strcmp(name, families[i].name) == 0) {
            *first = families[i].first;
            *last = families[i].last;
            found = i == 0 ? 0 : 1;
        }
    }
    for (int work = 0; work < TRI_TASK_COUNT; work++) {
        tri_nearest_consider(nearest, name, tri_task_name((enum tri_task)work));
        if (strcmp(name, tri_task_name((enum tri_task)work)) == 0) {
            *first = *last = work;
            found = 2;
        }
    }
    return found;
}

static enum tri_status read_kernels(const struct reader *r, const struct tri_node *node,
                                    const char *section, struct tri_rate *rates)
{
    bool set[TRI_TASK_COUNT] = {false};
    TRI_TRY(read_mapping(r, node, section));
    for (int width = 0; width < 3; width++) {
        for (size_t i = 0; i < node->count; i++) {
            int first = 0;
            int last = -1;
            char key[KEY_BYTES];
            struct tri_nearest nearest = {0};
            struct tri_rate rate;
            int found = find_work(node->keys[i]->text, &first, &last, &nearest);
            if (found < 0) {
                return unknown(r, node->keys[i], section, &nearest);
            }
            if (found != width) {
                continue;
            }
            (void)snprintf(key, sizeof(key), "%.60s.%.40s", section, node->keys[i]->text);
            TRI_TRY(read_rate(r, node->items[i], key, &rate));
            for (int work = first; work <= last; work++) {
                rates[work] = rate;
                set[work] = true;
            }
        }
    }
    for (int work = 0; work < TRI_TASK_COUNT; work++) {
        if (!set[work]) {
            return tri_fail(r->error, TRI_BAD_INPUT, "%s:%d: %s has no rate for %s, nor for any",
                            r->path, node->line, section, tri_task_name((enum tri_task)work));
        }
    }
    return TRI_OK;
}

static enum tri_status read_link_rate(const struct reader *r, const struct tri_node *node,
                                      const char *key, struct tri_link_rate *rate)
{
    const struct number numbers[] = {{"message", &rate->message},
                                     {"bytes", &rate->bytes},
                                     {"from", &rate->from},
                                     {"large", &rate->large}};
    *rate = (struct tri_link_rate){0};
    TRI_TRY(read_numbers(r, node, key, numbers, sizeof(numbers) / sizeof(*numbers)));
    if ((rate->from > 0.0) != (rate->large > 0.0)) {
        return tri_fail(r->error, TRI_BAD_INPUT, "%s:%d: key '%s': found %s, expected both or none",
                        r->path, node->line, key,
                        rate->from > 0.0 ? "from without large" : "large without from");
    }
    return TRI_OK;
}

static enum tri_status read_link(const struct reader *r, const struct tri_node *node,
                                 const char *section, struct tri_link_rate *rates, double *hidden)
{
    bool set[TRI_OP_COUNT] = {false};
    TRI_TRY(read_mapping(r, node, section));
    for (int width = 0; width < 2; width++) {
        for (size_t i = 0; i < node->count; i++) {
            const char *name = node->keys[i]->text;
            struct tri_nearest nearest = {0};
            char key[KEY_BYTES];
            bool any = strcmp(name, "any") == 0;
            bool known = any;
            (void)snprintf(key, sizeof(key), "%.60s.%.40s", section, name);
            if (strcmp(name, "hidden") == 0) {
                TRI_TRY(read_number(r, node->items[i], key, 0.0, hidden));
                if (*hidden > 1.0) {
                    return refuse(r, node->items[i], key, "a number from 0 to 1");
                }
                continue;
            }
            tri_nearest_consider(&nearest, name, "hidden");
            for (int op = 0; op < TRI_OP_COUNT; op++) {
                struct tri_link_rate *rate = &rates[op];
                bool named = strcmp(name, tri_op_name((enum tri_op)op)) == 0;
                tri_nearest_consider(&nearest, name, tri_op_name((enum tri_op)op));
                known = known || named;
                if ((named && width == 1) || (any && width == 0)) {
                    TRI_TRY(read_link_rate(r, node->items[i], key, rate));
                    set[op] = true;
                }
            }
            if (!known) {
                return unknown(r, node->keys[i], section, &nearest);
            }
        }
    }
    for (int op = 0; op < TRI_OP_COUNT; op++) {
        if (!set[op]) {
            return tri_fail(r->error, TRI_BAD_INPUT, "%s:%d: %s has no rate for %s, nor for any",
                            r->path, node->line, section, tri_op_name((enum tri_op)op));
        }
    }
    return TRI_OK;
}

/* The sections of `node` that are named like this. */
static enum tri_status read_sections(const struct reader *r, const struct tri_node *node,
                                     struct tri_cluster *cluster, bool links)
{
    const char *above = links ? "links" : "kernels";
    int sections = links ? (int)TRI_LINK_COUNT : (int)TRI_CLUSTER_KERNELS;
    TRI_TRY(read_mapping(r, node, above));
    for (size_t i = 0; i < node->count; i++) {
        struct tri_nearest nearest = {0};
        char section[KEY_BYTES];
        int which = -1;
        for (int j = 0; j < sections; j++) {
            const char *name = links ? link_names[j] : tri_cluster_kernels_name(j);
            tri_nearest_consider(&nearest, node->keys[i]->text, name);
            which = strcmp(node->keys[i]->text, name) == 0 ? j : which;
        }
        if (which < 0) {
            return unknown(r, node->keys[i], above, &nearest);
        }
        (void)snprintf(section, sizeof(section), "%s.%s", above,
                       links ? link_names[which] : tri_cluster_kernels_name(which));
        if (links) {
            TRI_TRY(read_link(r, node->items[i], section, cluster->link[which],
                              &cluster->hidden[which]));
            cluster->has_link[which] = true;
        } else {
            TRI_TRY(read_kernels(r, node->items[i], section, cluster->rate[which]));
            cluster->has_kernels[which] = true;
        }
    }
    return TRI_OK;
}

static enum tri_status read_key(const struct reader *r, const struct tri_node *key,
                                const struct tri_node *node, struct tri_cluster *cluster)
{
    enum key_id { NAME, RANKS, MEMORY, ONE_LINK, SUMS, LINKS, KERNELS, KEYS };
    static const char *const names[KEYS] = {"name", "ranks_per_host", "memory_per_rank", "one_link",
                                            "sums", "links",          "kernels"};
    struct tri_nearest nearest = {0};
    double number = 0.0;
    int id = KEYS;
    for (int i = 0; i < KEYS; i++) {
        tri_nearest_consider(&nearest, key->text, names[i]);
        id = strcmp(key->text, names[i]) == 0 ? i : id;
    }
    switch ((enum key_id)id) {
    case NAME:
        if (node->kind != TRI_NODE_SCALAR || !tri_text_is_clean(node->text) ||
            strlen(node->text) >= TRI_CLUSTER_NAME) {
            return refuse(r, node, "name", "a line of text");
        }
        (void)snprintf(cluster->name, sizeof(cluster->name), "%s", node->text);
        return TRI_OK;
    case RANKS:
        TRI_TRY(read_number(r, node, "ranks_per_host", 1.0, &number));
        if (number > (double)(1 << 20) || number != floor(number)) {
            return refuse(r, node, "ranks_per_host", "an integer from 1 to 1048576");
        }
        cluster->ranks_per_host = (int)number;
        return TRI_OK;
    case MEMORY:
        TRI_TRY(read_number(r, node, "memory_per_rank", 0.0, &number));
        cluster->memory = number < 9e18 ? (int64_t)number : INT64_MAX;
        return TRI_OK;
    case ONE_LINK:
        return read_truth(r, node, "one_link", "true", "false", &cluster->one_link);
    case SUMS:
        return read_truth(r, node, "sums", "ring", "pairs", &cluster->ring);
    case LINKS:
    case KERNELS:
        return read_sections(r, node, cluster, id == LINKS);
    case KEYS:
        break;
    }
    return unknown(r, key, "a cluster", &nearest);
}

static enum tri_status read_tree(const struct reader *r, const struct tri_node *root,
                                 struct tri_cluster *cluster)
{
    TRI_TRY(read_mapping(r, root, "cluster"));
    for (size_t i = 0; i < root->count; i++) {
        TRI_TRY(read_key(r, root->keys[i], root->items[i], cluster));
    }
    const char *missing = cluster->ranks_per_host == 0             ? "ranks_per_host"
                          : !cluster->has_kernels[TRI_CLUSTER_F32] ? "kernels.f32"
                          : !cluster->has_link[TRI_LINK_INSIDE] && cluster->ranks_per_host > 1
                              ? "links.inside"
                              : NULL;
    if (missing) {
        return tri_fail(r->error, TRI_BAD_INPUT, "%s: key '%s' is missing", r->path, missing);
    }
    return TRI_OK;
}

enum tri_status tri_cluster_read(const char *path, struct tri_cluster *cluster,
                                 struct tri_error *error)
{
    struct tri_mapping file;
    struct tri_node *root;
    const struct reader reader = {path, error};
    *cluster = (struct tri_cluster){0};
    (void)snprintf(cluster->name, sizeof(cluster->name), "%s", path);
    TRI_TRY(tri_file_read(path, FILE_MAX, &file, error));
    enum tri_status status = tri_yaml_parse(path, (const char *)file.data, file.size, &root, error);
    tri_file_unmap(&file);
    if (status == TRI_OK) {
        status = read_tree(&reader, root, cluster);
        tri_node_destroy(root);
    }
    return status;
}

/* ---- writing --------------------------------------------------------------------------------- */

static void print_number(const char *name, double value, bool *first, FILE *out)
{
    if (value > 0.0) {
        (void)fprintf(out, "%s%s: %.4g", *first ? "" : ", ", name, value);
        *first = false;
    }
}

static void print_links(const struct tri_cluster *cluster, FILE *out)
{
    (void)fprintf(out, "links:\n");
    for (int i = 0; i < TRI_LINK_COUNT; i++) {
        if (!cluster->has_link[i]) {
            continue;
        }
        (void)fprintf(out, "  %s:\n    hidden: %.3g\n", link_names[i], cluster->hidden[i]);
        for (int op = 0; op < TRI_OP_COUNT; op++) {
            bool first = true;
            (void)fprintf(out, "    %s: {", tri_op_name((enum tri_op)op));
            print_number("message", cluster->link[i][op].message, &first, out);
            print_number("bytes", cluster->link[i][op].bytes, &first, out);
            print_number("from", cluster->link[i][op].from, &first, out);
            print_number("large", cluster->link[i][op].large, &first, out);
            (void)fprintf(out, "}\n");
        }
    }
}

void tri_cluster_print(const struct tri_cluster *cluster, const char *notes, FILE *out)
{
    for (const char *line = notes; *line;) {
        size_t length = strcspn(line, "\n");
        (void)fprintf(out, "# %.*s\n", (int)length, line);
        line += length + (line[length] == '\n');
    }
    (void)fprintf(out, "name: \"%s\"\nranks_per_host: %d\n", cluster->name,
                  cluster->ranks_per_host);
    if (cluster->memory > 0) {
        (void)fprintf(out, "memory_per_rank: %lld\n", (long long)cluster->memory);
    }
    if (cluster->has_link[TRI_LINK_INSIDE] || cluster->has_link[TRI_LINK_BETWEEN]) {
        print_links(cluster, out);
    }
    (void)fprintf(out, "kernels:\n");
    for (int kernels = 0; kernels < TRI_CLUSTER_KERNELS; kernels++) {
        if (!cluster->has_kernels[kernels]) {
            continue;
        }
        (void)fprintf(out, "  %s:\n", tri_cluster_kernels_name(kernels));
        for (int work = 0; work < TRI_TASK_COUNT; work++) {
            const struct tri_rate *rate = &cluster->rate[kernels][work];
            bool first = true;
            (void)fprintf(out, "    %s: {", tri_task_name((enum tri_task)work));
            print_number("call", rate->call, &first, out);
            print_number("flops", rate->flops, &first, out);
            print_number("bytes", rate->bytes, &first, out);
            (void)fprintf(out, "}\n");
        }
    }
}
