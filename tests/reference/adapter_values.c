/* adapter/, adapter_fused/: a model with PEFT's low-rank pairs beside its weights.
 * adapted.safetensors: loss, logits and the gradients of the pairs. */
#include "reference_check.h"

#include "base/file.h"
#include "base/memory.h"
#include "checkpoint/peft.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Adds what a piece has of a tensor's gradient: A of several weights may be one, whose gradient is
 * the sum of theirs. */
static void add_piece(const struct tri_engine *engine, const struct tri_peft_piece *piece,
                      float *sum)
{
    const struct tri_param *row = piece->param;
    float *got =
        tri_alloc(TRI_MEMORY_OTHER, (size_t)(row->shape[0] * row->shape[1]) * sizeof(*got));
    tri_param_gather(engine->params, row, TRI_FIELD_GRADIENT, got);
    for (int64_t i = 0; i < piece->rows; i++) {
        for (int64_t j = 0; j < piece->columns; j++) {
            sum[(piece->row + i) * piece->shape[1] + piece->column + j * piece->stride] +=
                got[i * row->shape[1] + j];
        }
    }
    tri_free(got);
}

/* Of a tensor and its pieces; pairs that the adapter does not have have none there. */
static void check_tensor(struct check *check, const struct tri_engine *engine,
                         const struct tri_peft_piece *pieces, int count,
                         const struct tri_safetensors *reference, double whole)
{
    char name[TRI_PEFT_NAME + 8];
    size_t elements = (size_t)(pieces->shape[0] * pieces->shape[1]);
    float *got = tri_alloc(TRI_MEMORY_OTHER, elements * sizeof(*got));
    (void)snprintf(name, sizeof(name), "grad.%s", pieces->name);
    for (int i = 0; i < count; i++) {
        add_piece(engine, &pieces[i], got);
    }
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

static void check_gradients(struct check *check, const struct tri_engine *engine,
                            const struct tri_peft_form *form,
                            const struct tri_safetensors *reference, double whole)
{
    struct tri_peft_piece *pieces =
        tri_alloc(TRI_MEMORY_OTHER, (size_t)engine->params->count * sizeof(*pieces));
    int count = tri_peft_pieces(form, engine->params, pieces);
    for (int i = 0, n; i < count; i += n) {
        for (n = 1; i + n < count && strcmp(pieces[i].name, pieces[i + n].name) == 0;) {
            n++;
        }
        check_tensor(check, engine, &pieces[i], n, reference, whole);
    }
    tri_free(pieces);
}

static void check_adapter(struct check *check, const struct subject *subject, const char *name)
{
    char dir[TRI_PATH_MAX], path[TRI_PATH_MAX + 32];
    struct tri_error error;
    struct tri_safetensors *reference;
    (void)snprintf(dir, sizeof(dir), "%s/%s", subject->dir, name);
    (void)snprintf(path, sizeof(path), "%s/adapted.safetensors", dir);
    if (!tri_file_exists(path)) {
        return;
    }
    struct tri_peft_form form;
    struct subject adapted = *subject;
    adapted.config.moe.aux_loss = 0.0;
    if (tri_safetensors_open(path, &reference, &error) != TRI_OK ||
        tri_peft_load_config(dir, &adapted.config.train.lora, &form, &error) != TRI_OK) {
        quit(&error);
    }
    struct tri_engine *engine = subject_engine(&adapted);
    if (tri_peft_load(dir, &adapted.config, engine->params, &error) != TRI_OK) {
        quit(&error);
    }
    double whole = check_batch(check, &adapted, engine, reference);
    form.family = adapted.family;
    form.experts = adapted.config.moe.num_experts;
    check_gradients(check, engine, &form, reference, whole);
    tri_engine_destroy(engine);
    tri_safetensors_close(reference);
}

void check_adapted_values(struct check *check, const struct subject *subject)
{
    check_adapter(check, subject, "adapter");
    check_adapter(check, subject, "adapter_fused");
}
