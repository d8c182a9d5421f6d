/* The gap that a route tap records is one between probabilities, whether experts are chosen by
 * logits or, with a balancing bias, groups or sigmoids, by probabilities: verify's near ties are
 * told by it. */
#include "support/small.h"

#include "base/memory.h"
#include "moe/moe.h"

#include <math.h>
#include <string.h>

/* Places chosen and not, by score: the least of the k best, less the best of the rest. */
static double gap_between(const double *score, int64_t experts, int64_t k)
{
    double last = (double)INFINITY;
    double refused = (double)-INFINITY;
    for (int64_t e = 0; e < experts; e++) {
        int64_t better = 0;
        for (int64_t other = 0; other < experts; other++) {
            better += score[other] > score[e];
        }
        if (better < k) {
            last = fmin(last, score[e]);
        } else {
            refused = fmax(refused, score[e]);
        }
    }
    return last - refused;
}

/* The same where two of four groups of two experts are open. */
static double gap_in_groups(const double *score, int64_t k)
{
    double sum[4];
    double open[8];
    for (int g = 0; g < 4; g++) {
        sum[g] = score[2 * g] + score[2 * g + 1];
    }
    double between = gap_between(sum, 4, 2) / 2;
    int64_t count = 0;
    for (int g = 0; g < 4; g++) {
        int better = 0;
        for (int other = 0; other < 4; other++) {
            better += sum[other] > sum[g];
        }
        for (int e = 2 * g; e < 2 * g + 2 && better < 2; e++) {
            open[count++] = score[e];
        }
    }
    return fmin(between, gap_between(open, count, k));
}

static double expected_gap(const struct tri_config_moe *moe, const float *logits, const float *bias)
{
    const int64_t experts = moe->num_experts;
    const int64_t k = moe->top_k;
    double score[8];
    double sum = 0.0;
    CHECK(experts == 8);
    for (int64_t e = 0; e < experts; e++) {
        sum += exp((double)logits[e]);
    }
    for (int64_t e = 0; e < experts; e++) {
        double odds = exp((double)logits[e]);
        score[e] = moe->score == TRI_SCORE_SIGMOID ? odds / (1.0 + odds) : odds / sum;
        score[e] += bias ? (double)bias[e] : 0.0;
    }
    return moe->groups > 1 ? gap_in_groups(score, k) : gap_between(score, experts, k);
}

static struct tri_route_tap make_tap(const struct tri_config *config)
{
    size_t layers = (size_t)tri_model_moe_layers(config);
    struct tri_route_tap tap = {.k = config->moe.top_k};
    tap.tokens = config->train.global_batch * config->data.sequence_length;
    size_t tokens = layers * (size_t)tap.tokens;
    tap.chosen = tri_alloc(TRI_MEMORY_OTHER, tokens * (size_t)tap.k * sizeof(*tap.chosen));
    tap.gap = tri_alloc(TRI_MEMORY_OTHER, tokens * sizeof(*tap.gap));
    tap.logits =
        tri_alloc(TRI_MEMORY_OTHER, tokens * (size_t)config->moe.num_experts * sizeof(*tap.logits));
    return tap;
}

static void check(const char *words)
{
    struct tri_config config;
    small_config(SMALL_LLAMA, words, &config);
    struct tri_mesh *mesh = small_mesh(&config);
    struct tri_engine *engine = tri_engine_create(&config, mesh, small_kernels(&config), true);
    struct tri_rows_source source = small_source(&config);
    struct tri_route_tap tap = make_tap(&config);
    float *bias = tri_moe_bias(tri_model_moe(engine->model));
    int64_t experts = config.moe.num_experts;
    for (int64_t i = 0; bias && i < engine->moe_layers * experts; i++) {
        bias[i] = 0.02F * (float)(i % 5) - 0.03F;
    }
    (void)small_gradients(engine, &source, 0, &tap);
    for (int64_t t = 0; t < engine->moe_layers * tap.tokens; t++) {
        const float *own = bias ? bias + t / tap.tokens * experts : NULL;
        double expected = expected_gap(&config.moe, tap.logits + t * experts, own);
        CHECK(fabs((double)tap.gap[t] - expected) <= 1e-6);
    }
    tri_free(tap.chosen);
    tri_free(tap.gap);
    tri_free(tap.logits);
    tri_engine_destroy(engine);
    tri_mesh_destroy(mesh);
}

static int run_job(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    check("");
    check("moe.top_k=3");
    check("moe.bias_balancing=0.01");
    check("moe.bias_balancing=0.01 moe.top_k=1 moe.normalize_top_k=false");
    check("moe.score=sigmoid");
    check("moe.groups=4 moe.groups_top=2");
    check("moe.score=sigmoid moe.groups=4 moe.groups_top=2 moe.bias_balancing=0.01 moe.top_k=3");
    return 0;
}

int main(int argc, char **argv)
{
    return job_run(argc, argv, run_job);
}
