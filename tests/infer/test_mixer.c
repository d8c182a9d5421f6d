/* Inference with the router sparsemixer against a model that is written out here, in double: each
 * choice is the largest of what is left, weighed by the softmax of those that are not masked. The
 * losses of `eval`, the logits with and without a cache, and the texts of `generate` are its own,
 * on every layout, and no seed changes them. */
#include "support/small.h"

#include "base/memory.h"
#include "infer/generate.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    VOCAB = 31,
    LAYERS = 2,
    HIDDEN = 16,
    HEADS = 4,
    DIM = HIDDEN / HEADS,
    EXPERTS = 6,
    TOP = 2,
    INNER = 9,
    LENGTH = 10,
    ROWS = 3,
    NEW = 4
};

static const char text[] =
    "model: {vocab_size: 31, num_layers: 2, hidden_size: 16, num_heads: 4, position: learned,\n"
    "        max_position: 10, init_std: 0.3}\n"
    "moe: {num_experts: 6, top_k: 2, intermediate_size: 9, router: sparsemixer}\n"
    "data: {sequence_length: 10}\n"
    "train: {global_batch: 3}\n";

/* ---- the model, written out ------------------------------------------------------------------ */

struct net {
    const struct tri_config *config;
    const struct tri_engine *engine;
    int masked,
        left;       /* experts that a token lost to the mask, and that it had beside the largest */
    double nearest; /* what parted the largest from the next */
};

static float *weights(const struct net *net, const char *name)
{
    const struct tri_param *param = tri_params_by_name(net->engine->params, name);
    CHECK(param);
    size_t n = (size_t)(param->shape[0] * param->shape[1]);
    float *values = tri_alloc(TRI_MEMORY_OTHER, n * sizeof(*values));
    tri_param_gather(net->engine->params, param, TRI_FIELD_WEIGHT, values);
    tri_broadcast(tri_mesh_group(net->engine->mesh, TRI_ON_ALL),
                  (struct tri_where){TRI_PHASE_SETUP, TRI_KIND_META}, values, (int64_t)n, TRI_F32,
                  0);
    return values;
}

static float *of_layer(const struct net *net, int layer, const char *name)
{
    char whole[96];
    (void)snprintf(whole, sizeof(whole), "layers.%d.%s", layer, name);
    return weights(net, whole);
}

/* y [n, out] = x [n, in] times the matrix [out, in] of that name. */
static void multiply(const struct net *net, int layer, const char *name, int n, int out, int in,
                     const double *x, double *y)
{
    float *w = layer < 0 ? weights(net, name) : of_layer(net, layer, name);
    for (int i = 0; i < n * out; i++) {
        y[i] = 0;
        for (int j = 0; j < in; j++) {
            y[i] += (double)w[i % out * in + j] * x[i / out * in + j];
        }
    }
    tri_free(w);
}

static void normalise(const struct net *net, int layer, const char *name, int n, const double *x,
                      double *y)
{
    float *w = layer < 0 ? weights(net, name) : of_layer(net, layer, name);
    for (int t = 0; t < n; t++) {
        double squares = 0;
        for (int i = 0; i < HIDDEN; i++) {
            squares += x[t * HIDDEN + i] * x[t * HIDDEN + i];
        }
        for (int i = 0; i < HIDDEN; i++) {
            y[t * HIDDEN + i] = x[t * HIDDEN + i] * (double)w[i] /
                                sqrt(squares / HIDDEN + net->config->model.norm_epsilon);
        }
    }
    tri_free(w);
}

