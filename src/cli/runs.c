#include "base/file.h"
#include "base/memory.h"
#include "cli/command.h"
#include "train/run_look.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COLUMNS = 8, CELL = TRI_PATH_MAX + 1200 };

static const char *const titles[COLUMNS] = {"RUN",  "PARAMETERS", "EXPERTS",  "LAYOUT",
                                            "STEP", "LOSS",       "TOKENS/S", "STATE"};

/* "1.23 G", "45.6 M", "789 K" */
static int write_count(int64_t count, char *text, size_t bytes)
{
    const double value = (double)count;
    return value >= 1e9   ? snprintf(text, bytes, "%.2f G", value / 1e9)
           : value >= 1e6 ? snprintf(text, bytes, "%.1f M", value / 1e6)
                          : snprintf(text, bytes, "%.0f K", value / 1e3);
}

static void write_layout(const struct tri_run_status *status, char *text, size_t bytes)
{
    char grid[80] = "";
    if (status->cross * status->depth > 1) {
        (void)snprintf(grid, sizeof(grid), " (%lldx%lldx%lld)", (long long)status->tensor,
                       (long long)status->cross, (long long)status->depth);
    }
    (void)snprintf(text, bytes, "T%lld%s E%lld D%lld",
                   (long long)(status->tensor * status->cross * status->depth), grid,
                   (long long)status->expert, (long long)status->data);
}

/* One cell of a run's line; "-" for what is not known. */
static void write_cell(const struct tri_run_look *look, int column, char text[CELL])
{
    const struct tri_run_status *status = &look->status;
    int n;
    (void)snprintf(text, CELL, "-");
    switch (column) {
    case 0:
        (void)snprintf(text, CELL, "%s", look->path);
        break;
    case 1:
        if (status->parameters > 0) {
            n = write_count(status->parameters, text, CELL);
            if (status->active < status->parameters) {
                n += snprintf(text + n, (size_t)(CELL - n), ", ");
                (void)write_count(status->active, text + n, (size_t)(CELL - n));
            }
        }
        break;
    case 2:
        if (status->experts > 0) {
            (void)snprintf(text, CELL, "%lld top %lld", (long long)status->experts,
                           (long long)status->top_k);
        }
        break;
    case 3:
        if (status->ranks > 0) {
            write_layout(status, text, CELL);
        }
        break;
    case 4:
        n = snprintf(text, CELL, "%lld", (long long)look->step);
        if (status->steps > 0) {
            (void)snprintf(text + n, (size_t)(CELL - n), "/%lld", (long long)status->steps);
        }
        break;
    case 5:
        if (isfinite(look->loss)) {
            (void)snprintf(text, CELL, "%.4f", look->loss);
        }
        break;
    case 6:
        if (isfinite(look->tokens_per_second)) {
            (void)snprintf(text, CELL, "%.0f", look->tokens_per_second);
        }
        break;
    default:
        tri_run_seen_say(look, text, CELL);
    }
    tri_text_flatten(text);
}

/* A line for each; a column is as wide as what is in it. A name's bytes are taken for characters:
 * others move its line alone. */
static void print_table(const struct tri_run_look *looks, int64_t count)
{
    int width[COLUMNS];
    char *text = tri_alloc(TRI_MEMORY_OTHER, CELL);
    for (int c = 0; c < COLUMNS; c++) {
        width[c] = (int)strlen(titles[c]);
        for (int64_t i = 0; i < count && c < COLUMNS - 1; i++) {
            write_cell(&looks[i], c, text);
            width[c] = (int)strlen(text) > width[c] ? (int)strlen(text) : width[c];
        }
    }
    for (int64_t i = -1; i < count; i++) {
        for (int c = 0; c < COLUMNS; c++) {
            if (i >= 0) {
                write_cell(&looks[i], c, text);
            }
            bool right = c >= 4 && c < COLUMNS - 1;
            bool last = c == COLUMNS - 1;
            (void)printf(right ? "%*s%s" : "%-*s%s", last ? 0 : width[c], i < 0 ? titles[c] : text,
                         last ? "\n" : "  ");
        }
    }
    tri_free(text);
}

static json_t *count_or_null(int64_t value, bool known)
{
    return known ? json_integer(value) : json_null();
}

