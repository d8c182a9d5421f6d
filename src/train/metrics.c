#include "train/metrics.h"

#include "base/memory.h"
#include "train/json.h"

static void set(json_t *object, const char *key, json_t *value)
{
    (void)json_object_set_new(object, key, value);
}

/* [[tokens of each expert] of each MoE layer] */
static json_t *load_table(const struct tri_config *config, const int64_t *load)
{
    json_t *layers = json_array();
    int64_t count = tri_model_moe_layers(config);
    for (int64_t layer = 0; layer < count; layer++) {
        json_t *experts = json_array();
        for (int64_t e = 0; e < config->moe.num_experts; e++) {
            (void)json_array_append_new(experts,
                                        json_integer(load[layer * config->moe.num_experts + e]));
        }
        (void)json_array_append_new(layers, experts);
    }
    return layers;
}

static char *finish(json_t *object)
{
    char *text = json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(17));
    json_decref(object);
    TRI_REQUIRE(text);
    return text;
}

char *tri_metrics_line(const struct tri_config *config, const struct tri_metrics *metrics)
{
    const struct tri_step_report *report = metrics->report;
    json_t *line = json_object();
    set(line, "step", json_integer(metrics->step));
    const bool counts = report->targets > 0;
    set(line, "loss", counts ? tri_json_number(report->loss) : json_null());
    set(line, "cross_entropy", counts ? tri_json_number(report->cross_entropy) : json_null());
    set(line, "aux_loss", tri_json_number(report->aux_loss));
    set(line, "z_loss", tri_json_number(report->z_loss));
    if (config->moe.num_experts > 0 && config->moe.router->dense) {
        set(line, "information_loss", tri_json_number(report->information_loss));
    }
    set(line, "grad_norm", tri_json_number(report->grad_norm));
    set(line, "learning_rate", tri_json_number(metrics->learning_rate));
    set(line, "tokens", json_integer(metrics->tokens));
    set(line, "tokens_per_second",
        tri_json_number((double)metrics->batch_tokens / metrics->seconds));
    set(line, "step_ms", tri_json_number(1e3 * metrics->seconds));
    json_t *split = json_object();
    set(split, "attention", tri_json_number(1e3 * report->seconds_attention));
    set(split, "router", tri_json_number(1e3 * report->seconds_router));
    set(split, "exchange", tri_json_number(1e3 * report->seconds_exchange));
    set(split, "experts", tri_json_number(1e3 * report->seconds_experts));
    set(split, "optimizer", tri_json_number(1e3 * report->seconds_optimizer));
    set(split, "exposed_communication", tri_json_number(1e3 * report->seconds_exposed));
    set(line, "step_split_ms", split);
    set(line, "expert_load", metrics->with_load ? load_table(config, report->load) : json_null());
    set(line, "dropped_tokens", json_integer(report->dropped));
    set(line, "skipped_steps", json_integer(metrics->skipped_steps));
    return finish(line);
}

static json_t *sets_table(const struct tri_texts *texts, const struct tri_evaluation *evaluations)
{
    json_t *sets = json_object();
    for (int i = 0; i < texts->count; i++) {
        json_t *entry = json_object();
        set(entry, "loss", tri_json_number(evaluations[i].loss));
        set(entry, "tokens", json_integer(evaluations[i].targets));
        set(sets, texts->name[i], entry);
    }
    return sets;
}

char *tri_metrics_evaluation_line(const struct tri_config *config, int64_t step,
                                  const struct tri_texts *texts,
                                  const struct tri_evaluation *evaluations)
{
    int64_t loads = tri_model_moe_layers(config) * config->moe.num_experts;
    int64_t *load = tri_alloc(TRI_MEMORY_OTHER, (size_t)loads * sizeof(*load));
    int64_t targets = 0;
    for (int i = 0; i < texts->count; i++) {
        targets += evaluations[i].targets;
        for (int64_t e = 0; e < loads; e++) {
            load[e] += evaluations[i].load[e];
        }
    }
    json_t *line = json_object();
    set(line, "step", json_integer(step));
    set(line, "valid_loss", tri_json_number(tri_evaluation_loss(texts->count, evaluations)));
    set(line, "valid_tokens", json_integer(targets));
    if (texts->name[0][0]) {
        set(line, "valid_sets", sets_table(texts, evaluations));
    }
    set(line, "valid_expert_load", load_table(config, load));
    tri_free(load);
    return finish(line);
}

struct tri_balance tri_balance_get(const struct tri_config *config, const int64_t *load)
{
    struct tri_balance balance = {0};
    int64_t layers = tri_model_moe_layers(config);
    int64_t experts = config->moe.num_experts;
    for (int64_t layer = 0; layer < layers; layer++) {
        int64_t most = 0;
        int64_t total = 0;
        for (int64_t e = 0; e < experts; e++) {
            int64_t tokens = load[layer * experts + e];
            most = tokens > most ? tokens : most;
            total += tokens;
            balance.dead += tokens == 0;
        }
        double ratio = total ? (double)most * (double)experts / (double)total : 0.0;
        balance.worst = ratio > balance.worst ? ratio : balance.worst;
    }
    return balance;
}
