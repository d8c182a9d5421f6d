#include "base/log.h"
#include "moe/schedule.h"

void *tri_exchange_take(struct tri_exchange *exchange, int i, const struct tri_context *context,
                        int64_t rows)
{
    const struct tri_config *config = context->config;
    size_t row = (size_t)config->model.hidden_size * tri_dtype_size(context->sum_dt);
    size_t bytes = (size_t)rows * row;
    if (!exchange->buffer[i]) {
        double balanced = (double)config->train.micro_batch * (double)config->data.sequence_length *
                          (double)config->moe.top_k;
        size_t usual = (size_t)(balanced * config->moe.headroom) * row;
        return tri_grow(TRI_MEMORY_BUFFERS, &exchange->buffer[i], &exchange->capacity[i],
                        usual > bytes ? usual : bytes);
    }
    if (bytes > exchange->capacity[i]) {
        exchange->growths++;
        if (!(exchange->load > 0)) {
            tri_log_warn("exchange buffer %d grows from %zu to %zu bytes: routing is more uneven "
                         "than moe.headroom allows",
                         i, exchange->capacity[i], bytes + bytes / 4);
        }
        bytes += bytes / 4;
    }
    return tri_grow(TRI_MEMORY_BUFFERS, &exchange->buffer[i], &exchange->capacity[i], bytes);
}
