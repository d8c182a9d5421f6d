/* Several micro-batches on their way through a model at once: forwards, losses and backwards in
 * other orders than one after the other give the same bits of loss and gradients in reproducible
 * mode, on every layout, whatever a block keeps for its backward. Otherwise the order of sums is
 * that of the backwards: the same order, the same bits. What each order takes is planned to the
 * byte, and taken once. */
#include "support/small.h"

#include "base/memory.h"
#include "moe/moe.h"
#include "moe/strategies.h"
#include "shard/rows.h"

#include <stdio.h>
#include <string.h>

enum { FRAMES = 3 };

/* F: forward, L: loss, B: backward of a micro-batch. The first one is a step as the engine takes
 * it. */
static const char *const orders[] = {
    "F0 L0 B0 F1 L1 B1 F2 L2 B2", "F0 L0 F1 L1 F2 L2 B0 B1 B2", "F0 L0 F1 L1 F2 L2 B2 B1 B0",
    "F0 F1 F2 L2 L0 L1 B1 B0 B2", "F0 F1 L1 B1 F2 L0 B0 L2 B2",
};
/* Losses and backwards in turn. */
static const char *const in_turn[] = {"F0 F1 F2 L0 B0 L1 B1 L2 B2", "F0 F1 L0 B0 F2 L1 B1 L2 B2"};
#define COUNT(array) ((int)(sizeof(array) / sizeof(*(array))))

struct subject {
    struct tri_config config;
    struct tri_mesh *mesh;
    struct tri_engine *engine;
    struct tri_rows_source source;
    int32_t *tokens, *targets, *first_key, *positions; /* this replica's rows */
    struct tri_tally tally;
    struct tri_hooks hooks;
    bool last; /* the backward that runs is the step's last: its gradients are final */
    struct tri_pass pass[FRAMES];
};

/* Rows of the batch so that each replica has three micro-batches, the last one of one row or, on
 * all but the first replica, of none. */
static void configure(struct subject *s, enum small_style style, bool dense, const char *words,
                      struct small_layout layout)
{
    small_config(style, words, &s->config);
    small_config_lay_out(&s->config, layout);
    int64_t replicas = job_size() / layout.tensor;
    s->config.train.global_batch = 4 * replicas + 1;
    if (dense) {
        s->config.moe.num_experts = 0;
    }
    s->source = small_source(&s->config);
}

static void after_block(void *state, int64_t block)
{
    struct subject *s = state;
    if (s->last && s->config.comm_overlap) {
        tri_gradients_reduce(s->engine->params, s->engine->kernels, block, true);
    }
}

static void make_pass(struct subject *s, int index)
{
    int64_t rows = s->source.rows;
    int replicas = tri_group_size(tri_mesh_group(s->mesh, TRI_ON_EXPERT | TRI_ON_DATA));
    int replica = tri_group_rank(tri_mesh_group(s->mesh, TRI_ON_EXPERT | TRI_ON_DATA));
    struct tri_range share = tri_rows_share(rows, replicas, replica);
    struct tri_range micro =
        tri_rows_micro(rows, replicas, replica, s->config.train.micro_batch, index);
    int64_t at = (micro.begin - share.begin) * s->source.seq;
    s->pass[index] = (struct tri_pass){.rows = tri_range_size(micro),
                                       .seq = s->source.seq,
                                       .tokens = s->tokens + at,
                                       .targets = s->targets + at,
                                       .positions = s->positions + at,
                                       .first_row = micro.begin,
                                       .batch_rows = rows,
                                       .micro_step = index,
                                       .global_tokens = s->source.counted_tokens,
                                       .batch_tokens = s->source.tokens,
                                       .seed = (uint64_t)s->config.seed,
                                       .training = true,
                                       .backward = true,
                                       .phase = TRI_PHASE_FORWARD,
                                       .tally = &s->tally,
                                       .hooks = &s->hooks};
}

static void begin(struct subject *s, struct tri_mesh *mesh, const struct tri_kernels *kernels)
{
    struct tri_error error;
    s->mesh = mesh;
    s->hooks = (struct tri_hooks){s, after_block};
    s->engine = tri_engine_create(&s->config, mesh, kernels, true);
    int64_t loads = s->engine->moe_layers * s->config.moe.num_experts;
    s->tally.load = tri_alloc(TRI_MEMORY_OTHER, (size_t)loads * sizeof(*s->tally.load));
    int replicas = tri_group_size(tri_mesh_group(mesh, TRI_ON_EXPERT | TRI_ON_DATA));
    struct tri_range share =
        tri_rows_share(s->source.rows, replicas,
                       tri_group_rank(tri_mesh_group(mesh, TRI_ON_EXPERT | TRI_ON_DATA)));
    size_t n = (size_t)(tri_range_size(share) * s->source.seq);
    int32_t **const arrays[] = {&s->tokens, &s->targets, &s->first_key, &s->positions};
    for (int i = 0; i < COUNT(arrays); i++) {
        *arrays[i] = tri_alloc(TRI_MEMORY_OTHER, n * sizeof(int32_t));
    }
    const struct tri_row_arrays out = {s->tokens, s->targets, s->first_key, s->positions};
    CHECK(s->source.fill(s->source.state, 0, share.begin, tri_range_size(share), &out, &error) ==
          TRI_OK);
    for (size_t i = 0; i < n; i++) {
        s->positions[i] = (int32_t)((int64_t)i % s->source.seq);
    }
    CHECK(tri_rows_micro_steps(s->source.rows, replicas, s->config.train.micro_batch) == FRAMES);
    for (int i = 0; i < FRAMES; i++) {
        make_pass(s, i);
    }
}

