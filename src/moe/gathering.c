#include "moe/gathering.h"

#include "model/stream.h"
#include "shard/rows.h"

struct tri_gathering tri_gathering_create(const struct tri_context *context)
{
    const struct tri_mesh *mesh = context->mesh;
    const struct tri_config *config = context->config;
    int tensor = tri_mesh_grid(mesh);
    bool whole = config->parallel.expert_tensor < tensor;
    bool split = tri_moe_splits_tokens(config, mesh);
    struct tri_group *homes =
        tri_mesh_group(mesh, whole ? TRI_ON_GRID | TRI_ON_EXPERT : TRI_ON_EXPERT);
    return (struct tri_gathering){
        .context = context,
        .ranks = tri_mesh_group(mesh, split ? TRI_ON_GRID | TRI_ON_EXPERT : TRI_ON_EXPERT),
        .homes = homes,
        .experts = config->moe.num_experts / tri_group_size(homes),
        .cut = tensor > 1 && !whole,
        .split = split,
    };
}

static int64_t hidden_of(const struct tri_gathering *m)
{
    return m->context->config->model.hidden_size;
}

void *tri_gathering_row(const struct tri_gathering *m, const void *rows, int64_t row,
                        enum tri_dtype dtype)
{
    return (char *)(uintptr_t)rows + (size_t)(row * hidden_of(m)) * tri_dtype_size(dtype);
}

struct tri_range tri_gathering_own(const struct tri_gathering *m, const struct tri_frame *frame)
{
    return m->split ? tri_tokens_part(frame) : (struct tri_range){0, tri_pass_tokens(&frame->pass)};
}

/* Own tokens' place in a tensor of the stream's tokens. */
static void *in_stream(const struct tri_gathering *m, const struct tri_frame *frame,
                       const void *stream)
{
    int64_t skipped = tri_gathering_own(m, frame).begin - tri_stream_tokens(frame).begin;
    return tri_gathering_row(m, stream, skipped, m->context->dt);
}

/* ---- who has what ---------------------------------------------------------------------------- */

/* Tokens of the replica at place `expert` of this one's expert group. */
static int64_t tokens_of(const struct tri_gathering *m, const struct tri_frame *frame, int expert)
{
    const struct tri_pass *pass = &frame->pass;
    const struct tri_mesh *mesh = m->context->mesh;
    int replicas = tri_group_size(tri_mesh_group(mesh, TRI_ON_EXPERT | TRI_ON_DATA));
    int replica = expert + mesh->size[TRI_AXIS_EXPERT] * mesh->coord[TRI_AXIS_DATA];
    int64_t micro = m->context->config->train.micro_batch;
    /* a decoder takes its whole share at once */
    struct tri_range rows =
        pass->cache ? tri_rows_share(pass->batch_rows, replicas, replica)
                    : tri_rows_micro(pass->batch_rows, replicas, replica, micro, pass->micro_step);
    return tri_range_size(rows) * pass->seq;
}

/* Those of them that tensor rank `tensor` holds. */
static struct tri_range part_of(const struct tri_gathering *m, int64_t tokens, int64_t seq,
                                int tensor)
{
    return m->split ? tri_grid_part(m->context->mesh, tokens / seq, seq, tensor)
                    : (struct tri_range){0, tokens};
}

static int tensor_of(const struct tri_gathering *m)
{
    return tri_mesh_grid_rank(m->context->mesh);
}

void tri_gathering_count(const struct tri_gathering *m, const struct tri_frame *frame,
                         struct tri_met *met)
{
    int ranks = tri_group_size(m->ranks);
    int tensors = m->split ? tri_mesh_grid(m->context->mesh) : 1;
    int64_t *counts = tri_arena_alloc(frame->arena, (size_t)ranks * sizeof(*counts));
    met->before = met->tokens = 0;
    for (int r = 0; r < ranks; r++) {
        counts[r] = tri_range_size(
            part_of(m, tokens_of(m, frame, r / tensors), frame->pass.seq, r % tensors));
        met->before += r < tri_group_rank(m->ranks) ? counts[r] : 0;
        met->tokens += counts[r];
    }
    TRI_REQUIRE(counts[tri_group_rank(m->ranks)] == tri_range_size(tri_gathering_own(m, frame)));
    met->counts = counts;
}

/* Elements of each rank that meets, in the arena. */
static const int64_t *elements(const struct tri_gathering *m, const struct tri_frame *frame,
                               const struct tri_met *met)
{
    int ranks = tri_group_size(m->ranks);
    int64_t *counts = tri_arena_alloc(frame->arena, (size_t)ranks * sizeof(*counts));
    for (int r = 0; r < ranks; r++) {
        counts[r] = met->counts[r] * hidden_of(m);
    }
    return counts;
}

/* ---- moving rows ----------------------------------------------------------------------------- */

