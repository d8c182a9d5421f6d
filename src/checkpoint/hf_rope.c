#include "checkpoint/hf_rope.h"

#include "base/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* As config.json spells model.rope_scaling. */
static const char *const types[] = {"default", "linear", "dynamic", "llama3", "yarn"};
enum { TYPES = sizeof(types) / sizeof(*types), LARGEST = 1000000 };

/* A table, read. */
struct table {
    const char *path, *name;
    const json_t *root;
    struct tri_config_model *model;
    struct tri_error *error;
};

static enum tri_status refuse(const char *path, const char *key, const json_t *value,
                              const char *why, struct tri_error *error)
{
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    enum tri_status status = tri_fail(error, TRI_BAD_INPUT, "%s: %s: %.100s: %s", path, key,
                                      text ? text : "absent", why);
    free(text);
    return status;
}

static enum tri_status refuse_table(const struct table *t, const char *why)
{
    return refuse(t->path, t->name, t->root, why, t->error);
}

static enum tri_status get(const struct table *t, const char *key, double *value)
{
    return tri_json_get_real(t->path, t->root, key, false, value, t->error);
}

static bool has(const json_t *root, const char *key)
{
    const json_t *value = json_object_get(root, key);
    return value && !json_is_null(value);
}

/* Of yarn: how much more the scaled attention is sharpened by. */
static double sharpness(double factor, double scale)
{
    return factor <= 1 ? 1.0 : 0.1 * scale * log(factor) + 1.0;
}

static enum tri_status read_yarn(const struct table *t)
{
    struct tri_config_model *m = t->model;
    double of_one = 0, of_all = 0;
    m->rope_truncate = true;
    TRI_TRY(get(t, "beta_fast", &m->rope_betas[0]));
    TRI_TRY(get(t, "beta_slow", &m->rope_betas[1]));
    TRI_TRY(get(t, "mscale", &of_one));
    TRI_TRY(get(t, "mscale_all_dim", &of_all));
    TRI_TRY(tri_json_get_bool(t->path, t->root, "truncate", false, &m->rope_truncate, t->error));
    if (!has(t->root, "factor")) {
        m->rope_factor = (double)m->max_position / (double)m->rope_original;
    }
    m->rope_attention = of_one > 0 && of_all > 0
                            ? sharpness(m->rope_factor, of_one) / sharpness(m->rope_factor, of_all)
                            : sharpness(m->rope_factor, 1.0);
    TRI_TRY(get(t, "attention_factor", &m->rope_attention));
    if (!(m->rope_attention > 0 && m->rope_attention <= LARGEST)) {
        return refuse_table(t, "attention_factor: expected a number above 0 to 1000000");
    }
    return m->rope_betas[0] >= m->rope_betas[1]
               ? TRI_OK
               : refuse_table(t, "beta_fast: expected at least beta_slow");
}

static enum tri_status read_scaling(const struct table *t)
{
    struct tri_config_model *m = t->model;
    int64_t original = m->max_position;
    TRI_TRY(get(t, "factor", &m->rope_factor));
    if (m->rope_scaling == TRI_ROPE_LLAMA3 || m->rope_scaling == TRI_ROPE_YARN) {
        TRI_TRY(tri_json_get_int(t->path, t->root, "original_max_position_embeddings", false,
                                 &original, t->error));
    }
    m->rope_original = original;
    if (original < 1) {
        return refuse_table(t, "expected at least one original position");
    }
    if (m->rope_scaling == TRI_ROPE_YARN) {
        TRI_TRY(read_yarn(t));
    } else if (!has(t->root, "factor")) {
        return refuse_table(t, "factor is missing");
    }
    if (m->rope_scaling == TRI_ROPE_LLAMA3) {
        TRI_TRY(get(t, "low_freq_factor", &m->rope_llama3[0]));
        TRI_TRY(get(t, "high_freq_factor", &m->rope_llama3[1]));
        if (!(m->rope_llama3[0] < m->rope_llama3[1])) {
            return refuse_table(t, "expected low_freq_factor below high_freq_factor");
        }
    }
    return m->rope_factor >= 1 && m->rope_factor <= LARGEST
               ? TRI_OK
               : refuse_table(t, "factor: expected a number from 1 to 1000000");
}

