#include "optim/optim.h"

#include "base/exact.h"
#include "base/memory.h"
#include "model/param_open.h"

#include <math.h>
#include <string.h>

/* Blocks whose reductions are under way at a time. Each holds room for what the other replicas send
 * of it; two, so that a block with many parameters also has the next one's backward to hide
 * behind. */
enum { IN_FLIGHT = 2 };

static const struct tri_where where = {TRI_PHASE_OPTIMIZER, TRI_KIND_GRADIENT};

static enum tri_dtype gradient_dtype(const struct tri_params *params, const struct tri_param *param)
{
    return params->buffer[param->buffer].gradient_dtype;
}

static void zero_row(const struct tri_params *params, const struct tri_kernels *kernels,
                     const struct tri_param *param)
{
    if (param->count > 0) {
        const struct tri_zero_args args = {
            .dst = tri_param_gradients(params, param),
            .bytes = (size_t)param->count * tri_dtype_size(gradient_dtype(params, param)),
        };
        kernels->zero(kernels, &args);
    }
}

void tri_gradients_begin(struct tri_params *params, const struct tri_kernels *kernels)
{
    TRI_REQUIRE(params->open == 0);
    params->fixed.refused = 0;
    for (int p = 0; p < params->count; p++) {
        const struct tri_param *param = &params->param[p];
        if (!param->trained) {
            continue;
        }
        bool added_to = !tri_param_overwritten(param) || gradient_dtype(params, param) == TRI_I64;
        params->state[p].fresh = !added_to;
        if (added_to) {
            zero_row(params, kernels, param);
        }
    }
}

/* Rows that no micro-batch had a product for: experts without tokens. */
static void zero_unwritten(struct tri_params *params, const struct tri_kernels *kernels,
                           struct tri_range rows)
{
    for (int64_t p = rows.begin; p < rows.end; p++) {
        TRI_REQUIRE(!params->state[p].open);
        if (params->state[p].fresh) {
            params->state[p].fresh = false;
            zero_row(params, kernels, &params->param[p]);
        }
    }
}

/* KV rows that several tensor ranks hold, each rank of depth a part or a sum: laid out in the
 * global tensor, summed, taken back. */
static void sum_overlap(struct tri_params *params, const struct tri_kernels *kernels,
                        const struct tri_param *param)
{
    enum tri_dtype dtype = gradient_dtype(params, param);
    size_t width = tri_dtype_size(dtype);
    int64_t n = param->shape[0] * param->shape[1];
    size_t bytes = (size_t)n * width;
    size_t local_bytes = (size_t)param->count * width;
    void *local = tri_param_gradients(params, param);
    char *whole = tri_grow(TRI_MEMORY_BUFFERS, &params->scratch, &params->scratch_bytes, bytes);
    char *mine = whole + (size_t)(param->local[0].begin * param->shape[1]) * width;
    const struct tri_zero_args zero = {.dst = whole, .bytes = bytes};
    const struct tri_copy_args there = {.src = local, .dst = mine, .bytes = local_bytes};
    const struct tri_copy_args back = {.src = mine, .dst = local, .bytes = local_bytes};
    kernels->zero(kernels, &zero);
    kernels->copy(kernels, &there);
    tri_all_reduce_sum(tri_mesh_group(params->mesh, TRI_ON_GRID), where, whole, n, dtype);
    kernels->copy(kernels, &back);
}

/* In one call where there is a group of the axes, else over one after the other. */
static void sum_over_axes(struct tri_params *params, const struct tri_param *param)
{
    const struct tri_mesh *mesh = params->mesh;
    void *gradients = tri_param_gradients(params, param);
    enum tri_dtype dtype = gradient_dtype(params, param);
    if (mesh->group[param->sum_axes]) {
        tri_all_reduce_sum(mesh->group[param->sum_axes], where, gradients, param->count, dtype);
        return;
    }
    for (int axis = TRI_AXIS_TENSOR; axis <= TRI_AXIS_DEPTH; axis++) {
        if (param->sum_axes & 1 << axis) {
            tri_all_reduce_sum(tri_mesh_group(mesh, 1 << axis), where, gradients, param->count,
                               dtype);
        }
    }
}

static void sum_over_grid(struct tri_params *params, const struct tri_kernels *kernels,
                          const struct tri_param *param)
{
    if (!param->trained || param->count == 0) {
        return;
    }
    if (param->sync == TRI_SYNC_SUM) {
        sum_over_axes(params, param);
    } else if (param->sync == TRI_SYNC_OVERLAP) {
        sum_overlap(params, kernels, param);
    }
}

