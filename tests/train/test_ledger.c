/* After one training step the ledger holds what the closed formulas say, call for call and byte for
 * byte, on every layout, in f32 and bf16; what is booked as META is kept apart. The formulas here
 * know the config, the layout and the recorded routes, and nothing of the code that books.
 *
 * N: tokens of a micro-batch, of this rank's tensor group; H: hidden size; w: bytes of an
 * activation; s: of a partial sum over tensor. */
#include "support/small.h"

#include "base/memory.h"
#include "shard/rows.h"

#include <string.h>

struct books {
    const struct tri_config *config;
    const struct tri_mesh *mesh;
    const struct tri_params *params;
    const int32_t *routes; /* [MoE layers, tokens of the global batch, k] */
    int64_t tokens;        /* of the global batch */
    int64_t w, s;
    int64_t block;            /* the one being booked */
    struct tri_ledger ledger; /* what is expected */
};

static void book(struct books *b, enum tri_op op, int group, enum tri_phase phase,
                 enum tri_kind kind, int64_t bytes)
{
    tri_ledger_book(&b->ledger, op, group, phase, kind, bytes, 0.0, 0.0);
}

static void over_tensor(struct books *b, enum tri_phase phase, enum tri_kind kind, int64_t bytes)
{
    if (b->mesh->size[TRI_AXIS_TENSOR] > 1) {
        book(b, TRI_OP_ALL_REDUCE, tri_group_id(TRI_ON_TENSOR), phase, kind, bytes);
    }
}

static int ranks_of(const struct books *b, int group)
{
    const int *size = b->mesh->size;
    return group == tri_group_id(TRI_ON_TENSOR)   ? size[TRI_AXIS_TENSOR]
           : group == tri_group_id(TRI_ON_EXPERT) ? size[TRI_AXIS_EXPERT]
                                                  : size[TRI_AXIS_TENSOR] * size[TRI_AXIS_EXPERT];
}

/* Where a collective of a layer takes place: a recompute without communication-aware checkpointing
 * needs again what leads to something that the backward reads. */
enum when { FORWARD_ONLY, FORWARD_AND_RECOMPUTE, BACKWARD };

static void at_layer(struct books *b, int64_t layer, enum when when, enum tri_op op, int group,
                     enum tri_kind kind, int64_t bytes)
{
    const struct tri_config *config = b->config;
    if (ranks_of(b, group) == 1) {
        return;
    }
    book(b, op, group, when == BACKWARD ? TRI_PHASE_BACKWARD : TRI_PHASE_FORWARD, kind, bytes);
    if (when == FORWARD_AND_RECOMPUTE && tri_config_layer_recomputes(config, layer) &&
        !config->train.communication_aware_checkpointing) {
        book(b, op, group, TRI_PHASE_RECOMPUTE, kind, bytes);
    }
}

static bool is_cut(const struct books *b)
{
    return b->config->train.sequence_parallel && b->mesh->size[TRI_AXIS_TENSOR] > 1;
}

/* Tokens of this tensor rank, of n. */
static int64_t own_tokens(const struct books *b, int64_t n)
{
    return tri_range_size(
        tri_range_part(n, b->mesh->size[TRI_AXIS_TENSOR], b->mesh->coord[TRI_AXIS_TENSOR]));
}

/* Into a sublayer that needs all n tokens, and out of it; each has its mirror in the backward. */
static void into_and_out(struct books *b, int64_t layer, enum tri_kind kind, int64_t n,
                         enum when output)
{
    int64_t row = b->config->model.hidden_size * b->w;
    int64_t sum = n * b->config->model.hidden_size * b->s;
    if (!is_cut(b)) {
        at_layer(b, layer, output, TRI_OP_ALL_REDUCE, tri_group_id(TRI_ON_TENSOR), kind, sum);
        at_layer(b, layer, BACKWARD, TRI_OP_ALL_REDUCE, tri_group_id(TRI_ON_TENSOR), kind, sum);
        return;
    }
    int64_t own = own_tokens(b, n) * row;
    at_layer(b, layer, FORWARD_AND_RECOMPUTE, TRI_OP_ALL_GATHER, tri_group_id(TRI_ON_TENSOR), kind,
             own);
    at_layer(b, layer, output, TRI_OP_REDUCE_SCATTER, tri_group_id(TRI_ON_TENSOR), kind, sum);
    at_layer(b, layer, BACKWARD, TRI_OP_ALL_GATHER, tri_group_id(TRI_ON_TENSOR), kind, own);
    at_layer(b, layer, BACKWARD, TRI_OP_REDUCE_SCATTER, tri_group_id(TRI_ON_TENSOR), kind, sum);
}

