/* Decoding with a cache gives the logits of the whole sequence at once, however it is cut, also
 * where the sequence holds several documents. */
#include "support/small.h"

#include "base/memory.h"
#include "base/random.h"
#include "infer/decoder.h"

#include <math.h>
#include <string.h>

enum { LENGTH = 12, ROWS_MOST = 5 };

struct subject {
    struct tri_config config;
    struct tri_mesh *mesh;
    struct tri_engine *engine;
    int64_t vocab;
    int32_t tokens[LENGTH];
    float *whole; /* [LENGTH, vocab] */
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
        .rows = 1, /* on each replica the same */
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

/* Row r is the sequence without its last skip_of(r) tokens: what that many tokens of padding go
 * before. */
static int64_t skip_of(int64_t row)
{
    return row % 4;
}

/* tokens [rows, n] <- columns [fed, fed + n) of this rank's rows. */
static void take_columns(const struct subject *s, struct tri_range rows, int64_t fed, int64_t n,
                         int32_t *tokens)
{
    for (int64_t row = rows.begin; row < rows.end; row++) {
        for (int64_t i = 0; i < n; i++) {
            int64_t at = fed + i - skip_of(row);
            tokens[(row - rows.begin) * n + i] = at < 0 ? 1 : s->tokens[at];
        }
    }
}

static void compare(const struct subject *s, struct tri_range rows, int64_t fed,
                    const float *logits, double limit)
{
    for (int64_t row = rows.begin; row < rows.end; row++) {
        const float *whole = s->whole + (fed - 1 - skip_of(row)) * s->vocab;
        double distance =
            small_distance(logits + (row - rows.begin) * s->vocab, whole, s->vocab, 0.0);
        if (!(distance <= limit)) {
            tri_panic(TRI_FAILED, "row %lld, after %lld tokens: %.3g", (long long)row,
                      (long long)fed, distance);
        }
    }
}

/* Feeds the rows in pieces that end at the set bits of `cuts`, and at their end. */
static void decode(struct subject *s, struct tri_decoder *decoder, int64_t all, unsigned cuts,
                   double limit)
{
    struct tri_range rows = tri_decoder_rows(decoder);
    int64_t padding[ROWS_MOST];
    int32_t tokens[ROWS_MOST * LENGTH];
    float *logits = tri_alloc(TRI_MEMORY_OTHER, (size_t)(all * s->vocab) * sizeof(*logits));
    int64_t fed = 0;
    for (int64_t row = 0; row < all; row++) {
        padding[row] = skip_of(row);
    }
    tri_decoder_reset(decoder, all > 1 ? padding : NULL);
    for (int64_t i = all > 1 ? 3 : 0; i < LENGTH; i++) {
        if (i + 1 < LENGTH && !(cuts >> i & 1)) {
            continue;
        }
        int64_t n = i + 1 - fed;
        take_columns(s, rows, fed, n, tokens);
        tri_decoder_feed(decoder, tokens, n, logits);
        fed = i + 1;
        compare(s, rows, fed, logits, limit);
    }
    for (int64_t back = all > 1 ? 4 : 0; back < LENGTH; back += 3) {
        tri_decoder_rewind(decoder, back);
        take_columns(s, rows, back, LENGTH - back, tokens);
        tri_decoder_feed(decoder, tokens, LENGTH - back, logits);
        compare(s, rows, LENGTH, logits, limit);
    }
    tri_free(logits);
}

/* One row; fewer than there are replicas, or more. */
static void run(enum small_style style, const char *words, struct small_layout layout, double limit)
{
    static const unsigned cuts[] = {0x0, 0x1, 0x7ff, 0x400, 0x124, 0x7e0, 0x555};
    static const int64_t rows[] = {1, 3, ROWS_MOST};
    struct subject s;
    begin(&s, style, words, layout);
    for (int r = 0; r < (int)(sizeof(rows) / sizeof(*rows)); r++) {
        struct tri_decoder *decoder = tri_decoder_create(s.engine->model, rows[r], LENGTH);
        for (int i = 0; i < (int)(sizeof(cuts) / sizeof(*cuts)); i++) {
            decode(&s, decoder, rows[r], cuts[i], limit);
        }
        tri_decoder_destroy(decoder);
    }
    end(&s);
}

static int run_job(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    struct small_layout layouts[SMALL_LAYOUTS];
    int count = small_layouts(job_size(), 8, layouts);
    for (int i = 0; i < count; i++) {
        run(SMALL_GPT, "train.micro_batch=5", layouts[i], 1e-5);
        run(SMALL_LLAMA, "train.micro_batch=5 model.qk_norm=full model.num_kv_heads=1", layouts[i],
            1e-5);
        run(SMALL_LLAMA, "train.micro_batch=5 model.qk_norm=head moe.every=2 moe.jitter=0.5",
            layouts[i], 1e-5);
        run(SMALL_GPT, "train.micro_batch=5 data.separator=7", layouts[i], 1e-5);
        run(SMALL_LLAMA, "train.micro_batch=5 data.separator=0 model.sliding_window=3", layouts[i],
            1e-5);
        run(SMALL_GPT, "train.micro_batch=5 precision=bf16 moe.top_k=8 model.init_std=0.02",
            layouts[i], 2e-2);
    }
    return 0;
}

int main(int argc, char **argv)
{
    return job_run(argc, argv, run_job);
}
