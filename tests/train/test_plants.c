/* What is wrong is found: gradients scaled on purpose (verify's own plant), and faults of the kind
 * that others have shipped, planted around the functions that reduce and update (the linker's
 * --wrap: the sources stay as they are). */
#include "support/small.h"

#include "train/verify.h"

#include <string.h>

enum fault {
    FAULT_NONE,
    FAULT_EXPERTS_DIVIDED,     /* expert gradients divided by the expert degree */
    FAULT_EXPERTS_OVER_EXPERT, /* summed over {expert} instead of {data} */
    FAULT_NO_TENSOR_SYNC,      /* partial sums over tensor left as they are */
    FAULT_REDUCE_SKIPPED,      /* one kind of sum over tensor in the backward left out */
    FAULT_OTHER_RATE,          /* one rank steps at another learning rate */
    FAULT_OLD_MOMENTS,         /* one rank's moments are corrected for another step */
    FAULT_OWN_LOADS            /* the balancing biases follow the replica's own loads */
};

static enum fault fault;
static int64_t loads; /* how many they are, for the last */
static enum tri_kind skipped;

static void scale_experts(struct tri_params *params, int64_t block, double factor)
{
    struct tri_range rows = tri_params_rows(params, block);
    for (int64_t p = rows.begin; p < rows.end; p++) {
        const struct tri_param *param = &params->param[p];
        float *gradients = tri_param_gradients(params, param);
        for (int64_t j = 0; param->place == TRI_PLACE_EXPERT && j < param->count; j++) {
            gradients[j] = (float)((double)gradients[j] * factor);
        }
    }
}

static void use_expert_group(struct tri_params *params, struct tri_group *group)
{
    for (int i = 0; i < TRI_BUFFERS; i++) {
        if (params->buffer[i].replicas == TRI_EXPERT) {
            params->buffer[i].group = group;
        }
    }
}

void __real_tri_gradients_reduce(struct tri_params *params, const struct tri_kernels *kernels,
                                 int64_t block, bool begin);
void __wrap_tri_gradients_reduce(struct tri_params *params, const struct tri_kernels *kernels,
                                 int64_t block, bool begin);
void __wrap_tri_gradients_reduce(struct tri_params *params, const struct tri_kernels *kernels,
                                 int64_t block, bool begin)
{
    const struct tri_mesh *mesh = params->mesh;
    if (fault == FAULT_EXPERTS_DIVIDED) {
        scale_experts(params, block, 1.0 / mesh->size[TRI_AXIS_EXPERT]);
    }
    if (fault == FAULT_EXPERTS_OVER_EXPERT) {
        use_expert_group(params, tri_mesh_group(mesh, TRI_ON_EXPERT));
    }
    for (int p = 0; fault == FAULT_NO_TENSOR_SYNC && p < params->count; p++) {
        params->param[p].sync = TRI_SYNC_NONE;
    }
    __real_tri_gradients_reduce(params, kernels, block, begin);
    use_expert_group(params, tri_mesh_group(mesh, TRI_ON_DATA));
}

/* Whether a sum is left out. */
static bool is_skipped(struct tri_where where)
{
    return fault == FAULT_REDUCE_SKIPPED && where.phase == TRI_PHASE_BACKWARD &&
           where.kind == skipped;
}

void __real_tri_all_reduce_sum(struct tri_group *group, struct tri_where where, void *data,
                               int64_t n, enum tri_dtype dtype);
void __wrap_tri_all_reduce_sum(struct tri_group *group, struct tri_where where, void *data,
                               int64_t n, enum tri_dtype dtype);
void __wrap_tri_all_reduce_sum(struct tri_group *group, struct tri_where where, void *data,
                               int64_t n, enum tri_dtype dtype)
{
    bool of_loads = where.kind == TRI_KIND_META && where.phase == TRI_PHASE_OPTIMIZER &&
                    dtype == TRI_I64 && n == loads;
    if (fault == FAULT_OWN_LOADS && of_loads) {
        return;
    }
    if (!is_skipped(where)) {
        __real_tri_all_reduce_sum(group, where, data, n, dtype);
    }
}

void __real_tri_reduce_scatter_v(struct tri_group *group, struct tri_where where, void *data,
                                 const int64_t *counts, enum tri_dtype dtype);
void __wrap_tri_reduce_scatter_v(struct tri_group *group, struct tri_where where, void *data,
                                 const int64_t *counts, enum tri_dtype dtype);
