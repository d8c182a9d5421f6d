/* Defaults that follow other keys, and the combinations that make no sense. */
#include "config/schema.h"
#include "config/value.h"

#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- ranges: for configs that no reader checked ---------------------------------------------- */

static enum tri_status check_ranges(const struct tri_config *config, bool with_unset,
                                    struct tri_error *error)
{
    for (size_t i = 0; i < tri_keys_count; i++) {
        const struct tri_key *key = &tri_keys[i];
        if (config->moe.num_experts == 0 && tri_key_in_section(key, "moe")) {
            continue;
        }
        const void *value = tri_key_view(key, config);
        bool optional = !with_unset || key->type == TRI_KEY_LAYERS || key->type == TRI_KEY_GRID;
        if ((optional && tri_key_is_unset(key, value)) ||
            tri_value_in_range(key, config->known, value)) {
            continue;
        }
        char *expected = tri_value_expected_text(key, config->known);
        enum tri_status status =
            tri_config_refuse(config, error, key->name, "out of range, expected %s", expected);
        free(expected);
        return status;
    }
    return TRI_OK;
}

/* ---- defaults that follow -------------------------------------------------------------------- */

static enum tri_status resolve_model(struct tri_config *config, struct tri_error *error)
{
    struct tri_config_model *m = &config->model;
    if (m->num_kv_heads == 0) {
        m->num_kv_heads = m->num_heads;
    }
    if (m->head_dim == 0) {
        if (m->hidden_size % m->num_heads != 0) {
            return tri_key_refuse(config, error, "model.hidden_size", "model.num_heads",
                                  "found %" PRId64 ", expected a multiple of num_heads (%" PRId64
                                  "), or a head_dim",
                                  m->hidden_size, m->num_heads);
        }
        m->head_dim = m->hidden_size / m->num_heads;
    }
    if (m->intermediate_size == 0) {
        bool gated = m->mlp == TRI_MLP_SWIGLU;
        m->intermediate_size = gated ? (8 * m->hidden_size + 191) / 192 * 64 : 4 * m->hidden_size;
    }
    if (m->max_position == 0) {
        m->max_position = config->data.sequence_length;
    }
    if (m->rope_original == 0) {
        m->rope_original = m->max_position;
    }
    if (m->rope_attention < 0) {
        bool longer = m->rope_scaling == TRI_ROPE_YARN && m->rope_factor > 1;
        m->rope_attention = longer ? 0.1 * log(m->rope_factor) + 1.0 : 1.0;
    }
    return TRI_OK;
}

static void resolve_rest(struct tri_config *config)
{
    struct tri_config_moe *moe = &config->moe;
    struct tri_config_train *train = &config->train;
    if (moe->intermediate_size == 0) {
        moe->intermediate_size = config->model.intermediate_size;
    }
    if (moe->groups_top == 0) {
        moe->groups_top = moe->groups;
    }
    if (moe->eval_capacity_factor < 0) {
        moe->eval_capacity_factor = moe->capacity_factor;
    }
    if (!moe->schedule) {
        moe->schedule = tri_config_schedule_for(config);
    }
    if (moe->chunks_backward == 0) {
        moe->chunks_backward = moe->chunks;
    }
    if ((unsigned)moe->aux_window == UINT_MAX) {
        bool by_step = moe->router->balances_step && !config->reproducible;
        moe->aux_window = by_step ? TRI_WINDOW_STEP : TRI_WINDOW_SEQUENCE;
    }
    if (config->parallel.expert_tensor == 0) {
        config->parallel.expert_tensor = config->parallel.tensor;
    }
    if (train->micro_batch == 0) {
        train->micro_batch = train->global_batch;
    }
    if (train->min_learning_rate < 0) {
        train->min_learning_rate = train->learning_rate / 10;
    }
    if (train->decay_steps == 0) {
        train->decay_steps = train->steps < 5 ? 1 : train->steps / 5;
    }
}

static bool would_follow(const struct tri_key *key, const struct tri_config *config)
{
    struct tri_error ignored;
    struct tri_config other = *config;
    if (!key->follows) {
        return false;
    }
    tri_key_unset(key, tri_key_at(key, &other));
    if (resolve_model(&other, &ignored) != TRI_OK) {
        return false;
    }
    resolve_rest(&other);
    return memcmp(tri_key_view(key, &other), tri_key_view(key, config), tri_key_bytes(key)) == 0;
}

