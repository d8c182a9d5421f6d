/* An MoE layer: router, schedule, shared expert; and what the MoE layers of a model share. */
#include "moe/moe.h"

#include "base/clock.h"
#include "base/random.h"
#include "base/trace.h"
#include "kernel/note.h"
#include "model/gradient.h"
#include "model/stream.h"
#include "moe/schedule.h"
#include "moe/shared_expert.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

struct tri_moe {
    const struct tri_context *context;
    struct tri_router *router;
    struct tri_exchange exchange;
    float *bias; /* [MoE layers, experts] or NULL */
    bool sparse; /* `active` holds */
    struct tri_active active;
    struct tri_expert_work work;
};

struct layer {
    struct tri_sublayer base;
    struct tri_moe *moe;
    struct tri_schedule *schedule;
    struct tri_shared_expert *shared;
    struct tri_linear linear; /* [experts, hidden] f32, the router's */
    int64_t index;            /* among the MoE layers */
};

/* What a layer's forward leaves in a frame; what its schedule does comes after it. */
struct kept {
    struct tri_router_call call;
    struct tri_routes *routes;
    const float
        *input; /* [gated tokens, hidden] f32 what the router read: x, jittered in training */
    struct tri_shared_kept shared;
    max_align_t schedule[];
};

static bool scope_is_model(const struct tri_context *context)
{
    return context->config->moe.aux_scope == TRI_AUX_MODEL;
}

/* ---- the router's product -------------------------------------------------------------------- */

/* Jitter factor of element j of a token's router input: keyed by the token's global place. */
static float jitter_factor(const struct layer *layer, const struct tri_frame *frame, int64_t token,
                           int64_t j)
{
    const struct tri_pass *pass = &frame->pass;
    const struct tri_config *config = layer->base.context->config;
    uint64_t stream =
        tri_random_stream("jitter") + (uint64_t)layer->base.layer + (pass->step << 16);
    uint64_t place =
        (uint64_t)((pass->first_row * pass->seq + token) * config->model.hidden_size + j);
    double u = tri_random_uniform(pass->seed, stream, place);
    return (float)(1.0 + config->moe.jitter * (2.0 * u - 1.0));
}

static bool jitters(const struct layer *layer, const struct tri_frame *frame)
{
    const struct tri_pass *pass = &frame->pass;
    return pass->training && layer->base.context->config->moe.jitter > 0.0;
}

/* x [tokens, hidden] times their factors, where there are any. */
static void jitter(const struct layer *layer, const struct tri_frame *frame,
                   struct tri_range tokens, float *x)
{
    const struct tri_context *context = layer->base.context;
    int64_t hidden = context->config->model.hidden_size;
    if (!jitters(layer, frame) || context->config->moe.router->blind) {
        return;
    }
    for (int64_t t = tokens.begin; t < tokens.end; t++) {
        for (int64_t j = 0; j < hidden; j++, x++) {
            *x *= jitter_factor(layer, frame, t, j);
        }
    }
}

/* The tokens whose logits this rank makes. */
static struct tri_range gated_tokens(const struct layer *layer, const struct tri_frame *frame)
{
    bool part = layer->base.context->config->moe.schedule->gates_part;
    return part ? tri_tokens_part(frame) : tri_stream_tokens(frame);
}

static void read_input(const struct layer *layer, const struct tri_frame *frame, struct kept *kept,
                       const void *stream)
{
    const struct tri_context *context = layer->base.context;
    int64_t hidden = context->config->model.hidden_size;
    struct tri_range gated = gated_tokens(layer, frame);
    int64_t n = tri_range_size(gated);
    int64_t skipped = (gated.begin - tri_stream_tokens(frame).begin) * hidden;
    const void *x = (const char *)stream + (size_t)skipped * tri_dtype_size(context->dt);
    kept->input = x;
    if (context->dt == TRI_F32 && !jitters(layer, frame)) {
        return;
    }
    float *input = tri_frame_take_f32(frame, n * hidden);
    context->kernels->cast(
        context->kernels,
        &(struct tri_cast_args){
            .src = x, .from = context->dt, .dst = input, .to = TRI_F32, .n = n * hidden});
    jitter(layer, frame, gated, input);
    kept->input = input;
}