/* Ends what is under way of a block. */
static void end_block(struct tri_params *params, int64_t block)
{
    for (int i = 0; i < TRI_BUFFERS; i++) {
        struct tri_segment *segment = tri_buffer_segment(&params->buffer[i], block);
        if (segment && segment->reduction) {
            tri_request_end(segment->reduction);
            segment->reduction = NULL;
        }
    }
}

void tri_gradients_reduce(struct tri_params *params, const struct tri_kernels *kernels,
                          int64_t block, bool begin)
{
    if (begin && block + IN_FLIGHT <= params->layers) {
        end_block(params, block + IN_FLIGHT);
    }
    struct tri_range rows = tri_params_rows(params, block);
    tri_params_settle_gradients(params, block);
    zero_unwritten(params, kernels, rows);
    for (int64_t p = rows.begin; p < rows.end; p++) {
        sum_over_grid(params, kernels, &params->param[p]);
    }
    for (int i = 0; i < TRI_BUFFERS; i++) {
        struct tri_buffer *buffer = &params->buffer[i];
        struct tri_segment *segment = tri_buffer_segment(buffer, block);
        if (!segment || !buffer->trained) {
            continue;
        }
        void *gradients = tri_buffer_gradients(buffer, segment->whole.begin);
        if (begin) {
            segment->reduction = tri_reduce_scatter_v_begin(
                buffer->group, where, gradients, segment->counts, buffer->gradient_dtype);
        } else {
            tri_reduce_scatter_v(buffer->group, where, gradients, segment->counts,
                                 buffer->gradient_dtype);
        }
    }
}

void tri_gradients_reduce_end(struct tri_params *params)
{
    for (int64_t block = params->layers; block >= -1; block--) {
        end_block(params, block);
    }
}

/* The elements of a row's counted rows that this rank owns, in buffer elements; none of a row that
 * is not trained. */
static struct tri_range counted_and_owned(const struct tri_params *params,
                                          const struct tri_param *param)
{
    int64_t columns = tri_range_size(param->local[1]);
    struct tri_range counted = {
        param->offset + (param->counted.begin - param->local[0].begin) * columns,
        param->offset + (param->counted.end - param->local[0].begin) * columns,
    };
    if (tri_range_size(param->counted) == 0 || !param->trained) {
        return (struct tri_range){0, 0};
    }
    return tri_range_intersect(counted, tri_param_own(params, param));
}

/* Exactly, so that who owns which elements changes no bit. NaN where a term was refused. */
static double exact_norm(const struct tri_params *params, const struct tri_kernels *kernels)
{
    struct tri_exact sum = {0};
    for (int p = 0; p < params->count; p++) {
        const struct tri_param *param = &params->param[p];
        struct tri_range range = counted_and_owned(params, param);
        const struct tri_buffer *buffer = &params->buffer[param->buffer];
        if (tri_range_size(range) > 0) {
            kernels->fixed_squares(kernels, &(struct tri_fixed_get_args){
                                                .sums = tri_buffer_gradients(buffer, range.begin),
                                                .exact = &sum,
                                                .n = tri_range_size(range)});
        }
    }
    if (params->fixed.refused) {
        tri_exact_add(&sum, (double)NAN);
    }
    tri_exact_carry(&sum);
    tri_all_reduce_sum(tri_mesh_group(params->mesh, TRI_ON_ALL),
                       (struct tri_where){TRI_PHASE_OPTIMIZER, TRI_KIND_META}, sum.word,
                       TRI_EXACT_WORDS, TRI_I64);
    return sqrt(tri_exact_get(&sum));
}

double tri_gradients_norm(const struct tri_params *params, const struct tri_kernels *kernels)
{
    double sum = 0.0;
    if (params->buffer[0].gradient_dtype == TRI_I64) {
        return exact_norm(params, kernels);
    }
    for (int p = 0; p < params->count; p++) {
        const struct tri_param *param = &params->param[p];
        const struct tri_buffer *buffer = &params->buffer[param->buffer];
        struct tri_range range = counted_and_owned(params, param);
        sum += kernels->sum_squares(
            kernels, &(struct tri_squares_args){.x = tri_buffer_gradients(buffer, range.begin),
                                                .n = tri_range_size(range),
                                                .dt = buffer->gradient_dtype});
    }
    tri_all_reduce_sum(tri_mesh_group(params->mesh, TRI_ON_ALL),
                       (struct tri_where){TRI_PHASE_OPTIMIZER, TRI_KIND_META}, &sum, 1, TRI_F64);
    return sqrt(sum);
}
