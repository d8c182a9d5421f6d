/* Opening weights and gradients: what is handed out, which write is a step's first, what may be
 * open when; plain, and under a residency that moves (support/moving.h). */
#include "base/memory.h"
#include "checkpoint/checkpoint.h"
#include "support/moving.h"
#include "support/small.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

struct subject {
    struct tri_config config;
    struct tri_mesh *mesh;
    struct tri_engine *engine;
    struct tri_params *params;
    const struct tri_kernels *kernels;
};

static void begin(struct subject *s, bool moves, enum small_style style, const char *words)
{
    moving_least = moves ? 1 : 2;
    small_config(style, words, &s->config);
    s->mesh = tri_mesh_create_serial();
    s->kernels = small_kernels(&s->config);
    s->engine = tri_engine_create(&s->config, s->mesh, s->kernels, true);
    s->params = s->engine->params;
}

static void end(struct subject *s)
{
    assert_int_equal(s->params->open, 0);
    tri_engine_destroy(s->engine);
    tri_mesh_destroy(s->mesh);
    assert_int_equal(moving_counts().open, 0);
}

static struct tri_span span_of(const struct subject *s, enum tri_role role, int rows)
{
    return tri_span_make(s->params, tri_params_find(s->params, role, TRI_PLACE_DENSE, 0, -1), rows);
}

static struct tri_span expert_of(const struct subject *s, int64_t expert)
{
    return tri_span_find(s->params, TRI_ROLE_DOWN, TRI_PLACE_EXPERT, 0, expert);
}

static void test_plain_lies_in_its_buffer(void **state)
{
    (void)state;
    struct subject s;
    begin(&s, false, SMALL_LLAMA, "");
    const struct tri_span qkv = span_of(&s, TRI_ROLE_Q, 3);
    const struct tri_span none = span_of(&s, TRI_ROLE_Q_BIAS, 3);
    assert_int_equal(qkv.count, qkv.row[0].count + qkv.row[1].count + qkv.row[2].count);
    assert_int_equal(none.rows, 0);
    const void *first = tri_weights_open(s.params, qkv, TRI_USE_FORWARD);
    const void *second = tri_weights_open(s.params, qkv, TRI_USE_BACKWARD);
    assert_ptr_equal(first, tri_param_weights(s.params, qkv.row));
    assert_ptr_equal(second, first);
    assert_null(tri_weights_open(s.params, none, TRI_USE_FORWARD));
    assert_int_equal(s.params->open, 2);
    tri_weights_close(s.params, none, NULL);
    tri_weights_close(s.params, qkv, first);
    tri_weights_close(s.params, qkv, second);
    tri_gradients_begin(s.params, s.kernels);
    bool is_first;
    void *gradients = tri_gradients_open(s.params, qkv, &is_first);
    assert_ptr_equal(gradients, tri_param_gradients(s.params, qkv.row));
    tri_gradients_close(s.params, qkv, gradients);
    end(&s);
}

/* Whether the next write of a span is its first; it sets or adds `value`. */
static bool put(const struct subject *s, struct tri_span span, float value)
{
    bool first;
    float *gradients = tri_gradients_open(s->params, span, &first);
    for (int64_t i = 0; i < span.count; i++) {
        gradients[i] = first ? value : gradients[i] + value;
    }
    tri_gradients_close(s->params, span, gradients);
    return first;
}

static void expect_gradient(const struct subject *s, struct tri_span span, float value)
{
    const float *gradients = tri_param_gradients(s->params, span.row);
    for (int64_t i = 0; i < span.count; i++) {
        assert_true(gradients[i] == value);
    }
}

/* Each row for itself, over the micro-batches of a step, and again in the next one, whether or not
 * there was an update; what nobody wrote is zero. */
