/* Builds the parameter table: the only list of the model's weights. */
#include "model/param.h"

#include "base/memory.h"
#include "model/frozen.h"
#include "model/param_name.h"
#include "model/param_part.h"
#include "model/stream.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Which axis cuts a row of the table, and how. */
enum cut {
    CUT_NONE,      /* whole on every tensor rank */
    CUT_VOCAB,     /* rows over tensor */
    CUT_Q,         /* rows: query heads over tensor */
    CUT_KV,        /* rows: the KV heads that the rank's query heads use */
    CUT_Q_COLUMNS, /* columns: query heads */
    CUT_ROWS,      /* rows over tensor: up and gate */
    CUT_COLUMNS    /* columns over tensor: down */
};

struct spec {
    enum tri_role role;
    enum tri_place place;
    int64_t layer, expert;
    int64_t rows, columns; /* columns 0: a vector */
    enum cut cut;
    enum tri_init init;
    double init_std;
    bool full_precision; /* f32 whatever the precision */
    int sum_axes;        /* axes of the grid whose ranks have partial sums of its gradient */
};

struct builder {
    const struct tri_config *config;
    struct tri_params *params;
    const struct tri_mesh *mesh;
    int capacity;
    int64_t block;       /* whose rows are being added */
    double residual_std; /* of the products that end in the residual stream */
};

static bool experts_are_whole(const struct builder *b)
{
    return b->config->parallel.expert_tensor < tri_mesh_grid(b->mesh);
}

/* The expert's home: TED cuts each expert over the tensor ranks of one expert rank; with ETP = 1
 * the tensor ranks are further expert ranks and each holds whole experts. */
static bool expert_is_held(const struct builder *b, int64_t expert)
{
    const struct tri_mesh *mesh = b->mesh;
    int64_t homes = mesh->size[TRI_AXIS_EXPERT];
    int64_t home = mesh->coord[TRI_AXIS_EXPERT];
    if (experts_are_whole(b)) {
        home = home * tri_mesh_grid(mesh) + tri_mesh_grid_rank(mesh);
        homes *= tri_mesh_grid(mesh);
    }
    return expert / (b->config->moe.num_experts / homes) == home;
}

/* Rows of the KV matrices that this rank counts. */
static struct tri_range kv_counted(const struct builder *b)
{
    struct tri_range heads = tri_kv_heads_counted(&b->config->model, b->mesh);
    int64_t dim = b->config->model.head_dim;
    return (struct tri_range){heads.begin * dim, heads.end * dim};
}

static void cut_row(const struct builder *b, const struct spec *spec, struct tri_param *row)
{
    const struct tri_config_model *model = &b->config->model;
    bool expert = spec->place == TRI_PLACE_EXPERT;
    bool whole_expert = expert && experts_are_whole(b);
    int parts = expert ? tri_mesh_grid(b->mesh) : b->mesh->size[TRI_AXIS_TENSOR];
    int part = expert ? tri_mesh_grid_rank(b->mesh) : b->mesh->coord[TRI_AXIS_TENSOR];
    parts = whole_expert ? 1 : parts;
    part = whole_expert ? 0 : part;
    struct tri_range q_heads = tri_range_part(model->num_heads, parts, part);
    int64_t group = model->num_heads / model->num_kv_heads;
    struct tri_range kv_heads = tri_range_kv_heads(q_heads, group);
    int64_t dim = model->head_dim;
    row->local[0] = (struct tri_range){0, row->shape[0]};
    row->local[1] = (struct tri_range){0, row->shape[1]};
    bool counts_all = true;
    switch (spec->cut) {
    case CUT_NONE:
        counts_all = part == 0;
        break;
    case CUT_VOCAB:
    case CUT_ROWS:
        row->local[0] = tri_range_part(row->shape[0], parts, part);
        break;
    case CUT_COLUMNS:
        row->local[1] = tri_range_part(row->shape[1], parts, part);
        break;
    case CUT_Q:
        row->local[0] = (struct tri_range){q_heads.begin * dim, q_heads.end * dim};
        break;
    case CUT_Q_COLUMNS:
        row->local[1] = (struct tri_range){q_heads.begin * dim, q_heads.end * dim};
        break;
    case CUT_KV:
        row->local[0] = (struct tri_range){kv_heads.begin * dim, kv_heads.end * dim};
        row->counted = kv_counted(b);
        row->sync = model->num_kv_heads % parts == 0 ? TRI_SYNC_NONE : TRI_SYNC_OVERLAP;
        return;
    }
    row->counted = counts_all ? row->local[0] : (struct tri_range){0, 0};
}