static json_t *object_of(const struct tri_run_look *look)
{
    const struct tri_run_status *status = &look->status;
    const bool described = status->ranks > 0;
    json_t *root = json_object();
    json_t *layout = described ? json_object() : json_null();
    if (described) {
        layout = json_pack("{sI sI sI sI sI sI}", "ranks", (json_int_t)status->ranks, "tensor",
                           (json_int_t)status->tensor, "cross", (json_int_t)status->cross, "depth",
                           (json_int_t)status->depth, "expert", (json_int_t)status->expert, "data",
                           (json_int_t)status->data);
    }
    (void)json_object_set_new(root, "path", tri_json_text(look->path));
    (void)json_object_set_new(root, "state", json_string(tri_run_seen_name(look->seen)));
    (void)json_object_set_new(root, "host",
                              status->host[0] ? tri_json_text(status->host) : json_null());
    (void)json_object_set_new(root, "pid", count_or_null(status->pid, described));
    (void)json_object_set_new(root, "reason",
                              status->reason[0] ? tri_json_text(status->reason) : json_null());
    (void)json_object_set_new(root, "parameters", count_or_null(status->parameters, described));
    (void)json_object_set_new(root, "active", count_or_null(status->active, described));
    (void)json_object_set_new(root, "experts", count_or_null(status->experts, described));
    (void)json_object_set_new(root, "top_k", count_or_null(status->top_k, described));
    (void)json_object_set_new(root, "layout", layout);
    (void)json_object_set_new(root, "step", json_integer(look->step));
    (void)json_object_set_new(root, "steps", count_or_null(status->steps, described));
    (void)json_object_set_new(root, "loss", tri_json_number(look->loss));
    (void)json_object_set_new(root, "tokens_per_second", tri_json_number(look->tokens_per_second));
    (void)json_object_set_new(root, "changed", count_or_null(look->changed, look->changed > 0));
    (void)json_object_set_new(root, "problem",
                              look->problem[0] ? tri_json_text(look->problem) : json_null());
    return root;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct tri_run_look *)a)->path, ((const struct tri_run_look *)b)->path);
}

static int newest_first(const void *a, const void *b)
{
    const struct tri_run_look *left = a, *right = b;
    return left->changed != right->changed ? (left->changed < right->changed ? 1 : -1)
                                           : by_name(a, b);
}

struct list {
    struct tri_run_look *looks;
    int64_t count;
};

static void join(struct list *list, const struct tri_run_look *looks, int64_t count)
{
    size_t bytes = (size_t)(list->count + count) * sizeof(*looks);
    list->looks = list->looks ? tri_resize(list->looks, bytes) : tri_alloc(TRI_MEMORY_OTHER, bytes);
    if (count > 0) {
        memcpy(list->looks + list->count, looks, (size_t)count * sizeof(*looks));
    }
    list->count += count;
}

static enum tri_status collect(const struct tri_arguments *arguments, struct list *list,
                               struct tri_error *error)
{
    for (int i = 0; i < arguments->num_words; i++) {
        const char *path = arguments->words[i];
        struct tri_run_look *looks;
        int64_t count;
        TRI_TRY(tri_file_check_access(path, error));
        if (!tri_file_is_dir(path)) {
            return tri_fail(error, TRI_BAD_INPUT, "%s: %s, expected a folder of runs, or a run",
                            path, tri_file_exists(path) ? "no folder" : "no such folder");
        }
        tri_runs_find(path, &looks, &count);
        join(list, looks, count);
        tri_free(looks);
    }
    return TRI_OK;
}

static void print_json(const struct list *list)
{
    json_t *runs = json_array();
    for (int64_t i = 0; i < list->count; i++) {
        (void)json_array_append_new(runs, object_of(&list->looks[i]));
    }
    tri_print_json(json_pack("{so}", "runs", runs));
}

enum tri_status tri_command_runs(const struct tri_arguments *arguments, struct tri_error *error)
{
    struct list list = {0};
    enum tri_status status = TRI_OK;
    if (tri_comm_rank(arguments->comm) == 0) {
        status = collect(arguments, &list, error);
        if (status == TRI_OK && list.count > 0) {
            qsort(list.looks, (size_t)list.count, sizeof(*list.looks),
                  tri_arguments_has(arguments, "--by-name") ? by_name : newest_first);
        }
        if (status == TRI_OK && tri_arguments_has(arguments, "--json")) {
            print_json(&list);
        } else if (status == TRI_OK) {
            print_table(list.looks, list.count);
        }
    }
    tri_free(list.looks);
    return tri_agree_everywhere(arguments, status, error);
}
