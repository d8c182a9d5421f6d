/* The parameter table on planned meshes: what all ranks together hold, and in what order. */
#include "base/memory.h"
#include "support/small.h"

#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static const char *const variants[] = {
    "",
    "precision=bf16 model.bias=all",
    "model.num_heads=24 model.head_dim=4 model.num_kv_heads=3 model.qk_norm=full model.bias=qkv",
    "model.qk_norm=head moe.every=2 moe.intermediate_size=5",
    "model.num_kv_heads=1 model.tie_embeddings=true model.position=learned model.norm=layernorm",
};
enum { VARIANTS = sizeof(variants) / sizeof(*variants) };

struct shape {
    int tensor, expert, data, expert_tensor;
};
static const struct shape shapes[] = {
    {1, 1, 1, 1}, {2, 1, 1, 2}, {2, 1, 2, 1}, {1, 4, 2, 1}, {4, 2, 1, 4}, {4, 2, 3, 1},
    {8, 1, 1, 8}, {8, 1, 2, 1}, {2, 4, 5, 2}, {2, 4, 1, 1}, {1, 8, 3, 1}, {1, 1, 7, 1},
};
enum { SHAPES = sizeof(shapes) / sizeof(*shapes) };

static void lay_out(struct tri_config *config, struct shape s)
{
    small_config_lay_out(config, (struct small_layout){s.tensor, s.expert, s.expert_tensor, 1, 1});
}

static int64_t elements(const struct tri_param *param)
{
    return param->shape[0] * param->shape[1];
}

/* marks[i] += 1 for the elements of a row that this rank counts in its shard. */
static void mark_counted(const struct tri_params *params, const struct tri_param *param,
                         uint8_t *marks)
{
    struct tri_range own = tri_param_own(params, param);
    int64_t columns = tri_range_size(param->local[1]);
    for (int64_t at = 0; at < param->count; at++) {
        int64_t row = param->local[0].begin + at / columns;
        int64_t place = param->offset + at;
        bool counted = row >= param->counted.begin && row < param->counted.end;
        if (counted && place >= own.begin && place < own.end) {
            marks[row * param->shape[1] + param->local[1].begin + at % columns]++;
        }
    }
}

static void check_cover(const struct tri_config *config, struct shape s)
{
    int ranks = s.tensor * s.expert * s.data;
    uint8_t **marks = NULL;
    int count = 0;
    for (int rank = 0; rank < ranks; rank++) {
        struct tri_mesh *mesh = tri_mesh_create_view(s.tensor, 1, 1, s.expert, s.data, rank);
        struct tri_params *params = tri_params_create(config, mesh);
        if (!marks) {
            count = params->count;
            marks = tri_alloc(TRI_MEMORY_OTHER, (size_t)count * sizeof(*marks));
            for (int p = 0; p < count; p++) {
                marks[p] = tri_alloc(TRI_MEMORY_OTHER, (size_t)elements(&params->param[p]));
            }
        }
        assert_int_equal(params->count, count);
        for (int p = 0; p < count; p++) {
            mark_counted(params, &params->param[p], marks[p]);
            if (rank == ranks - 1) {
                for (int64_t i = 0; i < elements(&params->param[p]); i++) {
                    if (marks[p][i] != 1) {
                        fail_msg("tensor %d expert %d data %d etp %d: %s, element %lld: %d times",
                                 s.tensor, s.expert, s.data, s.expert_tensor, params->param[p].name,
                                 (long long)i, marks[p][i]);
                    }
                }
            }
        }
        tri_params_destroy(params);
        tri_mesh_destroy(mesh);
    }
    for (int p = 0; p < count; p++) {
        tri_free(marks[p]);
    }
    tri_free(marks);
}

static void test_every_element_counts_once(void **state)
{
    (void)state;
    for (int v = 0; v < VARIANTS; v++) {
        struct tri_config config;
        small_config(SMALL_LLAMA, variants[v], &config);
        for (int i = 0; i < SHAPES; i++) {
            if (config.model.num_heads % shapes[i].tensor == 0) {
                lay_out(&config, shapes[i]);
                check_cover(&config, shapes[i]);
            }
        }
    }
}

static void test_names_are_unique(void **state)
{
    (void)state;
    for (int v = 0; v < VARIANTS; v++) {
        struct tri_config config;
        small_config(SMALL_GPT, variants[v], &config);
        struct tri_mesh *mesh = tri_mesh_create_serial();
        struct tri_params *params = tri_params_create(&config, mesh);
        int64_t total = 0;
        for (int p = 0; p < params->count; p++) {
            const struct tri_param *param = &params->param[p];
            assert_ptr_equal(tri_params_by_name(params, param->name), param);
            assert_ptr_equal(
                tri_params_find(params, param->role, param->place, param->layer, param->expert),
                param);
            assert_true(strlen(param->name) > 0 && strlen(param->name) < TRI_NAME_MAX - 1);
            total += elements(param);
        }
        assert_int_equal(params->total, total);
        assert_true(params->active < params->total);
        assert_null(tri_params_by_name(params, "layers.0.attention.q"));
        assert_null(tri_params_find(params, TRI_ROLE_ROUTER, TRI_PLACE_DENSE, -1, -1));
        tri_params_destroy(params);
        tri_mesh_destroy(mesh);
    }
}