static void attend(const struct net *net, int layer, int n, double *x)
{
    double h[LENGTH * HIDDEN], q[LENGTH * HIDDEN], k[LENGTH * HIDDEN], v[LENGTH * HIDDEN];
    double mixed[LENGTH * HIDDEN] = {0};
    normalise(net, layer, "norm1.weight", n, x, h);
    multiply(net, layer, "attention.q.weight", n, HIDDEN, HIDDEN, h, q);
    multiply(net, layer, "attention.k.weight", n, HIDDEN, HIDDEN, h, k);
    multiply(net, layer, "attention.v.weight", n, HIDDEN, HIDDEN, h, v);
    for (int i = 0; i < n * HEADS; i++) {
        int at = i / HEADS, head = i % HEADS * DIM;
        double share[LENGTH], sum = 0;
        for (int s = 0; s <= at; s++) {
            double dot = 0;
            for (int d = 0; d < DIM; d++) {
                dot += q[at * HIDDEN + head + d] * k[s * HIDDEN + head + d];
            }
            share[s] = exp(dot / sqrt(DIM));
            sum += share[s];
        }
        for (int s = 0; s <= at; s++) {
            for (int d = 0; d < DIM; d++) {
                mixed[at * HIDDEN + head + d] += share[s] / sum * v[s * HIDDEN + head + d];
            }
        }
    }
    multiply(net, layer, "attention.o.weight", n, HIDDEN, HIDDEN, mixed, h);
    for (int i = 0; i < n * HIDDEN; i++) {
        x[i] += h[i];
    }
}

/* The form's mask, by its definition; z of the largest that is left. */
static bool is_masked(const struct net *net, double z, double largest)
{
    double range = net->config->moe.mask_range;
    if (net->config->moe.sparsemixer_form == TRI_SPARSEMIXER_RELEASED) {
        return (largest - z) / fmax(fabs(z), largest) > 2 * range;
    }
    return largest - z > range * (fabs(z) + fabs(largest));
}

/* Weights of the experts of a token, 0 of those that are not chosen. */
static void mix(struct net *net, const double *z, double *weight)
{
    double scale = net->config->moe.sparsemixer_form == TRI_SPARSEMIXER_CORRECTED ? 0.5 : 1;
    memset(weight, 0, EXPERTS * sizeof(*weight));
    for (int j = 0; j < TOP; j++) {
        int largest = -1;
        for (int e = 0; e < EXPERTS; e++) {
            bool above = largest < 0 || z[e] > z[largest];
            largest = weight[e] > 0 || !above ? largest : e;
        }
        double sum = 0;
        for (int e = 0; e < EXPERTS; e++) {
            if (weight[e] > 0) {
                continue;
            }
            bool masked = is_masked(net, z[e], z[largest]);
            sum += masked ? 0 : exp(scale * (z[e] - z[largest]));
            net->masked += masked;
            net->left += !masked && e != largest;
            net->nearest = e == largest ? net->nearest : fmin(net->nearest, z[largest] - z[e]);
        }
        weight[largest] = 1 / sum;
    }
}

static void visit_experts(struct net *net, int layer, int n, double *x)
{
    double h[LENGTH * HIDDEN], z[LENGTH * EXPERTS], weight[LENGTH * EXPERTS];
    double gate[LENGTH * INNER], up[LENGTH * INNER], out[LENGTH * HIDDEN];
    normalise(net, layer, "norm2.weight", n, x, h);
    multiply(net, layer, "moe.router.weight", n, EXPERTS, HIDDEN, h, z);
    for (int t = 0; t < n; t++) {
        mix(net, z + t * EXPERTS, weight + t * EXPERTS);
    }
    for (int e = 0; e < EXPERTS; e++) {
        char name[3][48];
        static const char *const parts[] = {"gate", "up", "down"};
        for (int i = 0; i < 3; i++) {
            (void)snprintf(name[i], sizeof(name[i]), "moe.experts.%d.%s.weight", e, parts[i]);
        }
        multiply(net, layer, name[0], n, INNER, HIDDEN, h, gate);
        multiply(net, layer, name[1], n, INNER, HIDDEN, h, up);
        for (int i = 0; i < n * INNER; i++) {
            gate[i] *= up[i] / (1 + exp(-gate[i]));
        }
        multiply(net, layer, name[2], n, HIDDEN, INNER, gate, out);
        for (int i = 0; i < n * HIDDEN; i++) {
            x[i] += weight[i / HIDDEN * EXPERTS + e] * out[i];
        }
    }
}