static void check_first_writes(bool moves)
{
    struct subject s;
    begin(&s, moves, SMALL_LLAMA, "");
    const struct tri_span qkv = span_of(&s, TRI_ROLE_Q, 3);
    const struct tri_span norm = span_of(&s, TRI_ROLE_NORM1, 1);
    const struct tri_span router = span_of(&s, TRI_ROLE_ROUTER, 1);
    for (int step = 0; step < 3; step++) {
        const float unit = (float)(step + 1);
        tri_gradients_begin(s.params, s.kernels);
        assert_true(put(&s, expert_of(&s, 1), unit));
        assert_true(put(&s, qkv, unit));
        assert_false(put(&s, norm, unit));
        assert_false(put(&s, router, unit));
        assert_false(put(&s, expert_of(&s, 1), 2 * unit));
        assert_true(put(&s, expert_of(&s, 2), 4 * unit));
        assert_false(put(&s, qkv, 8 * unit));
        if (step == 1) {
            continue; /* given up before its gradients are reduced */
        }
        for (int64_t block = s.params->layers; block >= -1; block--) {
            tri_gradients_reduce(s.params, s.kernels, block, false);
        }
        tri_gradients_reduce_end(s.params);
        expect_gradient(&s, expert_of(&s, 0), 0.0F);
        expect_gradient(&s, expert_of(&s, 1), 3 * unit);
        expect_gradient(&s, expert_of(&s, 2), 4 * unit);
        expect_gradient(&s, qkv, 9 * unit);
        expect_gradient(&s, norm, unit);
        expect_gradient(&s, router, unit);
        expect_gradient(&s, span_of(&s, TRI_ROLE_O, 1), 0.0F);
    }
    end(&s);
}

static void test_first_writes(void **state)
{
    (void)state;
    check_first_writes(false);
    check_first_writes(true);
}

/* Fixed-point sums are zeroed, and never set. */
static void test_sums_have_no_first_write(void **state)
{
    (void)state;
    struct subject s;
    begin(&s, false, SMALL_LLAMA, "reproducible=true model.num_kv_heads=8");
    tri_gradients_begin(s.params, s.kernels);
    for (int p = 0; p < s.params->count; p++) {
        const struct tri_span span = tri_span_make(s.params, &s.params->param[p], 1);
        bool first;
        const int64_t *gradients = tri_gradients_open(s.params, span, &first);
        assert_false(first);
        for (int64_t i = 0; i < span.count; i++) {
            assert_int_equal(gradients[i], 0);
        }
        tri_gradients_close(s.params, span, (void *)(uintptr_t)gradients);
    }
    end(&s);
}

/* Opened twice, closed in either order; addresses are never those of before. */
static void test_moving_moves(void **state)
{
    (void)state;
    struct subject s;
    begin(&s, true, SMALL_LLAMA, "");
    const struct tri_span qkv = span_of(&s, TRI_ROLE_Q, 3);
    const void *home = tri_param_weights(s.params, qkv.row);
    size_t bytes = (size_t)qkv.count * sizeof(float);
    const void *before = NULL;
    for (int i = 0; i < 4; i++) {
        const void *at[2] = {tri_weights_open(s.params, qkv, TRI_USE_FORWARD),
                             tri_weights_open(s.params, qkv, TRI_USE_BACKWARD)};
        assert_true(at[0] != home && at[0] != at[1] && at[0] != before && at[1] != before);
        tri_weights_close(s.params, qkv, at[i % 2]);
        assert_memory_equal(at[1 - i % 2], home, bytes);
        tri_weights_close(s.params, qkv, at[1 - i % 2]);
        before = at[0];
    }
    /* Weights that are written are seen. */
    int64_t n = qkv.row->shape[0] * qkv.row->shape[1];
    float *values = tri_alloc(TRI_MEMORY_OTHER, (size_t)n * sizeof(*values));
    tri_param_scatter(s.params, qkv.row, TRI_FIELD_WEIGHT, values);
    const float *weights = tri_weights_open(s.params, qkv, TRI_USE_FORWARD);
    assert_true(weights[0] == 0.0F && weights[n - 1] == 0.0F && weights[n] != 0.0F);
    tri_weights_close(s.params, qkv, weights);
    tri_free(values);
    end(&s);
}

/* ---- weights that come from elsewhere -------------------------------------------------------- */

