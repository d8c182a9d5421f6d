#include "infer/decoder.h"

#include "base/memory.h"

struct tri_decoder {
    struct tri_model *model;
    struct tri_cache cache;
    int32_t *positions;
    int32_t *first_key; /* [capacity] where the document of each token begins */
    int32_t document;   /* where that of the next token does */
    int64_t separator;  /* -1: none */
    int64_t layers;
};

/* Bytes of a layer's keys, or of its values, on rank t of `tensor`. */
static int64_t layer_bytes(const struct tri_config_model *model, int64_t capacity,
                           enum tri_dtype dtype, int tensor, int t)
{
    struct tri_range heads = tri_range_part(model->num_heads, tensor, t);
    struct tri_range kv = tri_range_kv_heads(heads, model->num_heads / model->num_kv_heads);
    return capacity * tri_range_size(kv) * model->head_dim * (int64_t)tri_dtype_size(dtype);
}

int64_t tri_decoder_bytes(const struct tri_config *config, int64_t capacity)
{
    enum tri_dtype dtype = config->precision == TRI_PRECISION_BF16 ? TRI_BF16 : TRI_F32;
    int tensor = (int)config->parallel.tensor;
    int64_t most = 0;
    for (int t = 0; t < tensor; t++) {
        int64_t bytes = layer_bytes(&config->model, capacity, dtype, tensor, t);
        most = bytes > most ? bytes : most;
    }
    return 2 * config->model.num_layers * most;
}

struct tri_decoder *tri_decoder_create(struct tri_model *model, int64_t capacity)
{
    const struct tri_context *context = tri_model_context(model);
    const struct tri_config_model *config = &context->config->model;
    const struct tri_mesh *mesh = context->mesh;
    struct tri_decoder *decoder = tri_alloc(TRI_MEMORY_OTHER, sizeof(*decoder));
    size_t layers = (size_t)config->num_layers;
    size_t bytes = (size_t)layer_bytes(config, capacity, context->dt, mesh->size[TRI_AXIS_TENSOR],
                                       mesh->coord[TRI_AXIS_TENSOR]);
    decoder->model = model;
    decoder->layers = config->num_layers;
    decoder->cache.capacity = capacity;
    decoder->cache.k = tri_alloc(TRI_MEMORY_OTHER, layers * sizeof(void *));
    decoder->cache.v = tri_alloc(TRI_MEMORY_OTHER, layers * sizeof(void *));
    for (size_t i = 0; i < layers; i++) {
        decoder->cache.k[i] = tri_alloc(TRI_MEMORY_BUFFERS, bytes);
        decoder->cache.v[i] = tri_alloc(TRI_MEMORY_BUFFERS, bytes);
    }
    decoder->positions =
        tri_alloc(TRI_MEMORY_OTHER, (size_t)capacity * sizeof(*decoder->positions));
    for (int64_t i = 0; i < capacity; i++) {
        decoder->positions[i] = (int32_t)i;
    }
    decoder->separator = context->config->data.separator;
    decoder->first_key =
        tri_alloc(TRI_MEMORY_OTHER, (size_t)capacity * sizeof(*decoder->first_key));
    return decoder;
}

void tri_decoder_destroy(struct tri_decoder *decoder)
{
    if (!decoder) {
        return;
    }
    for (int64_t i = 0; i < decoder->layers; i++) {
        tri_free(decoder->cache.k[i]);
        tri_free(decoder->cache.v[i]);
    }
    tri_free(decoder->cache.k);
    tri_free(decoder->cache.v);
    tri_free(decoder->positions);
    tri_free(decoder->first_key);
    tri_free(decoder);
}

void tri_decoder_reset(struct tri_decoder *decoder)
{
    decoder->cache.length = 0;
    decoder->document = 0;
}

int64_t tri_decoder_length(const struct tri_decoder *decoder)
{
    return decoder->cache.length;
}

/* As in training (data/loader.h): a separator belongs to the document that it ends. */
static const int32_t *mark_documents(struct tri_decoder *decoder, const int32_t *tokens, int64_t n)
{
    int64_t length = decoder->cache.length;
    for (int64_t i = 0; i < n; i++) {
        decoder->first_key[length + i] = decoder->document;
        if (tokens[i] == decoder->separator) {
            decoder->document = (int32_t)(length + i + 1);
        }
    }
    return decoder->separator >= 0 ? decoder->first_key + length : NULL;
}

void tri_decoder_feed(struct tri_decoder *decoder, const int32_t *tokens, int64_t n, float *logits)
{
    const struct tri_context *context = tri_model_context(decoder->model);
    TRI_REQUIRE(n >= 1 && decoder->cache.length + n <= decoder->cache.capacity);
    bool works = tri_group_rank(tri_mesh_group(context->mesh, TRI_ON_EXPERT | TRI_ON_DATA)) == 0;
    struct tri_pass pass = {
        .rows = works ? 1 : 0,
        .seq = n,
        .tokens = tokens,
        .positions = decoder->positions + decoder->cache.length,
        .first_key = mark_documents(decoder, tokens, n),
        .global_tokens = n,
        .batch_tokens = n,
        .phase = TRI_PHASE_EVAL,
        .cache = &decoder->cache,
    };
    tri_model_logits(decoder->model, &pass, true, logits);
    decoder->cache.length += n;
}
