/* The schedule by itself: given tokens, routes and weights, the sum over choices of
 * weight * expert(token) and its derivatives, in double by the definition, on every layout, with
 * and without duplicate token dropping and a cut stream; replicas have different numbers of rows,
 * some experts get no token, some routes are dropped. Ours, and one of the tests' own. */
#include "support/small.h"

#include "base/memory.h"
#include "base/random.h"
#include "model/stream.h"
#include "moe/schedule.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { SEQ = 12, HIDDEN = 32, INNER = 19, EXPERTS = 8, K = 2, FIRST_ROWS = 3 };

/* By a number's place in the batch, so that every rank knows all of them. */
static float number(uint64_t stream, int64_t index)
{
    return (float)tri_random_normal(5, stream, (uint64_t)index);
}

/* Expert 3 gets none. */
static int32_t choice(int64_t token, int64_t j)
{
    static const int32_t order[] = {0, 5, 1, 7, 2, 6, 4};
    return order[(token * 3 + j * 2) % 7];
}

static bool is_dropped(int64_t token, int64_t j)
{
    return (token + j) % 5 == 0;
}

static float weight_of(int64_t token, int64_t j)
{
    return 0.25F + 0.5F * (float)fabs((double)number(2, token * K + j));
}

/* ---- the definition -------------------------------------------------------------------------- */

/* An expert of the whole model: gate, up [INNER, HIDDEN], down [HIDDEN, INNER]. */
struct expert {
    const float *gate, *up, *down;
};

static struct expert expert_of(const struct tri_params *whole, int32_t e)
{
    static const char *const parts[] = {"gate", "up", "down"};
    const float *found[3];
    for (int i = 0; i < 3; i++) {
        char name[96];
        (void)snprintf(name, sizeof(name), "layers.0.moe.experts.%d.%s.weight", e, parts[i]);
        const struct tri_param *param = tri_params_by_name(whole, name);
        CHECK(param);
        found[i] = tri_param_weights(whole, param);
    }
    return (struct expert){found[0], found[1], found[2]};
}

static double dot(const float *row, const float *x)
{
    double sum = 0;
    for (int i = 0; i < HIDDEN; i++) {
        sum += (double)row[i] * (double)x[i];
    }
    return sum;
}

/* out = expert(x), dx = its Jacobian's transpose times dy. */
static void apply(struct expert expert, const float *x, const double *dy, double *out, double *dx)
{
    memset(out, 0, HIDDEN * sizeof(*out));
    memset(dx, 0, HIDDEN * sizeof(*dx));
    for (int64_t j = 0; j < INNER; j++) {
        double g = dot(expert.gate + j * HIDDEN, x);
        double u = dot(expert.up + j * HIDDEN, x);
        double s = 1 / (1 + exp(-g));
        double dh = 0;
        for (int64_t i = 0; i < HIDDEN; i++) {
            out[i] += (double)expert.down[i * INNER + j] * g * s * u;
            dh += (double)expert.down[i * INNER + j] * dy[i];
        }
        double dg = dh * u * s * (1 + g * (1 - s));
        double du = dh * g * s;
        for (int64_t i = 0; i < HIDDEN; i++) {
            dx[i] +=
                dg * (double)expert.gate[j * HIDDEN + i] + du * (double)expert.up[j * HIDDEN + i];
        }
    }
}

static void check_near(double found, double expected, const char *what, int64_t token,
                       const char *where)
{
    if (!(fabs(found - expected) <= 2e-5 * (1 + fabs(expected)))) {
        tri_panic(TRI_FAILED, "%s: token %lld: %s %.9g, expected %.9g", where, (long long)token,
                  what, found, expected);
    }
}

