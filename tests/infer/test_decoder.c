/* Decoding with a cache gives the logits of the whole sequence at once, however it is cut, also
 * where the sequence holds several documents. */
#include "support/small.h"

#include "base/memory.h"
#include "base/random.h"
#include "infer/decoder.h"

#include <math.h>
#include <string.h>

enum { LENGTH = 12 };

struct subject {
    struct tri_config config;
    struct tri_mesh *mesh;
    struct tri_engine *engine;
    int64_t vocab;
    int32_t tokens[LENGTH];
    float *whole; /* [LENGTH, vocab], valid on rank 0's replica */
};

static void forward_whole(struct subject *s)
{
    int32_t positions[LENGTH];
    int32_t first_key[LENGTH]; /* as the loader marks it */
    int64_t separator = s->config.data.separator;
    for (int i = 0; i < LENGTH; i++) {
        positions[i] = i;
        first_key[i] = i > 0 && s->tokens[i - 1] == separator ? i : i > 0 ? first_key[i - 1] : 0;
    }
    struct tri_pass pass = {
        .rows = tri_group_rank(tri_mesh_group(s->mesh, TRI_ON_EXPERT | TRI_ON_DATA)) == 0 ? 1 : 0,
        .seq = LENGTH,
        .tokens = s->tokens,
        .positions = positions,
        .first_key = separator >= 0 ? first_key : NULL,
        .global_tokens = LENGTH,
        .batch_tokens = LENGTH,
        .phase = TRI_PHASE_EVAL,
    };
    tri_model_logits(s->engine->model, &pass, false, s->whole);
}

static void begin(struct subject *s, enum small_style style, const char *words,
                  struct small_layout layout)
{
    small_config(style, words, &s->config);
    small_config_lay_out(&s->config, layout);
    s->mesh = small_mesh(&s->config);
    s->engine = tri_engine_create(&s->config, s->mesh, small_kernels(&s->config), false);
    s->vocab = s->config.model.vocab_size;
    for (uint64_t i = 0; i < LENGTH; i++) {
        s->tokens[i] = (int32_t)(tri_random_bits(1, 2, i) % (uint64_t)s->vocab);
        if (s->config.data.separator >= 0 && (i == 3 || i == 4 || i == 8)) {
            s->tokens[i] = (int32_t)s->config.data.separator;
        }
    }
    s->whole = tri_alloc(TRI_MEMORY_OTHER, (size_t)(LENGTH * s->vocab) * sizeof(*s->whole));
    forward_whole(s);
}

static void end(struct subject *s)
{
    tri_free(s->whole);
    tri_engine_destroy(s->engine);
    tri_mesh_destroy(s->mesh);
}

/* Feeds the sequence in pieces that end at the set bits of `cuts`, and at its end. */
static void decode(struct subject *s, struct tri_decoder *decoder, unsigned cuts, double limit)
{
    float *logits = tri_alloc(TRI_MEMORY_OTHER, (size_t)s->vocab * sizeof(*logits));
    int64_t fed = 0;
    tri_decoder_reset(decoder);
    CHECK(tri_decoder_length(decoder) == 0);
    for (int64_t i = 0; i < LENGTH; i++) {
        if (i + 1 < LENGTH && !(cuts >> i & 1)) {
            continue;
        }
        tri_decoder_feed(decoder, s->tokens + fed, i + 1 - fed, logits);
        fed = i + 1;
        CHECK(tri_decoder_length(decoder) == fed);
        if (s->mesh->rank == 0) {
            double distance = small_distance(logits, s->whole + i * s->vocab, s->vocab, 0.0);
            if (!(distance <= limit)) {
                tri_panic(TRI_FAILED, "cuts %x, after %lld tokens: %.3g", cuts, (long long)fed,
                          distance);
            }
        }
    }
    tri_free(logits);
}

static void run(enum small_style style, const char *words, struct small_layout layout, double limit)
{
    static const unsigned cuts[] = {0x0, 0x1, 0x7ff, 0x400, 0x124, 0x7e0, 0x555};
    struct subject s;
    begin(&s, style, words, layout);
    struct tri_decoder *decoder = tri_decoder_create(s.engine->model, LENGTH);
    for (int i = 0; i < (int)(sizeof(cuts) / sizeof(*cuts)); i++) {
        decode(&s, decoder, cuts[i], limit);
    }
    tri_decoder_destroy(decoder);
    end(&s);
}

static int run_job(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    struct small_layout layouts[SMALL_LAYOUTS];
    int count = small_layouts(job_size(), 8, layouts);
    for (int i = 0; i < count; i++) {
        run(SMALL_GPT, "", layouts[i], 1e-5);
        run(SMALL_LLAMA, "model.qk_norm=full model.num_kv_heads=1", layouts[i], 1e-5);
        run(SMALL_LLAMA, "model.qk_norm=head moe.every=2 moe.jitter=0.5", layouts[i], 1e-5);
        run(SMALL_GPT, "data.separator=7", layouts[i], 1e-5);
        run(SMALL_LLAMA, "data.separator=0", layouts[i], 1e-5);
        run(SMALL_GPT, "precision=bf16 moe.top_k=8 model.init_std=0.02", layouts[i], 2e-2);
    }
    return 0;
}

int main(int argc, char **argv)
{
    return job_run(argc, argv, run_job);
}
