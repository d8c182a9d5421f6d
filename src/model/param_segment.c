/* Blocks, segments and pieces; and the weights that are still on their way. */
#include "model/param.h"

struct tri_range tri_params_rows(const struct tri_params *params, int64_t block)
{
    int64_t begin = block < 0 ? 0 : params->first_of_layer[block];
    int64_t end = block < params->layers ? params->first_of_layer[block + 1] : params->count;
    return (struct tri_range){begin, end};
}

static int64_t block_of(const struct tri_params *params, const struct tri_param *param)
{
    if (param->layer >= 0) {
        return param->layer;
    }
    return param - params->param < params->first_of_layer[0] ? -1 : params->layers;
}

struct tri_segment *tri_buffer_segment(const struct tri_buffer *buffer, int64_t block)
{
    int low = 0;
    int high = buffer->segments;
    while (low < high) {
        int middle = low + (high - low) / 2;
        if (buffer->segment[middle].block < block) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    bool found = low < buffer->segments && buffer->segment[low].block == block;
    return found ? &buffer->segment[low] : NULL;
}

struct tri_range tri_segment_own(const struct tri_segment *segment, struct tri_range range)
{
    return tri_range_intersect(range, segment->own);
}

struct tri_range tri_param_own(const struct tri_params *params, const struct tri_param *param)
{
    const struct tri_buffer *buffer = &params->buffer[param->buffer];
    if (param->count == 0) {
        return (struct tri_range){param->offset, param->offset};
    }
    return tri_segment_own(&buffer->segment[param->segment],
                           (struct tri_range){param->offset, param->offset + param->count});
}

void tri_params_settle_block(const struct tri_params *params, int64_t block)
{
    for (int i = 0; i < TRI_BUFFERS; i++) {
        struct tri_segment *segment = tri_buffer_segment(&params->buffer[i], block);
        if (segment && segment->gathering) {
            tri_request_end(segment->gathering);
            segment->gathering = NULL;
            tri_params_refresh(params, block, i);
        }
    }
}

void tri_params_settle_row(const struct tri_params *params, const struct tri_param *param)
{
    tri_params_settle_block(params, block_of(params, param));
}

void tri_params_settle(const struct tri_params *params)
{
    for (int64_t block = -1; block <= params->layers; block++) {
        tri_params_settle_block(params, block);
    }
}