void __wrap_tri_reduce_scatter_v(struct tri_group *group, struct tri_where where, void *data,
                                 const int64_t *counts, enum tri_dtype dtype)
{
    if (!is_skipped(where)) {
        __real_tri_reduce_scatter_v(group, where, data, counts, dtype);
    }
}

struct tri_request *__real_tri_all_reduce_sum_begin(struct tri_group *group, struct tri_where where,
                                                    void *data, int64_t n, enum tri_dtype dtype);
struct tri_request *__wrap_tri_all_reduce_sum_begin(struct tri_group *group, struct tri_where where,
                                                    void *data, int64_t n, enum tri_dtype dtype);
struct tri_request *__wrap_tri_all_reduce_sum_begin(struct tri_group *group, struct tri_where where,
                                                    void *data, int64_t n, enum tri_dtype dtype)
{
    return is_skipped(where) ? NULL : __real_tri_all_reduce_sum_begin(group, where, data, n, dtype);
}

struct tri_request *__real_tri_reduce_scatter_v_begin(struct tri_group *group,
                                                      struct tri_where where, void *data,
                                                      const int64_t *counts, enum tri_dtype dtype);
struct tri_request *__wrap_tri_reduce_scatter_v_begin(struct tri_group *group,
                                                      struct tri_where where, void *data,
                                                      const int64_t *counts, enum tri_dtype dtype);
struct tri_request *__wrap_tri_reduce_scatter_v_begin(struct tri_group *group,
                                                      struct tri_where where, void *data,
                                                      const int64_t *counts, enum tri_dtype dtype)
{
    return is_skipped(where) ? NULL
                             : __real_tri_reduce_scatter_v_begin(group, where, data, counts, dtype);
}

void __real_tri_optimizer_step(struct tri_optimizer *optimizer, int64_t update,
                               double learning_rate, double scale);
void __wrap_tri_optimizer_step(struct tri_optimizer *optimizer, int64_t update,
                               double learning_rate, double scale);
void __wrap_tri_optimizer_step(struct tri_optimizer *optimizer, int64_t update,
                               double learning_rate, double scale)
{
    bool here = job_rank() == 1; /* rank 0 has the reference too */
    if (here && fault == FAULT_OTHER_RATE) {
        learning_rate *= 1.02;
    }
    __real_tri_optimizer_step(optimizer, update + (here && fault == FAULT_OLD_MOMENTS),
                              learning_rate, scale);
}

static struct tri_verify_result verify_steps(enum small_style style, const char *words,
                                             struct small_layout layout, int64_t steps,
                                             const char *plant, double factor)
{
    struct tri_config config;
    struct tri_verify_result result;
    struct tri_error error;
    const struct tri_verify_options options = {1, steps, plant, factor};
    small_config(style, words, &config);
    small_config_lay_out(&config, layout);
    CHECK(tri_verify(job(), &config, &options, &result, &error) == TRI_OK);
    return result;
}

static struct tri_verify_result verify(enum small_style style, const char *words,
                                       struct small_layout layout, const char *plant, double factor)
{
    return verify_steps(style, words, layout, 0, plant, factor);
}

static void scaled_gradients(void)
{
    static const char *const planted[] = {
        "embedding.weight",
        "layers.0.attention.k.weight",
        "layers.1.attention.o.weight",
        "layers.1.moe.router.weight",
        "layers.1.moe.experts.3.up.weight",
        "layers.0.moe.shared.down.weight",
        "final_norm.weight",
    };
    struct small_layout layouts[SMALL_LAYOUTS];
    int count = small_layouts(job_size(), 8, layouts);
    for (int i = 0; i < count; i++) {
        for (int p = i % 2; p < (int)(sizeof(planted) / sizeof(*planted)); p += 2) {
            struct tri_verify_result result =
                verify(SMALL_LLAMA, "", layouts[i], planted[p], p % 3 ? 1.001 : -1.0);
            if (result.passed || strcmp(result.worst_parameter, planted[p]) != 0) {
                tri_panic(TRI_FAILED, "%s: planted %s, found %s", small_layout_text(layouts[i]),
                          planted[p], result.worst_parameter);
            }
        }
        CHECK(verify(SMALL_LLAMA, "", layouts[i], "layers.0.norm1.weight", 1.0).passed);
    }
}