bool tri_key_is_followed(const struct tri_key *key, const struct tri_config *config)
{
    return config->lines[key - tri_keys] == 0 && would_follow(key, config);
}

void tri_config_forget_followed(struct tri_config *config)
{
    for (size_t i = 0; i < tri_keys_count; i++) {
        if (would_follow(&tri_keys[i], config)) {
            config->lines[i] = 0;
        }
    }
}

void tri_config_keep_shapes(struct tri_config *config)
{
    for (size_t i = 0; i < tri_keys_count; i++) {
        if (tri_keys[i].shapes && tri_keys[i].follows && config->lines[i] == 0) {
            config->lines[i] = TRI_LINE_COMMAND;
        }
    }
}

/* ---- combinations ---------------------------------------------------------------------------- */

static enum tri_status check_model(const struct tri_config *config, struct tri_error *error)
{
    const struct tri_config_model *m = &config->model;
    if (m->num_heads % m->num_kv_heads != 0) {
        return tri_key_refuse(config, error, "model.num_kv_heads", "model.num_heads",
                              "found %" PRId64 ", expected a divisor of num_heads (%" PRId64 ")",
                              m->num_kv_heads, m->num_heads);
    }
    if (m->position == TRI_POSITION_ROPE && m->head_dim % 2 != 0) {
        return tri_key_refuse(config, error, "model.head_dim", "model.hidden_size",
                              "found %" PRId64 ", expected an even number: position is rope",
                              m->head_dim);
    }
    if (config->data.sequence_length > m->max_position) {
        return tri_key_refuse(config, error, "data.sequence_length", "model.max_position",
                              "found %" PRId64 ", expected at most model.max_position (%" PRId64
                              ")",
                              config->data.sequence_length, m->max_position);
    }
    if (config->data.separator >= m->vocab_size) {
        return tri_key_refuse(config, error, "data.separator", "model.vocab_size",
                              "found %" PRId64 ", expected less than model.vocab_size (%" PRId64
                              ")",
                              config->data.separator, m->vocab_size);
    }
    return TRI_OK;
}

static enum tri_status check_positions(const struct tri_config *config, struct tri_error *error)
{
    const struct tri_config_model *m = &config->model;
    if (m->rope_scaling != TRI_ROPE_PLAIN && m->position != TRI_POSITION_ROPE) {
        return tri_key_refuse(config, error, "model.rope_scaling", "model.position",
                              "found a scaling, expected none: position is learned");
    }
    if (m->rope_scaling == TRI_ROPE_LLAMA3 && !(m->rope_llama3[0] < m->rope_llama3[1])) {
        return tri_key_refuse(config, error, "model.rope_llama3", "model.rope_scaling",
                              "found [%g, %g], expected a lower and a higher number",
                              m->rope_llama3[0], m->rope_llama3[1]);
    }
    if (m->rope_scaling == TRI_ROPE_YARN && !(m->rope_betas[0] >= m->rope_betas[1])) {
        return tri_key_refuse(config, error, "model.rope_betas", "model.rope_scaling",
                              "found [%g, %g], expected the first to be at least the second",
                              m->rope_betas[0], m->rope_betas[1]);
    }
    if (m->num_window_layers > 0 && m->sliding_window == 0) {
        return tri_key_refuse(config, error, "model.window_layers", NULL,
                              "found layers, expected a sliding_window with them");
    }
    for (int64_t i = 0; i < m->num_window_layers; i++) {
        if (m->window_layers[i] >= m->num_layers) {
            return tri_key_refuse(config, error, "model.window_layers", "model.num_layers",
                                  "found layer %" PRId64
                                  ", expected less than model.num_layers (%" PRId64
                                  "): layers are counted from 0",
                                  m->window_layers[i], m->num_layers);
        }
        if (i > 0 && m->window_layers[i] <= m->window_layers[i - 1]) {
            return tri_key_refuse(config, error, "model.window_layers", NULL,
                                  "found %" PRId64 " after %" PRId64 ", expected rising numbers",
                                  m->window_layers[i], m->window_layers[i - 1]);
        }
    }
    return TRI_OK;
}