/* [tokens, experts] of all tokens: where tensor ranks make logits of a part of them, gathered. */
static float *router_logits(const struct layer *layer, const struct tri_frame *frame,
                            const struct kept *kept)
{
    const struct tri_pass *pass = &frame->pass;
    const struct tri_context *context = layer->base.context;
    int64_t experts = context->config->moe.num_experts;
    struct tri_range gated = gated_tokens(layer, frame);
    float *logits = tri_frame_take_f32(frame, tri_pass_tokens(pass) * experts);
    const struct tri_linear linear =
        tri_linear_open(context->params, &layer->linear, TRI_USE_FORWARD);
    tri_linear_forward(&linear, context->kernels, tri_range_size(gated), kept->input, NULL,
                       logits + gated.begin * experts, TRI_F32);
    tri_linear_close(context->params, &linear);
    if (context->config->moe.schedule->gates_part || tri_stream_is_part(context)) {
        tri_tokens_gather(frame, (struct tri_where){pass->phase, TRI_KIND_MOE}, logits, experts,
                          TRI_F32);
    }
    return logits;
}

/* ---- recorded and imposed routes ------------------------------------------------------------- */

static void record(const struct layer *layer, const struct tri_frame *frame,
                   const struct kept *kept)
{
    const struct tri_pass *pass = &frame->pass;
    const struct tri_route_tap *tap = pass->tap;
    const struct tri_routes *routes = kept->routes;
    int64_t experts = layer->base.context->config->moe.num_experts;
    int64_t n = tri_pass_tokens(pass);
    int64_t place = layer->index * tap->tokens + pass->first_row * pass->seq;
    memcpy(tap->chosen + place * tap->k, routes->chosen,
           (size_t)(n * tap->k) * sizeof(*tap->chosen));
    if (tap->expert) {
        memcpy(tap->expert + place * tap->k, routes->expert,
               (size_t)(n * tap->k) * sizeof(*tap->expert));
    }
    if (tap->logits) {
        memcpy(tap->logits + place * experts, kept->call.logits,
               (size_t)(n * experts) * sizeof(float));
    }
    for (int64_t t = 0; t < n && tap->gap && tap->k > 0; t++) {
        /* In probabilities: the scores are that already, or logits. */
        tap->gap[place + t] = routes->gap[t];
        if (!routes->gap_in_probs) {
            double last = (double)routes->probs[t * experts + routes->chosen[(t + 1) * tap->k - 1]];
            tap->gap[place + t] = (float)(last * -expm1(-(double)routes->gap[t]));
        }
    }
}

/* This micro-batch's part of a tap's array, when the tap imposes what the router lets impose. */
static const int32_t *imposed(const struct layer *layer, const struct tri_frame *frame,
                              enum tri_imposed what)
{
    const struct tri_pass *pass = &frame->pass;
    const struct tri_route_tap *tap = pass->tap;
    if (!tap || !tap->impose || !(layer->base.context->config->moe.router->imposed & what)) {
        return NULL;
    }
    const int32_t *routes = what == TRI_IMPOSE_CHOICE ? tap->chosen : tap->expert;
    if (!routes) {
        return NULL;
    }
    return routes + (layer->index * tap->tokens + pass->first_row * pass->seq) * tap->k;
}

static const float *imposed_logits(const struct layer *layer, const struct tri_frame *frame)
{
    const struct tri_pass *pass = &frame->pass;
    const struct tri_route_tap *tap = pass->tap;
    const struct tri_config_moe *moe = &layer->base.context->config->moe;
    if (!tap || !tap->impose || !tap->logits || !(moe->router->imposed & TRI_IMPOSE_LOGITS)) {
        return NULL;
    }
    int64_t place = layer->index * tap->tokens + pass->first_row * pass->seq;
    return tap->logits + place * moe->num_experts;
}

/* ---- forward and backward -------------------------------------------------------------------- */