/* ---- MoE ------------------------------------------------------------------------------------- */

/* Rank t, e of a mesh with this rank's d; with whole experts (ETP = 1) tensor ranks are homes
 * too. */
struct place {
    int tensor, expert;
};

static bool is_whole(const struct books *b)
{
    return b->config->parallel.expert_tensor < b->mesh->size[TRI_AXIS_TENSOR];
}

static int home_of(const struct books *b, int32_t expert)
{
    int homes = b->mesh->size[TRI_AXIS_EXPERT] * (is_whole(b) ? b->mesh->size[TRI_AXIS_TENSOR] : 1);
    return (int)(expert / (b->config->moe.num_experts / homes));
}

static int home_at(const struct books *b, struct place p)
{
    return is_whole(b) ? p.expert * b->mesh->size[TRI_AXIS_TENSOR] + p.tensor : p.expert;
}

/* Tensor ranks that send different tokens: whole experts, a cut stream, or dropped duplicates,
 * where there is more than one expert rank. */
static bool is_split(const struct books *b)
{
    bool drops = b->config->train.duplicate_token_dropping && b->mesh->size[TRI_AXIS_EXPERT] > 1;
    return b->mesh->size[TRI_AXIS_TENSOR] > 1 && (is_whole(b) || is_cut(b) || drops);
}

/* Routes from the tokens that `from` sends in micro-step i to the experts of home `to`. */
static int64_t count_routes(const struct books *b, int64_t layer, int64_t i, struct place from,
                            int to)
{
    const struct tri_mesh *mesh = b->mesh;
    int64_t seq = b->config->data.sequence_length;
    int64_t k = tri_config_routes(&b->config->moe);
    int replicas = mesh->size[TRI_AXIS_EXPERT] * mesh->size[TRI_AXIS_DATA];
    int replica = from.expert + mesh->size[TRI_AXIS_EXPERT] * mesh->coord[TRI_AXIS_DATA];
    struct tri_range rows = tri_rows_micro(b->config->train.global_batch, replicas, replica,
                                           b->config->train.micro_batch, i);
    int64_t n = tri_range_size(rows) * seq;
    struct tri_range own = {0, n};
    if (is_split(b)) {
        own = tri_range_part(n, mesh->size[TRI_AXIS_TENSOR], from.tensor);
    }
    int64_t count = 0;
    for (int64_t t = own.begin; t < own.end; t++) {
        for (int64_t j = 0; j < k; j++) {
            int64_t token = rows.begin * seq + t;
            count += home_of(b, b->routes[(layer * b->tokens + token) * k + j]) == to;
        }
    }
    return count;
}

/* Rows that the experts of this expert rank take, from all tensor parts of all expert ranks. */
static int64_t rows_of_all_parts(const struct books *b, int64_t layer, int64_t i)
{
    int64_t rows = 0;
    for (int e = 0; e < b->mesh->size[TRI_AXIS_EXPERT]; e++) {
        for (int t = 0; t < b->mesh->size[TRI_AXIS_TENSOR]; t++) {
            rows +=
                count_routes(b, layer, i, (struct place){t, e}, b->mesh->coord[TRI_AXIS_EXPERT]);
        }
    }
    return rows;
}