/* What forward and backward gave for a token of the batch; NULL: not this rank's. */
static void check_token(const struct tri_params *whole, int64_t token, const float *y,
                        const float *dx, const float *dweight, const char *where)
{
    float x[HIDDEN];
    double dy[HIDDEN], out[HIDDEN], back[HIDDEN];
    double sum[HIDDEN] = {0}, d_sum[HIDDEN] = {0};
    for (int64_t i = 0; i < HIDDEN; i++) {
        x[i] = number(0, token * HIDDEN + i);
        dy[i] = (double)number(1, token * HIDDEN + i);
    }
    for (int64_t j = 0; j < K; j++) {
        double slope = 0;
        if (!is_dropped(token, j)) {
            double w = (double)weight_of(token, j);
            apply(expert_of(whole, choice(token, j)), x, dy, out, back);
            for (int64_t i = 0; i < HIDDEN; i++) {
                sum[i] += w * out[i];
                d_sum[i] += w * back[i];
                slope += dy[i] * out[i];
            }
        }
        if (dweight) {
            check_near((double)dweight[j], slope, "dweight", token, where);
        }
    }
    for (int64_t i = 0; i < HIDDEN && y; i++) {
        check_near((double)y[i], sum[i], "y", token, where);
    }
    for (int64_t i = 0; i < HIDDEN && dx; i++) {
        check_near((double)dx[i], d_sum[i], "dx", token, where);
    }
}

/* ---- a run ----------------------------------------------------------------------------------- */

struct bench {
    struct tri_context context;
    const struct tri_params *whole;
    struct tri_frame frame;
    struct tri_routes routes;
    int64_t first; /* token of the batch */
    const char *where;
};

/* Tokens, routes and weights of this replica, in place of what a router decides. */
static void fill(struct bench *b, float *x, float *dy)
{
    int64_t tokens = tri_pass_tokens(&b->frame.pass);
    size_t routes = (size_t)(tokens * K);
    b->routes.chosen = tri_alloc(TRI_MEMORY_OTHER, routes * sizeof(int32_t));
    b->routes.expert = tri_alloc(TRI_MEMORY_OTHER, routes * sizeof(int32_t));
    b->routes.weight = tri_alloc(TRI_MEMORY_OTHER, routes * sizeof(float));
    for (int64_t r = 0; r < tokens * K; r++) {
        int64_t token = b->first + r / K;
        b->routes.chosen[r] = choice(token, r % K);
        b->routes.expert[r] = is_dropped(token, r % K) ? -1 : choice(token, r % K);
        b->routes.weight[r] = is_dropped(token, r % K) ? 0 : weight_of(token, r % K);
        b->routes.dropped += is_dropped(token, r % K);
    }
    struct tri_range stream = tri_stream_tokens(&b->frame);
    for (int64_t i = 0; i < tri_range_size(stream) * HIDDEN; i++) {
        x[i] = number(0, (b->first + stream.begin) * HIDDEN + i);
        dy[i] = number(1, (b->first + stream.begin) * HIDDEN + i);
    }
}

static void run(struct bench *b)
{
    struct tri_context *context = &b->context;
    struct tri_exchange exchange = {0};
    struct tri_schedule *schedule =
        context->config->moe.schedule->ops->create(context, &exchange, 0);
    struct tri_range stream = tri_stream_tokens(&b->frame);
    struct tri_range own = schedule->ops->own(schedule, &b->frame);
    size_t elements = (size_t)(tri_range_size(stream) * HIDDEN + 1);
    float *x = tri_alloc(TRI_MEMORY_OTHER, elements * sizeof(*x));
    float *dy = tri_alloc(TRI_MEMORY_OTHER, elements * sizeof(*dy));
    float *dx = tri_alloc(TRI_MEMORY_OTHER, elements * sizeof(*dx));
    float *dweight = tri_alloc(TRI_MEMORY_OTHER, (size_t)(tri_pass_tokens(&b->frame.pass) * K + 1) *
                                                     sizeof(*dweight));
    void *kept = tri_alloc(TRI_MEMORY_OTHER, schedule->kept);
    fill(b, x, dy);
    const float *y = schedule->ops->forward(schedule, &b->frame, kept, &b->routes, x, true);
    CHECK(y);
    schedule->ops->backward(schedule, &b->frame, kept, &b->routes, dy, dx, dweight);
    schedule->ops->finish_backward(schedule, &b->frame, dx);
    for (int64_t t = 0; t < tri_pass_tokens(&b->frame.pass); t++) {
        bool here = t >= stream.begin && t < stream.end;
        int64_t at = (t - stream.begin) * HIDDEN;
        check_token(b->whole, b->first + t, here ? y + at : NULL, here ? dx + at : NULL,
                    t >= own.begin && t < own.end ? dweight + t * K : NULL, b->where);
    }
    schedule->ops->destroy(schedule);
    for (int i = 0; i < TRI_EXCHANGE_BUFFERS; i++) {
        tri_free(exchange.buffer[i]);
    }
    tri_free(kept);
    tri_free(x);
    tri_free(dy);
    tri_free(dx);
    tri_free(dweight);
    tri_free(b->routes.chosen);
    tri_free(b->routes.expert);
    tri_free(b->routes.weight);
}