static enum tri_status read_table(const struct table *t)
{
    const char *type = json_string_value(json_object_get(t->root, "rope_type"));
    double fraction = 1;
    int i = 0;
    if (!type) {
        type = json_string_value(json_object_get(t->root, "type"));
    }
    if (!json_is_object(t->root) || !type) {
        return refuse_table(t, "expected an object with a rope_type");
    }
    TRI_TRY(get(t, "partial_rotary_factor", &fraction));
    while (i < TYPES && strcmp(type, types[i]) != 0) {
        i++;
    }
    if (i == TYPES || fraction != 1) {
        return refuse_table(t, "only rope of type default, linear, dynamic, llama3 and yarn over "
                               "whole heads is computed");
    }
    t->model->rope_scaling = (enum tri_rope_scaling)i;
    return i > 0 ? read_scaling(t) : TRI_OK;
}

static bool same(const struct tri_config_model *a, const struct tri_config_model *b)
{
    return a->rope_scaling == b->rope_scaling && a->rope_factor == b->rope_factor &&
           a->rope_original == b->rope_original && a->rope_attention == b->rope_attention &&
           a->rope_truncate == b->rope_truncate &&
           memcmp(a->rope_betas, b->rope_betas, sizeof(a->rope_betas)) == 0 &&
           memcmp(a->rope_llama3, b->rope_llama3, sizeof(a->rope_llama3)) == 0;
}

enum tri_status tri_hf_rope_read(const char *path, const json_t *root,
                                 struct tri_config_model *model, struct tri_error *error)
{
    static const char *const tables[] = {"rope_scaling", "rope_parameters"};
    const struct tri_config_model plain = *model;
    double fraction = 1;
    bool before = false;
    TRI_TRY(tri_json_get_real(path, root, "rope_theta", false, &model->rope_theta, error));
    for (int i = 0; i < 2; i++) {
        if (!has(root, tables[i])) {
            continue;
        }
        struct tri_config_model here = plain;
        const struct table t = {path, tables[i], json_object_get(root, tables[i]), &here, error};
        here.rope_theta = model->rope_theta;
        TRI_TRY(read_table(&t));
        TRI_TRY(get(&t, "rope_theta", &here.rope_theta));
        if (here.rope_theta != model->rope_theta && has(root, "rope_theta")) {
            return refuse_table(&t, "its rope_theta is another than the one beside it");
        }
        if (before && !same(&here, model)) {
            return refuse_table(&t, "differs from rope_scaling beside it");
        }
        *model = here;
        before = true;
    }
    TRI_TRY(tri_json_get_real(path, root, "partial_rotary_factor", false, &fraction, error));
    return fraction != 1 ? refuse(path, "partial_rotary_factor",
                                  json_object_get(root, "partial_rotary_factor"),
                                  "rope covers whole heads only", error)
                         : TRI_OK;
}

static void put(json_t *table, const char *key, double value)
{
    (void)json_object_set_new(table, key, json_real(value));
}

static json_t *scaling_keys(const struct tri_config_model *m)
{
    json_t *table = json_pack("{s:s}", "rope_type", types[m->rope_scaling]);
    TRI_REQUIRE(table);
    if (m->rope_scaling != TRI_ROPE_PLAIN) {
        put(table, "factor", m->rope_factor);
    }
    if (m->rope_scaling == TRI_ROPE_LLAMA3 || m->rope_scaling == TRI_ROPE_YARN) {
        (void)json_object_set_new(table, "original_max_position_embeddings",
                                  json_integer(m->rope_original));
    }
    if (m->rope_scaling == TRI_ROPE_LLAMA3) {
        put(table, "low_freq_factor", m->rope_llama3[0]);
        put(table, "high_freq_factor", m->rope_llama3[1]);
    } else if (m->rope_scaling == TRI_ROPE_YARN) {
        put(table, "beta_fast", m->rope_betas[0]);
        put(table, "beta_slow", m->rope_betas[1]);
        if (m->rope_attention != sharpness(m->rope_factor, 1.0)) {
            put(table, "attention_factor", m->rope_attention);
        }
        if (!m->rope_truncate) {
            (void)json_object_set_new(table, "truncate", json_false());
        }
    }
    return table;
}

json_t *tri_hf_rope_keys(const struct tri_config_model *m)
{
    json_t *keys = json_pack("{s:f}", "rope_theta", m->rope_theta);
    json_t *parameters = scaling_keys(m);
    put(parameters, "rope_theta", m->rope_theta);
    TRI_REQUIRE(keys && json_object_set_new(keys, "rope_parameters", parameters) == 0);
    if (m->rope_scaling != TRI_ROPE_PLAIN) {
        (void)json_object_set_new(keys, "rope_scaling", scaling_keys(m));
    }
    return keys;
}