/* Tokens of micro-step i that `from` brings to where all experts are. */
static int64_t brought(const struct books *b, int64_t i, struct place from)
{
    const struct tri_mesh *mesh = b->mesh;
    int replicas = mesh->size[TRI_AXIS_EXPERT] * mesh->size[TRI_AXIS_DATA];
    int replica = from.expert + mesh->size[TRI_AXIS_EXPERT] * mesh->coord[TRI_AXIS_DATA];
    int64_t n = b->config->data.sequence_length *
                tri_range_size(tri_rows_micro(b->config->train.global_batch, replicas, replica,
                                              b->config->train.micro_batch, i));
    return is_split(b) ? tri_range_size(tri_range_part(n, mesh->size[TRI_AXIS_TENSOR], from.tensor))
                       : n;
}

/* Every token to every expert; L local experts, a rank's own tokens are O, those of all that meet
 * A. Each way O rows are gathered and A rows reduced and scattered, over {expert} or, where tensor
 * ranks bring different tokens, {tensor, expert}. Of the numbers of a token, one an expert, each
 * home has L: so many bytes go to the homes and come back. In reproducible mode cut experts are
 * made whole first: A L rows in f32 over tensor; the rest is then the same on all tensor ranks. */
static void book_dense(struct books *b, int64_t i, int64_t n)
{
    const struct tri_mesh *mesh = b->mesh;
    int tensor = tri_group_id(TRI_ON_TENSOR), expert = tri_group_id(TRI_ON_EXPERT);
    int both = tri_group_id(TRI_ON_GRID | TRI_ON_EXPERT);
    bool cut = mesh->size[TRI_AXIS_TENSOR] > 1 && !is_whole(b);
    int homes = is_whole(b) ? both : expert;
    int meeting = is_split(b) ? both : expert;
    int64_t local = b->config->moe.num_experts / ranks_of(b, homes);
    int64_t row = b->config->model.hidden_size * b->w;
    int64_t sum_row = b->config->model.hidden_size * b->s;
    struct place me = {mesh->coord[TRI_AXIS_TENSOR], mesh->coord[TRI_AXIS_EXPERT]};
    int64_t own = brought(b, i, me);
    int64_t all = 0;  /* tokens that meet */
    int64_t part = 0; /* those of them that tensor ranks at this place bring */
    for (int e = 0; e < mesh->size[TRI_AXIS_EXPERT]; e++) {
        part += brought(b, i, (struct place){me.tensor, e});
        for (int t = 0; t < mesh->size[TRI_AXIS_TENSOR]; t++) {
            all += is_split(b) || t == 0 ? brought(b, i, (struct place){t, e}) : 0;
        }
    }
    bool ordered = b->config->reproducible && cut;
    int64_t told = cut && is_split(b) ? n : own;
    at_layer(b, b->block, FORWARD_ONLY, TRI_OP_ALL_TO_ALL, homes, TRI_KIND_MOE,
             told * (ranks_of(b, homes) - 1) * local * 4);
    at_layer(b, b->block, BACKWARD, TRI_OP_ALL_TO_ALL, homes, TRI_KIND_MOE,
             ((is_whole(b) ? all : part) - own) * local * 4);
    if (cut && !ordered) {
        at_layer(b, b->block, BACKWARD, TRI_OP_ALL_REDUCE, tensor, TRI_KIND_MOE, all * local * 4);
    }
    for (int way = 0; way < 2; way++) {
        enum when in = way ? BACKWARD : FORWARD_AND_RECOMPUTE, out = way ? BACKWARD : FORWARD_ONLY;
        at_layer(b, b->block, in, TRI_OP_ALL_GATHER, meeting, TRI_KIND_MOE, own * row);
        if (ordered) {
            at_layer(b, b->block, in, TRI_OP_ALL_REDUCE, tensor, TRI_KIND_MOE,
                     all * local * sum_row);
            at_layer(b, b->block, out, TRI_OP_REDUCE_SCATTER, expert, TRI_KIND_MOE,
                     (is_split(b) ? part : all) * sum_row);
        } else {
            at_layer(b, b->block, out, TRI_OP_REDUCE_SCATTER, meeting, TRI_KIND_MOE, all * sum_row);
        }
        if (cut && !ordered && !is_split(b)) {
            at_layer(b, b->block, out, TRI_OP_ALL_REDUCE, tensor, TRI_KIND_MOE, own * row);
        }
        if (is_split(b) && !is_cut(b)) {
            at_layer(b, b->block, out, TRI_OP_ALL_GATHER, tensor, TRI_KIND_MOE,
                     own_tokens(b, n) * row);
        }
    }
    if (is_cut(b)) {
        at_layer(b, b->block, FORWARD_ONLY, TRI_OP_ALL_GATHER, tensor, TRI_KIND_MOE,
                 own_tokens(b, n) * b->config->moe.num_experts * 4);
    }
}

