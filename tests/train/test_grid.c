/* What a tensor grid sends (AxoNN, arXiv 2305.13525), byte for byte and call for call: of every way
 * to write 8 and 16 ranks as (x y z) x expert x data, what is planned for a rank is what the closed
 * formulas say. A matrix of r rows and c columns has r c / (x y) elements on the ranks that cut it,
 * r c / (x y z) in the memory of each; a rank's tokens n are those of its part of the rows, n / y
 * those of its stream; h is the hidden size.
 *
 *   weights     all-gather over z      r c / (x y z) from each rank, forward and backward
 *   gradients   reduce-scatter over z  r c / (x y)
 *   outputs     all-reduce over x      n h / y, one each way of a sublayer
 *   inner sums  all-reduce over y      n times what tensor cuts of the row, one for each product
 *   rows        all-to-all over y      n h (y - 1) / y^2, into a sublayer and out of it
 *   replicas    ZeRO-1 of r c / (x y z)
 *
 * Rings of z ranks pass (z - 1) r c / (x y z) for each of the first two and rings of x ranks
 * 2 (x - 1) / x n h / y for the third, as the paper's model of time has it; the all-to-alls are
 * ours: norms and routers take whole tokens. */
#include "support/small.h"

#include "base/memory.h"
#include "shard/rows.h"
#include "train/rehearsal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

struct books {
    const struct tri_config *config;
    struct tri_layout layout;
    int x, y, z, at_x, at_y, at_z; /* the grid and this rank's place in it */
    int replicas, replica;
    int64_t w, g;             /* bytes of a weight and of its gradient */
    struct tri_ledger ledger; /* what is expected */
};

/* How tensor cuts a matrix or a vector. */
enum cut { WHOLE, ROWS, COLUMNS };

/* Whose tokens a vector's gradient is a sum over. */
enum of { PART, STREAM };

/* A weight that is no expert's. When its matrix is gathered besides a forward and a backward. */
struct weight {
    int64_t rows, columns; /* columns 0: a vector */
    enum cut cut;
    enum { TWICE, ENDS, AGAIN, AGAIN_WHOLE } gathered;
    enum of of;
};

static void book(struct books *b, enum tri_op op, int axes, enum tri_phase phase,
                 enum tri_kind kind, int64_t bytes)
{
    tri_ledger_book(&b->ledger, op, tri_group_id(axes), phase, kind, bytes, 0.0, 0.0);
}

static int64_t part(int64_t n, int parts, int index)
{
    return n * (index + 1) / parts - n * index / parts;
}

static void over(struct books *b, int axes, int ranks, enum tri_phase phase, enum tri_kind kind,
                 int64_t bytes)
{
    if (ranks > 1) {
        book(b, TRI_OP_ALL_REDUCE, axes, phase, kind, bytes);
    }
}

/* A matrix is opened by every micro-step; returns its elements in this rank's memory. */
static int64_t book_matrix(struct books *b, const struct weight *weight, int64_t micro_steps)
{
    int64_t rows = weight->rows, columns = weight->columns;
    if (weight->cut == ROWS) {
        rows = part(rows, b->x, b->at_x);
        columns /= b->y;
    } else if (weight->cut == COLUMNS) {
        rows /= b->y;
        columns = part(columns, b->x, b->at_x);
    }
    int64_t own = part(rows, b->z, b->at_z) * columns;
    bool again = b->config->train.recompute != 0 && b->y == 1 &&
                 (weight->gathered == AGAIN || (weight->gathered == AGAIN_WHOLE && b->x == 1));
    for (int64_t i = 0; i < micro_steps && b->z > 1; i++) {
        book(b, TRI_OP_ALL_GATHER, TRI_ON_DEPTH, TRI_PHASE_FORWARD, TRI_KIND_WEIGHTS, own * b->w);
        if (weight->gathered != ENDS) {
            book(b, TRI_OP_ALL_GATHER, TRI_ON_DEPTH, TRI_PHASE_BACKWARD, TRI_KIND_WEIGHTS,
                 own * b->w);
        }
        if (again) {
            book(b, TRI_OP_ALL_GATHER, TRI_ON_DEPTH, TRI_PHASE_RECOMPUTE, TRI_KIND_WEIGHTS,
                 own * b->w);
        }
        book(b, TRI_OP_REDUCE_SCATTER, TRI_ON_DEPTH, TRI_PHASE_BACKWARD, TRI_KIND_GRADIENT,
             rows * columns * b->g);
    }
    if (weight->of == STREAM) {
        over(b, TRI_ON_CROSS, b->y, TRI_PHASE_OPTIMIZER, TRI_KIND_GRADIENT, own * b->g);
    }
    return own;
}

