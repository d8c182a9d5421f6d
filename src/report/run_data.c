#include "report/run_data.h"

#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/path.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MEMBER_PATH_MAX = TRI_PATH_MAX + 64, TEXT_MOST = 1 << 20, LOADS_MOST = 1 << 20 };

/* No run has more steps (train.steps), and two of them may be added. */
enum { STEPS_MOST = 1000000000 };

static const char *const splits[] = {"attention", "router",    "exchange",
                                     "experts",   "optimizer", "exposed_communication"};

const char *tri_split_name(enum tri_split split)
{
    return splits[split];
}

/* ---- loads ----------------------------------------------------------------------------------- */

const int64_t *tri_heat_get(const struct tri_heat *heat, int column, int64_t layer)
{
    return heat->load + (column * heat->layers + layer) * heat->experts;
}

static void join_columns(struct tri_heat *heat)
{
    const int64_t size = heat->layers * heat->experts;
    for (int c = 0; c < TRI_HEAT_COLUMNS; c++) {
        const int a = 2 * c, b = a + 1;
        bool has = c < TRI_HEAT_COLUMNS / 2;
        for (int64_t i = 0; i < size; i++) {
            heat->load[c * size + i] =
                has ? heat->load[a * size + i] + heat->load[b * size + i] : 0;
        }
        heat->first[c] = !has ? 0 : heat->first[a] ? heat->first[a] : heat->first[b];
        heat->last[c] = !has ? 0 : heat->last[b] ? heat->last[b] : heat->last[a];
    }
    heat->width *= 2;
}

/* Whether a line's table has the shape of the run's first one, and numbers. */
static bool is_table(const json_t *table, int64_t layers, int64_t experts)
{
    bool good = layers > 0 && (int64_t)json_array_size(table) == layers;
    for (int64_t l = 0; good && l < layers; l++) {
        const json_t *row = json_array_get(table, (size_t)l);
        good = (int64_t)json_array_size(row) == experts;
        for (int64_t e = 0; good && e < experts; e++) {
            const json_t *tokens = json_array_get(row, (size_t)e);
            good = json_is_integer(tokens) && json_integer_value(tokens) >= 0 &&
                   json_integer_value(tokens) <= INT64_MAX >> 20;
        }
    }
    return good;
}

static void add_loads(struct tri_heat *heat, int64_t step, const json_t *table)
{
    if (heat->width == 0) {
        const int64_t layers = (int64_t)json_array_size(table);
        const int64_t experts = (int64_t)json_array_size(json_array_get(table, 0));
        if (layers == 0 || experts == 0 || experts > LOADS_MOST / layers) {
            return;
        }
        heat->layers = layers;
        heat->experts = experts;
        heat->width = 1;
        heat->load = tri_alloc(TRI_MEMORY_OTHER,
                               (size_t)(TRI_HEAT_COLUMNS * layers * experts) * sizeof(*heat->load));
    }
    if (step < 1 || !is_table(table, heat->layers, heat->experts)) {
        return;
    }
    while ((step - 1) / heat->width >= TRI_HEAT_COLUMNS) {
        join_columns(heat);
    }
    int column = (int)((step - 1) / heat->width);
    heat->first[column] = heat->first[column] ? heat->first[column] : step;
    heat->last[column] = step;
    int64_t *load = heat->load + column * heat->layers * heat->experts;
    for (int64_t i = 0; i < heat->layers * heat->experts; i++) {
        const json_t *row = json_array_get(table, (size_t)(i / heat->experts));
        load[i] += json_integer_value(json_array_get(row, (size_t)(i % heat->experts)));
    }
}

/* ---- metrics.jsonl --------------------------------------------------------------------------- */

static double number_of(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : (double)NAN;
}

static void take_step(struct tri_report_run *run, int64_t step, const json_t *line)
{
    static const char *const keys[TRI_SERIES_COUNT] = {
        [TRI_SERIES_LOSS] = "loss",
        [TRI_SERIES_RATE] = "learning_rate",
        [TRI_SERIES_GRADIENT] = "grad_norm",
        [TRI_SERIES_SPEED] = "tokens_per_second",
    };
    const json_t *split = json_object_get(line, "step_split_ms");
    for (int s = 0; s < TRI_SERIES_COUNT; s++) {
        if (keys[s]) {
            tri_thin_add(&run->series[s], step, number_of(line, keys[s]));
        }
    }
    run->lines++;
    for (int s = 0; s < TRI_SPLIT_COUNT; s++) {
        double ms = number_of(split, splits[s]);
        run->split_ms[s] += isfinite(ms) ? ms : 0.0;
    }
    double ms = number_of(line, "step_ms");
    run->step_ms += isfinite(ms) ? ms : 0.0;
    const json_t *table = json_object_get(line, "expert_load");
    if (json_is_array(table)) {
        add_loads(&run->heat, step, table);
    }
}