/* layer: among the MoE layers. */
static void book_moe(struct books *b, int64_t layer, int64_t i, int64_t n)
{
    const struct tri_mesh *mesh = b->mesh;
    int64_t row = b->config->model.hidden_size * b->w;
    int64_t sum_row = b->config->model.hidden_size * b->s;
    struct place me = {mesh->coord[TRI_AXIS_TENSOR], mesh->coord[TRI_AXIS_EXPERT]};
    int64_t sent = 0;     /* to other homes */
    int64_t received = 0; /* from other homes */
    int tensors = is_whole(b) ? mesh->size[TRI_AXIS_TENSOR] : 1;
    for (int e = 0; e < mesh->size[TRI_AXIS_EXPERT]; e++) {
        for (int t = 0; t < tensors; t++) {
            struct place other = {is_whole(b) ? t : me.tensor, e};
            if (home_at(b, other) != home_at(b, me)) {
                sent += count_routes(b, layer, i, me, home_at(b, other));
                received += count_routes(b, layer, i, other, home_at(b, me));
            }
        }
    }
    int64_t part = received + count_routes(b, layer, i, me, home_at(b, me));
    int homes =
        is_whole(b) ? tri_group_id(TRI_ON_GRID | TRI_ON_EXPERT) : tri_group_id(TRI_ON_EXPERT);
    int64_t block = b->block;
    if (b->config->moe.router->dense) {
        book_dense(b, i, n);
        return;
    }
    for (int way = 0; way < 2; way++) {
        enum when when = way ? BACKWARD : FORWARD_AND_RECOMPUTE;
        at_layer(b, block, when, TRI_OP_ALL_TO_ALL, homes, TRI_KIND_MOE, sent * row);
        at_layer(b, block, when, TRI_OP_ALL_TO_ALL, homes, TRI_KIND_MOE, received * row);
        if (is_split(b) && !is_whole(b)) {
            at_layer(b, block, when, TRI_OP_ALL_GATHER, tri_group_id(TRI_ON_TENSOR), TRI_KIND_MOE,
                     part * row);
            at_layer(b, block, when, TRI_OP_REDUCE_SCATTER, tri_group_id(TRI_ON_TENSOR),
                     TRI_KIND_MOE, rows_of_all_parts(b, layer, i) * sum_row);
        } else if (!is_whole(b)) {
            at_layer(b, block, when, TRI_OP_ALL_REDUCE, tri_group_id(TRI_ON_TENSOR), TRI_KIND_MOE,
                     part * sum_row);
        }
        if (is_split(b) && !is_cut(b)) {
            at_layer(b, block, way ? BACKWARD : FORWARD_ONLY, TRI_OP_ALL_GATHER,
                     tri_group_id(TRI_ON_TENSOR), TRI_KIND_MOE, own_tokens(b, n) * row);
        }
    }
    if (is_cut(b)) {
        at_layer(b, block, FORWARD_ONLY, TRI_OP_ALL_GATHER, tri_group_id(TRI_ON_TENSOR),
                 TRI_KIND_MOE, own_tokens(b, n) * b->config->moe.num_experts * 4);
    }
}

/* ---- a micro-step ---------------------------------------------------------------------------- */