/* Gives the row its place in its buffer. */
static void place_row(const struct builder *b, struct tri_param *row)
{
    struct tri_buffer *buffer = &b->params->buffer[row->buffer];
    row->offset = buffer->count;
    buffer->count += row->count;
    if (row->count == 0) {
        return;
    }
    if (buffer->segments == 0 || buffer->segment[buffer->segments - 1].block != b->block) {
        buffer->segment[buffer->segments++] =
            (struct tri_segment){.block = b->block, .whole = {row->offset, row->offset}};
    }
    row->segment = buffer->segments - 1;
    buffer->segment[row->segment].whole.end = buffer->count;
}

static void add(struct builder *b, struct spec spec)
{
    struct tri_params *params = b->params;
    TRI_REQUIRE(params->count < b->capacity);
    struct tri_param *row = &params->param[params->count++];
    tri_param_name(spec.role, spec.place, spec.layer, spec.expert, row->name);
    row->role = spec.role;
    row->place = spec.place;
    row->layer = spec.layer;
    row->expert = spec.expert;
    row->dims = spec.columns ? 2 : 1;
    row->shape[0] = spec.rows;
    row->shape[1] = spec.columns ? spec.columns : 1;
    bool narrow =
        b->config->precision == TRI_PRECISION_BF16 && spec.columns && !spec.full_precision;
    row->dtype = narrow ? TRI_BF16 : TRI_F32;
    row->replicas = spec.place == TRI_PLACE_EXPERT ? TRI_EXPERT : TRI_NONEXPERT;
    row->sum_axes = spec.sum_axes;
    row->decay = spec.columns != 0;
    row->trained = !tri_name_is_frozen(b->config, row->name);
    row->init = spec.init;
    row->init_std = spec.init_std;
    cut_row(b, &spec, row);
    row->held = spec.place != TRI_PLACE_EXPERT || expert_is_held(b, spec.expert);
    if (!row->held) {
        row->local[0] = row->local[1] = row->counted = (struct tri_range){0, 0};
    }
    tri_param_part(b->mesh, row);
    row->count = tri_range_size(row->local[0]) * tri_range_size(row->local[1]);
    row->buffer = (row->trained ? 0 : 4) + (row->replicas == TRI_EXPERT ? 2 : 0) + (narrow ? 1 : 0);
    place_row(b, row);
    params->total += row->shape[0] * row->shape[1];
    params->trained += row->trained ? row->shape[0] * row->shape[1] : 0;
    /* where experts choose tokens, top_k is how many a token has in the mean */
    const struct tri_config_moe *moe = &b->config->moe;
    int64_t visits = moe->router->picks ? moe->top_k : tri_config_visits(moe);
    if (spec.place != TRI_PLACE_EXPERT || spec.expert < visits) {
        params->active += row->shape[0] * row->shape[1];
    }
}

/* The low-rank pairs of the weights in `base`, rows of the same input, if their place is a target:
 * all A, then all B. An A is cut by columns and a B by rows as their weight is; where the other one
 * is whole on every tensor rank, each has a partial sum of its gradient. */