/* Tokens and routes of a micro-batch have 32-bit numbers. */
static enum tri_status check_micro_batch(const struct tri_config *config, struct tri_error *error)
{
    int64_t seq = config->data.sequence_length;
    int64_t routes = config->moe.num_experts > 0 ? tri_config_visits(&config->moe) : 1;
    if (config->train.micro_batch <= INT32_MAX / (seq * routes)) {
        return TRI_OK;
    }
    return tri_key_refuse(config, error, "train.micro_batch", "train.global_batch",
                          "found %" PRId64 " rows of %" PRId64 " tokens, %" PRId64
                          " routes each, expected at most %" PRId32 " routes in all",
                          config->train.micro_batch, seq, routes, INT32_MAX);
}

static enum tri_status check_recompute(const struct tri_config *config, struct tri_error *error)
{
    const struct tri_config_train *train = &config->train;
    for (int64_t i = 0; i < train->recompute; i++) {
        if (train->recompute_layers[i] >= config->model.num_layers) {
            return tri_key_refuse(config, error, "train.recompute", "model.num_layers",
                                  "found block %" PRId64
                                  ", expected less than model.num_layers (%" PRId64
                                  "): blocks are counted from 0",
                                  train->recompute_layers[i], config->model.num_layers);
        }
    }
    return TRI_OK;
}

static enum tri_status check_train(const struct tri_config *config, struct tri_error *error)
{
    const struct tri_config_train *train = &config->train;
    bool falls = train->schedule == TRI_LR_WSD;
    int64_t busy = train->warmup_steps + (falls ? train->decay_steps : 0);
    if (train->warmup_steps > train->steps) {
        return tri_key_refuse(config, error, "train.warmup_steps", "train.steps",
                              "found %" PRId64 ", expected at most steps (%" PRId64 ")",
                              train->warmup_steps, train->steps);
    }
    if (busy > train->steps) {
        return tri_key_refuse(config, error, "train.decay_steps", "train.steps",
                              "found %" PRId64 ", expected at most steps - warmup_steps (%" PRId64
                              ")",
                              train->decay_steps, train->steps - train->warmup_steps);
    }
    if (train->gradient_dtype == TRI_PRECISION_BF16 && config->precision == TRI_PRECISION_F32) {
        return tri_key_refuse(config, error, "train.gradient_dtype", "precision",
                              "found bf16, expected f32: no weight is stored in bf16");
    }
    if (train->gradient_dtype == TRI_PRECISION_BF16 && config->reproducible) {
        return tri_key_refuse(config, error, "train.gradient_dtype", "reproducible",
                              "found bf16, expected f32: reproducible sums are exact");
    }
    if (train->min_learning_rate > train->learning_rate) {
        return tri_key_refuse(config, error, "train.min_learning_rate", "train.learning_rate",
                              "found %g, expected at most learning_rate (%g)",
                              train->min_learning_rate, train->learning_rate);
    }
    if (config->trace_steps[1] > train->steps) {
        return tri_key_refuse(config, error, "trace.steps", "train.steps",
                              "found %" PRId64 ", expected at most train.steps (%" PRId64 ")",
                              config->trace_steps[1], train->steps);
    }
    return TRI_OK;
}

int tri_config_reproducible_parts(const struct tri_config *config)
{
    int parts = 1;
    while (parts < 8 && config->model.num_kv_heads % (2 * parts) == 0) {
        parts *= 2;
    }
    return parts;
}

static enum tri_status check_row_window(const struct tri_config *config, const char *key,
                                        enum tri_window window, struct tri_error *error)
{
    if (window == TRI_WINDOW_SEQUENCE) {
        return TRI_OK;
    }
    return tri_key_refuse(config, error, key, "reproducible",
                          "found %s, expected sequence: reproducible takes each row by itself",
                          window == TRI_WINDOW_STEP ? "step" : "rank");
}

/* What the same bits on every layout ask for. */
/* A dense router's outputs are sums over all experts: in one tree, of which the experts of a rank
 * must be a whole branch. */
