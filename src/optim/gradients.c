#include "optim/optim.h"

#include "base/memory.h"

#include <math.h>
#include <string.h>

static void zero(char *x, size_t bytes)
{
    const size_t piece = 1 << 18;
#pragma omp parallel for schedule(static) if (bytes > piece)
    for (size_t at = 0; at < bytes; at += piece) {
        memset(x + at, 0, bytes - at < piece ? bytes - at : piece);
    }
}

static enum tri_dtype gradient_dtype(const struct tri_params *params, const struct tri_param *param)
{
    return params->buffer[param->buffer].gradient_dtype;
}

void tri_gradients_begin(struct tri_params *params)
{
    params->fresh = true;
    for (int p = 0; p < params->count; p++) {
        const struct tri_param *param = &params->param[p];
        if (param->count > 0 && !tri_param_overwritten(param)) {
            zero(tri_param_gradients(params, param),
                 (size_t)param->count * tri_dtype_size(gradient_dtype(params, param)));
        }
    }
}

/* KV rows that several tensor ranks hold: laid out in the global tensor, summed, taken back. */
static void sum_overlap(struct tri_params *params, const struct tri_param *param)
{
    enum tri_dtype dtype = gradient_dtype(params, param);
    size_t width = tri_dtype_size(dtype);
    int64_t n = param->shape[0] * param->shape[1];
    size_t bytes = (size_t)n * width;
    size_t local_bytes = (size_t)param->count * width;
    void *local = tri_param_gradients(params, param);
    char *whole = tri_grow(TRI_MEMORY_BUFFERS, &params->scratch, &params->scratch_bytes, bytes);
    memset(whole, 0, bytes);
    char *mine = whole + (size_t)(param->local[0].begin * param->shape[1]) * width;
    memcpy(mine, local, local_bytes);
    tri_all_reduce_sum(params->mesh->tensor,
                       (struct tri_where){TRI_PHASE_OPTIMIZER, TRI_KIND_GRADIENT}, whole, n, dtype);
    memcpy(local, mine, local_bytes);
}

void tri_gradients_reduce(struct tri_params *params)
{
    const struct tri_where where = {TRI_PHASE_OPTIMIZER, TRI_KIND_GRADIENT};
    for (int p = 0; p < params->count; p++) {
        const struct tri_param *param = &params->param[p];
        if (param->sync == TRI_SYNC_SUM) {
            tri_all_reduce_sum(params->mesh->tensor, where, tri_param_gradients(params, param),
                               param->count, gradient_dtype(params, param));
        } else if (param->sync == TRI_SYNC_OVERLAP) {
            sum_overlap(params, param);
        }
    }
    for (int i = 0; i < TRI_BUFFERS; i++) {
        struct tri_buffer *buffer = &params->buffer[i];
        tri_reduce_scatter_v(buffer->group, where, buffer->gradients, buffer->shard_counts,
                             buffer->gradient_dtype);
    }
}

/* The elements of a row's counted rows that lie in this rank's shard, in buffer elements. */
static struct tri_range counted_in_shard(const struct tri_buffer *buffer,
                                         const struct tri_param *param)
{
    int64_t columns = tri_range_size(param->local[1]);
    struct tri_range counted = {
        param->offset + (param->counted.begin - param->local[0].begin) * columns,
        param->offset + (param->counted.end - param->local[0].begin) * columns,
    };
    if (tri_range_size(param->counted) == 0) {
        return (struct tri_range){0, 0};
    }
    return tri_range_intersect(counted, buffer->shard);
}

double tri_gradients_norm(const struct tri_params *params, const struct tri_kernels *kernels)
{
    double sum = 0.0;
    for (int p = 0; p < params->count; p++) {
        const struct tri_param *param = &params->param[p];
        const struct tri_buffer *buffer = &params->buffer[param->buffer];
        struct tri_range range = counted_in_shard(buffer, param);
        size_t at = (size_t)range.begin * tri_dtype_size(buffer->gradient_dtype);
        sum += kernels->sum_squares((const char *)buffer->gradients + at, tri_range_size(range),
                                    buffer->gradient_dtype);
    }
    tri_all_reduce_sum(params->mesh->world, (struct tri_where){TRI_PHASE_OPTIMIZER, TRI_KIND_META},
                       &sum, 1, TRI_F64);
    return sqrt(sum);
}