/* The embedding, and the head with its cross-entropy over a cut vocabulary. */
static void book_ends(struct books *b, int64_t n)
{
    int64_t bytes = n * b->config->model.hidden_size * b->w;
    int64_t own = own_tokens(b, n) * b->config->model.hidden_size * b->w;
    int64_t sum = n * b->config->model.hidden_size * b->s;
    if (is_cut(b)) {
        book(b, TRI_OP_REDUCE_SCATTER, tri_group_id(TRI_ON_TENSOR), TRI_PHASE_FORWARD,
             TRI_KIND_EMBEDDING, bytes);
        book(b, TRI_OP_ALL_GATHER, tri_group_id(TRI_ON_TENSOR), TRI_PHASE_BACKWARD,
             TRI_KIND_EMBEDDING, own);
        book(b, TRI_OP_ALL_GATHER, tri_group_id(TRI_ON_TENSOR), TRI_PHASE_FORWARD, TRI_KIND_HEAD,
             own);
        book(b, TRI_OP_REDUCE_SCATTER, tri_group_id(TRI_ON_TENSOR), TRI_PHASE_BACKWARD,
             TRI_KIND_HEAD, sum);
    } else {
        over_tensor(b, TRI_PHASE_FORWARD, TRI_KIND_EMBEDDING, bytes);
        over_tensor(b, TRI_PHASE_BACKWARD, TRI_KIND_HEAD, sum);
    }
    if (n > 0) {
        over_tensor(b, TRI_PHASE_FORWARD, TRI_KIND_HEAD, n * 4);
        over_tensor(b, TRI_PHASE_FORWARD, TRI_KIND_HEAD, 2 * n * 4);
    }
}

static void book_micro_step(struct books *b, int64_t i)
{
    const struct tri_config *config = b->config;
    const struct tri_mesh *mesh = b->mesh;
    int replicas = mesh->size[TRI_AXIS_EXPERT] * mesh->size[TRI_AXIS_DATA];
    int replica =
        mesh->coord[TRI_AXIS_EXPERT] + mesh->size[TRI_AXIS_EXPERT] * mesh->coord[TRI_AXIS_DATA];
    int64_t n = config->data.sequence_length *
                tri_range_size(tri_rows_micro(config->train.global_batch, replicas, replica,
                                              config->train.micro_batch, i));
    book_ends(b, n);
    int64_t moe = 0;
    for (int64_t layer = 0; layer < config->model.num_layers; layer++) {
        b->block = layer;
        into_and_out(b, layer, TRI_KIND_ATTENTION, n, FORWARD_AND_RECOMPUTE);
        if (config->model.qk_norm == TRI_QK_NORM_FULL) {
            at_layer(b, layer, FORWARD_AND_RECOMPUTE, TRI_OP_ALL_REDUCE,
                     tri_group_id(TRI_ON_TENSOR), TRI_KIND_ATTENTION, 2 * n * 4);
            at_layer(b, layer, BACKWARD, TRI_OP_ALL_REDUCE, tri_group_id(TRI_ON_TENSOR),
                     TRI_KIND_ATTENTION, 2 * n * 4);
        }
        if (!tri_config_layer_is_moe(config, layer)) {
            into_and_out(b, layer, TRI_KIND_MLP, n, FORWARD_ONLY);
            continue;
        }
        book_moe(b, moe++, i, n);
        if (config->moe.shared_intermediate_size > 0) {
            into_and_out(b, layer, TRI_KIND_SHARED_EXPERT, n,
                         config->moe.shared_gate ? FORWARD_AND_RECOMPUTE : FORWARD_ONLY);
        }
    }
}

/* ---- gradients and weights ------------------------------------------------------------------- */

/* Bytes of a gradient's element; narrow: of a weight stored in bf16. */
static int64_t gradient_bytes(const struct books *b, bool narrow)
{
    bool half = narrow && b->config->train.gradient_dtype == TRI_PRECISION_BF16;
    return b->config->reproducible ? 8 : half ? 2 : 4;
}

/* Gradients that are partial sums over tensor: a q/k norm by heads, a router that splits its
 * tokens, KV heads that several ranks hold, and all norms of a cut stream. */