static enum tri_status check_expert_sums(const struct tri_config *config, struct tri_error *error)
{
    const struct tri_config_parallel *p = &config->parallel;
    int64_t homes = p->expert * (p->expert_tensor < p->tensor ? p->tensor : 1);
    int64_t experts = config->moe.num_experts / homes;
    if (!config->moe.router->dense || homes == 1 || (experts & (experts - 1)) == 0) {
        return TRI_OK;
    }
    return tri_key_refuse(config, error, "parallel.expert", "reproducible",
                          "found %" PRId64 ", which leaves %" PRId64 " experts to a rank, expected "
                          "a power of two: reproducible adds the experts of router %s in one tree",
                          p->expert, experts, config->moe.router->strategy.name);
}

static enum tri_status check_reproducible(const struct tri_config *config, struct tri_error *error)
{
    const struct tri_config_moe *moe = &config->moe;
    int parts = tri_config_reproducible_parts(config);
    if (parts % config->parallel.tensor != 0) {
        return tri_key_refuse(config, error, "parallel.tensor", "reproducible",
                              "found %" PRId64 ", expected a divisor of %d: reproducible cuts sums "
                              "into so many parts, a power of two that divides num_kv_heads",
                              config->parallel.tensor, parts);
    }
    if (moe->num_experts == 0) {
        return TRI_OK;
    }
    TRI_TRY(check_row_window(config, "moe.aux_window", moe->aux_window, error));
    TRI_TRY(check_row_window(config, "moe.capacity_window", moe->capacity_window, error));
    if (moe->aux_scope != TRI_AUX_LAYER) {
        return tri_key_refuse(config, error, "moe.aux_scope", "reproducible",
                              "found model, expected layer: reproducible takes each row by itself");
    }
    if (moe->schedule->adds_at_owner && config->model.bias == TRI_BIAS_ALL) {
        return tri_key_refuse(config, error, "moe.schedule", "reproducible",
                              "found %s, expected ted: with model.bias all, reproducible adds an "
                              "expert's bias after its shards",
                              moe->schedule->strategy.name);
    }
    return check_expert_sums(config, error);
}

static enum tri_status check_expert_tensor(const struct tri_config *config, struct tri_error *error)
{
    const struct tri_config_parallel *p = &config->parallel;
    if (p->expert_tensor != p->tensor && p->expert_tensor != 1) {
        return tri_key_refuse(config, error, "parallel.expert_tensor", "parallel.tensor",
                              "found %" PRId64 ", expected tensor (%" PRId64 ") or 1",
                              p->expert_tensor, p->tensor);
    }
    return TRI_OK;
}

/* What can be said of a layout before the number of ranks is known. */
static enum tri_status check_degrees(const struct tri_config *config, struct tri_error *error)
{
    const struct tri_config_parallel *p = &config->parallel;
    int64_t experts = config->moe.num_experts;
    TRI_TRY(tri_config_check_grid(config, error));
    if (config->model.num_heads % tri_config_cut(p) != 0) {
        return tri_key_refuse(config, error, "parallel.tensor", "model.num_heads",
                              "found %" PRId64 ", expected a divisor of model.num_heads (%" PRId64
                              ")",
                              tri_config_cut(p), config->model.num_heads);
    }
    if (experts == 0 && p->expert != 1) {
        return tri_config_refuse(config, error, "parallel.expert",
                                 "found %" PRId64 ", expected 1: the model is dense (experts come "
                                 "with a section moe)",
                                 p->expert);
    }
    if (experts % p->expert != 0) {
        return tri_key_refuse(config, error, "parallel.expert", "moe.num_experts",
                              "found %" PRId64 ", expected a divisor of moe.num_experts (%" PRId64
                              ")",
                              p->expert, experts);
    }
    if (p->expert_tensor < p->tensor && experts % (p->expert * p->tensor) != 0) {
        return tri_key_refuse(config, error, "parallel.expert_tensor", "moe.num_experts",
                              "found 1, expected that tensor x expert (%" PRId64 " x %" PRId64
                              ") divides moe.num_experts (%" PRId64 ")",
                              p->tensor, p->expert, experts);
    }
    return TRI_OK;
}

