#include "infer/decoder.h"

#include "base/memory.h"
#include "shard/rows.h"

struct tri_decoder {
    struct tri_model *model;
    struct tri_cache cache;
    int64_t all_rows;
    struct tri_range rows; /* this rank's */
    int64_t *padding;      /* [own rows] */
    int32_t *after;        /* [own rows, capacity] where the document behind each token begins */
    /* [own rows, capacity] of the tokens that are fed at once: their positions, and where the
     * document of each begins. */
    int32_t *positions, *first_key;
    bool padded;
    int64_t separator; /* -1: none */
    bool numbers_documents;
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

int64_t tri_decoder_bytes(const struct tri_config *config, int64_t rows, int64_t capacity)
{
    enum tri_dtype dtype = config->precision == TRI_PRECISION_BF16 ? TRI_BF16 : TRI_F32;
    int tensor = (int)tri_config_cut(&config->parallel);
    int64_t most = 0;
    for (int t = 0; t < tensor; t++) {
        int64_t bytes = layer_bytes(&config->model, capacity, dtype, tensor, t);
        most = bytes > most ? bytes : most;
    }
    return 2 * config->model.num_layers * most * rows;
}

struct tri_decoder *tri_decoder_create(struct tri_model *model, int64_t rows, int64_t capacity)
{
    const struct tri_context *context = tri_model_context(model);
    const struct tri_config_model *config = &context->config->model;
    const struct tri_mesh *mesh = context->mesh;
    struct tri_group *replicas = tri_mesh_group(mesh, TRI_ON_EXPERT | TRI_ON_DATA);
    struct tri_decoder *decoder = tri_alloc(TRI_MEMORY_OTHER, sizeof(*decoder));
    decoder->all_rows = rows;
    decoder->rows = tri_rows_share(rows, tri_group_size(replicas), tri_group_rank(replicas));
    size_t own = (size_t)tri_range_size(decoder->rows);
    size_t layers = (size_t)config->num_layers;
    size_t bytes =
        own * (size_t)layer_bytes(config, capacity, context->dt, mesh->size[TRI_AXIS_TENSOR],
                                  mesh->coord[TRI_AXIS_TENSOR]);
    size_t places = own * (size_t)capacity * sizeof(int32_t);
    decoder->model = model;
    decoder->layers = config->num_layers;
    decoder->cache.capacity = capacity;
    decoder->cache.k = tri_alloc(TRI_MEMORY_OTHER, layers * sizeof(void *));
    decoder->cache.v = tri_alloc(TRI_MEMORY_OTHER, layers * sizeof(void *));
    for (size_t i = 0; i < layers; i++) {
        decoder->cache.k[i] = tri_alloc(TRI_MEMORY_BUFFERS, bytes);
        decoder->cache.v[i] = tri_alloc(TRI_MEMORY_BUFFERS, bytes);
    }
    decoder->positions = tri_alloc(TRI_MEMORY_OTHER, places);
    decoder->first_key = tri_alloc(TRI_MEMORY_OTHER, places);
    decoder->padding = tri_alloc(TRI_MEMORY_OTHER, own * sizeof(*decoder->padding));
    decoder->after = tri_alloc(TRI_MEMORY_OTHER, places);
    decoder->separator = context->config->data.separator;
    decoder->numbers_documents = tri_config_document_positions(context->config);
    tri_decoder_reset(decoder, NULL);
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
    tri_free(decoder->padding);
    tri_free(decoder->after);
    tri_free(decoder);
}

struct tri_range tri_decoder_rows(const struct tri_decoder *decoder)
{
    return decoder->rows;
}

void tri_decoder_reset(struct tri_decoder *decoder, const int64_t *padding)
{
    decoder->cache.length = 0;
    decoder->padded = false;
    for (int64_t i = 0; i < tri_range_size(decoder->rows); i++) {
        decoder->padding[i] = padding ? padding[decoder->rows.begin + i] : 0;
        decoder->padded = decoder->padded || decoder->padding[i] > 0;
    }
}

void tri_decoder_rewind(struct tri_decoder *decoder, int64_t length)
{
    TRI_REQUIRE(length >= 0 && length <= decoder->cache.length);
    decoder->cache.length = length;
}

/* Of a row's next n tokens: positions, from 0 behind the padding or in each document, and documents
 * as in training (data/loader.h): a separator belongs to the one that it ends. Padding sees
 * itself. */
static void mark_row(struct tri_decoder *decoder, int64_t row, const int32_t *tokens, int64_t n)
{
    int64_t padding = decoder->padding[row];
    int32_t *after = decoder->after + row * decoder->cache.capacity;
    int32_t *positions = decoder->positions + row * n;
    int32_t *first_key = decoder->first_key + row * n;
    for (int64_t i = 0; i < n; i++) {
        int64_t at = decoder->cache.length + i;
        int32_t document = at <= padding ? (int32_t)padding : after[at - 1];
        bool ends = at >= padding && tokens[row * n + i] == decoder->separator;
        int64_t zero = decoder->numbers_documents ? document : padding;
        positions[i] = at < padding ? 0 : (int32_t)(at - zero);
        first_key[i] = at < padding ? (int32_t)at : document;
        after[at] = ends ? (int32_t)(at + 1) : document;
    }
}

void tri_decoder_feed(struct tri_decoder *decoder, const int32_t *tokens, int64_t n, float *logits)
{
    TRI_REQUIRE(n >= 1 && decoder->cache.length + n <= decoder->cache.capacity);
    int64_t rows = tri_range_size(decoder->rows);
    for (int64_t row = 0; row < rows; row++) {
        mark_row(decoder, row, tokens, n);
    }
    struct tri_pass pass = {
        .rows = rows,
        .seq = n,
        .tokens = tokens,
        .positions = decoder->positions,
        .first_key = decoder->separator >= 0 || decoder->padded ? decoder->first_key : NULL,
        .first_row = decoder->rows.begin,
        .batch_rows = decoder->all_rows,
        .global_tokens = decoder->all_rows * n,
        .batch_tokens = decoder->all_rows * n,
        .phase = TRI_PHASE_EVAL,
        .cache = &decoder->cache,
    };
    tri_model_logits(decoder->model, &pass, true, logits);
    decoder->cache.length += n;
}
