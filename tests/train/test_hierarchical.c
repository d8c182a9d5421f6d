/* Schedule hierarchical on every layout, on hosts of all sizes, even and uneven: what `verify`
 * finds, the bits of ted where a token's outputs are added in one order, and what it sends, between
 * hosts and inside, byte for byte and message for message, by formulas that know the config, the
 * layout, the hosts and the recorded routes and nothing of the code that books. An argument N
 * compares with one rank in every N-th case only; "grids" behind it: on layouts whose tensor ranks
 * are a grid, and nothing else. */
#include "support/small.h"

#include "base/memory.h"
#include "shard/rows.h"
#include "train/verify.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXPERTS = 8 };

/* ---- against one rank ------------------------------------------------------------------------ */

static const char *const flavours[] = {
    "moe.capacity_factor=1.0 moe.min_capacity=1 train.recompute=full moe.top_k=1",
    "train.sequence_parallel=true moe.jitter=0.1 moe.aux_loss=0.1",
    "moe.top_k=3 model.bias=all moe.shared_intermediate_size=9 model.mlp=gelu_erf moe.noise=0.2",
    "reproducible=true model.num_kv_heads=8 train.recompute=[1] moe.top_k=3 model.bias=all",
    "moe.router=expert_choice moe.shared_gate=false moe.shared_intermediate_size=0",
    "moe.router=sparsemixer moe.aux_window=sequence train.global_batch=3",
    "train.recompute=full train.communication_aware_checkpointing=false moe.aux_scope=model",
    "train.lora.rank=3 train.lora.targets=attention,experts,shared train.recompute=[0]",
    "train.duplicate_token_dropping=false moe.capacity_factor=0.8 moe.top_k=3",
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

static bool same_bits(const struct outcome *a, const struct outcome *b)
{
    return memcmp(&a->loss, &b->loss, sizeof(a->loss)) == 0 &&
           memcmp(&a->grad_norm, &b->grad_norm, sizeof(a->grad_norm)) == 0;
}

/* Of one choice a token there is nothing to add up, and in reproducible mode the owner does: the
 * bits of ted, whatever the hosts. Else those of any recompute. */
static void expect_bits(struct small_layout layout, int hosts, const char *words, bool like_ted)
{
    struct tri_config config;
    char more[256];
    struct outcome *ted = take_step(words, layout, &config, NULL);
    (void)snprintf(more, sizeof(more), "moe.schedule=hierarchical comm.ranks_per_host=%d %s", hosts,
                   words);
    struct outcome *kept = take_step(more, layout, &config, NULL);
    (void)snprintf(more, sizeof(more),
                   "moe.schedule=hierarchical comm.ranks_per_host=%d %s train.recompute=full",
                   hosts, words);
    struct outcome *stashed = take_step(more, layout, &config, NULL);
    (void)snprintf(more, sizeof(more),
                   "moe.schedule=hierarchical comm.ranks_per_host=%d %s train.recompute=[1] "
                   "train.communication_aware_checkpointing=false",
                   hosts, words);
    struct outcome *resent = take_step(more, layout, &config, NULL);
    if (!same_bits(kept, stashed) || !same_bits(kept, resent) ||
        (like_ted && !same_bits(kept, ted))) {
        tri_panic(TRI_FAILED,
                  "%s: %s: loss and norm %a %a, recomputed %a %a and %a %a, ted's %a %a",
                  small_layout_text(layout), more, kept->loss, kept->grad_norm, stashed->loss,
                  stashed->grad_norm, resent->loss, resent->grad_norm, ted->loss, ted->grad_norm);
    }
    CHECK(tri_ledger_sum(&stashed->ledger, -1, -1, TRI_PHASE_RECOMPUTE, -1).calls == 0);
    tri_free(ted);
    tri_free(kept);
    tri_free(stashed);
    tri_free(resent);
}

/* ---- what is sent ---------------------------------------------------------------------------- */

struct books {
    const struct tri_config *config;
    int size[TRI_AXIS_COUNT], me[TRI_AXIS_COUNT]; /* of the mesh; this rank's place */
    int rank, homes;
    struct tri_route_tap tap;
    bool whole;
    struct tri_ledger ledger; /* what is expected of all-to-alls over the homes */
};

/* World rank of a home. */
static int rank_of(const struct books *b, int home)
{
    int tensor = b->size[TRI_AXIS_TENSOR];
    int first = b->me[TRI_AXIS_DATA] * b->size[TRI_AXIS_EXPERT] * tensor;
    return first + (b->whole ? home : home * tensor + b->me[TRI_AXIS_TENSOR]);
}

static int host_of(const struct books *b, int home)
{
    return rank_of(b, home) / (int)b->config->comm_ranks_per_host;
}

/* Homes before this one on its host; of the host. */
static int place_of(const struct books *b, int home)
{
    int before = 0;
    for (int i = 0; i < home; i++) {
        before += host_of(b, i) == host_of(b, home);
    }
    return before;
}

static int homes_on(const struct books *b, int host)
{
    int count = 0;
    for (int i = 0; i < b->homes; i++) {
        count += host_of(b, i) == host;
    }
    return count;
}

static bool relays(const struct books *b, int relay, int source)
{
    int host = host_of(b, relay);
    if (host_of(b, source) == host) {
        return relay == source;
    }
    return place_of(b, source) % homes_on(b, host) == place_of(b, relay);
}

/* Routes in micro-step i from the tokens of a source to a home. */
struct counts {
    int64_t routes, tokens; /* to that home; with some to its host */
};

static struct counts counts_between(const struct books *b, int64_t layer, int64_t i, int source,
                                    int home)
{
    int tensor = b->size[TRI_AXIS_TENSOR];
    int replicas = b->size[TRI_AXIS_EXPERT] * b->size[TRI_AXIS_DATA];
    int e = b->whole ? source / tensor : source;
    int t = b->whole ? source % tensor : b->me[TRI_AXIS_TENSOR];
    struct tri_range rows = tri_rows_micro(b->config->train.global_batch, replicas,
                                           e + b->size[TRI_AXIS_EXPERT] * b->me[TRI_AXIS_DATA],
                                           b->config->train.micro_batch, i);
    int64_t seq = b->config->data.sequence_length;
    struct tri_range part = tri_range_part(tri_range_size(rows) * seq, tensor, t);
    struct counts counts = {0, 0};
    for (int64_t token = part.begin; token < part.end; token++) {
        const int32_t *chosen =
            b->tap.chosen + (layer * b->tap.tokens + rows.begin * seq + token) * b->tap.k;
        bool goes = false;
        for (int64_t j = 0; j < b->tap.k; j++) {
            int to = chosen[j] / (EXPERTS / b->homes);
            counts.routes += to == home;
            goes = goes || host_of(b, to) == host_of(b, home);
        }
        counts.tokens += goes;
    }
    return counts;
}

/* A call of this layer's: bytes, and those of them that leave the host, in so many messages. */
struct sent {
    int64_t bytes, between, messages;
};

static void book(struct books *b, enum tri_phase phase, enum tri_kind kind, struct sent sent)
{
    int group = tri_group_id(b->whole ? TRI_ON_GRID | TRI_ON_EXPERT : TRI_ON_EXPERT);
    tri_ledger_book(&b->ledger, TRI_OP_ALL_TO_ALL, group, phase, kind, sent.bytes, 0, 0);
    tri_ledger_book_between(&b->ledger, TRI_OP_ALL_TO_ALL, group, phase, kind, sent.between,
                            sent.messages);
}

/* `bytes` for each source's tokens with routes to other hosts: those of this rank go there, or what
 * comes of those that it is the relay of goes back. */
static struct sent between(const struct books *b, int64_t layer, int64_t i, bool back,
                           int64_t bytes)
{
    struct sent sent = {0, 0, 0};
    int me = b->whole ? b->me[TRI_AXIS_TENSOR] + b->me[TRI_AXIS_EXPERT] * b->size[TRI_AXIS_TENSOR]
                      : b->me[TRI_AXIS_EXPERT];
    for (int other = 0; other < b->homes; other++) {
        int source = back ? other : me, relay = back ? me : other;
        if (host_of(b, source) != host_of(b, relay) && relays(b, relay, source)) {
            int64_t tokens = counts_between(b, layer, i, source, relay).tokens;
            sent.between += tokens * bytes;
            sent.messages += tokens > 0;
        }
    }
    sent.bytes = sent.between;
    return sent;
}

/* Rows inside the host, to homes or back from them to relays. */
static struct sent inside(const struct books *b, int64_t layer, int64_t i, bool back, int64_t row)
{
    struct sent sent = {0, 0, 0};
    int me = b->whole ? b->me[TRI_AXIS_TENSOR] + b->me[TRI_AXIS_EXPERT] * b->size[TRI_AXIS_TENSOR]
                      : b->me[TRI_AXIS_EXPERT];
    for (int other = 0; other < b->homes; other++) {
        int relay = back ? other : me, home = back ? me : other;
        for (int source = 0; source < b->homes && other != me; source++) {
            if (host_of(b, other) == host_of(b, me) && relays(b, relay, source)) {
                sent.bytes += counts_between(b, layer, i, source, home).routes * row;
            }
        }
    }
    return sent;
}

/* What is told of rows before they go: how many for each expert and part and in all, by way of the
 * relays; then of each row k experts and weights. */
static void book_counts(struct books *b, int64_t layer, int64_t i)
{
    int me = b->whole ? b->me[TRI_AXIS_TENSOR] + b->me[TRI_AXIS_EXPERT] * b->size[TRI_AXIS_TENSOR]
                      : b->me[TRI_AXIS_EXPERT];
    int64_t parts = b->whole ? 1 : b->size[TRI_AXIS_TENSOR];
    int64_t size = parts * (EXPERTS / b->homes);
    struct sent first = {0, 0, 0}, second = {0, 0, 0};
    for (int other = 0; other < b->homes; other++) {
        bool far = host_of(b, other) != host_of(b, me);
        if (far && relays(b, other, me)) {
            first.between += (homes_on(b, host_of(b, other)) * size + 1) * 8;
            first.messages++;
        }
        for (int source = 0; source < b->homes && !far && other != me; source++) {
            second.bytes += relays(b, me, source) ? size * 8 : 0;
        }
    }
    first.bytes = first.between;
    book(b, TRI_PHASE_FORWARD, TRI_KIND_META, first);
    book(b, TRI_PHASE_FORWARD, TRI_KIND_META, second);
    book(b, TRI_PHASE_FORWARD, TRI_KIND_META, between(b, layer, i, false, 2 * b->tap.k * 4));
}

/* A recompute needs the experts' outputs at the relay, and no sums of them. */
static void book_layer(struct books *b, int64_t layer, int64_t i)
{
    static const enum tri_phase phases[] = {TRI_PHASE_FORWARD, TRI_PHASE_RECOMPUTE,
                                            TRI_PHASE_BACKWARD};
    int64_t row = b->config->model.hidden_size * 4;
    bool again = tri_config_layer_recomputes(b->config, layer) &&
                 !b->config->train.communication_aware_checkpointing;
    book_counts(b, layer, i);
    for (int p = 0; p < 3; p++) {
        enum tri_phase phase = phases[p];
        if (phase == TRI_PHASE_RECOMPUTE && !again) {
            continue;
        }
        book(b, phase, TRI_KIND_MOE, between(b, layer, i, false, row));
        book(b, phase, TRI_KIND_MOE, inside(b, layer, i, false, row));
        book(b, phase, TRI_KIND_MOE, inside(b, layer, i, true, row));
        if (phase != TRI_PHASE_RECOMPUTE) {
            book(b, phase, TRI_KIND_MOE, between(b, layer, i, true, row));
        }
        if (phase == TRI_PHASE_BACKWARD) {
            book(b, phase, TRI_KIND_MOE, between(b, layer, i, true, b->tap.k * 4));
        }
    }
}

static void compare(const struct books *b, const struct tri_ledger *found, const char *where)
{
    int group = tri_group_id(b->whole ? TRI_ON_GRID | TRI_ON_EXPERT : TRI_ON_EXPERT);
    for (int phase = 0; phase < TRI_PHASE_COUNT; phase++) {
        for (int kind = 0; kind < TRI_KIND_COUNT; kind++) {
            struct tri_ledger_cell got = found->cell[TRI_OP_ALL_TO_ALL][group][phase][kind];
            struct tri_ledger_cell want = b->ledger.cell[TRI_OP_ALL_TO_ALL][group][phase][kind];
            if (got.calls != want.calls || got.bytes != want.bytes ||
                got.bytes_between != want.bytes_between ||
                got.messages_between != want.messages_between) {
                tri_panic(TRI_FAILED,
                          "%s: %s, %s: %lld calls, %lld bytes, %lld of them in %lld messages "
                          "between hosts, expected %lld, %lld, %lld in %lld",
                          where, tri_phase_name((enum tri_phase)phase),
                          tri_kind_name((enum tri_kind)kind), (long long)got.calls,
                          (long long)got.bytes, (long long)got.bytes_between,
                          (long long)got.messages_between, (long long)want.calls,
                          (long long)want.bytes, (long long)want.bytes_between,
                          (long long)want.messages_between);
            }
        }
    }
}

/* Where it is even, one way, of N tokens of a rank: each has k choices in turn, which all lie on
 * one host where its experts are a multiple of k: N (hosts - 1) / hosts rows cross, where ted sends
 * k times as many, and in hosts - 1 messages a call. */
static void check_closed_form(const struct books *b, const struct tri_ledger *found, int64_t calls)
{
    int64_t hosts = b->homes / homes_on(b, host_of(b, 0));
    int group = tri_group_id(b->whole ? TRI_ON_GRID | TRI_ON_EXPERT : TRI_ON_EXPERT);
    struct tri_ledger_cell cell =
        found->cell[TRI_OP_ALL_TO_ALL][group][TRI_PHASE_FORWARD][TRI_KIND_MOE];
    int64_t n = b->config->train.micro_batch * b->config->data.sequence_length;
    n /= b->size[TRI_AXIS_TENSOR];
    if (EXPERTS / hosts % b->tap.k != 0) {
        return;
    }
    CHECK(cell.bytes_between * hosts ==
          2 * calls * n * (hosts - 1) * b->config->model.hidden_size * 4);
    CHECK(cell.messages_between == 2 * calls * (hosts - 1));
}

/* Whether all ranks that share experts share a host: then it is ted. */
static bool is_ted(const struct books *b)
{
    int ranks = b->size[TRI_AXIS_TENSOR] * b->size[TRI_AXIS_EXPERT];
    int first = b->rank / ranks * ranks;
    int per = (int)b->config->comm_ranks_per_host;
    return b->homes == 1 || first / per == (first + ranks - 1) / per;
}

static void expect_bytes(struct small_layout layout, int hosts, const char *words)
{
    struct tri_config config;
    char more[256], where[400];
    (void)snprintf(more, sizeof(more), "moe.schedule=hierarchical comm.ranks_per_host=%d %s", hosts,
                   words);
    (void)snprintf(where, sizeof(where), "%s: %s", small_layout_text(layout), more);
    struct books *b = tri_alloc(TRI_MEMORY_OTHER, sizeof(*b));
    struct outcome *outcome = take_step(more, layout, &config, &b->tap);
    struct tri_mesh *view =
        tri_mesh_create_view(layout.tensor, 1, 1, layout.expert,
                             job_size() / (layout.tensor * layout.expert), job_rank());
    b->config = &config;
    b->rank = job_rank();
    b->whole = layout.expert_tensor < layout.tensor;
    b->homes = layout.expert * (b->whole ? layout.tensor : 1);
    memcpy(b->size, view->size, sizeof(b->size));
    memcpy(b->me, view->coord, sizeof(b->me));
    int replicas = b->size[TRI_AXIS_EXPERT] * b->size[TRI_AXIS_DATA];
    int64_t steps =
        tri_rows_micro_steps(config.train.global_batch, replicas, config.train.micro_batch);
    int64_t layers = config.model.num_layers; /* all are MoE */
    for (int64_t i = 0; i < steps && !is_ted(b); i++) {
        for (int64_t layer = 0; layer < layers; layer++) {
            book_layer(b, layer, i);
        }
    }
    if (!is_ted(b)) {
        compare(b, &outcome->ledger, where);
    }
    bool even = (layout.tensor * layout.expert) % hosts == 0 && hosts % layout.tensor == 0;
    if (strstr(words, "router=balanced") && even && !is_ted(b)) {
        check_closed_form(b, &outcome->ledger, layers * steps);
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
    int most = job_size() > 5 ? 5 : job_size() - 1; /* ranks of a host */
    for (int i = 0; i < count * FLAVOURS; i++) {
        for (int hosts = 1; hosts <= most; hosts++) {
            if ((i + 2 * hosts) % every != 0 || layouts[i / FLAVOURS].expert == 1) {
                continue;
            }
            (void)snprintf(words, sizeof(words),
                           "moe.schedule=hierarchical comm.ranks_per_host=%d %s%s", hosts,
                           flavours[i % FLAVOURS], (i + hosts) % 3 == 0 ? " precision=bf16" : "");
            expect_equal(layouts[i / FLAVOURS], words);
        }
    }
    for (int i = 0; i < count && !grids; i++) {
        int hosts = 1 + i % (most > 1 ? most : 1);
        expect_bits(layouts[i], hosts, i % 2 ? "precision=bf16 moe.top_k=1" : "moe.top_k=1", true);
        expect_bits(layouts[i], most,
                    "reproducible=true model.num_kv_heads=8 moe.top_k=3 moe.capacity_factor=0.8",
                    true);
        expect_bits(layouts[i], most, "moe.capacity_factor=0.8 moe.top_k=3", false);
        expect_bits(layouts[i], job_size(), "precision=bf16 moe.top_k=3", true);
        for (hosts = 1; hosts <= most; hosts++) {
            expect_bytes(layouts[i], hosts,
                         (i + hosts) % 2
                             ? "train.recompute=[0] train.communication_aware_checkpointing=false"
                             : "train.global_batch=3 moe.top_k=3");
            expect_bytes(layouts[i], hosts,
                         "moe.router=balanced train.global_batch=16 data.sequence_length=16");
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    return job_run(argc, argv, run_job);
}