/* Segments follow each other, each cut evenly over the replicas; this rank's pieces are packed. */
static void check_segments(const struct tri_buffer *buffer, int replicas)
{
    int64_t end = 0;
    int64_t shard = 0;
    for (int i = 0; i < buffer->segments; i++) {
        const struct tri_segment *segment = &buffer->segment[i];
        assert_int_equal(segment->whole.begin, end);
        assert_true(i == 0 || segment->block > segment[-1].block);
        assert_ptr_equal(tri_buffer_segment(buffer, segment->block), segment);
        int64_t begin = segment->whole.begin;
        for (int r = 0; r < replicas; r++) {
            if (r == tri_group_rank(buffer->group)) {
                assert_int_equal(segment->own.begin, begin);
                assert_int_equal(segment->own.end, begin + segment->counts[r]);
            }
            assert_true(llabs(segment->counts[r] - segment->counts[0]) <= 1);
            begin += segment->counts[r];
        }
        assert_int_equal(segment->whole.end, begin);
        assert_true(begin > end);
        assert_int_equal(segment->place, shard);
        shard += tri_range_size(segment->own);
        end = begin;
    }
    assert_int_equal(end, buffer->count);
    assert_int_equal(shard, buffer->shard);
}

/* b follows a where both are held. */
static void expect_adjacent(const struct tri_params *params, const struct tri_param *a,
                            enum tri_role role)
{
    const struct tri_param *b = tri_params_find(params, role, a->place, a->layer, a->expert);
    assert_non_null(b);
    assert_int_equal(a->buffer, b->buffer);
    assert_int_equal(a->offset + a->count, b->offset);
}

static void test_buffers_are_tight(void **state)
{
    (void)state;
    for (int v = 0; v < VARIANTS * SHAPES; v++) {
        struct tri_config config;
        struct shape s = shapes[v % SHAPES];
        small_config(SMALL_LLAMA, variants[v / SHAPES], &config);
        if (config.model.num_heads % s.tensor != 0) {
            continue;
        }
        lay_out(&config, s);
        struct tri_mesh *mesh = tri_mesh_create_view(s.tensor, 1, 1, s.expert, s.data,
                                                     s.tensor * s.expert * s.data - 1);
        struct tri_params *params = tri_params_create(&config, mesh);
        int64_t end[TRI_BUFFERS] = {0};
        for (int p = 0; p < params->count; p++) {
            const struct tri_param *param = &params->param[p];
            const struct tri_buffer *buffer = &params->buffer[param->buffer];
            assert_int_equal(param->offset, end[param->buffer]);
            assert_int_equal(param->count,
                             tri_range_size(param->local[0]) * tri_range_size(param->local[1]));
            end[param->buffer] += param->count;
            assert_int_equal(buffer->dtype, param->dtype);
            assert_int_equal(buffer->replicas, param->replicas);
            assert_true(param->held || param->count == 0);
            if (param->role == TRI_ROLE_Q || param->role == TRI_ROLE_Q_BIAS) {
                expect_adjacent(params, param, param->role + 1);
                expect_adjacent(params, param + 1, param->role + 2);
            }
            if (param->role == TRI_ROLE_GATE || param->role == TRI_ROLE_GATE_BIAS) {
                expect_adjacent(params, param, param->role + 1);
            }
        }
        for (int i = 0; i < TRI_BUFFERS; i++) {
            assert_int_equal(params->buffer[i].count, end[i]);
            check_segments(&params->buffer[i], s.data * (i % 4 < 2 ? s.expert : 1));
        }
        tri_params_destroy(params);
        tri_mesh_destroy(mesh);
    }
}

/* The slices that ranks initialise are slices of what one rank initialises. */
static void test_initial_values_know_no_layout(void **state)
{
    (void)state;
    struct tri_config config;
    small_config(SMALL_LLAMA, variants[2], &config);
    struct tri_mesh *serial = tri_mesh_create_serial();
    struct tri_params *whole = tri_params_create(&config, serial);
    tri_params_allocate(whole, false);
    tri_params_init(whole, tri_kernels_ref(), 5);
    lay_out(&config, (struct shape){4, 2, 1, 1});
    for (int rank = 0; rank < 8; rank++) {
        struct tri_mesh *mesh = tri_mesh_create_view(4, 1, 1, 2, 1, rank);
        struct tri_params *params = tri_params_create(&config, mesh);
        tri_params_allocate(params, false);
        tri_params_init(params, tri_kernels_ref(), 5);
        for (int p = 0; p < params->count; p++) {
            const struct tri_param *param = &params->param[p];
            const float *part = tri_param_weights(params, param);
            const float *all = tri_param_weights(whole, &whole->param[p]);
            int64_t columns = tri_range_size(param->local[1]);
            for (int64_t at = 0; at < param->count; at++) {
                int64_t i = param->local[0].begin + at / columns;
                int64_t j = param->local[1].begin + at % columns;
                assert_true(part[at] == all[i * param->shape[1] + j]);
            }
        }
        tri_params_destroy(params);
        tri_mesh_destroy(mesh);
    }
    /* Not all alike, and another seed gives others. */
    const struct tri_param *q = tri_params_by_name(whole, "layers.0.attention.q.weight");
    float first = *(float *)tri_param_weights(whole, q);
    assert_true(first != ((float *)tri_param_weights(whole, q))[1]);
    tri_params_init(whole, tri_kernels_ref(), 6);
    assert_true(first != *(float *)tri_param_weights(whole, q));
    tri_params_destroy(whole);
    tri_mesh_destroy(serial);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_element_counts_once),
        cmocka_unit_test(test_names_are_unique),
        cmocka_unit_test(test_buffers_are_tight),
        cmocka_unit_test(test_initial_values_know_no_layout),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