/* What is opened is what was written, also where the residency keeps a copy. */
static void expect_seen(const struct subject *s)
{
    int kept = 0;
    for (int p = 0; p < s->params->count; p++) {
        const struct tri_param *row = &s->params->param[p];
        const struct tri_span span = tri_span_make(s->params, row, 1);
        if (row->count > 0) {
            const void *weights = tri_weights_open(s->params, span, TRI_USE_FORWARD);
            kept += weights != tri_param_weights(s->params, row);
            assert_memory_equal(weights, tri_param_weights(s->params, row),
                                (size_t)row->count * tri_dtype_size(row->dtype));
            tri_weights_close(s->params, span, weights);
        }
    }
    assert_true(kept > 10);
}

static void test_loaded_is_seen(void **state)
{
    (void)state;
    static const char path[] = TEST_TMP "/param_open";
    struct tri_checkpoint_state saved = {.step = 1, .config = (char[]){""}};
    struct subject from;
    struct subject to;
    struct tri_error error;
    begin(&from, false, SMALL_LLAMA, "seed=5");
    begin(&to, true, SMALL_LLAMA, "seed=6");
    assert_int_equal(tri_checkpoint_write(path, from.params, &saved, true, &error), TRI_OK);
    assert_int_equal(tri_checkpoint_load(path, to.params, NULL, true, &error), TRI_OK);
    for (int b = 0; b < TRI_BUFFERS; b++) {
        const struct tri_buffer *x = &from.params->buffer[b];
        assert_memory_equal(x->weights, to.params->buffer[b].weights,
                            (size_t)x->count * tri_dtype_size(x->dtype));
    }
    expect_seen(&to);
    end(&to);
    end(&from);
}

/* A tensor in two parts, of which the second one ends it. */
static void test_dealt_is_seen(void **state)
{
    (void)state;
    struct subject s;
    begin(&s, true, SMALL_LLAMA, "");
    const struct tri_param *row = span_of(&s, TRI_ROLE_Q, 1).row;
    int64_t n = row->shape[0] * row->shape[1];
    const struct tri_param_part parts[] = {
        {row, TRI_FIELD_WEIGHT, 0, n / 3, {0, row->shape[1]}, 0},
        {row, TRI_FIELD_WEIGHT, n / 3, n - n / 3, {0, row->shape[1]}, 0}};
    struct tri_param_room room = {0};
    float *values = tri_alloc(TRI_MEMORY_OTHER, (size_t)n * sizeof(*values));
    for (int64_t i = 0; i < n; i++) {
        values[i] = (float)i;
    }
    tri_param_deal(s.params, 1, &parts[0], values, &room);
    tri_param_deal(s.params, 1, &parts[1], values + n / 3, &room);
    assert_memory_equal(tri_param_weights(s.params, row), values, (size_t)n * sizeof(*values));
    expect_seen(&s);
    tri_param_room_fini(&room);
    tri_free(values);
    end(&s);
}

/* ---- what must not be ------------------------------------------------------------------------ */

enum misuse { KEPT, PAST_ITS_END, WRITTEN, OPEN_TWICE, NOT_CLOSED, LATE, SET_AS_SUM };

static void misuse(const struct subject *s, enum misuse what)
{
    const struct tri_span o = span_of(s, TRI_ROLE_O, 1);
    const volatile float *weights = tri_weights_open(s->params, o, TRI_USE_FORWARD);
    float sum = 0.0F;
    bool first;
    switch (what) {
    case KEPT:
        tri_weights_close(s->params, o, (const void *)(uintptr_t)weights);
        sum += weights[0];
        break;
    case PAST_ITS_END:
        sum += weights[o.count];
        break;
    case WRITTEN:
        ((volatile float *)(uintptr_t)weights)[0] = 1.0F;
        break;
    case OPEN_TWICE:
        (void)tri_gradients_open(s->params, o, &first);
        (void)tri_gradients_open(s->params, o, &first);
        break;
    case NOT_CLOSED:
        tri_gradients_begin(s->params, s->kernels);
        break;
    case LATE:
        (void)tri_gradients_open(s->params, o, &first);
        tri_gradients_reduce(s->params, s->kernels, 0, false);
        break;
    case SET_AS_SUM:
        (void)tri_gradients_open_sum(s->params, o);
        break;
    }
    _exit(sum > 0.0F ? 1 : 0); /* nothing happened */
}

