/* Cases of DeepSpeed's gates: routes, capacities, balance losses and gradients of logits. */
#include "reference_check.h"

#include "base/memory.h"
#include "moe/router.h"
#include "moe/strategies.h"

#include <glob.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct gate {
    const struct tri_safetensors *file;
    const char *name;
    struct tri_config config;
    struct tri_router_call call;
    struct tri_routes routes;
    int64_t tokens, experts, k;
};

static double option(const struct tri_safetensors *file, const char *key, double absent)
{
    const char *text = tri_safetensors_metadata(file, key);
    if (!text) {
        return absent;
    }
    return strcmp(text, "True") == 0 ? 1.0 : strcmp(text, "False") == 0 ? 0.0 : strtod(text, NULL);
}

/* The config words that ask for this gate; false when the file names none that we know. */
static bool configure(struct gate *gate)
{
    struct tri_config_moe *moe = &gate->config.moe;
    const char *kind = tri_safetensors_metadata(gate->file, "gate");
    const char *policy = tri_safetensors_metadata(gate->file, "drop_policy");
    tri_config_init(&tri_strategies, &gate->config);
    moe->num_experts = gate->experts;
    moe->min_capacity = (int64_t)option(gate->file, "min_capacity", 0.0);
    moe->capacity_factor = option(gate->file, "drop_tokens", 1.0) > 0.0
                               ? option(gate->file, "capacity_factor", 1.0)
                               : 0.0;
    moe->eval_capacity_factor = moe->capacity_factor;
    moe->deepspeed_rts = option(gate->file, "use_rts", 0.0) > 0.0;
    moe->deepspeed_second_sampling = option(gate->file, "second_expert_sampling", 0.0) > 0.0;
    moe->drop_policy =
        policy && strcmp(policy, "position") == 0 ? TRI_DROP_POSITION : TRI_DROP_PROBABILITY;
    moe->aux_loss = 1.0;
    moe->capacity_window = moe->aux_window = TRI_WINDOW_RANK;
    moe->top_k = (int64_t)option(gate->file, "k", kind && strcmp(kind, "top2") == 0 ? 2.0 : 1.0);
    if (kind && strcmp(kind, "top1") == 0) {
        moe->router = &tri_router_deepspeed_top1;
    } else if (kind && strcmp(kind, "top2") == 0) {
        moe->router = &tri_router_deepspeed_top2;
    } else if (kind && strcmp(kind, "topk") == 0) {
        moe->router = &tri_router_deepspeed_topk;
    } else {
        return false;
    }
    gate->k = moe->top_k;
    return true;
}

static void report(struct check *check, const struct gate *gate, const char *what, double error,
                   double limit)
{
    char line[256];
    (void)snprintf(line, sizeof(line), "%s: %s", gate->name, what);
    check_value(check, line, error, limit);
}

static double largest_difference(const float *a, const float *b, int64_t n)
{
    double largest = 0.0;
    for (int64_t i = 0; i < n; i++) {
        double difference = fabs((double)a[i] - (double)b[i]);
        if (!(difference <= largest)) {
            largest = difference;
        }
    }
    return largest;
}

/* Routes spread out to [tokens, experts], as the files hold them. */
static void check_routes(struct check *check, const struct gate *gate)
{
    int64_t cells = gate->tokens * gate->experts;
    int64_t *locations = read_i64(gate->file, "locations", NULL);
    float *weights = read_f32(gate->file, "weights", NULL);
    float *dense = tri_alloc(TRI_MEMORY_OTHER, (size_t)cells * sizeof(*dense));
    bool *kept = tri_alloc(TRI_MEMORY_OTHER, (size_t)cells * sizeof(*kept));
    for (int64_t r = 0; r < gate->tokens * gate->k; r++) {
        if (gate->routes.expert[r] >= 0) {
            int64_t cell = r / gate->k * gate->experts + gate->routes.expert[r];
            dense[cell] = gate->routes.weight[r];
            kept[cell] = true;
        }
    }
    int64_t wrong = 0;
    for (int64_t i = 0; i < cells; i++) {
        wrong += kept[i] != (locations[i] >= 0);
    }
    report(check, gate, "routes kept that differ", (double)wrong, 0.0);
    report(check, gate, "weights", largest_difference(dense, weights, cells), 1e-6);
    tri_free(kept);
    tri_free(dense);
    tri_free(weights);
    tri_free(locations);
}