static struct tri_router_call make_call(const struct layer *layer, const struct tri_frame *frame)
{
    const struct tri_pass *pass = &frame->pass;
    const struct tri_moe *moe = layer->moe;
    const struct tri_config_moe *config = &layer->base.context->config->moe;
    bool biased = config->router->biased && moe->bias;
    return (struct tri_router_call){
        .rows = pass->rows,
        .seq = pass->seq,
        .first_row = pass->first_row,
        .global_tokens = pass->batch_tokens,
        .seed = pass->seed,
        .step = pass->step,
        .layer = layer->base.layer,
        .training = pass->training,
        .bias = biased ? moe->bias + layer->index * config->num_experts : NULL,
        .imposed = imposed(layer, frame, TRI_IMPOSE_CHOICE),
        .imposed_drops = imposed(layer, frame, TRI_IMPOSE_DROPS),
        .imposed_logits = imposed_logits(layer, frame),
        .active = moe->sparse && !pass->training && !pass->backward ? &moe->active : NULL,
        .phase = pass->phase,
    };
}

static void tell_tally(const struct layer *layer, const struct tri_frame *frame,
                       const struct kept *kept)
{
    const struct tri_pass *pass = &frame->pass;
    int64_t experts = layer->base.context->config->moe.num_experts;
    tri_exact_merge(&pass->tally->aux_loss, &kept->routes->aux_terms);
    tri_exact_merge(&pass->tally->z_loss, &kept->routes->z_terms);
    tri_exact_merge(&pass->tally->information_loss, &kept->routes->information_terms);
    pass->tally->dropped += kept->routes->dropped;
    for (int64_t e = 0; e < experts; e++) {
        pass->tally->load[layer->index * experts + e] += kept->routes->load[e];
    }
}

static void count_work(struct tri_moe *moe, const struct tri_pass *pass,
                       const struct tri_routes *routes)
{
    int64_t experts = moe->context->config->moe.num_experts;
    moe->work.all += tri_pass_tokens(pass) * experts;
    for (int64_t e = 0; e < experts; e++) {
        moe->work.done += routes->load[e];
    }
}

/* Choosing reads each score, and writes as many probabilities; going back does likewise. */
static void tell_router(const struct layer *layer, const struct tri_frame *frame)
{
    const struct tri_context *context = layer->base.context;
    double scores = (double)(tri_pass_tokens(&frame->pass) * context->config->moe.num_experts);
    tri_kernels_tell(context->kernels, TRI_TASK_ROUTER, TRI_F32, 2.0 * scores * sizeof(float));
}

/* Chooses; in a recompute the choice is there. */
static void route(const struct layer *layer, const struct tri_frame *frame, struct kept *kept)
{
    const struct tri_pass *pass = &frame->pass;
    const struct tri_context *context = layer->base.context;
    struct tri_routes *routes;
    bool filled;
    kept->call = make_call(layer, frame);
    routes = kept->routes = tri_keep_routing(frame, sizeof(*routes), &filled);
    if (filled) {
        return;
    }
    tri_routes_place(
        context->config, pass->rows, pass->seq,
        tri_keep_more_routing(frame, tri_routes_bytes(context->config, pass->rows, pass->seq)),
        routes);
    kept->call.logits = router_logits(layer, frame, kept);
    tri_kernels_start(context->kernels);
    tri_router_forward(layer->moe->router, &kept->call, routes,
                       scope_is_model(context) ? frame->moe : NULL);
    tell_router(layer, frame);
    if (routes->sparse) {
        count_work(layer->moe, pass, routes);
    }
    if (pass->tap && !pass->tap->impose && tri_pass_tokens(pass) > 0) {
        record(layer, frame, kept);
    }
    if (pass->tally) {
        tell_tally(layer, frame, kept);
    }
}

static void book_router(const struct tri_pass *pass, double start)
{
    double now = tri_clock_now();
    if (pass->tally) {
        pass->tally->seconds_router += now - start;
    }
    tri_trace_span(start, now, "router", NULL, 0);
}

static void *forward(const struct tri_sublayer *self, const struct tri_frame *frame, void *left,
                     const void *x, bool output)
{
    const struct tri_pass *pass = &frame->pass;
    const struct layer *layer = (const struct layer *)self;
    struct kept *kept = left;
    double start = tri_clock_now();
    read_input(layer, frame, kept, x);
    route(layer, frame, kept);
    book_router(pass, start);
    void *y = layer->schedule->ops->forward(layer->schedule, frame, kept->schedule, kept->routes, x,
                                            output);
    if (layer->shared) {
        double began = tri_trace_begin();
        tri_shared_expert_forward(layer->shared, frame, &kept->shared, x, y);
        tri_trace_end(began, "shared expert", NULL, 0);
    }
    return y;
}