void tri_gathering_copy(const struct tri_gathering *m, const void *from, enum tri_dtype from_dt,
                        void *to, enum tri_dtype to_dt, int64_t rows)
{
    const struct tri_kernels *kernels = m->context->kernels;
    const struct tri_cast_args args = {
        .src = from, .from = from_dt, .dst = to, .to = to_dt, .n = rows * hidden_of(m)};
    kernels->cast(kernels, &args);
}

void tri_gathering_gather(const struct tri_gathering *m, const struct tri_frame *frame,
                          const struct tri_met *met, enum tri_phase phase, const void *stream,
                          void *all)
{
    enum tri_dtype dt = m->context->dt;
    size_t mark = tri_arena_mark(frame->arena);
    tri_gathering_copy(m, in_stream(m, frame, stream), dt,
                       tri_gathering_row(m, all, met->before, dt), dt,
                       met->counts[tri_group_rank(m->ranks)]);
    tri_all_gather_v(m->ranks, (struct tri_where){phase, TRI_KIND_MOE}, all,
                     elements(m, frame, met), dt);
    tri_arena_rewind(frame->arena, mark);
}

/* Sums that are whole but for those over experts, of which the tensor ranks have the same: own
 * tokens' of each replica, one replica after the other, are reduced and scattered over {expert}.
 * Returns this rank's. */
static void *reduce_parts(const struct tri_gathering *m, const struct tri_frame *frame,
                          struct tri_where where, const void *sums)
{
    enum tri_dtype dtype = m->context->sum_dt;
    int ranks = tri_group_size(m->homes);
    int64_t *counts = tri_arena_alloc(frame->arena, (size_t)ranks * sizeof(*counts));
    int64_t rows = 0, all = 0, mine = 0;
    for (int r = 0; r < ranks; r++) {
        rows += tri_range_size(part_of(m, tokens_of(m, frame, r), frame->pass.seq, tensor_of(m)));
    }
    char *parts =
        tri_arena_alloc(frame->arena, (size_t)(rows * hidden_of(m)) * tri_dtype_size(dtype));
    rows = 0;
    for (int r = 0; r < ranks; r++) {
        int64_t tokens = tokens_of(m, frame, r);
        struct tri_range part = part_of(m, tokens, frame->pass.seq, tensor_of(m));
        mine = r == tri_group_rank(m->homes) ? rows : mine;
        tri_gathering_copy(m, tri_gathering_row(m, sums, all + part.begin, dtype), dtype,
                           tri_gathering_row(m, parts, rows, dtype), dtype, tri_range_size(part));
        counts[r] = tri_range_size(part) * hidden_of(m);
        rows += tri_range_size(part);
        all += tokens;
    }
    tri_reduce_scatter_v(m->homes, where, parts, counts, dtype);
    return tri_gathering_row(m, parts, mine, dtype);
}

void tri_gathering_send_home(const struct tri_gathering *m, const struct tri_frame *frame,
                             const struct tri_met *met, enum tri_phase phase, void *sums,
                             void *stream)
{
    const struct tri_context *context = m->context;
    const struct tri_where where = {phase, TRI_KIND_MOE};
    int64_t count = met->counts[tri_group_rank(m->ranks)];
    void *place = in_stream(m, frame, stream);
    void *mine = sums;
    if (context->reproducible && m->cut && m->split) {
        mine = reduce_parts(m, frame, where, sums);
    } else if (tri_group_size(m->ranks) > 1) {
        tri_reduce_scatter_v(m->ranks, where, sums, elements(m, frame, met), context->sum_dt);
        mine = tri_gathering_row(m, sums, met->before, context->sum_dt);
    }
    if (mine != place) {
        tri_gathering_copy(m, mine, context->sum_dt, place, context->dt, count);
    }
    if (m->cut && !m->split && !context->reproducible) {
        tri_all_reduce_sum(tri_mesh_group(context->mesh, TRI_ON_GRID), where, place,
                           count * hidden_of(m), context->dt);
    }
}

void *tri_gathering_take_sums(const struct tri_gathering *m, const struct tri_frame *frame,
                              const struct tri_met *met, void *stream)
{
    const struct tri_context *context = m->context;
    if (tri_group_size(m->ranks) == 1 && context->sum_dt == context->dt) {
        return in_stream(m, frame, stream);
    }
    size_t bytes = (size_t)(met->tokens * hidden_of(m)) * tri_dtype_size(context->sum_dt);
    return tri_arena_alloc(frame->arena, bytes);
}

void tri_gathering_make_whole(const struct tri_gathering *m, const struct tri_frame *frame,
                              enum tri_phase phase, void *stream)
{
    const struct tri_context *context = m->context;
    if (m->split && !tri_stream_is_cut(context->config, context->mesh)) {
        tri_part_gather(frame, (struct tri_where){phase, TRI_KIND_MOE}, stream, hidden_of(m),
                        context->dt);
    }
}

/* ---- weights --------------------------------------------------------------------------------- */

