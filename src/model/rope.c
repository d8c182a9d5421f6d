/* Rotary frequencies, plain or scaled so that longer texts than the model has seen turn no further:
 * as transformers computes them. */
#include "model/rope.h"

#include "base/memory.h"

#include <math.h>

enum { PIECE = 64 };

static const double full_turn = 6.283185307179586476925;

struct rope {
    const struct tri_config *config;
    float *table;
};

/* Rows longer than the model was trained on get a larger base. */
static double dynamic(const struct tri_config *config, int64_t j)
{
    const struct tri_config_model *m = &config->model;
    double dim = (double)m->head_dim, original = (double)m->rope_original;
    double longest =
        (double)(config->rope_length > 0 ? config->rope_length : config->data.sequence_length);
    double theta = m->rope_theta;
    if (longest > original && m->head_dim > 2) {
        double growth = m->rope_factor * longest / original - (m->rope_factor - 1.0);
        theta *= pow(growth, dim / (dim - 2.0));
    }
    return pow(theta, -2.0 * (double)j / dim);
}

/* Slow frequencies are divided, fast ones stay, and between them it goes from one to the other. */
static double llama3(const struct tri_config_model *m, double plain)
{
    double original = (double)m->rope_original, length = full_turn / plain;
    double low = m->rope_llama3[0], high = m->rope_llama3[1];
    if (length < original / high) {
        return plain;
    }
    if (length > original / low) {
        return plain / m->rope_factor;
    }
    double smooth = (original / length - low) / (high - low);
    return (1.0 - smooth) * plain / m->rope_factor + smooth * plain;
}

/* The dimension that turns so often over the original positions. */
static double dimension_of(const struct tri_config_model *m, double turns)
{
    return (double)m->head_dim * log((double)m->rope_original / (turns * full_turn)) /
           (2.0 * log(m->rope_theta));
}

static double yarn(const struct tri_config_model *m, int64_t j, double plain)
{
    double low = dimension_of(m, m->rope_betas[0]), high = dimension_of(m, m->rope_betas[1]);
    low = fmax(m->rope_truncate ? floor(low) : low, 0.0);
    high = fmin(m->rope_truncate ? ceil(high) : high, (double)(m->head_dim - 1));
    high += low == high ? 0.001 : 0.0;
    double slow = fmin(fmax(((double)j - low) / (high - low), 0.0), 1.0);
    return plain / m->rope_factor * slow + plain * (1.0 - slow);
}

double tri_rope_frequency(const struct tri_config *config, int64_t j)
{
    const struct tri_config_model *m = &config->model;
    double plain = pow(m->rope_theta, -2.0 * (double)j / (double)m->head_dim);
    switch (m->rope_scaling) {
    case TRI_ROPE_LINEAR:
        return plain / m->rope_factor;
    case TRI_ROPE_DYNAMIC:
        return dynamic(config, j);
    case TRI_ROPE_LLAMA3:
        return llama3(m, plain);
    case TRI_ROPE_YARN:
        return yarn(m, j, plain);
    default:
        return plain;
    }
}

static void fill(void *state, int64_t begin, int64_t end)
{
    const struct rope *rope = state;
    const struct tri_config_model *m = &rope->config->model;
    int64_t dim = m->head_dim, half = dim / 2;
    double scale = m->rope_scaling == TRI_ROPE_YARN ? m->rope_attention : 1.0;
    for (int64_t j = 0; j < half; j++) {
        double each = tri_rope_frequency(rope->config, j);
        for (int64_t position = begin; position < end; position++) {
            double angle = (double)position * each;
            rope->table[position * dim + j] = (float)(scale * cos(angle));
            rope->table[position * dim + half + j] = (float)(scale * sin(angle));
        }
    }
}

float *tri_rope_table_create(const struct tri_config *config, const struct tri_kernels *kernels)
{
    const struct tri_config_model *m = &config->model;
    size_t count = (size_t)(m->max_position * m->head_dim);
    struct rope rope = {config, tri_alloc(TRI_MEMORY_OTHER, count * sizeof(float))};
    kernels->loop(kernels, &(struct tri_loop_args){
                               .n = m->max_position, .piece = PIECE, .run = fill, .state = &rope});
    return rope.table;
}