/* Through the router: its weight's gradient from the own tokens, and dx of the own tokens. */
static void router_backward(const struct layer *layer, const struct tri_frame *frame,
                            const struct kept *kept, struct tri_range own, const float *dweight,
                            void *dx)
{
    const struct tri_pass *pass = &frame->pass;
    const struct tri_context *context = layer->base.context;
    const struct tri_kernels *kernels = context->kernels;
    int64_t hidden = context->config->model.hidden_size;
    int64_t experts = context->config->moe.num_experts;
    int64_t n = tri_range_size(own);
    int64_t in_stream = own.begin - tri_stream_tokens(frame).begin;
    int64_t in_gated = own.begin - gated_tokens(layer, frame).begin;
    float *dlogits = tri_frame_take_f32(frame, tri_pass_tokens(pass) * experts);
    tri_kernels_start(kernels);
    tri_router_backward(layer->moe->router, &kept->call, kept->routes,
                        scope_is_model(context) ? frame->moe : NULL, own, dweight, dlogits);
    tell_router(layer, frame);
    const float *own_dlogits = dlogits + own.begin * experts;
    const struct tri_linear linear =
        tri_linear_open(context->params, &layer->linear, TRI_USE_BACKWARD);
    tri_linear_weight_gradient(&linear, kernels, n, own_dlogits, kept->input + in_gated * hidden,
                               tri_cuts_by_tokens(frame, own));
    float *d_input = tri_frame_take_f32(frame, n * hidden);
    tri_linear_input_gradient(&linear, kernels, n, own_dlogits, d_input);
    tri_linear_close(context->params, &linear);
    jitter(layer, frame, own, d_input);
    void *part = (char *)dx + (size_t)(in_stream * hidden) * tri_dtype_size(context->dt);
    const void *addend = d_input;
    if (context->dt != TRI_F32) {
        void *narrow = tri_frame_take(frame, n * hidden);
        const struct tri_cast_args args = {
            .src = d_input,
            .from = TRI_F32,
            .dst = narrow,
            .to = context->dt,
            .n = n * hidden,
        };
        kernels->cast(kernels, &args);
        addend = narrow;
    }
    kernels->add(kernels,
                 &(struct tri_add_args){
                     .left = part, .right = addend, .y = part, .n = n * hidden, .dt = context->dt});
}

static void backward(const struct tri_sublayer *self, const struct tri_frame *frame,
                     const void *left, const void *dy, void *dx)
{
    const struct tri_pass *pass = &frame->pass;
    const struct layer *layer = (const struct layer *)self;
    const struct kept *kept = left;
    const struct tri_context *context = self->context;
    size_t mark = tri_arena_mark(frame->arena);
    int64_t n = tri_pass_tokens(pass);
    float *dweight = tri_frame_take_f32(frame, n * tri_config_visits(&context->config->moe));
    layer->schedule->ops->backward(layer->schedule, frame, kept->schedule, kept->routes, dy, dx,
                                   dweight);
    double start = tri_clock_now();
    router_backward(layer, frame, kept, layer->schedule->ops->own(layer->schedule, frame), dweight,
                    dx);
    book_router(pass, start);
    double began = tri_trace_begin();
    layer->schedule->ops->finish_backward(layer->schedule, frame, dx);
    tri_trace_end(began, "exchange", NULL, 0);
    if (layer->shared) {
        began = tri_trace_begin();
        tri_shared_expert_backward(layer->shared, frame, &kept->shared, dy, dx);
        tri_trace_end(began, "shared expert", NULL, 0);
    }
    tri_arena_rewind(frame->arena, mark);
}

static void destroy(struct tri_sublayer *self)
{
    struct layer *layer = (struct layer *)self;
    layer->schedule->ops->destroy(layer->schedule);
    tri_shared_expert_destroy(layer->shared);
    tri_free(layer);
}

/* ---- the factory ----------------------------------------------------------------------------- */