static void expect_found(enum fault planted, const char *words, struct small_layout layout,
                         const char *name)
{
    CHECK(verify(SMALL_LLAMA, words, layout, NULL, 1.0).passed);
    fault = planted;
    struct tri_verify_result result = verify(SMALL_LLAMA, words, layout, NULL, 1.0);
    fault = FAULT_NONE;
    if (result.passed || !strstr(result.worst_parameter, name)) {
        tri_panic(TRI_FAILED, "fault %d (kind %d) on %s: found '%s', not '%s'", (int)planted,
                  (int)skipped, small_layout_text(layout), result.worst_parameter, name);
    }
}

static void wrong_reductions(void)
{
    const struct small_layout cut = {2, 2, 2, 1, 1};
    const struct small_layout whole = {2, 2, 1, 1, 1};
    expect_found(FAULT_EXPERTS_DIVIDED, "", (struct small_layout){1, 2, 1, 1, 1}, ".experts.");
    expect_found(FAULT_EXPERTS_DIVIDED, "", cut, ".experts.");
    expect_found(FAULT_EXPERTS_OVER_EXPERT, "", (struct small_layout){1, 2, 1, 1, 1}, ".experts.");
    expect_found(FAULT_NO_TENSOR_SYNC, "", whole, ".router.");
    expect_found(FAULT_NO_TENSOR_SYNC, "model.num_kv_heads=1", cut, ".attention.");
    expect_found(FAULT_NO_TENSOR_SYNC, "model.qk_norm=head", cut, "_norm.weight");
}

static void skipped_reductions(void)
{
    static const enum tri_kind kinds[] = {TRI_KIND_ATTENTION, TRI_KIND_MLP, TRI_KIND_MOE,
                                          TRI_KIND_SHARED_EXPERT, TRI_KIND_HEAD};
    static const char *const words[] = {
        "moe.every=2 model.qk_norm=full",
        "moe.every=2 train.duplicate_token_dropping=false",
        "moe.every=2 train.sequence_parallel=true train.recompute=full",
    };
    for (int i = 0; i < (int)(sizeof(kinds) / sizeof(*kinds)); i++) {
        skipped = kinds[i];
        for (int w = 0; w < (int)(sizeof(words) / sizeof(*words)); w++) {
            expect_found(FAULT_REDUCE_SKIPPED, words[w], (struct small_layout){2, 2, 2, 1, 1}, "");
        }
    }
}

/* Gradients agree; what the optimizer makes of them does not. */
static void wrong_updates(void)
{
    static const enum fault faults[] = {FAULT_NONE, FAULT_OTHER_RATE, FAULT_OLD_MOMENTS};
    struct small_layout layouts[SMALL_LAYOUTS];
    int count = small_layouts(job_size(), 8, layouts);
    for (int i = 0; i < count; i++) {
        const char *words = i % 2 ? "moe.bias_balancing=0.01" : "model.bias=all";
        for (int f = 0; f < 3; f++) {
            fault = faults[f];
            struct tri_verify_result result =
                verify_steps(i % 3 ? SMALL_LLAMA : SMALL_GPT, words, layouts[i], 4, NULL, 1.0);
            fault = FAULT_NONE;
            if (result.passed != (f == 0) || (f > 0 && !(result.worst_change > 5e-3))) {
                tri_panic(TRI_FAILED, "fault %d on %s: changes differ by %.3g in %s",
                          (int)faults[f], small_layout_text(layouts[i]), result.worst_change,
                          result.worst_changed);
            }
        }
    }
}

/* Weights agree, and so do the biases, but for what the loads say. */
static void wrong_biases(void)
{
    static const char words[] = "moe.bias_balancing=0.01";
    const struct small_layout layout = {1, 2, 1, 1, 1};
    struct tri_config config;
    small_config(SMALL_LLAMA, words, &config);
    loads = tri_model_moe_layers(&config) * config.moe.num_experts;
    fault = FAULT_OWN_LOADS;
    struct tri_verify_result result = verify_steps(SMALL_LLAMA, words, layout, 2, NULL, 1.0);
    fault = FAULT_NONE;
    CHECK(!result.passed && strcmp(result.worst_changed, "balancing biases") == 0);
}

static int run_job(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    CHECK(job_size() == 4);
    scaled_gradients();
    wrong_reductions();
    skipped_reductions();
    wrong_updates();
    wrong_biases();
    return 0;
}

int main(int argc, char **argv)
{
    return job_run(argc, argv, run_job);
}