/* logits [n, VOCAB] of what comes after each of n tokens. Collective: weights are gathered. */
static void compute(struct net *net, int n, const int32_t *tokens, double *logits)
{
    double x[LENGTH * HIDDEN], h[LENGTH * HIDDEN];
    float *embedding = weights(net, "embedding.weight"),
          *position = weights(net, "position.weight");
    for (int i = 0; i < n * HIDDEN; i++) {
        int at = i % HIDDEN;
        x[i] = (double)embedding[tokens[i / HIDDEN] * HIDDEN + at] + (double)position[i];
    }
    tri_free(embedding);
    tri_free(position);
    for (int layer = 0; layer < LAYERS; layer++) {
        attend(net, layer, n, x);
        visit_experts(net, layer, n, x);
    }
    normalise(net, -1, "final_norm.weight", n, x, h);
    multiply(net, -1, "head.weight", n, VOCAB, HIDDEN, h, logits);
}

/* ---- the program's --------------------------------------------------------------------------- */

struct rows {
    int32_t tokens[ROWS * (LENGTH + 1)]; /* each row's, and what comes after its last */
    double logits[ROWS * LENGTH * VOCAB];
};

static enum tri_status fill(void *state, int64_t step, int64_t first_row, int64_t rows,
                            const struct tri_row_arrays *out, struct tri_error *error)
{
    const struct rows *r = state;
    (void)step;
    (void)error;
    for (int64_t i = 0; i < rows * LENGTH; i++) {
        const int32_t *row = r->tokens + (first_row + i / LENGTH) * (LENGTH + 1);
        out->tokens[i] = row[i % LENGTH];
        out->targets[i] = row[i % LENGTH + 1];
        out->first_key[i] = 0;
    }
    return TRI_OK;
}

static void check_losses(struct tri_engine *engine, struct rows *rows)
{
    const struct tri_rows_source source = {.state = rows,
                                           .fill = fill,
                                           .rows = ROWS,
                                           .seq = LENGTH,
                                           .counted_tokens = ROWS * LENGTH,
                                           .tokens = ROWS * LENGTH};
    struct tri_step_report report;
    struct tri_error error;
    double expected = 0;
    for (int t = 0; t < ROWS * LENGTH; t++) {
        const double *z = rows->logits + t * VOCAB;
        double sum = 0;
        for (int i = 0; i < VOCAB; i++) {
            sum += exp(z[i]);
        }
        int32_t target = rows->tokens[t / LENGTH * (LENGTH + 1) + t % LENGTH + 1];
        expected += (log(sum) - z[target]) / (ROWS * LENGTH);
    }
    CHECK(tri_engine_evaluate(engine, &source, &report, &error) == TRI_OK);
    if (!(fabs(report.cross_entropy - expected) <= 1e-5 * expected)) {
        tri_panic(TRI_FAILED, "loss %.9g, expected %.9g", report.cross_entropy, expected);
    }
}

/* In pieces of so many tokens, with a cache. */
static void check_decoder(struct tri_engine *engine, const struct rows *rows, int piece)
{
    struct tri_decoder *decoder = tri_decoder_create(engine->model, ROWS, LENGTH);
    struct tri_range own = tri_decoder_rows(decoder);
    for (int fed = piece; fed <= LENGTH; fed += piece) {
        int32_t tokens[ROWS * LENGTH];
        float logits[ROWS * VOCAB];
        for (int64_t row = own.begin; row < own.end; row++) {
            memcpy(tokens + (row - own.begin) * piece,
                   rows->tokens + row * (LENGTH + 1) + fed - piece,
                   (size_t)piece * sizeof(*tokens));
        }
        tri_decoder_feed(decoder, tokens, piece, logits);
        for (int64_t i = 0; i < tri_range_size(own) * VOCAB; i++) {
            int64_t row = own.begin + i / VOCAB;
            double expected = rows->logits[(row * LENGTH + fed - 1) * VOCAB + i % VOCAB];
            CHECK(fabs((double)logits[i] - expected) <= 2e-5 * (1 + fabs(expected)));
        }
    }
    tri_decoder_destroy(decoder);
}