static void end(struct subject *s)
{
    tri_engine_destroy(s->engine);
    tri_free(s->tally.load);
    tri_free(s->tokens);
    tri_free(s->targets);
    tri_free(s->first_key);
    tri_free(s->positions);
}

/* One step in an order of its own, its gradients reduced. */
static void step(struct subject *s, const char *order)
{
    struct tri_model *model = s->engine->model;
    struct tri_params *params = s->engine->params;
    struct tri_frame *frame[FRAMES] = {NULL};
    int64_t *load = s->tally.load;
    memset(load, 0, (size_t)(s->engine->moe_layers * s->config.moe.num_experts) * sizeof(*load));
    s->tally = (struct tri_tally){.load = load};
    tri_gradients_begin(params, s->engine->kernels);
    for (const char *at = order; *at; at += at[2] ? 3 : 2) {
        int i = at[1] - '0';
        s->last = !at[2];
        if (at[0] == 'F') {
            frame[i] = tri_frame_open(model, &s->pass[i]);
            tri_model_forward(model, frame[i]);
        } else if (at[0] == 'L') {
            tri_model_loss(model, frame[i]);
        } else {
            tri_model_backward(model, frame[i]);
            tri_frame_close(frame[i]);
        }
    }
    for (int64_t block = params->layers; block >= -1 && !s->config.comm_overlap; block--) {
        tri_gradients_reduce(params, s->engine->kernels, block, false);
    }
    tri_gradients_reduce_end(params);
    tri_exact_carry(&s->tally.cross_entropy);
    tri_exact_carry(&s->tally.aux_loss);
    tri_exact_carry(&s->tally.z_loss);
}

/* ---- bits ------------------------------------------------------------------------------------ */

/* All gradients, one after the other, on rank 0. Collective. */
static float *gather(const struct tri_engine *engine)
{
    float *all = tri_alloc(TRI_MEMORY_OTHER, (size_t)engine->params->total * sizeof(*all));
    int64_t count = 0;
    for (int p = 0; p < engine->params->count; p++) {
        const struct tri_param *param = &engine->params->param[p];
        tri_param_gather(engine->params, param, TRI_FIELD_GRADIENT, all + count);
        count += param->shape[0] * param->shape[1];
    }
    return all;
}

static bool same_sums(const struct tri_tally *a, const struct tri_tally *b)
{
    return memcmp(&a->cross_entropy, &b->cross_entropy, sizeof(a->cross_entropy)) == 0 &&
           memcmp(&a->aux_loss, &b->aux_loss, sizeof(a->aux_loss)) == 0 &&
           memcmp(&a->z_loss, &b->z_loss, sizeof(a->z_loss)) == 0 && a->targets == b->targets &&
           a->dropped == b->dropped;
}

/* Every order against the engine's own step. */
static void same_bits(enum small_style style, bool dense, const char *words,
                      struct small_layout layout, const char *const *scripts, int count)
{
    struct subject s = {0};
    configure(&s, style, dense, words, layout);
    begin(&s, small_mesh(&s.config), small_kernels(&s.config));
    (void)small_gradients(s.engine, &s.source, 0, NULL);
    struct tri_tally expected_sums = s.engine->tally;
    tri_exact_carry(&expected_sums.cross_entropy);
    tri_exact_carry(&expected_sums.aux_loss);
    tri_exact_carry(&expected_sums.z_loss);
    float *expected = gather(s.engine);
    /* A forward that is given up leaves nothing behind. */
    struct tri_frame *frame = tri_frame_open(s.engine->model, &s.pass[0]);
    tri_model_forward(s.engine->model, frame);
    tri_frame_close(frame);
    for (int i = 0; i < count; i++) {
        step(&s, scripts[i]);
        float *found = gather(s.engine);
        if (!same_sums(&s.tally, &expected_sums) ||
            memcmp(found, expected, (size_t)s.engine->params->total * sizeof(*found)) != 0) {
            tri_panic(TRI_FAILED, "%s: %s%s: %s: other bits, gradients apart by %.3g",
                      small_layout_text(layout), words, dense ? ", dense" : "", scripts[i],
                      small_distance(found, expected, s.engine->params->total, 0.0));
        }
        tri_free(found);
    }
    tri_free(expected);
    end(&s);
    tri_mesh_destroy(s.mesh);
}