static void take_line(struct tri_report_run *run, const char *text, size_t bytes)
{
    json_t *line = tri_json_find_excess(text, bytes) ? NULL : json_loadb(text, bytes, 0, NULL);
    const json_t *number = json_object_get(line, "step");
    const int64_t step = json_is_integer(number) ? json_integer_value(number) : -1;
    if (step < 0 || step > STEPS_MOST) {
        run->torn++;
    } else if (json_object_get(line, "loss")) {
        take_step(run, step, line);
    } else if (json_object_get(line, "valid_loss")) {
        tri_thin_add(&run->series[TRI_SERIES_VALID], step, number_of(line, "valid_loss"));
    }
    json_decref(line);
}

static void read_metrics(struct tri_report_run *run, const char *path)
{
    struct tri_mapping file;
    struct tri_error ignored;
    if (!tri_file_exists(path) || tri_file_map(path, &file, &ignored) != TRI_OK) {
        return;
    }
    const char *text = (const char *)file.data;
    for (size_t at = 0; at < file.size;) {
        const char *newline = memchr(text + at, '\n', file.size - at);
        if (!newline) {
            break; /* it is being written */
        }
        size_t bytes = (size_t)(newline - text) - at;
        take_line(run, text + at, bytes);
        at += bytes + 1;
    }
    tri_file_unmap(&file);
}

/* ---- the rest -------------------------------------------------------------------------------- */

static void member(const char *run, const char *name, char path[MEMBER_PATH_MAX])
{
    tri_path_make(path, MEMBER_PATH_MAX, "%s/%s", run, name);
}

/* The first of what cannot be read is on the page. */
static void note(struct tri_report_run *run, const struct tri_error *error)
{
    if (!run->look.problem[0]) {
        (void)snprintf(run->look.problem, sizeof(run->look.problem), "%.500s", error->message);
    }
}

static json_t *read_object(struct tri_report_run *run, const char *name)
{
    char path[MEMBER_PATH_MAX];
    json_t *root = NULL;
    struct tri_error error;
    member(run->look.path, name, path);
    if (tri_file_exists(path) && tri_json_load(path, &root, &error) != TRI_OK) {
        note(run, &error);
        return NULL;
    }
    return root;
}

static char *read_text(struct tri_report_run *run, const char *name)
{
    char path[MEMBER_PATH_MAX];
    struct tri_mapping file;
    struct tri_error error;
    member(run->look.path, name, path);
    if (!tri_file_exists(path)) {
        return NULL;
    }
    if (tri_file_map(path, &file, &error) != TRI_OK) {
        note(run, &error);
        return NULL;
    }
    size_t bytes = file.size < TEXT_MOST ? file.size : TEXT_MOST;
    char *text = tri_alloc(TRI_MEMORY_OTHER, bytes + 1);
    memcpy(text, file.data, bytes);
    tri_file_unmap(&file);
    return text;
}

enum tri_status tri_report_run_load(const char *path, struct tri_report_run *run,
                                    struct tri_error *error)
{
    char metrics[MEMBER_PATH_MAX];
    *run = (struct tri_report_run){0};
    if (!tri_file_is_dir(path) || !tri_run_is(path)) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: no run folder: found no status.json, "
                        "metrics.jsonl or environment.json in it",
                        path);
    }
    tri_run_look(path, &run->look);
    member(path, "metrics.jsonl", metrics);
    read_metrics(run, metrics);
    run->ledger = read_object(run, "ledger.json");
    run->plan = read_object(run, "plan.json");
    run->environment = read_object(run, "environment.json");
    run->config = read_text(run, "config.yaml");
    return TRI_OK;
}

void tri_report_run_fini(struct tri_report_run *run)
{
    json_decref(run->ledger);
    json_decref(run->plan);
    json_decref(run->environment);
    tri_free(run->config);
    tri_free(run->heat.load);
}