/* The likeliest tokens, from the first tokens of each row on. */
static void check_texts(struct tri_engine *engine, struct net *net, const struct rows *rows,
                        bool without_cache)
{
    int32_t tokens[ROWS][LENGTH];
    struct tri_sequence sequences[ROWS];
    const struct tri_generation generation = {
        .most = NEW, .sampling = {.top_p = 1}, .without_cache = without_cache};
    for (int row = 0; row < ROWS; row++) {
        int count = 2 + row;
        memcpy(tokens[row], rows->tokens + row * (LENGTH + 1), sizeof(tokens[row]));
        sequences[row] =
            (struct tri_sequence){.tokens = tokens[row], .prompt = count, .count = count};
    }
    struct tri_generator *generator = tri_generator_create(engine->model, ROWS, LENGTH);
    (void)tri_generate(generator, &generation, sequences);
    tri_generator_destroy(generator);
    for (int row = 0; row < ROWS; row++) {
        CHECK(sequences[row].count == 2 + row + NEW);
        double logits[LENGTH * VOCAB];
        compute(net, 1 + row + NEW, tokens[row], logits);
        for (int at = 2 + row; at < 2 + row + NEW; at++) {
            const double *z = logits + (at - 1) * VOCAB;
            for (int i = 0; i < VOCAB; i++) {
                CHECK(z[i] <= z[tokens[row][at]] + 1e-5);
            }
        }
    }
}

static void run(const char *words, struct small_layout layout)
{
    struct tri_config config;
    struct tri_error error;
    char form[64];
    char range[] = "moe.mask_range=0.3";
    char *changes[] = {form, range};
    struct rows *rows = tri_alloc(TRI_MEMORY_OTHER, sizeof(*rows));
    (void)snprintf(form, sizeof(form), "moe.sparsemixer_form=%s", words);
    CHECK(tri_config_parse(small_strategies, "mixer.yaml", text, strlen(text), 2, changes, &config,
                           &error) == TRI_OK);
    small_config_lay_out(&config, layout);
    struct tri_mesh *mesh = small_mesh(&config);
    struct tri_engine *engine = tri_engine_create(&config, mesh, small_kernels(&config), false);
    struct net net = {.config = &config, .engine = engine, .nearest = (double)INFINITY};
    for (int i = 0; i < ROWS * (LENGTH + 1); i++) {
        rows->tokens[i] = (7 * i * i + 3 * i + 5) % VOCAB;
    }
    for (int row = 0; row < ROWS; row++) {
        compute(&net, LENGTH, rows->tokens + row * (LENGTH + 1),
                rows->logits + row * LENGTH * VOCAB);
    }
    CHECK(net.masked > 20 && net.left > 20 && net.nearest > 1e-4);
    for (int seed = 0; seed < 2; seed++) {
        config.seed += seed;
        check_losses(engine, rows);
        check_decoder(engine, rows, seed ? 1 : LENGTH);
        check_decoder(engine, rows, seed ? 5 : 3);
        check_texts(engine, &net, rows, seed == 1);
    }
    tri_engine_destroy(engine);
    tri_mesh_destroy(mesh);
    tri_free(rows);
}

static int run_job(int argc, char **argv)
{
    static const char *const forms[] = {"paper", "released", "corrected"};
    struct small_layout layouts[SMALL_LAYOUTS];
    int count = small_layouts(job_size(), EXPERTS, layouts);
    (void)argc;
    (void)argv;
    for (int i = 0; i < 3 * count; i++) {
        run(forms[i % 3], layouts[i / 3]);
    }
    return 0;
}

int main(int argc, char **argv)
{
    return job_run(argc, argv, run_job);
}