/* Vectors are f32 and whole over y and z; returns the elements here. */
static int64_t book_vector(struct books *b, const struct weight *weight)
{
    int64_t rows = weight->cut == ROWS ? part(weight->rows, b->x, b->at_x) : weight->rows;
    if (weight->of == STREAM) {
        over(b, TRI_ON_CROSS, b->y, TRI_PHASE_OPTIMIZER, TRI_KIND_GRADIENT, rows * 4);
    }
    over(b, TRI_ON_DEPTH, b->z, TRI_PHASE_OPTIMIZER, TRI_KIND_GRADIENT, rows * 4);
    return rows;
}

static void book_replicas(struct books *b, int64_t count, int64_t weight, int64_t gradient)
{
    if (b->replicas > 1 && count > 0) {
        book(b, TRI_OP_REDUCE_SCATTER, TRI_ON_EXPERT | TRI_ON_DATA, TRI_PHASE_OPTIMIZER,
             TRI_KIND_GRADIENT, count * gradient);
        book(b, TRI_OP_ALL_GATHER, TRI_ON_EXPERT | TRI_ON_DATA, TRI_PHASE_OPTIMIZER,
             TRI_KIND_WEIGHTS, part(count, b->replicas, b->replica) * weight);
    }
}

/* The weights of a block; more: f32 elements besides. */
static void book_block(struct books *b, const struct weight *weights, int count, int64_t more,
                       int64_t micro_steps)
{
    int64_t matrices = 0, vectors = more;
    for (int i = 0; i < count; i++) {
        if (weights[i].columns) {
            matrices += book_matrix(b, &weights[i], micro_steps);
        } else {
            vectors += book_vector(b, &weights[i]);
        }
    }
    bool apart = b->w == 2;
    book_replicas(b, apart ? matrices : matrices + vectors, b->w, b->g);
    book_replicas(b, apart ? vectors : 0, 4, 4);
}

enum { WEIGHTS_MOST = 24 };

static void book_weights(struct books *b, int64_t micro_steps)
{
    const struct tri_config_model *m = &b->config->model;
    bool gpt = m->norm == TRI_NORM_LAYER;
    int64_t hidden = m->hidden_size, inner = m->num_heads * m->head_dim;
    struct weight table = {m->vocab_size, hidden, ROWS, ENDS, PART};
    struct weight head[3] = {
        {hidden, 0, WHOLE, TWICE, STREAM}, {hidden, 0, WHOLE, TWICE, STREAM}, table};
    struct weight ends[2] = {table, {m->max_position, hidden, WHOLE, ENDS, STREAM}};
    book_block(b, ends, gpt ? 2 : 1, 0, micro_steps);
    if (gpt) {
        book_block(b, head, 2, 0, micro_steps);
        (void)book_matrix(b, &table, micro_steps); /* the table, opened as the head */
    } else {
        book_block(b, head + 1, 2, 0, micro_steps);
    }
    for (int64_t layer = 0; layer < m->num_layers; layer++) {
        bool moe = tri_config_layer_is_moe(b->config, layer);
        int64_t shared = b->config->moe.shared_intermediate_size;
        int64_t wide = moe ? shared : m->intermediate_size;
        struct weight w[WEIGHTS_MOST];
        int n = 0;
        for (int i = 0; i < (gpt ? 4 : 2); i++) {
            w[n++] = (struct weight){hidden, 0, WHOLE, TWICE, STREAM};
        }
        for (int i = 0; i < 3; i++) {
            w[n++] = (struct weight){inner, hidden, ROWS, AGAIN, PART};
        }
        w[n++] = (struct weight){hidden, inner, COLUMNS, AGAIN_WHOLE, PART};
        for (int i = 0; i < 3 && gpt; i++) {
            w[n++] = (struct weight){inner, 0, ROWS, TWICE, PART};
        }
        if (gpt) {
            w[n++] = (struct weight){hidden, 0, WHOLE, TWICE, STREAM};
        }
        for (int i = gpt ? 1 : 0; i < 2 && wide > 0; i++) {
            w[n++] = (struct weight){wide, hidden, ROWS, AGAIN, PART};
        }
        if (wide > 0) {
            w[n++] = (struct weight){hidden, wide, COLUMNS, moe ? AGAIN_WHOLE : TWICE, PART};
        }
        if (wide > 0 && gpt) {
            w[n++] = (struct weight){wide, 0, ROWS, TWICE, PART};
            w[n++] = (struct weight){hidden, 0, WHOLE, TWICE, STREAM};
        }
        if (moe && b->config->moe.shared_gate) {
            w[n++] = (struct weight){hidden, 0, WHOLE, TWICE, STREAM};
        }
        int64_t router = moe ? b->config->moe.num_experts * hidden : 0;
        assert_true(n <= WEIGHTS_MOST);
        book_block(b, w, n, router, micro_steps);
        bool split = b->y * b->z > 1 || (b->x > 1 && b->layout.expert > 1);
        if (moe && split) {
            int axes = b->y * b->z > 1 ? TRI_ON_GRID : TRI_ON_TENSOR;
            book(b, TRI_OP_ALL_REDUCE, axes, TRI_PHASE_OPTIMIZER, TRI_KIND_GRADIENT, router * 4);
        }
    }
}