static void book_partial_gradients(struct books *b)
{
    const struct tri_config_model *model = &b->config->model;
    int64_t kv = model->num_kv_heads * model->head_dim;
    bool overlap = model->num_kv_heads % b->mesh->size[TRI_AXIS_TENSOR] != 0;
    int64_t narrow = gradient_bytes(b, true);
    int64_t wide = gradient_bytes(b, false);
    for (int64_t layer = 0; layer < model->num_layers; layer++) {
        for (int i = 0; i < 2 && overlap; i++) {
            over_tensor(b, TRI_PHASE_OPTIMIZER, TRI_KIND_GRADIENT,
                        kv * model->hidden_size * narrow);
            if (model->bias != TRI_BIAS_NONE) {
                over_tensor(b, TRI_PHASE_OPTIMIZER, TRI_KIND_GRADIENT, kv * wide);
            }
        }
        if (overlap && model->qk_norm == TRI_QK_NORM_FULL) {
            over_tensor(b, TRI_PHASE_OPTIMIZER, TRI_KIND_GRADIENT, kv * wide);
        }
        for (int i = 0; i < 2 && model->qk_norm == TRI_QK_NORM_HEAD; i++) {
            over_tensor(b, TRI_PHASE_OPTIMIZER, TRI_KIND_GRADIENT, model->head_dim * wide);
        }
        if (is_split(b) && tri_config_layer_is_moe(b->config, layer)) {
            over_tensor(b, TRI_PHASE_OPTIMIZER, TRI_KIND_GRADIENT,
                        b->config->moe.num_experts * model->hidden_size * wide);
        }
        if (is_cut(b) && b->config->moe.shared_gate && tri_config_layer_is_moe(b->config, layer)) {
            over_tensor(b, TRI_PHASE_OPTIMIZER, TRI_KIND_GRADIENT, model->hidden_size * wide);
        }
    }
    int64_t norms = (2 * model->num_layers + 1) * (model->norm == TRI_NORM_LAYER ? 2 : 1);
    for (int64_t i = 0; i < norms && is_cut(b); i++) {
        over_tensor(b, TRI_PHASE_OPTIMIZER, TRI_KIND_GRADIENT, model->hidden_size * wide);
    }
}

static bool is_narrow(const struct books *b, const struct tri_param *param)
{
    bool router = param->role == TRI_ROLE_ROUTER || param->role == TRI_ROLE_SHARED_GATE;
    return b->w == 2 && param->dims == 2 && !router;
}

/* Block of a row: the embeddings', a layer's, the final norm's and head's. */
static int64_t block_of(const struct books *b, const struct tri_param *param)
{
    if (param->role == TRI_ROLE_EMBEDDING || param->role == TRI_ROLE_POSITION) {
        return -1;
    }
    return param->layer >= 0 ? param->layer : b->config->model.num_layers;
}

/* What a block holds here of one kind: P parameters over R replicas, ZeRO-1: g P bytes in, w P / R
 * out. */
static void book_shard(struct books *b, int64_t block, bool experts, bool narrow)
{
    int64_t count = 0;
    for (int p = 0; p < b->params->count; p++) {
        const struct tri_param *param = &b->params->param[p];
        if (block_of(b, param) == block && (param->place == TRI_PLACE_EXPERT) == experts &&
            is_narrow(b, param) == narrow) {
            count += tri_range_size(param->local[0]) * tri_range_size(param->local[1]);
        }
    }
    int group = experts ? tri_group_id(TRI_ON_DATA) : tri_group_id(TRI_ON_EXPERT | TRI_ON_DATA);
    int replicas = b->mesh->size[TRI_AXIS_DATA] * (experts ? 1 : b->mesh->size[TRI_AXIS_EXPERT]);
    int place = tri_group_rank(experts ? tri_mesh_group(b->mesh, TRI_ON_DATA)
                                       : tri_mesh_group(b->mesh, TRI_ON_EXPERT | TRI_ON_DATA));
    int64_t shard = tri_range_size(tri_range_part(count, replicas, place));
    CHECK(shard * replicas < count + replicas && shard * replicas > count - replicas);
    if (replicas > 1 && count > 0) {
        book(b, TRI_OP_REDUCE_SCATTER, group, TRI_PHASE_OPTIMIZER, TRI_KIND_GRADIENT,
             gradient_bytes(b, narrow) * count);
        book(b, TRI_OP_ALL_GATHER, group, TRI_PHASE_OPTIMIZER, TRI_KIND_WEIGHTS,
             (narrow ? 2 : 4) * shard);
    }
}

