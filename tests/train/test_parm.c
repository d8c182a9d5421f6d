/* The schedules s1 and s2 on every layout: what `verify` finds, the digits of ted where both add in
 * one order, the same bits whatever is recomputed, and what they send, byte for byte, by formulas
 * that know the config, the layout and the recorded routes and nothing of the code that books. An
 * argument N compares with one rank in every N-th case only; "grids" behind it: on layouts whose
 * tensor ranks are a grid, and nothing else. */
#include "support/small.h"

#include "base/memory.h"
#include "shard/rows.h"
#include "train/verify.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXPERTS = 8 };
static const char *const names[] = {"s1", "s2"};

/* ---- against one rank ------------------------------------------------------------------------ */

static const char *const flavours[] = {
    "moe.capacity_factor=1.0 moe.min_capacity=1 train.recompute=full",
    "train.sequence_parallel=true moe.jitter=0.1 moe.aux_loss=0.1",
    "moe.top_k=3 model.bias=all moe.shared_intermediate_size=9 model.mlp=gelu_erf moe.noise=0.2",
    "reproducible=true model.num_kv_heads=8 train.recompute=[1]",
    "moe.router=expert_choice moe.shared_gate=false moe.shared_intermediate_size=0",
    "moe.router=sparsemixer moe.aux_window=sequence train.global_batch=3",
    "train.recompute=full train.communication_aware_checkpointing=false moe.aux_scope=model",
    "train.lora.rank=3 train.lora.targets=attention,experts,shared train.recompute=[0]",
};
enum { FLAVOURS = sizeof(flavours) / sizeof(*flavours) };

static void expect_equal(struct small_layout layout, const char *words)
{
    const struct tri_verify_options options = {.compared = 1, .steps = 2, .factor = 1.0};
    struct tri_config config;
    struct tri_verify_result result;
    struct tri_error error;
    small_config(SMALL_LLAMA, words, &config);
    small_config_lay_out(&config, layout);
    if (layout.cross * layout.depth > 1 &&
        tri_config_check_layout(&config, job_size(), &error) != TRI_OK) {
        return; /* what a stream that is cut by tokens over cross does without */
    }
    if (tri_verify(job(), &config, &options, &result, &error) != TRI_OK) {
        tri_panic(TRI_FAILED, "%s: %s: %s", small_layout_text(layout), words, error.message);
    }
    bool same = result.worst_loss <= 0 && result.worst_relative_l2 <= 0 && result.worst_change <= 0;
    if (!result.passed || (config.reproducible && !same)) {
        tri_panic(TRI_FAILED, "%s: %s: %s: %.3g (loss %.3g)", small_layout_text(layout), words,
                  result.worst_parameter, result.worst_relative_l2, result.worst_loss);
    }
}

/* ---- a step ---------------------------------------------------------------------------------- */

struct outcome {
    double loss, grad_norm;
    struct tri_ledger ledger;
};

static struct outcome *take_step(const char *words, struct small_layout layout,
                                 struct tri_config *config, struct tri_route_tap *tap)
{
    struct outcome *outcome = tri_alloc(TRI_MEMORY_OTHER, sizeof(*outcome));
    small_config(SMALL_LLAMA, words, config);
    small_config_lay_out(config, layout);
    struct tri_mesh *mesh = small_mesh(config);
    struct tri_engine *engine = tri_engine_create(config, mesh, small_kernels(config), true);
    struct tri_rows_source source = small_source(config);
    int64_t routes = 0;
    if (tap) {
        *tap = (struct tri_route_tap){.tokens = source.rows * source.seq, .k = config->moe.top_k};
        routes = engine->moe_layers * tap->tokens * tap->k;
        tap->chosen = tri_alloc(TRI_MEMORY_OTHER, (size_t)routes * sizeof(*tap->chosen));
    }
    tri_ledger_reset(job_ledger());
    struct tri_step_report report = small_gradients(engine, &source, 0, tap);
    *outcome = (struct outcome){report.loss, report.grad_norm, *job_ledger()};
    if (tap) {
        tri_all_reduce_sum(tri_mesh_group(mesh, TRI_ON_EXPERT | TRI_ON_DATA),
                           (struct tri_where){TRI_PHASE_SETUP, TRI_KIND_META}, tap->chosen, routes,
                           TRI_I32);
    }
    tri_engine_destroy(engine);
    tri_mesh_destroy(mesh);
    return outcome;
}

static bool same_number(double a, double b)
{
    return memcmp(&a, &b, sizeof(a)) == 0;
}