/* From streams to parts of the hidden size, and back; and the sum over x that comes before. */
static void into(struct books *b, enum tri_phase phase, enum tri_kind kind, int64_t n)
{
    int64_t own = part(n, b->y, b->at_y);
    if (b->y > 1) {
        book(b, TRI_OP_ALL_TO_ALL, TRI_ON_CROSS, phase, kind,
             own * (b->y - 1) * (b->config->model.hidden_size / b->y) * b->w);
    }
}

static void out_of(struct books *b, enum tri_phase phase, enum tri_kind kind, int64_t n)
{
    int64_t row = b->config->model.hidden_size / b->y * b->w;
    over(b, TRI_ON_TENSOR, b->x, phase, kind, n * row);
    if (b->y > 1) {
        book(b, TRI_OP_ALL_TO_ALL, TRI_ON_CROSS, phase, kind, (n - part(n, b->y, b->at_y)) * row);
    }
}

/* first and second: what tensor leaves of a row between the two products, as the first makes it and
 * as the second takes it. */
static void sublayer(struct books *b, enum tri_kind kind, int64_t n, int64_t first, int64_t second)
{
    into(b, TRI_PHASE_FORWARD, kind, n);
    over(b, TRI_ON_CROSS, b->y, TRI_PHASE_FORWARD, kind, n * first * b->w);
    out_of(b, TRI_PHASE_FORWARD, kind, n);
    into(b, TRI_PHASE_BACKWARD, kind, n);
    over(b, TRI_ON_CROSS, b->y, TRI_PHASE_BACKWARD, kind, n * second * b->w);
    out_of(b, TRI_PHASE_BACKWARD, kind, n);
}

/* n: tokens of the rank's part of the rows. */
static void book_sums(struct books *b, int64_t n)
{
    const struct tri_config *config = b->config;
    const struct tri_config_model *m = &config->model;
    out_of(b, TRI_PHASE_FORWARD, TRI_KIND_EMBEDDING, n);
    into(b, TRI_PHASE_BACKWARD, TRI_KIND_EMBEDDING, n);
    into(b, TRI_PHASE_FORWARD, TRI_KIND_HEAD, n);
    out_of(b, TRI_PHASE_BACKWARD, TRI_KIND_HEAD, n);
    if (n > 0) {
        over(b, TRI_ON_CROSS, b->y, TRI_PHASE_FORWARD, TRI_KIND_HEAD,
             n * part(m->vocab_size, b->x, b->at_x) * 4);
        over(b, TRI_ON_TENSOR, b->x, TRI_PHASE_FORWARD, TRI_KIND_HEAD, n * 4);
        over(b, TRI_ON_TENSOR, b->x, TRI_PHASE_FORWARD, TRI_KIND_HEAD, 2 * n * 4);
    }
    for (int64_t layer = 0; layer < m->num_layers; layer++) {
        bool moe = tri_config_layer_is_moe(config, layer);
        int64_t heads = m->num_heads / b->x * m->head_dim;
        int64_t wide = moe ? config->moe.shared_intermediate_size : m->intermediate_size;
        int64_t own = part(wide, b->x, b->at_x);
        sublayer(b, TRI_KIND_ATTENTION, n, 3 * heads, heads);
        if (wide > 0) {
            sublayer(b, moe ? TRI_KIND_SHARED_EXPERT : TRI_KIND_MLP, n,
                     m->mlp == TRI_MLP_SWIGLU ? 2 * own : own, own);
        }
    }
}