/* ---- memory ---------------------------------------------------------------------------------- */

/* Peaks by category of two steps in that order, by a run or by its rehearsal. */
static struct tri_memory_counters count_bytes(enum small_style style, const char *words,
                                              struct small_layout layout, const char *order,
                                              bool planned)
{
    struct subject s = {0};
    struct tri_memory_scope scope = tri_memory_scope_begin();
    configure(&s, style, false, words, layout);
    s.config.moe.router = planned ? tri_router_balanced.rehearsed : &tri_router_balanced;
    struct tri_kernels *dry = planned ? tri_kernels_create(TRI_KERNELS_DRY, NULL, 1) : NULL;
    begin(&s,
          planned ? tri_mesh_create_view(layout.tensor, 1, 1, layout.expert,
                                         job_size() / (layout.tensor * layout.expert), job_rank())
                  : small_mesh(&s.config),
          planned ? dry : small_kernels(&s.config));
    if (planned) {
        tri_moe_set_load(tri_model_moe(s.engine->model), 1.0);
    }
    step(&s, order);
    struct tri_memory_counters before = tri_memory_get();
    step(&s, order);
    struct tri_memory_counters after = tri_memory_get();
    /* Requests that overlap are pooled, and reach their sizes later (test_steady.c). */
    CHECK(s.config.comm_overlap ||
          (before.calls == after.calls &&
           memcmp(before.current, after.current, sizeof(before.current)) == 0));
    end(&s);
    tri_mesh_destroy(s.mesh);
    tri_kernels_destroy(dry);
    return tri_memory_scope_end(&scope);
}

static void same_bytes(enum small_style style, const char *words, struct small_layout layout)
{
    int64_t alone = 0;
    for (int i = 0; i < COUNT(orders); i++) {
        struct tri_memory_counters counted = count_bytes(style, words, layout, orders[i], false);
        struct tri_memory_counters planned = count_bytes(style, words, layout, orders[i], true);
        for (int c = 0; c < TRI_MEMORY_COUNT; c++) {
            if (counted.peak[c] != planned.peak[c] && c != TRI_MEMORY_KERNELS) {
                tri_panic(TRI_FAILED, "%s: %s: %s: %lld bytes of %s planned, %lld counted",
                          small_layout_text(layout), words, orders[i], (long long)planned.peak[c],
                          tri_memory_name((enum tri_memory)c), (long long)counted.peak[c]);
            }
        }
        alone = i == 0 ? counted.peak[TRI_MEMORY_ACTIVATIONS] : alone;
        CHECK((counted.peak[TRI_MEMORY_ACTIVATIONS] > alone) == (i > 0));
    }
}

/* ---- all ------------------------------------------------------------------------------------- */

static const char *const keeps[] = {
    "train.duplicate_token_dropping=false",
    "train.recompute=full precision=bf16",
    "train.recompute=full train.communication_aware_checkpointing=false",
    "train.recompute=[1] train.duplicate_token_dropping=false precision=bf16",
    "train.sequence_parallel=true train.recompute=full comm.overlap=false",
    "precision=bf16 train.recompute=[0] train.communication_aware_checkpointing=false",
};
static const char *const models[] = {
    "moe.aux_loss=0.1",
    "model.qk_norm=full moe.capacity_factor=0.8 moe.min_capacity=1 moe.z_loss=0.01",
    "moe.jitter=0.1 moe.noise=0.3 moe.aux_loss=0.1",
};

static int run_job(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    char words[400];
    struct small_layout layouts[SMALL_LAYOUTS];
    int count = small_layouts(job_size(), 8, layouts);
    for (int i = 0; i < count; i++) {
        /* Many layouts: some of them each, so that every number of ranks sees all. */
        for (int j = 0; j < (count < 3 ? COUNT(keeps) : 2); j++) {
            int k = (i * 2 + j) % COUNT(keeps);
            const char *model = models[(i + j) % COUNT(models)];
            enum small_style style = (i + k) % 2 ? SMALL_GPT : SMALL_LLAMA;
            (void)snprintf(words, sizeof(words), "reproducible=true model.num_kv_heads=8 %s %s",
                           keeps[k], model);
            same_bits(style, (i + k) % 4 == 1, words, layouts[i], orders, COUNT(orders));
        }
        (void)snprintf(words, sizeof(words), "moe.aux_scope=model moe.aux_window=step %s %s",
                       keeps[i % COUNT(keeps)], models[i % COUNT(models)]);
        same_bits(i % 2 ? SMALL_GPT : SMALL_LLAMA, false, words, layouts[i], in_turn,
                  COUNT(in_turn));
        same_bytes(SMALL_LLAMA, "train.recompute=[1] precision=bf16 moe.aux_scope=model",
                   layouts[i]);
        same_bytes(SMALL_GPT,
                   "train.recompute=full train.communication_aware_checkpointing=false "
                   "comm.overlap=false",
                   layouts[i]);
    }
    return 0;
}

int main(int argc, char **argv)
{
    return job_run(argc, argv, run_job);
}