/* Rows reach an expert in the order of ted, and partial sums are added in its tree: without biases
 * no bit of s2 differs from ted's without dropping (of whole experts the router's gradient does,
 * which ted adds up over tensor). s1's logits are of fewer rows, which may round otherwise. */
static void expect_bits_of_ted(struct small_layout layout, const char *words)
{
    struct tri_config config;
    char more[256];
    (void)snprintf(more, sizeof(more), "train.duplicate_token_dropping=false %s", words);
    struct outcome *ted = take_step(more, layout, &config, NULL);
    for (int i = 0; i < 2; i++) {
        (void)snprintf(more, sizeof(more), "moe.schedule=%s %s", names[i], words);
        struct outcome *kept = take_step(more, layout, &config, NULL);
        (void)snprintf(more, sizeof(more), "moe.schedule=%s %s train.recompute=full", names[i],
                       words);
        struct outcome *stashed = take_step(more, layout, &config, NULL);
        (void)snprintf(more, sizeof(more),
                       "moe.schedule=%s %s train.recompute=[1] "
                       "train.communication_aware_checkpointing=false",
                       names[i], words);
        struct outcome *resent = take_step(more, layout, &config, NULL);
        bool like_ted = i == 1 && layout.expert_tensor == layout.tensor;
        if ((i == 1 && !same_number(kept->loss, ted->loss)) ||
            !same_number(kept->loss, stashed->loss) || !same_number(kept->loss, resent->loss) ||
            !same_number(kept->grad_norm, stashed->grad_norm) ||
            !same_number(kept->grad_norm, resent->grad_norm) ||
            (like_ted && !same_number(kept->grad_norm, ted->grad_norm))) {
            tri_panic(
                TRI_FAILED, "%s: %s: loss and norm %a %a, recomputed %a %a and %a %a, ted's %a %a",
                small_layout_text(layout), more, kept->loss, kept->grad_norm, stashed->loss,
                stashed->grad_norm, resent->loss, resent->grad_norm, ted->loss, ted->grad_norm);
        }
        CHECK(tri_ledger_sum(&stashed->ledger, -1, -1, TRI_PHASE_RECOMPUTE, -1).calls == 0);
        CHECK((tri_ledger_sum(&resent->ledger, -1, -1, TRI_PHASE_RECOMPUTE, -1).calls > 0) ==
              (layout.tensor * layout.expert > 1));
        tri_free(kept);
        tri_free(stashed);
        tri_free(resent);
    }
    tri_free(ted);
}

/* ---- what is sent ---------------------------------------------------------------------------- */

struct books {
    const struct tri_config *config;
    int size[TRI_AXIS_COUNT], me[TRI_AXIS_COUNT]; /* of the mesh; this rank's place */
    struct tri_route_tap tap;
    bool s2, whole;
    struct tri_ledger ledger; /* what is expected, of kind MOE */
};

static bool is_cut(const struct books *b)
{
    return b->config->train.sequence_parallel && b->size[TRI_AXIS_TENSOR] > 1;
}

/* Rows of micro-step i of the replica at place e along expert. */
static struct tri_range rows_of(const struct books *b, int64_t i, int e)
{
    int replicas = b->size[TRI_AXIS_EXPERT] * b->size[TRI_AXIS_DATA];
    int replica = e + b->size[TRI_AXIS_EXPERT] * b->me[TRI_AXIS_DATA];
    return tri_rows_micro(b->config->train.global_batch, replicas, replica,
                          b->config->train.micro_batch, i);
}

/* Routes in micro-step i from the tokens of rank t, e to the experts that rank to_t, to_e holds,
 * or has a shard of. */
static int64_t routes_between(const struct books *b, int64_t layer, int64_t i, int t, int e,
                              int to_t, int to_e)
{
    int tensor = b->size[TRI_AXIS_TENSOR];
    int homes = b->size[TRI_AXIS_EXPERT] * (b->whole ? tensor : 1);
    int home = b->whole ? to_e * tensor + to_t : to_e;
    struct tri_range rows = rows_of(b, i, e);
    int64_t seq = b->config->data.sequence_length;
    struct tri_range part = tri_range_part(tri_range_size(rows) * seq, tensor, t);
    int64_t k = b->tap.k;
    int64_t first = (layer * b->tap.tokens + rows.begin * seq) * k;
    int64_t count = 0;
    for (int64_t r = part.begin * k; r < part.end * k; r++) {
        count += b->tap.chosen[first + r] / (EXPERTS / homes) == home;
    }
    return count;
}

