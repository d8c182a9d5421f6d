#include "checkpoint/checkpoint_state.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/path.h"
#include "base/json.h"
#include "checkpoint/manifest.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define MOST_SAMPLES INT64_C(0x3fffffffffffffff)

enum { PATH_BYTES = 2048, DIGITS = 17 /* of a double, exact */ };

void tri_checkpoint_state_fini(struct tri_checkpoint_state *state)
{
    tri_free(state->bias);
    tri_free(state->config);
    *state = (struct tri_checkpoint_state){0};
}

static json_t *bias_to_json(const struct tri_checkpoint_state *state)
{
    json_t *layers = json_array();
    for (int64_t l = 0; l < state->bias_layers && state->bias; l++) {
        json_t *row = json_array();
        for (int64_t e = 0; e < state->bias_experts; e++) {
            float value = state->bias[l * state->bias_experts + e];
            TRI_REQUIRE(isfinite(value));
            (void)json_array_append_new(row, json_real((double)value));
        }
        (void)json_array_append_new(layers, row);
    }
    return layers;
}

/* NULL, so null, when it is not known. */
static json_t *data_to_json(const struct tri_checkpoint_state *state)
{
    char digits[17];
    if (state->data_tokens == 0) {
        return NULL;
    }
    (void)snprintf(digits, sizeof(digits), "%016" PRIx64, state->data_contents);
    return json_pack("{s:I, s:s}", "tokens", (json_int_t)state->data_tokens, "contents", digits);
}

enum tri_status tri_checkpoint_state_save(const char *dir, const struct tri_checkpoint_state *state,
                                          uint64_t *bytes, uint64_t *hash, struct tri_error *error)
{
    json_t *root = json_pack(
        "{s:I, s:I, s:I, s:o?, s:I, s:I, s:I, s:o, s:s}", "step", (json_int_t)state->step, "tokens",
        (json_int_t)state->tokens, "samples", (json_int_t)state->samples, "data",
        data_to_json(state), "seed", (json_int_t)state->seed, "skipped_steps",
        (json_int_t)state->skipped_steps, "skipped_in_a_row", (json_int_t)state->skipped_in_a_row,
        "bias", bias_to_json(state), "config", state->config ? state->config : "");
    char *text = root ? json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(DIGITS)) : NULL;
    json_decref(root);
    if (!text) {
        return tri_fail(error, TRI_FAILED, "%s/state.json: the state is no valid text", dir);
    }
    char path[PATH_BYTES];
    tri_path_make(path, sizeof(path), "%s/state.json", dir);
    *bytes = strlen(text);
    *hash = XXH3_64bits(text, strlen(text));
    enum tri_status status = tri_file_save(path, text, strlen(text), error);
    free(text);
    return status;
}

static enum tri_status read_bias(const char *path, const json_t *layers,
                                 struct tri_checkpoint_state *state, struct tri_error *error)
{
    size_t rows = json_array_size(layers), columns = json_array_size(json_array_get(layers, 0));
    if (json_is_array(layers) && rows == 0) {
        return TRI_OK;
    }
    if (columns == 0) {
        return tri_fail(error, TRI_BAD_INPUT, "%s: bias: expected an array of layers of numbers",
                        path);
    }
    state->bias_layers = (int64_t)rows;
    state->bias_experts = (int64_t)columns;
    state->bias = tri_alloc(TRI_MEMORY_OTHER, rows * columns * sizeof(float));
    for (size_t l = 0; l < rows; l++) {
        const json_t *row = json_array_get(layers, l);
        if (json_array_size(row) != columns) {
            return tri_fail(error, TRI_BAD_INPUT,
                            "%s: bias: %zu values for layer %zu, expected %zu", path,
                            json_array_size(row), l, columns);
        }
        for (size_t e = 0; e < columns; e++) {
            const json_t *value = json_array_get(row, e);
            state->bias[l * columns + e] = (float)json_number_value(value);
            if (!json_is_number(value) || !isfinite(state->bias[l * columns + e])) {
                return tri_fail(error, TRI_BAD_INPUT,
                                "%s: bias: value %zu of layer %zu is no number that f32 holds",
                                path, e, l);
            }
        }
    }
    return TRI_OK;
}

/* Checkpoints of older programs don't have it. */
static enum tri_status read_samples(const char *path, const json_t *root, int64_t *samples,
                                    struct tri_error *error)
{
    *samples = -1;
    const json_t *found = json_object_get(root, "samples");
    return !found || json_is_null(found)
               ? TRI_OK
               : tri_json_get_int_in(path, root, "samples", 0, MOST_SAMPLES, samples, error);
}

static enum tri_status read_data(const char *path, const json_t *root,
                                 struct tri_checkpoint_state *state, struct tri_error *error)
{
    const json_t *data = json_object_get(root, "data");
    if (!data || json_is_null(data)) {
        return TRI_OK;
    }
    if (!json_is_object(data)) {
        return tri_fail(error, TRI_BAD_INPUT, "%s: data: expected an object", path);
    }
    TRI_TRY(tri_json_get_int_in(path, data, "tokens", 1, MOST_SAMPLES, &state->data_tokens, error));
    return tri_json_get_hash(path, data, "contents", &state->data_contents, error);
}

static enum tri_status read_state(const char *path, const json_t *root,
                                  struct tri_checkpoint_state *state, struct tri_error *error)
{
    const char *config = "";
    const int64_t most = TRI_CHECKPOINT_STEPS;
    int64_t *skipped = &state->skipped_steps, *in_a_row = &state->skipped_in_a_row;
    TRI_TRY(tri_json_get_int_in(path, root, "step", 0, most, &state->step, error));
    TRI_TRY(tri_json_get_int_in(path, root, "tokens", 0, MOST_SAMPLES, &state->tokens, error));
    TRI_TRY(read_samples(path, root, &state->samples, error));
    TRI_TRY(read_data(path, root, state, error));
    TRI_TRY(tri_json_get_int_in(path, root, "seed", 0, INT64_MAX, &state->seed, error));
    TRI_TRY(tri_json_get_int_in(path, root, "skipped_steps", 0, most, skipped, error));
    TRI_TRY(tri_json_get_int_in(path, root, "skipped_in_a_row", 0, *skipped, in_a_row, error));
    TRI_TRY(tri_json_get_text(path, root, "config", true, &config, error));
    state->config = tri_strdup(config);
    return read_bias(path, json_object_get(root, "bias"), state, error);
}

enum tri_status tri_checkpoint_state_load(const char *dir, struct tri_checkpoint_state *state,
                                          struct tri_error *error)
{
    char path[PATH_BYTES];
    json_t *root;
    *state = (struct tri_checkpoint_state){0};
    tri_path_make(path, sizeof(path), "%s/state.json", dir);
    TRI_TRY(tri_json_load(path, &root, error));
    enum tri_status status = read_state(path, root, state, error);
    json_decref(root);
    return status;
}
