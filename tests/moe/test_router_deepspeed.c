/* DeepSpeed's gates against files that DeepSpeed 0.19.8 wrote. */
#include "moe/fixture.h"
#include "moe/strategies.h"
#include "support/golden.h"

#include "base/memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

static const char *const gate_files[] = {
    "top1_nodrop_a", "top1_nodrop_b", "top1_rts_a",    "top1_rts_b",      "top2_a",
    "top2_b",        "top2_nodrop_a", "top2_nodrop_b", "top3_position_a", "top3_position_b",
    "top4_nodrop_a", "top4_nodrop_b", "top4_probs_a",  "top4_probs_b",
};

static struct tri_config config_of(const struct tri_safetensors *file, int64_t experts)
{
    struct tri_config config;
    fixture_config(&config);
    struct tri_config_moe *moe = &config.moe;
    const char *gate = tri_safetensors_metadata(file, "gate");
    const char *policy = tri_safetensors_metadata(file, "drop_policy");
    moe->num_experts = experts;
    moe->router = strcmp(gate, "top1") == 0   ? &tri_router_deepspeed_top1
                  : strcmp(gate, "top2") == 0 ? &tri_router_deepspeed_top2
                                              : &tri_router_deepspeed_topk;
    moe->top_k = moe->router == &tri_router_deepspeed_top1   ? 1
                 : moe->router == &tri_router_deepspeed_top2 ? 2
                                                             : (int64_t)golden_number(file, "k");
    if (golden_number(file, "drop_tokens") > 0) {
        moe->capacity_factor = golden_number(file, "capacity_factor");
    }
    moe->min_capacity = (int64_t)golden_number(file, "min_capacity");
    moe->deepspeed_rts =
        moe->router == &tri_router_deepspeed_top1 && golden_number(file, "use_rts") > 0;
    if (moe->router == &tri_router_deepspeed_top2) {
        assert_close(golden_number(file, "second_expert_sampling"), 0, 0);
    }
    moe->drop_policy =
        policy && strcmp(policy, "probs") == 0 ? TRI_DROP_PROBABILITY : TRI_DROP_POSITION;
    moe->aux_loss = 1;
    moe->capacity_window = TRI_WINDOW_RANK;
    moe->aux_window = TRI_WINDOW_RANK;
    return config;
}

static void assert_near(const float *found, const float *expected, int64_t n, const char *file,
                        const char *what)
{
    for (int64_t i = 0; i < n; i++) {
        if (!(fabs((double)found[i] - (double)expected[i]) <= 1e-6)) {
            fail_msg("%s: %s[%lld] is %.9g, DeepSpeed's is %.9g", file, what, (long long)i,
                     (double)found[i], (double)expected[i]);
        }
    }
}

static void check_places(const struct fixture *f, const struct tri_safetensors *file,
                         const char *name)
{
    const int64_t experts = f->config.moe.num_experts;
    const int64_t k = f->config.moe.top_k;
    const int64_t cells = f->call.seq * experts;
    int64_t *locations = golden_read_i64(file, "locations", cells);
    float *weights = golden_read_f32(file, "weights", cells);
    float *dense = tri_alloc(TRI_MEMORY_OTHER, (size_t)cells * sizeof(*dense));
    int64_t kept = 0;
    for (int64_t r = 0; r < f->call.seq * k; r++) {
        int64_t cell = r / k * experts + f->routes.chosen[r];
        assert_true((f->routes.expert[r] < 0) == (locations[cell] < 0));
        dense[cell] = f->routes.weight[r];
        kept += f->routes.expert[r] >= 0;
    }
    for (int64_t i = 0; i < cells; i++) {
        kept -= locations[i] >= 0;
    }
    assert_int_equal(kept, 0);
    assert_near(dense, weights, cells, name, "weights");
    tri_free(dense);
    tri_free(weights);
    tri_free(locations);
}

static void check_counts(const struct fixture *f, const struct tri_safetensors *file)
{
    const int64_t experts = f->config.moe.num_experts;
    int64_t *counts = golden_read_i64(file, "counts", experts);
    int64_t *capacity = golden_read_i64(file, "capacity", 1);
    int64_t largest = 0;
    for (int64_t e = 0; e < experts; e++) {
        assert_int_equal(f->routes.load[e], counts[e]);
        largest = counts[e] > largest ? counts[e] : largest;
    }
    if (f->config.moe.capacity_factor > 0) {
        assert_int_equal(f->routes.capacity, capacity[0]);
        assert_true(f->routes.dropped > 0);
    } else {
        assert_int_equal(f->routes.capacity, 0);
        assert_int_equal(largest, capacity[0]);
    }
    tri_free(capacity);
    tri_free(counts);
}

static void check_gradient(struct fixture *f, const struct tri_safetensors *file, const char *name)
{
    const int64_t experts = f->config.moe.num_experts;
    const int64_t k = f->config.moe.top_k;
    const int64_t cells = f->call.seq * experts;
    float *upstream = golden_read_f32(file, "upstream", cells);
    float *expected = golden_read_f32(file, "grad_logits", cells);
    float *dlogits = tri_alloc(TRI_MEMORY_OTHER, (size_t)cells * sizeof(*dlogits));
    float *dweight = tri_alloc(TRI_MEMORY_OTHER, (size_t)(f->call.seq * k) * sizeof(*dweight));
    for (int64_t r = 0; r < f->call.seq * k; r++) {
        dweight[r] = upstream[r / k * experts + f->routes.chosen[r]];
    }
    tri_router_backward(f->router, &f->call, &f->routes, NULL, (struct tri_range){0, f->call.seq},
                        dweight, dlogits);
    assert_near(dlogits, expected, cells, name, "grad_logits");
    tri_free(dweight);
    tri_free(dlogits);
    tri_free(expected);
    tri_free(upstream);
}

static void check_file(const char *name)
{
    char path[256];
    (void)snprintf(path, sizeof(path), "deepspeed_gates/%s.safetensors", name);
    struct tri_safetensors *file = golden_open(path);
    const int64_t tokens = golden_extent(file, "logits", 0);
    const int64_t experts = golden_extent(file, "logits", 1);
    struct tri_config config = config_of(file, experts);
    struct fixture f;
    fixture_begin(&f, &config, NULL, 0, 1, tokens);
    float *logits = golden_read_f32(file, "logits", tokens * experts);
    float *uniform = NULL;
    if (config.moe.deepspeed_rts) {
        uniform = golden_read_f32(file, "rts_uniform", tokens * experts);
    }
    f.call.logits = logits;
    f.call.uniform = uniform;
    double loss = fixture_forward(&f);
    float *aux_loss = golden_read_f32(file, "aux_loss", 1);
    assert_close(loss, aux_loss[0], 1e-6);
    check_counts(&f, file);
    check_places(&f, file, name);
    check_gradient(&f, file, name);
    tri_free(aux_loss);
    tri_free(uniform);
    tri_free(logits);
    fixture_end(&f);
    tri_safetensors_close(file);
}

static void test_gates(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(gate_files) / sizeof(gate_files[0]); i++) {
        check_file(gate_files[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