static void add_pairs(struct builder *b, int count, const struct spec *base, enum tri_role first_a,
                      enum tri_role first_b)
{
    int64_t rank = b->config->train.lora.rank;
    enum tri_lora_target target = tri_role_target(base->role, base->place);
    if (rank == 0 || !tri_config_lora_targets(b->config, target)) {
        return;
    }
    for (int half = 0; half < 2; half++) {
        for (int i = 0; i < count; i++) {
            struct spec row = base[i];
            bool by_columns = row.cut == CUT_Q_COLUMNS || row.cut == CUT_COLUMNS;
            bool whole_expert = row.place == TRI_PLACE_EXPERT && experts_are_whole(b);
            row.role = (half ? first_b : first_a) + (enum tri_role)i;
            row.init = half ? TRI_INIT_ZERO : TRI_INIT_UNIFORM;
            row.init_std = 1.0 / sqrt((double)row.columns);
            row.rows = half ? row.rows : rank;
            row.columns = half ? rank : row.columns;
            if (by_columns == (half == 1)) {
                row.cut = CUT_NONE;
                int axes = row.place == TRI_PLACE_EXPERT ? TRI_ON_GRID : TRI_ON_TENSOR;
                row.sum_axes = whole_expert ? 0 : axes;
            }
            add(b, row);
        }
    }
}

/* Of what works on the tokens of the stream. */
static int stream_axes(const struct builder *b)
{
    return TRI_ON_CROSS | (tri_stream_is_cut(b->config, b->mesh) ? TRI_ON_TENSOR : 0);
}

static void add_norm(struct builder *b, enum tri_role role, int64_t layer)
{
    int64_t width = b->config->model.hidden_size;
    add(b, (struct spec){.role = role,
                         .layer = layer,
                         .expert = -1,
                         .rows = width,
                         .init = TRI_INIT_ONE,
                         .sum_axes = stream_axes(b)});
    if (b->config->model.norm == TRI_NORM_LAYER) {
        add(b, (struct spec){.role = role + 1,
                             .layer = layer,
                             .expert = -1,
                             .rows = width,
                             .init = TRI_INIT_ZERO,
                             .sum_axes = stream_axes(b)});
    }
}

static void add_attention(struct builder *b, int64_t layer)
{
    const struct tri_config_model *model = &b->config->model;
    int64_t q = model->num_heads * model->head_dim;
    int64_t kv = model->num_kv_heads * model->head_dim;
    int64_t width = model->hidden_size;
    double std = model->init_std;
    struct spec row = {
        .layer = layer, .expert = -1, .columns = width, .init = TRI_INIT_NORMAL, .init_std = std};
    struct spec rows[3] = {row, row, row};
    for (int i = 0; i < 3; i++) {
        rows[i].role = (enum tri_role)(TRI_ROLE_Q + i);
        rows[i].rows = i ? kv : q;
        rows[i].cut = i ? CUT_KV : CUT_Q;
        add(b, rows[i]);
    }
    if (model->bias != TRI_BIAS_NONE) {
        for (int i = 0; i < 3; i++) {
            struct spec bias = rows[i];
            bias.role = (enum tri_role)(TRI_ROLE_Q_BIAS + i);
            bias.columns = 0;
            bias.init = TRI_INIT_ZERO;
            add(b, bias);
        }
    }
    if (model->qk_norm != TRI_QK_NORM_NONE) {
        bool full = model->qk_norm == TRI_QK_NORM_FULL;
        struct spec norm = {.layer = layer, .expert = -1, .init = TRI_INIT_ONE};
        for (int i = 0; i < 2; i++) {
            norm.role = (enum tri_role)(TRI_ROLE_Q_NORM + i);
            norm.rows = full ? rows[i].rows : model->head_dim;
            norm.cut = full ? rows[i].cut : CUT_NONE;
            norm.sum_axes = full ? 0 : TRI_ON_TENSOR;
            add(b, norm);
        }
    }
    add_pairs(b, 3, rows, TRI_ROLE_Q_A, TRI_ROLE_Q_B);
    const struct spec o = {.role = TRI_ROLE_O,
                           .layer = layer,
                           .expert = -1,
                           .rows = width,
                           .columns = q,
                           .cut = CUT_Q_COLUMNS,
                           .init = TRI_INIT_NORMAL,
                           .init_std = b->residual_std};
    add(b, o);
    if (model->bias == TRI_BIAS_ALL) {
        add(b, (struct spec){.role = TRI_ROLE_O_BIAS,
                             .layer = layer,
                             .expert = -1,
                             .rows = width,
                             .init = TRI_INIT_ZERO,
                             .sum_axes = TRI_ON_CROSS});
    }
    add_pairs(b, 1, &o, TRI_ROLE_O_A, TRI_ROLE_O_B);
}