static struct tri_sublayer *create(void *shared, const struct tri_context *context, int64_t index)
{
    static const struct tri_sublayer_ops ops = {forward, backward, destroy};
    struct layer *layer = tri_alloc(TRI_MEMORY_OTHER, sizeof(*layer));
    const struct tri_span router =
        tri_span_find(context->params, TRI_ROLE_ROUTER, TRI_PLACE_DENSE, index, -1);
    layer->base = (struct tri_sublayer){&ops, context, index, 0};
    layer->moe = shared;
    layer->schedule =
        context->config->moe.schedule->ops->create(context, &layer->moe->exchange, index);
    layer->shared = tri_shared_expert_create(context, index);
    layer->base.kept = sizeof(struct kept) + layer->schedule->kept;
    layer->linear = tri_linear_get(context->params, router, context->config->moe.num_experts,
                                   context->config->model.hidden_size);
    layer->index = tri_model_moe_index(context->config, index);
    return &layer->base;
}

static size_t bias_bytes(const struct tri_config *config)
{
    return (size_t)(tri_model_moe_layers(config) * config->moe.num_experts) * sizeof(float);
}

static void *prepare(const struct tri_context *context)
{
    const struct tri_config *config = context->config;
    struct tri_moe *moe = tri_alloc(TRI_MEMORY_OTHER, sizeof(*moe));
    moe->context = context;
    moe->router = tri_router_create(config, context->mesh, context->kernels->threads);
    moe->exchange.load = config->moe.router->blind ? 1.0 : 0.0;
    if (config->moe.bias_balancing > 0.0) {
        moe->bias = tri_alloc(TRI_MEMORY_OTHER, bias_bytes(config));
    }
    return moe;
}

static void begin(void *shared, const struct tri_frame *frame)
{
    const struct tri_pass *pass = &frame->pass;
    struct tri_moe *moe = shared;
    const struct tri_config *config = moe->context->config;
    if (!scope_is_model(moe->context)) {
        return;
    }
    void *block = tri_arena_alloc(frame->arena, tri_aux_model_bytes(config, pass->rows));
    tri_aux_model_begin(config, pass->rows, block, frame->moe);
}

static void end(void *shared, const struct tri_frame *frame)
{
    const struct tri_pass *pass = &frame->pass;
    struct tri_moe *moe = shared;
    if (scope_is_model(moe->context)) {
        double loss =
            tri_aux_model_finish(moe->router, frame->moe, pass->phase, pass->batch_tokens);
        if (pass->tally) {
            tri_exact_add(&pass->tally->aux_loss, loss);
        }
    }
}

static void release(void *shared)
{
    struct tri_moe *moe = shared;
    tri_router_destroy(moe->router);
    for (int i = 0; i < TRI_EXCHANGE_BUFFERS; i++) {
        tri_free(moe->exchange.buffer[i]);
    }
    tri_free(moe->bias);
    tri_free(moe);
}

const struct tri_moe_factory tri_moe_factory = {
    sizeof(struct tri_aux_model), prepare, create, begin, end, release};

float *tri_moe_bias(struct tri_moe *moe)
{
    return moe->bias;
}

void tri_moe_set_bias(struct tri_moe *moe, const float *bias)
{
    size_t bytes = bias_bytes(moe->context->config);
    if (!moe->bias) {
        moe->bias = tri_alloc(TRI_MEMORY_OTHER, bytes);
    }
    memcpy(moe->bias, bias, bytes);
}

void tri_moe_set_active(struct tri_moe *moe, const struct tri_active *active)
{
    TRI_REQUIRE(!active || moe->context->config->moe.router->dense);
    moe->sparse = active != NULL;
    moe->active = active ? *active : (struct tri_active){0};
    moe->work = (struct tri_expert_work){0};
}

void tri_moe_set_steps(struct tri_moe *moe, int64_t steps)
{
    const struct tri_config_moe *config = &moe->context->config->moe;
    const struct tri_active top = {.kind = TRI_ACTIVE_TOP, .n = config->top_k};
    tri_moe_set_active(moe, tri_config_is_sharp(config, steps) ? &top : NULL);
}

struct tri_expert_work tri_moe_work(const struct tri_moe *moe)
{
    return moe->work;
}

void tri_moe_set_load(struct tri_moe *moe, double load)
{
    moe->exchange.load = load;
}

int64_t tri_moe_exchange_growths(const struct tri_moe *moe)
{
    return moe->exchange.growths;
}