static void book_shards(struct books *b)
{
    for (int64_t block = -1; block <= b->config->model.num_layers; block++) {
        for (int i = 0; i < 4; i++) {
            book_shard(b, block, i / 2 == 1, i % 2 == 1);
        }
    }
}

/* ---- the comparison -------------------------------------------------------------------------- */

static void compare(const struct books *b, const struct tri_ledger *found, const char *where)
{
    for (int op = 0; op < TRI_OP_COUNT; op++) {
        for (int group = 0; group < TRI_GROUP_COUNT; group++) {
            for (int phase = 0; phase < TRI_PHASE_COUNT; phase++) {
                for (int kind = 0; kind < TRI_KIND_META; kind++) {
                    struct tri_ledger_cell got = found->cell[op][group][phase][kind];
                    struct tri_ledger_cell expected = b->ledger.cell[op][group][phase][kind];
                    if (got.calls != expected.calls || got.bytes != expected.bytes) {
                        tri_panic(TRI_FAILED,
                                  "%s: %s over %s, %s, %s: %lld calls of %lld bytes, expected "
                                  "%lld of %lld",
                                  where, tri_op_name((enum tri_op)op), tri_groups[group].name,
                                  tri_phase_name((enum tri_phase)phase),
                                  tri_kind_name((enum tri_kind)kind), (long long)got.calls,
                                  (long long)got.bytes, (long long)expected.calls,
                                  (long long)expected.bytes);
                    }
                }
            }
        }
    }
}

/* Replicas fill disjoint rows of zeroed arrays. */
static void collect_routes(const struct tri_mesh *mesh, struct tri_route_tap *tap, int64_t n)
{
    tri_all_reduce_sum(tri_mesh_group(mesh, TRI_ON_EXPERT | TRI_ON_DATA),
                       (struct tri_where){TRI_PHASE_SETUP, TRI_KIND_META}, tap->chosen, n, TRI_I32);
}

/* The step's digits, and all cells that a rank booked. */
static void note(const char *words, struct small_layout layout,
                 const struct tri_step_report *report, const struct tri_ledger *found)
{
    const struct tri_ledger_cell *cell = &found->cell[0][0][0][0];
    job_note("%s: %s: %a %a", small_layout_text(layout), words, report->loss, report->grad_norm);
    for (size_t i = 0; i < sizeof(found->cell) / sizeof(*cell); i++) {
        if (cell[i].calls > 0) {
            job_note("%zu: %lld %lld", i, (long long)cell[i].calls, (long long)cell[i].bytes);
        }
    }
}