/* A two- or three-matrix network: dense MLP, expert, shared expert. */
static void add_network(struct builder *b, enum tri_place place, int64_t layer, int64_t expert,
                        int64_t inner)
{
    const struct tri_config_model *model = &b->config->model;
    int64_t width = model->hidden_size;
    bool gated = model->mlp == TRI_MLP_SWIGLU;
    bool biased = model->bias == TRI_BIAS_ALL;
    struct spec in = {.place = place,
                      .layer = layer,
                      .expert = expert,
                      .rows = inner,
                      .columns = width,
                      .cut = CUT_ROWS,
                      .init = TRI_INIT_NORMAL,
                      .init_std = model->init_std};
    for (int pass = 0; pass < (biased ? 2 : 1); pass++) {
        if (pass) {
            in.columns = 0;
            in.init = TRI_INIT_ZERO;
        }
        if (gated) {
            in.role = pass ? TRI_ROLE_GATE_BIAS : TRI_ROLE_GATE;
            add(b, in);
        }
        in.role = pass ? TRI_ROLE_UP_BIAS : TRI_ROLE_UP;
        add(b, in);
    }
    in.columns = width;
    const struct spec up[2] = {in, in};
    int first = gated ? 0 : 1;
    add_pairs(b, 2 - first, up + first, gated ? TRI_ROLE_GATE_A : TRI_ROLE_UP_A,
              gated ? TRI_ROLE_GATE_B : TRI_ROLE_UP_B);
    const struct spec down = {.role = TRI_ROLE_DOWN,
                              .place = place,
                              .layer = layer,
                              .expert = expert,
                              .rows = width,
                              .columns = inner,
                              .cut = CUT_COLUMNS,
                              .init = TRI_INIT_NORMAL,
                              .init_std = b->residual_std};
    add(b, down);
    if (biased) {
        add(b, (struct spec){.role = TRI_ROLE_DOWN_BIAS,
                             .place = place,
                             .layer = layer,
                             .expert = expert,
                             .rows = width,
                             .init = TRI_INIT_ZERO,
                             .sum_axes = place == TRI_PLACE_EXPERT ? 0 : TRI_ON_CROSS});
    }
    add_pairs(b, 1, &down, TRI_ROLE_DOWN_A, TRI_ROLE_DOWN_B);
}

static void add_moe(struct builder *b, int64_t layer)
{
    const struct tri_config_moe *moe = &b->config->moe;
    int64_t width = b->config->model.hidden_size;
    double std = b->config->model.init_std;
    bool split = tri_moe_splits_tokens(b->config, b->mesh);
    add(b, (struct spec){.role = TRI_ROLE_ROUTER,
                         .layer = layer,
                         .expert = -1,
                         .rows = moe->num_experts,
                         .columns = width,
                         .init = TRI_INIT_NORMAL,
                         .init_std = std,
                         .full_precision = true,
                         .sum_axes = split ? TRI_ON_GRID : 0});
    if (moe->shared_intermediate_size) {
        add_network(b, TRI_PLACE_SHARED, layer, -1, moe->shared_intermediate_size);
        if (moe->shared_gate) {
            add(b, (struct spec){.role = TRI_ROLE_SHARED_GATE,
                                 .layer = layer,
                                 .expert = -1,
                                 .rows = 1,
                                 .columns = width,
                                 .init = TRI_INIT_NORMAL,
                                 .init_std = std,
                                 .full_precision = true,
                                 .sum_axes = stream_axes(b)});
        }
    }
    b->params->first_expert[layer] = b->params->count;
    for (int64_t expert = 0; expert < moe->num_experts; expert++) {
        add_network(b, TRI_PLACE_EXPERT, layer, expert, moe->intermediate_size);
    }
    b->params->expert_rows =
        (b->params->count - b->params->first_expert[layer]) / (int)moe->num_experts;
}

