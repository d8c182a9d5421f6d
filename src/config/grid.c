/* parallel.tensor_grid: how the ranks that share a layer do it. */
#include "config/schema.h"

#include <inttypes.h>

int64_t tri_config_depth(const struct tri_config_parallel *parallel)
{
    return parallel->tensor_grid[2] > 1 ? parallel->tensor_grid[2] : 1;
}

int64_t tri_config_cut(const struct tri_config_parallel *parallel)
{
    return parallel->tensor / tri_config_depth(parallel) / tri_config_cross(parallel);
}

int64_t tri_config_cross(const struct tri_config_parallel *parallel)
{
    return parallel->tensor_grid[1] > 1 ? parallel->tensor_grid[1] : 1;
}

/* The fewest rows that a weight which depth cuts has on a rank. */
static int64_t fewest_rows(const struct tri_config *config)
{
    const struct tri_config_model *m = &config->model;
    const struct tri_config_moe *moe = &config->moe;
    int64_t cut = tri_config_cut(&config->parallel);
    int64_t shared = moe->num_experts ? moe->shared_intermediate_size : 0;
    const int64_t rows[] = {
        m->vocab_size / cut,
        m->hidden_size / tri_config_cross(&config->parallel),
        m->head_dim,
        m->intermediate_size / cut,
        shared ? shared / cut : m->hidden_size,
        m->position == TRI_POSITION_LEARNED ? m->max_position : m->hidden_size,
    };
    int64_t fewest = rows[0];
    for (size_t i = 1; i < sizeof(rows) / sizeof(*rows); i++) {
        fewest = rows[i] < fewest ? rows[i] : fewest;
    }
    return fewest;
}

/* What goes with a hidden size that is cut. */
static enum tri_status check_cross(const struct tri_config *config, struct tri_error *error)
{
    const struct tri_config_model *m = &config->model;
    int64_t cross = tri_config_cross(&config->parallel);
    const char *why = NULL;
    if (cross == 1) {
        return TRI_OK;
    }
    if (config->reproducible) {
        why = "reproducible cuts no sums over the hidden size";
    } else if (config->train.sequence_parallel) {
        why = "train.sequence_parallel would cut a stream that it cuts already";
    } else if (config->train.lora.rank > 0) {
        why = "train.lora.rank has no pairs of weights that are cut both ways";
    } else if (m->num_kv_heads % tri_config_cut(&config->parallel) != 0) {
        why = "several ranks would share a head of model.num_kv_heads";
    }
    if (why) {
        return tri_config_refuse(config, error, "parallel.tensor_grid",
                                 "found %" PRId64 " in the middle, expected 1: %s", cross, why);
    }
    if (m->hidden_size % cross != 0) {
        return tri_key_refuse(config, error, "parallel.tensor_grid", "model.hidden_size",
                              "found %" PRId64 " in the middle, expected a divisor of "
                              "model.hidden_size (%" PRId64 ")",
                              cross, m->hidden_size);
    }
    return TRI_OK;
}

enum tri_status tri_config_check_grid(const struct tri_config *config, struct tri_error *error)
{
    static const char key[] = "parallel.tensor_grid";
    const struct tri_config_parallel *p = &config->parallel;
    const int64_t *grid = p->tensor_grid;
    if (grid[0] == 0) {
        return TRI_OK; /* not given */
    }
    if (grid[0] * grid[1] * grid[2] != p->tensor) {
        return tri_key_refuse(config, error, key, "parallel.tensor",
                              "found [%" PRId64 ", %" PRId64 ", %" PRId64
                              "], expected three numbers whose product is tensor (%" PRId64 ")",
                              grid[0], grid[1], grid[2], p->tensor);
    }
    TRI_TRY(check_cross(config, error));
    if (grid[2] > 1 && grid[2] > fewest_rows(config)) {
        return tri_config_refuse(config, error, key,
                                 "found %" PRId64 " at the end, expected at most %" PRId64
                                 ", the rows of a rank's smallest weight",
                                 grid[2], fewest_rows(config));
    }
    if (grid[0] != p->tensor && config->moe.num_experts > 0 && !config->moe.schedule->deep) {
        return tri_key_refuse(config, error, "moe.schedule", key,
                              "found %s, which takes no parallel.tensor_grid but [tensor, 1, 1]",
                              config->moe.schedule->strategy.name);
    }
    return TRI_OK;
}
