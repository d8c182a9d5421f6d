#include "reference_check.h"

#include "base/log.h"
#include "base/memory.h"
#include "support/small.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void check_value(struct check *check, const char *what, double error, double limit)
{
    bool ok = error <= limit;
    *(ok ? &check->passed : &check->failed) += 1;
    if (job_rank() == 0) {
        (void)printf("%s  %-60s %.3g (limit %.3g)\n", ok ? "ok  " : "FAIL", what, error, limit);
    }
}

double l2_norm(const float *x, int64_t n)
{
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++) {
        sum += (double)x[i] * (double)x[i];
    }
    return sqrt(sum);
}

double relative_l2(const float *got, const float *expected, int64_t n)
{
    double distance = 0.0;
    for (int64_t i = 0; i < n; i++) {
        double d = (double)got[i] - (double)expected[i];
        distance += d * d;
    }
    double norm = l2_norm(expected, n);
    if (distance == 0.0) {
        return 0.0;
    }
    return norm > 0.0 ? sqrt(distance) / norm : (double)INFINITY;
}

void quit(const struct tri_error *error)
{
    if (job_rank() == 0) {
        tri_log_error(error);
    }
    job_quit((int)error->status);
}

const struct tri_safetensor *need(const struct tri_safetensors *file, const char *name)
{
    const struct tri_safetensor *tensor = tri_safetensors_find(file, name);
    if (!tensor) {
        struct tri_error error;
        (void)tri_fail(&error, TRI_BAD_INPUT, "%s: no tensor '%s'", file->path, name);
        quit(&error);
    }
    return tensor;
}

float *read_f32(const struct tri_safetensors *file, const char *name, int64_t *count)
{
    struct tri_error error;
    const struct tri_safetensor *tensor = need(file, name);
    float *data = tri_alloc(TRI_MEMORY_OTHER, (size_t)tensor->count * sizeof(*data));
    if (tri_safetensor_read_f32(tensor, 0, tensor->count, data, &error) != TRI_OK) {
        quit(&error);
    }
    if (count) {
        *count = tensor->count;
    }
    return data;
}

int64_t *read_i64(const struct tri_safetensors *file, const char *name, int64_t *count)
{
    struct tri_error error;
    const struct tri_safetensor *tensor = need(file, name);
    int64_t *data = tri_alloc(TRI_MEMORY_OTHER, (size_t)tensor->count * sizeof(*data));
    if (tri_safetensor_read_i64(tensor, 0, tensor->count, data, &error) != TRI_OK) {
        quit(&error);
    }
    if (count) {
        *count = tensor->count;
    }
    return data;
}

struct tri_engine *subject_engine(const struct subject *subject)
{
    struct tri_error error;
    struct tri_engine *engine =
        tri_engine_create(&subject->config, subject->mesh, small_kernels(&subject->config), true);
    if (tri_hf_load_weights(subject->dir, engine->params, &error) != TRI_OK) {
        quit(&error);
    }
    return engine;
}

float **subject_gather(const struct subject *subject, const struct tri_params *params,
                       enum tri_field field)
{
    (void)subject;
    float **rows = tri_alloc(TRI_MEMORY_OTHER, (size_t)params->count * sizeof(*rows));
    for (int p = 0; p < params->count; p++) {
        const struct tri_param *param = &params->param[p];
        rows[p] = tri_alloc(TRI_MEMORY_OTHER,
                            (size_t)(param->shape[0] * param->shape[1]) * sizeof(float));
        tri_param_gather(params, param, field, rows[p]);
    }
    return rows;
}

void subject_release(const struct tri_params *params, float **rows)
{
    for (int p = 0; p < params->count; p++) {
        tri_free(rows[p]);
    }
    tri_free(rows);
}

void subject_assemble(const struct subject *subject, const struct tri_params *params,
                      float *const *rows, const struct tri_safetensor *tensor, float *out)
{
    int64_t filled = 0;
    for (int p = 0; p < params->count; p++) {
        const struct tri_param *param = &params->param[p];
        struct tri_hf_source source;
        if (!tri_hf_source_get(subject->family, param, subject->config.moe.num_experts,
                               TRI_HF_PER_EXPERT, &source) ||
            strcmp(source.name, tensor->name) != 0) {
            continue;
        }
        int64_t columns = param->dims == 2 ? tensor->shape[1] : 1;
        for (int64_t i = 0; i < param->shape[0]; i++) {
            for (int64_t j = 0; j < param->shape[1]; j++) {
                int64_t at = source.transposed ? j * columns + source.first + i
                                               : (source.first + i) * columns + j;
                out[at] = rows[p][i * param->shape[1] + j];
                filled++;
            }
        }
    }
    if (job_rank() == 0) {
        TRI_REQUIRE(filled == tensor->count);
    }
}