static void add_model(struct builder *b)
{
    const struct tri_config_model *model = &b->config->model;
    double std = model->init_std;
    b->block = -1;
    add(b, (struct spec){.role = TRI_ROLE_EMBEDDING,
                         .layer = -1,
                         .expert = -1,
                         .rows = model->vocab_size,
                         .columns = model->hidden_size,
                         .cut = CUT_VOCAB,
                         .init = TRI_INIT_NORMAL,
                         .init_std = std});
    if (model->position == TRI_POSITION_LEARNED) {
        add(b, (struct spec){.role = TRI_ROLE_POSITION,
                             .layer = -1,
                             .expert = -1,
                             .rows = model->max_position,
                             .columns = model->hidden_size,
                             .init = TRI_INIT_NORMAL,
                             .init_std = std,
                             .sum_axes = TRI_ON_CROSS});
    }
    for (int64_t layer = 0; layer < model->num_layers; layer++) {
        b->block = layer;
        b->params->first_of_layer[layer] = b->params->count;
        add_norm(b, TRI_ROLE_NORM1, layer);
        add_attention(b, layer);
        add_norm(b, TRI_ROLE_NORM2, layer);
        if (tri_config_layer_is_moe(b->config, layer)) {
            add_moe(b, layer);
        } else {
            add_network(b, TRI_PLACE_DENSE, layer, -1, model->intermediate_size);
            b->params->first_expert[layer] = b->params->count;
        }
    }
    b->block = model->num_layers;
    b->params->first_of_layer[model->num_layers] = b->params->count;
    add_norm(b, TRI_ROLE_FINAL_NORM, -1);
    if (!model->tie_embeddings) {
        add(b, (struct spec){.role = TRI_ROLE_HEAD,
                             .layer = -1,
                             .expert = -1,
                             .rows = model->vocab_size,
                             .columns = model->hidden_size,
                             .cut = CUT_VOCAB,
                             .init = TRI_INIT_NORMAL,
                             .init_std = std});
    }
}

/* Below 2^11 divided by the terms of any gradient's sum: a token's row of the embedding, a part of
 * a row's tokens elsewhere, times its heads for their norms. */
static float fixed_limit(const struct tri_config *config)
{
    int64_t row = 2 * config->data.sequence_length + config->model.num_heads +
                  tri_config_reproducible_parts(config);
    float limit = 2048.0F;
    for (int64_t terms = 1; terms < config->train.global_batch * row; terms *= 2) {
        limit /= 2.0F;
    }
    return limit;
}

static void describe_buffers(const struct builder *b)
{
    for (int i = 0; i < TRI_BUFFERS; i++) {
        struct tri_buffer *buffer = &b->params->buffer[i];
        bool narrow = i % 2 && b->config->train.gradient_dtype == TRI_PRECISION_BF16;
        bool expert = i % 4 >= 2;
        buffer->trained = i < 4;
        buffer->replicas = expert ? TRI_EXPERT : TRI_NONEXPERT;
        buffer->dtype = i % 2 ? TRI_BF16 : TRI_F32;
        buffer->gradient_dtype = b->config->reproducible ? TRI_I64 : narrow ? TRI_BF16 : TRI_F32;
        buffer->group = expert ? tri_mesh_group(b->mesh, TRI_ON_DATA)
                               : tri_mesh_group(b->mesh, TRI_ON_EXPERT | TRI_ON_DATA);
        bool used = buffer->trained || b->config->train.freeze[0] || b->config->train.lora.rank;
        size_t segments = used ? (size_t)(b->params->layers + 2) : 0;
        buffer->segment = tri_alloc(TRI_MEMORY_OTHER, segments * sizeof(*buffer->segment));
    }
}