enum when { FORWARD_ONLY, FORWARD_AND_RECOMPUTE, BACKWARD };

static void book(struct books *b, int64_t layer, enum when when, enum tri_op op, int axes,
                 int64_t bytes)
{
    const struct tri_config *config = b->config;
    int ranks = b->size[TRI_AXIS_TENSOR] * (axes & TRI_ON_EXPERT ? b->size[TRI_AXIS_EXPERT] : 1);
    if (ranks == 1) {
        return;
    }
    tri_ledger_book(&b->ledger, op, tri_group_id(axes),
                    when == BACKWARD ? TRI_PHASE_BACKWARD : TRI_PHASE_FORWARD, TRI_KIND_MOE, bytes,
                    0, 0);
    if (when == FORWARD_AND_RECOMPUTE && tri_config_layer_recomputes(config, layer) &&
        !config->train.communication_aware_checkpointing) {
        tri_ledger_book(&b->ledger, op, tri_group_id(axes), TRI_PHASE_RECOMPUTE, TRI_KIND_MOE,
                        bytes, 0, 0);
    }
}

/* Each way: the routes of own tokens go to all T holders of their experts' shards (one holder of
 * whole experts), the routes of all that came here go back. s2: in E steps, each with a gather of
 * own results of one expert rank. s1: logits of own tokens to the other tensor ranks, and a row a
 * token at the end. */
static void book_layer(struct books *b, int64_t layer, int64_t i)
{
    int64_t row = b->config->model.hidden_size * 4;
    int t = b->me[TRI_AXIS_TENSOR], e = b->me[TRI_AXIS_EXPERT];
    int both = TRI_ON_GRID | TRI_ON_EXPERT;
    int64_t n = tri_range_size(rows_of(b, i, e)) * b->config->data.sequence_length;
    int64_t tokens = tri_range_size(tri_range_part(n, b->size[TRI_AXIS_TENSOR], t));
    bool gathers = b->s2 && !is_cut(b) && b->size[TRI_AXIS_TENSOR] > 1;
    int64_t sent = 0, received = 0;
    for (int x = 0; x < b->size[TRI_AXIS_EXPERT]; x++) {
        for (int h = 0; h < b->size[TRI_AXIS_TENSOR]; h++) {
            bool other = x != e || h != t;
            sent += other ? routes_between(b, layer, i, t, e, h, x) : 0;
            received += other ? routes_between(b, layer, i, h, x, t, e) : 0;
        }
    }
    for (int way = 0; way < 2; way++) {
        enum when when = way ? BACKWARD : FORWARD_AND_RECOMPUTE;
        book(b, layer, when, TRI_OP_ALL_TO_ALL, both, sent * row);
        for (int x = 0; x < b->size[TRI_AXIS_EXPERT] && gathers; x++) {
            int64_t results = 0;
            for (int h = 0; h < (b->whole ? b->size[TRI_AXIS_TENSOR] : 1); h++) {
                results += routes_between(b, layer, i, t, e, h, x);
            }
            book(b, layer, when, TRI_OP_ALL_GATHER, TRI_ON_TENSOR, results * row);
            book(b, layer, when, TRI_OP_ALL_TO_ALL, both, x == 0 ? received * row : 0);
        }
        if (!gathers) {
            book(b, layer, when, TRI_OP_ALL_TO_ALL, both, received * row);
            if (!is_cut(b)) {
                book(b, layer, way ? BACKWARD : FORWARD_ONLY, TRI_OP_ALL_GATHER, TRI_ON_TENSOR,
                     tokens * row);
            }
        }
    }
    if (!gathers) {
        book(b, layer, FORWARD_ONLY, TRI_OP_ALL_GATHER, TRI_ON_TENSOR, tokens * EXPERTS * 4);
    }
}

static void compare(const struct books *b, const struct tri_ledger *found, const char *where)
{
    for (int op = 0; op < TRI_OP_COUNT; op++) {
        for (int group = 0; group < TRI_GROUP_COUNT; group++) {
            for (int phase = 0; phase < TRI_PHASE_COUNT; phase++) {
                struct tri_ledger_cell got = found->cell[op][group][phase][TRI_KIND_MOE];
                struct tri_ledger_cell want = b->ledger.cell[op][group][phase][TRI_KIND_MOE];
                if (got.calls != want.calls || got.bytes != want.bytes) {
                    tri_panic(TRI_FAILED,
                              "%s: %s over %s, %s: %lld calls of %lld bytes, expected %lld of %lld",
                              where, tri_op_name((enum tri_op)op), tri_groups[group].name,
                              tri_phase_name((enum tri_phase)phase), (long long)got.calls,
                              (long long)got.bytes, (long long)want.calls, (long long)want.bytes);
                }
            }
        }
    }
}

