/* Memory and initial values of the parameter table. */
#include "base/memory.h"
#include "base/random.h"
#include "model/param_open.h"

#include <string.h>

void tri_params_allocate(struct tri_params *params, bool gradients)
{
    for (int i = 0; i < TRI_BUFFERS; i++) {
        struct tri_buffer *buffer = &params->buffer[i];
        size_t count = (size_t)buffer->count;
        buffer->weights = tri_alloc(TRI_MEMORY_WEIGHTS, count * tri_dtype_size(buffer->dtype));
        if (gradients && buffer->trained) {
            buffer->gradients =
                tri_alloc(TRI_MEMORY_GRADIENTS, count * tri_dtype_size(buffer->gradient_dtype));
        }
    }
}

void tri_params_destroy(struct tri_params *params)
{
    if (!params) {
        return;
    }
    tri_params_settle(params);
    while (params->residencies) {
        struct tri_residency *residency = params->residencies;
        params->residencies = residency->next;
        residency->ops->destroy(residency);
    }
    for (int i = 0; i < TRI_BUFFERS; i++) {
        struct tri_buffer *buffer = &params->buffer[i];
        tri_free(buffer->master);
        tri_free(buffer->m);
        tri_free(buffer->v);
        tri_free(buffer->weights);
        tri_free(buffer->gradients);
        tri_free(buffer->segment);
        tri_free(buffer->counts);
    }
    tri_free(params->scratch);
    tri_free(params->state);
    tri_free(params->first_of_layer);
    tri_free(params->first_expert);
    tri_free(params->param);
    tri_free(params);
}

/* Initial values of elements [first, first + n) of a row's global tensor. */
static void initial(const struct tri_param *param, uint64_t seed, uint64_t stream, int64_t first,
                    int64_t n, float *out)
{
    float constant = param->init == TRI_INIT_ONE ? 1.0F : 0.0F;
    if (param->init == TRI_INIT_NORMAL) {
        tri_random_normals(seed, stream, (uint64_t)first, n, out);
    }
    for (int64_t i = 0; i < n && param->init == TRI_INIT_UNIFORM; i++) {
        double uniform = tri_random_uniform(seed, stream, (uint64_t)(first + i));
        out[i] = (float)((2.0 * uniform - 1.0) * param->init_std);
    }
    if (param->init == TRI_INIT_UNIFORM) {
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        out[i] = param->init == TRI_INIT_NORMAL ? out[i] * (float)param->init_std : constant;
    }
}

/* Values of the table's row from element `at` of its local part: to the stored weights, and
 * unrounded to the master where this rank holds that part of it. */
static void store(const struct tri_params *params, const struct tri_param *param, int64_t at,
                  int64_t n, const float *values)
{
    const struct tri_buffer *buffer = &params->buffer[param->buffer];
    int64_t place = param->offset + at;
    if (param->dtype == TRI_F32) {
        memcpy((float *)buffer->weights + place, values, (size_t)n * sizeof(float));
        return;
    }
    uint16_t *weights = (uint16_t *)buffer->weights + place;
    for (int64_t i = 0; i < n; i++) {
        weights[i] = tri_f32_to_bf16(values[i]);
    }
    const struct tri_segment *segment = &buffer->segment[param->segment];
    struct tri_range part = tri_segment_own(segment, (struct tri_range){place, place + n});
    if (buffer->master && tri_range_size(part) > 0) {
        memcpy(buffer->master + tri_segment_place(segment, part.begin),
               values + (part.begin - place), (size_t)tri_range_size(part) * sizeof(float));
    }
}

enum { PIECE = 1024 };

/* What is to be drawn for one row of the table. */
struct draw {
    struct tri_params *params;
    const struct tri_param *param;
    uint64_t seed, stream;
};

/* Rows [begin, end) of this rank's part. */
static void init_rows(void *state, int64_t begin, int64_t end)
{
    const struct draw *draw = state;
    const struct tri_param *param = draw->param;
    int64_t columns = tri_range_size(param->local[1]);
    for (int64_t row = begin; row < end; row++) {
        float values[PIECE];
        for (int64_t j = 0; j < columns; j += PIECE) {
            int64_t n = columns - j < PIECE ? columns - j : PIECE;
            int64_t first =
                (param->local[0].begin + row) * param->shape[1] + param->local[1].begin + j;
            initial(param, draw->seed, draw->stream, first, n, values);
            store(draw->params, param, row * columns + j, n, values);
        }
    }
}

void tri_params_init(struct tri_params *params, const struct tri_kernels *kernels, uint64_t seed)
{
    tri_params_settle(params);
    for (int p = 0; p < params->count; p++) {
        const struct tri_param *param = &params->param[p];
        struct draw draw = {params, param, seed, tri_random_stream(param->name)};
        int64_t columns = tri_range_size(param->local[1]);
        int64_t rows = columns > 0 ? 16 * PIECE / columns : 0;
        kernels->loop(kernels, &(struct tri_loop_args){.n = tri_range_size(param->local[0]),
                                                       .piece = rows > 0 ? rows : 1,
                                                       .run = init_rows,
                                                       .state = &draw});
        tri_params_refresh_row(params, param);
    }
}