static void compare(const struct books *b, const struct tri_ledger *planned, const char *words)
{
    static const int groups[] = {TRI_ON_DEPTH, TRI_ON_CROSS, TRI_ON_GRID, TRI_ON_TENSOR,
                                 TRI_ON_EXPERT | TRI_ON_DATA};
    for (size_t i = 0; i < sizeof(groups) / sizeof(*groups) * TRI_OP_COUNT * TRI_PHASE_COUNT; i++) {
        int group = tri_group_id(groups[i / (TRI_OP_COUNT * TRI_PHASE_COUNT)]);
        size_t op = i / TRI_PHASE_COUNT % TRI_OP_COUNT, phase = i % TRI_PHASE_COUNT;
        for (int kind = 0; kind < TRI_KIND_META; kind++) {
            struct tri_ledger_cell got = planned->cell[op][group][phase][kind];
            struct tri_ledger_cell want = b->ledger.cell[op][group][phase][kind];
            if (kind != TRI_KIND_MOE && (got.calls != want.calls || got.bytes != want.bytes)) {
                tri_panic(
                    TRI_FAILED,
                    "[%d, %d, %d] x %d x %d, %s: %s over %s, %s, %s: %lld calls of %lld bytes, "
                    "expected %lld of %lld",
                    b->x, b->y, b->z, b->layout.expert, b->layout.data, words,
                    tri_op_name((enum tri_op)op), tri_groups[group].name,
                    tri_phase_name((enum tri_phase)phase), tri_kind_name((enum tri_kind)kind),
                    (long long)got.calls, (long long)got.bytes, (long long)want.calls,
                    (long long)want.bytes);
            }
        }
    }
}

static void check(enum small_style style, const char *words, struct tri_layout layout, int rank)
{
    struct tri_config config;
    struct tri_error error;
    struct tri_memory_plan plan;
    struct tri_ledger *planned = tri_alloc(TRI_MEMORY_OTHER, sizeof(*planned));
    struct books *b = tri_alloc(TRI_MEMORY_OTHER, sizeof(*b));
    small_config(style, words, &config);
    config.parallel = tri_layout_parallel(layout);
    assert_int_equal(
        tri_config_check_layout(&config, layout.tensor * layout.expert * layout.data, &error),
        TRI_OK);
    bool narrow = config.precision == TRI_PRECISION_BF16;
    int x = layout.tensor / layout.cross / layout.depth;
    *b = (struct books){.config = &config,
                        .layout = layout,
                        .x = x,
                        .y = layout.cross,
                        .z = layout.depth,
                        .at_x = rank % x,
                        .at_y = rank / x % layout.cross,
                        .at_z = rank / x / layout.cross % layout.depth,
                        .replicas = layout.expert * layout.data,
                        .replica = rank / layout.tensor,
                        .w = narrow ? 2 : 4,
                        .g = narrow && config.train.gradient_dtype == TRI_PRECISION_BF16 ? 2 : 4};
    int64_t batch = config.train.global_batch, micro = config.train.micro_batch;
    int64_t micro_steps = tri_rows_micro_steps(batch, b->replicas, micro);
    book_weights(b, micro_steps);
    for (int64_t i = 0; i < micro_steps; i++) {
        int64_t rows = tri_range_size(tri_rows_micro(batch, b->replicas, b->replica, micro, i));
        book_sums(b, part(rows, b->z, b->at_z) * config.data.sequence_length);
    }
    assert_int_equal(
        tri_rehearse_layout(&config, layout, rank, TRI_LOAD_BALANCED, planned, &plan, &error),
        TRI_OK);
    compare(b, planned, words);
    tri_free(b);
    tri_free(planned);
}

static const char *const options[] = {
    "",
    "precision=bf16",
    "train.recompute=full precision=bf16 train.gradient_dtype=bf16",
    "train.recompute=full",
};

static void test_factorisations(void **state)
{
    (void)state;
    static const char shape[] = "model.num_heads=16 model.num_kv_heads=16 model.head_dim=16 "
                                "model.max_position=32 moe.router=balanced train.global_batch=13 "
                                "train.micro_batch=3";
    int cases = 0;
    for (int ranks = 8; ranks <= 16; ranks *= 2) {
        for (int tensor = 2; tensor <= ranks; tensor *= 2) {
            for (int rest = 1; rest <= tensor; rest *= 2) {
                for (int cross = 1; cross <= rest; cross *= 2) {
                    for (int expert = 1; expert <= ranks / tensor && expert <= 8; expert *= 2) {
                        struct tri_layout layout = {.tensor = tensor,
                                                    .expert = expert,
                                                    .data = ranks / (tensor * expert),
                                                    .expert_tensor = tensor,
                                                    .depth = rest / cross,
                                                    .cross = cross};
                        char words[512];
                        (void)snprintf(words, sizeof(words), "%s %s", shape, options[cases % 4]);
                        check(cases % 8 < 4 ? SMALL_GPT : SMALL_LLAMA, words, layout,
                              (7 * cases + 3) % ranks);
                        cases++;
                    }
                }
            }
        }
    }
    assert_true(cases > 80);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_factorisations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