static void run(enum small_style style, const char *words, struct small_layout layout)
{
    struct tri_config config;
    small_config(style, words, &config);
    small_config_lay_out(&config, layout);
    struct tri_mesh *mesh = small_mesh(&config);
    struct tri_engine *engine = tri_engine_create(&config, mesh, small_kernels(&config), true);
    struct tri_rows_source source = small_source(&config);
    struct tri_route_tap tap = {.tokens = source.rows * source.seq,
                                .k = tri_config_routes(&config.moe)};
    int64_t n = engine->moe_layers * tap.tokens * tap.k;
    tap.chosen = tri_alloc(TRI_MEMORY_OTHER, (size_t)n * sizeof(*tap.chosen));
    struct tri_ledger *found = tri_alloc(TRI_MEMORY_OTHER, sizeof(*found));
    struct books *books = tri_alloc(TRI_MEMORY_OTHER, sizeof(*books));

    tri_ledger_reset(job_ledger());
    struct tri_step_report report = small_gradients(engine, &source, 0, &tap);
    tri_engine_update(engine, 1, 1e-3, &report);
    tri_params_settle(engine->params);
    *found = *job_ledger();
    collect_routes(mesh, &tap, n);

    books->config = &config;
    books->mesh = mesh;
    books->params = engine->params;
    books->routes = tap.chosen;
    books->tokens = tap.tokens;
    books->w = config.precision == TRI_PRECISION_BF16 ? 2 : 4;
    books->s = config.reproducible ? 4 : books->w;
    int replicas = mesh->size[TRI_AXIS_EXPERT] * mesh->size[TRI_AXIS_DATA];
    int64_t micro_steps = tri_rows_micro_steps(source.rows, replicas, config.train.micro_batch);
    for (int64_t i = 0; i < micro_steps; i++) {
        book_micro_step(books, i);
    }
    book_partial_gradients(books);
    book_shards(books);
    compare(books, found, small_layout_text(layout));
    note(words, layout, &report, found);
    CHECK((tri_ledger_sum(found, -1, -1, -1, TRI_KIND_META).bytes > 0) == (mesh->ranks > 1));

    tri_free(books);
    tri_free(found);
    tri_free(tap.chosen);
    tri_engine_destroy(engine);
    tri_mesh_destroy(mesh);
}

#define RESEND "train.communication_aware_checkpointing=false"

static const char *const dense[] = {
    "moe.router=dense train.recompute=full precision=bf16",
    "moe.router=dense moe.every=1 train.duplicate_token_dropping=false "
    "train.recompute=full " RESEND,
    "moe.router=dense train.sequence_parallel=true train.recompute=[1] " RESEND,
    "moe.router=dense reproducible=true precision=bf16 model.num_kv_heads=8 "
    "train.recompute=full " RESEND,
    "moe.router=dense reproducible=true model.num_kv_heads=8 train.sequence_parallel=true",
};
enum { DENSE = sizeof(dense) / sizeof(*dense) };

static int run_job(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    struct small_layout layouts[SMALL_LAYOUTS];
    int count = small_layouts(job_size(), 8, layouts);
    for (int i = 0; i < count; i++) {
        run(SMALL_GPT, "", layouts[i]);
        run(SMALL_GPT, "precision=bf16 model.num_kv_heads=1 train.global_batch=3", layouts[i]);
        run(SMALL_LLAMA, "model.qk_norm=full moe.every=2", layouts[i]);
        run(SMALL_LLAMA, "precision=bf16 model.num_kv_heads=1 train.gradient_dtype=bf16",
            layouts[i]);
        run(SMALL_GPT, "reproducible=true precision=bf16 train.sequence_parallel=true", layouts[i]);
        run(SMALL_LLAMA,
            "reproducible=true precision=bf16 model.num_kv_heads=8 model.qk_norm=head "
            "train.recompute=full",
            layouts[i]);
        run(SMALL_LLAMA, "train.sequence_parallel=true comm.overlap=false", layouts[i]);
        run(SMALL_LLAMA, "precision=bf16 model.qk_norm=head", layouts[i]);
        run(SMALL_LLAMA, "train.duplicate_token_dropping=false moe.top_k=1", layouts[i]);
        run(SMALL_GPT, "train.recompute=full", layouts[i]);
        run(SMALL_LLAMA, "train.recompute=full model.qk_norm=full " RESEND, layouts[i]);
        run(SMALL_GPT,
            "train.recompute=[1] precision=bf16 train.duplicate_token_dropping=false " RESEND,
            layouts[i]);
        run(SMALL_LLAMA, "train.sequence_parallel=true train.recompute=[0] " RESEND, layouts[i]);
        run(SMALL_GPT, "train.sequence_parallel=true model.qk_norm=full precision=bf16",
            layouts[i]);
        for (int j = 0; j < (count < DENSE ? DENSE : 2); j++) {
            run(SMALL_LLAMA, dense[(i + j) % DENSE], layouts[i]);
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    return job_run(argc, argv, run_job);
}