/* Numbers of tokens by expert [n, homes * experts], and the same by home [homes, n, experts]. */
struct turn {
    float *by_token, *by_home;
    int64_t n, experts, homes;
    bool back;
};

static void turn(void *state, int64_t begin, int64_t end)
{
    const struct turn *s = state;
    for (int64_t t = begin; t < end; t++) {
        for (int64_t h = 0; h < s->homes; h++) {
            float *token = s->by_token + (t * s->homes + h) * s->experts;
            float *home = s->by_home + (h * s->n + t) * s->experts;
            memcpy(s->back ? token : home, s->back ? home : token,
                   (size_t)s->experts * sizeof(*home));
        }
    }
}

enum { PIECE = 256 };

static void run(const struct tri_gathering *m, int64_t n, void (*body)(void *, int64_t, int64_t),
                void *state)
{
    const struct tri_kernels *kernels = m->context->kernels;
    kernels->loop(kernels,
                  &(struct tri_loop_args){.n = n, .piece = PIECE, .run = body, .state = state});
}

/* Tokens whose weights this rank tells to the homes, or each home's source tells it: own ones, or
 * where a tensor rank knows those of its replica and needs those of all replicas, all. */
static bool tells_all(const struct tri_gathering *m)
{
    return m->cut && m->split;
}

const float *tri_gathering_weights(const struct tri_gathering *m, const struct tri_frame *frame,
                                   const struct tri_met *met, const struct tri_routes *routes)
{
    int homes = tri_group_size(m->homes);
    bool filled;
    if (homes == 1) {
        return routes->weight;
    }
    float *weight =
        tri_keep_routing(frame, (size_t)(met->tokens * m->experts) * sizeof(*weight), &filled);
    if (filled) {
        return weight;
    }
    struct tri_range told = tells_all(m) ? (struct tri_range){0, tri_pass_tokens(&frame->pass)}
                                         : tri_gathering_own(m, frame);
    int64_t n = tri_range_size(told);
    size_t mark = tri_arena_mark(frame->arena);
    int64_t *send = tri_arena_alloc(frame->arena, 2 * (size_t)homes * sizeof(*send));
    int64_t *received = send + homes;
    for (int h = 0; h < homes; h++) {
        send[h] = n;
        received[h] = tells_all(m) ? tokens_of(m, frame, h) : met->counts[h];
    }
    struct turn state = {
        .by_token = routes->weight + told.begin * homes * m->experts,
        .by_home = tri_frame_take_f32(frame, n * homes * m->experts),
        .n = n,
        .experts = m->experts,
        .homes = homes,
    };
    run(m, n, turn, &state);
    tri_all_to_all_v(m->homes, (struct tri_where){frame->pass.phase, TRI_KIND_MOE}, state.by_home,
                     send, weight, received, m->experts, TRI_F32);
    tri_arena_rewind(frame->arena, mark);
    return weight;
}

void tri_gathering_return(const struct tri_gathering *m, const struct tri_frame *frame,
                          const struct tri_met *met, const float *slopes, float *dweight)
{
    int homes = tri_group_size(m->homes);
    struct tri_range mine = tri_gathering_own(m, frame);
    int64_t n = tri_range_size(mine);
    const float *sent = slopes;
    int64_t *send = tri_arena_alloc(frame->arena, 2 * (size_t)homes * sizeof(*send));
    int64_t *received = send + homes;
    float *parts = NULL;
    if (tells_all(m)) {
        sent = parts = tri_frame_take_f32(frame, met->tokens * m->experts);
    }
    int64_t all = 0, rows = 0;
    for (int h = 0; h < homes; h++) {
        int64_t tokens = tells_all(m) ? tokens_of(m, frame, h) : met->counts[h];
        struct tri_range part = tells_all(m) ? part_of(m, tokens, frame->pass.seq, tensor_of(m))
                                             : (struct tri_range){0, tokens};
        if (parts) {
            const struct tri_kernels *kernels = m->context->kernels;
            const struct tri_copy_args args = {
                .src = slopes + (all + part.begin) * m->experts,
                .dst = parts + rows * m->experts,
                .bytes = (size_t)(tri_range_size(part) * m->experts) * sizeof(*parts),
            };
            kernels->copy(kernels, &args);
        }
        send[h] = tri_range_size(part);
        received[h] = n;
        rows += send[h];
        all += tokens;
    }
    struct turn state = {
        .by_token = dweight + mine.begin * homes * m->experts,
        .by_home = tri_frame_take_f32(frame, n * homes * m->experts),
        .n = n,
        .experts = m->experts,
        .homes = homes,
        .back = true,
    };
    tri_all_to_all_v(m->homes, (struct tri_where){TRI_PHASE_BACKWARD, TRI_KIND_MOE}, sent, send,
                     state.by_home, received, m->experts, TRI_F32);
    run(m, n, turn, &state);
}