/* How a process that does it ends: a signal's number, or 128 and its exit status. */
static int end_of(enum misuse what)
{
    struct subject s;
    begin(&s, true, SMALL_LLAMA, "");
    tri_gradients_begin(s.params, s.kernels);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        (void)signal(SIGSEGV, SIG_DFL); /* cmocka's would go on with the next test */
        (void)close(STDERR_FILENO);
        misuse(&s, what);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    end(&s);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 128 + WEXITSTATUS(status);
}

static void test_misuse_ends_the_run(void **state)
{
    (void)state;
    assert_int_equal(end_of(KEPT), SIGSEGV);
    assert_int_equal(end_of(PAST_ITS_END), SIGSEGV);
    assert_int_equal(end_of(WRITTEN), SIGSEGV);
    assert_int_equal(end_of(OPEN_TWICE), 128 + TRI_FAILED);
    assert_int_equal(end_of(NOT_CLOSED), 128 + TRI_FAILED);
    assert_int_equal(end_of(LATE), 128 + TRI_FAILED);
    assert_int_equal(end_of(SET_AS_SUM), 128 + TRI_FAILED);
}

/* ---- whole steps ----------------------------------------------------------------------------- */

enum { STEPS = 3 };

static void train(struct subject *s)
{
    struct tri_rows_source source = small_source(&s->config);
    for (int64_t step = 0; step < STEPS; step++) {
        struct tri_step_report report = small_gradients(s->engine, &source, step, NULL);
        if (step != 1) { /* as a step that is skipped */
            tri_engine_update(s->engine, step + 1, 1e-2, &report);
        }
    }
    tri_params_settle(s->params);
}

/* The same bits as from plain memory; one row of 12 tokens leaves experts without any. */
static void test_moving_changes_no_bit(void **state)
{
    (void)state;
    static const char *const words[] = {
        "",
        "train.global_batch=1 moe.top_k=1 moe.normalize_top_k=false model.bias=all",
        "train.recompute=full precision=bf16 train.gradient_dtype=bf16 comm.overlap=false",
        "reproducible=true train.global_batch=2 train.micro_batch=1",
        "model.qk_norm=full model.num_kv_heads=8 model.tie_embeddings=true moe.every=2",
    };
    for (int i = 0; i < 2 * (int)(sizeof(words) / sizeof(*words)); i++) {
        struct subject plain;
        struct subject moved;
        begin(&plain, false, i % 2 ? SMALL_GPT : SMALL_LLAMA, words[i / 2]);
        train(&plain);
        struct moving_counts before = moving_counts();
        begin(&moved, true, i % 2 ? SMALL_GPT : SMALL_LLAMA, words[i / 2]);
        train(&moved);
        assert_true(moving_counts().weights - before.weights > 20);
        assert_true(moving_counts().gradients - before.gradients > 20);
        for (int b = 0; b < TRI_BUFFERS; b++) {
            const struct tri_buffer *x = &plain.params->buffer[b];
            const struct tri_buffer *y = &moved.params->buffer[b];
            assert_memory_equal(x->weights, y->weights,
                                (size_t)x->count * tri_dtype_size(x->dtype));
            assert_memory_equal(x->m, y->m, (size_t)x->shard * sizeof(float));
        }
        end(&moved);
        end(&plain);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain_lies_in_its_buffer),
        cmocka_unit_test(test_first_writes),
        cmocka_unit_test(test_sums_have_no_first_write),
        cmocka_unit_test(test_moving_moves),
        cmocka_unit_test(test_loaded_is_seen),
        cmocka_unit_test(test_dealt_is_seen),
        cmocka_unit_test(test_misuse_ends_the_run),
        cmocka_unit_test(test_moving_changes_no_bit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