static void check_counts(struct check *check, const struct gate *gate)
{
    int64_t *counts = read_i64(gate->file, "counts", NULL);
    int64_t *capacity = read_i64(gate->file, "capacity", NULL);
    int64_t wrong = 0;
    int64_t most = 0;
    for (int64_t e = 0; e < gate->experts; e++) {
        wrong += gate->routes.load[e] != counts[e];
        most = gate->routes.load[e] > most ? gate->routes.load[e] : most;
    }
    /* Without dropping DeepSpeed's capacity is the fullest expert's count; ours has no limit. */
    int64_t ours = gate->config.moe.capacity_factor > 0.0 ? gate->routes.capacity : most;
    report(check, gate, "counts that differ", (double)wrong, 0.0);
    report(check, gate, "capacity", fabs((double)(ours - capacity[0])), 0.0);
    tri_free(capacity);
    tri_free(counts);
}

static void check_gradient(struct check *check, const struct gate *gate, struct tri_router *router)
{
    int64_t cells = gate->tokens * gate->experts;
    float *upstream = read_f32(gate->file, "upstream", NULL);
    float *expected = read_f32(gate->file, "grad_logits", NULL);
    float *got = tri_alloc(TRI_MEMORY_OTHER, (size_t)cells * sizeof(*got));
    float *dweight =
        tri_alloc(TRI_MEMORY_OTHER, (size_t)(gate->tokens * gate->k) * sizeof(*dweight));
    for (int64_t r = 0; r < gate->tokens * gate->k; r++) {
        dweight[r] = upstream[r / gate->k * gate->experts + gate->routes.chosen[r]];
    }
    tri_router_backward(router, &gate->call, &gate->routes, NULL,
                        (struct tri_range){0, gate->tokens}, dweight, got);
    report(check, gate, "grad_logits", largest_difference(got, expected, cells), 1e-6);
    tri_free(dweight);
    tri_free(got);
    tri_free(expected);
    tri_free(upstream);
}

static void check_gate(struct check *check, const struct tri_safetensors *file, const char *name)
{
    struct gate gate = {.file = file, .name = name};
    const struct tri_safetensor *shape = need(file, "logits");
    gate.tokens = shape->shape[0];
    gate.experts = shape->shape[1];
    if (!configure(&gate)) {
        report(check, &gate, "a gate that Trident does not know", 1.0, 0.0);
        return;
    }
    struct tri_mesh *mesh = tri_mesh_create_serial();
    struct tri_router *router = tri_router_create(&gate.config, mesh, 1);
    float *logits = read_f32(file, "logits", NULL);
    float *uniform =
        tri_safetensors_find(file, "rts_uniform") ? read_f32(file, "rts_uniform", NULL) : NULL;
    gate.call = (struct tri_router_call){.logits = logits,
                                         .rows = 1,
                                         .seq = gate.tokens,
                                         .global_tokens = gate.tokens,
                                         .training = true,
                                         .uniform = uniform,
                                         .phase = TRI_PHASE_FORWARD};
    void *block = tri_alloc(TRI_MEMORY_OTHER, tri_routes_bytes(&gate.config, 1, gate.tokens));
    tri_routes_place(&gate.config, 1, gate.tokens, block, &gate.routes);
    tri_router_forward(router, &gate.call, &gate.routes, NULL);
    float *aux = read_f32(file, "aux_loss", NULL);
    report(check, &gate, "aux_loss", fabs(gate.routes.aux_loss - (double)aux[0]), 1e-6);
    check_counts(check, &gate);
    check_routes(check, &gate);
    check_gradient(check, &gate, router);
    tri_free(aux);
    tri_free(block);
    tri_free(uniform);
    tri_free(logits);
    tri_router_destroy(router);
    tri_mesh_destroy(mesh);
}

void check_gates(struct check *check, const char *dir)
{
    char pattern[TRI_PATH_MAX + 32];
    glob_t found;
    (void)snprintf(pattern, sizeof(pattern), "%s/*.safetensors", dir);
    struct tri_error error;
    if (glob(pattern, 0, NULL, &found) != 0) {
        (void)tri_fail(&error, TRI_BAD_INPUT, "%s: neither config.json nor *.safetensors here",
                       dir);
        quit(&error);
    }
    for (size_t i = 0; i < found.gl_pathc; i++) {
        struct tri_safetensors *file;
        if (tri_safetensors_open(found.gl_pathv[i], &file, &error) != TRI_OK) {
            quit(&error);
        }
        const char *slash = strrchr(found.gl_pathv[i], '/');
        check_gate(check, file, slash ? slash + 1 : found.gl_pathv[i]);
        tri_safetensors_close(file);
    }
    globfree(&found);
}