static void check(const char *words, struct small_layout layout, const struct tri_params *whole)
{
    struct tri_config config;
    char where[256];
    small_config(SMALL_LLAMA, words, &config);
    small_config_lay_out(&config, layout);
    (void)snprintf(where, sizeof(where), "%s: %s", small_layout_text(layout), words);
    struct tri_mesh *mesh = small_mesh(&config);
    struct tri_params *params = tri_params_create(&config, mesh);
    tri_params_allocate(params, true);
    tri_params_init(params, tri_kernels_ref(), 1);
    int tensor = mesh->size[TRI_AXIS_TENSOR];
    int replica = tri_group_rank(tri_mesh_group(mesh, TRI_ON_EXPERT | TRI_ON_DATA));
    int64_t before = 0;
    for (int r = 0; r < replica; r++) {
        before += (FIRST_ROWS + r) % 4;
    }
    struct bench b = {
        .context = {.config = &config,
                    .mesh = mesh,
                    .params = params,
                    .kernels = small_kernels(&config),
                    .dt = TRI_F32,
                    .sum_dt = TRI_F32,
                    .shards = {tensor, mesh->coord[TRI_AXIS_TENSOR], 1},
                    .expert_shards = {tensor, mesh->coord[TRI_AXIS_TENSOR], 1}},
        .whole = whole,
        .frame = {.pass = {.rows = (FIRST_ROWS + replica) % 4, /* none on the second replica */
                           .seq = SEQ,
                           .first_row = before,
                           .batch_rows = 16,
                           .training = true,
                           .backward = true,
                           .phase = TRI_PHASE_FORWARD},
                  .arena = tri_arena_create(TRI_MEMORY_ACTIVATIONS, "activations", 1 << 26),
                  .tape = tri_tape_create(config.model.num_layers, false, 1 << 16)},
        .first = before * SEQ,
        .where = where};
    b.frame.context = &b.context;
    b.frame.part = b.frame.pass;
    run(&b);
    tri_tape_destroy(b.frame.tape);
    tri_arena_destroy(b.frame.arena);
    tri_params_destroy(params);
    tri_mesh_destroy(mesh);
}

static int run_job(int argc, char **argv)
{
    static const char *const words[] = {"",
                                        "train.duplicate_token_dropping=false",
                                        "train.sequence_parallel=true",
                                        "moe.schedule=overlapped moe.chunks=3",
                                        "moe.schedule=overlapped train.sequence_parallel=true",
                                        "moe.schedule=s1",
                                        "moe.schedule=s2",
                                        "moe.schedule=s1 train.sequence_parallel=true",
                                        "moe.schedule=s2 train.sequence_parallel=true",
                                        "moe.schedule=hierarchical comm.ranks_per_host=1",
                                        "moe.schedule=hierarchical comm.ranks_per_host=3 "
                                        "train.sequence_parallel=true",
                                        "moe.schedule=gather",
                                        "moe.schedule=gather train.sequence_parallel=true"};
    enum { WORDS = sizeof(words) / sizeof(*words) };
    (void)argc;
    (void)argv;
    struct tri_config config;
    small_config(SMALL_LLAMA, "", &config);
    CHECK(config.model.hidden_size == HIDDEN && config.moe.intermediate_size == INNER);
    CHECK(config.moe.num_experts == EXPERTS && config.moe.top_k == K);
    struct tri_mesh *serial = tri_mesh_create_serial();
    struct tri_params *whole = tri_params_create(&config, serial);
    tri_params_allocate(whole, false);
    tri_params_init(whole, tri_kernels_ref(), 1);
    struct small_layout layouts[SMALL_LAYOUTS];
    int count = small_layouts(job_size(), EXPERTS, layouts);
    for (int i = 0; i < WORDS * count; i++) {
        check(words[i % WORDS], layouts[i / WORDS], whole);
    }
    tri_params_destroy(whole);
    tri_mesh_destroy(serial);
    return 0;
}

int main(int argc, char **argv)
{
    return job_run(argc, argv, run_job);
}