/* Where all is even, of k N H elements of a micro-batch's routes: cut experts, k N H (1 - 1 / TE)
 * each way, T times what ted sends over expert and no all-gather or reduce-scatter beside it. */
static void check_closed_form(const struct books *b, const struct tri_ledger *found, int64_t layers,
                              int64_t micro_steps)
{
    int64_t ranks = (int64_t)b->size[TRI_AXIS_TENSOR] * b->size[TRI_AXIS_EXPERT];
    int64_t n = b->config->train.micro_batch * b->config->data.sequence_length * micro_steps;
    int64_t all = b->tap.k * n * b->config->model.hidden_size * 4 * layers;
    int64_t each = b->whole ? all / b->size[TRI_AXIS_TENSOR] : all;
    struct tri_ledger_cell cell =
        tri_ledger_sum(found, TRI_OP_ALL_TO_ALL, tri_group_id(TRI_ON_GRID | TRI_ON_EXPERT),
                       TRI_PHASE_FORWARD, TRI_KIND_MOE);
    CHECK(cell.bytes * ranks == 2 * each * (ranks - 1));
}

static void expect_bytes(struct small_layout layout, bool s2, const char *words)
{
    struct tri_config config;
    char more[256], where[400];
    (void)snprintf(more, sizeof(more), "moe.schedule=%s %s", names[s2], words);
    (void)snprintf(where, sizeof(where), "%s: %s", small_layout_text(layout), more);
    struct books *b = tri_alloc(TRI_MEMORY_OTHER, sizeof(*b));
    struct outcome *outcome = take_step(more, layout, &config, &b->tap);
    struct tri_mesh *view =
        tri_mesh_create_view(layout.tensor, 1, 1, layout.expert,
                             job_size() / (layout.tensor * layout.expert), job_rank());
    b->config = &config;
    b->s2 = s2;
    b->whole = layout.expert_tensor < layout.tensor;
    memcpy(b->size, view->size, sizeof(b->size));
    memcpy(b->me, view->coord, sizeof(b->me));
    int replicas = b->size[TRI_AXIS_EXPERT] * b->size[TRI_AXIS_DATA];
    int64_t steps =
        tri_rows_micro_steps(config.train.global_batch, replicas, config.train.micro_batch);
    int64_t layers = config.model.num_layers; /* all are MoE */
    for (int64_t i = 0; i < steps; i++) {
        for (int64_t layer = 0; layer < layers; layer++) {
            book_layer(b, layer, i);
        }
    }
    compare(b, &outcome->ledger, where);
    if (strstr(words, "router=balanced")) {
        check_closed_form(b, &outcome->ledger, layers, steps);
    }
    tri_free(b->tap.chosen);
    tri_free(b);
    tri_free(outcome);
    tri_mesh_destroy(view);
}

/* ---------------------------------------------------------------------------------------------- */

static int run_job(int argc, char **argv)
{
    int every = argc > 1 ? (int)strtol(argv[1], NULL, 10) : 1;
    struct small_layout layouts[SMALL_LAYOUTS];
    char words[256];
    bool grids = argc > 2 && strcmp(argv[2], "grids") == 0;
    int count = grids ? small_grids(job_size(), EXPERTS, layouts)
                      : small_layouts(job_size(), EXPERTS, layouts);
    for (int i = 0; i < count * FLAVOURS; i += every) {
        for (int s2 = 0; s2 < 2; s2++) {
            (void)snprintf(words, sizeof(words), "moe.schedule=%s %s", names[s2],
                           flavours[i % FLAVOURS]);
            expect_equal(layouts[i / FLAVOURS], words);
        }
    }
    for (int i = 0; i < count && !grids; i++) {
        expect_bits_of_ted(layouts[i], i % 2 ? "precision=bf16" : "moe.capacity_factor=0.8");
        expect_bytes(layouts[i], i % 2, "train.recompute=full");
        expect_bytes(layouts[i], !(i % 2),
                     "moe.router=balanced train.global_batch=16 data.sequence_length=16");
        expect_bytes(layouts[i], i % 2,
                     "train.recompute=[0] train.communication_aware_checkpointing=false");
        expect_bytes(layouts[i], !(i % 2), "train.sequence_parallel=true train.global_batch=3");
    }
    return 0;
}

int main(int argc, char **argv)
{
    return job_run(argc, argv, run_job);
}