/* What the shape of the model must allow. */
static enum tri_status check_shape(const struct tri_config *config, struct tri_error *error)
{
    TRI_TRY(check_model(config, error));
    TRI_TRY(check_positions(config, error));
    if (config->moe.num_experts > 0) {
        TRI_TRY(tri_config_check_moe(config, error));
    }
    TRI_TRY(check_recompute(config, error));
    return check_degrees(config, error);
}

bool tri_config_lacks_shape(const struct tri_config *config)
{
    bool given = config->init_from[0] || config->resume[0] ||
                 config->lines[tri_key_find("moe.num_experts")] != 0;
    for (size_t i = 0; i < tri_keys_count; i++) {
        given = given || (tri_key_in_section(&tri_keys[i], "model") && config->lines[i] != 0);
    }
    return !given;
}

enum tri_status tri_config_hint_shape(const struct tri_config *config, enum tri_status status,
                                      struct tri_error *error)
{
    if (status != TRI_BAD_INPUT || !tri_config_lacks_shape(config)) {
        return status;
    }
    const struct tri_error why = *error;
    return tri_fail(error, status,
                    "%.800s; no key of model is given, so its shape is the default one (init_from "
                    "takes that of a folder or run)",
                    why.message);
}

enum tri_status tri_config_finish_read(struct tri_config *config, bool hints,
                                       struct tri_error *error)
{
    TRI_TRY(check_ranges(config, false, error));
    TRI_TRY(resolve_model(config, error));
    resolve_rest(config);
    TRI_TRY(check_ranges(config, true, error));
    TRI_TRY(check_expert_tensor(config, error));
    enum tri_status status = check_shape(config, error);
    TRI_TRY(hints ? tri_config_hint_shape(config, status, error) : status);
    TRI_TRY(check_train(config, error));
    TRI_TRY(check_micro_batch(config, error));
    TRI_TRY(tri_config_check_lora(config, error));
    return config->reproducible ? check_reproducible(config, error) : TRI_OK;
}

enum tri_status tri_config_finish(struct tri_config *config, struct tri_error *error)
{
    return tri_config_finish_read(config, false, error);
}

enum tri_status tri_config_check_layout(const struct tri_config *config, int ranks,
                                        struct tri_error *error)
{
    const struct tri_config_parallel *p = &config->parallel;
    TRI_TRY(check_expert_tensor(config, error));
    TRI_TRY(check_degrees(config, error));
    if (config->reproducible) {
        TRI_TRY(check_reproducible(config, error));
    }
    if (ranks % (p->tensor * p->expert) != 0) {
        return tri_key_refuse(config, error, "parallel.tensor", "parallel.expert",
                              "found %" PRId64 " x expert %" PRId64 " = %" PRId64
                              ", expected a divisor of the number of ranks (%d)%s",
                              p->tensor, p->expert, p->tensor * p->expert, ranks,
                              ranks > 1 ? "" : ": --ranks N or a launcher starts more");
    }
    return TRI_OK;
}

bool tri_config_layer_recomputes(const struct tri_config *config, int64_t layer)
{
    const struct tri_config_train *train = &config->train;
    bool named = train->recompute < 0;
    for (int64_t i = 0; i < train->recompute; i++) {
        named = named || train->recompute_layers[i] == layer;
    }
    return named;
}

int64_t tri_config_layer_window(const struct tri_config *config, int64_t layer)
{
    const struct tri_config_model *m = &config->model;
    bool named = m->num_window_layers == 0;
    for (int64_t i = 0; i < m->num_window_layers; i++) {
        named = named || m->window_layers[i] == layer;
    }
    return named ? m->sliding_window : 0;
}

bool tri_config_document_positions(const struct tri_config *config)
{
    return config->data.document_positions == TRI_CHOICE_AUTO
               ? config->data.packing == TRI_ROWS_DOCUMENTS
               : config->data.document_positions == TRI_CHOICE_TRUE;
}

bool tri_config_layer_is_moe(const struct tri_config *config, int64_t layer)
{
    const struct tri_config_moe *moe = &config->moe;
    if (moe->num_experts == 0) {
        return false;
    }
    if (moe->num_layers == 0) {
        return (layer + 1) % moe->every == 0;
    }
    for (int64_t i = 0; i < moe->num_layers; i++) {
        if (moe->layers[i] == layer) {
            return true;
        }
    }
    return false;
}