/* Cuts each segment over the replicas. */
static void shard_buffer(struct tri_buffer *buffer)
{
    int ranks = tri_group_size(buffer->group);
    size_t counts = (size_t)buffer->segments * (size_t)ranks;
    buffer->counts = tri_alloc(TRI_MEMORY_OTHER, counts * sizeof(*buffer->counts));
    for (int s = 0; s < buffer->segments; s++) {
        struct tri_segment *segment = &buffer->segment[s];
        int64_t n = tri_range_size(segment->whole);
        struct tri_range own = tri_range_part(n, ranks, tri_group_rank(buffer->group));
        segment->own =
            (struct tri_range){segment->whole.begin + own.begin, segment->whole.begin + own.end};
        segment->place = buffer->shard;
        buffer->shard += tri_range_size(own);
        segment->counts = buffer->counts + (size_t)s * (size_t)ranks;
        for (int r = 0; r < ranks; r++) {
            segment->counts[r] = tri_range_size(tri_range_part(n, ranks, r));
        }
    }
}

struct tri_params *tri_params_create(const struct tri_config *config, const struct tri_mesh *mesh)
{
    struct tri_params *params = tri_alloc(TRI_MEMORY_OTHER, sizeof(*params));
    int64_t layers = config->model.num_layers;
    int64_t networks = config->moe.num_experts + 2;
    struct builder b = {.config = config, .params = params, .mesh = mesh};
    int64_t pairs = config->train.lora.rank > 0;
    b.capacity = (int)(layers * (networks * (6 + 6 * pairs) + 20 + 8 * pairs) + 8);
    b.residual_std = config->model.init_std / sqrt(2.0 * (double)layers);
    params->mesh = mesh;
    params->layers = layers;
    params->first_of_layer = tri_alloc(TRI_MEMORY_OTHER, (size_t)(layers + 1) * sizeof(int));
    params->first_expert = tri_alloc(TRI_MEMORY_OTHER, (size_t)layers * sizeof(int));
    params->param = tri_alloc(TRI_MEMORY_OTHER, (size_t)b.capacity * sizeof(*params->param));
    describe_buffers(&b);
    add_model(&b);
    for (int i = 0; i < TRI_BUFFERS; i++) {
        shard_buffer(&params->buffer[i]);
    }
    params->state = tri_alloc(TRI_MEMORY_OTHER, (size_t)params->count * sizeof(*params->state));
    params->fixed.limit = fixed_limit(config);
    return params;
}

/* Where in the table a row of this layer and expert can be. */
static struct tri_range rows_of(const struct tri_params *params, int64_t layer, int64_t expert)
{
    int64_t first = params->first_expert[layer];
    if (expert < 0) {
        return (struct tri_range){params->first_of_layer[layer], first};
    }
    int64_t begin = first + expert * params->expert_rows;
    return tri_range_intersect((struct tri_range){begin, begin + params->expert_rows},
                               (struct tri_range){first, params->first_of_layer[layer + 1]});
}

struct tri_param *tri_params_find(const struct tri_params *params, enum tri_role role,
                                  enum tri_place place, int64_t layer, int64_t expert)
{
    struct tri_range rows = {0, params->count};
    if (layer >= 0) {
        rows = rows_of(params, layer, expert);
    }
    for (int64_t i = rows.begin; i < rows.end; i++) {
        struct tri_param *row = &params->param[i];
        if (row->role == role && row->place == place && row->layer == layer &&
            row->expert == expert) {
            return row;
        }
        if (layer < 0 && i + 1 == params->first_of_layer[0]) {
            i = params->first_of_layer[params->layers] - 1;
        }
    }
    return NULL;
}

struct tri_param *tri_params_by_name(const struct tri_params *params, const char *name)
{
    for (int i = 0; i < params->count; i++) {
        if (strcmp(params->param[i].name, name) == 0) {
            return &params->param[i];
        }
    }
    return NULL;
}
