/* adapter/: a model with PEFT's low-rank pairs beside its weights. adapted.safetensors: loss,
 * logits and the gradients of the pairs. */
#include "reference_check.h"

#include "base/file.h"
#include "base/memory.h"
#include "checkpoint/peft.h"
#include "model/low_rank.h"

#include <math.h>
#include <stdio.h>

/* Of one half; pairs that the adapter does not have have none there. */
static void check_half(struct check *check, const struct tri_engine *engine,
                       const struct tri_hf_source *source, char half, const struct tri_param *row,
                       const struct tri_safetensors *reference, double whole)
{
    char name[TRI_PEFT_NAME + 8] = "grad.";
    tri_peft_name(source, half, name + 5);
    float *got =
        tri_alloc(TRI_MEMORY_OTHER, (size_t)(row->shape[0] * row->shape[1]) * sizeof(*got));
    tri_param_gather(engine->params, row, TRI_FIELD_GRADIENT, got);
    if (job_rank() == 0 && tri_safetensors_find(reference, name)) {
        int64_t n;
        float *expected = read_f32(reference, name, &n);
        double norm = l2_norm(expected, n);
        double error = relative_l2(got, expected, n);
        bool tiny = norm < 1e-3 * whole;
        error = !tiny ? error : norm > 0.0 ? error * norm / whole : l2_norm(got, n) / whole;
        check_value(check, name, error, tiny ? 1e-8 : 1e-5);
        tri_free(expected);
    }
    tri_free(got);
}

static void check_gradients(struct check *check, const struct subject *subject,
                            const struct tri_engine *engine,
                            const struct tri_safetensors *reference, double whole)
{
    for (int p = 0; p < engine->params->count; p++) {
        const struct tri_param *a, *b, *weight = &engine->params->param[p];
        struct tri_hf_source source;
        if (tri_low_rank_find(engine->params, weight, &a, &b) &&
            tri_hf_source_get(subject->family, weight, subject->config.moe.num_experts,
                              TRI_HF_PER_EXPERT, &source)) {
            check_half(check, engine, &source, 'A', a, reference, whole);
            check_half(check, engine, &source, 'B', b, reference, whole);
        }
    }
}

void check_adapted_values(struct check *check, const struct subject *subject)
{
    char dir[TRI_PATH_MAX], path[TRI_PATH_MAX + 32];
    struct tri_error error;
    struct tri_safetensors *reference;
    (void)snprintf(dir, sizeof(dir), "%s/adapter", subject->dir);
    (void)snprintf(path, sizeof(path), "%s/adapted.safetensors", dir);
    if (!tri_file_exists(path)) {
        return;
    }
    struct subject adapted = *subject;
    adapted.config.moe.aux_loss = 0.0;
    if (tri_safetensors_open(path, &reference, &error) != TRI_OK ||
        tri_peft_load_config(dir, &adapted.config.train.lora, &error) != TRI_OK) {
        quit(&error);
    }
    struct tri_engine *engine = subject_engine(&adapted);
    if (tri_peft_load(dir, &adapted.config, engine->params, &error) != TRI_OK) {
        quit(&error);
    }
    double whole = check_batch(check, &adapted, engine, reference);
    check_gradients(check, &adapted, engine, reference, whole);
    tri_engine_destroy(engine);
    tri_safetensors_close(reference);
}
